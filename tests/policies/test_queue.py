"""What the queue policy makes of a call, under a real pipeline and store."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.call import Outcome
from gateway.clients import QuotaRules, Tier
from gateway.conclude import Concluder
from gateway.errors import BadRequest, GatewayError, RateLimited
from gateway.metrics import Metrics
from gateway.questions import Questions
from gateway.usage import Usage

PREMIUM = Tier("premium", priority=30, concurrent=1)
BASIC = Tier("basic", priority=10, concurrent=1)


async def calm() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def placed(bench: Any, tier: Tier = PREMIUM, headers: dict[bytes, bytes] | None = None, metadata: Any = None) -> Any:
    queue = bench.policy("queue")
    call = bench.call(bench.person(tier=tier))
    call.headers = headers or {}
    call.json = {"metadata": metadata} if metadata is not None else {}
    queue.apply(call)
    return call


def test_headers_say_urgency_and_longest_wait(bench: Any) -> None:
    call = placed(bench, headers={b"x-tidegate-priority": b"High", b"x-tidegate-max-wait-ms": b"2500"})
    assert (call.placement.urgency, call.placement.longest_wait_s, call.placement.points) == ("high", 2.5, 30)


def test_words_of_the_system_replaced_are_understood(bench: Any) -> None:
    assert placed(bench, headers={b"x-tidegate-priority": b"critical"}).placement.urgency == "urgent"
    assert placed(bench, headers={b"x-tidegate-priority": b"medium"}).placement.urgency == "normal"


def test_metadata_says_the_same_for_users_of_sdks(bench: Any) -> None:
    call = placed(bench, metadata={"tidegate_priority": "urgent", "tidegate_max_wait_ms": "700"})
    assert (call.placement.urgency, call.placement.longest_wait_s) == ("urgent", 0.7)
    due = placed(bench, metadata={"tidegate_deadline": "2030-01-01T00:00:00Z"}).placement.deadline_ns
    assert due == bench.clock.now_ns() + 1893456000 * 10**9 - bench.clock.wall_ns()
    both = placed(bench, PREMIUM, {b"x-tidegate-priority": b"low"}, {"tidegate_priority": "urgent"})
    assert both.placement.urgency == "low", "headers count first"


def test_a_client_cannot_claim_more_than_its_tier_allows(bench: Any) -> None:
    call = placed(bench, BASIC, {b"x-tidegate-priority": b"urgent"})
    assert call.placement.urgency == "normal"
    assert "urgent was claimed" in call.notes["priority"]
    assert placed(bench, BASIC, {b"x-tidegate-priority": b"low"}).placement.urgency == "low"
    assert placed(bench, Tier("standard"), {b"x-tidegate-priority": b"urgent"}).placement.urgency == "high"
    assert placed(bench, Tier("house"), {b"x-tidegate-priority": b"urgent"}).placement.urgency == "normal"


def test_all_calls_of_a_tier_that_may_claim_low_only_are_low(bench: Any) -> None:
    queue = bench.policy("queue", claims={"basic": "low"})
    for headers in ({}, {b"x-tidegate-priority": b"high"}, {b"x-tidegate-max-wait-ms": b"100"}):
        call = bench.call(bench.person(tier=BASIC))
        call.headers = headers
        queue.apply(call)
        assert call.placement.urgency == "low"
    other = bench.call(bench.person("other", tier=Tier("standard", priority=10)))
    queue.apply(other)
    assert other.placement.urgency == "normal"


def test_an_http_call_waits_no_longer_than_the_cap(bench: Any) -> None:
    assert placed(bench, headers={b"x-tidegate-max-wait-ms": b"900000"}).placement.longest_wait_s == 120
    assert placed(bench).placement.longest_wait_s == 60


@pytest.mark.parametrize(
    "headers",
    [{b"x-tidegate-priority": b"soon"}, {b"x-tidegate-max-wait-ms": b"-1"}, {b"x-tidegate-max-wait-ms": b"2.5"}],
)
def test_what_is_not_understood_is_refused(bench: Any, headers: dict[bytes, bytes]) -> None:
    with pytest.raises(BadRequest):
        placed(bench, headers=headers)


class Gate:
    """Quota's concurrency and the queue."""

    def __init__(self, bench: Any, target: Any, **settings: Any) -> None:
        self.bench = bench
        self.people: dict[Any, Any] = {}
        self.target = target()
        self.target.provider.max_concurrent = 1
        queue = bench.policy("queue", **settings)
        self.pipeline = bench.pipeline(bench.policy("quota", requests=[]), queue)
        self.slots_of = queue._slots_of

    def call(self, name: str = "acme", tier: Tier = PREMIUM, **headers: str) -> Any:
        if (name, tier) not in self.people:
            self.people[name, tier] = self.bench.person(name, tier=tier, quota=QuotaRules(concurrent=10))
        call = self.bench.call(self.people[name, tier], self.target)
        call.headers = {
            f"x-tidegate-{key.replace('_', '-')}".encode(): value.encode() for key, value in headers.items()
        }
        call.pipeline = self.pipeline
        return call

    async def settle(self, call: Any) -> None:
        await self.pipeline.settle(call, Outcome("served", 200, Usage(), attempted=True, target=self.target))


async def test_a_call_that_lacks_a_slot_waits_and_goes_on(bench: Any, target: Any) -> None:
    gate = Gate(bench, target)
    first, second = gate.call(), gate.call()
    await gate.pipeline.admit(first)
    assert first.queued is None
    waiting = asyncio.ensure_future(gate.pipeline.admit(second))
    await calm()
    assert not waiting.done()
    assert bench.scheduler.snapshot().executing == 1
    bench.clock.advance(1.5)
    await gate.settle(first)
    await calm()
    assert waiting.done()
    assert second.queued.waited_ms == 1500
    await gate.settle(second)
    assert not bench.store._holds


