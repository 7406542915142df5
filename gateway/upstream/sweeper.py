"""Sweeper: the one timer that looks at all deadlines of a client, so that an exchange costs no timer of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

_COARSEST_S = 0.1
_FINEST_S = 0.005


def sweep_interval(bounds_s: Iterable[float | None]) -> float:
    """Seconds between two looks: an eighth of the shortest bound, within 5 and 100 ms."""
    shortest = min((bound for bound in bounds_s if bound), default=math.inf)
    return min(_COARSEST_S, max(_FINEST_S, shortest / 8))


class Sweeper:
    """Calls `sweep` every `interval_s` for as long as it answers that there is something left to watch."""

    __slots__ = ("_interval_s", "_loop", "_sweep", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float, sweep: Callable[[], bool]) -> None:
        self._loop = loop
        self._interval_s = interval_s
        self._sweep = sweep
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        if self._sweep():
            self.arm()
