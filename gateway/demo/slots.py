"""Knows how many calls the fake provider serves at once, and who came when there was no room."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.demo.connection import Connection


class Slots:
    """A number of slots, each held by a connection from its request to the end of its answer."""

    def __init__(self, limit: int, queues: bool) -> None:
        self.limit = limit
        self.queues = queues
        self._held: set[Connection] = set()
        self._waiting: deque[tuple[Connection, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Slots in use; more than the limit where over-admitted calls are served."""
        return len(self._held)

    def has_room(self) -> bool:
        """True where a slot is free, counting those whose holders have hung up though we have not yet been told."""
        if len(self._held) < self.limit:
            return True
        self._held -= {holder for holder in self._held if hung_up(holder.fileno)}
        return len(self._held) < self.limit

    def take(self, connection: Connection) -> None:
        """Takes a slot, free or not."""
        self._held.add(connection)

    async def wait(self, connection: Connection) -> None:
        """Waits for a slot, first come first served, and takes it; not at all where it is held already."""
        if connection in self._held:
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((connection, granted))
        await granted

    def leave(self, connection: Connection) -> None:
        """Gives a slot back, or leaves the queue, and grants what has become free."""
        self._held.discard(connection)
        while self._waiting and len(self._held) < self.limit:
            waiter, granted = self._waiting.popleft()
            if not granted.done():
                self._held.add(waiter)
                granted.set_result(None)


def hung_up(fileno: int) -> bool:
    """True where the peer has closed its end, even if the loop has not yet reported it."""
    if fileno < 0:
        return True
    poll = select.poll()
    poll.register(fileno, select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
