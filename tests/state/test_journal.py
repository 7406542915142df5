"""What a restart remembers of the memory store, and what it does with a snapshot it can't read or write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.metrics import Metrics
from gateway.state.journal import Journal, boot_id
from gateway.state.memory import MemoryStore
from gateway.state.snapshot import BadSnapshotError, unseal
from gateway.state.store import Bucket, Limit, Slots, Tally, Window

SECOND = 1_000_000_000
BUCKET = Bucket("bucket", 10, "tokens", 1, SECOND)
WINDOW = Window("window", 10, "requests", 60 * SECOND)
TALLY = Tally("tally", 100, "", "2026-11", 5, (80, 95, 100))
SLOTS = Slots("slots", 3)
ALL: list[Limit] = [BUCKET, WINDOW, TALLY, SLOTS]
HUGE = Tally("huge", 10**30, "", "2026-11")


async def used(clock: ManualClock, store: MemoryStore | None = None) -> MemoryStore:
    """A store with something used of each limit, and something held."""
    store = MemoryStore(clock) if store is None else store
    await store.reserve("settled", [(BUCKET, 5), (WINDOW, 3), (TALLY, 85), (SLOTS, 1), (HUGE, 10**25)], 900)
    await store.settle("settled", [5, 3, 84, 1, 10**25])
    await store.reserve("held", [(BUCKET, 3), (WINDOW, 2), (TALLY, 5), (SLOTS, 2)], 900)
    return store


async def left(store: MemoryStore, *limits: Limit) -> list[int]:
    return [level.remaining for level in await store.levels(limits or ALL)]


async def test_levels_come_back_and_holds_count_at_their_worst(clock: ManualClock) -> None:
    data = (await used(clock)).dump()
    other = MemoryStore(clock)
    other.load(data, 0)
    assert await left(other) == [2, 5, 11, 3]
    assert await left(other, HUGE) == [10**30 - 10**25]
    assert other.dump() == data


async def test_what_passed_while_down_counts_as_time(clock: ManualClock) -> None:
    data = (await used(clock)).dump()
    other = MemoryStore(clock)
    other.load(data, 4 * SECOND)
    assert await left(other) == [6, 5, 11, 3]
    clock.advance(58)
    assert await left(other) == [10, 10, 11, 3]


async def test_another_monotonic_clock_makes_no_difference(clock: ManualClock) -> None:
    data = (await used(clock)).dump()
    for start in (7, 10**15 + 13):
        fresh = ManualClock(start)
        other = MemoryStore(fresh)
        other.load(data, 10 * SECOND)
        assert await left(other) == [10, 5, 11, 3]
        fresh.advance(49)
        assert (await left(other))[1] == 5
        fresh.advance(3)
        assert (await left(other))[1] == 10


async def test_a_debt_is_not_forgotten(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    await store.reserve("a", [(BUCKET, 1), (WINDOW, 1)], 900)
    await store.settle("a", [30, 12])
    other = MemoryStore(clock)
    other.load(store.dump(), 0)
    assert await left(other, BUCKET, WINDOW) == [-20, -2]


async def test_marks_that_were_told_are_not_told_again(clock: ManualClock) -> None:
    data = (await used(clock)).dump()
    other = MemoryStore(clock)
    told: list[int] = []
    other.watch("test", lambda limit, mark, used: told.append(mark))
    other.load(data, 0)
    await other.restate(TALLY, [(0, 84)])
    assert told == []
    await other.restate(TALLY, [(0, 96)])
    assert told == [1]


async def test_periods_gone_by_are_remembered(clock: ManualClock) -> None:
    store = await used(clock)
    await store.reserve("later", [(Tally("tally", 100, "", "2026-12"), 7)], 900)
    other = MemoryStore(clock)
    other.load(store.dump(), 0)
    assert await left(other, Tally("tally", 100, "", "2026-12")) == [93]
    assert await left(other, TALLY) == [11]


async def test_what_is_as_good_as_new_is_not_written(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    await store.reserve("a", [(BUCKET, 5), (WINDOW, 5), (SLOTS, 1)], 900)
    await store.release("a")
    assert unseal(store.dump())[1] == []


@pytest.mark.parametrize(
    "harm", [lambda d: d[:-20], lambda d: d.replace(b"bucket", b"bucked", 1), lambda d: b"", lambda d: b"x"]
)
async def test_a_snapshot_that_is_not_whole_is_refused(clock: ManualClock, harm: object) -> None:
    data = harm((await used(clock)).dump())  # type: ignore[operator]  # the parameter's functions
    other = MemoryStore(clock)
    with pytest.raises(BadSnapshotError):
        other.load(data, 0)
    assert await left(other) == [10, 10, 100, 3]


# -- the file


async def test_a_restart_takes_up_what_the_last_run_left(clock: ManualClock, tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    store = MemoryStore(clock, Journal(path, 3600, boot="this"))
    await store.start()
    await used(clock, store)
    await store.aclose()
    clock.advance(2)
    clock.jump_wall(3600)  # mints nothing: the machine still runs, so the monotonic clock knows better
    again = MemoryStore(clock, Journal(path, 3600, boot="this"))
    await again.start()
    assert await left(again) == [4, 5, 11, 3]
    await again.aclose()
    rebooted = MemoryStore(clock, Journal(path, 3600, boot="that"))
    clock.jump_wall(3)
    await rebooted.start()
    assert await left(rebooted) == [7, 5, 11, 3]
    await rebooted.aclose()
    assert [one.name for one in tmp_path.iterdir()] == ["store.json"]


async def test_snapshots_are_written_while_calls_go_on(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "store.json"
    store = MemoryStore(clock, Journal(path, 0.01))
    await store.start()
    await used(clock, store)
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.005)
    killed = MemoryStore(clock, Journal(path, 3600))
    await killed.start()
    assert await left(killed) == [2, 5, 11, 3]
    await killed.aclose()
    await store.aclose()


async def test_a_disk_that_takes_nothing_is_a_warning_and_recovers(clock: ManualClock, tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    journal = Journal(folder / "store.json", 3600)
    store = MemoryStore(clock, journal)
    await store.start()
    await used(clock, store)
    await journal.write(store)
    assert "missing" in journal.failing
    folder.mkdir()
    await store.aclose()
    assert journal.failing == ""
    assert (folder / "store.json").exists()


async def test_a_file_that_is_no_snapshot_does_not_stop_the_start(clock: ManualClock, tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    path.write_bytes(b'{"version": 2}\n')
    store = MemoryStore(clock, Journal(path, 3600))
    await store.start()
    assert await left(store) == [10, 10, 100, 3]
    await store.aclose()


def test_this_machine_says_which_run_it_is_in() -> None:
    assert boot_id() == boot_id()


# -- memory and metrics


async def test_limits_as_good_as_new_are_forgotten(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    for n in range(3000):
        await store.reserve(f"{n}", [(Bucket(f"bucket {n}", 10, "", 1, SECOND), 5), (Slots(f"slots {n}", 3), 1)], 900)
        await store.settle(f"{n}", [5, 1])
    assert len(store.keys()) == 6000
    await store.reserve("kept", [(Slots("kept", 3), 0)], 10**6)
    for _ in range(1000):
        clock.advance(0.2)
        await store.reserve("busy", [(Tally("busy", 10, "", "one"), 1)], 900)
        await store.settle("busy", [0])
    assert set(store.keys()) - {"busy"} == {"kept"}
    assert len(store._known) == len(store._states)


async def test_ended_holds_leave_nothing_behind(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    for n in range(5000):
        clock.advance(0.01)
        await store.reserve(f"{n}", [(BUCKET, 0)], 900)
        await store.settle(f"{n}", [0])
    assert not store._holds
    assert len(store._expiries) < 1500


async def test_a_long_gone_period_is_forgotten(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    await store.reserve("a", [(TALLY, 5)], 900)
    await store.settle("a", [5])
    for _ in range(63 * 24):
        clock.advance(3600)
        await store.reserve("b", [(BUCKET, 0)], 900)
        await store.settle("b", [0])
    assert store.keys() == ["bucket"]


async def test_many_holds_keep_a_pile_no_higher_than_they_are(clock: ManualClock) -> None:
    store = MemoryStore(clock)
    limit = Bucket("bucket", 10**6, "", 1, 10**7)
    live: list[str] = []
    for n in range(20_000):
        clock.advance(0.001)
        await store.reserve(f"{n}", [(limit, 3)], 900)
        live.append(f"{n}")
        if n >= 50:
            await store.settle(live.pop(n % 50), [1])
    height, chunk = 0, store._states["bucket"].top
    while chunk is not None:
        height, chunk = height + 1, chunk.below
    assert height <= 52


async def test_debts_are_reported(clock: ManualClock) -> None:
    metrics = Metrics()
    store = MemoryStore(clock, metrics=metrics)
    await store.reserve("a", [(BUCKET, 1), (TALLY, 1), (WINDOW, 1), (SLOTS, 1)], 900)
    await store.settle("a", [14, 130, 15, 1])
    page = metrics.render()[0].decode()
    assert 'tidegate_store_debt{unit="tokens"} 4.0' in page
    assert 'tidegate_store_debt{unit="requests"} 5.0' in page
    assert 'tidegate_store_debt{unit="pusd"} 30.0' in page
    assert "tidegate_store_limits 4.0" in page
    clock.advance(4)
    assert 'tidegate_store_debt{unit="tokens"} 0.0' in metrics.render()[0].decode()
