"""Estimates against the waits that came of them, in simulated time: arrivals and services by chance, seeded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

import pytest

from gateway.scheduler import Queued


@dataclass
class Simulation:
    """An open-loop load on one limit. `mix` gives each arrival's way to wait; times in seconds."""

    queue: Any
    limit: Any
    per_second: float
    service_s: float
    lasts_s: float
    chance: Random = field(default_factory=lambda: Random(7))
    waits: list[tuple[float, float, str]] = field(default_factory=list)  # estimate, wait, urgency
    refused: int = 0
    running: int = 0

    async def run(self, mix: Any, amount: Any = lambda chance: 1) -> None:
        events: list[tuple[float, int, str, Any]] = []
        number, now = 0, 0.0
        heappush(events, (self.chance.expovariate(self.per_second), number, "arrival", None))
        pending: dict[asyncio.Future[Any], Any] = {}
        while events:
            at, _, kind, what = heappop(events)
            self.queue.clock.advance(at - now)
            now = at
            self.queue.scheduler.wake()
            number += 1
            if kind == "arrival" and now < self.lasts_s:
                heappush(events, (now + self.chance.expovariate(self.per_second), number, "arrival", None))
                waiter = self.queue.waiter([(self.limit, amount(self.chance))], **mix(self.chance))
                queued = Queued("immediate", 0, 0)
                pending[asyncio.ensure_future(self.queue.scheduler.wait(waiter, queued))] = waiter, queued
            elif kind == "end":
                await self.queue.store.settle(what.id, [self.used(what)])
            await self.queue.calm()
            for future in [one for one in pending if one.done()]:
                waiter, queued = pending.pop(future)
                if future.exception() is not None:
                    self.refused += 1
                    continue
                self.waits.append((queued.estimate_ms / 1000, queued.waited_ns / 1e9, waiter.placement.urgency))
                number += 1
                heappush(events, (now + self.chance.expovariate(1 / self.service_s), number, "end", waiter))
            if not events and pending:
                number += 1
                heappush(events, (now + 1.0, number, "tick", None))

    def used(self, waiter: Any) -> int:
        amount: int = waiter.options[0].held[0][2]
        return amount if amount == 1 else int(amount * self.chance.uniform(0.3, 1.0))

    def median_error(self) -> float:
        errors = sorted(abs(told - wait) / wait for told, wait, _ in self.waits if wait >= 1)
        assert len(errors) > 100, "too few waited"
        return errors[len(errors) // 2]


def of_one_kind(chance: Random) -> dict[str, Any]:
    return {"client": f"c{chance.randrange(8)}", "points": 20}


def of_three_kinds(chance: Random) -> dict[str, Any]:
    urgency = chance.choices(["high", "normal", "low"], [1, 6, 3])[0]
    return {"client": f"c{chance.randrange(8)}", "points": 20, "urgency": urgency, "longest_s": 30}


@pytest.mark.parametrize("mix", [of_one_kind, of_three_kinds])
async def test_estimates_of_waits_for_slots_are_honest(queue: Any, slots: Any, mix: Any) -> None:
    load = Simulation(queue, slots("a", 10), per_second=40, service_s=0.5, lasts_s=90)
    await load.run(mix)
    assert load.median_error() < 0.25
    assert queue.scheduler.honesty.median == pytest.approx(load.median_error(), abs=0.15), "and the metric says so"
    assert "tidegate_queue_estimate_error_ratio" in queue.metrics.render()[0].decode()


async def test_estimates_of_waits_for_tokens_are_honest(queue: Any, bucket: Any) -> None:
    load = Simulation(queue, bucket("t", 20_000, 5000), per_second=15, service_s=0.5, lasts_s=90)
    await load.run(of_one_kind, lambda chance: chance.randrange(100, 2000))
    assert load.median_error() < 0.25


async def test_high_priority_hardly_waits_under_overload(queue: Any, slots: Any) -> None:
    load = Simulation(queue, slots("a", 10), per_second=60, service_s=0.5, lasts_s=40)
    await load.run(of_three_kinds)
    high = sorted(wait for _, wait, urgency in load.waits if urgency == "high")
    assert high[len(high) * 99 // 100] < 1.0
    low = [wait for _, wait, urgency in load.waits if urgency == "low"]
    assert len(low) >= 0.05 * len(load.waits)


async def test_what_was_assumed_teaches_nothing(queue: Any, slots: Any) -> None:
    """Nothing is known of a new limit's pace. What its first calls are told is a guess, and its error no lesson."""
    limit, chance = slots("a", 2), Random(7)
    errors: list[float] = []
    for burst in range(2):
        errors.clear()
        arrived = []
        for number in range(40):
            arrived.append(queue.wait([(limit, 1)], client=f"c{number % 4}", longest_s=120))
            await queue.calm()
        running: list[tuple[float, str]] = []
        at, seen = 0.0, 40 * burst
        while seen < 40 * (burst + 1) or running:
            await queue.later(0.05)
            at += 0.05
            for hold in [hold for ends, hold in running if ends <= at]:
                await queue.store.settle(hold, [1])
                await queue.calm()
            running = [one for one in running if one[0] > at]
            running += [(at + chance.uniform(0.3, 0.5), name) for name in queue.granted[seen:]]
            seen = len(queue.granted)
        errors += [one.queued.estimate_ms / one.queued.waited_ms - 1 for one in arrived if one.queued.waited_ms >= 1000]
    assert len(errors) > 20
    assert sorted(map(abs, errors))[len(errors) // 2] < 0.15
