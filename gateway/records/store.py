"""All durable records of one data directory behind one door: lock, database, journal, writer."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import Clock
from gateway.directory import Directory
from gateway.records.keys import Keys
from gateway.records.ledger import Ledger
from gateway.records.objects import Objects
from gateway.records.options import Options
from gateway.records.queries import Queries


class RecordsError(Exception):
    """The records can't be opened or changed as asked; the message says why and what to do."""


class Records:
    """Owns the data directory's database; exactly one process may."""

    ledger: Ledger
    objects: Objects
    keys: Keys
    queries: Queries
    pepper: bytes

    @classmethod
    async def open(
        cls, data_dir: Path, options: Options | None = None, *, clock: Clock | None = None, pepper: bytes | None = None
    ) -> Records:
        """Locks the directory, migrates the database, replays the journal. Raises RecordsError (in use, disk full).

        `pepper` None: TIDEGATE_PEPPER, else data_dir/pepper, made (0600) when missing."""
        raise NotImplementedError

    def attach(self, directory: Directory) -> None:
        """Keys made, rotated or revoked from now on change this directory too."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Flushes and lets go; the lock last."""
        raise NotImplementedError
