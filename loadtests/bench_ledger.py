"""What the ledger costs a call: on the event loop, in the writer's thread, and in delay of the loop. Prints one line of
JSON; `--check` fails above the limits of docs/ledger.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gateway.ids import Ids
from gateway.records.options import Options
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.store import Records

LOOP_US = 8.0
WRITER_US = 65.0
CLIENTS = 20
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")


def attempt(call_id: str, number: int) -> AttemptRow:
    client = f"client-{number % CLIENTS}"
    model = MODELS[number % len(MODELS)]
    return AttemptRow(
        id=f"{call_id}.1", call_id=call_id, n=1, org=client, client=client, key=f"{client}-key-0123456789ab",
        route="chat", provider="openai", model=model, upstream_model=model, started_wall_ns=time.time_ns(),
        worst_pusd=123_456_789, worst_tokens=1500, price_version="genai-prices/0.2.3",
    )  # fmt: skip


def settled(row: AttemptRow) -> None:
    row.outcome, row.status, row.ttfb_us, row.duration_us = "served", 200, 350_000, 1_250_000
    row.input_tokens, row.cached_tokens, row.output_tokens, row.cost_pusd = 312, 128, 245, 3_030_000_000
    row.upstream_request_id = "req_0123456789abcdef0123456789abcdef"


def call_of(row: AttemptRow) -> CallRow:
    return CallRow(
        id=row.call_id, org=row.org, client=row.client, key=row.key, route="chat", method="POST",
        path="/v1/chat/completions", dialect="openai", model=row.model, served_model=row.model, provider=row.provider,
        started_wall_ns=row.started_wall_ns, outcome="served", status=200, stream=True, attempts=1, ttfb_us=row.ttfb_us,
        duration_us=row.duration_us, overhead_us=90, input_tokens=312, cached_tokens=128, output_tokens=245,
        cost_pusd=row.cost_pusd, charge_pusd=row.cost_pusd,
    )  # fmt: skip


class Lag:
    """How late the loop runs what it should run every millisecond."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.late_ms.append((time.perf_counter() - due) * 1000)


def writer_cpu_s() -> float:
    """CPU time of the writer's thread so far."""
    thread = next(t for t in threading.enumerate() if t.name == "tidegate-writer")
    fields = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


async def on_the_loop(records: Records, calls: int) -> float:
    """Microseconds of the loop for intend and settle with the call's row."""
    ids = Ids()
    rows = [attempt(ids.new(time.time_ns()), number) for number in range(calls)]
    ends = [call_of(row) for row in rows]
    ledger = records.ledger
    best = float("inf")
    for start in range(0, calls, 500):
        began = time.perf_counter()
        for row, call in zip(rows[start : start + 500], ends[start : start + 500], strict=True):
            ledger.intend(row)
            ledger.settle(row, call)
        best = min(best, (time.perf_counter() - began) / 500)
        await ledger.flush()
    return best * 1e6


async def paced(records: Records, per_s: int, seconds: float) -> dict[str, float]:
    """Calls at a steady rate: CPU of the writer's thread a call, and the loop's delay."""
    ids, lag = Ids(), Lag()
    watcher = asyncio.create_task(lag.watch())
    before, done, began = writer_cpu_s(), 0, time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        while done < now * per_s:
            row = attempt(ids.new(time.time_ns()), done)
            records.ledger.intend(row)
            settled(row)
            records.ledger.settle(row, call_of(row))
            done += 1
        await asyncio.sleep(0.001)
    await records.ledger.flush()
    watcher.cancel()
    late = statistics.quantiles(lag.late_ms, n=1000)
    return {
        "calls_per_s": per_s,
        "writer_us": round((writer_cpu_s() - before) / done * 1e6, 1),
        "lag_p50_ms": round(late[499], 2),
        "lag_p99_ms": round(late[989], 2),
        "lag_p999_ms": round(late[998], 2),
    }


async def measure(folder: Path, seconds: float) -> dict[str, Any]:
    records = await Records.open(folder, Options())
    try:
        loop_us = await on_the_loop(records, 10_000)
        rates = [await paced(records, per_s, seconds) for per_s in (100, 1000, 5000)]
    finally:
        await records.aclose()
    return {"loop_us": round(loop_us, 2), "rates": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        result = asyncio.run(measure(Path(folder), options.seconds))
    print(json.dumps(result))
    busy = result["rates"][-1]
    if options.check and (result["loop_us"] > LOOP_US or busy["writer_us"] > WRITER_US):
        raise SystemExit(f"above the limits: {LOOP_US} us on the loop, {WRITER_US} us in the writer's thread")


if __name__ == "__main__":
    main()
