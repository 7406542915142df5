"""Which org made which provider object (file, batch, stored response): ids never cross the wall between orgs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class ObjectRow(msgspec.Struct, array_like=True, frozen=True):
    """A provider object and its maker; `kind` is file, batch, response, ..."""

    id: str
    org: str
    client: str
    provider: str
    kind: str
    created_wall_ns: int


class Objects:
    """Remembers makers in the database, with a bounded memory of the latest."""

    def add(self, id: str, org: str, client: str, provider: str, kind: str) -> None:
        """Journals a new object (survives kill -9); known to `owner` at once."""
        raise NotImplementedError

    async def owner(self, id: str) -> ObjectRow | None:
        """Who made it; None for ids nobody here made."""
        raise NotImplementedError

    async def filter_own(self, ids: Iterable[str], org: str) -> set[str]:
        """Those of the ids that belong to the org."""
        raise NotImplementedError

    def discard(self, id: str) -> None:
        """Journals that the object was deleted at the provider."""
        raise NotImplementedError
