"""kill -9 at any moment, the recovery of an earlier one included: no attempt is lost, none is counted twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gateway.records.options import Options

KILLS = int(os.environ.get("TIDEGATE_KILLS", "50"))
OPTIONS = Options(segments=3, segment_bytes=128 * 1024, group_ms=2)
#: Of the provider's log for one attempt, at least: sent and done, with its id.
LINE_BYTES = 120


def kill_at_random(folder: Path, log: Path, kills: int) -> None:
    crasher = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("crasher.py")), str(folder), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert crasher.stdin is not None
    assert crasher.stdout is not None
    with crasher:
        for number in range(kills):
            crasher.stdin.write("go\n")
            crasher.stdin.flush()
            pid = int(crasher.stdout.readline())
            # One in four is killed while it opens, in the middle of the recovery of the one before.
            opens = number % 4 > 0 or number == 0
            if opens:
                assert crasher.stdout.readline() == "open\n"
            time.sleep(random.uniform(0, 0.15))
            end = time.monotonic() + 20
            while opens and log_size(log) < 20 * LINE_BYTES * number and time.monotonic() < end:
                time.sleep(0.005)  # a slow machine gets the time for what is asserted of all
            os.kill(pid, signal.SIGKILL)
            line = crasher.stdout.readline()
            if line == "open\n":  # just before the kill
                line = crasher.stdout.readline()
            assert line == "ended\n"
        crasher.stdin.close()


def log_size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


async def test_no_attempt_is_lost_or_doubled_over_random_kills(
    tmp_path: Path, open_records: Any, look: Any, same_as_rows: Any
) -> None:
    folder, log = tmp_path / "data", tmp_path / "provider.log"
    kill_at_random(folder, log, KILLS)
    sent, done, made = set(), {}, set()
    for line in log.read_text().splitlines():
        word, *rest = line.split()
        if word == "sent":
            sent.add(rest[0])
        elif word == "done":
            done[rest[0]] = int(rest[1])
        else:
            made.add(rest[0])
    assert len(sent) > 20 * KILLS

    records = await open_records(OPTIONS)
    found = {row[0]: row[1:] for row in look.all("SELECT id, outcome, cost_pusd, estimated FROM attempts")}
    # Exactly one row for each attempt that the provider has seen; besides, flagged ones that were about to be sent.
    assert sent - found.keys() == set()
    for id in found.keys() - sent:
        assert found[id] == ("unresolved", 10**9, 1)
    assert len(found.keys() - sent) <= KILLS
    # What settled is there to the pico-dollar; what did not counts at its worst, flagged.
    assert {id: found[id][1] for id in done} == done
    assert all(found[id][0] == "served" for id in done)
    assert {row[0] for row in found.values()} <= {"served", "unresolved"}
    assert all(row[1:] == (10**9, 1) for row in found.values() if row[0] == "unresolved")
    assert {f"{row[0]}.1" for row in look.all("SELECT id FROM calls")} >= done.keys()
    assert look.one("SELECT count(*) FROM calls") == sum(row[0] == "served" for row in found.values())
    # And so are the sums, and what providers stored.
    await same_as_rows(records)
    assert made - {row[0] for row in look.all("SELECT id FROM objects")} == set()


async def test_what_is_open_at_the_end_is_unresolved_at_the_next_start(open_records: Any, rows: Any, look: Any) -> None:
    records = await open_records()
    row = rows.attempt()
    records.ledger.intend(row)
    await records.aclose()
    records = await open_records()
    (found,) = await records.queries.attempts(row.call_id)
    assert (found.outcome, found.estimated) == ("unresolved", True)
    assert (found.cost_pusd, found.input_tokens) == (9_000_000, 1234)
    assert records.recovered.unresolved == 1
    await records.aclose()
    records = await open_records()
    assert records.recovered.unresolved == 0
    assert look.one("SELECT count(*) FROM attempts") == 1


async def test_what_a_failed_attempt_cost_counts_though_its_call_never_ended(
    open_records: Any, rows: Any, look: Any
) -> None:
    """It was billed, another try was to follow, and the process ended in between: no call's charge has it."""
    records = await open_records()
    failed, tried, again = rows.attempt(), rows.attempt(), rows.attempt()
    for row in (failed, tried):
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row, outcome="failed", cost_pusd=70), None)
    records.ledger.intend(again)
    records.ledger.settle(rows.served(again, cost_pusd=5), rows.call(tried, charge_pusd=75))
    await records.aclose()
    for _ in range(2):
        records = await open_records()
        (found,) = await records.queries.attempts(failed.call_id)
        assert (found.outcome, found.cost_pusd) == ("unresolved", 70)
        (usage,) = await records.queries.usage(())
        assert (usage.cost_pusd, usage.unresolved_pusd, usage.charge_pusd) == (145, 70, 75)
        assert records.recovered.unresolved == 0
        await records.aclose()


async def test_a_lost_database_is_filled_from_what_the_journal_still_has(
    open_records: Any, rows: Any, tmp_path: Path
) -> None:
    records = await open_records()
    row = rows.attempt()
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row), rows.call(row))
    await records.aclose()
    for file in (tmp_path / "data").glob("tidegate.db*"):
        file.unlink()
    records = await open_records()
    assert records.recovered.replayed == 2
    assert len(await records.queries.attempts(row.call_id)) == 1


async def test_a_lost_journal_loses_nothing_that_was_written(open_records: Any, rows: Any, tmp_path: Path) -> None:
    records = await open_records()
    row = rows.attempt()
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row), rows.call(row))
    await records.aclose()
    (tmp_path / "data" / "ledger.journal").unlink()
    records = await open_records()
    second = rows.attempt()
    records.ledger.intend(second)
    records.ledger.settle(rows.served(second), rows.call(second))
    await records.aclose()
    records = await open_records()
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts) == (2, 2)


async def test_another_size_of_the_journal_takes_over_what_the_old_one_held(
    open_records: Any, rows: Any, tmp_path: Path
) -> None:
    records = await open_records()
    row = rows.attempt()
    records.ledger.intend(row)
    await records.aclose()
    records = await open_records(Options(segments=4, segment_bytes=256 * 1024))
    assert records.recovered.unresolved == 1
    assert (tmp_path / "data" / "ledger.journal").stat().st_size == 4096 + 4 * 256 * 1024
