"""Changes to budgets in the database: one row each, never changed or removed, so that the table is the history."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, insert, select

from gateway.periods import Adjustment

if TYPE_CHECKING:
    from gateway.records.queries import Queries
    from gateway.records.writer import Writer

NAME = "budget_adjustments"


def adjustments_table(metadata: MetaData) -> Table:
    """The table, in the order of Adjustment's fields; ids are UUIDv7, so the primary key is the order of time."""
    return Table(
        NAME,
        metadata,
        Column("id", Text, primary_key=True),
        Column("at_wall_ns", BigInteger, nullable=False),
        Column("scope", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("span", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("actor", Text, nullable=False),
        Column("amount_pusd", BigInteger, nullable=True),
        Column("period", Text, nullable=False),
        Column("until_wall_ns", BigInteger, nullable=True),
    )


class AdjustmentRows:
    """Reads all at start, adds one at a time; a row is on the disk before the change holds."""

    def __init__(self, table: Table, writer: Writer, queries: Queries) -> None:
        self._table = table
        self._writer = writer
        self._queries = queries

    async def load(self) -> list[Adjustment]:
        """All, oldest first."""
        query = select(self._table).order_by(self._table.c.id)

        def read(connection: Connection) -> list[Adjustment]:
            return [Adjustment(*row) for row in connection.execute(query)]

        return await self._queries.read(read)

    async def add(self, one: Adjustment) -> None:
        """Raises RecordsError when the database takes no writes."""
        names = [field.name for field in fields(Adjustment)]
        values = dict(zip(names, astuple(one), strict=True))

        def write(connection: Connection) -> None:
            connection.execute(insert(self._table).values(**values))

        await self._writer.run(write)
