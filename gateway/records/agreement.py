"""Whether the configuration and the database of a data directory fit each other: what a start would refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from gateway.clients import Tier
from gateway.clock import Clock
from gateway.directory import Directory, DirectoryError
from gateway.records.database import RecordsError, look
from gateway.records.keys import tier_lost
from gateway.records.people import entry_of, made_client, rows
from gateway.records.pepper import find_pepper

if TYPE_CHECKING:
    from gateway.config import Settings


def disagreements(settings: Settings) -> list[str]:
    """Sentences, none where all is well or there is no database yet. Changes nothing; a gateway may be running."""
    data_dir = Path(settings.server.data_dir)
    path = data_dir / "tidegate.db"
    if not path.is_file():
        return []
    engine = look(path)
    try:
        with engine.begin() as connection:
            return list(_found(connection, settings, data_dir))
    except DatabaseError:
        return []  # of an older version, which a start migrates, or unreadable, which it tells
    finally:
        engine.dispose()


def _found(connection: Connection, settings: Settings, data_dir: Path) -> Iterator[str]:
    from gateway.assemble import people

    found, entries = rows(connection)
    yield from (tier_lost(row.id, row.tier) for row in found if row.tier not in settings.tiers)
    pepper = b""
    try:
        known = find_pepper(data_dir, settings.records.pepper_file, connection)
        pepper = b"" if known is None else known.secret
    except RecordsError as error:
        yield str(error)
    filed, their_keys = people(settings, pepper)
    try:
        Directory(pepper, Clock()).replace(
            [*filed, *(made_client(row, Tier(row.tier)) for row in found)],
            [*their_keys, *(entry_of(row) for row in entries if row.revoked_wall_ns is None)],
        )
    except DirectoryError as error:
        yield str(error)
