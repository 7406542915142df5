"""The SQLite file: who may open it, its pragmas, its migrations, and the one connection that writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, StaticPool

HEAD = "v0008"  # the newest revision in migrations/versions
_BUSY_MS = 250  # SQLite's own wait for a lock; the writer tries again after it
_WAL_LIMIT = 64 * 1024 * 1024


class RecordsError(Exception):
    """The records can't be opened or changed as asked; the message says why and what to do."""


class Lock:
    """The right to be the one process that owns a data directory. Ends with the process."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / "tidegate.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode().strip() or "unknown"
            os.close(self._fd)
            raise RecordsError(
                f"data directory {data_dir} is in use by process {owner}; stop that one or choose another data_dir"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._fd)


class Database:
    """`writer` is the only connection that writes and checkpoints; it belongs to the writer's thread. `reader` opens
    read-only ones. `safe` makes every commit survive a power cut (synchronous=FULL)."""

    def __init__(self, path: Path, *, safe: bool) -> None:
        self.path = path
        self._level = "FULL" if safe else "NORMAL"
        path.touch(0o600)  # SQLite gives its other files the same mode
        self.engine = _engine(f"file:{_quoted(path)}", StaticPool)
        self.writer = self.engine.connect()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self.pragma("journal_mode=WAL")
        self.pragma(f"synchronous={self._level}")
        self.pragma(f"journal_size_limit={_WAL_LIMIT}")
        self.pragma("wal_autocheckpoint=4000")
        self.pragma("secure_delete=FAST")
        migrate(self.writer)

    def pragma(self, text: str) -> None:
        """Outside of a transaction, which SQLAlchemy would begin."""
        dbapi = self.writer.connection.dbapi_connection
        assert dbapi is not None
        try:
            dbapi.execute(f"PRAGMA {text}").close()
        except sqlite3.Error as error:
            raise DatabaseError(f"PRAGMA {text}", None, error) from error

    @contextlib.contextmanager
    def transaction(self, *, full: bool = False) -> Iterator[Connection]:
        """BEGIN IMMEDIATE to COMMIT, or ROLLBACK on any exception; `full` waits for the disk."""
        if full and self._level != "FULL":
            self.pragma("synchronous=FULL")
        try:
            with self.writer.begin():
                yield self.writer
        finally:
            if full and self._level != "FULL":
                self.pragma(f"synchronous={self._level}")

    def reader(self) -> Engine:
        """An engine for one thread pool's read-only connections."""
        return _engine(f"file:{_quoted(self.path)}?mode=ro", NullPool)

    def close(self) -> None:
        self.writer.close()
        self.engine.dispose()


def look(path: Path) -> Engine:
    """Reads a database that somebody else may own, and leaves no file behind: where no gateway has it open, even the
    files of the write-ahead log are not made."""
    has_log = path.with_name(f"{path.name}-wal").exists() and path.with_name(f"{path.name}-shm").exists()
    return _engine(f"file:{_quoted(path)}?{'' if has_log else 'immutable=1&'}mode=ro", NullPool)


def reason_of(error: DatabaseError) -> str:
    """In an operator's words why the database did not take a write."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "database is locked by another process"
    if code == sqlite3.SQLITE_FULL:
        return "disk is full"
    return f"database failed: {error.orig}"


def _quoted(path: Path) -> str:
    """A path inside an SQLite URI."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _engine(uri: str, pool: Any) -> Engine:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,  # transactions are begun below, in SQLAlchemy's own event
            timeout=_BUSY_MS / 1000,
            check_same_thread=False,  # opened at start-up, then used by one thread at a time
            cached_statements=256,
        )

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=pool)
    read_only = uri.endswith("?mode=ro")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def migrate(connection: Connection) -> None:
    """Brings an empty or older database to HEAD. Raises RecordsError for a newer one."""
    found = _revision(connection)
    if found == HEAD:
        return  # without importing Alembic, which takes longer than all the rest of opening
    if not found and _is_empty(connection):
        _create(connection)
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RecordsError(
            f"the database is at revision {found}, which this version of Tidegate does not know: a newer one wrote it"
        ) from error


def _is_empty(connection: Connection) -> bool:
    with connection.begin():
        return connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is None


def _create(connection: Connection) -> None:
    """What all migrations together would make, without Alembic: a test compares the two."""
    from gateway.records.schema import metadata

    with connection.begin():
        metadata.create_all(connection)
        connection.exec_driver_sql(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (HEAD,))


def _revision(connection: Connection) -> str:
    with connection.begin():
        table = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first()
        if table is None:
            return ""
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
        return "" if row is None else str(row[0])
