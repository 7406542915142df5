"""What the gateway stands on here: data directory, database, pepper, open files."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.config import Settings
from gateway.diagnosis.finding import Finding, Status

LOW_BYTES, VERY_LOW_BYTES = 2**30, 100 * 2**20
LOW_FILES = 4096


def ground(settings: Settings) -> list[Finding]:
    """Looks and leaves nothing behind: what is missing is not made."""
    data_dir = Path(settings.server.data_dir)
    return [*_data_dir(data_dir), *_databases(data_dir), *_pepper(settings, data_dir), *_open_files()]


def _data_dir(data_dir: Path) -> Iterator[Finding]:
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if place != data_dir:
        able = _can_hold_a_folder(place)
        yield (
            Finding("ok", "data directory", f"{data_dir} will be made at the first start")
            if able
            else Finding("fail", "data directory", f"{data_dir} can't be made: {place} is not writable", "chown it")
        )
        return
    try:
        with tempfile.TemporaryFile(dir=data_dir) as file:
            file.write(b"tidegate doctor")
    except OSError as error:
        yield Finding("fail", "data directory", f"{data_dir} is not writable: {error.strerror}", "chown it")
        return
    status = os.statvfs(data_dir)
    free = status.f_bavail * status.f_frsize
    if free < LOW_BYTES:
        level: Status = "fail" if free < VERY_LOW_BYTES else "warn"
        yield Finding(level, "data directory", f"only {free // 2**20} MiB are free in {data_dir}", "make room")
    else:
        yield Finding("ok", "data directory", f"{data_dir} is writable, {free // 2**30} GiB free")
    if data_dir.stat().st_mode & 0o007:
        yield Finding("warn", "data directory", f"{data_dir} is open to every user", f"chmod 700 {data_dir}")


def _can_hold_a_folder(place: Path) -> bool:
    """Tried, since some file systems let nobody write, whatever the modes say."""
    try:
        with tempfile.TemporaryDirectory(dir=place):
            return True
    except OSError:
        return False


def _databases(data_dir: Path) -> Iterator[Finding]:
    for path in sorted(data_dir.glob("*.db")) if data_dir.is_dir() else []:
        reason = _unreadable(path)
        if reason:
            yield Finding("fail", "database", f"{path} can't be used: {reason}", "restore it from a backup")
        elif not os.access(path, os.W_OK):
            yield Finding("fail", "database", f"{path} is not writable", "chown it")
        else:
            yield Finding("ok", "database", f"{path} can be read and written")


def _unreadable(path: Path) -> str:
    """Why SQLite could not read the file, "" if it can.

    Opened as immutable, since an ordinary opening, even one that only reads, leaves files of the write-ahead log
    behind, with an owner that may not be the gateway's. Where there is a log already, a gateway may be writing, and
    only the head of the file is looked at: /readyz tells of the rest.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head and head != b"SQLite format 3\0":
            return "it is no SQLite database"
        if path.with_name(f"{path.name}-wal").exists():
            return ""
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        return str(error)
    return ""


def _pepper(settings: Settings, data_dir: Path) -> Iterator[Finding]:
    named = settings.records.pepper_file
    path = data_dir / "pepper" if named is None else Path(named)
    if not path.exists():
        if named is not None:
            yield Finding("fail", "pepper", f"{path} does not exist", "put 32 random bytes in it, or unset pepper_file")
        return
    if path.stat().st_mode & 0o077:
        yield Finding("fail", "pepper", f"{path} is open to other users", f"chmod 600 {path}")
    else:
        yield Finding("ok", "pepper", f"{path} is readable by its owner only")


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LOW_FILES:
        more = f"ulimit -n {LOW_FILES}" if hard == resource.RLIM_INFINITY or hard >= LOW_FILES else "raise LimitNOFILE"
        yield Finding("warn", "open files", f"at most {soft}: each call takes two", more)
