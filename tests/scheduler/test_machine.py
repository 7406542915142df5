"""Any sequence of comings, goings, settlements and time against a model in exact fractions.

What must hold after every step: over every window, by time of admission, settled plus held <= burst + rate x time +
debt; no slot too many; every call is waiting, granted or ended, exactly one of them and once; nothing waits beyond its
longest wait, nor without a reason; the store holds what runs and nothing else. At the end, with nobody new coming, all
that waits is granted or told when to come back: nobody starves.
TIDEGATE_EXAMPLES sets the number of examples (60; the proof runs 10,000), TIDEGATE_SHRINK makes failures smaller.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.call import Need, Wait
from gateway.clock import ManualClock
from gateway.errors import GatewayError, RateLimited
from gateway.scheduler import Option, Placement, Queued, QueueSettings, Scheduler, Waiter
from gateway.state.memory import MemoryStore
from gateway.state.store import Bucket, Limit, Slots

EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "60"))
NS = 1_000_000_000
CAPACITY, RATE = 10, 3
WANTS = ("a", "b", "tokens", "a+b", "a+tokens", "a|b", "a+tokens|b+tokens")


@dataclass(eq=False)
class Asked:
    """One call: what it waits for, and what became of it."""

    waiter: Waiter
    queued: Queued
    task: asyncio.Task[Option]
    ends_ns: int


class QueueMachine(RuleBasedStateMachine):
    loop: asyncio.AbstractEventLoop  # one for all examples

    @initialize(a=st.integers(1, 3), b=st.integers(1, 3), most=st.integers(3, 8))
    def begin(self, a: int, b: int, most: int) -> None:
        self.do(self._clear())  # of an example that was given up
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.scheduler = Scheduler(self.store, self.clock)
        self.scheduler.configure(QueueSettings(most, most - 1, starvation_s=5.0))
        self.limits: dict[str, Limit] = {
            "a": Slots("a", a),
            "b": Slots("b", b),
            "tokens": Bucket("tokens", CAPACITY, "", RATE, NS),
        }
        self.waiting: dict[str, Asked] = {}
        self.running: dict[str, Option] = {}
        self.ended: set[str] = set()
        self.admitted: list[list[Any]] = []  # at, amount that counts, id, for the bucket
        self.debts: list[tuple[int, int]] = []
        self.number = 0

    def do(self, awaited: Any) -> Any:
        return self.loop.run_until_complete(awaited)

    async def _clear(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _calm(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    def calm(self) -> None:
        """Until all that can happen has happened; then takes down what did."""
        self.scheduler.wake()
        self.do(self._calm())
        while any(asked.task.done() for asked in self.waiting.values()):
            self.take_down()
            self.do(self._calm())

    def take_down(self) -> None:
        for name, asked in list(self.waiting.items()):
            if not asked.task.done():
                continue
            del self.waiting[name]
            if asked.task.cancelled() or asked.task.exception() is not None:
                error = None if asked.task.cancelled() else asked.task.exception()
                assert error is None or (isinstance(error, GatewayError) and error.retry_after_s is not None), error
                self.end(name)
                continue
            option = asked.task.result()
            assert name not in {*self.running, *self.ended}, "granted twice"
            assert self.clock.now_ns() < asked.ends_ns
            self.running[name] = option
            for _, limit, amount, _ in option.held:
                if limit.key == "tokens":
                    self.admitted.append([self.clock.now_ns(), amount, name])

    def end(self, name: str) -> None:
        assert name not in self.ended, "ended twice"
        self.ended.add(name)
        self.do(self.store.release(name))

    def options(self, wants: str, tokens: int) -> list[Option]:
        made = []
        for index, together in enumerate(wants.split("|")):
            held = []
            for key in together.split("+"):
                amount = tokens if key == "tokens" else 1
                limit = self.limits[key]
                held.append((Need(limit, amount, Wait(RateLimited, key)), limit, amount, 0))
            made.append(Option(index, held))
        return made

    @rule(
        wants=st.sampled_from(WANTS),
        tokens=st.integers(1, CAPACITY),
        client=st.sampled_from("xyz"),
        urgency=st.sampled_from(["urgent", "high", "normal", "low"]),
        longest_s=st.sampled_from([0.0, 1.0, 10.0, 60.0]),
        later_s=st.sampled_from([0, 0, 0, 2]),
    )
    def arrive(self, wants: str, tokens: int, client: str, urgency: Any, longest_s: float, later_s: int) -> None:
        self.number += 1
        now, name = self.clock.now_ns(), f"call-{self.number}"
        options = self.options(wants, tokens)
        waiter = Waiter(
            name, client, client, client, Placement(urgency, 20, longest_s), 100 * tokens,
            now + later_s * NS if later_s else 0, options, lambda: options, 1e6,
        )  # fmt: skip
        queued = Queued("immediate", 0, 0)
        task = self.loop.create_task(self.scheduler.wait(waiter, queued))
        self.waiting[name] = Asked(waiter, queued, task, now + max(5_000_000, int(longest_s * NS)))
        self.scheduler.count(client, self.clock.wall_ns())
        self.calm()

    @precondition(lambda self: getattr(self, "running", None))
    @rule(data=st.data(), over=st.sampled_from([0, 0, 0, 2]))
    def settle(self, data: st.DataObject, over: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        option = self.running.pop(name)
        actual = []
        for _, limit, amount, _ in option.held:
            used = data.draw(st.integers(0, amount)) + over if limit.key == "tokens" else amount
            actual.append(used)
            if limit.key == "tokens":
                mine = next(one for one in self.admitted if one[2] == name)
                mine[1] = min(used, amount)
                if used > amount:
                    self.debts.append((self.clock.now_ns(), used - amount))
        self.do(self.store.settle(name, actual))
        self.ended.add(name)
        self.calm()

    @precondition(lambda self: getattr(self, "waiting", None))
    @rule(data=st.data(), after_grant=st.booleans())
    def cancel(self, data: st.DataObject, after_grant: bool) -> None:
        """At any moment, the one between grant and delivery included."""
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        if after_grant and self.running:
            freed = sorted(self.running)[0]
            option = self.running.pop(freed)
            self.do(self.store.settle(freed, [amount for _, _, amount, _ in option.held]))
            self.ended.add(freed)
        self.waiting[name].task.cancel()
        self.calm()

    @rule(ns=st.one_of(st.integers(0, 3), st.integers(0, 4 * NS), st.integers(0, 40 * NS)))
    def pass_time(self, ns: int) -> None:
        self.clock._now_ns += ns
        self.clock._wall_ns += ns
        self.calm()

    @rule()
    def reload(self) -> None:
        self.do(self.scheduler.refresh())
        self.calm()

    @invariant()
    def nothing_is_exceeded(self) -> None:
        if not hasattr(self, "store"):
            return
        for key in ("a", "b"):
            held = sum(limit.key == key for option in self.running.values() for _, limit, _, _ in option.held)
            assert held <= self.limits[key].capacity
        for first, (begin, _, _) in enumerate(self.admitted):
            total = 0
            for at, amount, _ in self.admitted[first:]:
                total += amount
                debt = sum(over for when, over in self.debts if begin <= when)
                assert total <= CAPACITY + Fraction(RATE * (at - begin), NS) + debt

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "store"):
            return
        assert set(self.store._holds) == set(self.running)
        snapshot = self.scheduler.snapshot()
        assert {view.id for view in snapshot.waiting} == set(self.waiting)
        assert all(asked.ends_ns > self.clock.now_ns() for asked in self.waiting.values())

    @invariant()
    def nothing_waits_without_a_reason(self) -> None:
        """Whoever is the only one that needs its limits lacks one of them on every option."""
        if not hasattr(self, "store"):
            return
        now = self.clock.now_ns()
        for name, asked in self.waiting.items():
            needed = {one[1].key for option in asked.waiter.options for one in option.held}
            others = [one.waiter for other, one in self.waiting.items() if other != name]
            if asked.waiter.not_before_ns > now or any(
                held[1].key in needed for other in others for option in other.options for held in option.held
            ):
                continue
            for option in asked.waiter.options:
                levels = self.do(self.store.levels([limit for _, limit, _, _ in option.held]))
                assert any(
                    level.remaining < amount for level, (_, _, amount, _) in zip(levels, option.held, strict=True)
                ), name

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for _ in range(400):
            if not self.waiting and not self.running:
                break
            for name in sorted(self.running)[:1]:
                option = self.running.pop(name)
                self.do(self.store.settle(name, [amount for _, _, amount, _ in option.held]))
                self.ended.add(name)
            self.calm()
            self.clock.advance(0.5)
            self.calm()
        assert not self.waiting, "nobody new came, and still somebody waits"
        assert len(self.ended) == self.number
        self.do(self._calm())
        assert not asyncio.all_tasks(self.loop)
        assert not self.store._holds


quick = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[phase for phase in Phase if phase is not Phase.shrink or "TIDEGATE_SHRINK" in os.environ],
)


@pytest.mark.timeout(3600)
def test_any_sequence_agrees_with_exact_fractions() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    QueueMachine.loop = asyncio.new_event_loop()
    try:
        run_state_machine_as_test(QueueMachine, settings=quick)
    finally:
        QueueMachine.loop.close()
