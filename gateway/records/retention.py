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
    minutes = schema.ROLLUPS[60]
    gone = [_delete_before(connection, table, before_ns) for table in (schema.calls, schema.attempts)]
    connection.execute(delete(minutes).where(minutes.c.bucket < before_ns // _NS // 60 * 60))
    return max(gone) == _BATCH


def _delete_before(connection: Connection, table: Table, before_ns: int) -> int:
    old = select(table.c.id).where(table.c.started_wall_ns < before_ns).limit(_BATCH)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount


def erase(connection: Connection, org: str) -> int:
    """Deletes all rows, sums and objects of an org; how many calls and attempts that were."""
    numbers = select(schema.dimensions.c.id).where(schema.dimensions.c.org == org).scalar_subquery()
    for table in schema.ROLLUPS.values():
        connection.execute(delete(table).where(table.c.dimension.in_(numbers)))
    connection.execute(delete(schema.dimensions).where(schema.dimensions.c.org == org))
    connection.execute(delete(schema.objects).where(schema.objects.c.org == org))
    tables = (schema.calls, schema.attempts)
    return sum(connection.execute(delete(table).where(table.c.org == org)).rowcount for table in tables)
