"""What is due when: one heap of moments and one timer of the loop for all who wait."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Protocol

from gateway.scheduler.settings import SECOND_NS

SLACK = 64


class Due(Protocol):
    """Something with a next moment; older entries of it are stale."""

    due_ns: int

    def __lt__(self, other: object) -> bool: ...


class Agenda:
    """`ring` is called, at the loop's own time, once something is due."""

    def __init__(self, now: Callable[[], int], ring: Callable[[], None]) -> None:
        self._now = now
        self._ring = ring
        self._heap: list[tuple[int, Due]] = []
        self._timer: TimerHandle | None = None
        self._armed_ns = 0

    def put(self, thing: Due, when_ns: int) -> None:
        """Its next moment; replaces the one before."""
        thing.due_ns = when_ns
        heappush(self._heap, (when_ns, thing))

    def tidy(self, living: int) -> None:
        """Sweeps stale entries out when there are more of them than things that live."""
        if len(self._heap) > 2 * living + SLACK:
            self._heap = [one for one in self._heap if one[1].due_ns == one[0]]
            heapify(self._heap)

    def due(self, now: int) -> Iterator[Due]:
        """What is due, each once; what is put while this goes on and due already comes as well."""
        while self._heap and self._heap[0][0] <= now:
            when, thing = heappop(self._heap)
            if thing.due_ns == when:
                thing.due_ns = 0
                yield thing

    def arm(self, loop: AbstractEventLoop) -> None:
        """Sets the loop's timer to the earliest moment."""
        heap = self._heap
        while heap and heap[0][1].due_ns != heap[0][0]:
            heappop(heap)
        if not heap:
            self.disarm()
        elif self._timer is None or heap[0][0] != self._armed_ns:
            self.disarm()
            self._armed_ns = heap[0][0]
            self._timer = loop.call_later(max(0, self._armed_ns - self._now()) / SECOND_NS, self._rang)

    def _rang(self) -> None:
        self._timer = None
        self._ring()

    def disarm(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        self.disarm()
        self._heap.clear()
