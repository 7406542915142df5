"""All standings by name, and what outlives a reload; tells events and metrics, and shows everything in one list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.routing.breaker import Breaker
from gateway.routing.rules import Rules
from gateway.routing.standing import Place, Standing

if TYPE_CHECKING:
    from gateway.targets import Target

#: Wildcards make as many upstream models as clients can think of: of idle, healthy ones so many a provider are kept.
MOST_MODELS = 1024

#: What paths without a model (files, batches) count under; "" is the provider as a whole.
NO_MODEL = "(no model)"

_LEVELS = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class Standings:
    """`on_open(provider)` is called when a breaker of that provider opens."""

    def __init__(self, rules: Rules, clock: Clock, events: Events, metrics: Metrics) -> None:
        self._rules = rules
        self._own: Mapping[str, Rules] = {}  # of providers that have some of their own
        self._clock = clock
        self._events = events
        self._places: dict[str, Place] = {}
        self.on_open: Callable[[str], None] = lambda provider: None
        self._changes = metrics.counter(
            "tidegate_breaker_changes_total", "Changes of circuit breakers.", ("provider", "model", "state")
        )
        metrics.gauge(
            "tidegate_breaker_state",
            "0 closed, 0.5 half-open, 1 open; of what was not closed all along.",
            self._levels,
            ("provider", "model"),
        )
        metrics.gauge(
            "tidegate_retry_budget_tokens", "Repeated exchanges that may be made now.", self._budgets, ("provider",)
        )

    def of(self, target: Target) -> Standing:
        """The standing of a target, made where there was none."""
        name, model = target.provider.place, target.upstream_model or NO_MODEL
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = self._place(name)
        found = place.standings.get(model)
        return self._standing(place, model) if found is None else found

    def rule(self, rules: Rules, own: Mapping[str, Rules] | None = None) -> None:
        """Other rules from now on, after a reload. `own`: by provider, where they are other ones."""
        self._rules, self._own = rules, own or {}
        for place in self._places.values():
            place.rule(self.rules_of(place.name))

    def rules_of(self, name: str) -> Rules:
        """Those of a provider."""
        return self._own.get(name, self._rules)

    def keep(self, names: Collection[str]) -> None:
        """Knows the providers that are configured, and forgets the others."""
        self._places = {name: self._places.get(name) or self._place(name) for name in names}

    def open_breakers(self, provider: str) -> list[Breaker]:
        """Those of one provider that let nothing pass now."""
        place = self._places.get(provider)
        if place is None:
            return []
        every = [place.breaker, *(standing.breaker for standing in place.standings.values())]
        return [breaker for breaker in every if breaker.state == "open"]

    def snapshot(self) -> list[dict[str, Any]]:
        """A row a target, and one for each provider as a whole (`model` ""): for pages, not for decisions."""
        now_ns, wall_ns = self._clock.now_ns(), self._clock.wall_ns()
        rows = []
        for place in self._places.values():
            rows.append(_row(place.breaker, now_ns, wall_ns) | {"retry_budget": round(place.repeats.tokens, 1)})
            for standing in place.standings.values():
                more = {
                    "outstanding": standing.outstanding,
                    "latency_ms": round(standing.latency_ns / 1e6, 3),
                    "aside_s": max(0.0, round((standing.aside_until_ns - now_ns) / 1e9, 3)),
                }
                rows.append(_row(standing.breaker, now_ns, wall_ns) | more)
        return rows

    def _place(self, name: str) -> Place:
        rules = self.rules_of(name)
        return Place(name, Breaker(name, "", rules.breaker, self._told), rules.retry)

    def _standing(self, place: Place, model: str) -> Standing:
        if len(place.standings) >= MOST_MODELS:
            busy = {
                name: standing
                for name, standing in place.standings.items()
                if standing.outstanding or standing.breaker.state != "closed"
            }
            place.standings = busy
        made = place.standings[model] = Standing(place, Breaker(place.name, model, place.breaker.rules, self._told))
        return made

    def _told(self, breaker: Breaker, why: str) -> None:
        self._changes.add((breaker.provider, breaker.model, breaker.state))
        self._events.emit(f"breaker_{breaker.state}", provider=breaker.provider, model=breaker.model, why=why)
        if breaker.state == "open":
            self.on_open(breaker.provider)

    def _breakers(self) -> Iterator[Breaker]:
        for place in self._places.values():
            yield place.breaker
            for standing in place.standings.values():
                yield standing.breaker

    def _levels(self) -> list[tuple[tuple[str, ...], float]]:
        return [
            ((breaker.provider, breaker.model), _LEVELS[breaker.state])
            for breaker in self._breakers()
            if breaker.changed_ns
        ]

    def _budgets(self) -> list[tuple[tuple[str, ...], float]]:
        return [((place.name,), place.repeats.tokens) for place in self._places.values()]


def _row(breaker: Breaker, now_ns: int, wall_ns: int) -> dict[str, Any]:
    good, bad = breaker.counts(now_ns)
    since_ns = wall_ns - (now_ns - breaker.changed_ns) if breaker.changed_ns else None
    return {
        "provider": breaker.provider,
        "model": breaker.model,
        "state": breaker.state,
        "since_wall_ns": since_ns,
        "reopens_in_s": max(0.0, (breaker.reopens_ns - now_ns) / 1e9) if breaker.state == "open" else None,
        "calls": good + bad,
        "failures": bad,
        "consecutive_failures": breaker.consecutive,
    }
