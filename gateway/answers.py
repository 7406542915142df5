"""Answers kept to be given again, and those under way that others wait for. Outlives pipelines and reloads."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.clock import Clock
from gateway.deadline import within
from gateway.errors import Header
from gateway.interest import Interest
from gateway.metrics import Metrics
from gateway.scheduler import Loans
from gateway.usage import Usage
from gateway.wishes import deadline_wished

if TYPE_CHECKING:
    from gateway.alike import Alike
    from gateway.call import Call
    from gateway.embedding import Embedder

#: What an entry costs besides its answer.
_OVERHEAD_BYTES = 1_024


@dataclass(slots=True)
class Answer:
    """A complete answer. `chunks` are those of a stream as they went out, or the one body. Instants are monotonic."""

    key: str  # by which it is found; told in header x-tidegate-cache-key
    org: str
    client: str
    model: str  # the name it was asked of: a public one, or an alias
    served: str  # the public name of the model that made it
    provider: str
    call: str  # the id of the call that made it
    status: int
    headers: tuple[Header, ...]
    is_stream: bool
    chunks: tuple[bytes, ...]
    cost_pusd: int
    made_ns: int
    expires_ns: int
    usage: Usage | None = None  # what its call was billed by
    question: str | None = field(default=None, compare=False)  # the digest that rows keep, once a hit has needed it

    @property
    def size(self) -> int:
        """Bytes it takes, about."""
        return _OVERHEAD_BYTES + sum(map(len, self.chunks))


class Flight:
    """One call that is being made, and those who wait for the same answer."""

    __slots__ = ("call", "done", "followers", "form", "interest", "loans", "share_pusd")

    def __init__(self, interest: Interest, call: str, form: bytes = b"") -> None:
        self.interest = interest
        self.form = form  # in which its answer will be
        self.call = call  # the id of the call that leads
        self.loans = Loans()  # what the followers lend it
        self.followers = 0
        self.share_pusd: int | None = None  # what each follower bears of the cost, once it has landed; None: nothing
        self.done: asyncio.Future[Answer | None] | None = None  # made for the first follower

    async def answer(self) -> Answer | None:
        """Waits for it; None: it came to nothing that others may have. Who is cancelled has lost interest."""
        if self.done is None:
            self.done = asyncio.get_running_loop().create_future()
        self.interest.join()
        self.followers += 1
        try:
            return await asyncio.shield(self.done)
        finally:
            self.followers -= 1
            self.interest.leave()

    def land(self, answer: Answer | None) -> None:
        """Tells those who wait."""
        if self.done is not None:
            self.done.set_result(answer)


class Answers:
    """The least recently used go first when `max_bytes` is reached."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self.max_bytes = 256 * 1024 * 1024
        self._now = clock.now_ns
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()
        self._flights: dict[bytes, Flight] = {}
        self.kept_bytes = 0
        self.purges = 0  # so far; what was under way then may be of those that were wanted gone
        self.alike: Alike | None = None  # where answers are found by likeness
        self.embedder: Embedder | None = None
        metrics.gauge("tidegate_cache_bytes", "Answers kept to be given again.", lambda: [((), float(self.kept_bytes))])
        metrics.gauge("tidegate_cache_entries", "How many of them.", lambda: [((), float(len(self._kept)))])
        metrics.gauge("tidegate_cache_followers", "Calls that wait for another one's answer.", self._followers)

    async def wait(self, call: Call, flight: Flight) -> Answer | None:
        """The answer that another call brings, if it does so in time for this one."""
        return await within(deadline_wished(call), self._now(), flight.answer())

    def get(self, key: bytes) -> Answer | None:
        """The answer of that key, if it is still good."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found.expires_ns <= self._now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, answer: Answer, purges: int | None = None) -> None:
        """Keeps an answer in place of an older one. `purges`: how many there had been when it was asked for; it is not
        kept if there was one since."""
        if purges is not None and purges != self.purges:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = answer
        self.kept_bytes += answer.size
        while self.kept_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))

    def flight(self, key: bytes) -> Flight | None:
        """The call with that key that is being made now."""
        return self._flights.get(key)

    def take_off(self, key: bytes, interest: Interest, call: str, form: bytes = b"") -> Flight:
        """The caller makes the call of that id; others may follow it until it has landed."""
        flight = self._flights[key] = Flight(interest, call, form)
        return flight

    def call_off(self, interest: Interest) -> None:
        """The call that it belongs to will bring nothing that others may have: they need not wait for its end."""
        for key in [key for key, flight in self._flights.items() if flight.interest is interest]:
            self._flights.pop(key).land(None)

    def land(self, key: bytes, interest: Interest, answer: Answer | None) -> None:
        """The call ended; None: with nothing that others may have, so that one of them makes it anew."""
        flight = self._flights.get(key)
        if flight is None or flight.interest is not interest:
            return  # called off before
        del self._flights[key]
        interest.settle()
        flight.land(answer)

    def purge(self, wanted: Callable[[Answer], bool]) -> int:
        """Forgets the answers that are wanted gone; how many those were."""
        self.purges += 1
        gone = [key for key, answer in self._kept.items() if wanted(answer)]
        for key in gone:
            self._drop(key)
        return len(gone)

    def _drop(self, key: bytes) -> None:
        self.kept_bytes -= self._kept.pop(key).size

    def _followers(self) -> list[tuple[tuple[str, ...], float]]:
        return [((), float(sum(flight.followers for flight in self._flights.values())))]
