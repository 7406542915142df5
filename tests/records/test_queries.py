"""Reads: sums over any time, grouped and filtered; pages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.records.queries import cover

NS = 1_000_000_000
NOON = 1_790_078_400  # 2026-09-22, 12:00 UTC


async def serve(records: Any, rows: Any, at_s: int, **values: Any) -> Any:
    row = rows.attempt(started_wall_ns=at_s * NS, **values)
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row), rows.call(row))
    return row


async def test_usage_by_any_dimension_and_time(records: Any, rows: Any) -> None:
    for at_s, client, model in ((0, "a", "m"), (59, "a", "m"), (60, "a", "n"), (3600, "b", "m"), (86_400, "b", "m")):
        await serve(records, rows, NOON + at_s, client=client, model=model)
    await records.ledger.flush()

    async def usage(*by: str, **more: Any) -> Any:
        return [(*row.group.values(), row.calls) for row in await records.queries.usage(by, **more)]

    assert await usage("client") == [("a", 3), ("b", 2)]
    assert await usage("client", "model") == [("a", "m", 2), ("a", "n", 1), ("b", "m", 2)]
    assert await usage("day", "client") == [("2026-09-22", "a", 3), ("2026-09-22", "b", 1), ("2026-09-23", "b", 1)]
    assert await usage("hour") == [("2026-09-22T12:00Z", 3), ("2026-09-22T13:00Z", 1), ("2026-09-23T12:00Z", 1)]
    assert await usage("minute", filters={"client": "a"}) == [("2026-09-22T12:00Z", 2), ("2026-09-22T12:01Z", 1)]
    assert await usage() == [(5,)]
    assert await usage("client", since_wall_ns=(NOON + 60) * NS) == [("a", 1), ("b", 2)]
    assert await usage("client", until_wall_ns=(NOON + 3600) * NS) == [("a", 3)]
    assert await usage("model", since_wall_ns=(NOON + 3600) * NS, until_wall_ns=(NOON + 3660) * NS) == [("m", 1)]
    assert await usage("key", filters={"model": "n", "client": "b"}) == []


async def test_unknown_words_are_refused(records: Any) -> None:
    with pytest.raises(ValueError, match="grouped by 'tenant', only by org, client"):
        await records.queries.usage(("tenant",))
    with pytest.raises(ValueError, match="one of minute, hour, day"):
        await records.queries.usage(("hour", "day"))
    with pytest.raises(ValueError, match="filtered by 'day'"):
        await records.queries.usage(("client",), filters={"day": "x"})
    with pytest.raises(ValueError, match="filtered by 'path'"):
        await records.queries.calls(filters={"path": "/"})


async def test_sums_of_money_are_exact_beyond_64_bits(records: Any, rows: Any) -> None:
    """Two days of five million dollars each make more pico-dollars than SQLite's integers and floats hold."""
    for day in range(12):
        row = rows.attempt(started_wall_ns=(NOON + 86_400 * day) * NS)
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row, cost_pusd=2**62 + 1), rows.call(row, charge_pusd=2**62 + 1))
    await records.ledger.flush()
    (usage,) = await records.queries.usage(())
    assert usage.cost_pusd == 12 * (2**62 + 1)
    assert usage.charge_pusd == 12 * (2**62 + 1)


@given(st.integers(0, 10**7), st.one_of(st.none(), st.integers(0, 10**7)), st.sampled_from([60, 3600, 86400]))
def test_buckets_cover_every_minute_once(since_s: int, until_s: int | None, largest_s: int) -> None:
    parts = list(cover(since_s, until_s, largest_s))
    at_s = since_s // 60 * 60
    for seconds, first, last in parts:
        assert first == at_s
        assert seconds <= largest_s
        assert first % seconds == 0
        assert last is None or (last % seconds == 0 and last > first)
        at_s = last if last is not None else -1
    if until_s is None:
        assert at_s == -1
    elif parts:
        assert at_s == -(-until_s // 60) * 60
    else:
        assert -(-until_s // 60) * 60 <= since_s // 60 * 60
    assert len(parts) <= 6


async def test_calls_come_in_pages_newest_first(records: Any, rows: Any) -> None:
    made = [await serve(records, rows, NOON + number, client="a" if number % 3 else "b") for number in range(10)]
    await records.ledger.flush()
    page = await records.queries.calls(limit=4)
    assert [row.id for row in page.rows] == [row.call_id for row in made[:-5:-1]]
    page = await records.queries.calls(page.cursor, limit=4)
    assert [row.id for row in page.rows] == [row.call_id for row in made[5:1:-1]]
    page = await records.queries.calls(page.cursor, limit=4)
    assert [row.id for row in page.rows] == [row.call_id for row in made[1::-1]]
    assert page.cursor == ""
    page = await records.queries.calls(filters={"client": "b", "outcome": "served"})
    assert [row.client for row in page.rows] == ["b"] * 4
    assert await records.queries.call("unknown") is None
    assert await records.queries.attempts("unknown") == []


async def test_reads_see_no_half_group(records: Any, rows: Any) -> None:
    """A read is one snapshot: rows and sums of the same moment, while the writer goes on."""
    import asyncio

    async def write() -> None:
        for number in range(300):
            await serve(records, rows, NOON + number)
            if number % 5 == 0:
                await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while not writing.done():
        counted, summed = await records.queries.read(
            lambda connection: (
                connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar(),
                connection.exec_driver_sql("SELECT total(attempts) FROM usage WHERE seconds = 86400").scalar(),
            )
        )
        assert counted == summed
    await writing
