"""What admission costs a call on the event loop when nobody waits: identity, quota, budget, pool, queue; settlement.

    python -m loadtests.bench_admission [POLICY ...]       default: identity quota budget pool queue

CPU time of the process, best of many rounds; the price is a stand-in. The model takes tokens and requests of two pools,
one of them with a daily window. The last line is of `pool` alone for a call that no pool concerns.
"""

from __future__ import annotations

import asyncio
import sys
from time import process_time_ns
from types import SimpleNamespace
from typing import Any

from gateway.call import Outcome
from gateway.clients import BudgetRules, Client, Key, QuotaRules, Tier
from gateway.clock import Clock
from gateway.config import PoolSettings
from gateway.directory import Directory, KeyEntry, digest_of
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.periods import Adjustments
from gateway.pipeline import Pipeline
from gateway.policy import build
from gateway.pools import Pools
from gateway.prices import Prices
from gateway.providers import KINDS
from gateway.providers.base import Provider
from gateway.scheduler import Scheduler
from gateway.state.memory import MemoryStore
from gateway.targets import Target
from gateway.usage import Usage
from loadtests.bench_limits import FixedQuote, call_of

ROUND, ROUNDS = 200, 100
#: Above this the exit code is 1.
MOST_US = 40.0
SECRET = b"tg-bench-secret-key"
USUAL = ["identity", "quota", "budget", "pool", "queue"]
PLENTY = {"capacity": 10**12, "refill_per_s": 10**9}
POOLS = {
    "tokens": PoolSettings.model_validate({**PLENTY, "windows": ("1000000000000000/day",)}),
    "requests": PoolSettings.model_validate(PLENTY),
}


async def measure(names: list[str]) -> tuple[float, float]:
    """Microseconds of admission and of settlement."""
    clock, metrics = Clock(), Metrics()
    store = MemoryStore(clock)
    plenty = QuotaRules(("100000000/minute",), ("1000000000000/minute", "1000000000000000/day"), 1_000_000)
    client = Client("acme", "acme", Tier("t"), quota=plenty, budget=BudgetRules(10**17, 10**18))
    key = Key("key", "acme", "client")
    directory = Directory(b"pepper", clock)
    directory.replace([client], [KeyEntry(key, digest_of(b"pepper", SECRET))])
    scheduler = Scheduler(store, clock, metrics)
    gate: Any = SimpleNamespace(
        store=store, clock=clock, metrics=metrics, events=Events(clock), directory=directory, time_zone="UTC",
        scheduler=scheduler, orgs={}, adjustments=Adjustments(), prices=Prices(), pools=Pools(POOLS, clock),
    )  # fmt: skip
    policies = [build(name, {}) for name in names]
    for policy in policies:
        policy.provide(gate)
    pipeline = Pipeline(policies, store, metrics, scheduler)
    provider = Provider("p", KINDS["openai"], "http://p", b"", client=None, max_concurrent=1000)  # type: ignore[arg-type]  # nothing is sent
    use = gate.pools.use("m", {"tokens": "tokens", "requests": "requests"}) if "pool" in names else None
    target = Target(provider, "m", "m", FixedQuote(), pools=use)  # type: ignore[arg-type]  # a stand-in
    outcome = Outcome("served", 200, Usage(input_tokens=200, output_tokens=300), 5 * 10**8, True, attempted=True)
    admission = settlement = float("inf")
    for _ in range(ROUNDS):
        calls = [call_of(client, key, target, clock, n) for n in range(ROUND)]
        for call in calls:
            call.headers = {b"authorization": b"Bearer " + SECRET}
            call.json = {"model": "m"}
        began = process_time_ns()
        for call in calls:
            await pipeline.greet(call)
            await pipeline.admit(call)
        admitted = process_time_ns()
        for call in calls:
            await pipeline.settle(call, outcome)
        settled = process_time_ns()
        admission = min(admission, (admitted - began) / ROUND / 1000)
        settlement = min(settlement, (settled - admitted) / ROUND / 1000)
    return admission, settlement


def untouched() -> float:
    """Microseconds of `pool` where a call takes of none."""
    clock = Clock()
    pool = build("pool", {})
    pool.provide(SimpleNamespace(clock=clock, pools=Pools(POOLS, clock)))  # type: ignore[arg-type]  # a stand-in
    key = Key("key", "acme", "client")
    target = Target(SimpleNamespace(), "m", "m", FixedQuote())  # type: ignore[arg-type]  # stand-ins
    call = call_of(Client("acme", "acme", Tier("t")), key, target, clock, 0)
    best = float("inf")
    for _ in range(ROUNDS):
        began = process_time_ns()
        for _ in range(ROUND):
            pool.apply(call)
        best = min(best, (process_time_ns() - began) / ROUND / 1000)
    return best


async def main() -> int:
    names = sys.argv[1:] or USUAL
    admission, settlement = await measure(names)
    print(f"bench_admission: {admission:.1f} us a call ({', '.join(names)}), settlement {settlement:.1f} us")
    print(f"bench_admission: {untouched():.2f} us for a call that no pool concerns")
    return 0 if admission <= MOST_US else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
