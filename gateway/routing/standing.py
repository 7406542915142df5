"""How one target stands: calls under way, latency, its breaker and its provider's; found by name, outlives reloads."""

from __future__ import annotations

from collections import deque
from math import exp

from gateway.routing.breaker import Breaker
from gateway.routing.budget import RetryBudget
from gateway.routing.rules import RetryRules, Rules

#: How fast a latency is forgotten once it is lower again (peak EWMA: a higher one counts at once).
_DECAY_NS = 10e9

#: What a target without any latency yet is taken to have: little, so that it is tried.
_UNKNOWN_NS = 1e6

#: What one answer more changes in the share of those that said "overloaded"; beyond `_STRAINED` of them others don't
#: pass their overload on to this target, for so long after it said so last.
_STRAIN, _STRAINED, _STRAINED_NS = 1 / 8, 0.5, 10_000_000_000

#: Latencies a route that are kept for hedging.
_KEPT = 128


class Place:
    """A provider: its rules, its budget, and the breaker that connection failures count against."""

    __slots__ = ("breaker", "name", "repeats", "retry", "standings")

    def __init__(self, name: str, breaker: Breaker, retry: RetryRules) -> None:
        self.name = name
        self.breaker = breaker
        self.retry = retry
        self.repeats = RetryBudget(retry.budget_percent / 100, float(retry.budget_reserve))
        self.standings: dict[str, Standing] = {}  # by upstream model

    def rule(self, rules: Rules) -> None:
        """Other rules from now on; what was counted stays."""
        self.retry = rules.retry
        self.repeats.share = rules.retry.budget_percent / 100
        self.breaker.rule(rules.breaker)
        for standing in self.standings.values():
            standing.breaker.rule(rules.breaker)


class Standing:
    """One provider and upstream model. `outstanding` counts attempts under way; latency is to the reply's head."""

    __slots__ = (
        "_seen_ns",
        "_strain",
        "_strained_ns",
        "aside_until_ns",
        "breaker",
        "latency_ns",
        "outstanding",
        "place",
        "samples",
    )

    def __init__(self, place: Place, breaker: Breaker) -> None:
        self.place = place
        self.breaker = breaker
        self.outstanding = 0
        self.latency_ns = 0.0
        self.aside_until_ns = 0  # its provider asked not to come before
        self.samples: dict[str, deque[int]] = {}  # latencies by route, where hedging needs them
        self._seen_ns = 0
        self._strain = 0.0  # the share of the latest answers that said "overloaded"
        self._strained_ns = 0  # when the last of them came

    def succeeded(self, began_ns: int, now_ns: int) -> None:
        """The reply's head is there and good."""
        latency_ns = now_ns - began_ns
        if latency_ns >= self.latency_ns:
            self.latency_ns = float(latency_ns)
        else:
            weight = exp((self._seen_ns - now_ns) / _DECAY_NS)
            self.latency_ns = self.latency_ns * weight + latency_ns * (1.0 - weight)
        self._seen_ns = now_ns
        if self._strain:
            self._strain *= 1.0 - _STRAIN
        self.breaker.succeeded(began_ns, now_ns)
        self.place.breaker.succeeded(began_ns, now_ns)

    def waited(self, latency_ns: int) -> None:
        """It takes longer than that: nobody waited for its answer any more."""
        self.latency_ns = max(self.latency_ns, float(latency_ns))

    def answered(self, began_ns: int, now_ns: int) -> None:
        """An answer that says nothing about the target, but that its provider can be reached."""
        self.place.breaker.succeeded(began_ns, now_ns)

    def overloaded(self, now_ns: int) -> None:
        """It said that it can't take more."""
        self._strain += (1.0 - self._strain) * _STRAIN
        self._strained_ns = now_ns

    def is_strained(self, now_ns: int) -> bool:
        """Whether it refuses most of what comes as too much."""
        return self._strain >= _STRAINED and now_ns - self._strained_ns < _STRAINED_NS

    @property
    def is_troubled(self) -> bool:
        """Whether one of its breakers is not closed."""
        return self.breaker.state != "closed" or self.place.breaker.state != "closed"

    def is_out(self, now_ns: int) -> bool:
        """Whether calls should go elsewhere, if they can."""
        if self.aside_until_ns > now_ns:
            return True
        if self.breaker.state == "closed" and self.place.breaker.state == "closed":
            return False
        return self.breaker.is_out(now_ns) or self.place.breaker.is_out(now_ns)

    def score(self, weight: int) -> float:
        """Lower is better: the latency to expect, times the calls before this one in proportion to its weight."""
        return (self.latency_ns or _UNKNOWN_NS) * (1.0 + self.outstanding / weight)

    def sample(self, route: str, latency_ns: int) -> None:
        """Keeps a latency for `percentile`."""
        kept = self.samples.get(route)
        if kept is None:
            kept = self.samples[route] = deque(maxlen=_KEPT)
        kept.append(latency_ns)

    def percentile(self, route: str, percent: float, least: int) -> int | None:
        """Of the latencies of a route, in ns; None while there are fewer than `least`."""
        kept = self.samples.get(route)
        if kept is None or len(kept) < min(least, _KEPT):
            return None
        return sorted(kept)[min(len(kept) - 1, int(len(kept) * percent / 100))]
