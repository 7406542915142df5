"""What the store costs: reserve and settle of six limits, as a call with quota and budget has them.

python loadtests/bench_state.py            prints microseconds a call, best of several
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns

from gateway.clock import Clock
from gateway.state.memory import MemoryStore
from gateway.state.store import Bucket, Limit, Slots, Tally, Want, Window

DAY = 86_400 * 10**9
PLENTY = 10**15


def wants(client: int) -> list[Want]:
    """Requests and tokens a minute and a day, money a day and a month."""
    limits: list[tuple[Limit, int]] = [
        (Bucket(f"{client}:requests:minute", 10**9, "requests", 1, 60), 1),
        (Bucket(f"{client}:tokens:minute", 10**9, "tokens", 1, 60), 1500),
        (Window(f"{client}:requests:day", PLENTY, "requests", DAY), 1),
        (Window(f"{client}:tokens:day", PLENTY, "tokens", DAY), 1500),
        (Tally(f"{client}:usd:day", PLENTY, "", "2026-11-24", 0, (PLENTY // 2, PLENTY)), 3_000_000),
        (Tally(f"{client}:usd:month", PLENTY, "", "2026-11", 0, (PLENTY // 2, PLENTY)), 3_000_000),
    ]
    return limits


async def one_round(store: MemoryStore, clients: Sequence[list[Want]], concurrent: int, holds: list[str]) -> int:
    """Nanoseconds for one call of each client, `concurrent` holds outstanding at a time."""
    actual = [1, 700, 1, 700, 1_000_000, 1_000_000]
    for n in range(concurrent):
        await store.reserve(holds[n], clients[n % len(clients)], 900.0)
    began = perf_counter_ns()
    for n in range(concurrent, len(holds)):
        await store.reserve(holds[n], clients[n % len(clients)], 900.0)
        await store.settle(holds[n - concurrent], actual)
    spent = perf_counter_ns() - began
    for hold in holds[-concurrent:]:
        await store.settle(hold, actual)
    return spent


async def admitted(clients: int, concurrent: int) -> float:
    """Microseconds a call: the best of many rounds, so that other work on the machine does not count."""
    some = [wants(client) for client in range(clients)]
    store = MemoryStore(Clock())
    calls = max(500, clients)
    holds = [f"call-{n}" for n in range(calls + concurrent)]
    rounds = [await one_round(store, some, concurrent, holds) for _ in range(max(10, 100_000 // calls))]
    return min(rounds) / calls / 1000


async def refused() -> float:
    """Microseconds a refusal."""
    limits: list[Want] = [*wants(0), (Slots("pool", 4), 1)]
    store = MemoryStore(Clock())
    for n in range(4):
        await store.reserve(f"full-{n}", limits, 900.0)
    spent = []
    for _ in range(50):
        began = perf_counter_ns()
        for _ in range(200):
            await store.reserve("refused", limits, 900.0)
        spent.append(perf_counter_ns() - began)
    return min(spent) / 200 / 1000


async def main() -> None:
    for clients, concurrent in ((1, 1), (1, 32), (1000, 32), (10_000, 500)):
        best = await admitted(clients, concurrent)
        print(f"{clients:>6} clients, {concurrent:>3} at a time: reserve + settle of 6 limits {best:5.2f} us")
    print(f"a refusal of 7 limits, the last of them full: {await refused():5.2f} us")


if __name__ == "__main__":
    asyncio.run(main())
