"""What every store promises: one body over all backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.state.plan import REFILL_SCALE, Part, Plan, View
from gateway.state.store import Bucket, Grant, Limit, Slots, Store, Tally, Window

SECOND = 1_000_000_000
MINUTE, DAY = 60 * SECOND, 86_400 * SECOND
TTL_S = 900.0


def bucket(capacity: int = 10, refill: int = 10, per_ns: int = 10 * SECOND, key: str = "bucket") -> Bucket:
    return Bucket(key, capacity, "tokens", refill, per_ns)


def window(capacity: int = 10, span_ns: int = MINUTE) -> Window:
    return Window("window", capacity, "requests", span_ns)


def tally(capacity: int = 10, period: str = "2026-11", ends: int = 0, **more: object) -> Tally:
    return Tally("tally", capacity, "", period, ends, **more)  # type: ignore[arg-type]  # its own fields


def slots(capacity: int = 2) -> Slots:
    return Slots("slots", capacity)


def pool(capacity: int = 10, refill: int = 1, reserved: int = 0, own: int = 0, version: int = 1) -> Plan:
    """`refill` a second of each part."""
    figures = {"shared": capacity, "reserved": reserved, "client a": own}
    parts = [Part(name, most, refill * REFILL_SCALE) for name, most in figures.items() if most]
    return Plan("pool", tuple(parts), 30 * SECOND, version)


def view(plan: Plan | None = None, takes: tuple[str, ...] = ("shared",), owned: int = 0, **more: Any) -> View:
    plan = plan or pool()
    capacity = sum(part.capacity for part in plan.parts if part.name in takes)
    key = f"pool {' '.join(takes)} {more}"
    return View(key, capacity, group="pool", plan=plan, takes=takes, owned=owned, **more)


EACH = [bucket(), window(), tally(), slots(10), view()]
by_kind = pytest.mark.parametrize("limit", EACH, ids=lambda limit: type(limit).__name__)


async def take(store: Store, hold: str, limit: Limit, amount: int, ttl_s: float = TTL_S) -> Grant:
    return await store.reserve(hold, [(limit, amount)], ttl_s)


async def left(store: Store, limit: Limit) -> int:
    return (await store.levels([limit]))[0].remaining


# -- reserving


@by_kind
async def test_grants_up_to_the_capacity_and_no_more(store: Store, limit: Limit) -> None:
    assert (await take(store, "a", limit, 7)).granted
    assert (await take(store, "b", limit, 3)).granted
    refused = await take(store, "c", limit, 1)
    assert not refused.granted
    assert refused.lacks[0].index == 0
    assert refused.lacks[0].available == 0
    assert await left(store, limit) == 0


@by_kind
async def test_what_is_above_the_capacity_can_never_be_granted(store: Store, limit: Limit) -> None:
    refused = await take(store, "a", limit, 11)
    assert refused.lacks[0].available == 10
    assert refused.lacks[0].retry_after_s is None


async def test_holds_all_or_none(store: Store) -> None:
    few = slots(1)
    await take(store, "first", few, 1)
    others: list[tuple[Limit, int]] = [(bucket(), 5), (window(), 5), (tally(), 5)]
    refused = await store.reserve("second", [*others, (few, 1)], TTL_S)
    assert [lack.index for lack in refused.lacks] == [3]
    for limit, _ in others:
        assert await left(store, limit) == 10
    await store.release("first")
    assert (await store.reserve("second", [*others, (few, 1)], TTL_S)).granted
    assert [await left(store, limit) for limit, _ in others] == [5, 5, 5]


async def test_names_every_lack(store: Store) -> None:
    refused = await store.reserve("a", [(bucket(), 11), (slots(), 1), (tally(), 20)], TTL_S)
    assert [lack.index for lack in refused.lacks] == [0, 2]
    assert len(refused.levels) == 3
    assert [level.remaining for level in refused.levels] == [10, 2, 10]


@by_kind
async def test_the_same_limit_twice_is_counted_twice(store: Store, limit: Limit) -> None:
    refused = await store.reserve("a", [(limit, 6), (limit, 6)], TTL_S)
    assert [lack.index for lack in refused.lacks] == [1]
    assert await left(store, limit) == 10
    assert (await store.reserve("a", [(limit, 6), (limit, 4)], TTL_S)).granted
    assert await left(store, limit) == 0


@by_kind
async def test_refuses_a_negative_amount_and_holds_nothing(store: Store, limit: Limit) -> None:
    with pytest.raises(ValueError, match="-1"):
        await store.reserve("a", [(limit, 3), (bucket(key="other"), -1)], TTL_S)
    assert await left(store, limit) == 10
    with pytest.raises(ValueError, match="-5"):
        await store.reserve("a", [(limit, -5)], TTL_S)
    assert await left(store, limit) == 10


async def test_a_want_that_is_no_limit_leaves_nothing_held(store: Store) -> None:
    with pytest.raises(Exception, match="Limit"):
        await store.reserve("a", [(slots(), 2), (Limit("what", 3), 1)], TTL_S)
    assert await left(store, slots()) == 2


@by_kind
async def test_a_want_of_nothing_is_granted_by_a_limit_that_is_empty(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 10)
    assert (await take(store, "b", limit, 0)).granted


async def test_levels_are_those_after_the_decision(store: Store) -> None:
    granted = await store.reserve("a", [(bucket(), 4), (window(), 3)], TTL_S)
    assert [level.remaining for level in granted.levels] == [6, 7]
    assert granted.levels[0].reset_ns == 4 * SECOND
    assert MINUTE <= granted.levels[1].reset_ns <= MINUTE + SECOND


async def test_looking_takes_nothing(store: Store) -> None:
    assert await left(store, bucket()) == 10
    assert await left(store, bucket()) == 10
    assert (await take(store, "a", bucket(), 10)).granted


async def test_500_at_once_on_a_budget_of_ten_worst_cases(store: Store) -> None:
    budget = tally(10 * 3_000_000)
    grants = await asyncio.gather(*(take(store, f"call-{n}", budget, 3_000_000) for n in range(500)))
    assert sum(grant.granted for grant in grants) == 10
    assert await left(store, budget) == 0


# -- settling


@by_kind
async def test_settling_gives_back_what_was_not_used(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 10)
    await store.settle("a", [4])
    assert await left(store, limit) == (10 if isinstance(limit, Slots) else 6)


@by_kind
async def test_release_gives_everything_back(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 10)
    await store.release("a")
    assert await left(store, limit) == 10
    assert (await take(store, "b", limit, 10)).granted


@by_kind
async def test_a_hold_ends_once(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 6)
    await store.settle("a", [2])
    before = await left(store, limit)
    await store.settle("a", [0])
    await store.release("a")
    await store.renew("a", 10)
    assert await left(store, limit) == before


@by_kind
async def test_unknown_holds_are_ignored(store: Store, limit: Limit) -> None:
    await store.settle("nobody", [1])
    await store.release("nobody")
    await store.renew("nobody", 5)
    assert await left(store, limit) == 10


@by_kind
async def test_a_settlement_of_another_length_changes_nothing(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 6)
    with pytest.raises(ValueError, match="1 wants, not 2"):
        await store.settle("a", [1, 1])
    assert await left(store, limit) == 4
    await store.settle("a", [0])
    assert await left(store, limit) == 10


@pytest.mark.parametrize("limit", EACH[:3], ids=lambda limit: type(limit).__name__)
async def test_more_than_held_is_a_debt_that_blocks(store: Store, limit: Limit) -> None:
    await take(store, "a", limit, 2)
    await store.settle("a", [15])
    assert await left(store, limit) == -5
    assert not (await take(store, "b", limit, 1)).granted
    assert (await take(store, "c", limit, 0)).granted


async def test_a_debt_is_repaid_before_anything_is_admitted(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 2)
    await store.settle("a", [15])
    refused = await take(store, "b", bucket(), 1)
    assert refused.lacks[0].retry_after_s == 6.0
    clock.advance(5.999)
    assert not (await take(store, "b", bucket(), 1)).granted
    clock.advance(0.001)
    assert (await take(store, "b", bucket(), 1)).granted


async def test_nothing_reserved_can_still_be_charged(store: Store) -> None:
    for limit in (bucket(), window(), tally()):
        await take(store, "a", limit, 0)
        await store.settle("a", [3])
        assert await left(store, limit) == 7


async def test_negative_use_gives_back_no_more_than_was_held(store: Store) -> None:
    for limit in EACH:
        await take(store, "a", limit, 4)
        await store.settle("a", [-100])
        assert await left(store, limit) == 10


async def test_failover_adds_to_a_hold(store: Store) -> None:
    await take(store, "a", bucket(), 3)
    await store.reserve("a", [(bucket(), 2), (slots(), 1)], TTL_S)
    assert await left(store, bucket()) == 5
    assert await left(store, slots()) == 1
    await store.settle("a", [1, 2, 1])
    assert await left(store, bucket()) == 7
    assert await left(store, slots()) == 2


# -- refunds (TERMS 3)


async def test_a_refund_is_at_most_the_smallest_room_since_its_hold(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 6)  # level 4
    clock.advance(5)  # level 9: one was missing
    await take(store, "b", bucket(), 9)  # level 0
    await store.settle("a", [0])
    assert await left(store, bucket()) == 1


async def test_one_refund_lessens_the_room_of_the_next(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 5)
    await take(store, "b", bucket(), 5)
    clock.advance(8)  # level 8
    await take(store, "c", bucket(), 8)  # 8 are admitted now; another 2 at most
    await store.settle("a", [0])
    assert await left(store, bucket()) == 2
    await store.settle("b", [0])
    assert await left(store, bucket()) == 2


async def test_nothing_returns_to_a_bucket_that_was_full_meanwhile(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 6)
    clock.advance(10)
    await take(store, "b", bucket(), 10)
    await store.release("a")
    assert await left(store, bucket()) == 0


async def test_a_refund_never_fills_above_the_capacity(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 10)
    clock.advance(7)
    await store.release("a")
    assert await left(store, bucket()) == 10


# -- time


async def test_a_bucket_refills_exactly(store: Store, clock: ManualClock) -> None:
    slow = bucket(10, 1, 3 * SECOND)
    await take(store, "a", slow, 10)
    clock.advance(8.999999999)
    assert await left(store, slow) == 2
    clock.advance(0.000000001)
    assert await left(store, slow) == 3


async def test_retry_after_of_a_bucket_is_true(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(), 10)
    wait = (await take(store, "b", bucket(), 3)).lacks[0].retry_after_s
    assert wait == 3.0
    clock.advance(2.999)
    assert not (await take(store, "b", bucket(), 3)).granted
    clock.advance(0.001)
    assert (await take(store, "b", bucket(), 3)).granted


async def test_retry_after_of_a_window_is_true(store: Store, clock: ManualClock) -> None:
    await take(store, "a", window(), 4)
    clock.advance(20)
    await take(store, "b", window(), 6)
    wait = (await take(store, "c", window(), 3)).lacks[0].retry_after_s
    assert wait is not None
    assert 40 <= wait <= 41
    clock.advance(wait - 0.001)
    assert not (await take(store, "c", window(), 3)).granted
    clock.advance(0.001)
    assert (await take(store, "c", window(), 3)).granted


async def test_a_window_lets_nothing_in_twice(store: Store, clock: ManualClock) -> None:
    """No true window of the span ever holds more than the capacity, and what left is free a slice later at most."""
    admitted: list[tuple[int, int]] = []
    start = clock.now_ns()
    for step in range(2000):
        clock.advance(0.173)
        now = clock.now_ns()
        if (await take(store, f"{step}", window(), 1 + step % 3)).granted:
            admitted.append((now, 1 + step % 3))
        assert sum(amount for at, amount in admitted if at > now - MINUTE) <= 10
    sixth = MINUTE + SECOND
    assert sum(amount for _, amount in admitted) >= 10 * ((clock.now_ns() - start) // sixth) * 2 // 3


async def test_a_window_settles_in_the_slice_of_admission(store: Store, clock: ManualClock) -> None:
    await take(store, "a", window(), 8)
    clock.advance(30)
    await take(store, "b", window(), 2)
    await store.settle("a", [3])
    assert await left(store, window()) == 5
    clock.advance(31)
    assert await left(store, window()) == 8
    clock.advance(30)
    await store.settle("b", [9])  # long after its slice has left: it no longer counts
    assert await left(store, window()) == 10


async def test_a_wall_clock_that_jumps_mints_nothing_and_locks_no_one_out(store: Store, clock: ManualClock) -> None:
    limits = [bucket(), window(), tally(), slots(10)]
    await store.reserve("a", [(limit, 10) for limit in limits], TTL_S)
    for jump_s in (3600, -7200, 3600):
        clock.jump_wall(jump_s)
        assert [await left(store, limit) for limit in limits] == [0, 0, 0, 0]
    clock.advance(10)
    assert (await take(store, "b", bucket(), 10)).granted
    await store.release("a")
    assert await left(store, slots(10)) == 10


# -- periods


async def test_a_new_period_starts_at_zero(store: Store) -> None:
    await take(store, "a", tally(), 10)
    assert (await take(store, "b", tally(period="2026-12"), 10)).granted


async def test_a_period_that_comes_back_is_remembered(store: Store) -> None:
    """The wall clock went forth over midnight and back, and forth again."""
    await take(store, "a", tally(), 10)
    await take(store, "b", tally(period="2026-12"), 4)
    assert not (await take(store, "c", tally(), 1)).granted
    assert await left(store, tally(period="2026-12")) == 6


async def test_a_call_counts_in_the_period_of_its_admission(store: Store) -> None:
    await take(store, "a", tally(), 10)
    await take(store, "b", tally(period="2026-12"), 2)
    await store.settle("a", [7])
    assert await left(store, tally()) == 3
    assert await left(store, tally(period="2026-12")) == 8


async def test_a_tally_says_when_its_period_ends(store: Store, clock: ManualClock) -> None:
    month = tally(ends=clock.wall_ns() + 5 * SECOND)
    await take(store, "a", month, 10)
    assert (await take(store, "b", month, 1)).lacks[0].retry_after_s == 5.0
    clock.jump_wall(60)
    assert (await take(store, "b", month, 1)).lacks[0].retry_after_s == 0.0


async def test_a_tally_without_a_period_does_not_end(store: Store) -> None:
    ever = tally(period="")
    await take(store, "a", ever, 10)
    assert (await take(store, "b", ever, 1)).lacks[0].retry_after_s is None


async def test_a_soft_tally_counts_and_refuses_nothing(store: Store) -> None:
    soft = tally(soft=True)
    assert (await take(store, "a", soft, 25)).granted
    await store.settle("a", [20])
    assert await left(store, soft) == -10
    assert (await take(store, "b", soft, 1)).granted


async def test_marks_are_told_once_a_period(store: Store) -> None:
    told: list[tuple[str, int, int]] = []
    store.watch("test", lambda limit, mark, used: told.append((limit.period, mark, used)))

    async def spend(hold: str, amount: int, period: str = "2026-11") -> None:
        await take(store, hold, tally(100, period, marks=(80, 95, 100)), amount)
        await store.settle(hold, [amount])

    await spend("a", 79)
    assert told == []
    await spend("b", 1)
    await spend("c", 5)
    assert told == [("2026-11", 0, 80)]
    await spend("d", 15)
    assert told == [("2026-11", 0, 80), ("2026-11", 1, 100), ("2026-11", 2, 100)]
    await spend("e", 81, "2026-12")
    assert told[3:] == [("2026-12", 0, 81)]


async def test_a_refusal_close_to_the_end_is_the_end(store: Store) -> None:
    told: list[int] = []
    store.watch("test", lambda limit, mark, used: told.append(mark))
    money = tally(100, marks=(80, 95, 100))
    await take(store, "a", money, 50)
    await take(store, "refused", money, 60)
    assert told == []  # half of it is left: smaller calls go on
    await store.settle("a", [96])
    await take(store, "refused", money, 10)
    await take(store, "refused", money, 10)
    assert told == [0, 1, 2]


async def test_what_only_holds_refuse_is_not_the_end(store: Store) -> None:
    told: list[int] = []
    store.watch("test", lambda limit, mark, used: told.append(mark))
    money = tally(100, marks=(95, 100))
    await take(store, "a", money, 95)
    await store.settle("a", [95])
    await take(store, "b", money, 5)
    await take(store, "refused", money, 5)
    assert told == [0]


# -- holds that end by themselves


@by_kind
async def test_a_hold_ends_by_itself_at_its_worst_case(store: Store, clock: ManualClock, limit: Limit) -> None:
    if isinstance(limit, Bucket):
        limit = Bucket("slow", 10, "", 1, 10**6 * SECOND)
    if isinstance(limit, Window):
        limit = Window("long", 10, "", DAY)
    if isinstance(limit, View):
        limit = view(pool(refill=0))
    await take(store, "a", limit, 7, ttl_s=5)
    clock.advance(4.999)
    await store.renew("b", 1)
    clock.advance(0.001)
    await store.settle("a", [0])
    assert await left(store, limit) == (10 if isinstance(limit, Slots) else 3)


async def test_a_renewed_hold_lives_on(store: Store, clock: ManualClock) -> None:
    await take(store, "a", slots(), 2, ttl_s=5)
    clock.advance(4)
    await store.renew("a", 5)
    clock.advance(4)
    assert await left(store, slots()) == 0
    clock.advance(1)
    assert await left(store, slots()) == 2


async def test_a_shorter_renewal_counts_too(store: Store, clock: ManualClock) -> None:
    await take(store, "a", slots(), 2, ttl_s=50)
    await store.renew("a", 2)
    clock.advance(2)
    assert await left(store, slots()) == 2


# -- live parameters


async def test_after_a_reload_the_level_is_at_most_the_new_capacity(store: Store) -> None:
    await take(store, "a", bucket(100, 100), 10)
    assert await left(store, bucket(20, 100)) == 20
    assert await left(store, bucket(100, 100)) == 20  # nothing comes back but by refill


async def test_a_reload_back_and_forth_mints_nothing(store: Store) -> None:
    await take(store, "a", bucket(100, 100), 90)
    assert await left(store, bucket(50, 100)) == 10
    assert await left(store, bucket(100, 100)) == 10
    await store.release("a")  # as if it had never been: full, then cut to 50
    assert await left(store, bucket(100, 100)) == 50


async def test_another_rate_holds_from_now_on(store: Store, clock: ManualClock) -> None:
    await take(store, "a", bucket(10, 1, SECOND), 10)
    clock.advance(2)
    assert await left(store, bucket(10, 1, 2 * SECOND)) == 2
    clock.advance(4)
    assert await left(store, bucket(10, 1, 2 * SECOND)) == 4
    await store.release("a")
    assert await left(store, bucket(10, 1, 2 * SECOND)) == 10


@pytest.mark.parametrize("kind", [window, tally, slots])
async def test_other_kinds_take_a_new_capacity(store: Store, kind: type) -> None:
    await take(store, "a", kind(10), 6)
    assert await left(store, kind(4)) == -2
    assert not (await take(store, "b", kind(4), 1)).granted
    assert await left(store, kind(20)) == 14


async def test_a_window_takes_another_span(store: Store, clock: ManualClock) -> None:
    await take(store, "a", window(10, MINUTE), 6)
    clock.advance(30)
    assert await left(store, window(10, 2 * MINUTE)) == 4
    await store.settle("a", [0])  # held under the old span: stays at its worst
    clock.advance(89)
    assert await left(store, window(10, 2 * MINUTE)) == 4
    clock.advance(4)
    assert await left(store, window(10, 2 * MINUTE)) == 10


async def test_another_kind_under_the_same_key_is_another_limit(store: Store) -> None:
    await take(store, "a", Bucket("same", 10, "", 1, DAY), 10)
    assert (await take(store, "b", Window("same", 10), 10)).granted
    await store.release("a")
    assert await left(store, Window("same", 10)) == 0


# -- rebuilding


async def test_restating_a_window_and_a_tally_replaces_what_they_count(store: Store, clock: ManualClock) -> None:
    await take(store, "a", window(), 9)
    await store.restate(window(), [(10 * SECOND, 3), (50 * SECOND, 2), (3600 * SECOND, 5)])
    assert await left(store, window()) == 5
    clock.advance(12)
    assert await left(store, window()) == 7
    clock.advance(41)
    assert await left(store, window()) == 10
    await take(store, "b", tally(), 9)
    await store.settle("b", [9])
    await store.restate(tally(), [(0, 2), (5, 2)])
    assert await left(store, tally()) == 6


async def test_restating_a_bucket_leaves_at_most_what_its_history_does(store: Store) -> None:
    await store.restate(bucket(), [(2 * SECOND, 4), (60 * SECOND, 10)])
    assert await left(store, bucket()) == 8
    await take(store, "a", bucket(), 5)
    await store.restate(bucket(), [(2 * SECOND, 4)])
    assert await left(store, bucket()) == 3
    await store.restate(bucket(), [])
    assert await left(store, bucket()) == 3


async def test_restating_tells_marks(store: Store) -> None:
    told: list[int] = []
    store.watch("test", lambda limit, mark, used: told.append(mark))
    await store.restate(tally(100, marks=(80, 95, 100)), [(0, 96)])
    assert told == [0, 1]


# -- waiting, and moving


async def test_what_may_be_waited_for_leaves_the_rest_held(store: Store) -> None:
    quota, busy = window(), slots(1)
    assert (await take(store, "a", busy, 1)).granted
    grant = await store.reserve("b", [(quota, 4), (busy, 1)], TTL_S, 1)
    assert grant.waits
    assert not grant.granted
    assert [lack.index for lack in grant.lacks] == [1]
    assert await left(store, quota) == 6
    assert not (await store.reserve("b", [(busy, 1)], TTL_S)).granted
    await store.release("a")
    assert (await store.reserve("b", [(busy, 1)], TTL_S)).granted
    await store.settle("b", [1, 1])
    assert await left(store, quota) == 9
    assert await left(store, busy) == 1


async def test_behind_others_nothing_waited_for_is_taken(store: Store) -> None:
    quota, free = window(), slots(1)
    grant = await store.reserve("a", [(quota, 4), (free, 1)], TTL_S, 1, queued=True)
    assert grant.waits
    assert not grant.lacks
    assert await left(store, free) == 1
    assert await left(store, quota) == 6


async def test_a_refusing_lack_holds_nothing_at_all(store: Store) -> None:
    quota, busy = window(3), slots(1)
    assert (await take(store, "a", busy, 1)).granted
    for queued in (False, True):
        grant = await store.reserve("b", [(quota, 4), (busy, 1)], TTL_S, 1, queued)
        assert not grant.waits
        assert not grant.granted
    assert await left(store, quota) == 3


async def test_more_than_there_ever_is_is_not_waited_for(store: Store) -> None:
    for queued in (False, True):
        grant = await store.reserve("a", [(window(), 1), (slots(2), 3)], TTL_S, 1, queued)
        assert not grant.waits
        assert grant.lacks[0].retry_after_s is None
    assert await left(store, window()) == 10


async def test_an_exchange_moves_a_hold_or_changes_nothing(store: Store) -> None:
    quota, here, there = window(), Slots("here", 1), Slots("there", 1)
    assert (await store.reserve("a", [(quota, 1), (here, 1)], TTL_S)).granted
    assert (await take(store, "b", there, 1)).granted
    assert not (await store.exchange("a", [1], [(there, 1)], TTL_S)).granted
    assert await left(store, here) == 0
    await store.release("b")
    assert (await store.exchange("a", [1], [(there, 1)], TTL_S)).granted
    assert await left(store, here) == 1
    assert await left(store, there) == 0
    await store.settle("a", [1, 1])
    assert await left(store, there) == 1
    assert await left(store, quota) == 9


async def test_what_is_given_back_is_told(store: Store) -> None:
    told: list[str] = []
    store.listen(told.extend)
    assert (await store.reserve("a", [(slots(), 1), (bucket(), 1)], TTL_S)).granted
    assert told == []
    await store.release("a")
    assert set(told) == {"slots", "bucket"}
    store.listen(None)
