"""When calls of low urgency are served: outside the peak hours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from gateway.call import Call
from gateway.errors import RateLimited
from gateway.peaks import EndingWindows, Peaks, ZoneName
from gateway.policy import Gate, Policy
from gateway.ratelimit import span
from gateway.wishes import at_most, urgency_of

_SECOND_NS = 1_000_000_000


@dataclass
class Offpeak(Policy):
    """In peak hours a call of urgency `low` waits for their end, if that is near, or is told when to come back."""

    peak: EndingWindows = ()
    time_zone: ZoneName = "UTC"
    #: Of jobs; HTTP calls wait at most [server] http_wait_cap_s.
    longest_wait_s: Annotated[float, Field(gt=0)] = 14_400.0

    after: ClassVar[tuple[str, ...]] = ("identity", "access", "cache")

    def __post_init__(self) -> None:
        self._peaks = Peaks(self.peak, self.time_zone)

    def provide(self, gate: Gate) -> None:
        self._scheduler = gate.scheduler
        self._clock = gate.clock

    def apply(self, call: Call) -> None:
        if not self._peaks:
            return
        claimed, most = urgency_of(call), self._scheduler.claims.get(call.client.tier.name, "normal")
        if at_most(claimed or "normal", most) != "low":
            return
        wall_ns = self._clock.wall_ns()
        end_ns = self.peak_ends(wall_ns)
        if not end_ns:
            return
        wait_ns = end_ns - wall_ns
        longest_s = min(self.longest_wait_s, self._scheduler.http_wait_cap_s)
        if wait_ns > longest_s * _SECOND_NS:
            wait_s = wait_ns / _SECOND_NS
            raise RateLimited(
                f"These are peak hours ({self._said()}), and calls of priority low are served off-peak. "
                f"Try again in {span(wait_s)}, or with another x-tidegate-priority.",
                code="off_peak_only",
                retry_after_s=wait_s,
            )
        call.not_before_ns = self._clock.now_ns() + wait_ns

    def peak_ends(self, wall_ns: int) -> int:
        """When the peak that it is now ends, in ns since the epoch; 0: it is off-peak. For jobs as well."""
        return self._peaks.end(wall_ns)

    def _said(self) -> str:
        windows = self.peak if isinstance(self.peak, str) else ", ".join(self.peak)
        return f"{windows} {self.time_zone}"
