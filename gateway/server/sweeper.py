"""Sweeper: one timer that closes the connections whose time is up.

A timer for each request costs more than the request's own bookkeeping; looking at 10,000 connections four times a
second costs about 1 ms each time.
"""

import asyncio
from typing import Protocol

NEVER = float("inf")


class Timed(Protocol):
    """Something with a deadline, and bytes that wait for a client."""

    deadline: float

    @property
    def unsent(self) -> int: ...


class Swept(Protocol):
    """A connection and its writing side, each with a deadline in the loop's time, NEVER while nothing is due."""

    deadline: float

    @property
    def outflow(self) -> Timed: ...

    def expire(self, now: float) -> None:
        """Act on the deadline that has passed."""

    def drop(self) -> None:
        """End it at once."""


class Sweeper:
    """Looks at all connections each `interval_s`, and sleeps while there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float, max_unsent_bytes: int = 0) -> None:
        self.interval_s = interval_s
        self._max_unsent_bytes = max_unsent_bytes
        self._loop = loop
        self._connections: set[Swept] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Swept) -> None:
        """Watch a connection."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(self.interval_s, self._sweep)

    def discard(self, connection: Swept) -> None:
        """Stop watching a connection."""
        self._connections.discard(connection)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        now = self._loop.time()
        due = [each for each in self._connections if each.deadline <= now or each.outflow.deadline <= now]
        self._timer = self._loop.call_later(self.interval_s, self._sweep)
        for connection in due:
            connection.expire(now)
        if self._max_unsent_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Clients who don't read must not fill our memory: those who have most waiting go first."""
        slow = [(unsent, each) for each in self._connections if (unsent := each.outflow.unsent)]
        total = sum(unsent for unsent, _ in slow)
        if total <= self._max_unsent_bytes:
            return
        for unsent, connection in sorted(slow, key=lambda one: one[0], reverse=True):
            connection.drop()
            total -= unsent
            if total <= self._max_unsent_bytes:
                return
