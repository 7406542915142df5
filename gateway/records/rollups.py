"""Sums by minute, hour and day: what each row adds to them, and the rows' combinations of dimensions."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from gateway.records import schema
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.statements import Bulk

Dimensions = tuple[str, str, str, str, str, str]
_NS = 1_000_000_000
_CALL_MEASURES = 9  # the first of schema.MEASURES come from calls, the others from attempts
_ATTEMPT_MEASURES = len(schema.MEASURES) - _CALL_MEASURES
_NO_CALL = (0,) * _CALL_MEASURES
_NO_ATTEMPT = (0,) * _ATTEMPT_MEASURES


def of_call(row: CallRow) -> tuple[int, ...]:
    """What a call adds, in the order of schema.MEASURES."""
    outcome = row.outcome
    return (
        1,
        outcome == "answered",
        outcome == "refused",
        outcome == "failed",
        outcome == "gone",
        row.charge_pusd,
        row.saved_pusd,
        row.duration_us,
        row.wait_us,
        *_NO_ATTEMPT,
    )


def of_attempt(row: AttemptRow) -> tuple[int, ...]:
    """What an attempt adds, in the order of schema.MEASURES."""
    outcome = row.outcome
    return (
        *_NO_CALL,
        1,
        outcome == "failed",
        row.input_tokens,
        row.cached_tokens,
        row.cache_write_tokens + row.cache_write_1h_tokens,
        row.output_tokens,
        row.reasoning_tokens,
        row.cost_pusd,
        row.cost_pusd if outcome == "unresolved" else 0,
        row.estimated,
        row.unpriced,
    )


def dimensions_of(row: AttemptRow | CallRow) -> Dimensions:
    """A call counts under the model that served it: what was asked may be any text, and would grow without bound."""
    model = row.served_model if isinstance(row, CallRow) else row.model
    return row.org, row.client, row.key, model, row.provider, row.route


class Changes:
    """What one transaction does to the roll-ups."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, Dimensions], list[int]] = {}

    def add(self, row: AttemptRow | CallRow, sign: int = 1) -> None:
        """Counts a row in (or out again, with sign -1) at the minute it started."""
        values = of_call(row) if isinstance(row, CallRow) else of_attempt(row)
        key = row.started_wall_ns // _NS // 60 * 60, dimensions_of(row)
        sums = self._sums.get(key)
        if sums is None:
            self._sums[key] = [sign * value for value in values]
        else:
            for index, value in enumerate(values):
                if value:
                    sums[index] += sign * value

    def merge(self, other: Changes) -> None:
        """Takes over another's sums."""
        for key, values in other._sums.items():
            sums = self._sums.get(key)
            self._sums[key] = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]

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


class Rollups:
    """Adds changes to the tables; knows the numbers of combinations that were used lately."""

    def __init__(self, remember: int = 20_000) -> None:
        self._remember = remember
        self._ids: dict[Dimensions, int] = {}
        self._sums = Bulk(schema.usage, add=schema.MEASURES)
        self._dimensions = Bulk(schema.dimensions)

    def write(self, connection: Connection, changes: Changes) -> None:
        """Inside the caller's transaction."""
        ids = self._numbered(connection, changes.combinations())
        self._sums.run(connection, changes.rows(ids))

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
