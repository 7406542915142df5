"""All durable records of one data directory behind one door: lock, database, journal, writer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from gateway.clock import Clock
from gateway.directory import Directory
from gateway.events import Events
from gateway.records import retention, schema, verbs
from gateway.records.adjustments import AdjustmentRows
from gateway.records.database import Database, Lock, RecordsError, reason_of
from gateway.records.durability import Durable
from gateway.records.frames import Geometry
from gateway.records.journal import Journal
from gateway.records.keys import Keys
from gateway.records.ledger import Ledger
from gateway.records.objects import Objects
from gateway.records.options import Options
from gateway.records.pepper import load_pepper
from gateway.records.posting import Posting
from gateway.records.queries import Queries
from gateway.records.recovery import Recovered, open_journal
from gateway.records.results import ResultRows
from gateway.records.results import purge as purge_results
from gateway.records.rollups import Rollups
from gateway.records.writer import Writer

if TYPE_CHECKING:
    from gateway.control.socket import Verb

__all__ = ["Records", "RecordsError"]

_PURGE_EVERY_S = 600.0
_BETWEEN_BATCHES_S = 0.05  # the ledger has its turn
_CLOSE_PATIENCE_S = 10.0


class Records:
    """Owns the data directory's database; exactly one process may."""

    ledger: Ledger
    objects: Objects
    results: ResultRows
    keys: Keys
    queries: Queries
    adjustments: AdjustmentRows
    pepper: bytes
    recovered: Recovered  # what the start found of the run before

    def __init__(self, data_dir: Path, options: Options, clock: Clock, pepper_file: Path | None) -> None:
        """Blocks; use `open`."""
        _make(data_dir)
        self.data_dir = data_dir
        self._options = options
        self._clock = clock
        self._lock = Lock(data_dir)
        try:
            self._database = _database(data_dir / "tidegate.db", options)
            self.pepper = _pepper(self._database, data_dir, pepper_file)
            posting = Posting(Rollups())
            geometry = Geometry(options.segments, options.segment_bytes)
            self._journal, self.recovered = _journal(self._database, posting, data_dir, geometry)
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(self._database, self._journal, posting, options.group_ms / 1000)
        self.queries = Queries(self._database)
        self._durable = Durable(self._journal) if options.durability == "power" else None
        self.ledger = Ledger(self._journal, self._writer, posting, self.queries, self._durable)
        self.objects = Objects(self._journal, self._writer, self.queries, clock)
        self.results = ResultRows(self._journal, self._writer, self.queries, clock)
        self.on_erased: Callable[[str], None] = _nothing  # called with an org whose rows are gone
        self.keys = Keys(self._writer, self.queries, self.pepper, clock, data_dir)
        self.adjustments = AdjustmentRows(schema.adjustments, self._writer, self.queries)
        self._purging: asyncio.Task[None] | None = None
        self.closed = False

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        options: Options | None = None,
        *,
        clock: Clock | None = None,
        pepper_file: Path | None = None,
        events: Events | None = None,
    ) -> Records:
        """Locks the directory, migrates the database, replays the journal. Raises RecordsError (in use, disk full).

        `pepper_file` None: TIDEGATE_PEPPER, else data_dir/pepper, made (0600) when missing.
        `events` hears `ledger_stuck` with the reason, `ledger_well`, and `ledger_recovered` where the run before did
        not end well."""
        records = await asyncio.to_thread(cls, data_dir, options or Options(), clock or Clock(), pepper_file)
        records._start(events)
        return records

    def _start(self, events: Events | None) -> None:
        loop = asyncio.get_running_loop()

        def released() -> None:  # in the writer's thread
            if self._journal.late:
                loop.call_soon_threadsafe(self._journal.catch_up)

        def trouble(reason: str) -> None:  # in the writer's thread
            if events is not None and reason:
                loop.call_soon_threadsafe(lambda: events.emit("ledger_stuck", reason=reason))
            elif events is not None:
                loop.call_soon_threadsafe(lambda: events.emit("ledger_well"))

        self._journal.on_released = released
        self._writer.on_trouble = trouble
        self._writer.start()
        self._purging = asyncio.create_task(self._purge())
        if any(astuple(self.recovered)):
            structlog.get_logger().warning(
                "the journal held records of a run that did not end well", **asdict(self.recovered)
            )
            if events is not None:
                events.emit("ledger_recovered", **asdict(self.recovered))

    async def _purge(self) -> None:
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            try:
                more = await self._writer.run(self._purge_some, full=False)
            except RecordsError as error:
                structlog.get_logger().warning("old rows were not purged; trying again later", reason=str(error))
                more = False
            pause_s = _BETWEEN_BATCHES_S if more else _PURGE_EVERY_S

    def _purge_some(self, connection: Connection) -> bool:
        wall_ns, days = self._clock.wall_ns(), self._options.retention_days
        more = purge_results(connection, wall_ns)
        return (days > 0 and retention.purge(connection, wall_ns, days)) or more

    def attach(self, directory: Directory) -> None:
        """Keys made, rotated or revoked from now on change this directory too."""
        self.keys.attach(directory)

    async def erase(self, org: str) -> int:
        """Deletes calls, attempts, sums and objects of an org; how many calls and attempts that were. Its clients and
        keys stay, and what it calls from now on is recorded again."""
        gone = await self.ledger.erase(org)
        self.objects.forget(org)
        self.on_erased(org)
        return gone

    def verbs(self) -> dict[str, Verb]:
        """What the command line may ask over the admin socket."""
        return verbs.of(self)

    async def aclose(self) -> None:
        """Flushes and lets go, the lock last. A stuck database is left after ten seconds: the journal has the rest."""
        self.closed = True
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait([self._purging])
        await self.results.aclose()
        self._journal.catch_up()
        await self._writer.aclose(_CLOSE_PATIENCE_S)
        if self._durable is not None:
            await self._durable.aclose()
        await self.queries.aclose()
        await asyncio.to_thread(self._database.close)
        self._journal.close()
        self._lock.release()


def _nothing(_org: str) -> None:
    return


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise RecordsError(
            f"data directory {data_dir} can't be used: {error.strerror}. Choose another data_dir"
        ) from None


def _database(path: Path, options: Options) -> Database:
    try:
        return Database(path, safe=options.durability == "power")
    except DatabaseError as error:
        raise RecordsError(f"can't open {path}: {reason_of(error)}") from error


def _pepper(database: Database, data_dir: Path, named: Path | None) -> bytes:
    try:
        return load_pepper(data_dir, named, database.writer)
    except BaseException:
        database.close()
        raise


def _journal(database: Database, posting: Posting, data_dir: Path, geometry: Geometry) -> tuple[Journal, Recovered]:
    try:
        return open_journal(database, posting, data_dir / "ledger.journal", geometry)
    except BaseException:
        database.close()
        raise
