"""`tidegate clients`, `keys`, `usage`: the same with and without a running gateway."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.__main__ import build
from gateway.clients import Tier
from gateway.control.socket import AdminSocket
from gateway.directory import Directory

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the test's data directory, in a thread; gives exit code, output, errors."""
    for name in [name for name in os.environ if name.startswith("TIDEGATE")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    app = build()

    async def begin(*arguments: str, anywhere: bool = False) -> tuple[int, str, str]:
        where = [] if anywhere else ["--data-dir", str(tmp_path / "data")]
        done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *where])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return begin


@pytest.fixture(params=["running", "stopped"])
async def gateway(request: Any, open_records: Any, rows: Any) -> AsyncIterator[str]:
    """Records with some usage, owned by a gateway that listens, or by nobody."""
    records = await open_records()
    directory = Directory(records.pepper, records._clock)
    directory.replace(*await records.keys.load({"basic": Tier("basic"), "premium": Tier("premium")}))
    records.attach(directory)
    for client, model in (("acme", "gpt-4o"), ("acme", "gpt-4o"), ("other", "gpt-4o-mini")):
        row = rows.attempt(client=client, org=client, model=model, started_wall_ns=1_790_078_400_000_000_000)
        records.ledger.intend(row)
        records.ledger.settle(rows.served(row), rows.call(row))
    if request.param == "stopped":
        await records.aclose()
        yield "stopped"
        return
    socket = AdminSocket(records.data_dir, records.verbs())
    await socket.start()
    yield "running"
    await socket.aclose()


async def test_clients_and_keys_from_making_to_revoking(gateway: str, run: Run) -> None:
    rights = ("--org", "big", "--tier", "premium", "--model", "gpt-*")
    code, out, err = await run("clients", "create", "acme", *rights, "--json")
    assert code == 0, err
    assert json.loads(out).items() >= {"id": "acme", "org": "big", "tier": "premium"}.items()
    _, out, _ = await run("clients", "list", "--json")
    (client,) = json.loads(out)
    assert (client["id"], client["org"], client["source"]) == ("acme", "big", "database")
    assert client["scope"] == {"models": ["gpt-*"], "routes": None, "workers": None}
    _, out, _ = await run("keys", "create", "acme", "--role", "service", "--days", "7", "--json")
    made = json.loads(out)
    assert made["secret"].startswith("tg-")
    _, out, _ = await run("keys", "list", "--client", "acme")
    assert made["id"] in out
    assert made["hint"] in out
    assert made["secret"] not in out
    code, out, _ = await run("keys", "rotate", made["id"], "--overlap-s", "60")
    assert code == 0
    assert "its secret, shown only now:\ntg-" in out
    code, out, _ = await run("keys", "revoke", made["id"], "--json")
    assert (code, json.loads(out)) == (0, {"id": made["id"]})
    _, out, _ = await run("keys", "list", "--json")
    assert [row["revoked"] is None for row in json.loads(out)] == [False, True]


COMBINATIONS = [
    by for size in range(1, 5) for by in itertools.combinations(("client", "model", "provider", "day"), size)
]


async def test_usage_by_every_combination_as_json_and_csv_equals_the_rows(
    gateway: str, run: Run, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(f"file:{tmp_path / 'data' / 'tidegate.db'}?mode=ro", uri=True)) as connection:
        _, out, _ = await run("usage", "--by", "client", "--json")  # flushes what is not written yet
        found = connection.execute(
            "SELECT client, model, provider, date(started_wall_ns / 1000000000, 'unixepoch'), cost_pusd FROM attempts"
        ).fetchall()
    assert len(found) == 3
    for by in COMBINATIONS:
        expected: Counter[tuple[str, ...]] = Counter()
        for client, model, provider, day, cost in found:
            value = {"client": client, "model": model, "provider": provider, "day": day}
            expected[tuple(value[word] for word in by)] += cost
        _, out, _ = await run("usage", "--by", ",".join(by), "--json")
        told = json.loads(out)
        _, out, _ = await run("usage", "--by", ",".join(by), "--csv")
        for rows in (told, list(csv.DictReader(io.StringIO(out)))):
            sums = {tuple(row[word] for word in by): int(Decimal(row["cost_usd"]) * 10**12) for row in rows}
            assert sums == expected, by


@pytest.mark.parametrize("when", ["99999999999d", "9999999d", "2026-13-01", "-1d"])
async def test_a_time_that_cannot_be_is_named(gateway: str, run: Run, when: str) -> None:
    code, _, err = await run("usage", "--since", when)
    assert code == 2
    assert f"'{when}' is no time" in " ".join(err.split())


