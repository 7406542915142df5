"""The tables of the durable records. Columns of calls and attempts are the fields of their rows, in order."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

from gateway.records.adjustments import adjustments_table
from gateway.records.rows import AttemptRow, CallRow, ObjectRow, ResultRow

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_WHOLE = BigInteger().with_variant(Integer(), "sqlite")  # 64 bits there too; STRICT knows no BIGINT

#: What roll-ups sum, beside their bucket and dimensions.
MEASURES = (
    "calls",
    "answered",
    "refused",
    "failed",
    "gone",
    "charge_pusd",
    "saved_pusd",
    "duration_us",
    "wait_us",
    "attempts",
    "failed_attempts",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_pusd",
    "unresolved_pusd",
    "estimated",
    "unpriced",
)

#: Seconds a roll-up's bucket: minute, hour, day.
SPANS = (60, 3600, 86400)

#: What roll-ups are kept apart by.
DIMENSIONS = ("org", "client", "key", "model", "provider", "route")


def _column(name: str, hint: Any, **more: Any) -> Column[Any]:
    if hint is bool:
        return Column(name, Boolean(create_constraint=False), nullable=False, **more)
    if hint is int:
        return Column(name, BigInteger, nullable=False, **more)
    if hint in (bytes, bytes | None):
        return Column(name, LargeBinary, nullable=hint is not bytes, **more)
    if hint is str:
        return Column(name, Text, nullable=False, **more)
    return Column(name, Text, nullable=True, **more)  # a mapping, as JSON


def _columns(row: type[msgspec.Struct], primary: str) -> list[Column[Any]]:
    hints = get_type_hints(row)
    return [_column(name, hints[name], primary_key=name == primary) for name in row.__struct_fields__]


# Rows are stored in the order of their ids, which are UUIDv7: one tree that grows at its right edge.
attempts = Table("attempts", metadata, *_columns(AttemptRow, "id"), sqlite_with_rowid=False)

# What a start has to resolve: never more than a few.
Index("ix_attempts_open", attempts.c.id, sqlite_where=attempts.c.outcome == "open")

# What a start counts as requests, beside the calls that ended: as few as crashes left.
Index("ix_attempts_unresolved", attempts.c.id, sqlite_where=attempts.c.outcome == "unresolved")

calls = Table("calls", metadata, *_columns(CallRow, "id"), sqlite_with_rowid=False)
Index("ix_calls_client_id", calls.c.client, calls.c.id)

objects = Table("objects", metadata, *_columns(ObjectRow, "id"), sqlite_with_rowid=False)
Index("ix_objects_org", objects.c.org)

results = Table("results", metadata, *_columns(ResultRow, "id"))
Index("ix_results_expires_wall_ns", results.c.expires_wall_ns)

dimensions = Table(
    "dimensions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    *(Column(name, Text, nullable=False) for name in DIMENSIONS),
    UniqueConstraint(*DIMENSIONS),
)


# Sums by minute, hour and day in one table, so that one statement adds to all three.
usage = Table(
    "usage",
    metadata,
    Column("seconds", Integer, primary_key=True, autoincrement=False),  # of the bucket: one of SPANS
    Column("bucket", _WHOLE, primary_key=True, autoincrement=False),  # its start, seconds since the epoch
    Column("dimension", Integer, primary_key=True, autoincrement=False),
    *(Column(measure, _WHOLE, nullable=False) for measure in MEASURES),
    sqlite_with_rowid=False,
    sqlite_strict=True,  # else a sum beyond 64 bits would become a float, without a word
)

#: Sums of everything else that is billed (images by size and quality, audio, characters, a worker's units), likewise.
usage_units = Table(
    "usage_units",
    metadata,
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    Column("bucket", _WHOLE, primary_key=True, autoincrement=False),
    Column("dimension", Integer, primary_key=True, autoincrement=False),
    Column("unit", Text, primary_key=True),
    Column("amount", _WHOLE, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

#: One row: up to where the journal is in the database.
ledger_state = Table(
    "ledger_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("applied_seq", BigInteger, nullable=False),  # settlements up to here are rows
    Column("closed_seq", BigInteger, nullable=False),  # intents up to here are rows or settled
)

adjustments = adjustments_table(metadata)

clients = Table(
    "clients",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False, index=True),
    Column("tier", Text, nullable=False),
    Column("rules", Text, nullable=False),  # scope, quota, budget as JSON
    Column("created_wall_ns", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("client", Text, nullable=False, index=True),
    Column("role", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # HMAC-SHA-256 in hex
    Column("hint", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Column("created_wall_ns", BigInteger, nullable=False),
    Column("expires_wall_ns", BigInteger, nullable=True),
    Column("revoked_wall_ns", BigInteger, nullable=True),
)

#: One row: which pepper the digests of the keys were made with.
pepper_state = Table(
    "pepper_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
)
