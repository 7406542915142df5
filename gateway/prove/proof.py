"""Three proofs: nobody gets more than the limit, who is refused learns it soon, and a flood starves nobody."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

from gateway.prove.caller import Caller, Reply, ms, percentile

Verdict = Literal["pass", "fail", "unknown"]
#: A refusal that takes longer than this was no early one.
SOON_S = 0.1
#: The other client's calls are starved when one in a hundred is not served, or its median is this many times slower.
SERVED = 0.99
SLOWER = 10.0
#: Calls of the other client, alone and in the flood.
ALONE = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is proved, with how many calls. `allowed`: how many of `burst` simultaneous calls the limit lets through;
    None: what x-ratelimit-remaining-requests says. `provider`: Tidegate's fake provider, which counts for itself."""

    origin: str
    key: str
    other_key: str
    model: str
    burst: int = 100
    allowed: int | None = None
    provider: str = ""
    flood: int = 50
    seconds: float = 10.0
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One proof's verdict, in a sentence, and its figures (ms unless a name says otherwise)."""

    name: str
    verdict: Verdict
    said: str
    figures: dict[str, Any]


async def prove(plan: Plan) -> list[Finding]:
    """All three. Raises ValueError where the gateway does not serve even one call."""
    caller = Caller(plan.origin, plan.key, plan.model, plan.timeout_s)
    other = Caller(plan.origin, plan.other_key, plan.model, plan.timeout_s)
    try:
        alone = [await other.call() for _ in range(ALONE)]
        if not any(reply.served for reply in alone):
            raise ValueError(f"{plan.origin} served none of {ALONE} single calls (status {alone[-1].status})")
        starved = await _starvation(plan, caller, other, alone)
        replies, admission = await _admission(plan, caller)
        return [admission, _refusals(replies), starved]
    finally:
        await caller.aclose()
        await other.aclose()


async def _admission(plan: Plan, caller: Caller) -> tuple[list[Reply], Finding]:
    before, first = await _stats(plan), await caller.call()
    began = time.perf_counter()
    replies = list(await asyncio.gather(*(caller.call() for _ in range(plan.burst))))
    took_s = time.perf_counter() - began
    after = await _stats(plan)
    served = sum(reply.served for reply in replies)
    allowed = plan.allowed if plan.allowed is not None else _allowed(first, took_s)
    over = None if allowed is None else max(0, served - allowed)
    figures: dict[str, Any] = {
        "sent": plan.burst, "served": served, "allowed": allowed, "over_admitted": over,
        "refused": sum(reply.refused for reply in replies),
        "failed": sum(not reply.served and not reply.refused for reply in replies),
    }  # fmt: skip
    verdict: Verdict = "unknown" if over is None else "fail" if over else "pass"
    said = "no limit was stated: use --allowed or --provider" if over is None else f"{served} served, {allowed} allowed"
    if after is not None and after["slots"] is not None:
        more = after["over_admissions"] - (0 if before is None else before["over_admissions"])
        figures |= {"slots": after["slots"], "most_at_once": after["max_in_flight"], "above_slots": more}
        said = f"{more} calls above the provider's {after['slots']} slots; {said}" if over is not None else (
            f"{more} calls above the provider's {after['slots']} slots"
        )  # fmt: skip
        verdict = "fail" if more or verdict == "fail" else "pass"
    return replies, Finding("over-admission", verdict, said, figures)


def _allowed(first: Reply, took_s: float) -> int | None:
    """What was left, and what comes back meanwhile at a limit a minute."""
    left, limit = first.number("x-ratelimit-remaining-requests"), first.number("x-ratelimit-limit-requests")
    return None if left is None else left + math.ceil((limit or 0) * took_s / 60)


def _refusals(replies: list[Reply]) -> Finding:
    refused = [reply for reply in replies if reply.refused]
    took = [reply.took_s for reply in refused]
    tells = sum(reply.tells_when for reply in refused)
    figures = {
        "refused": len(refused), "p50": ms(took, 50), "p99": ms(took, 99), "max": ms(took, 100),
        "with_retry_after": tells,
    }  # fmt: skip
    p99 = percentile(took, 99)
    if p99 is None:
        return Finding("refusal latency", "unknown", "nothing was refused", figures)
    silent = len(refused) - tells
    said = f"{len(refused)} refused, p99 {p99 * 1000:.0f} ms, {silent} without retry-after"
    return Finding("refusal latency", "pass" if p99 < SOON_S and not silent else "fail", said, figures)


async def _starvation(plan: Plan, caller: Caller, other: Caller, alone: list[Reply]) -> Finding:
    """One client keeps `flood` calls under way; another sends one call after the other."""
    ends = time.perf_counter() + plan.seconds
    flooded: list[Reply] = []

    async def flood() -> None:
        while time.perf_counter() < ends:
            reply = await caller.call()
            flooded.append(reply)
            if not reply.served:
                await asyncio.sleep(0.05)

    flooding = [asyncio.ensure_future(flood()) for _ in range(plan.flood)]
    try:
        await asyncio.sleep(min(1.0, plan.seconds / 10))
        found = []
        while time.perf_counter() < ends:
            found.append(await other.call())
            await asyncio.sleep(0.05)
        await asyncio.gather(*flooding)
    finally:
        for task in flooding:
            task.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    before = percentile([reply.took_s for reply in alone if reply.served], 50)
    took = [reply.took_s for reply in found if reply.served]
    during = percentile(took, 50)
    part = len(took) / max(1, len(found))
    slower = None if before is None or during is None else during / before
    figures = {
        "calls": len(found), "served": len(took), "alone_p50": None if before is None else round(before * 1000, 1),
        "p50": ms(took, 50), "max": ms(took, 100), "slower": None if slower is None else round(slower, 2),
        "flood_calls": len(flooded), "flood_served": sum(reply.served for reply in flooded),
    }  # fmt: skip
    fair = part >= SERVED and slower is not None and slower <= SLOWER
    times = "none was served" if slower is None else f"median {slower:.1f} times that of calls alone"
    said = f"{len(took)} of {len(found)} calls of the other client served, {times}"
    return Finding("starvation", "pass" if fair else "fail", said, figures)


async def _stats(plan: Plan) -> dict[str, Any] | None:
    if not plan.provider:
        return None
    async with httpx2.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(f"{plan.provider.rstrip('/')}/fake/stats")).json()
    return found
