"""One owner, one schema: who may open the file, and what becomes of an older one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

import gateway.records
from gateway.periods import Adjustment
from gateway.records.database import HEAD, Database, RecordsError
from gateway.records.schema import metadata

MIGRATIONS = str(Path(gateway.records.__file__).parent / "migrations")


async def test_only_one_process_owns_a_data_directory(open_records: Any, tmp_path: Path) -> None:
    records = await open_records()
    with pytest.raises(RecordsError, match=f"in use by process {os.getpid()}"):
        await open_records()
    script = "import sys, asyncio, pathlib; from gateway.records.store import Records\n"
    script += "asyncio.run(Records.open(pathlib.Path(sys.argv[1])))"
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert f"in use by process {os.getpid()}" in other.stderr
    await records.aclose()
    await open_records()


async def test_files_are_for_their_owner_only(records: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("pepper", "ledger.journal", "tidegate.lock", "tidegate.db"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name


def test_the_migrations_make_what_the_code_expects(tmp_path: Path) -> None:
    migrated(tmp_path / "tidegate.db", "head").dispose()
    engine = create_engine(f"sqlite:///{tmp_path / 'tidegate.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    migrated(tmp_path / "migrated.db", "head").dispose()
    Database(tmp_path / "new.db", safe=False).close()
    assert described(tmp_path / "new.db") == described(tmp_path / "migrated.db")


def migrated(path: Path, revision: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def described(path: Path) -> dict[str, Any]:
    """Tables with their kinds, columns and keys, indexes with their columns and conditions, and the revision."""
    found: dict[str, Any] = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for name, without_rowid, strict in connection.execute("SELECT name, wr, strict FROM pragma_table_list"):
            if name.startswith("sqlite_"):
                continue
            found[name] = without_rowid, strict, sorted(connection.execute(f"PRAGMA table_xinfo('{name}')"))
            for _, index, *kind in connection.execute(f"PRAGMA index_list('{name}')"):
                label = index if kind[1] == "c" else f"{name} {kind[1]}"
                columns = [row[2] for row in connection.execute(f"PRAGMA index_info('{index}')")]
                found[label] = kind, columns, condition(connection, index)
        found["revision"] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return found


def condition(connection: sqlite3.Connection, index: str) -> str:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()
    return "" if found is None else str(found[0]).partition(" WHERE ")[2]


async def test_an_older_database_is_migrated_with_its_rows(open_records: Any, rows: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder / 'tidegate.db'}")
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "v0001")
        connection.exec_driver_sql("INSERT INTO clients VALUES ('old', 'old', 'basic', '{}', 1)")
        connection.commit()
    engine.dispose()
    records = await open_records()
    assert [client.id for client in await records.keys.list_clients()] == ["old"]
    records.objects.add("file-1", "old", "old", "openai", "file")
    await records.ledger.flush()


async def test_a_newer_database_is_refused(open_records: Any, tmp_path: Path) -> None:
    records = await open_records()
    await records.aclose()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "tidegate.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9999'")
        connection.commit()
    with pytest.raises(RecordsError, match="revision v9999, which this version of Tidegate does not know"):
        await open_records()


async def test_a_file_that_is_no_database_is_refused(open_records: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tidegate.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RecordsError, match="file is not a database"):
        await open_records()


async def test_keys_are_committed_to_the_disk_and_the_ledger_to_the_system(records: Any) -> None:
    def level(connection: Any) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar())

    assert await records._writer.run(level, full=True) == 2
    assert await records._writer.run(level, full=False) == 1
    mode = await records._writer.run(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar())
    assert mode == "wal"


async def test_readers_can_not_write(records: Any) -> None:
    from sqlalchemy.exc import OperationalError

    with pytest.raises(OperationalError, match="readonly"):
        await records.queries.read(lambda connection: connection.exec_driver_sql("DELETE FROM calls"))


async def test_changes_to_budgets_are_kept_as_history(open_records: Any) -> None:
    records = await open_records()
    one = Adjustment(
        "id-1", 1, "client", "acme", "month", "top_up", "a reason", "an operator", 5 * 10**12, "2026-11", None
    )
    other = Adjustment("id-2", 2, "org", "acme", "day", "override", "another", "an operator", None, "", 7)
    await records.adjustments.add(one)
    await records.adjustments.add(other)
    await records.aclose()
    records = await open_records()
    assert await records.adjustments.load() == [one, other]
