"""Who goes next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.state.store import Slots


async def drain(queue: Any, limit: Slots, holds: list[str], most: int = 10_000) -> list[str]:
    """Lets go of one slot after the other and gives the ids in the order of their grants."""
    for _ in range(most):
        if not holds:
            break
        before = len(queue.granted)
        await queue.release(holds.pop(0))
        holds += queue.granted[before:]
    return list(queue.granted)


async def test_a_free_limit_is_granted_and_held(queue: Any, slots: Any) -> None:
    limit = slots("a", 2)
    one = queue.wait([(limit, 1)])
    await queue.calm()
    assert one.is_granted
    assert await queue.left(limit) == 1


async def test_first_come_first_served_among_equals(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for number in range(5):
        queue.wait([(limit, 1)], name=f"c{number}")
    await queue.calm()
    assert await drain(queue, limit, ["taken"]) == [f"c{number}" for number in range(5)]


async def test_higher_bands_go_first(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for urgency in ("low", "normal", "high", "urgent"):
        queue.wait([(limit, 1)], name=urgency, urgency=urgency, client=urgency)
    await queue.calm()
    assert await drain(queue, limit, ["taken"]) == ["urgent", "high", "normal", "low"]


async def test_one_client_with_a_thousand_calls_does_not_delay_anothers_first(queue: Any, slots: Any) -> None:
    queue.configure(max_waiting=2000, max_waiting_per_client=2000)
    limit = slots("a")
    await queue.take(limit)
    for number in range(1000):
        queue.wait([(limit, 1)], name=f"big-{number}", client="big")
    await queue.calm()
    queue.wait([(limit, 1)], name="small", client="small")
    await queue.calm()
    holds = ["taken"]
    await drain(queue, limit, holds, most=3)
    assert "small" in queue.granted[:2]


async def test_clients_alternate_by_tokens_and_weight(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for number in range(30):
        queue.wait([(limit, 1)], name=f"heavy-{number}", client="heavy", tokens=3000)
        queue.wait([(limit, 1)], name=f"light-{number}", client="light", tokens=1000)
    await queue.calm()
    first = (await drain(queue, limit, ["taken"], most=20))[:20]
    assert 14 <= sum(name.startswith("light") for name in first) <= 16


async def test_a_tiers_weight_counts(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for number in range(40):  # same band: 30 + 0 + 10 and 20 + 10 + 10
        queue.wait([(limit, 1)], name=f"premium-{number}", client="p", points=30, urgency="low", longest_s=300)
        queue.wait([(limit, 1)], name=f"standard-{number}", client="s", points=20, longest_s=300)
    await queue.calm()
    first = (await drain(queue, limit, ["taken"], most=25))[:25]
    assert 14 <= sum(name.startswith("premium") for name in first) <= 16


async def test_what_an_earlier_call_lacks_is_closed_to_later_ones(queue: Any, bucket: Any) -> None:
    limit = bucket("tokens", 1000, 10)
    await queue.take(limit, 900)
    big = queue.wait([(limit, 500)], client="big")
    await queue.calm()
    small = queue.wait([(limit, 50)], client="small", tokens=10_000)
    await queue.calm()
    assert not big.is_granted
    assert not small.is_granted, "there were 100, but an earlier call needs them"
    assert queue.scheduler.contended(small.waiter.options[0].held)
    await queue.later(41)
    assert big.is_granted
    assert not small.is_granted
    await queue.later(5)
    assert small.is_granted


async def test_more_urgent_calls_may_take_what_is_there(queue: Any, bucket: Any) -> None:
    limit = bucket("tokens", 1000, 10)
    await queue.take(limit, 900)
    queue.wait([(limit, 500)], client="big")
    await queue.calm()
    urgent = queue.wait([(limit, 50)], client="small", urgency="urgent")
    await queue.calm()
    assert urgent.is_granted


async def test_other_limits_stay_open(queue: Any, slots: Any) -> None:
    a, b = slots("a"), slots("b")
    await queue.take(a)
    queue.wait([(a, 1)])
    other = queue.wait([(b, 1)])
    await queue.calm()
    assert other.is_granted


async def test_several_limits_are_granted_together_or_not_at_all(queue: Any, slots: Any) -> None:
    a, b = slots("a"), slots("b")
    await queue.take(a, hold="ha")
    await queue.take(b, hold="hb")
    both = queue.wait([(a, 1), (b, 1)])
    await queue.calm()
    await queue.release("ha")
    assert not both.is_granted
    assert await queue.left(a) == 1
    await queue.release("hb")
    assert both.is_granted
    assert (await queue.left(a), await queue.left(b)) == (0, 0)


async def test_the_first_ranked_target_with_everything_there_is_taken(queue: Any, slots: Any) -> None:
    a, b = slots("a"), slots("b", 2)
    await queue.take(a, hold="ha")
    await queue.take(b, 2, hold="hb")
    calls = [queue.wait([(a, 1)], [(b, 1)], name=f"c{number}") for number in range(3)]
    await queue.calm()
    await queue.release("hb")
    assert [call.is_granted for call in calls] == [True, True, False]
    assert calls[0].task.result().target == 1
    await queue.release("ha")
    assert calls[2].task.result().target == 0


async def test_every_fourth_contended_grant_is_the_oldest_starved_calls(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for number in range(4):
        queue.wait([(limit, 1)], name=f"old-{number}", client="old", urgency="low", longest_s=100)
    await queue.calm()
    await queue.later(51)  # half of their longest wait
    for number in range(12):
        queue.wait([(limit, 1)], name=f"new-{number}", client="new", urgency="high", longest_s=100)
    await queue.calm()
    order = await drain(queue, limit, ["taken"])
    assert [order.index(f"old-{number}") + 1 for number in range(3)] == [4, 8, 12]


async def test_the_lowest_band_gets_its_floor(queue: Any, slots: Any) -> None:
    queue.configure(floor_percent=10)
    limit = slots("a")
    await queue.take(limit)
    for number in range(10):
        queue.wait([(limit, 1)], name=f"low-{number}", client="low", urgency="low", longest_s=1000)
    for number in range(60):
        queue.wait([(limit, 1)], name=f"high-{number}", client="high", urgency="high", longest_s=1000)
    await queue.calm()
    first = (await drain(queue, limit, ["taken"], most=41))[:40]
    assert sum(name.startswith("low") for name in first) == 4


async def test_waiting_lifts_a_call_into_a_higher_band(queue: Any, slots: Any) -> None:
    queue.configure(starvation_s=100_000)
    limit = slots("a")
    await queue.take(limit)
    queue.wait([(limit, 1)], name="old", client="old", points=20, longest_s=9000)  # 40 points
    await queue.calm()
    assert queue.scheduler.position("old").priority == 40
    await queue.later(3000)
    queue.wait([(limit, 1)], name="new", client="new", points=29, longest_s=9000)  # 49 points: the same band at first
    await queue.calm()
    assert queue.scheduler.position("old").priority == 50
    assert await drain(queue, limit, ["taken"]) == ["old", "new"]


async def test_a_deadline_that_comes_near_lifts_a_call(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    queue.wait([(limit, 1)], name="due", client="due", deadline_s=3660, longest_s=9000, points=15)
    await queue.calm()
    assert queue.scheduler.position("due").priority == 40
    await queue.later(61)
    assert queue.scheduler.position("due").priority == 45


async def test_each_tenth_request_of_the_hour_costs_a_client_a_point(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    queue.wait([(limit, 1)], name="busy", client="busy", longest_s=9000)
    queue.wait([(limit, 1)], name="calm", client="calm", longest_s=9000)
    await queue.calm()
    for _ in range(10):
        queue.scheduler.count("busy", queue.clock.wall_ns())
    assert queue.scheduler.position("busy").priority == 39
    assert queue.scheduler.position("calm").priority == 40
    await queue.later(3600)
    assert queue.scheduler.position("busy").priority >= 40, "a new hour has begun"


async def test_a_part_of_ones_own_stays_open(queue: Any, bucket: Any) -> None:
    """Who has a part of a pool for itself is not kept from it by those who wait for the rest."""
    pool = bucket("pool", 1000, 10)
    own = replace(bucket("own", 100, 10), group="pool")
    view = replace(pool, key="view", group="pool", own=own)
    await queue.take(pool, 950)
    other = queue.wait([(pool, 500)], client="other")
    await queue.calm()
    owner = queue.wait([(view, 80)], client="owner", tokens=10_000)
    await queue.calm()
    assert not other.is_granted
    assert owner.is_granted
    assert owner.task.result().held[0][1] is own
    again = queue.wait([(view, 80)], client="owner", tokens=10_000)
    await queue.calm()
    assert not again.is_granted
    await queue.later(6.1)
    assert again.is_granted, "its own part is there again, the rest is not"
    assert not other.is_granted


async def test_who_wishes_a_short_wait_is_not_starved_the_sooner(queue: Any, slots: Any) -> None:
    limit = slots("a")
    await queue.take(limit)
    for number in range(8):
        queue.wait([(limit, 1)], name=f"patient-{number}", client="patient", longest_s=60)
    hasty = queue.wait([(limit, 1)], name="hasty", client="hasty", urgency="low", longest_s=2)
    hasty.waiter.placement.usual_wait_s = 120
    await queue.calm()
    await queue.later(1.5)
    assert not queue.scheduler.position("hasty").starved
    assert "hasty" not in (await drain(queue, limit, ["taken"], most=5))[:5]
