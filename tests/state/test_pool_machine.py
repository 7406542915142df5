"""Any sequence of verbs over a pool against a model in exact fractions: parts, lending, debts, refunds, other plans.

The model replays each part: all that was taken, each share at the time of its admission with what was truly used of it
(what is held counts whole), and every charge and gain when it came. TIDEGATE_EXAMPLES sets the number of examples (200;
the proof runs 10,000). A failure is only made smaller where TIDEGATE_SHRINK is set.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.clock import ManualClock
from gateway.state.memory import MemoryStore
from gateway.state.plan import REFILL_SCALE, Part, Plan, View
from gateway.state.store import Store

EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "200"))
TTL_NS = 20_000_000_000
IDLE_NS = 3_000_000_000
SECOND = 1_000_000_000
#: Kinds of callers: what they take, how many of it are their own, what they borrow, who owes.
KINDS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...], str]] = {
    "plain": (("shared",), 0, (), "shared"),
    "short": (("shared",), 0, ("reserved", "client a"), "shared"),
    "urgent": (("reserved", "shared"), 1, (), "shared"),
    "a": (("client a", "shared"), 1, (), "client a"),
    "a short": (("client a", "shared"), 1, ("reserved",), "client a"),
    "a urgent": (("client a", "reserved", "shared"), 2, (), "client a"),
    "own a": (("client a",), 1, (), "client a"),
    "own urgent": (("reserved",), 1, (), "shared"),
}


@dataclass(eq=False)
class Event:
    """At `at` (and in this order) a part lost `amount`, or gained it, or got other figures."""

    at: int
    kind: str  # "take", "gain", "figures"
    amount: Fraction = Fraction(0)
    capacity: int = 0
    rate: Fraction = Fraction(0)


@dataclass(eq=False)
class PartModel:
    """One bucket by replay."""

    capacity: int
    rate: Fraction  # a nanosecond
    born: int
    level_then: Fraction
    events: list[Event] = field(default_factory=list)
    held: int = 0
    lent: Fraction = Fraction(0)
    asked: int | None = None

    def level(self, now: int) -> Fraction:
        at, level, capacity, rate = self.born, self.level_then, Fraction(self.capacity), self.rate
        for event in [*self.events, Event(now, "end")]:
            level, at = min(capacity, level + rate * (event.at - at)), event.at
            if event.kind == "take":
                level -= event.amount
            elif event.kind == "gain":
                level = min(capacity, level + event.amount)
            elif event.kind == "figures":
                capacity, rate = Fraction(event.capacity), event.rate
                level = min(capacity, level)
        return level

    def figures(self) -> tuple[int, Fraction]:
        last = [event for event in self.events if event.kind == "figures"]
        return (last[-1].capacity, last[-1].rate) if last else (self.capacity, self.rate)


@dataclass(eq=False)
class Share:
    """What a hold has of one part."""

    part: PartModel
    event: Event
    reserved: Fraction
    right: str


@dataclass(eq=False)
class Want:
    """What a hold has of the pool by one view."""

    kind: str
    amount: int
    at: int
    shares: list[Share]
    counts: Fraction  # held or settled, debts apart


class PoolMachine(RuleBasedStateMachine):
    backend: type[Store] = MemoryStore

    @initialize(capacity=st.integers(4, 12), refill=st.integers(0, 9), percent=st.integers(0, 30))
    def begin(self, capacity: int, refill: int, percent: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(7)
        self.store: Store = self.backend(self.clock)  # type: ignore[call-arg]  # backends take a clock
        self.version = 1
        self.plan = self.planned(capacity, refill, percent, True)
        self.models = {
            part.name: PartModel(part.capacity, rate_of(part), 7, Fraction(part.capacity)) for part in self.plan.parts
        }
        self.holds: dict[str, tuple[int, list[Want]]] = {}
        self.wants: list[Want] = []
        self.minted = Fraction(0)  # by plans that found the pool as good as new
        self.most = (self.plan.capacity, sum(map(rate_of, self.plan.parts)))
        self.paused_until = 0
        self.count = 0
        self.view_all()

    def planned(self, capacity: int, refill: int, percent: int, with_client: bool) -> Plan:
        """The parts of the whole, as the configuration divides it."""
        reserved = capacity * percent // 100
        own = 2 if with_client else 0
        total = refill * REFILL_SCALE
        shares = [Part("client a", own, total // 5)] if with_client else []
        shares.append(Part("reserved", reserved, total * percent // 100))
        rest = total - sum(part.refill for part in shares)
        return Plan("pool", (Part("shared", capacity - reserved - own, rest), *shares), IDLE_NS, self.version)

    def view_all(self) -> None:
        names = {part.name: part.capacity for part in self.plan.parts}
        self.views = {
            kind: View(
                f"pool {kind}", sum(names.get(name, 0) for name in takes), group="pool", plan=self.plan, takes=takes,
                owned=owned, borrows=borrows, debtor=debtor,
            )
            for kind, (takes, owned, borrows, debtor) in KINDS.items()
        }  # fmt: skip

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    # -- the model's own decisions

    def take(self, kind: str, amount: int, now: int) -> Want | None:
        takes, owned, borrows, _ = KINDS[kind]
        mine = [self.models[name] for name in takes[:owned] if name in self.models]
        for part in mine:
            part.asked = now
        if amount and now < self.paused_until:
            return None
        shares: list[tuple[PartModel, Fraction, str]] = []
        need = Fraction(amount)
        for name in (*takes, *borrows):
            part = self.models.get(name)
            if part is None or (name in borrows and not self.lends(part, now)):
                continue
            share = min(need, part.level(now))
            if share > 0:
                shares.append((part, share, "own" if part in mine else "lent" if name in borrows else "shared"))
                need -= share
        if need:
            return None
        taken = []
        for part, share, right in shares:
            event = Event(now, "take", share)
            part.events.append(event)
            part.held += right == "own"
            part.lent += share if right == "lent" else 0
            taken.append(Share(part, event, share, right))
        return Want(kind, amount, now, taken, Fraction(amount))

    @staticmethod
    def lends(part: PartModel, now: int) -> bool:
        return not part.held and (part.asked is None or now - part.asked >= IDLE_NS)

    def give_back(self, want: Want, used: int, now: int) -> None:
        left = Fraction(max(0, used))
        want.counts = min(left, Fraction(want.amount))
        for share in want.shares:
            kept = min(share.reserved, left)
            left -= kept
            share.event.amount = kept
            if share.right == "own":
                share.part.held -= 1
                share.part.asked = now
            elif share.right == "lent":
                share.part.lent -= share.reserved
        if left:
            debtor = KINDS[want.kind][3]
            part = self.models.get(debtor, self.models["shared"])
            part.events.append(Event(now, "take", left))

    # -- what happens

    @rule(wants=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 9)), min_size=1, max_size=3))
    def reserve(self, wants: list[tuple[str, int]]) -> None:
        self.count += 1
        now = self.clock.now_ns()
        taken: list[Want] = []
        for kind, amount in wants:
            want = self.take(kind, amount, now)
            if want is None:
                break
            taken.append(want)
        lacking = self.lacking(wants, taken, now) if len(taken) < len(wants) else []
        grant = self.do(
            self.store.reserve(
                f"hold-{self.count}", [(self.views[kind], amount) for kind, amount in wants], TTL_NS / 1e9
            )
        )
        assert [lack.index for lack in grant.lacks] == lacking
        if lacking:
            if len(wants) == 1:
                self.comes_back(*wants[0], grant.lacks[0].retry_after_s, now)
        else:
            self.holds[f"hold-{self.count}"] = (now + TTL_NS, taken)
            self.wants += taken

    def lacking(self, wants: list[tuple[str, int]], taken: list[Want], now: int) -> list[int]:
        """Everything is given back, then each is tried beside those that fit."""
        self.drop(taken, now)
        taken, lacking = [], []
        for index, (kind, amount) in enumerate(wants):
            want = self.take(kind, amount, now)
            if want is None:
                lacking.append(index)
            else:
                taken.append(want)
        self.drop(taken, now)
        return lacking

    def drop(self, taken: list[Want], now: int) -> None:
        for want in taken:
            self.give_back(want, 0, now)
            for share in want.shares:
                share.part.events.remove(share.event)

    def comes_back(self, kind: str, amount: int, wait_s: float | None, now: int) -> None:
        """The wait that is told is the shortest after which it would be there, in whole milliseconds."""
        takes, _, borrows, _ = KINDS[kind]
        names = [*takes, *[name for name in borrows if name in self.models and self.lends(self.models[name], now)]]
        parts = [self.models[name] for name in names if name in self.models]

        def there(ns: int) -> bool:
            return ns >= self.paused_until and sum(max(Fraction(0), part.level(ns)) for part in parts) >= amount

        counted = sum(part.figures()[0] for name, part in self.models.items() if name in takes)
        if amount > counted:
            assert wait_s is None
            return
        if not there(now + 10**15):  # time brings nothing back, but who holds some may
            held = [share.part for _, wants in self.holds.values() for want in wants for share in want.shares]
            assert (wait_s is not None) == any(part in parts for part in held)
            return
        assert wait_s is not None
        wait_ns = round(wait_s * 1000) * 1_000_000
        assert there(now + wait_ns)
        assert not there(now + wait_ns - 1_000_000)

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        wants = self.holds.pop(hold)[1]
        actual = [data.draw(st.one_of(st.integers(0, want.amount), st.integers(0, want.amount + 4))) for want in wants]
        self.do(self.store.settle(hold, actual))
        for want, used in zip(wants, actual, strict=True):
            self.give_back(want, used, self.clock.now_ns())

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        self.do(self.store.release(hold))
        for want in reversed(self.holds.pop(hold)[1]):
            self.give_back(want, 0, self.clock.now_ns())

    @rule(ns=st.one_of(st.integers(0, 3), st.integers(0, 4_000_000_000), st.integers(0, 40_000_000_000)))
    def pass_time(self, ns: int) -> None:
        self.clock._now_ns += ns
        self.do(self.store.renew("nobody", 1))  # holds end when the store is asked next
        for hold, (expires, wants) in list(self.holds.items()):
            if expires <= self.clock.now_ns():
                del self.holds[hold]
                for want in wants:
                    self.give_back(want, want.amount, self.clock.now_ns())

    @rule(remaining=st.one_of(st.none(), st.integers(0, 12)), pause=st.integers(0, 2), age=st.integers(0, 2))
    def learn(self, remaining: int | None, pause: int, age: int) -> None:
        now = self.clock.now_ns()
        self.do(self.store.learn(self.views["plain"], remaining, float(pause), float(age)))
        self.paused_until = max(self.paused_until, now + pause * SECOND)
        if remaining is None:
            return
        most = remaining + age * SECOND * sum(map(rate_of, self.plan.parts))
        over = sum(max(Fraction(0), part.level(now)) for part in self.models.values()) - most
        for part in self.models.values():
            share = min(over, part.level(now))
            if share > 0:
                part.events.append(Event(now, "take", share))
                over -= share

    @rule(capacity=st.integers(4, 12), refill=st.integers(0, 9), percent=st.integers(0, 30), with_client=st.booleans())
    def divide_anew(self, capacity: int, refill: int, percent: int, with_client: bool) -> None:
        """A reload, or the first or last day of a dedicated part."""
        self.version += 1
        now, before, self.plan = self.clock.now_ns(), self.models, self.planned(capacity, refill, percent, with_client)
        self.view_all()
        parts = self.do(self.store.parts(self.views["plain"]))
        as_new = all(
            part.level(now) == part.figures()[0]
            and not any(share.part is part for _, wants in self.holds.values() for one in wants for share in one.shares)
            for part in before.values()
        )
        self.models, over = {}, Fraction(0)
        for part in self.plan.parts:
            model = before.pop(part.name, None)
            if model is None:
                model = PartModel(part.capacity, rate_of(part), now, Fraction(0))
            else:
                over += max(Fraction(0), model.level(now) - part.capacity)
                model.events.append(Event(now, "figures", capacity=part.capacity, rate=rate_of(part)))
            self.models[part.name] = model
        over += sum(model.level(now) for model in before.values())
        if as_new:
            self.minted += self.plan.capacity - sum(model.level(now) for model in self.models.values())
            over = Fraction(self.plan.capacity)
        if over < 0:
            self.models["shared"].events.append(Event(now, "take", -over))
        for model in self.models.values():
            gain = min(over, model.figures()[0] - model.level(now))
            if gain > 0:
                model.events.append(Event(now, "gain", gain))
                over -= gain
        self.most = (
            max(self.most[0], self.plan.capacity),
            max(self.most[1], sum(map(rate_of, self.plan.parts))),
        )
        assert [level.name for level in parts] == list(self.models)

    # -- what must hold

    @invariant()
    def same_levels(self) -> None:
        if not hasattr(self, "store"):
            return
        now = self.clock.now_ns()
        for level in self.do(self.store.parts(self.views["plain"])):
            model = self.models[level.name]
            there = model.level(now)
            assert level.available == max(0, there // 1), level
            assert level.debt == max(0, -(there // 1)), level
            assert level.lent == -(-model.lent // 1), level
            assert there <= level.capacity
        levels = self.do(self.store.levels(list(self.views.values())))
        for (kind, view), level in zip(self.views.items(), levels, strict=True):
            parts = [self.models[name].level(now) for name in view.takes if name in self.models]
            assert level.remaining == (sum(one for one in parts if one > 0) or sum(parts)) // 1, kind

    @invariant()
    def within_bounds(self) -> None:
        """Over every window, by time of admission: settled plus held <= burst + rate x time, debts charged apart."""
        if not hasattr(self, "store"):
            return
        capacity, rate = self.most
        times = sorted({want.at for want in self.wants})
        for start in times:
            for end in times:
                inside = sum(want.counts for want in self.wants if start <= want.at <= end)
                assert end < start or inside <= capacity + self.minted + rate * (end - start)


def rate_of(part: Part) -> Fraction:
    return Fraction(part.refill, REFILL_SCALE * SECOND)


quick = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "TIDEGATE_SHRINK" in os.environ],
)


@pytest.mark.timeout(3600)
def test_any_sequence_over_a_pool_agrees_with_exact_fractions() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(PoolMachine, settings=quick)
