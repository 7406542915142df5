"""[retry], [breaker] and [hedge]: what happens when an upstream fails or is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gateway.config.values import Count, Names, Percent, Positive, Seconds, Section, SomeSeconds

if TYPE_CHECKING:
    from gateway.routing.rules import BreakerRules, HedgeRules, RetryRules

SomePercent = Annotated[Percent, Field(ge=1)]


class RetrySettings(Section):
    """Further attempts of one call."""

    attempts: Positive = 3
    budget_percent: Percent = 10
    budget_reserve: Count = 10
    backoff_s: Seconds = 0.25
    longest_backoff_s: Seconds = 4.0
    longest_retry_after_s: Seconds = 5.0
    preamble_s: Seconds = 0.25

    def rules(self) -> RetryRules:
        """As routing takes them."""
        from gateway.routing.rules import RetryRules

        return RetryRules(**self.model_dump())


class OwnRetrySettings(Section):
    """What a provider or worker has of its own; the rest is as in [retry]."""

    attempts: Positive | None = None
    budget_percent: Percent | None = None
    budget_reserve: Count | None = None
    backoff_s: Seconds | None = None
    longest_backoff_s: Seconds | None = None
    longest_retry_after_s: Seconds | None = None


class BreakerSettings(Section):
    """When a target gets no calls for a while."""

    consecutive_failures: Positive = 5
    error_percent: SomePercent = 50
    min_calls: Positive = 20
    window_s: SomeSeconds = 30.0
    open_s: SomeSeconds = 5.0
    longest_open_s: SomeSeconds = 60.0
    close_after: Positive = 2
    max_ejected_percent: Percent = 50
    probe_every_s: SomeSeconds = 2.0

    def rules(self) -> BreakerRules:
        """As routing takes them."""
        from gateway.routing.rules import BreakerRules

        return BreakerRules(**self.model_dump())


class OwnBreakerSettings(Section):
    """What a provider or worker has of its own; the rest is as in [breaker]."""

    consecutive_failures: Positive | None = None
    error_percent: SomePercent | None = None
    min_calls: Positive | None = None
    window_s: SomeSeconds | None = None
    open_s: SomeSeconds | None = None
    longest_open_s: SomeSeconds | None = None
    close_after: Positive | None = None
    probe_every_s: SomeSeconds | None = None


class HedgeSettings(Section):
    """A second attempt beside one that takes long."""

    enabled: bool = False
    percentile: SomePercent = 95
    min_samples: Positive = 50
    min_delay_ms: Count = 20
    routes: Names = ("embeddings", "moderations")

    def rules(self) -> HedgeRules:
        """As routing takes them."""
        from gateway.routing.rules import HedgeRules

        return HedgeRules(**{**self.model_dump(), "routes": frozenset(self.routes)})
