"""From journal records to rows: which intents are open, and what one group of records does to the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, InterfaceError, ProgrammingError

from gateway.records import retention, schema
from gateway.records.frames import CALL, INTENT, OBJECT, OBJECT_GONE, RESULT, SETTLEMENT, Frame
from gateway.records.rollups import Changes, Rollups
from gateway.records.rows import AttemptRow, CallRow, ObjectRow, ResultRow
from gateway.records.statements import Bulk

_UNITS = AttemptRow.__struct_fields__.index("units")
_NOTES = CallRow.__struct_fields__.index("notes")

#: What a row itself can be at fault for; anything else is the database's, and is tried again.
ROW_FAULTS = (IntegrityError, InterfaceError, ProgrammingError, OverflowError)

#: None, as msgpack writes it.
_NIL = b"\xc0"


@dataclass(slots=True)
class Open:
    """An intent that is not settled: where it stands in the journal, and its row as it is there."""

    seq: int
    ordinal: int
    payload: bytes


@dataclass(slots=True)
class Group:
    """What one transaction writes."""

    applied_seq: int = 0
    closed_seq: int = 0
    attempts: list[AttemptRow] = field(default_factory=list)  # new rows
    late: list[AttemptRow] = field(default_factory=list)  # settlements of rows that the database has as open
    orphans: list[str] = field(default_factory=list)  # attempts that are in no call's charge
    calls: list[CallRow] = field(default_factory=list)
    objects: dict[str, ObjectRow | None] = field(default_factory=dict)  # None: gone
    results: dict[str, ResultRow] = field(default_factory=dict)
    unreadable: list[Frame] = field(default_factory=list)


class _Named(msgspec.Struct, array_like=True):
    """The beginning of a row."""

    id: str


class Posting:
    """Reads groups in the journal's order and writes them. Reading changes what is open; writing may be repeated."""

    def __init__(self, rollups: Rollups) -> None:
        self.open: dict[str, Open] = {}  # in the order of their intents
        self._spilled: set[str] = set()  # ids of open rows in the database
        self._rollups = rollups
        self._attempts = Bulk(schema.attempts)
        self._calls = Bulk(schema.calls)
        self._objects = Bulk(schema.objects, keep=True)
        self._results = Bulk(schema.results, replace=True)
        self._state = Bulk(schema.ledger_state, replace=True)
        self._named = msgspec.msgpack.Decoder(_Named).decode
        self._intent = msgspec.msgpack.Decoder(AttemptRow).decode
        self._halves = msgspec.msgpack.Decoder(tuple[msgspec.Raw, msgspec.Raw]).decode
        self._settlement = msgspec.msgpack.Decoder(tuple[AttemptRow, CallRow | None]).decode
        self._call = msgspec.msgpack.Decoder(CallRow).decode
        self._object = msgspec.msgpack.Decoder(ObjectRow).decode
        self._result = msgspec.msgpack.Decoder(ResultRow).decode

    # -- reading

    def take(self, group: Group, frames: Sequence[Frame]) -> None:
        """Adds records to a group."""
        for found in frames:
            group.applied_seq = found.seq
            try:
                self._take(group, found)
            except msgspec.MsgspecError:
                group.unreadable.append(found)

    def _take(self, group: Group, found: Frame) -> None:
        if found.kind == SETTLEMENT:
            row, call = self._settlement(found.payload)
            self.open.pop(row.id, None)
            if row.id in self._spilled:
                self._spilled.discard(row.id)
                group.late.append(row)
            else:
                group.attempts.append(row)
            if call is not None:
                group.calls.append(call)
        elif found.kind == INTENT:
            # Nearly all are settled a moment later: only those that are not are ever read in full.
            self.open[self._named(found.payload).id] = Open(found.seq, found.ordinal, found.payload)
        elif found.kind == CALL:
            group.calls.append(self._call(found.payload))
        elif found.kind == OBJECT:
            made = self._object(found.payload)
            if group.objects.get(made.id) is None:  # who made it first has it
                group.objects[made.id] = made
        elif found.kind == OBJECT_GONE:
            group.objects[found.payload.decode()] = None
        elif found.kind == RESULT:
            result = self._result(found.payload)
            group.results[result.id] = result
        else:
            group.unreadable.append(found)

    def close(self, group: Group, before: int) -> None:
        """Ends a group: intents in segments before that ordinal become rows, so that the segments can be reused."""
        while self.open:
            id, first = next(iter(self.open.items()))
            if first.ordinal >= before:
                break
            del self.open[id]
            self._spilled.add(id)
            group.attempts.append(self._intent(first.payload))
        first_open = next(iter(self.open.values()), None)
        group.closed_seq = group.applied_seq if first_open is None else first_open.seq - 1

    def resolve(self, group: Group, rows: Sequence[AttemptRow]) -> None:
        """At restart: what is still open counts at its worst. `rows` are those that the database has as open."""
        for row in rows:
            group.late.append(_unresolved(row))
        for left in self.open.values():
            group.attempts.append(_unresolved(self._intent(left.payload)))
        self.open.clear()
        self._spilled.clear()
        group.closed_seq = group.applied_seq

    def orphan(self, group: Group, frames: Sequence[Frame]) -> None:
        """At restart: attempts that failed and cost something, of calls that were not concluded, are in no charge. They
        keep their cost, as unresolved. `frames` is all that the journal still holds, written already or not."""
        found: dict[str, AttemptRow] = {}
        for frame in frames:
            try:
                if frame.kind == SETTLEMENT and bytes(self._halves(frame.payload)[1]) == _NIL:
                    row, _ = self._settlement(frame.payload)
                    if row.cost_pusd:
                        found[row.id] = row
                elif found and frame.kind in (SETTLEMENT, CALL):
                    call = self._halves(frame.payload)[1] if frame.kind == SETTLEMENT else frame.payload
                    concluded = self._named(call).id
                    found = {id: row for id, row in found.items() if row.call_id != concluded}
            except msgspec.MsgspecError:
                continue  # counted where it was taken
        group.orphans += found

    def know_open(self, ids: Iterable[str]) -> None:
        """At restart: the database has these as open."""
        self._spilled.update(ids)

    # -- writing

    def write(self, connection: Connection, group: Group) -> list[AttemptRow | CallRow]:
        """Inside the caller's transaction. Raises one of ROW_FAULTS when a row can't be stored; returns no row."""
        changes = Changes()
        for row in group.attempts:
            if row.outcome != "open":
                changes.add_attempt(row)
        for call in group.calls:
            changes.add_call(call)
        self._attempts.run(connection, [attempt_values(row) for row in group.attempts])
        self._calls.run(connection, [call_values(call) for call in group.calls])
        for row in group.late:
            replace_attempt(connection, row, changes)
        for id in group.orphans:
            mark_orphan(connection, id, changes)
        self._write_rest(connection, group, changes)
        return []

    def correct(self, connection: Connection, row: AttemptRow) -> None:
        """Replaces a settled row; all sums follow. Raises KeyError for an unknown id."""
        if connection.execute(select(schema.attempts.c.id).where(schema.attempts.c.id == row.id)).first() is None:
            raise KeyError(row.id)
        self._replace(connection, row)

    def erase(self, connection: Connection, org: str) -> int:
        """Deletes all rows, sums and objects of an org; how many calls and attempts that were."""
        self._rollups.forget()
        return retention.erase(connection, org)

    def rolled_back(self) -> None:
        """What `write` learnt in a transaction that did not commit is no longer so."""
        self._rollups.forget()

    def write_slowly(self, connection: Connection, group: Group) -> list[AttemptRow | CallRow]:
        """As `write`, a row at a time, after it failed: a row that is there already is replaced, and its sums with
        it; a row that can't be stored, or summed up, is left out and returned."""
        rejected: list[AttemptRow | CallRow] = []
        rows: list[AttemptRow | CallRow] = [*group.attempts, *group.late, *group.calls]
        for row in rows:
            try:
                with connection.begin_nested():
                    self._replace(connection, row)
            except ROW_FAULTS:
                self._rollups.forget()
                rejected.append(row)
        changes = Changes()
        for id in group.orphans:
            mark_orphan(connection, id, changes)
        self._write_rest(connection, group, changes)
        return rejected

    def _replace(self, connection: Connection, row: AttemptRow | CallRow) -> None:
        changes = Changes()
        if isinstance(row, CallRow):
            replace_call(connection, row, changes)
        else:
            replace_attempt(connection, row, changes)
        self._rollups.write(connection, changes)

    def _write_rest(self, connection: Connection, group: Group, changes: Changes) -> None:
        self._rollups.write(connection, changes)
        made = [msgspec.structs.astuple(row) for row in group.objects.values() if row is not None]
        self._objects.run(connection, made)
        self._results.run(connection, [msgspec.structs.astuple(row) for row in group.results.values()])
        for id, row in group.objects.items():
            if row is None:
                connection.execute(delete(schema.objects).where(schema.objects.c.id == id))
        self._state.run(connection, [(1, group.applied_seq, group.closed_seq)])


