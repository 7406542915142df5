"""The ledger: one row an attempt, whatever happens; sums that equal the rows to the unit."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.records.journal import LedgerFull
from gateway.records.ledger import shortened
from gateway.records.options import Options
from gateway.records.rows import AttemptRow
from gateway.records.store import Records

DAY_NS = 86_400_000_000_000


async def test_a_served_call_is_two_rows(records: Records, rows: Any) -> None:
    row = rows.attempt()
    records.ledger.intend(row)
    rows.served(row, units={"images": 2, "image:1024x1024:hd": 2}, upstream_request_id="req_1", estimated=True)
    call = rows.call(row, notes={"queue": "fast", "odd": None}, stream=True)
    records.ledger.settle(row, call)
    await records.ledger.flush()
    assert await records.queries.attempts(call.id) == [row]
    assert await records.queries.call(call.id) == call
    assert records.ledger.open == 0


async def test_an_intent_is_no_row_until_it_is_settled(records: Records, rows: Any, look: Any) -> None:
    row = rows.attempt()
    records.ledger.intend(row)
    await records.ledger.flush()
    assert look.one("SELECT count(*) FROM attempts") == 0
    assert records.ledger.open == 1
    records.ledger.settle(rows.served(row), None)
    await records.ledger.flush()
    assert look.all("SELECT outcome, cost_pusd FROM attempts") == [("served", 75_000)]


async def test_each_retry_is_a_row_of_its_own_at_its_own_price(records: Records, rows: Any) -> None:
    first = rows.attempt(provider="openai", price_version="genai-prices/1")
    records.ledger.intend(first)
    first.outcome, first.error, first.cost_pusd = "failed", "upstream_timeout", 11
    records.ledger.settle(first, None)
    second = rows.attempt(first.call_id, 2, provider="azure")
    records.ledger.intend(second)
    rows.served(second, cost_pusd=70, price_version="override/abc")
    records.ledger.settle(second, rows.call(second, cost_pusd=81, charge_pusd=77))
    await records.ledger.flush()
    found = await records.queries.attempts(first.call_id)
    assert [(row.n, row.provider, row.outcome, row.cost_pusd, row.price_version) for row in found] == [
        (1, "openai", "failed", 11, "genai-prices/1"),
        (2, "azure", "served", 70, "override/abc"),
    ]
    azure, openai = await records.queries.usage(("provider",))
    assert (azure.calls, azure.attempts, azure.failed_attempts, azure.cost_pusd, azure.charge_pusd) == (1, 1, 0, 70, 77)
    assert (openai.calls, openai.attempts, openai.failed_attempts, openai.cost_pusd) == (0, 1, 1, 11)


async def test_a_call_without_an_attempt_is_a_row(records: Records, rows: Any) -> None:
    refused = rows.call(rows.attempt(), outcome="refused", status=429, policy="quota", attempts=0, served_model="")
    answered = rows.call(rows.attempt(), outcome="answered", saved_pusd=500, saving="cache", attempts=0)
    records.ledger.record(refused)
    records.ledger.record(answered)
    await records.ledger.flush()
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.refused, usage.answered, usage.saved_pusd, usage.attempts) == (2, 1, 1, 500, 0)


async def test_settling_twice_changes_nothing_but_keeps_the_calls_row(records: Records, rows: Any, look: Any) -> None:
    """A failover whose next target can't be intended: the last attempt is settled when the call ends."""
    row = rows.attempt()
    records.ledger.intend(row)
    row.outcome, row.cost_pusd = "failed", 5
    records.ledger.settle(row, None)
    row.cost_pusd = 99
    records.ledger.settle(row, rows.call(row, outcome="failed", status=503, charge_pusd=5))
    await records.ledger.flush()
    assert look.all("SELECT cost_pusd FROM attempts") == [(5,)]
    assert look.all("SELECT outcome, status FROM calls") == [("failed", 503)]
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts, usage.cost_pusd) == (1, 1, 5)


async def test_an_attempt_never_intended_is_not_settled(records: Records, rows: Any, look: Any) -> None:
    records.ledger.settle(rows.served(rows.attempt()), None)
    await records.ledger.flush()
    assert look.one("SELECT count(*) FROM attempts") == 0


