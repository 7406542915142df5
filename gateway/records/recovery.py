"""What a start finds in the journal and brings into the database: the end of whatever ended the process before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from gateway.records import schema
from gateway.records.database import Database, RecordsError, reason_of
from gateway.records.frames import Frame, Geometry
from gateway.records.journal import Journal, prepare, recover
from gateway.records.posting import ROW_FAULTS, Group, Posting, attempt_of
from gateway.records.rows import AttemptRow

_PATIENCE_S = 5.0
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found: records that were not in the database yet, and attempts whose end nobody recorded."""

    replayed: int
    unresolved: int
    rejected: int


def open_journal(database: Database, posting: Posting, path: Path, geometry: Geometry) -> tuple[Journal, Recovered]:
    """Replays the journal into the database, exactly once, then starts it anew. Raises RecordsError."""
    frames, ordinal, found = recover(path)
    applied, closed = _state(database)
    open_rows = _open_rows(database)
    group = _group_of(posting, frames, open_rows, applied, closed)
    rejected = _persist(database, posting, group)
    if found != geometry:
        _prepare(path, geometry)
        ordinal = -1
    journal = Journal(path, geometry, ordinal + 1, group.applied_seq + 1)
    unresolved = sum(row.outcome == "unresolved" for row in (*group.attempts, *group.late))
    replayed = sum(frame.seq > applied for frame in frames)
    return journal, Recovered(replayed, unresolved, rejected)


def _state(database: Database) -> tuple[int, int]:
    table = schema.ledger_state
    with database.transaction() as connection:
        row = connection.execute(select(table.c.applied_seq, table.c.closed_seq)).first()
    return (0, 0) if row is None else (row[0], row[1])


def _open_rows(database: Database) -> list[AttemptRow]:
    table = schema.attempts
    with database.transaction() as connection:
        return [attempt_of(row) for row in connection.execute(select(table).where(table.c.outcome == "open"))]


def _group_of(posting: Posting, frames: list[Frame], open_rows: list[AttemptRow], applied: int, closed: int) -> Group:
    posting.know_open(row.id for row in open_rows)
    # Settlements up to `applied` are rows already; they only tell which intents are not open any more.
    posting.take(Group(), [frame for frame in frames if closed < frame.seq <= applied])
    group = Group(applied_seq=applied)
    posting.take(group, [frame for frame in frames if frame.seq > applied])
    settled = {row.id for row in group.late}
    posting.resolve(group, [row for row in open_rows if row.id not in settled])
    posting.orphan(group, frames)
    return group


def _persist(database: Database, posting: Posting, group: Group) -> int:
    """All in one transaction; waits a little for a database that another process has locked."""
    write = posting.write
    patience = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with database.transaction() as connection:
                rejected = write(connection, group)
            return len(rejected) + len(group.unreadable)
        except ROW_FAULTS:
            posting.rolled_back()
            write = posting.write_slowly
        except DatabaseError as error:
            posting.rolled_back()
            if time.monotonic() > patience:
                raise RecordsError(f"can't bring the journal into {database.path}: {reason_of(error)}") from error
            time.sleep(_PAUSE_S)


def _prepare(path: Path, geometry: Geometry) -> None:
    try:
        prepare(path, geometry)
    except OSError as error:
        size = geometry.file_bytes // 1024 // 1024
        raise RecordsError(f"can't set {size} MiB aside for the journal {path}: {error.strerror}") from error
