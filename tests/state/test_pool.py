"""What a pool promises beside what every limit does: parts, lending and taking back, what the provider says."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import ManualClock
from gateway.state.memory import MemoryStore
from gateway.state.plan import REFILL_SCALE, Part, Plan, View
from gateway.state.store import PartLevel, Store

SECOND = 1_000_000_000
TTL_S = 900.0
IDLE_S = 30


def plan(shared: int = 10, reserved: int = 2, own: int = 4, refill: int = 0, version: int = 1) -> Plan:
    """Shared and reserved, and a dedicated part of client a unless it is of nothing; `refill` a second of each."""
    figures = {"shared": shared, "client a": own, "reserved": reserved}
    parts = tuple(Part(name, most, refill * REFILL_SCALE) for name, most in figures.items() if most)
    return Plan("pool", parts, IDLE_S * SECOND, version)


class Views:
    """How each kind of caller sees a pool."""

    def __init__(self, of: Plan) -> None:
        self.plan = of
        self.plain = self.view("plain", "shared")
        self.short = self.view("short", "shared", borrows=("client a", "reserved"))
        self.urgent = self.view("urgent", "reserved", "shared", owned=1)
        self.own_urgent = self.view("own urgent", "reserved", owned=1)
        self.own_a = self.view("own a", "client a", owned=1, debtor="client a")
        self.a = self.view("a", "client a", "shared", owned=1, debtor="client a", own=self.own_a)

    def view(
        self,
        kind: str,
        *takes: str,
        owned: int = 0,
        borrows: tuple[str, ...] = (),
        debtor: str = "shared",
        own: View | None = None,
    ) -> View:
        capacity = sum(part.capacity for part in self.plan.parts if part.name in takes)
        return View(
            f"pool {kind}", capacity, group="pool", own=own, plan=self.plan, takes=takes, owned=owned, borrows=borrows,
            debtor=debtor,
        )  # fmt: skip


@pytest.fixture
def views() -> Views:
    return Views(plan())


async def take(store: Store, hold: str, view: View, amount: int) -> bool:
    return (await store.reserve(hold, [(view, amount)], TTL_S)).granted


async def parts(store: Store, view: View) -> dict[str, int]:
    """What is there of each part; below zero what it owes."""
    return {level.name: level.available - level.debt for level in await store.parts(view)}


async def test_takes_its_own_part_first_then_the_shared_one(store: Store, views: Views) -> None:
    assert await take(store, "1", views.a, 3)
    assert await parts(store, views.plain) == {"shared": 10, "client a": 1, "reserved": 2}
    assert await take(store, "2", views.a, 3)
    assert await parts(store, views.plain) == {"shared": 8, "client a": 0, "reserved": 2}


async def test_urgent_calls_have_the_reserved_part_when_the_shared_one_is_empty(store: Store, views: Views) -> None:
    assert await take(store, "1", views.plain, 10)
    assert not await take(store, "2", views.plain, 1)
    assert await take(store, "3", views.urgent, 2)
    assert await parts(store, views.plain) == {"shared": 0, "client a": 4, "reserved": 0}
    assert not await take(store, "4", views.urgent, 1)


async def test_an_amount_may_be_made_up_of_several_parts_or_nothing_is_taken(store: Store, views: Views) -> None:
    assert await take(store, "1", views.a, 14)
    await store.release("1")
    assert not await take(store, "2", views.a, 15)
    assert await parts(store, views.plain) == {"shared": 10, "client a": 4, "reserved": 2}


async def test_fractions_of_parts_make_up_a_unit(store: Store, clock: ManualClock) -> None:
    views = Views(plan(shared=1, reserved=1, own=0, refill=1))
    assert await take(store, "1", views.urgent, 2)
    refused = await store.reserve("2", [(views.urgent, 1)], TTL_S)
    assert refused.lacks[0].retry_after_s == 0.5
    clock.advance(0.5)
    assert await take(store, "3", views.urgent, 1)


async def test_parts_get_back_what_came_from_them_and_owners_owe(store: Store, views: Views) -> None:
    assert await take(store, "1", views.a, 6)
    await store.settle("1", [5])
    assert await parts(store, views.plain) == {"shared": 9, "client a": 0, "reserved": 2}
    assert await take(store, "2", views.a, 1)
    await store.settle("2", [4])
    assert await parts(store, views.plain) == {"shared": 8, "client a": -3, "reserved": 2}
    assert not await take(store, "3", views.own_a, 1)
    assert await take(store, "4", views.a, 1)
    assert await parts(store, views.plain) == {"shared": 7, "client a": -3, "reserved": 2}


async def test_the_reserved_part_never_owes(store: Store, views: Views) -> None:
    assert await take(store, "1", views.urgent, 2)
    await store.settle("1", [20])
    assert await parts(store, views.plain) == {"shared": -8, "client a": 4, "reserved": 0}


async def test_the_own_part_stays_open_beside_a_shared_one_that_is_empty(store: Store, views: Views) -> None:
    assert await take(store, "1", views.plain, 10)
    assert views.a.own is views.own_a
    assert await take(store, "2", views.own_a, 4)
    assert not await take(store, "3", views.own_a, 1)


async def test_more_than_all_that_a_caller_may_take_is_never_there(store: Store, views: Views) -> None:
    refused = await store.reserve("1", [(views.urgent, 13)], TTL_S)
    assert refused.lacks[0].retry_after_s is None
    assert views.plain.capacity == 10


# -- lending


async def test_idle_parts_are_lent_and_given_back_first(store: Store, views: Views) -> None:
    assert not await take(store, "1", views.plain, 13)
    assert await take(store, "2", views.short, 13)
    levels = {level.name: level for level in await store.parts(views.plain)}
    assert levels["client a"] == PartLevel("client a", 1, 4, 3, 0)
    await store.settle("2", [10])
    assert await parts(store, views.plain) == {"shared": 0, "client a": 4, "reserved": 2}
    assert not any(level.lent for level in await store.parts(views.plain))


async def test_what_is_lent_is_taken_back_at_once_when_its_owner_comes(
    store: Store, views: Views, clock: ManualClock
) -> None:
    assert await take(store, "1", views.short, 12)  # 2 of them are client a's
    assert await take(store, "2", views.a, 1)
    assert not await take(store, "3", views.short, 3)  # 1 of a's and 2 reserved ones would be there
    assert await take(store, "4", views.a, 1)
    clock.advance(IDLE_S)
    assert not await take(store, "5", views.short, 3)  # its owner's calls are still under way
    await store.settle("2", [1])
    await store.settle("4", [0])
    clock.advance(IDLE_S - 1)
    assert not await take(store, "6", views.short, 3)
    clock.advance(1)
    assert await take(store, "7", views.short, 3)


async def test_an_owner_that_waits_ends_the_lending_too(store: Store, views: Views) -> None:
    assert await take(store, "1", views.short, 14)
    assert not await take(store, "2", views.own_a, 1)
    await store.release("1")
    assert not await take(store, "3", views.short, 13)
    assert await take(store, "4", views.short, 12)  # the reserved part's owner did not come


async def test_work_that_is_too_long_borrows_nothing(store: Store, views: Views) -> None:
    assert not await take(store, "1", views.plain, 11)
    assert not await take(store, "2", views.a, 15)


# -- what the provider says


async def test_the_provider_lowers_a_pool_and_never_raises_it(store: Store, views: Views) -> None:
    await store.learn(views.plain, 9)
    assert await parts(store, views.plain) == {"shared": 3, "client a": 4, "reserved": 2}
    await store.learn(views.plain, 100)
    assert await parts(store, views.plain) == {"shared": 3, "client a": 4, "reserved": 2}
    await store.learn(views.plain, 1)
    assert await parts(store, views.plain) == {"shared": 0, "client a": 0, "reserved": 1}


async def test_what_came_back_since_the_provider_spoke_is_kept(store: Store, clock: ManualClock) -> None:
    views = Views(plan(reserved=0, own=0, refill=2))
    await store.learn(views.plain, 3, age_s=2.0)
    assert await parts(store, views.plain) == {"shared": 7}


async def test_nothing_is_granted_during_a_pause(store: Store, views: Views, clock: ManualClock) -> None:
    await store.learn(views.plain, None, pause_s=20.0)
    refused = await store.reserve("1", [(views.urgent, 1)], TTL_S)
    assert refused.lacks[0].retry_after_s == 20.0
    await store.learn(views.plain, None, pause_s=5.0)
    clock.advance(19.999)
    assert not await take(store, "2", views.a, 1)
    assert await take(store, "3", views.a, 0)
    clock.advance(0.001)
    assert await take(store, "4", views.plain, 10)


# -- other plans


async def test_a_dedicated_part_begins_with_what_the_shared_one_gives_up(store: Store) -> None:
    before = Views(plan(shared=10, own=0))
    assert await take(store, "1", before.plain, 3)
    after = Views(plan(shared=6, own=4, version=2))
    assert await parts(store, after.plain) == {"shared": 6, "client a": 1, "reserved": 2}


async def test_a_dedicated_part_ends_into_the_shared_one(store: Store, views: Views) -> None:
    assert await take(store, "1", views.plain, 10)
    assert await take(store, "2", views.a, 1)
    after = Views(plan(shared=14, own=0, version=2))
    assert await parts(store, after.plain) == {"shared": 3, "reserved": 2}
    await store.settle("2", [4])  # what it used above is still owed
    assert await parts(store, after.plain) == {"shared": 0, "reserved": 2}
    assert await take(store, "3", after.a, 0)
    assert not await take(store, "4", after.own_a, 1)


async def test_who_has_an_older_plan_changes_nothing(store: Store, views: Views) -> None:
    after = Views(plan(shared=14, own=0, version=2))
    assert await take(store, "1", after.plain, 1)
    assert await take(store, "2", views.a, 1)
    assert await parts(store, views.plain) == {"shared": 12, "reserved": 2}


async def test_other_figures_leave_at_most_the_new_capacity(store: Store, views: Views) -> None:
    assert await take(store, "1", views.plain, 1)
    assert await parts(store, Views(plan(shared=4, version=2)).plain) == {"shared": 4, "client a": 4, "reserved": 2}
    assert await parts(store, Views(plan(shared=20, version=3)).plain) == {"shared": 4, "client a": 4, "reserved": 2}


async def test_a_pool_as_good_as_new_is_full_under_its_new_figures(store: Store, views: Views) -> None:
    assert await take(store, "1", views.plain, 1)
    await store.release("1")
    assert await parts(store, Views(plan(shared=20, version=2)).plain) == {"shared": 20, "client a": 4, "reserved": 2}


# -- waiting and restarts


async def test_every_view_of_a_pool_is_told_what_came_back(store: Store, views: Views) -> None:
    told: list[str] = []
    store.listen(told.extend)
    assert await take(store, "1", views.a, 5)
    await store.settle("1", [1])
    assert await take(store, "2", views.plain, 1)
    await store.release("2")
    assert told == ["pool", "pool"]


async def test_a_shadow_takes_nothing_from_its_pool(store: Store, views: Views) -> None:
    shadow = views.a.shadow()
    assert isinstance(shadow, View)
    assert await take(store, "1", shadow, 14)
    assert await parts(store, views.plain) == {"shared": 10, "client a": 4, "reserved": 2}
    assert await parts(store, shadow) == {"shared": 0, "client a": 0, "reserved": 2}


async def test_the_ledger_leaves_at_most_what_was_not_used(store: Store) -> None:
    views = Views(plan(refill=1))  # 16, and 3 a second
    await store.restate(views.plain, [(4 * SECOND, 20), (1 * SECOND, 6)])
    # 16 - 20 = -4; 3 s later 5 - 6 = -1; 1 s later 2
    assert sum((await parts(store, views.plain)).values()) == 2


async def test_500_at_once_get_no_more_than_there_is(store: Store, views: Views) -> None:
    kinds = [views.plain, views.short, views.urgent, views.a]
    granted = await asyncio.gather(*(take(store, str(n), kinds[n % 4], 1) for n in range(500)))
    assert sum(granted) == 16


def test_a_snapshot_keeps_parts_debts_and_pauses(clock: ManualClock) -> None:
    async def run() -> None:
        views = Views(plan(refill=1))
        first = MemoryStore(clock)
        assert await take(first, "1", views.a, 8)
        assert await take(first, "2", views.urgent, 1)
        await first.settle("2", [11])
        await first.learn(views.plain, None, pause_s=10.0)
        second = MemoryStore(clock)
        second.load(first.dump(), 2 * SECOND)
        # One is settled as used; two seconds brought two more to each part.
        assert await parts(second, views.plain) == {"shared": -2, "client a": 2, "reserved": 2}
        assert (await second.reserve("3", [(views.urgent, 1)], TTL_S)).lacks[0].retry_after_s == 8.0
        clock.advance(8)
        assert await take(second, "4", views.a, 10)

    asyncio.run(run())