def _unresolved(row: AttemptRow) -> AttemptRow:
    """Its tokens stay in `worst_tokens`: how they split is not known, so no column claims them but input."""
    return msgspec.structs.replace(
        row, outcome="unresolved", estimated=True, cost_pusd=row.worst_pusd, input_tokens=row.worst_tokens
    )


def replace_attempt(connection: Connection, row: AttemptRow, changes: Changes) -> None:
    """Stores a row whether or not it is there; the sums follow."""
    table = schema.attempts
    old = connection.execute(select(table).where(table.c.id == row.id)).first()
    values = dict(zip(AttemptRow.__struct_fields__, attempt_values(row), strict=True))
    if old is None:
        connection.execute(insert(table).values(values))
    else:
        before = attempt_of(old)
        if before.outcome != "open":
            changes.add(before, -1)
        connection.execute(update(table).where(table.c.id == row.id).values(values))
    if row.outcome != "open":
        changes.add(row)


def mark_orphan(connection: Connection, id: str, changes: Changes) -> None:
    """Makes a settled attempt unresolved, at its own cost, if it is there still."""
    table = schema.attempts
    old = connection.execute(select(table).where(table.c.id == id)).first()
    if old is not None and old.outcome != "unresolved":
        replace_attempt(connection, msgspec.structs.replace(attempt_of(old), outcome="unresolved"), changes)


