"""What time it is: monotonic for durations inside the process, wall for what is stored. Injected, so tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """The system's clocks, in whole nanoseconds."""

    def __init__(self) -> None:
        # The functions themselves: they are asked a dozen times a call.
        self.now_ns: Callable[[], int] = time.monotonic_ns  # never jumps, means nothing outside this process
        self.wall_ns: Callable[[], int] = time.time_ns  # since the epoch, UTC; may jump


class ManualClock(Clock):
    """A clock that moves only when told; for tests and simulations."""

    def __init__(self, now_ns: int = 1_000_000_000_000, wall_ns: int = 1_750_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self.now_ns = lambda: self._now_ns
        self.wall_ns = lambda: self._wall_ns

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward."""
        self._now_ns += round(seconds * 1e9)
        self._wall_ns += round(seconds * 1e9)

    def jump_wall(self, seconds: float) -> None:
        """Moves the wall clock alone, as an operator or NTP would."""
        self._wall_ns += round(seconds * 1e9)
