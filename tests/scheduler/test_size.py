"""Ten thousand calls that wait."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from time import process_time
from typing import Any

import pytest

from gateway.call import Need, Wait
from gateway.errors import RateLimited
from gateway.scheduler import Option, Queued
from loadtests import bench_queue


@pytest.mark.parametrize("clients", [100, 1000])
async def test_10_000_waiting_calls_with_all_that_is_made_for_them_take_under_10_mb(clients: int) -> None:
    assert (await bench_queue.memory(clients))["queue_mb"] < 10


@pytest.mark.parametrize("ending", ["refused", "granted", "gone"])
async def test_nothing_is_kept_of_a_call_that_no_longer_waits(queue: Any, slots: Any, ending: str) -> None:
    """Its body least of all; places in lists that it leaves are swept later."""
    limit = slots("a", 1)
    await queue.take(limit)
    holders = ["taken"]
    stays = queue.wait([(limit, 1)], client="stays", longest_s=120)
    await queue.calm()

    async def wait() -> weakref.ref[Any]:
        class Call:
            """What `resolve` of a waiter holds on to."""

        call = Call()
        waiter = queue.waiter([(limit, 1)], urgency="high", longest_s=10)
        waiter.resolve = lambda: call and waiter.options
        task = asyncio.ensure_future(queue.scheduler.wait(waiter, Queued("immediate", 0, 0)))
        await queue.calm()
        if ending == "granted":
            await queue.store.release(holders.pop())
            holders.append(waiter.id)
        elif ending == "gone":
            task.cancel()
        else:
            await queue.later(11)
        await queue.calm()
        await asyncio.gather(task, return_exceptions=True)
        return weakref.ref(call)

    left = [await wait() for _ in range(3)]
    await queue.calm()
    gc.collect()
    assert not stays.task.done()
    assert [ref() for ref in left] == [None, None, None]


async def test_a_call_whose_needs_and_error_lead_back_to_it_is_collected(queue: Any, slots: Any) -> None:
    """A policy's need may be a closure over the call, and the error's traceback holds the frames that know it."""
    limit = slots("a", 1)
    await queue.take(limit)

    class Call:
        """With what leads back to it."""

        needs: Any = None
        error: Any = None

    async def wait() -> weakref.ref[Any]:
        call = Call()
        call.needs = Need(limit, lambda _, target: int(call is not None), Wait(RateLimited, "a"))
        waiter = queue.waiter(longest_s=1)
        waiter.options = [Option(0, [(call.needs, limit, 1, 0)])]
        task = asyncio.ensure_future(queue.scheduler.wait(waiter, Queued("immediate", 0, 0)))
        await queue.calm()
        await queue.later(2)
        try:
            await task
        except RateLimited as error:
            call.error = error
        return weakref.ref(call)

    left = [await wait() for _ in range(3)]
    await queue.calm()
    gc.collect()
    assert [ref() for ref in left] == [None, None, None]


async def test_10_000_waiting_calls_are_small_and_quick(queue: Any, slots: Any) -> None:
    queue.configure(max_waiting=20_000, max_waiting_per_client=20_000)
    limit = slots("a")
    await queue.take(limit)
    waiters = [queue.waiter([(limit, 1)], client=f"c{n % 500}", longest_s=3600) for n in range(10_000)]
    told = [Queued("immediate", 0, 0) for _ in waiters]
    tracemalloc.start()
    entries = [queue.scheduler.enter(*pair) for pair in zip(waiters, told, strict=True)]
    await queue.calm()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 10_000_000, "bytes of the queue's own"

    async def grants(number: int) -> float:
        began = process_time()
        for _ in range(number):
            holds = list(queue.store._holds)
            await queue.store.release(holds[0])
            await queue.calm()
        return process_time() - began

    many = await grants(200)
    for entry in entries[:9500]:
        if not entry.done:
            entry.future.cancel()
            queue.scheduler.leave(entry)
    await queue.calm()
    few = await grants(200)
    assert many < few * 4, "a grant among 10,000 costs about what one among 500 does"
    for entry in entries:
        if not entry.done:
            entry.future.cancel()
            queue.scheduler.leave(entry)
    await queue.calm()