def replace_call(connection: Connection, row: CallRow, changes: Changes) -> None:
    """Stores a row whether or not it is there; the sums follow."""
    table = schema.calls
    old = connection.execute(select(table).where(table.c.id == row.id)).first()
    values = dict(zip(CallRow.__struct_fields__, call_values(row), strict=True))
    if old is None:
        connection.execute(insert(table).values(values))
    else:
        changes.add(call_of(old), -1)
        connection.execute(update(table).where(table.c.id == row.id).values(values))
    changes.add(row)


def attempt_values(row: AttemptRow) -> tuple[Any, ...]:
    """A value for every column, in order."""
    values = msgspec.structs.astuple(row)
    if row.units is None:
        return values
    return (*values[:_UNITS], msgspec.json.encode(row.units).decode(), *values[_UNITS + 1 :])


def call_values(row: CallRow) -> tuple[Any, ...]:
    """A value for every column, in order."""
    values = msgspec.structs.astuple(row)
    if row.notes is None:
        return values
    return (*values[:_NOTES], msgspec.json.encode(row.notes).decode(), *values[_NOTES + 1 :])


def attempt_of(found: Any) -> AttemptRow:
    """A row of the table, in its columns' order."""
    values = list(found)
    if values[_UNITS] is not None:
        values[_UNITS] = msgspec.json.decode(values[_UNITS])
    return AttemptRow(*values)


def call_of(found: Any) -> CallRow:
    """A row of the table, in its columns' order."""
    values = list(found)
    if values[_NOTES] is not None:
        values[_NOTES] = msgspec.json.decode(values[_NOTES])
    return CallRow(*values)
