"""Sums by minute, hour and day: what each row adds to them, and the rows' combinations of dimensions."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from gateway.records import schema
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.statements import Bulk

Dimensions = tuple[str, str, str, str, str, str]
_MINUTE_NS = 60_000_000_000
_OUTCOMES = {name: schema.MEASURES.index(name) for name in ("answered", "refused", "failed", "gone")}
(
    _CALLS, _, _, _, _, _CHARGE, _SAVED, _DURATION, _WAIT, _ATTEMPTS, _FAILED_ATTEMPTS, _INPUT, _CACHED, _CACHE_WRITE,
    _OUTPUT, _REASONING, _COST, _UNRESOLVED, _ESTIMATED, _UNPRICED,
) = range(len(schema.MEASURES))  # fmt: skip


class Changes:
    """What one transaction does to the roll-ups."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, Dimensions], list[int]] = {}
        self._units: dict[tuple[int, Dimensions, str], int] = {}

    def add(self, row: AttemptRow | CallRow, sign: int = 1) -> None:
        """Counts a row in (or out again, with sign -1) at the minute it started."""
        if isinstance(row, CallRow):
            self.add_call(row, sign)
        else:
            self.add_attempt(row, sign)

    def add_call(self, row: CallRow, sign: int = 1) -> None:
        """A call counts under the model that served it: what was asked may be any text, so it would grow for ever."""
        sums = self._of(row.started_wall_ns, (row.org, row.client, row.key, row.served_model, row.provider, row.route))
        sums[_CALLS] += sign
        sums[_CHARGE] += sign * row.charge_pusd
        sums[_SAVED] += sign * row.saved_pusd
        sums[_DURATION] += sign * row.duration_us
        sums[_WAIT] += sign * row.wait_us
        measure = _OUTCOMES.get(row.outcome)
        if measure is not None:
            sums[measure] += sign

    def add_attempt(self, row: AttemptRow, sign: int = 1) -> None:
        sums = self._of(row.started_wall_ns, (row.org, row.client, row.key, row.model, row.provider, row.route))
        sums[_ATTEMPTS] += sign
        sums[_INPUT] += sign * row.input_tokens
        sums[_CACHED] += sign * row.cached_tokens
        sums[_CACHE_WRITE] += sign * (row.cache_write_tokens + row.cache_write_1h_tokens)
        sums[_OUTPUT] += sign * row.output_tokens
        sums[_REASONING] += sign * row.reasoning_tokens
        sums[_COST] += sign * row.cost_pusd
        sums[_ESTIMATED] += sign * row.estimated
        sums[_UNPRICED] += sign * row.unpriced
        if row.units:
            self._add_units(row, sign)
        if row.outcome == "failed":
            sums[_FAILED_ATTEMPTS] += sign
        elif row.outcome == "unresolved":
            sums[_UNRESOLVED] += sign * row.cost_pusd

    def _of(self, started_wall_ns: int, dimensions: Dimensions) -> list[int]:
        key = started_wall_ns // _MINUTE_NS * 60, dimensions
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * len(schema.MEASURES)
        return sums

    def _add_units(self, row: AttemptRow, sign: int) -> None:
        minute = row.started_wall_ns // _MINUTE_NS * 60
        dimensions = (row.org, row.client, row.key, row.model, row.provider, row.route)
        for unit, amount in (row.units or {}).items():
            key = minute, dimensions, unit
            self._units[key] = self._units.get(key, 0) + sign * amount

    def combinations(self) -> set[Dimensions]:
        return {dimensions for _, dimensions in self._sums}

    def rows(self, ids: dict[Dimensions, int]) -> list[tuple[int, ...]]:
        """What to add to the table, for every length of bucket."""
        found: dict[tuple[int, int, int], list[int]] = {}
        for (minute, dimensions), values in self._sums.items():
            for seconds in schema.SPANS:
                key = seconds, minute // seconds * seconds, ids[dimensions]
                sums = found.get(key)
                found[key] = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
        return [(*key, *values) for key, values in found.items()]

    def unit_rows(self, ids: dict[Dimensions, int]) -> list[tuple[int, int, int, str, int]]:
        """Likewise, of units."""
        found: dict[tuple[int, int, int, str], int] = {}
        for (minute, dimensions, unit), amount in self._units.items():
            for seconds in schema.SPANS:
                key = seconds, minute // seconds * seconds, ids[dimensions], unit
                found[key] = found.get(key, 0) + amount
        return [(*key, amount) for key, amount in found.items()]


class Rollups:
    """Adds changes to the tables; knows the numbers of combinations that were used lately."""

    def __init__(self, remember: int = 20_000) -> None:
        self._remember = remember
        self._ids: dict[Dimensions, int] = {}
        self._sums = Bulk(schema.usage, add=schema.MEASURES)
        self._units = Bulk(schema.usage_units, add=("amount",))
        self._dimensions = Bulk(schema.dimensions)

    def write(self, connection: Connection, changes: Changes) -> None:
        """Inside the caller's transaction."""
        ids = self._numbered(connection, changes.combinations())
        self._sums.run(connection, changes.rows(ids))
        units = changes.unit_rows(ids)
        if units:
            self._units.run(connection, units)

    def forget(self) -> None:
        """After a rollback or an erasure: numbers given there may not exist."""
        self._ids.clear()

    def _numbered(self, connection: Connection, wanted: Iterable[Dimensions]) -> dict[Dimensions, int]:
        new = [dimensions for dimensions in wanted if dimensions not in self._ids]
        if len(self._ids) > self._remember:
            self._ids.clear()
            new = list(wanted)
        unknown = [dimensions for dimensions in new if not self._look_up(connection, dimensions)]
        if unknown:
            highest = connection.exec_driver_sql("SELECT coalesce(max(id), 0) FROM dimensions").scalar_one()
            numbered = [(highest + 1 + index, *dimensions) for index, dimensions in enumerate(unknown)]
            self._dimensions.run(connection, numbered)
            self._ids.update({row[1:]: row[0] for row in numbered})
        return self._ids

    def _look_up(self, connection: Connection, dimensions: Dimensions) -> bool:
        table = schema.dimensions
        same = [table.c[name] == value for name, value in zip(schema.DIMENSIONS, dimensions, strict=True)]
        number = connection.execute(select(table.c.id).where(*same)).scalar()
        if number is not None:
            self._ids[dimensions] = number
        return number is not None
