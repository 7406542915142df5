"""What quota and budget cost a call on the event loop, from declaring the needs to settling them.

    python loadtests/bench_limits.py           prints microseconds a call, best of many rounds

Six limits: requests and tokens a minute, tokens a day, concurrent calls; money a day and a month. The price is a
stand-in, so that neither the provider's kind nor the price list is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

from gateway.call import Call, Outcome
from gateway.clients import BudgetRules, Client, Key, QuotaRules, Tier
from gateway.clock import Clock
from gateway.directory import Directory, KeyEntry
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.policy import build
from gateway.ratelimit import headers
from gateway.routes import TABLE
from gateway.scheduler import Scheduler
from gateway.state.memory import MemoryStore
from gateway.targets import Target
from gateway.usage import Usage

ROUND = 200
ROUNDS = 300
CHAT = next(route for route in TABLE if route.name == "chat")


class FixedQuote:
    """A price that costs nothing to look up."""

    unpriced = False
    version = "bench"

    def cost(self, usage: Usage) -> int:
        return usage.tokens * 1_000_000

    def worst(self, prompt_bytes: int, output_tokens: int, units: Mapping[str, int]) -> int:
        return (prompt_bytes + output_tokens) * 1_000_000


def call_of(client: Client, key: Key, target: Target, clock: Clock, number: int) -> Call:
    call = Call(
        id=f"call-{number}", route=CHAT, dialect="openai", method="POST", path=b"/v1/chat/completions", query=b"",
        raw_headers=[], started_ns=clock.now_ns(), started_wall_ns=clock.wall_ns(),
    )  # fmt: skip
    call.client, call.key, call.targets = client, key, [target]
    call.facts.prompt_bytes, call.facts.max_tokens = 800, 700
    return call


async def main() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    plenty = QuotaRules(("100000000/minute",), ("1000000000000/minute", "1000000000000000/day"), 1_000_000)
    client = Client("acme", "acme", Tier("t"), quota=plenty, budget=BudgetRules(10**17, 10**18))
    key = Key("key", "acme", "client")
    directory = Directory(b"pepper", clock)
    directory.replace([client], [KeyEntry(key, b"digest")])
    gate: Any = SimpleNamespace(
        store=store, clock=clock, metrics=Metrics(), events=Events(clock), directory=directory, time_zone="UTC"
    )
    quota, budget = build("quota", {}), build("budget", {})
    for policy in (quota, budget):
        policy.provide(gate)
    pipeline = Pipeline([quota, budget], store, gate.metrics, Scheduler(store, clock))
    target = Target(SimpleNamespace(), "m", "m", FixedQuote())  # type: ignore[arg-type]  # stand-ins
    outcome = Outcome("served", 200, Usage(input_tokens=200, output_tokens=300), 5 * 10**8, True, attempted=True)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        calls = [call_of(client, key, target, clock, n) for n in range(ROUND)]
        times = [perf_counter_ns()]
        for call in calls:
            quota.apply(call)
        times.append(perf_counter_ns())
        for call in calls:
            budget.apply(call)
        times.append(perf_counter_ns())
        for call in calls:
            call.needs = []
            await pipeline.admit(call)
        times.append(perf_counter_ns())
        for call in calls:
            headers("openai", call.levels, 1_790_000_000_000_000_000)
        times.append(perf_counter_ns())
        for call in calls:
            await pipeline.settle(call, outcome)
        times.append(perf_counter_ns())
        names = ("quota.apply", "budget.apply", "admit (both policies and the reservation)", "headers", "settle")
        for name, begin, end in zip(names, times, times[1:], strict=False):
            best[name] = min(best.get(name, 1e9), (end - begin) / ROUND / 1000)
    for name, us in best.items():
        print(f"{name:<45} {us:6.2f} us")
    print(f"{'all of quota and budget on the loop':<45} {best['headers'] + best['settle'] + best[names[2]]:6.2f} us")


if __name__ == "__main__":
    asyncio.run(main())
