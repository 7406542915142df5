"""Which org made which provider object (file, batch, stored response): ids never cross the wall between orgs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec
import structlog
from sqlalchemy import Connection, select

from gateway.clock import Clock
from gateway.records import schema
from gateway.records.frames import OBJECT, OBJECT_GONE
from gateway.records.journal import Journal
from gateway.records.queries import Queries
from gateway.records.rows import ObjectRow
from gateway.records.writer import Writer

__all__ = ["ObjectRow", "Objects"]

_REMEMBERED = 20_000
_LONGEST_ID = 512
_IN_ONE_QUERY = 500


class Objects:
    """Remembers makers in the database, with a bounded memory of the latest."""

    def __init__(self, journal: Journal, writer: Writer, queries: Queries, clock: Clock) -> None:
        self._journal = journal
        self._writer = writer
        self._queries = queries
        self._clock = clock
        self._latest: OrderedDict[str, ObjectRow | None] = OrderedDict()  # None: gone
        self._encode = msgspec.msgpack.Encoder().encode

    def add(self, id: str, org: str, client: str, provider: str, kind: str) -> None:
        """Journals a new object (survives kill -9); known to `owner` at once. An id that is known already stays with
        its maker: no reply of a provider can move it over the wall."""
        if self._latest.get(id) is not None:
            return
        if len(id) > _LONGEST_ID:
            structlog.get_logger().error("a provider's object has an id too long to keep", provider=provider, kind=kind)
            return
        row = ObjectRow(id, org, client, provider, kind, self._clock.wall_ns())
        self._remember(id, row)
        self._journal_it(OBJECT, self._encode(row))

    def discard(self, id: str) -> None:
        """Journals that the object was deleted at the provider."""
        if len(id) > _LONGEST_ID:
            return
        self._remember(id, None)
        self._journal_it(OBJECT_GONE, id.encode())

    async def owner(self, id: str) -> ObjectRow | None:
        """Who made it; None for ids nobody here made."""
        return (await self.owners((id,)))[id]

    async def owners(self, ids: Iterable[str]) -> dict[str, ObjectRow | None]:
        """Who made each of them; the database is asked once, for those that are not remembered."""
        latest = self._latest
        wanted = set(ids)
        unknown = [id for id in wanted if id not in latest and len(id) <= _LONGEST_ID]
        found = await self._queries.read(lambda connection: _find(connection, unknown)) if unknown else {}
        for id, row in found.items():
            if id not in latest:  # made or deleted while we looked
                self._remember(id, row)
        return {id: latest[id] if id in latest else found.get(id) for id in wanted}

    def forget(self, org: str) -> None:
        """After the org's erasure."""
        for id in [id for id, row in self._latest.items() if row is not None and row.org == org]:
            del self._latest[id]

    def _remember(self, id: str, row: ObjectRow | None) -> None:
        self._latest[id] = row
        self._latest.move_to_end(id)
        if len(self._latest) > _REMEMBERED:
            self._latest.popitem(last=False)

    def _journal_it(self, kind: int, payload: bytes) -> None:
        self._journal.offer(kind, payload)
        self._writer.appended()


def _find(connection: Connection, ids: list[str]) -> dict[str, ObjectRow]:
    table = schema.objects
    found: dict[str, ObjectRow] = {}
    for start in range(0, len(ids), _IN_ONE_QUERY):
        query = select(table).where(table.c.id.in_(ids[start : start + _IN_ONE_QUERY]))
        found.update((row[0], ObjectRow(*row)) for row in connection.execute(query))
    return found