async def test_intents_that_outlive_their_segment_become_rows_and_settle_later(
    records: Records, rows: Any, look: Any
) -> None:
    """A stream of minutes must not hold the journal back."""
    slow = [rows.attempt() for _ in range(5)]
    for row in slow:
        records.ledger.intend(row)
    for _ in range(40):
        for _ in range(20):
            row = rows.attempt()
            records.ledger.intend(row)
            records.ledger.settle(rows.served(row), rows.call(row))
        await records.ledger.flush()
    assert look.one("SELECT count(*) FROM attempts WHERE outcome = 'open'") == 5
    (usage,) = await records.queries.usage(())
    assert usage.attempts == 800
    for row in slow:
        records.ledger.settle(rows.served(row, cost_pusd=1_000_000), rows.call(row))
    await records.ledger.flush()
    assert look.one("SELECT count(*) FROM attempts WHERE outcome = 'open'") == 0
    assert look.one("SELECT count(*) FROM attempts") == 805
    (usage,) = await records.queries.usage(())
    assert (usage.attempts, usage.cost_pusd) == (805, 800 * 75_000 + 5_000_000)


def fill(records: Records, rows: Any) -> list[AttemptRow]:
    """Intends until the ledger refuses; what it took."""
    taken: list[AttemptRow] = []
    while True:
        row = rows.attempt()
        try:
            records.ledger.intend(row)
        except LedgerFull:
            return taken
        taken.append(row)


async def test_a_full_journal_refuses_intents_and_settles_every_one_it_took(
    open_records: Any, rows: Any, tmp_path: Path, small: Options
) -> None:
    records = await open_records()
    records._writer._group_s = 0.3  # holds the writer back while the loop fills the journal
    taken = fill(records, rows)
    with pytest.raises(LedgerFull) as refused:
        records.ledger.intend(rows.attempt())
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (503, "ledger_full", 1.0)
    assert any("full" in reason for reason in records.ledger.health())
    assert len(taken) > 20
    for row in taken:
        call = rows.call(rows.served(row, error="e" * 5000), path="/v1/" + "p" * 5000, notes={"n": "x" * 9000})
        records.ledger.settle(row, call)
    await records.ledger.flush()
    assert records.ledger.health() == []
    for row in taken:
        (found,) = await records.queries.attempts(row.call_id)
        assert (found.outcome, found.cost_pusd, found.input_tokens) == ("served", 75_000, 10)
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts) == (len(taken), len(taken))


async def test_calls_without_an_attempt_wait_in_memory_while_the_journal_is_full(
    records: Records, rows: Any, look: Any
) -> None:
    records._writer._group_s = 0.2
    taken = fill(records, rows)
    for _ in range(2000):
        records.ledger.record(rows.call(rows.attempt(), outcome="refused", status=503))
    assert any("wait in memory" in reason for reason in records.ledger.health())
    for row in taken:
        records.ledger.settle(rows.served(row), None)
    await records.ledger.flush()
    assert look.one("SELECT count(*) FROM calls WHERE outcome = 'refused'") == 2000
    assert records.ledger.dropped == 0


def test_a_shortened_row_always_fits_into_what_its_intent_reserved(rows: Any) -> None:
    row = rows.attempt()
    call = rows.call(row)
    for name in row.__struct_fields__:
        value = getattr(row, name)
        setattr(row, name, 2**63 - 1 if isinstance(value, int) else "€" * 3000 if isinstance(value, str) else {"u": 1})
    for name in call.__struct_fields__:
        value = getattr(call, name)
        setattr(call, name, 2**63 - 1 if isinstance(value, int) else "€" * 3000 if isinstance(value, str) else {"u": 1})
    size = len(msgspec.msgpack.encode((shortened(row), shortened(call))))
    assert size <= 4096 - 17
    assert shortened(row).cost_pusd == 2**63 - 1


async def test_a_figure_beyond_64_bits_does_not_keep_an_attempt_from_settling(
    records: Records, rows: Any, look: Any
) -> None:
    row = rows.attempt()
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row, output_tokens=10**40), rows.call(row, notes={"n": 10**40}))
    records.ledger.record(rows.call(rows.attempt(), outcome="refused", duration_us=10**40))
    await records.ledger.flush()
    assert look.all("SELECT outcome, output_tokens FROM attempts") == [("served", 2**63 - 1)]
    assert records.ledger.open == 0


async def test_notes_of_any_sort_are_kept_as_text(records: Records, rows: Any) -> None:
    row = rows.attempt()
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row), rows.call(row, notes={"path": Path("/x"), "set": {1}, "b": b"raw"}))
    await records.ledger.flush()
    found = await records.queries.call(row.call_id)
    assert found is not None
    assert found.notes is not None
    assert set(found.notes) == {"path", "set", "b"}


