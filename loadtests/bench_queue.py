"""What the queue costs on the event loop: calls that come, are granted and leave, and the memory of those that wait.

    python -m loadtests.bench_queue

An operation is one call's entering, one grant (the store's reservation included), or one call's leaving unserved. What
the store takes to give a slot back, which is how a served call ends, stands beside them. CPU time of the process, best
of several rounds, with the collector set as a serving gateway sets it. The loop's own tasks are not part of it: calls
enter and leave by hand.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import tracemalloc
from collections.abc import Iterator
from time import process_time_ns

from gateway.call import Need, Wait
from gateway.clock import Clock
from gateway.errors import RateLimited
from gateway.garbage import settle
from gateway.scheduler import Option, Placement, Queued, QueueSettings, Scheduler, Urgency, Waiter
from gateway.scheduler.lane import Entry
from gateway.state.memory import MemoryStore
from gateway.state.store import Limit, Slots

WAITING = 10_000
ROUNDS = 5
URGENCIES: tuple[Urgency, ...] = ("high", "normal", "low")
POINTS = (10, 20, 30, 40)


class Bench:
    """`clients` that wait for a slot of one provider, each for one of its own as well."""

    def __init__(self, clients: int) -> None:
        self.store = MemoryStore(Clock())
        self.scheduler = Scheduler(self.store, Clock())
        self.scheduler.configure(QueueSettings(WAITING * 2, WAITING * 2))
        self.provider = Slots("queue provider p", 20)
        self.needs = [self.need(Slots(f"quota client {one} concurrent", 10_000)) for one in range(clients)]
        self.of_provider = self.need(self.provider)
        self.placements = [Placement(urgency, points, 3600.0) for urgency in URGENCIES for points in POINTS]
        self.clients = [f"client-{one}" for one in range(clients)]
        self.ids = [f"call-{one}" for one in range(WAITING)]
        self.resolve = lambda: ()

    @staticmethod
    def need(limit: Limit) -> tuple[Need, Limit, int, int]:
        return Need(limit, 1, Wait(RateLimited, limit.key)), limit, 1, 0

    def waiters(self, number: int) -> Iterator[Waiter]:
        for n in range(number):
            client = n % len(self.needs)
            options = (Option(0, (self.needs[client], self.of_provider)),)
            yield Waiter(
                self.ids[n], self.clients[client], "org", "key", self.placements[client % len(self.placements)], 1000,
                0, options, self.resolve, 900.0,
            )  # fmt: skip

    async def fill(self, waiters: list[Waiter]) -> list[Entry]:
        """All slots are taken, then these wait."""
        await self.store.reserve("taken", [(self.provider, 20)], 900)
        return [self.scheduler.enter(waiter, Queued("immediate", 0, 0)) for waiter in waiters]

    async def calm(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def speed(clients: int) -> dict[str, float]:
    """Microseconds an operation."""
    best = {"enter": 1e9, "grant": 1e9, "leave": 1e9, "give back": 1e9}
    for _ in range(ROUNDS):
        gc.collect()  # what the last round left
        bench = Bench(clients)
        waiters = list(bench.waiters(WAITING))
        await bench.store.reserve("taken", [(bench.provider, 20)], 900)
        first = [bench.scheduler.enter(waiter, Queued("immediate", 0, 0)) for waiter in waiters[:clients]]
        await bench.calm()
        began = process_time_ns()
        entries = first + [bench.scheduler.enter(waiter, Queued("immediate", 0, 0)) for waiter in waiters[clients:]]
        await bench.calm()
        entered = process_time_ns()
        await bench.store.release("taken")
        await bench.calm()
        granted, granting, giving_back = 0, 0, 0
        while granted < WAITING // 2:
            holds = list(bench.store._holds)
            granted += len(holds)
            began_giving_back = process_time_ns()
            for hold in holds:
                await bench.store.release(hold)
            began_grants = process_time_ns()
            await bench.calm()
            granting += process_time_ns() - began_grants
            giving_back += began_grants - began_giving_back
        left = [entry for entry in entries if not entry.done]
        leaving = process_time_ns()
        for entry in left:
            entry.future.cancel()
            bench.scheduler.leave(entry)
        await bench.calm()
        gone = process_time_ns()
        best["enter"] = min(best["enter"], (entered - began) / (WAITING - clients) / 1000)
        best["grant"] = min(best["grant"], granting / granted / 1000)
        best["give back"] = min(best["give back"], giving_back / granted / 1000)
        best["leave"] = min(best["leave"], (gone - leaving) / len(left) / 1000)
        for hold in list(bench.store._holds):
            await bench.store.release(hold)
    return best


async def memory(clients: int) -> dict[str, float]:
    """Megabytes of 10,000 waiting calls: all that is made for them from their needs on; and the process."""
    bench = Bench(clients)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    entries = await bench.fill(list(bench.waiters(WAITING)))
    await bench.calm()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for entry in entries:
        entry.future.cancel()
        bench.scheduler.leave(entry)
    await bench.calm()
    return {
        "queue_mb": (after - before) / 1e6,
        "process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def main() -> int:
    settle()
    result: dict[str, dict[str, float]] = {}
    for clients in (100, 1000):
        result[f"{clients} clients"] = {**await speed(clients), **await memory(clients)}
    for name, row in result.items():
        figures = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
        print(f"{name}, {WAITING:,} waiting: {figures}")
    worst = max(sum(row[key] for key in ("enter", "grant", "leave")) / 3 for row in result.values())
    megabytes = max(row["queue_mb"] for row in result.values())
    print(json.dumps(result))
    print(f"bench_queue: {1e6 / worst:,.0f} operations a second, {megabytes:.1f} MB for {WAITING:,} waiting calls")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
