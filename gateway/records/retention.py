"""What leaves the database: rows past their time, and everything of an org that asks."""

from __future__ import annotations

from sqlalchemy import Connection, Table, delete, select

from gateway.records import schema

_BATCH = 500
_DAY_NS = 86_400_000_000_000
_NS = 1_000_000_000


def purge(connection: Connection, wall_ns: int, days: int) -> bool:
    """Deletes a batch of the calls, attempts and minute sums that started more than `days` days ago; True: there is
    more. Sums by hour and day stay: they name no single call, and bills are made from them."""
    before_ns = wall_ns - days * _DAY_NS
    gone = [_delete_before(connection, table, before_ns) for table in (schema.calls, schema.attempts)]
    for usage in (schema.usage, schema.usage_units):
        connection.execute(delete(usage).where(usage.c.seconds == 60, usage.c.bucket < before_ns // _NS // 60 * 60))
    return max(gone) == _BATCH


def _delete_before(connection: Connection, table: Table, before_ns: int) -> int:
    # Ids are UUIDv7: their first 48 bits are the time in milliseconds, so that this is the table's left edge.
    digits = f"{before_ns // 1_000_000:012x}"
    oldest_kept = f"{digits[:8]}-{digits[8:]}"
    old = select(table.c.id).where(table.c.id < oldest_kept).order_by(table.c.id).limit(_BATCH)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount


def erase(connection: Connection, org: str) -> int:
    """Deletes all rows, sums and objects of an org; how many calls and attempts that were."""
    numbers = select(schema.dimensions.c.id).where(schema.dimensions.c.org == org).scalar_subquery()
    for usage in (schema.usage, schema.usage_units):
        connection.execute(delete(usage).where(usage.c.dimension.in_(numbers)))
    connection.execute(delete(schema.dimensions).where(schema.dimensions.c.org == org))
    for kept in (schema.objects, schema.results):
        connection.execute(delete(kept).where(kept.c.org == org))
    tables = (schema.calls, schema.attempts)
    return sum(connection.execute(delete(table).where(table.c.org == org)).rowcount for table in tables)
