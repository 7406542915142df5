"""What routing is told by the configuration about retries, breakers and hedging. Durations in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Another go, after a failure."""

    attempts: int = 3  # of one call, in all
    budget_percent: float = 10.0  # repeated exchanges a provider, of the calls that it got
    budget_reserve: int = 10  # of them beforehand
    backoff_s: float = 0.25  # the first pause is up to this, each further one up to twice as long
    longest_backoff_s: float = 4.0
    longest_retry_after_s: float = 5.0  # a provider that wants more patience is not waited for
    preamble_s: float = 0.25  # how long the first events of a stream are held back, while nothing is in them


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a target gets no calls for a while."""

    consecutive_failures: int = 5
    error_percent: float = 50.0  # of the calls in the window, at least `min_calls`
    min_calls: int = 20
    window_s: float = 30.0
    open_s: float = 5.0  # doubles each time it opens again soon
    longest_open_s: float = 60.0
    close_after: int = 2  # successes one after the other, while half-open
    max_ejected_percent: int = 50  # of a model's targets
    probe_every_s: float = 2.0  # while open; a probe costs nothing


@dataclass(frozen=True, slots=True)
class HedgeRules:
    """A second attempt beside one that takes long."""

    enabled: bool = False
    percentile: float = 95.0  # of the target's latencies on the same route
    min_samples: int = 50
    min_delay_ms: int = 20
    routes: frozenset[str] = frozenset(("embeddings", "moderations"))


@dataclass(frozen=True, slots=True)
class Rules:
    """All of it."""

    retry: RetryRules = field(default_factory=RetryRules)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    hedge: HedgeRules = field(default_factory=HedgeRules)

    def own(self, retry: Mapping[str, Any], breaker: Mapping[str, Any]) -> Rules:
        """Those of a provider that has some of its own."""
        if not retry and not breaker:
            return self
        return replace(self, retry=replace(self.retry, **retry), breaker=replace(self.breaker, **breaker))
