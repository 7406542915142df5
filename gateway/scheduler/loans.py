"""Places in the queue that others lend the call they wait for: it counts as the highest of them all."""

from __future__ import annotations

from gateway.scheduler.settings import priority
from gateway.scheduler.waiter import Placement
from gateway.wishes import Urgency


class Loans:
    """Alike ones are counted, so that five hundred cost no more than one."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[Urgency, int, int | None], int] = {}

    def lend(self, placement: Placement) -> None:
        """One more waits for the call."""
        kind = placement.urgency, placement.points, placement.deadline_ns
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def take_back(self, placement: Placement) -> None:
        """One of them waits no more."""
        kind = placement.urgency, placement.points, placement.deadline_ns
        left = self._counts.pop(kind) - 1
        if left:
            self._counts[kind] = left

    def priority(self, waited_ns: int, requests: int, now: int) -> int:
        """0..100, of the highest; 0 where nothing is lent."""
        return max(
            [
                priority(Placement(urgency, points, 0.0, deadline_ns), waited_ns, requests, now)
                for urgency, points, deadline_ns in self._counts
            ],
            default=0,
        )
