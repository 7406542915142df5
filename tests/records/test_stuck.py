"""The database takes no writes: calls are refused when the journal is full, the loop stays free, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Clock
from gateway.events import Events
from gateway.records.database import RecordsError
from gateway.records.journal import LedgerFull
from gateway.records.options import Options
from gateway.records.store import Records

#: 3 MiB: some 8,000 calls.
OPTIONS = Options(segments=3, segment_bytes=1024 * 1024)

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
print("free", flush=True)
"""


@contextlib.contextmanager
def locked(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the database; a line on its standard input ends that."""
    command = [sys.executable, "-c", LOCKER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdin is not None
        assert locker.stdout is not None
        assert locker.stdout.readline() == "locked\n"
        try:
            yield locker
        finally:
            if locker.poll() is None:
                locker.stdin.close()
                locker.wait(10)


def unlock(locker: subprocess.Popen[str]) -> None:
    assert locker.stdin is not None
    assert locker.stdout is not None
    locker.stdin.write("\n")
    locker.stdin.flush()
    assert locker.stdout.readline() == "free\n"


def fill_disk(ballast: Path) -> None:
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):  # it is full
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)


class Load:
    """Calls as fast as a loop of 1 ms steps makes them; knows what was accepted, and how late the loop ran."""

    def __init__(self, records: Records, rows: Any) -> None:
        self.accepted = 0
        self.refused = 0
        self.late_ms: list[float] = []
        self._records = records
        self._rows = rows
        self._tasks = [asyncio.create_task(self._call()), asyncio.create_task(self._watch())]

    async def _call(self) -> None:
        while True:
            for _ in range(5):
                row = self._rows.attempt()
                try:
                    self._records.ledger.intend(row)
                except LedgerFull:
                    self.refused += 1
                    continue
                self._records.ledger.settle(self._rows.served(row), self._rows.call(row))
                self.accepted += 1
            await asyncio.sleep(0.001)

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            self.late_ms.append((time.perf_counter() - due) * 1000)

    async def until(self, condition: Any, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            for task in self._tasks:
                assert not task.done(), task.exception()
            await asyncio.sleep(0.005)

    def p99_ms(self) -> float:
        """The loop's delay at the 99th percentile since it was asked last."""
        late_ms, self.late_ms = self.late_ms, []
        return statistics.quantiles(late_ms, n=100)[98]

    async def stop(self) -> float:
        """The loop's delay in ms at the 99th percentile."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        return self.p99_ms()


async def test_a_database_locked_by_another_process(
    open_records: Any, rows: Any, tmp_path: Path, look: Any, same_as_rows: Any
) -> None:
    events = Events(Clock())
    records = await open_records(OPTIONS, events=events)
    load = Load(records, rows)
    await load.until(lambda: load.accepted > 100 and len(load.late_ms) > 200)
    well_ms = load.p99_ms()
    with locked(tmp_path / "data" / "tidegate.db") as locker:
        await load.until(lambda: load.refused > 500)
        reasons = " ".join(records.ledger.health())
        assert "database is locked by another process" in reasons
        assert "journal is full" in reasons
        accepted = load.accepted
        await asyncio.sleep(0.3)
        assert load.accepted == accepted  # closed as long as it lasts
        unlock(locker)
        await load.until(lambda: load.accepted > accepted + 500)
    p99_ms = await load.stop()
    await records.ledger.flush()
    assert records.ledger.health() == []
    assert [event.name for event in events.recent] == ["ledger_stuck", "ledger_well"]
    assert look.one("SELECT count(*) FROM attempts WHERE outcome = 'served'") == load.accepted
    assert look.one("SELECT count(*) FROM calls") == load.accepted
    await same_as_rows(records)
    assert p99_ms < max(50, 3 * well_ms), (p99_ms, well_ms)  # what else the machine does delays a loop as well


async def test_a_full_disk(tiny_disk: Any, open_records: Any, rows: Any, same_as_rows: Any) -> None:
    disk: Path = tiny_disk(12)
    records = await open_records(OPTIONS, folder=disk / "data")
    load = Load(records, rows)
    await load.until(lambda: load.accepted > 100 and len(load.late_ms) > 200)
    well_ms = load.p99_ms()
    ballast = disk / "ballast"
    fill_disk(ballast)
    await load.until(lambda: load.refused > 500)
    reasons = " ".join(records.ledger.health())
    assert "disk is full" in reasons or "database failed" in reasons
    assert "journal is full" in reasons
    accepted = load.accepted
    ballast.unlink()
    await load.until(lambda: load.accepted > accepted + 500)
    p99_ms = await load.stop()
    await records.ledger.flush()
    assert records.ledger.health() == []
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts) == (load.accepted, load.accepted)
    await same_as_rows(records)
    assert p99_ms < max(50, 3 * well_ms), (p99_ms, well_ms)  # what else the machine does delays a loop as well


async def test_what_a_stuck_database_did_not_take_before_the_end_comes_at_the_next_start(
    open_records: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.records.store._CLOSE_PATIENCE_S", 0.2)
    records = await open_records(OPTIONS)
    with locked(tmp_path / "data" / "tidegate.db"):
        for _ in range(50):
            row = rows.attempt()
            records.ledger.intend(row)
            records.ledger.settle(rows.served(row), rows.call(row))
        await records.aclose()
    records = await open_records(OPTIONS)
    assert records.recovered.replayed == 100
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts, usage.cost_pusd) == (50, 50, 50 * 75_000)


async def test_a_key_is_not_half_made_while_the_database_is_locked(
    open_records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await open_records(OPTIONS)
    await records.keys.create_client("acme")
    with (
        locked(tmp_path / "data" / "tidegate.db"),
        pytest.raises(RecordsError, match="nothing was changed: database is locked"),
    ):
        await records._writer.run(lambda connection: None, patience_s=0.3)
    made = await records.keys.create_key("acme")
    assert [info.key.id for info in await records.keys.list_keys()] == [made.key.id]


async def test_a_change_that_was_given_up_is_not_made_later(open_records: Any, rows: Any, tmp_path: Path) -> None:
    records = await open_records(OPTIONS)
    made: list[str] = []
    with locked(tmp_path / "data" / "tidegate.db"):
        row = rows.attempt()  # the change waits behind it
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row), rows.call(row))
        with pytest.raises(RecordsError, match="nothing was changed: database is locked"):
            await records._writer.run(lambda connection: made.append("late"), patience_s=0.3)
    await records.ledger.flush()
    assert made == []


async def test_what_is_asked_while_the_database_is_locked_says_why_it_is_not_answered(
    open_records: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.records.verbs.READ_PATIENCE_S", 0.3)
    records = await open_records(OPTIONS)
    verbs = records.verbs()
    with locked(tmp_path / "data" / "tidegate.db"):
        row = rows.attempt()
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row), rows.call(row))
        for name, given in (("usage", {}), ("calls", {}), ("call", {"id": row.call_id})):
            with pytest.raises(RecordsError, match="newest calls are not in the database: database is locked"):
                async with asyncio.timeout(5):
                    await verbs[name](**given)
    assert (await verbs["call"](id=row.call_id))["call"]["id"] == row.call_id


async def test_a_start_on_a_locked_database_says_so(
    open_records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.records.recovery._PATIENCE_S", 0.2)
    records = await open_records(OPTIONS)
    await records.aclose()
    with locked(tmp_path / "data" / "tidegate.db"), pytest.raises(RecordsError, match="locked by another process"):
        await open_records(OPTIONS)


async def test_a_start_on_a_full_disk_says_so(tiny_disk: Any, open_records: Any) -> None:
    with pytest.raises(RecordsError, match=r"can't set 3 MiB aside for the journal .*: No space left on device"):
        await open_records(OPTIONS, folder=tiny_disk(2) / "data")
