"""What identity, access, quota with six limits, budget and ledger cost a call together. Prints one line of JSON.

    python -m loadtests.bench_money [--check]      --check fails above 25 us on the loop or 65 us in the writer's thread

CPU time of the loop's thread, best of many rounds: greeting (identity), admission (access, quota, budget, the one
reservation), the headers of the limits, intent, settlement of what was held, the ledger's settlement. Six limits by the
quota: requests and tokens a minute, tokens a day and of 30 days, requests of the key, concurrent calls; besides them
money a day and a month. The price is a stand-in, so that neither a provider's kind nor the price list is measured. The
writer's thread is measured at 100, 1,000 and 5,000 calls a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.call import Call, Outcome
from gateway.clients import BudgetRules, Client, Key, QuotaRules, Tier
from gateway.clock import Clock
from gateway.directory import Directory, KeyEntry, digest_of
from gateway.events import Events
from gateway.garbage import settle
from gateway.ids import Ids
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.policy import build
from gateway.ratelimit import headers
from gateway.records.options import Options
from gateway.records.store import Records
from gateway.scheduler import Scheduler
from gateway.state.memory import MemoryStore
from gateway.targets import Target
from gateway.usage import Usage
from loadtests.bench_ledger import attempt, call_of, paced, settled
from loadtests.bench_limits import CHAT, FixedQuote

LOOP_US, WRITER_US = 25.0, 65.0
ROUND, ROUNDS = 200, 150
SECRET = b"tg-bench-secret-key"
PARTS = (
    "identity",
    "access, quota, budget and the reservation",
    "headers",
    "intent",
    "settlement",
    "ledger's settlement",
)


def gate_of(pepper: bytes) -> tuple[Pipeline, Clock]:
    """The four policies over a memory store, with one client whose limits never run out."""
    clock = Clock()
    store = MemoryStore(clock)
    plenty = QuotaRules(
        ("100000000/minute",), ("1000000000000/minute", "1000000000000000/day", "1000000000000000/30 days")
    )
    client = Client("acme", "acme", Tier("t", concurrent=1_000_000), quota=plenty, budget=BudgetRules(10**17, 10**18))
    key = Key("key", "acme", "client", quota=QuotaRules(("100000000/minute",)))
    directory = Directory(pepper, clock)
    directory.replace([client], [KeyEntry(key, digest_of(pepper, SECRET))])
    gate: Any = SimpleNamespace(
        store=store, clock=clock, metrics=Metrics(), events=Events(clock), directory=directory, time_zone="UTC"
    )
    policies = [build(name, {}) for name in ("identity", "access", "quota", "budget")]
    for policy in policies:
        policy.provide(gate)
    return Pipeline(policies, store, gate.metrics, Scheduler(store, clock)), clock


def arrived(id: str, target: Target, clock: Clock) -> Call:
    call = Call(
        id=id, route=CHAT, dialect="openai", method="POST", path=b"/v1/chat/completions", query=b"",
        raw_headers=[(b"authorization", b"Bearer " + SECRET)], started_ns=clock.now_ns(),
        started_wall_ns=clock.wall_ns(),
    )  # fmt: skip
    call.targets = [target]
    call.facts.model, call.facts.prompt_bytes, call.facts.max_tokens = "m", 800, 700
    return call


async def on_the_loop(records: Records) -> dict[str, float]:
    """Microseconds of each part, best round."""
    pipeline, clock = gate_of(records.pepper)
    ids, ledger = Ids(), records.ledger
    target = Target(SimpleNamespace(), "m", "m", FixedQuote())  # type: ignore[arg-type]  # stand-ins
    outcome = Outcome("served", 200, Usage(input_tokens=200, output_tokens=300), 5 * 10**8, True, attempted=True)
    best = dict.fromkeys(PARTS, float("inf"))
    for _ in range(ROUNDS):
        calls = [arrived(ids.new(clock.wall_ns()), target, clock) for _ in range(ROUND)]
        rows = [attempt(call.id, number) for number, call in enumerate(calls)]
        times = [time.thread_time_ns()]
        for call in calls:
            await pipeline.greet(call)
        times.append(time.thread_time_ns())
        for call in calls:
            await pipeline.admit(call)
        times.append(time.thread_time_ns())
        for call in calls:
            headers("openai", call.levels, 1_790_000_000_000_000_000)
        times.append(time.thread_time_ns())
        for row in rows:
            ledger.intend(row)
        times.append(time.thread_time_ns())
        for call in calls:
            await pipeline.settle(call, outcome)
        ended = time.thread_time_ns()
        times.append(ended)
        for row in rows:
            settled(row)
        ends = [call_of(row) for row in rows]
        began = time.thread_time_ns()
        for row, end in zip(rows, ends, strict=True):
            ledger.settle(row, end)
        times.append(ended + time.thread_time_ns() - began)
        for name, begin, end_ns in zip(PARTS, times, times[1:], strict=False):
            best[name] = min(best[name], (end_ns - begin) / ROUND / 1000)
        await ledger.flush()
    return best


async def measure(folder: Path) -> dict[str, Any]:
    records = await Records.open(folder, Options())
    try:
        parts = await on_the_loop(records)
        writer = [await paced(records, per_s, 4.0) for per_s in (100, 1000, 5000)]
    finally:
        await records.aclose()
    return {
        "loop_us": round(sum(parts.values()), 1),
        "parts": {name: round(us, 2) for name, us in parts.items()},
        "writer_us": {str(one["calls_per_s"]): one["writer_us"] for one in writer},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    settle()  # the collector as a serving gateway has it
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        result = asyncio.run(measure(Path(folder)))
    print(json.dumps(result))
    if options.check and (result["loop_us"] > LOOP_US or result["writer_us"]["5000"] > WRITER_US):
        raise SystemExit(f"above the limits: {LOOP_US} us on the loop, {WRITER_US} us in the writer's thread")


if __name__ == "__main__":
    main()
