"""First results by idempotency key, in the database: they outlive the process."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from sqlalchemy import Connection, delete, select, update

from gateway.clock import Clock
from gateway.records import schema
from gateway.records.database import RecordsError
from gateway.records.frames import MAX_PAYLOAD, RESULT
from gateway.records.journal import Journal
from gateway.records.queries import Queries
from gateway.records.rows import ResultRow
from gateway.records.writer import Writer

#: Longer answers are stored by a transaction of their own; the journal has only the row without them.
_JOURNALLED_BYTES = MAX_PAYLOAD - 1024

_PURGED_AT_ONCE = 200


class ResultRows:
    """A row is in the journal when `add` returns: from then on its key is never executed again. An answer too long for
    the journal follows within milliseconds; if the process is killed before, its key is refused."""

    def __init__(self, journal: Journal, writer: Writer, queries: Queries, clock: Clock) -> None:
        self._journal = journal
        self._writer = writer
        self._queries = queries
        self._wall_ns = clock.wall_ns
        self._encode = msgspec.msgpack.Encoder().encode
        self._storing: set[asyncio.Task[None]] = set()

    def add(self, row: ResultRow) -> None:
        """Keeps a result."""
        if row.answer is not None and len(row.answer) > _JOURNALLED_BYTES:
            self._journal.offer(RESULT, self._encode(msgspec.structs.replace(row, answer=None)))
            task = asyncio.ensure_future(self._store(row))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        else:
            self._journal.offer(RESULT, self._encode(row))
        self._writer.appended()

    async def find(self, id: str) -> ResultRow | None:
        """The row with that id, unless it has expired."""
        table = schema.results
        query = select(table).where(table.c.id == id, table.c.expires_wall_ns > self._wall_ns())
        found = await self._queries.read(lambda connection: connection.execute(query).first())
        return None if found is None else ResultRow(*found)

    async def aclose(self) -> None:
        """Hands what is left to the writer."""
        if self._storing:
            await asyncio.wait(list(self._storing), timeout=1.0)

    async def _store(self, row: ResultRow) -> None:
        table = schema.results
        change = update(table).where(table.c.id == row.id).values(answer=row.answer)

        def store(connection: Connection) -> None:
            connection.execute(change)

        try:
            await self._writer.run(store, full=False)
        except RecordsError as error:
            structlog.get_logger().warning("the answer of an idempotent call is not kept", reason=str(error))


def purge(connection: Connection, wall_ns: int) -> bool:
    """Deletes a batch of those that have expired; True: there may be more."""
    table = schema.results
    old = select(table.c.id).where(table.c.expires_wall_ns <= wall_ns).limit(_PURGED_AT_ONCE)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount == _PURGED_AT_ONCE
