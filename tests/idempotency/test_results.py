"""The registry of results: bounded, expiring, erased with their org."""

from __future__ import annotations

from gateway.clock import ManualClock
from gateway.interest import Interest
from gateway.metrics import Metrics
from gateway.recording import Recording, Room
from gateway.results import ResultRow, Results
from gateway.results import Shelf as ShelfContract

DAY_NS = 86_400 * 1_000_000_000


class Shelf(ShelfContract):
    """Results that last, in a dictionary."""

    def __init__(self, clock: ManualClock) -> None:
        self.rows: dict[str, ResultRow] = {}
        self.clock = clock

    def add(self, row: ResultRow) -> None:
        self.rows[row.id] = row

    async def find(self, id: str) -> ResultRow | None:
        row = self.rows.get(id)
        return None if row is None or row.expires_wall_ns <= self.clock.wall_ns() else row


def make() -> tuple[ManualClock, Shelf, Results]:
    clock = ManualClock()
    shelf = Shelf(clock)
    return clock, shelf, Results(shelf, clock, Metrics())


def row(clock: ManualClock, id: str, answer: bytes = b"", org: str = "one") -> ResultRow:
    return ResultRow(id, org, "call", clock.wall_ns() + DAY_NS, b"f", 200, answer)


async def test_results_expire_after_24_hours() -> None:
    clock, _, results = make()
    assert await results.begin("a", b"f", Interest()) is None
    results.finish("a", row(clock, "a"))
    clock.advance(86_399)
    assert await results.begin("a", b"f", Interest()) is not None
    clock.advance(2)
    assert await results.begin("a", b"f", Interest()) is None


async def test_memory_is_bounded() -> None:
    clock, shelf, results = make()
    results.max_bytes = 100_000
    for number in range(100):
        results.finish(str(number), row(clock, str(number), bytes(10_000)))
        assert results.kept_bytes <= 100_000
    assert len(shelf.rows) == 100
    assert await results.begin("0", b"f", Interest()) is not None  # from the records
    assert results.kept_bytes <= 100_000


async def test_an_erased_org_is_forgotten() -> None:
    clock, shelf, results = make()
    results.finish("a", row(clock, "a"))
    results.finish("b", row(clock, "b", org="two"))
    shelf.rows.clear()
    results.forget("one")
    assert await results.begin("a", b"f", Interest()) is None
    assert await results.begin("b", b"f", Interest()) is not None


def test_recordings_share_a_room() -> None:
    room = Room(1000)
    first, second = Recording(), Recording()
    for one in (first, second):
        one.widen(900, room)
    first.widen(900, room)  # asked for twice, counted once
    first.keep(bytes(600))
    second.keep(bytes(600))
    assert second.chunks is None
    assert (first.chunks, room.used_bytes) == ((bytes(600),), 600)
    first.keep(bytes(301))
    assert (first.chunks, room.used_bytes) == (None, 0)
