"""What the queue is told by its policy, and the points of a call's priority (reference, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.scheduler.waiter import Placement
from gateway.wishes import Urgency

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
#: A point for every five minutes of waiting, at most twenty.
AGING_NS = 300 * SECOND_NS
MOST_AGING = 20
URGENCY_POINTS: dict[Urgency, int] = {"urgent": 30, "high": 20, "normal": 10, "low": 0}
#: Every so many'th contended grant is the oldest starved call's (TERMS 2).
STARVED_EVERY = 4
#: Bands of 10 points: 0..9, 10..19, ..., 100.
BANDS = 11


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """[policy.queue]; see there."""

    max_waiting: int = 1000
    max_waiting_per_client: int = 200
    max_waiting_bytes: int = 256 * 1_048_576
    starvation_s: float = 600.0
    floor_percent: int = 5

    @property
    def short_body(self) -> int:
        """Bytes of a body that always finds room: all that may wait of this length come to no more than the bound."""
        return self.max_waiting_bytes // self.max_waiting

    @property
    def floor_every(self) -> int:
        """Every so many'th contended grant is the lowest band's; 0: none."""
        return 100 // self.floor_percent if self.floor_percent else 0

    @property
    def floor_places(self) -> int:
        """Places of a full queue that its lowest band keeps, so that it has somebody to grant."""
        return -(-self.max_waiting * self.floor_percent // 100)


def priority(placement: Placement, waited_ns: int, requests: int, now: int) -> int:
    """0..100: tier, urgency, waiting, fairness (`requests` of the client in this hour), deadline."""
    points = placement.points + URGENCY_POINTS[placement.urgency]
    if waited_ns >= AGING_NS:
        points += min(MOST_AGING, waited_ns // AGING_NS)
    if requests < 100:
        points += 10 - requests // 10
    if placement.deadline_ns is not None:
        left = placement.deadline_ns - now
        points += 10 if left <= HOUR_NS else 5 if left <= DAY_NS else 0
    return 0 if points < 0 else points if points < 100 else 100


def next_change(placement: Placement, arrived_ns: int, now: int) -> int | None:
    """When the passing of time alone next changes the priority of a call that waits; None: never."""
    aged = (now - arrived_ns) // AGING_NS
    if placement.deadline_ns is None:
        return arrived_ns + (aged + 1) * AGING_NS if aged < MOST_AGING else None
    moments = [arrived_ns + (aged + 1) * AGING_NS] if aged < MOST_AGING else []
    near = (placement.deadline_ns - DAY_NS, placement.deadline_ns - HOUR_NS)
    return min([*moments, *(moment for moment in near if moment > now)], default=None)
