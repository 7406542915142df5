"""Knows what the fake provider has seen: calls, how many at once, over-admissions, calls its clients gave up."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.demo.exchange import Exchange, Reply

KEPT = 10_000  # cancelled calls remembered


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A call whose client left before its answer was whole.

    at: when the disconnect was seen, in seconds since the epoch; after_ms: since the request was whole;
    events: how much of the stream had been written.
    """

    id: str
    route: str
    attempt: str
    nonce: str
    at: float
    after_ms: float
    events: int


@dataclass(slots=True)
class Stats:
    """Counters since the start, or since the last reset. Calls to /fake are not counted."""

    calls: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    over_admissions: int = 0
    aborted_requests: int = 0  # clients that left before their request was whole
    bad_requests: int = 0  # bytes that were not HTTP
    failures: int = 0  # errors of the fake provider itself: a test should find none
    connections: int = 0
    open_connections: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cancelled_calls: int = 0
    cancelled: deque[Cancelled] = field(default_factory=lambda: deque(maxlen=KEPT))
    routes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def begin(self, exchange: Exchange, reply: Reply) -> None:
        """A request is whole and its answer decided."""
        self.calls += 1
        self.in_flight += 1
        if self.in_flight > self.max_in_flight:
            self.max_in_flight = self.in_flight
        self.routes[exchange.route] += 1
        self.statuses[reply.status] += 1
        self.models[exchange.model] += 1
        self.input_tokens += reply.usage.input
        self.cached_tokens += reply.usage.cached
        self.output_tokens += reply.usage.output

    def cancel(self, exchange: Exchange, elapsed_s: float) -> None:
        """The client left in the middle."""
        self.cancelled_calls += 1
        self.cancelled.append(
            Cancelled(
                exchange.id,
                exchange.route,
                exchange.attempt,
                exchange.nonce.decode("latin-1"),
                time.time(),
                round(elapsed_s * 1000, 3),
                exchange.sent,
            )
        )

    def clear(self) -> None:
        """Back to zero; what is open or in flight stays counted."""
        fresh = Stats(in_flight=self.in_flight, max_in_flight=self.in_flight, open_connections=self.open_connections)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def told(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        told: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        told["cancelled"] = [{name: getattr(one, name) for name in Cancelled.__slots__} for one in self.cancelled]
        told["statuses"] = {str(status): count for status, count in self.statuses.items()}
        return told