async def test_a_row_that_no_table_takes_is_kept_aside_and_does_not_stop_the_others(
    records: Records, rows: Any, tmp_path: Path, look: Any
) -> None:
    for cost in (1, 2**63, 3):  # SQLite's integers end at 2**63 - 1
        row = rows.attempt()
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row, cost_pusd=cost), rows.call(row, cost_pusd=0, charge_pusd=0))
    await records.ledger.flush()
    assert look.all("SELECT cost_pusd FROM attempts ORDER BY cost_pusd") == [(1,), (3,)]
    assert look.one("SELECT count(*) FROM calls") == 3
    (usage,) = await records.queries.usage(())
    assert (usage.calls, usage.attempts, usage.cost_pusd) == (3, 2, 4)
    assert str(2**63) in (tmp_path / "data" / "ledger.rejected").read_text()
    assert any("could not be stored" in reason for reason in records.ledger.health())


async def test_a_sum_never_becomes_a_float(records: Records, rows: Any, look: Any, same_as_rows: Any) -> None:
    """SQLite adds beyond 64 bits in floating point; here such a row is kept aside, and the sum stays exact."""
    moment = 1_790_035_200_000_000_000
    for cost in (2**62, 2**62, 5):
        row = rows.attempt(started_wall_ns=moment)
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row, cost_pusd=cost), None)
        await records.ledger.flush()
    assert look.all("SELECT DISTINCT typeof(cost_pusd), cost_pusd FROM usage") == [("integer", 2**62 + 5)]
    assert look.one("SELECT count(*) FROM attempts") == 2
    assert any("1 rows could not be stored" in reason for reason in records.ledger.health())
    await same_as_rows(records)


MOMENTS = st.integers(0, 3 * DAY_NS).map(lambda offset: 1_790_000_000_000_000_000 + offset)
AMOUNTS = st.one_of(st.integers(0, 1000), st.integers(2**56, 2**57))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking opens a database for each try
)
@given(data=st.data())
async def test_rollups_equal_the_rows_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, small: Options, same_as_rows: Any, data: st.DataObject
) -> None:
    """Over any times and clients, through spilled intents, late settlements, corrections and a restart; in integers
    that no float holds."""
    folder = tmp_path_factory.mktemp("records")
    records = await Records.open(folder, small)
    settled: list[AttemptRow] = []
    for _ in range(data.draw(st.integers(1, 4))):
        waiting: list[AttemptRow] = []
        for _ in range(data.draw(st.integers(1, 8))):
            moment = data.draw(MOMENTS)
            client = data.draw(st.sampled_from(["a", "b"]))
            row = rows.attempt(started_wall_ns=moment, client=client, model=data.draw(st.sampled_from(["m", "n"])))
            records.ledger.intend(row)
            waiting.append(row)
        if data.draw(st.booleans()):
            await records.ledger.flush()
        for row in waiting:
            outcome = data.draw(st.sampled_from(["served", "failed", "gone", "never"]))
            if outcome == "never":
                continue
            rows.served(row, outcome=outcome, cost_pusd=data.draw(AMOUNTS), input_tokens=data.draw(st.integers(0, 9)))
            call = rows.call(row, outcome=outcome, charge_pusd=data.draw(AMOUNTS)) if data.draw(st.booleans()) else None
            records.ledger.settle(row, call)
            settled.append(row)
        if data.draw(st.booleans()):
            await records.aclose()
            records = await Records.open(folder, small)
        if settled and data.draw(st.booleans()):
            row = data.draw(st.sampled_from(settled))
            row.cost_pusd = data.draw(AMOUNTS)
            await records.ledger.flush()
            await records.ledger.correct(row)
    await records.ledger.flush()
    await same_as_rows(records)
    await records.aclose()


async def test_spent_counts_what_a_budget_must_start_from(open_records: Any, rows: Any) -> None:
    """Settled at cost, refused not at all, unresolved at its worst."""
    records = await open_records()
    today = 1_790_035_200_000_000_000  # a midnight, UTC
    assert today % DAY_NS == 0
    for moment, cost in ((today - 1, 1000), (today, 20), (today + DAY_NS // 2, 3)):
        row = rows.attempt(started_wall_ns=moment, worst_pusd=7_000_000, worst_tokens=900)
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row, cost_pusd=cost), rows.call(row, charge_pusd=2 * cost))
    records.ledger.record(rows.call(rows.attempt(started_wall_ns=today), outcome="refused", charge_pusd=0))
    records.ledger.intend(rows.attempt(started_wall_ns=today, worst_pusd=7_000_000, worst_tokens=900))
    await records.aclose()
    records = await open_records()
    assert (records.recovered.unresolved, records.recovered.replayed) == (1, 0)
    spent = (await records.ledger.spent(today))["acme"]
    assert (spent.cost_pusd, spent.charge_pusd, spent.unresolved_pusd) == (7_000_023, 46, 7_000_000)
    assert (spent.requests, spent.tokens) == (2, 30 + 900)
    assert (await records.ledger.spent(today - DAY_NS, today))["acme"].cost_pusd == 1000
    assert (await records.ledger.spent(0, by="key"))["key-1"].cost_pusd == 7_001_023


