"""Five times the capacity, then a quarter of it; and goodput at two, three and five times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from loadtests.scenarios.bed import CAPACITY, KINDS, SLOTS, Bed
from loadtests.scenarios.limits import Limit
from loadtests.scenarios.load import Caller, Done, percentile

SAMPLE_S = 0.02
WARM_S = 3.0  # until the queue is as full as it gets
FLOOR = 0.05  # of grants while it is contended: the default floor_percent


@dataclass
class Times:
    """How long the parts last, in seconds; without goodput at 2 and 3 times the capacity where that is 0."""

    unloaded: float = 5.0
    overload: float = 20.0
    recovery: float = 15.0
    goodput: float = 10.0


@dataclass
class Overload:
    """One run; `figures` is what was measured besides the limits."""

    bed: Bed
    times: Times = field(default_factory=Times)
    figures: dict[str, Any] = field(default_factory=dict)
    _fell: float = 0.0  # when the load did

    async def run(self) -> list[Limit]:
        """All parts, one after the other."""
        caller, probe = Caller(self.bed.gateway), Caller(self.bed.provider)
        try:
            before = await self._unloaded(caller)
            limits = [*await self._overloaded(caller, probe, before), *self._recovery(caller, before)]
            for factor in (2, 3) if self.times.goodput else ():
                limits.append(await self._goodput(caller, factor))
            told = await self.bed.stats(probe)
            self.figures["provider"] = {name: told[name] for name in ("calls", "max_in_flight", "over_admissions")}
            return [Limit("most calls at the provider at once", told["max_in_flight"], SLOTS), *limits]
        finally:
            await caller.aclose()
            await probe.aclose()

    async def _unloaded(self, caller: Caller) -> dict[str, float]:
        """Seconds of a call where nobody waits: p50, p99."""
        await caller.run(KINDS, 20, 1.0)  # connections, imports
        await caller.settled()
        caller.done.clear()
        await caller.run(KINDS, 40, self.times.unloaded)
        await caller.settled()
        took = [one.took_s for one in caller.done if one.status == 200]
        found = {"p50": percentile(took, 50), "p99": percentile(took, 99)}
        self.figures["unloaded_ms"] = {name: round(value * 1000, 1) for name, value in found.items()}
        return found

    async def _overloaded(self, caller: Caller, probe: Caller, before: dict[str, float]) -> list[Limit]:
        caller.done.clear()
        await caller.run(KINDS, 5 * CAPACITY, WARM_S)
        over, cpu = asyncio.Event(), self.bed.cpu_s()
        sampling = asyncio.ensure_future(self._held(probe, over))
        began, ended = await caller.run(KINDS, 5 * CAPACITY, self.times.overload)
        over.set()
        held = await sampling
        ran_s, waited_s = (now - then for now, then in zip(self.bed.cpu_s(), cpu, strict=True))
        self.figures["gateway_cores"] = {
            "ran": round(ran_s / (ended - began), 3),
            "waited_for_a_core": round(waited_s / (ended - began), 3),
        }
        self._fell = ended
        # The load goes on at a quarter, so that what waits ends as it would.
        await caller.run(KINDS, CAPACITY / 4, self.times.recovery)
        await caller.settled()
        during = [one for one in caller.done if began <= one.due < ended]
        ended_in = [one for one in caller.done if began <= one.due + one.took_s < ended and one.status == 200]
        return list(self._judged(during, ended_in, held, before, ended - began))

    def _judged(
        self, during: list[Done], served: list[Done], held: float, before: dict[str, float], seconds: float
    ) -> Iterator[Limit]:
        high = [one for one in during if one.kind == "high"]
        good = [one.took_s for one in high if one.status == 200]
        early = [one.took_s for one in during if one.early]
        errors = [error for error in map(_error, during) if error is not None]
        self.figures["overload"] = {
            "sent": len(during),
            "statuses": {str(one): sum(call.status == one for call in during) for one in {c.status for c in during}},
            "served_by_kind": {kind.name: sum(one.kind == kind.name for one in served) for kind in KINDS},
            "early_refusals": len(early),
            "early_refusal_ms": {"p50": _ms(early, 50), "p99": _ms(early, 99), "max": _ms(early, 100)},
            "high_ms": {"p50": _ms(good, 50), "p99": _ms(good, 99)},
            "estimates": len(errors),
        }
        low = sum(one.kind == "low" for one in served)
        lost = sum(one.status not in (200, 429, 503) for one in during)
        yield Limit("calls without a proper answer", lost, 0)
        yield Limit("busy slots of the provider", held / SLOTS, 0.95, True)
        yield Limit("early refusals, p99", percentile(early, 99) * 1000, 100, unit="ms")
        yield Limit("high-priority calls served", len(good) / max(1, len(high)), 0.999, True)
        ratio = percentile(good, 99) / before["p99"]
        yield Limit("high-priority p99 over their unloaded p99", ratio, 2)
        yield Limit("low priority's part of what was served", low / max(1, len(served)), FLOOR * 0.95, True)
        yield Limit("median error of the wait estimate", median(errors) if errors else 1.0, 0.25)
        yield Limit("goodput at 5 times the capacity", len(served) / seconds / CAPACITY, 0.95, True)

    def _recovery(self, caller: Caller, before: dict[str, float]) -> list[Limit]:
        """From the load's fall until normal calls are as quick as they were, for good."""
        after = [one for one in caller.done if one.kind == "normal" and one.due >= self._fell]
        slow = [one.due - self._fell for one in after if one.status != 200 or one.took_s > 2 * before["p99"]]
        return [Limit("last slow or refused normal call after the fall", max(slow, default=0.0), 10, unit="s")]

    async def _goodput(self, caller: Caller, factor: int) -> Limit:
        caller.done.clear()
        await caller.run(KINDS, factor * CAPACITY, WARM_S)
        began, ended = await caller.run(KINDS, factor * CAPACITY, self.times.goodput)
        await caller.settled()
        served = sum(one.status == 200 and began <= one.due + one.took_s < ended for one in caller.done)
        name = f"goodput at {factor} times the capacity"
        return Limit(name, served / (ended - began) / CAPACITY, 0.95, True)

    async def _held(self, probe: Caller, over: asyncio.Event) -> float:
        """The mean of the provider's slots in use, until the overload is over."""
        samples: list[int] = []
        while not over.is_set():
            samples.append((await self.bed.stats(probe))["slots_held"])
            await asyncio.sleep(SAMPLE_S)
        return sum(samples) / max(1, len(samples))


def _error(call: Done) -> float | None:
    """Of the estimate, against the wait of the same call; of those that waited a second or more."""
    waited = int(call.headers.get("x-tidegate-wait-ms", 0))
    if call.status != 200 or waited < 1000:
        return None
    return abs(int(call.headers["x-tidegate-wait-estimate-ms"]) - waited) / waited


def _ms(values: list[float], percent: float) -> float | None:
    return round(percentile(values, percent) * 1000, 1) if values else None
