"""Reads of the ledger: sums by any dimension and time, pages of calls, the attempts of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, select

from gateway.records import schema
from gateway.records.database import Database
from gateway.records.posting import attempt_of, call_of
from gateway.records.rows import AttemptRow, CallRow

T = TypeVar("T")
Bucket = tuple[int, int, int | None]  # seconds, from, to
_NS = 1_000_000_000
_SPLIT = 1_000_000
_THREADS = 2
_MOST_ROWS = 1000

#: What usage can be grouped by: a dimension, or a length of time in seconds.
TIMES = {"minute": 60, "hour": 3600, "day": 86400}
GROUPS = (*schema.DIMENSIONS, *TIMES)
_ISO = {"minute": "%Y-%m-%dT%H:%MZ", "hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d"}

#: What calls can be filtered by.
CALL_FILTERS = ("org", "client", "key", "route", "model", "served_model", "provider", "outcome", "policy")


class UsageRow(msgspec.Struct):
    """Sums of one group; `group` names its dimensions and times (ISO, UTC). Money in pico-dollars, times in us."""

    group: dict[str, str]
    calls: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    gone: int = 0
    charge_pusd: int = 0
    saved_pusd: int = 0
    duration_us: int = 0
    wait_us: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_pusd: int = 0
    unresolved_pusd: int = 0  # the part of the cost whose attempts ended with a crash, at their worst
    estimated: int = 0  # attempts whose usage is our estimate
    unpriced: int = 0  # attempts without a price
    units: dict[str, int] = msgspec.field(default_factory=dict)  # images, audio, requests, a worker's, by name


class Spent(msgspec.Struct, frozen=True):
    """What one org, client or key used in a period: unresolved attempts count at their worst case."""

    requests: int  # not refused
    tokens: int
    cost_pusd: int  # what providers charge
    charge_pusd: int  # what the client pays
    unresolved_pusd: int  # part of the cost that no call's charge holds


class Page(msgspec.Struct):
    """Rows, newest first, and the cursor of the next page ("" at the end)."""

    rows: list[CallRow]
    cursor: str = ""


class Queries:
    """Runs on read-only connections in threads of its own; never on the loop, never in the writer's way."""

    def __init__(self, database: Database) -> None:
        self._engine = database.reader()
        self._threads = ThreadPoolExecutor(_THREADS, "tidegate-read")

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The result of a read, in one snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return query(connection)

    async def usage(
        self,
        by: Sequence[str] = ("client",),
        since_wall_ns: int | None = None,
        until_wall_ns: int | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> list[UsageRow]:
        """Sums grouped by org, client, key, model, provider, route, minute, hour, day (UTC), in the order of the
        groups. Bounds are whole minutes: `since` is rounded down, `until` up. Raises ValueError for other words."""
        check_groups(by, filters or {})
        since_s = 0 if since_wall_ns is None else since_wall_ns // _NS
        until_s = None if until_wall_ns is None else -(-until_wall_ns // _NS)
        return await self.read(lambda connection: _usage(connection, tuple(by), since_s, until_s, filters or {}))

    async def spent(self, since_wall_ns: int, until_wall_ns: int | None, by: str) -> dict[str, Spent]:
        """Sums since a whole minute, by one dimension."""
        rows = await self.usage((by,), since_wall_ns, until_wall_ns)
        return {
            row.group[by]: Spent(
                row.calls - row.refused,
                row.input_tokens + row.output_tokens,
                row.cost_pusd,
                row.charge_pusd,
                row.unresolved_pusd,
            )
            for row in rows
        }

    async def calls(self, cursor: str = "", limit: int = 100, filters: Mapping[str, str] | None = None) -> Page:
        """A page of calls, newest first, that equal all filters. Raises ValueError for an unknown filter."""
        unknown = set(filters or {}) - set(CALL_FILTERS)
        if unknown:
            raise ValueError(f"calls can't be filtered by {min(unknown)!r}, only by {', '.join(CALL_FILTERS)}")
        limit = max(1, min(limit, _MOST_ROWS))
        table = schema.calls
        query = select(table).order_by(table.c.id.desc()).limit(limit + 1)
        query = query.where(*(table.c[name] == value for name, value in (filters or {}).items()))
        if cursor:
            query = query.where(table.c.id < cursor)
        rows = await self.read(lambda connection: [call_of(row) for row in connection.execute(query)])
        return Page(rows[:limit], rows[limit - 1].id if len(rows) > limit else "")

    async def call(self, call_id: str) -> CallRow | None:
        """One call by its id."""
        query = select(schema.calls).where(schema.calls.c.id == call_id)
        row = await self.read(lambda connection: connection.execute(query).first())
        return None if row is None else call_of(row)

    async def attempts(self, call_id: str) -> list[AttemptRow]:
        """The attempts of one call, in order."""
        table = schema.attempts
        # Ids of attempts start with the call's: a range of the primary key, "/" follows ".".
        query = select(table).where(table.c.id > f"{call_id}.", table.c.id < f"{call_id}/").order_by(table.c.n)
        return await self.read(lambda connection: [attempt_of(row) for row in connection.execute(query)])

    async def lost(self, since_wall_ns: int) -> list[AttemptRow]:
        """One attempt of each call whose end a crash took: there is no row of the call, so no sum counts it."""
        table, calls = schema.attempts, schema.calls
        query = (
            select(table)
            .outerjoin(calls, calls.c.id == table.c.call_id)
            .where(table.c.outcome == "unresolved", table.c.started_wall_ns >= since_wall_ns, calls.c.id.is_(None))
            .order_by(table.c.id)
        )
        rows = await self.read(lambda connection: [attempt_of(row) for row in connection.execute(query)])
        return list({row.call_id: row for row in rows}.values())

    async def aclose(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()


def check_groups(by: Sequence[str], filters: Mapping[str, str]) -> None:
    """Raises ValueError unless all words are known."""
    for word in by:
        if word not in GROUPS:
            raise ValueError(f"usage can't be grouped by {word!r}, only by {', '.join(GROUPS)}")
    if sum(word in TIMES for word in by) > 1:
        raise ValueError("usage is grouped by one of minute, hour, day at a time")
    for word in filters:
        if word not in schema.DIMENSIONS:
            raise ValueError(f"usage can't be filtered by {word!r}, only by {', '.join(schema.DIMENSIONS)}")


def cover(since_s: int, until_s: int | None, largest_s: int) -> Iterator[Bucket]:
    """The fewest buckets that make up a time: (seconds a bucket, from, to). Bounds are widened to whole minutes."""
    since_s = since_s // 60 * 60
    for seconds in sorted((s for s in schema.SPANS if s <= largest_s), reverse=True):
        first = -(-since_s // seconds) * seconds
        last = None if until_s is None else until_s // seconds * seconds
        if seconds == 60 and until_s is not None:
            last = -(-until_s // 60) * 60
        if last is None or first < last:
            if since_s < first:
                yield from cover(since_s, first, largest_s)
            yield seconds, first, last
            if last is not None and until_s is not None and last < until_s:
                yield from cover(last, until_s, largest_s)
            return


def _usage(
    connection: Connection, by: tuple[str, ...], since_s: int, until_s: int | None, filters: Mapping[str, str]
) -> list[UsageRow]:
    largest_s = min((TIMES[word] for word in by if word in TIMES), default=86400)
    found: dict[tuple[Any, ...], list[int]] = {}
    for seconds, first, last in cover(since_s, until_s, largest_s):
        for row in connection.execute(_sums(by, seconds, first, last, filters)):
            group, values = tuple(row[: len(by)]), _joined(row[len(by) :])
            sums = found.get(group)
            found[group] = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
    units = _units(connection, by, cover(since_s, until_s, largest_s), filters)
    named = {group: dict(zip(schema.MEASURES, found[group], strict=True)) for group in sorted(found)}
    rows = {group: msgspec.convert({"group": _named(by, group), **sums}, UsageRow) for group, sums in named.items()}
    for group, amounts in units.items():
        rows[group].units = amounts
    return list(rows.values())


def _units(
    connection: Connection, by: tuple[str, ...], buckets: Iterable[Bucket], filters: Mapping[str, str]
) -> dict[tuple[Any, ...], dict[str, int]]:
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for seconds, first, last in buckets:
        for row in connection.execute(_sums(by, seconds, first, last, filters, of_units=True)):
            *group, unit, high, low = row
            sums = found.setdefault(tuple(group), {})
            sums[unit] = sums.get(unit, 0) + high * _SPLIT + low
    return found


def _sums(
    by: tuple[str, ...],
    seconds: int,
    first: int,
    last: int | None,
    filters: Mapping[str, str],
    *,
    of_units: bool = False,
) -> Select[Any]:
    table, names = schema.usage_units if of_units else schema.usage, schema.dimensions
    groups: list[ColumnElement[Any]] = [
        table.c.bucket // TIMES[word] * TIMES[word] if word in TIMES else names.c[word] for word in by
    ]
    groups += [table.c.unit] if of_units else []
    # SQLite's sum() fails above 2**63 and its total() is a float: sum the two halves of money apart.
    halves: list[ColumnElement[Any]] = []
    for measure in ("amount",) if of_units else schema.MEASURES:
        halves += [func.sum(table.c[measure] // _SPLIT), func.sum(table.c[measure] % _SPLIT)]
    query = select(*groups, *halves).join_from(table, names, table.c.dimension == names.c.id)
    query = query.where(
        table.c.seconds == seconds,
        table.c.bucket >= first,
        *(names.c[name] == value for name, value in filters.items()),
    )
    if last is not None:
        query = query.where(table.c.bucket < last)
    return query.group_by(*groups)


def _joined(halves: Sequence[int | None]) -> list[int]:
    """Sums from their halves; no row at all (grouped by nothing) gives None."""
    whole = [0 if half is None else half for half in halves]
    return [high * _SPLIT + low for high, low in zip(whole[::2], whole[1::2], strict=True)]


def _named(by: tuple[str, ...], group: tuple[Any, ...]) -> dict[str, str]:
    return {
        word: datetime.fromtimestamp(value, UTC).strftime(_ISO[word]) if word in TIMES else value
        for word, value in zip(by, group, strict=True)
    }