async def test_who_gives_way_to_others_is_concluded_even_if_cancelled_meanwhile(bench: Any, target: Any) -> None:
    gate = Gate(bench, target)
    rows: list[Any] = []
    ledger: Any = SimpleNamespace(record=rows.append)
    log: Any = SimpleNamespace(write=lambda *_: None)
    concluder = Concluder(ledger, bench.store, Metrics(), log, bench.clock, Questions(b"a pepper of the test"))
    first, second = gate.call(), gate.call()
    await gate.pipeline.admit(first)
    waiting = asyncio.ensure_future(gate.pipeline.admit(second))
    await calm()
    outcome = Outcome("served", 200, Usage(), attempted=True, target=gate.target)
    ending = asyncio.ensure_future(concluder.conclude(first, outcome))
    await asyncio.sleep(0)
    assert not rows, "those who wait go first"
    ending.cancel()
    await calm()
    assert ending.cancelled()
    assert len(rows) == 1
    assert waiting.done()
    await gate.settle(second)
    assert not bench.store._holds


async def test_quota_refuses_and_the_queue_waits(bench: Any, target: Any) -> None:
    """Who waits holds quota already; who never goes on gets it back."""
    gate = Gate(bench, target)
    gate.pipeline = bench.pipeline(bench.policy("quota", requests=["2/hour"]), bench.policy("queue"))
    calls = [gate.call() for _ in range(3)]
    await gate.pipeline.admit(calls[0])
    waiting = asyncio.ensure_future(gate.pipeline.admit(calls[1]))
    await calm()
    with pytest.raises(RateLimited) as refused:
        await gate.pipeline.admit(calls[2])
    assert refused.value.policy == "quota"
    waiting.cancel()
    await calm()
    await gate.pipeline.settle(calls[1], Outcome("gone", 499, Usage()))
    again = gate.call()
    again_waits = asyncio.ensure_future(gate.pipeline.admit(again))
    await calm()
    assert not again_waits.done(), "the one who left gave its request back"
    await gate.settle(calls[0])
    await again_waits
    await gate.settle(again)


async def test_without_a_queue_lacking_a_slot_refuses(bench: Any, target: Any) -> None:
    gate = Gate(bench, target)
    gate.pipeline = bench.pipeline(bench.policy("quota", requests=[]))
    person = bench.person(quota=QuotaRules(concurrent=1))
    first, second = bench.call(person, gate.target), bench.call(person, gate.target)
    await gate.pipeline.admit(first)
    with pytest.raises(RateLimited):
        await gate.pipeline.admit(second)


async def test_an_observed_queue_takes_no_slot_and_lets_nobody_wait(bench: Any, target: Any) -> None:
    gate = Gate(bench, target, mode="observe")
    calls = [gate.call() for _ in range(3)]
    for call in calls:
        await gate.pipeline.admit(call)
    assert [call.queued for call in calls] == [None] * 3
    assert calls[2].marks, "what it would have done is recorded"


async def test_the_gateway_as_a_whole_has_its_bound(bench: Any, target: Any) -> None:
    gate = Gate(bench, target, max_concurrent=2)
    gate.target.provider.max_concurrent = 100
    calls = [gate.call() for _ in range(3)]
    for call in calls[:2]:
        await gate.pipeline.admit(call)
    waiting = asyncio.ensure_future(gate.pipeline.admit(calls[2]))
    await calm()
    assert not waiting.done()
    await gate.settle(calls[0])
    await waiting


async def test_ten_thousand_cancels_errors_and_time_outs_leave_nothing_held(bench: Any, target: Any) -> None:
    from random import Random

    chance = Random(20260101)
    gate = Gate(bench, target, max_waiting=300, max_waiting_per_client=100)
    gate.target.provider.max_concurrent = 5
    running: list[Any] = []
    waiting: dict[Any, asyncio.Task[None]] = {}
    urgencies = ("urgent", "high", "normal", "low")
    for number in range(10_000):
        call = gate.call(f"client-{chance.randrange(10)}", priority=chance.choice(urgencies))
        waiting[call] = asyncio.ensure_future(gate.pipeline.admit(call))
        if number % 3 == 0:
            await asyncio.sleep(0)
        kind = chance.randrange(6)
        if kind == 0:
            chance.choice(list(waiting.values())).cancel()
        elif kind == 1 and running:
            await gate.settle(running.pop(chance.randrange(len(running))))
        elif kind == 2:
            bench.clock.advance(chance.random() * 0.5)
            bench.scheduler.wake()
        if number % 50 == 0:
            await calm()
        for one, task in list(waiting.items()) if number % 10 == 0 else ():
            if task.done():
                del waiting[one]
                if task.cancelled() or task.exception() is not None:
                    assert task.cancelled() or isinstance(task.exception(), GatewayError)
                    await gate.pipeline.settle(one, Outcome("refused", 429, Usage()))
                else:
                    running.append(one)
        assert (await bench.store.levels([gate.slots_of(SimpleNamespace(rides=False), gate.target)]))[0].remaining >= 0
    for task in waiting.values():
        task.cancel()
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    for one in [*waiting, *running]:
        await gate.pipeline.settle(one, Outcome("gone", 499, Usage()))
    await calm()
    assert not bench.store._holds
    assert all(not state.holds for state in bench.store._states.values() if hasattr(state, "holds"))
    assert bench.scheduler.snapshot().total == 0
    assert not bench.scheduler.holding
