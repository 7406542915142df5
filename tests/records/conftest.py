"""Real records in a directory of the test's own, and rows to put into them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.ids import Ids
from gateway.records.options import Options
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.schema import MEASURES
from gateway.records.store import Records

#: Segments as small as the journal allows, so that a few hundred records go around its ring.
SMALL = Options(segments=3, segment_bytes=64 * 1024, group_ms=5)


class Rows:
    """Makes rows as the proxy does."""

    def __init__(self) -> None:
        self._ids = Ids()

    def attempt(self, call_id: str | None = None, n: int = 1, **values: Any) -> AttemptRow:
        wall_ns = values.pop("started_wall_ns", None) or time.time_ns()
        call_id = self._ids.new(wall_ns) if call_id is None else call_id
        row = AttemptRow(
            id=f"{call_id}.{n}", call_id=call_id, n=n, org="acme", client="acme", key="key-1", route="chat",
            provider="openai", model="gpt-4o", upstream_model="gpt-4o-2024", started_wall_ns=wall_ns,
            worst_pusd=9_000_000, worst_tokens=1234,
        )  # fmt: skip
        for name, value in values.items():
            setattr(row, name, value)
        return row

    def served(self, row: AttemptRow, **values: Any) -> AttemptRow:
        row.outcome, row.status, row.input_tokens, row.output_tokens = "served", 200, 10, 5
        row.cost_pusd, row.duration_us, row.ttfb_us = 75_000, 1200, 300
        for name, value in values.items():
            setattr(row, name, value)
        return row

    def call(self, row: AttemptRow, **values: Any) -> CallRow:
        call = CallRow(
            id=row.call_id, org=row.org, client=row.client, key=row.key, route=row.route, method="POST",
            path="/v1/chat/completions", dialect="openai", model=row.model, served_model=row.model,
            provider=row.provider, started_wall_ns=row.started_wall_ns, outcome="served", status=200, attempts=row.n,
            input_tokens=row.input_tokens, output_tokens=row.output_tokens, cost_pusd=row.cost_pusd,
            charge_pusd=row.cost_pusd,
        )  # fmt: skip
        for name, value in values.items():
            setattr(call, name, value)
        return call


@pytest.fixture
def rows() -> Rows:
    return Rows()


Open = Callable[..., Any]


@pytest.fixture
async def open_records(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens records in the test's directory (or `folder`); what is left open is closed at the end."""
    opened: list[Records] = []

    async def begin(options: Options = SMALL, folder: Path | None = None, **more: Any) -> Records:
        records = await Records.open(folder or tmp_path / "data", options, **more)
        opened.append(records)
        return records

    yield begin
    for records in opened:
        if not records.closed:
            await records.aclose()


@pytest.fixture
async def records(open_records: Open) -> Records:
    opened: Records = await open_records()
    return opened


class Look:
    """What stands in a database file, read from outside."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tidegate.db"

    def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        return self.all(query, *values)[0][0]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(tmp_path / "data")


@pytest.fixture
def small() -> Options:
    return SMALL


@pytest.fixture
def same_as_rows() -> Any:
    """Compares the sums of each length of bucket with sums made here, from the rows, in Python's integers."""
    return _same_as_rows


async def _same_as_rows(records: Records) -> None:
    wanted: dict[tuple[str, str], dict[str, int]] = {}
    for row in await _everything(records, "attempts"):
        if row["outcome"] == "open":
            continue
        for span in ("minute", "hour", "day"):
            sums = wanted.setdefault(_bucket(row, span), dict.fromkeys(MEASURES, 0))
            sums["attempts"] += 1
            sums["cost_pusd"] += row["cost_pusd"]
            sums["input_tokens"] += row["input_tokens"]
            sums["failed_attempts"] += row["outcome"] == "failed"
            sums["estimated"] += bool(row["estimated"])
            sums["unresolved_pusd"] += row["cost_pusd"] if row["outcome"] == "unresolved" else 0
    for row in await _everything(records, "calls"):
        for span in ("minute", "hour", "day"):
            sums = wanted.setdefault(_bucket(row, span), dict.fromkeys(MEASURES, 0))
            sums["calls"] += 1
            sums["charge_pusd"] += row["charge_pusd"]
            sums["gone"] += row["outcome"] == "gone"
    for span in ("minute", "hour", "day"):
        found = {(span, u.group[span] + u.group["client"]): u for u in await records.queries.usage((span, "client"))}
        assert found.keys() == {key for key in wanted if key[0] == span}
        for key, usage in found.items():
            for name in ("attempts", "cost_pusd", "input_tokens", "failed_attempts", "estimated", "unresolved_pusd",
                         "calls", "charge_pusd", "gone"):  # fmt: skip
                assert getattr(usage, name) == wanted[key][name], (key, name)


async def _everything(records: Records, table: str) -> list[Any]:
    return await records.queries.read(
        lambda connection: [row._mapping for row in connection.exec_driver_sql(f"SELECT * FROM {table}")]
    )


def _bucket(row: Any, span: str) -> tuple[str, str]:
    return span, _stamp(row["started_wall_ns"], span) + row["client"]


def _stamp(wall_ns: int, span: str) -> str:
    form = {"minute": "%Y-%m-%dT%H:%MZ", "hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d"}[span]
    return time.strftime(form, time.gmtime(wall_ns // 1_000_000_000))