async def test_a_call_whose_end_was_lost_is_shown_by_its_attempts(open_records: Any, rows: Any, run: Run) -> None:
    records = await open_records()
    row = rows.attempt()
    records.ledger.intend(row)
    await records.aclose()
    await (await open_records()).aclose()  # the attempt is unresolved now
    code, out, err = await run("usage", "--call", row.call_id)
    assert code == 0, err
    assert "The gateway ended before this call did" in out
    assert re.search(r"outcome +unresolved", out)
    _, out, _ = await run("usage", "--call", row.call_id, "--json")
    found = json.loads(out)
    assert (found["call"], [attempt["id"] for attempt in found["attempts"]]) == (None, [row.id])


async def test_usage_as_table_json_and_csv(gateway: str, run: Run) -> None:
    _, out, _ = await run("usage", "--by", "client,model,day")
    assert [word for word in ("acme", "gpt-4o-mini", "2026-09-22", "0.00000015") if word not in out] == []
    _, out, _ = await run("usage", "--by", "client", "--json")
    found = json.loads(out)
    assert [(row["client"], row["calls"], row["attempts"], row["cost_usd"]) for row in found] == [
        ("acme", 2, 2, "0.00000015"),
        ("other", 1, 1, "0.000000075"),
    ]
    _, out, _ = await run("usage", "--by", "client,model", "--csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert [(row["client"], row["model"], row["output_tokens"]) for row in table] == [
        ("acme", "gpt-4o", "10"),
        ("other", "gpt-4o-mini", "5"),
    ]
    _, out, _ = await run("usage", "--by", "client", "--only", "model=gpt-4o-mini", "--json")
    assert [row["client"] for row in json.loads(out)] == ["other"]
    _, out, _ = await run("usage", "--since", "2026-09-23", "--json")
    assert json.loads(out) == []
    _, out, _ = await run("usage", "--since", "2026-09-22T11:59", "--until", "2026-09-22T14:01+02:00", "--json")
    assert len(json.loads(out)) == 2


async def test_calls_and_their_attempts(gateway: str, run: Run) -> None:
    _, out, _ = await run("usage", "--calls", "--json", "--limit", "2")
    calls = json.loads(out)
    assert len(calls) == 2
    assert calls[0]["cost_usd"] == "0.000000075"
    _, out, _ = await run("usage", "--calls", "--only", "client=other", "--csv")
    assert len(list(csv.DictReader(io.StringIO(out)))) == 1
    _, out, _ = await run("usage", "--call", calls[0]["id"], "--json")
    found = json.loads(out)
    assert found["call"]["id"] == calls[0]["id"]
    (attempt,) = found["attempts"]
    assert (attempt["call_id"], attempt["outcome"], attempt["worst_usd"]) == (calls[0]["id"], "served", "0.000009")


async def test_refusals_exit_with_1_and_a_sentence(gateway: str, run: Run) -> None:
    code, _, err = await run("keys", "create", "nobody")
    assert code == 1
    assert "there is no client 'nobody'; `tidegate clients create nobody` makes it" in err
    code, _, err = await run("keys", "revoke", "unknown")
    assert code == 1
    assert "there is no key 'unknown'" in err


async def test_wrong_use_exits_with_2(run: Run) -> None:
    for arguments in (
        ("usage", "--by", "tenant"),
        ("usage", "--since", "yesterday"),
        ("usage", "--only", "path=/"),
        ("usage", "--by", "hour,day"),
        ("keys", "create"),
    ):
        code, _, err = await run(*arguments)
        assert code == 2, arguments
        assert err


async def test_a_directory_without_records(run: Run) -> None:
    code, _, err = await run("keys", "list")
    assert code == 1
    assert "no gateway has run there yet" in err


async def test_a_directory_that_another_process_holds_without_listening(open_records: Any, run: Run) -> None:
    await open_records()
    code, _, err = await run("keys", "list")
    assert code == 1
    assert f"in use by process {os.getpid()}" in err


async def test_the_data_directory_comes_from_the_configuration(open_records: Any, run: Run, tmp_path: Path) -> None:
    await (await open_records()).aclose()
    (tmp_path / "my.toml").write_text('[server]\ndata_dir = "data"\n')
    code, out, err = await run("keys", "list", "--json", "--config", "my.toml", anywhere=True)
    assert (code, out.strip()) == (0, "[]"), err


async def test_as_a_command_of_its_own(gateway: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "usage", "--by", "client", "--json", "--data-dir", str(tmp_path / "data"),
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert [row["client"] for row in json.loads(out)] == ["acme", "other"]
