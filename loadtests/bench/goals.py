"""The targets of the design: what the measured figures are held against."""

from __future__ import annotations

from statistics import median

from loadtests.bench.cases import BURST, PACED, SMALL_32
from loadtests.bench.results import CAPACITY, DIRECT, Goal, Results

OURS = "tidegate"
FLAT_MB = 5.0  # growth that still counts as flat: one allocator arena more or less, not a leak


def judge(results: Results) -> list[Goal]:
    """Every target, those that this run could not measure without a value."""
    return [
        Goal("CPU a request / Envoy's", _ratio(results, SMALL_32.name, "envoy"), 1.5, "x"),
        Goal("CPU a chunk, paced / Envoy's", _ratio(results, PACED.name, "envoy"), 1.4, "x"),
        Goal("CPU a chunk, bursts / nginx's", _ratio(results, BURST.name, "nginx"), 1.2, "x"),
        Goal("first byte of a stream after the upstream's, p50", first_byte_ms(results, OURS), 0.5, "ms"),
        *_own(results),
        Goal("CPU a request, most clients / fewest", _clients(results), 1.10, "x"),
        Goal("responder's rate / fastest system's", responder_margin(results), 2.0, "x", at_least=True),
    ]


def first_byte_ms(results: Results, name: str) -> float | None:
    """What a system adds to the time to a stream's first byte: its p50 less the p50 without a proxy, same round."""
    through, without = (results.values(target, PACED.name, "first_byte_ms") for target in (name, DIRECT))
    if not through or len(through) != len(without):
        return None
    return median(a - b for a, b in zip(through, without, strict=True))


def responder_margin(results: Results) -> float | None:
    """How many times faster the responder alone is than the fastest system in front of it."""
    alone = results.median(CAPACITY, SMALL_32.name, "requests_per_s")
    rates = [results.median(name, SMALL_32.name, "requests_per_s") for name in results.systems]
    fastest = max((rate for rate in rates if rate is not None), default=None)
    return None if alone is None or fastest is None else alone / fastest


def soak_growth_mb(results: Results) -> float | None:
    """Growth of memory from a tenth of the soak, when all is warm, to its end."""
    return results.soak[-1][1] - results.soak[0][1] if len(results.soak) > 1 else None


def _own(results: Results) -> list[Goal]:
    facts = results.systems.get(OURS)
    soaked = f"{results.soak[-1][0]:,}" if results.soak else "the soak's"
    return [
        Goal("memory, idle", facts.idle_mb if facts else None, 100.0, "MB"),
        Goal(f"growth of memory over {soaked} requests", soak_growth_mb(results), FLAT_MB, "MB"),
        Goal("ready after", median(facts.ready_s) if facts else None, 1.0, "s"),
    ]


def _ratio(results: Results, case: str, peer: str) -> float | None:
    ours, theirs = (results.median(name, case, "cpu_us") for name in (OURS, peer))
    return None if ours is None or theirs is None else ours / theirs


def _clients(results: Results) -> float | None:
    if len(results.clients) < 2:
        return None
    few, many = (median(results.clients[n]) for n in (min(results.clients), max(results.clients)))
    return many / few
