"""What time it is: monotonic for durations inside the process, wall for what is stored. Injected, so tests own it."""

from __future__ import annotations

import time


class Clock:
    """The system's clocks, in whole nanoseconds."""

    def now_ns(self) -> int:
        """Monotonic; never jumps, means nothing outside this process."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Since the epoch, UTC; may jump."""
        return time.time_ns()


class ManualClock(Clock):
    """A clock that moves only when told; for tests and simulations."""

    def __init__(self, now_ns: int = 1_000_000_000_000, wall_ns: int = 1_750_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._wall_ns = wall_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward."""
        self._now_ns += round(seconds * 1e9)
        self._wall_ns += round(seconds * 1e9)

    def jump_wall(self, seconds: float) -> None:
        """Moves the wall clock alone, as an operator or NTP would."""
        self._wall_ns += round(seconds * 1e9)
