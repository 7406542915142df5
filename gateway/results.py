"""The first result of each idempotency key: under way, among the latest in memory, or in the records."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Protocol

from gateway.call import Call
from gateway.clock import Clock
from gateway.deadline import within
from gateway.interest import Interest
from gateway.metrics import Metrics
from gateway.records.rows import ResultRow
from gateway.wishes import deadline_wished

__all__ = ["ResultRow", "Results", "Shelf", "UnderWay", "id_of"]

#: What an entry costs besides its answer.
_OVERHEAD_BYTES = 1_024


def id_of(org: str, client: str, key: bytes) -> str:
    """A client's key as a name among those of all orgs and clients; upstream is sent this one."""
    return hashlib.sha256(f"{org}\0{client}\0".encode() + key).hexdigest()[:40]


class Shelf(Protocol):
    """Where results last."""

    def add(self, row: ResultRow) -> None:
        """Keeps a result; returns at once."""

    async def find(self, id: str) -> ResultRow | None:
        """A result that was kept and has not expired, with its answer."""


class UnderWay:
    """The one execution of a key. `done` gives its result, or None if it came to nothing that may be kept."""

    __slots__ = ("done", "fingerprint", "interest", "waiting")

    def __init__(self, fingerprint: bytes, interest: Interest) -> None:
        self.fingerprint = fingerprint
        self.interest = interest
        self.waiting = 0
        self.done: asyncio.Future[ResultRow | None] = asyncio.get_running_loop().create_future()

    async def result(self) -> ResultRow | None:
        """Waits for it. Whoever is cancelled while waiting has lost interest."""
        self.interest.join()
        self.waiting += 1
        try:
            return await asyncio.shield(self.done)
        finally:
            self.waiting -= 1
            self.interest.leave()


class Results:
    """One for the process: outlives pipelines and reloads. `max_bytes` bounds what is kept in memory."""

    def __init__(self, shelf: Shelf, clock: Clock, metrics: Metrics) -> None:
        self.max_bytes = 64 * 1024 * 1024
        self._shelf = shelf
        self._wall_ns = clock.wall_ns
        self._now_ns = clock.now_ns
        self._under_way: dict[str, UnderWay] = {}
        self._latest: OrderedDict[str, ResultRow] = OrderedDict()
        self.kept_bytes = 0
        metrics.gauge("tidegate_idempotency_bytes", "Results kept in memory.", lambda: [((), float(self.kept_bytes))])
        metrics.gauge("tidegate_idempotency_waiting", "Calls that wait for the first one's result.", self._waiting)

    def under_way(self, id: str) -> UnderWay | None:
        """The execution of a key that is running now."""
        return self._under_way.get(id)

    async def wait(self, call: Call, running: UnderWay) -> ResultRow | None:
        """The result that another call with the same key brings, if it does so in time for this one."""
        return await within(deadline_wished(call), self._now_ns(), running.result())

    async def begin(self, id: str, fingerprint: bytes, interest: Interest) -> ResultRow | None:
        """Claims a key that nobody has under way. A result means that there is one already; None that the caller
        executes, and has to `finish`."""
        known = self._remembered(id)
        if known is not None:
            return known
        mine = self._under_way[id] = UnderWay(fingerprint, interest)
        found: ResultRow | None = None
        try:
            found = await self._shelf.find(id)
            if found is not None:
                self._remember(found)
        except BaseException:
            self._conclude(id, mine, None)
            raise
        if found is not None:
            self._conclude(id, mine, found)
        return found

    def finish(self, id: str, row: ResultRow | None) -> None:
        """The execution ended; `row` None: with nothing that may be kept, so that the next one executes."""
        if row is not None:
            self._shelf.add(row)
            self._remember(row)
        mine = self._under_way.get(id)
        if mine is not None:
            self._conclude(id, mine, row)

    def forget(self, org: str) -> None:
        """After the org's erasure."""
        for id in [id for id, row in self._latest.items() if row.org == org]:
            self._drop(id)

    def _waiting(self) -> list[tuple[tuple[str, ...], float]]:
        return [((), float(sum(one.waiting for one in self._under_way.values())))]

    def _conclude(self, id: str, mine: UnderWay, row: ResultRow | None) -> None:
        del self._under_way[id]
        mine.interest.settle()
        mine.done.set_result(row)

    def _remembered(self, id: str) -> ResultRow | None:
        row = self._latest.get(id)
        if row is None:
            return None
        if row.expires_wall_ns <= self._wall_ns():
            self._drop(id)
            return None
        self._latest.move_to_end(id)
        return row

    def _remember(self, row: ResultRow) -> None:
        if row.id in self._latest:
            self._drop(row.id)
        self._latest[row.id] = row
        self.kept_bytes += _size(row)
        while self.kept_bytes > self.max_bytes:
            self._drop(next(iter(self._latest)))

    def _drop(self, id: str) -> None:
        self.kept_bytes -= _size(self._latest.pop(id))


def _size(row: ResultRow) -> int:
    return _OVERHEAD_BYTES + (0 if row.answer is None else len(row.answer))
