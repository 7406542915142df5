"""Who may wait, how long, what is told about it, and that those who leave leave nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import DeadlineExceeded, ModelNotFound, QueueFull, RateLimited
from gateway.scheduler import Option
from gateway.state.store import Grant


async def test_a_full_queue_displaces_the_newest_call_of_the_lowest_band_below(queue: Any, slots: Any) -> None:
    queue.configure(max_waiting=4)
    limit = slots("a")
    await queue.take(limit)
    lows = [queue.wait([(limit, 1)], urgency="low", client="low") for _ in range(2)]
    normals = [queue.wait([(limit, 1)], client="normal") for _ in range(2)]
    await queue.calm()
    high = queue.wait([(limit, 1)], urgency="high", client="high")
    await queue.calm()
    assert isinstance(lows[1].error, QueueFull)
    assert lows[1].error.code == "queue_full"
    assert lows[1].error.retry_after_s >= 1
    assert not lows[0].task.done()
    assert not high.task.done()
    refused = queue.wait([(limit, 1)], urgency="low", client="late")
    await queue.calm()
    assert isinstance(refused.error, QueueFull), "nobody is below it"
    assert not any(call.task.done() for call in (lows[0], *normals, high))
    assert queue.scheduler.snapshot().total == 4


async def test_the_lowest_band_keeps_its_places_in_a_full_queue(queue: Any, slots: Any) -> None:
    """Its floor of grants is worth nothing where it may not wait."""
    queue.configure(max_waiting=10, floor_percent=20)
    limit = slots("a")
    await queue.take(limit)
    normals = [queue.wait([(limit, 1)], client="normal") for _ in range(10)]
    await queue.calm()
    lows = [queue.wait([(limit, 1)], urgency="low", client="low") for _ in range(3)]
    await queue.calm()
    assert [isinstance(call.error, QueueFull) for call in lows] == [False, False, True]
    assert [call.task.done() for call in normals] == [False] * 8 + [True] * 2, "the newest gave way"
    high = queue.wait([(limit, 1)], urgency="high", client="high")
    late = queue.wait([(limit, 1)], client="late")
    await queue.calm()
    assert not high.task.done()
    assert isinstance(normals[7].error, QueueFull)
    assert isinstance(late.error, QueueFull), "the two below it are what the lowest band keeps"
    assert not any(call.task.done() for call in lows[:2])
    assert queue.scheduler.snapshot().total == 10


async def test_a_client_has_its_own_bound(queue: Any, slots: Any) -> None:
    queue.configure(max_waiting_per_client=2)
    limit = slots("a")
    await queue.take(limit)
    calls = [queue.wait([(limit, 1)]) for _ in range(3)]
    other = queue.wait([(limit, 1)], client="other")
    await queue.calm()
    assert [isinstance(call.error, QueueFull) for call in calls] == [False, False, True]
    assert not other.task.done()


async def test_long_bodies_that_wait_are_bounded_together_and_per_client(queue: Any, slots: Any) -> None:
    """100 calls may wait, and 1000 bytes: ten each always find room."""
    queue.configure(max_waiting=100, max_waiting_bytes=1000)
    limit = slots("a")
    await queue.take(limit)

    async def wait(client: str, body_bytes: int) -> Any:
        call = queue.wait([(limit, 1)], client=client, body_bytes=body_bytes)
        await queue.calm()
        return call

    first = await wait("one", 400)
    assert not first.task.done()
    refused = (await wait("one", 101)).error
    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s >= 1
    assert not (await wait("one", 100)).task.done(), "half of it is a client's"
    assert not (await wait("two", 500)).task.done()
    assert isinstance((await wait("three", 11)).error, QueueFull)
    assert not (await wait("one", 10)).task.done()
    assert not (await wait("three", 10)).task.done()
    first.task.cancel()
    await queue.calm()
    assert not (await wait("three", 400)).task.done(), "it took its body with it"


async def test_nothing_waits_beyond_its_longest_wait(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    call = queue.wait([(limit, 1)], longest_s=10)
    await queue.calm()
    await queue.later(9.9)
    assert not call.task.done()
    await queue.later(0.1)
    assert isinstance(call.error, RateLimited)
    assert call.error.code == "queue_wait_too_long"
    assert call.error.retry_after_s > 0
    assert call.queued.waited_ms == 10_000


@pytest.mark.parametrize("late_s", [0.0, 1.0, 1.8e9])
async def test_whose_deadline_has_passed_takes_no_place(queue: Any, slots: Any, late_s: float) -> None:
    """The last one is what a deadline of 0 in metadata comes to: long before the process began."""
    limit = slots("a")
    await queue.take(limit)
    for held in ("taken", "call-1", "call-2", "call-3", "call-4"):  # the pace is measured: some are refused early
        other = queue.wait([(limit, 1)])
        await queue.later(1)
        await queue.store.release(held)
        await queue.calm()
        assert other.is_granted
    first = queue.wait([(limit, 1)])
    await queue.calm()
    call = queue.wait([(limit, 1)], client="late", deadline_s=-late_s)
    await queue.calm()
    assert isinstance(call.error, DeadlineExceeded)
    assert not first.task.done()


async def test_nothing_waits_beyond_its_deadline(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    call = queue.wait([(limit, 1)], longest_s=10, deadline_s=3)
    await queue.calm()
    await queue.later(3)
    assert isinstance(call.error, DeadlineExceeded)  # not to be tried again: the same deadline will not come back


async def test_the_loops_own_timer_ends_a_wait(slots: Any, queue: Any) -> None:
    from gateway.clock import Clock
    from gateway.scheduler import Queued, Scheduler
    from gateway.state.memory import MemoryStore

    store = MemoryStore(Clock())
    scheduler = Scheduler(store, Clock())
    limit = slots("a")
    await store.reserve("taken", [(limit, 1)], 900)
    waiter = queue.waiter([(limit, 1)])
    waiter.placement.longest_wait_s = 0.05
    waiter.not_before_ns = 0
    caught = (await asyncio.gather(scheduler.wait(waiter, Queued("immediate", 0, 0)), return_exceptions=True))[0]
    assert isinstance(caught, RateLimited)


async def test_a_refill_is_granted_when_it_is_there(queue: Any, bucket: Any) -> None:
    limit = bucket("tokens", 100, 10)
    await queue.take(limit, 100)
    call = queue.wait([(limit, 50)])
    await queue.calm()
    assert call.queued.estimate_ms == 5000
    assert call.queued.level == "fast"
    await queue.later(4.9)
    assert not call.task.done()
    await queue.later(0.11)
    assert call.is_granted


async def test_early_refusal_when_the_wait_would_be_too_long(queue: Any, bucket: Any) -> None:
    limit = bucket("tokens", 1000, 10)
    await queue.take(limit, 1000)
    call = queue.wait([(limit, 500)], longest_s=20)
    await queue.calm()
    assert isinstance(call.error, RateLimited)
    assert 30 < call.error.retry_after_s < 30.1, "at 50 s it is there, and 20 s it may wait"
    await queue.later(call.error.retry_after_s)
    again = queue.wait([(limit, 500)], longest_s=20)
    await queue.calm()
    assert not again.task.done()
    await queue.later(19.96)
    assert again.is_granted, "the time to come back was true"


async def test_a_need_above_the_capacity_is_refused_at_once(queue: Any, slots: Any) -> None:
    limit = slots("a", 2)
    call = queue.wait([(limit, 3)])
    await queue.calm()
    assert isinstance(call.error, RateLimited)
    assert call.error.should_retry is False


async def test_nobody_is_granted_before_the_hour(queue: Any, slots: Any) -> None:
    limit = slots("a")
    call = queue.wait([(limit, 1)], not_before_s=50)
    nothing = queue.wait([], not_before_s=50)
    await queue.calm()
    assert call.queued.estimate_ms == 50_000
    await queue.later(49.9)
    assert not call.task.done()
    await queue.later(0.1)
    assert call.is_granted
    assert nothing.is_granted
    too_far = queue.wait([(limit, 1)], not_before_s=70, longest_s=60)
    await queue.calm()
    assert 10 < too_far.error.retry_after_s < 10.1


async def test_the_place_and_the_wait_are_told(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    calls = [queue.wait([(limit, 1)], client=f"c{number}") for number in range(3)]
    await queue.calm()
    urgent = queue.wait([(limit, 1)], urgency="high")
    await queue.calm()
    assert [call.queued.position for call in calls] == [0, 1, 2]
    assert urgent.queued.position == 0
    assert [queue.scheduler.position(call.waiter.id).position for call in calls] == [1, 2, 3]
    snapshot = queue.scheduler.snapshot()
    assert snapshot.total == 4
    assert [view.position for view in snapshot.waiting] == [0, 1, 2, 3]
    assert sum(level.depth for level in snapshot.levels.values()) == 4
    assert queue.scheduler.position("nobody") is None


async def test_a_call_that_leaves_is_gone_at_once_and_the_next_goes_on(queue: Any, bucket: Any) -> None:
    limit = bucket("tokens", 1000, 10)
    await queue.take(limit, 900)
    big = queue.wait([(limit, 500)], client="big")
    await queue.calm()
    small = queue.wait([(limit, 50)], client="small", tokens=10_000)
    await queue.calm()
    big.task.cancel()
    await queue.calm()
    assert queue.scheduler.position(big.waiter.id) is None
    assert small.is_granted


async def test_when_the_last_one_leaves_nothing_runs_on(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    before = asyncio.all_tasks()
    call = queue.wait([(limit, 1)])
    await queue.calm()
    call.task.cancel()
    await queue.calm()
    assert asyncio.all_tasks() == before
    assert not queue.scheduler.contended(call.waiter.options[0].held)


async def test_cancelled_between_grant_and_delivery(queue: Any, slots: Any) -> None:
    """The hold stands under the call's id then, and the call's own settlement releases it."""
    limit = slots("a")
    await queue.take(limit)
    call = queue.wait([(limit, 1)])
    await queue.calm()
    await queue.store.release("taken")
    while queue.scheduler.position(call.waiter.id) is not None:
        await asyncio.sleep(0)
    call.task.cancel()
    await queue.calm()
    assert call.task.cancelled()
    await queue.store.release(call.waiter.id)
    assert await queue.left(limit) == 1


async def test_cancelled_while_the_store_is_asked(queue: Any, slots: Any) -> None:
    """A store that takes its time: what it grants to somebody who left goes back."""
    limit = slots("a")
    gate = asyncio.Event()
    reserve = queue.store.reserve

    async def slow(*asked: Any) -> Grant:
        await gate.wait()
        grant: Grant = await reserve(*asked)
        return grant

    queue.store.reserve = slow
    call = queue.wait([(limit, 1)])
    await queue.calm()
    call.task.cancel()
    await queue.calm()
    gate.set()
    await queue.calm()
    assert await queue.left(limit) == 1


async def test_an_error_of_the_store_ends_the_call_it_belongs_to(queue: Any, slots: Any) -> None:
    limit = slots("a")
    reserve = queue.store.reserve

    async def broken(hold: str, *asked: Any) -> Grant:
        if hold == "unlucky":
            raise ConnectionError("gone")
        grant: Grant = await reserve(hold, *asked)
        return grant

    queue.store.reserve = broken
    unlucky = queue.wait([(limit, 1)], name="unlucky")
    other = queue.wait([(limit, 1)])
    await queue.calm()
    assert isinstance(unlucky.error, ConnectionError)
    assert other.is_granted


async def test_after_a_reload_needs_are_resolved_anew(queue: Any, slots: Any) -> None:
    a, wide = slots("a"), slots("a", 2)
    await queue.take(a)
    stays, goes = queue.wait([(a, 1)]), queue.wait([(a, 1)])
    await queue.calm()
    stays.waiter.resolve = lambda: [Option(0, [queue.need(wide)])]

    def gone() -> list[Option]:
        raise ModelNotFound("it is gone")

    goes.waiter.resolve = gone
    await queue.scheduler.refresh()
    await queue.calm()
    assert stays.is_granted
    assert isinstance(goes.error, ModelNotFound)
