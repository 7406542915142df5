"""Any sequence of verbs against a model in exact fractions: same decisions, same levels, and the bound of TERMS 3.

The model keeps no clever structure: it replays all that was admitted, each call at the time of its admission with what
it truly used (what is held counts whole), and what was used above the reservation when it was settled.
TIDEGATE_EXAMPLES sets the number of examples (300; the proof runs 10,000). A failure is only made smaller where
TIDEGATE_SHRINK is set, since that takes minutes.
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
from gateway.state.store import Bucket, Limit, Slots, Store, Tally, Window

EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "300"))
SPAN_NS = 6_000_000_007  # not a whole number of slices
TTL_NS = 20_000_000_000


@dataclass(eq=False)
class Part:
    """What one hold has of one limit: when it was admitted, how much counts, what was reserved."""

    at: int
    amount: int
    reserved: int
    open: bool = True
    name: str = ""  # of the period


@dataclass
class BucketModel:
    """A token bucket by replay."""

    parameters: list[tuple[int, int, Fraction, bool]]  # from when, capacity, units a ns, whether it was as good as new
    parts: list[Part] = field(default_factory=list)
    charges: list[tuple[int, int]] = field(default_factory=list)

    def level(self, now: int) -> Fraction:
        events: list[tuple[int, int, Any]] = [(part.at, 1, part.amount) for part in self.parts]
        events += [(at, 1, amount) for at, amount in self.charges]
        # Nothing else happens at the time of new parameters, but before them.
        events += [(at, 2, what) for at, *what in self.parameters[1:]]
        at, capacity, rate, _ = self.parameters[0]
        level = Fraction(capacity)
        for then, kind, what in [*sorted(events, key=lambda event: event[:2]), (now, 0, None)]:
            level = min(Fraction(capacity), level + rate * (then - at))
            at = then
            if kind == 1:
                level -= what
            elif kind == 2:
                capacity, rate, as_new = what
                level = Fraction(capacity) if as_new else min(level, Fraction(capacity))
        return level

    def as_new(self, now: int) -> bool:
        return self.level(now) == self.parameters[-1][1] and not any(part.open for part in self.parts)

    def fits(self, amount: int, now: int, _wants: str) -> bool:
        return not amount or self.level(now) >= amount

    def remaining(self, now: int) -> int:
        return self.level(now) // 1

    def bounded(self, now: int) -> None:
        """Over every window until now: settled plus held <= burst + rate x time + debt. Over every earlier one the
        same without what was used above the reservations, which nobody could know then. A bucket that was as good as
        new when it got another capacity has another burst from there."""
        capacity = max(one[1] for one in self.parameters)
        rate = max(one[2] for one in self.parameters)
        debt = max(0, -self.level(now))
        over = {id(part): part.amount - min(part.amount, part.reserved) for part in self.parts}
        assert not any(over.values())  # kept apart, in `charges`
        starts = sorted({part.at for part in self.parts})

        def most(start: int, end: int) -> Fraction:
            bursts = sum(cap for at, cap, _, as_new in self.parameters[1:] if as_new and start <= at <= end)
            return capacity + bursts + rate * (end - start)

        for start in starts:
            inside = sum(part.amount for part in self.parts if part.at >= start)
            charged = sum(amount for at, amount in self.charges if at >= start)
            assert inside + charged <= most(start, now) + debt
            for end in starts:
                admitted = sum(part.amount for part in self.parts if start <= part.at <= end)
                assert end < start or admitted <= most(start, end)

    def settle(self, part: Part, used: int, now: int) -> None:
        part.amount = min(part.reserved, max(0, used))
        if used > part.reserved:
            self.charges.append((now, used - part.reserved))


@dataclass
class WindowModel:
    """A sliding window: all admissions, and the slices they fall into."""

    capacity: int
    parts: list[Part] = field(default_factory=list)
    width: int = -(-SPAN_NS // 60)

    def total(self, now: int) -> int:
        return sum(part.amount for part in self.parts if now // self.width - part.at // self.width <= 60)

    def fits(self, amount: int, now: int, _wants: str) -> bool:
        return not amount or self.total(now) + amount <= self.capacity

    def remaining(self, now: int) -> int:
        return self.capacity - self.total(now)

    def bounded(self, now: int) -> None:
        over = sum(max(0, part.amount - part.reserved) for part in self.parts)
        for end in [now, *(part.at for part in self.parts)]:
            inside = sum(part.amount for part in self.parts if end - SPAN_NS < part.at <= end)
            assert inside <= self.capacity + over

    def settle(self, part: Part, used: int, now: int) -> None:
        if now // self.width - part.at // self.width <= 60:
            part.amount = max(0, used)


@dataclass
class TallyModel:
    """Sums by period."""

    capacity: int
    parts: list[Part] = field(default_factory=list)
    period: str = "one"

    def total(self, name: str) -> int:
        return sum(part.amount for part in self.parts if part.name == name)

    def fits(self, amount: int, now: int, wants: str) -> bool:
        return not amount or self.total(wants) + amount <= self.capacity

    def remaining(self, now: int) -> int:
        return self.capacity - self.total(self.period)

    def bounded(self, now: int) -> None:
        for name in {part.name for part in self.parts}:
            assert self.total(name) <= self.capacity + sum(max(0, part.amount - part.reserved) for part in self.parts)

    def settle(self, part: Part, used: int, now: int) -> None:
        part.amount = max(0, used)


@dataclass
class SlotsModel:
    """What is held now."""

    capacity: int
    parts: list[Part] = field(default_factory=list)

    def held(self) -> int:
        return sum(part.amount for part in self.parts if part.open)

    def fits(self, amount: int, now: int, _wants: str) -> bool:
        return not amount or self.held() + amount <= self.capacity

    def remaining(self, now: int) -> int:
        return self.capacity - self.held()

    def bounded(self, now: int) -> None:
        assert self.held() <= self.capacity

    def settle(self, part: Part, used: int, now: int) -> None:
        part.amount = 0


class StoreMachine(RuleBasedStateMachine):
    """Up to a few holds at a time over a bucket (twice), a window, a tally and slots."""

    backend: type[Store] = MemoryStore

    @initialize(capacity=st.integers(1, 12), refill=st.integers(0, 9))
    def begin(self, capacity: int, refill: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(7)
        self.store: Store = self.backend(self.clock)  # type: ignore[call-arg]  # backends take a clock
        self.bucket = Bucket("bucket", capacity, "", refill, 1_000_000_000)
        self.limits: dict[str, Limit] = {
            "bucket": self.bucket,
            "other": Bucket("other", 7, "", 3, 2_000_000_000),
            "window": Window("window", 9, "", SPAN_NS),
            "tally": Tally("tally", 20, "", "one"),
            "slots": Slots("slots", 3),
        }
        self.models: dict[str, Any] = {
            "bucket": BucketModel([(7, capacity, Fraction(refill, 1_000_000_000), True)]),
            "other": BucketModel([(7, 7, Fraction(3, 2_000_000_000), True)]),
            "window": WindowModel(9),
            "tally": TallyModel(20),
            "slots": SlotsModel(3),
        }
        self.holds: dict[str, tuple[int, list[tuple[str, Part]]]] = {}
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @rule(
        wants=st.lists(
            st.tuples(st.sampled_from(["bucket", "other", "window", "tally", "slots"]), st.integers(0, 9)),
            min_size=1,
            max_size=5,
        )
    )
    def reserve(self, wants: list[tuple[str, int]]) -> None:
        self.count += 1
        self.take(f"hold-{self.count}", wants)

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data(), name=st.sampled_from(["bucket", "window", "tally"]), amount=st.integers(0, 5))
    def fail_over(self, data: st.DataObject, name: str, amount: int) -> None:
        self.take(data.draw(st.sampled_from(sorted(self.holds))), [(name, amount)])

    def take(self, hold: str, wants: list[tuple[str, int]]) -> None:
        now = self.clock.now_ns()
        parts: list[tuple[str, Part]] = []
        lacking = []
        for index, (name, amount) in enumerate(wants):
            model = self.models[name]
            if model.fits(amount, now, self.models["tally"].period):
                part = Part(now, amount, amount, name=self.models["tally"].period)
                model.parts.append(part)
                parts.append((name, part))
            else:
                lacking.append(index)
        grant = self.do(self.store.reserve(hold, [(self.limits[name], amount) for name, amount in wants], TTL_NS / 1e9))
        assert [lack.index for lack in grant.lacks] == lacking
        if lacking:
            for name, part in parts:
                self.models[name].parts.remove(part)
        else:
            before = self.holds[hold][1] if hold in self.holds else []
            self.holds[hold] = (now + TTL_NS, before + parts)

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        parts = self.holds.pop(hold)[1]
        actual = [
            data.draw(st.one_of(st.integers(0, part.reserved), st.integers(0, part.reserved + 4))) for _, part in parts
        ]
        self.do(self.store.settle(hold, actual))
        for (name, part), used in zip(parts, actual, strict=True):
            self.models[name].settle(part, used, self.clock.now_ns())
            part.open = False

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        self.do(self.store.release(hold))
        for name, part in self.holds.pop(hold)[1]:
            self.models[name].settle(part, 0, self.clock.now_ns())
            part.open = False

    @precondition(lambda self: getattr(self, "holds", None))
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        self.do(self.store.renew(hold, TTL_NS / 1e9))
        self.holds[hold] = (self.clock.now_ns() + TTL_NS, self.holds[hold][1])

    @rule(ns=st.one_of(st.integers(0, 3), st.integers(0, 4_000_000_000), st.integers(0, 40_000_000_000)))
    def pass_time(self, ns: int) -> None:
        self.clock._now_ns += ns
        self.clock._wall_ns += ns
        for hold, (expires, parts) in list(self.holds.items()):
            if expires <= self.clock.now_ns():
                del self.holds[hold]
                for name, part in parts:
                    part.open = False
                    if name == "slots":
                        part.amount = 0

    @rule(seconds=st.integers(-7200, 7200))
    def jump_wall(self, seconds: int) -> None:
        self.clock.jump_wall(seconds)

    @rule(period=st.sampled_from(["one", "two"]))
    def turn_period(self, period: str) -> None:
        self.limits["tally"] = Tally("tally", 20, "", period)
        self.models["tally"].period = period

    @rule(capacity=st.integers(0, 12), refill=st.integers(0, 9))
    def reload(self, capacity: int, refill: int) -> None:
        now, model = self.clock.now_ns(), self.models["bucket"]
        self.limits["bucket"] = Bucket("bucket", capacity, "", refill, 1_000_000_000)
        self.do(self.store.levels([self.limits["bucket"]]))
        # All before is in the past of the new parameters.
        model.parameters.append((now, capacity, Fraction(refill, 1_000_000_000), model.as_new(now)))
        self.clock._now_ns += 1

    @invariant()
    def same_levels(self) -> None:
        if not hasattr(self, "store"):
            return
        now = self.clock.now_ns()
        levels = self.do(self.store.levels(list(self.limits.values())))
        for (name, model), level in zip(self.models.items(), levels, strict=True):
            assert level.remaining == model.remaining(now), name

    @invariant()
    def within_bounds(self) -> None:
        if hasattr(self, "store"):
            for model in self.models.values():
                model.bounded(self.clock.now_ns())


quick = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "TIDEGATE_SHRINK" in os.environ],
)


@pytest.mark.timeout(3600)
def test_any_sequence_agrees_with_exact_fractions() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(StoreMachine, settings=quick)