async def test_old_rows_go_and_sums_by_hour_and_day_stay(open_records: Any, rows: Any, look: Any) -> None:
    now = time.time_ns()
    records = await open_records(Options(segments=3, segment_bytes=64 * 1024, group_ms=5, retention_days=0))
    for age_days in (40, 31, 29, 0):
        for number in range(300):
            row = rows.attempt(started_wall_ns=now - age_days * DAY_NS)
            records.ledger.intend(row)
            records.ledger.settle(rows.served(row), rows.call(row))
            if number % 100 == 99:
                await records.ledger.flush()
    before = await records.queries.usage(("day",))
    await records.aclose()
    records = await open_records(Options(segments=3, segment_bytes=64 * 1024, group_ms=5, retention_days=30))
    deadline = time.monotonic() + 10
    while look.one("SELECT count(*) FROM calls") > 600 and time.monotonic() < deadline:
        await records.ledger.flush()
    assert look.one("SELECT count(*) FROM calls") == 600
    assert look.one("SELECT count(*) FROM attempts") == 600
    assert look.one("SELECT min(started_wall_ns) FROM attempts") > now - 30 * DAY_NS
    assert look.one("SELECT min(bucket) FROM usage WHERE seconds = 60") > (now - 30 * DAY_NS) // 10**9 - 61
    assert await records.queries.usage(("day",)) == before


async def test_an_orgs_erasure_leaves_nothing_of_it_and_all_of_the_others(
    records: Records, rows: Any, look: Any, same_as_rows: Any
) -> None:
    for org in ("acme", "other"):
        for _ in range(3):
            row = rows.attempt(org=org, client=org)
            records.ledger.intend(row)
            records.ledger.settle(rows.served(row), rows.call(row))
        records.objects.add(f"file-{org}", org, org, "openai", "file")
    assert await records.erase("acme") == 6
    assert [u.group["org"] for u in await records.queries.usage(("org",))] == ["other"]
    for table in ("calls", "attempts", "objects", "dimensions"):
        assert look.all(f"SELECT DISTINCT org FROM {table}") == [("other",)], table
    assert await records.objects.owner("file-acme") is None
    row = rows.attempt()  # the org goes on calling: sums begin anew
    records.ledger.intend(row)
    records.ledger.settle(rows.served(row), rows.call(row))
    await records.ledger.flush()
    assert [u.calls for u in await records.queries.usage(("org",), filters={"org": "acme"})] == [1]
    await same_as_rows(records)


async def test_a_correction_of_an_unknown_attempt_is_an_error(records: Records, rows: Any) -> None:
    with pytest.raises(KeyError):
        await records.ledger.correct(rows.served(rows.attempt()))


async def test_a_loop_that_is_never_idle_is_not_held_up_and_the_writer_keeps_up(
    open_records: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop appends for three seconds without a pause, with looks at its sockets as often as under load."""
    loop_thread, sleep = threading.get_ident(), time.sleep
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda s: slept.append(s) if threading.get_ident() == loop_thread else sleep(s))
    usual_s = sys.getswitchinterval()
    records = await open_records(Options(group_ms=5))
    refused = taken = 0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for _ in range(10):
            row = rows.attempt()
            try:
                records.ledger.intend(row)
            except LedgerFull:
                refused += 1
                continue
            records.ledger.settle(rows.served(row), rows.call(row))
            taken += 1
            busy = time.perf_counter() + 0.0001
            while time.perf_counter() < busy:
                pass
        await asyncio.sleep(0)
    assert slept == []
    behind = records._journal.last_seq - records._writer._applied_seq
    assert behind < 3 * 4096, f"{behind} of {2 * taken} records behind"
    await records.ledger.flush()
    assert records.ledger.health() == []
    assert refused == 0
    assert sys.getswitchinterval() == usual_s
