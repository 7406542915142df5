"""Nobody starves between two limits, each of which others take who need only that one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.state.store import Limit


class Crowd:
    """Six calls always wait for one limit alone, each of a client of its own; a hold lasts `lasts` steps of 0.1 s."""

    def __init__(self, queue: Any, name: str, limit: Limit, lasts: tuple[int, ...]) -> None:
        self.queue, self.name, self.limit, self.lasts = queue, name, limit, lasts
        self.waiting: list[Any] = []
        self.running: list[tuple[int, str]] = []
        self.granted = 0

    async def step(self, number: int) -> None:
        for ends, hold in [one for one in self.running if one[0] <= number]:
            self.running.remove((ends, hold))
            await self.queue.store.settle(hold, [1])
            await self.queue.calm()
        for one in [one for one in self.waiting if one.is_granted]:
            self.waiting.remove(one)
            self.granted += 1
            self.running.append((number + self.lasts[self.granted % len(self.lasts)], one.waiter.id))
        while len(self.waiting) < 6:
            self.waiting.append(self.queue.wait([(self.limit, 1)], client=f"{self.name}{self.queue.number % 6}"))


async def served_after(queue: Any, crowds: list[Crowd], needs: list[tuple[Limit, int]], **how: Any) -> float | None:
    """Seconds that a call which needs all of this waits among them; None: it was refused."""
    one = None
    for number in range(1000):
        for crowd in crowds:
            await crowd.step(number)
        if number == 50:
            one = queue.wait(needs, client="both", **how)
        await queue.later(0.1)
        if one is not None and one.task.done():
            return (number - 50) / 10 if one.is_granted else None
    raise AssertionError("it neither went nor was refused")


async def test_who_needs_tokens_and_a_slot_goes_soon_after_it_starves(queue: Any, bucket: Any, slots: Any) -> None:
    """Of a lower band than all others."""
    pool, slot = bucket("p", 10, 2), slots("s", 2)
    crowds = [Crowd(queue, "tokens", pool, (0,)), Crowd(queue, "slots", slot, (4, 5, 6))]
    waited_s = await served_after(queue, crowds, [(pool, 5), (slot, 1)], urgency="low", longest_s=40)
    assert waited_s is not None, "it was refused at the end of its longest wait"
    assert waited_s < 30, "it is starved after half of its longest wait"
    assert crowds[0].granted > 40, "what is kept for it keeps nobody else away"


@pytest.mark.parametrize("urgency", ["high", "normal"])
async def test_who_is_first_need_not_starve_for_the_tokens_that_others_would_take(
    queue: Any, bucket: Any, slots: Any, urgency: str
) -> None:
    """Calls of its band or lower ones, each of which needs only one of the two."""
    pool, slot = bucket("p", 10, 2), slots("s", 2)
    crowds = [Crowd(queue, "tokens", pool, (0,)), Crowd(queue, "slots", slot, (4, 5, 6))]
    waited_s = await served_after(queue, crowds, [(pool, 5), (slot, 1)], urgency=urgency, longest_s=40)
    assert waited_s is not None
    assert waited_s < 12, "long before it starves"


async def test_who_needs_two_sorts_of_slots_goes_soon_after_it_starves(queue: Any, slots: Any) -> None:
    one, other = slots("a", 1), slots("b", 1)
    crowds = [Crowd(queue, "a", one, (3, 4)), Crowd(queue, "b", other, (4, 6, 5))]
    waited_s = await served_after(queue, crowds, [(one, 1), (other, 1)], longest_s=40)
    assert waited_s is not None
    assert waited_s < 30


async def test_who_needs_two_pools_goes_soon_after_it_starves(queue: Any, bucket: Any) -> None:
    one, other = bucket("p", 10, 3), bucket("q", 10, 2)
    crowds = [Crowd(queue, "p", one, (0,)), Crowd(queue, "q", other, (0,))]
    waited_s = await served_after(queue, crowds, [(one, 8), (other, 8)], longest_s=40)
    assert waited_s is not None
    assert waited_s < 32


async def starved_between(queue: Any, slots: Any) -> tuple[Any, Limit, Limit]:
    """A starved call whose turn came at a free slot `a`, and which waits for `b`."""
    one, other = slots("a", 1), slots("b", 1)
    await queue.take(one, hold="a")
    starved = queue.wait([(one, 1), (other, 1)], client="both", longest_s=100)
    await queue.calm()
    await queue.later(51)
    await queue.take(other, hold="b")
    await queue.release("a")
    return starved, one, other


async def test_a_newcomer_waits_for_what_is_kept(queue: Any, slots: Any) -> None:
    starved, one, other = await starved_between(queue, slots)
    assert not starved.is_granted
    assert queue.scheduler.contended([queue.need(one)]), "though nobody stands in that line"
    late = queue.wait([(one, 1)], client="late")
    await queue.calm()
    assert not late.is_granted
    await queue.release("b")
    assert starved.is_granted
    assert not late.is_granted
    await queue.release(starved.waiter.id)
    assert late.is_granted, "it is kept no longer than its call waits"
    assert not queue.scheduler.contended([queue.need(other)])


async def test_what_was_kept_for_a_call_that_leaves_is_free(queue: Any, slots: Any) -> None:
    starved, one, _ = await starved_between(queue, slots)
    late = queue.wait([(one, 1)], client="late")
    await queue.calm()
    starved.task.cancel()
    await queue.calm()
    assert late.is_granted
    assert not queue.scheduler._board.claim.amounts


async def test_no_slot_is_kept_while_its_call_waits_for_a_refill(queue: Any, slots: Any, bucket: Any) -> None:
    slot, pool = slots("a", 1), bucket("p", 100, 1)
    await queue.take(slot, hold="a")
    starved = queue.wait([(slot, 1), (pool, 90)], client="both", longest_s=100)
    await queue.calm()
    await queue.later(51)
    await queue.take(pool, 100, hold="p")
    await queue.store.settle("p", [100])
    await queue.release("a")
    late = queue.wait([(slot, 1)], client="late")
    await queue.calm()
    assert late.is_granted
    assert not starved.is_granted


async def test_no_slot_is_kept_for_a_call_that_is_not_starved(queue: Any, slots: Any) -> None:
    one, other = slots("a", 1), slots("b", 1)
    await queue.take(one, hold="a")
    queue.wait([(one, 1), (other, 1)], client="both", urgency="urgent")
    await queue.calm()
    await queue.take(other, hold="b")
    await queue.release("a")
    late = queue.wait([(one, 1)], client="late", urgency="low")
    await queue.calm()
    assert late.is_granted


async def test_a_higher_band_comes_first(queue: Any, slots: Any, bucket: Any) -> None:
    pool, slot = bucket("p", 10, 1), slots("s", 1)
    await queue.take(slot, hold="s")
    await queue.take(pool, 10, hold="p")
    await queue.store.settle("p", [10])

    async def turn(name: str, urgency: str) -> Any:
        made = queue.wait([(pool, 5), (slot, 1)], client=name, urgency=urgency, longest_s=200, name=name)
        await queue.calm()
        await queue.later(6)
        return made

    claim = queue.scheduler._board.claim
    await turn("low", "low")
    assert claim.holder.waiter.id == "low"
    await turn("high", "high")
    assert claim.holder.waiter.id == "high"
    await turn("normal", "normal")
    assert claim.holder.waiter.id == "high"
    await queue.release("s")
    assert queue.granted == ["high"]


async def test_a_reload_keeps_nothing(queue: Any, slots: Any) -> None:
    _, one, _ = await starved_between(queue, slots)
    late = queue.wait([(one, 1)], client="late")
    await queue.calm()
    assert not late.is_granted
    await queue.scheduler.refresh()
    await queue.calm()
    assert late.is_granted
