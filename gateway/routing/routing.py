"""Routing as the rest of the gateway sees it: ranks a call's targets, plans its attempts, outlives reloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.routing.attempts import Attempts
from gateway.routing.balance import Balancer
from gateway.routing.keyring import Credential, Keyring
from gateway.routing.probes import Prober
from gateway.routing.rules import Rules
from gateway.routing.standings import Standings

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.providers.base import Provider
    from gateway.providers.faults import Fault
    from gateway.targets import Target


class Routing:
    """Made once; `configure` at the start and at every reload. `random` is the caller's, so that tests own it."""

    def __init__(
        self, clock: Clock, events: Events, metrics: Metrics, rules: Rules | None = None, random: Random | None = None
    ) -> None:
        self.rules = Rules() if rules is None else rules
        self.now_ns = clock.now_ns
        self.wall_ns = clock.wall_ns
        self.standings = Standings(self.rules, clock, events, metrics)
        self._random = Random() if random is None else random
        self.draw = self._random.random
        self._balancer = Balancer(self.standings, self._random)
        self._keyrings: dict[str, Keyring] = {}
        self.has_keyrings = False  # whether any provider has several credentials
        self.prober = Prober(self.standings, clock)
        self.standings.on_open = self.prober.watch
        self._failures = metrics.counter(
            "tidegate_upstream_failures_total",
            "Failed exchanges, by row of the failure table.",
            ("provider", "failure"),
        )
        self._repeats = metrics.counter(
            "tidegate_repeated_attempts_total", "Further attempts of a call, by why.", ("provider", "why")
        )

    def configure(self, rules: Rules, providers: Iterable[Provider]) -> None:
        """The rules and providers in force from now on. What is known of those that stay is kept."""
        self.rules = rules
        known = list(providers)
        own = {one.place: rules.own(one.retry, one.breaker) for one in known if one.retry or one.breaker}
        self.standings.rule(rules, own)
        self.standings.keep([provider.place for provider in known])
        self.prober.configure(known)
        keyrings = {}
        for provider in known:
            if len(provider.credentials) > 1:
                keyrings[provider.place] = self._keyring(provider)
        self._keyrings, self.has_keyrings = keyrings, bool(keyrings)

    def rank(self, targets: list[Target]) -> list[Target]:
        """In the order in which they should be tried now."""
        if len(targets) < 2:
            return targets
        return self._balancer.rank(targets, self.now_ns(), self.rules.breaker.max_ejected_percent)

    def attempts(self, call: Call, once: bool) -> Attempts:
        """The plan of a call that is about to be sent."""
        return Attempts(self, call, once)

    def out(self, targets: Sequence[Target], now_ns: int) -> list[Target]:
        """Those of a call's targets that get no call now."""
        return self._balancer.out(targets, now_ns, self.rules.breaker.max_ejected_percent)

    def keyring(self, provider: Provider) -> Keyring | None:
        """The credentials of a provider that has several."""
        return self._keyrings.get(provider.place) if self.has_keyrings else None

    def snapshot(self) -> list[dict[str, Any]]:
        """How every target stands, for pages."""
        rows, now_ns = self.standings.snapshot(), self.now_ns()
        for row in rows:
            keyring = None if row["model"] else self._keyrings.get(row["provider"])
            if keyring is not None:
                row["keys"] = [one.shown(now_ns) for one in keyring.credentials]
        return rows

    def count_failure(self, target: Target, fault: Fault) -> None:
        """For the metrics."""
        self._failures.add((target.provider.place, fault.name))

    def count_repeat(self, target: Target, why: str) -> None:
        """For the metrics: a retry, a failover, a hedge."""
        self._repeats.add((target.provider.place, why))

    async def aclose(self) -> None:
        """Ends the probes."""
        await self.prober.aclose()

    def _keyring(self, provider: Provider) -> Keyring:
        """With what was learnt of the keys that it had before."""
        before = self._keyrings.get(provider.place)
        known = [] if before is None else before.credentials
        kept = [next((one for one in known if one.headers == headers), None) for headers in provider.credentials]
        return Keyring(
            [
                Credential(headers) if one is None else one
                for one, headers in zip(kept, provider.credentials, strict=True)
            ],
            self._random,
        )
