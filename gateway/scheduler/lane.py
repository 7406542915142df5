"""Calls of one client that wait for the same limits in the same band: first come, first served."""

from __future__ import annotations

from asyncio import Future
from bisect import bisect_left
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from gateway.call import Held, Need
from gateway.scheduler.waiter import Option, Queued, Waiter

if TYPE_CHECKING:
    from gateway.scheduler.line import Line

#: Names of the lines at which a call's options would wait, one tuple an option.
Signature = tuple[tuple[str, ...], ...]
LaneKey = tuple[str, int, Signature]
#: Entries of calls that left are swept out of a heap when there are more of them than of others, and at least this.
SLACK = 32


class Entry:
    """One call in the queue. `lane` is None before its hour and after its end; `done` when it ended in any way."""

    __slots__ = (
        "arrived_ns",
        "band",
        "done",
        "due_ns",
        "ends_ns",
        "future",
        "lane",
        "naive_s",
        "options",
        "queued",
        "seq",
        "signature",
        "starved",
        "waiter",
    )

    def __init__(
        self, waiter: Waiter, queued: Queued, future: Future[Option], seq: int, now: int, ends_ns: int
    ) -> None:
        self.waiter = waiter
        self.queued = queued
        self.future = future
        self.seq = seq
        self.arrived_ns = now
        self.ends_ns = ends_ns
        self.band = 0
        self.due_ns = 0  # when time next matters to it; other entries of the agenda are stale
        self.lane: Lane | None = None
        self.naive_s: float | None = None  # None: not told its wait; its estimate before what was learned; 0: a guess
        self.starved = False
        self.done = False
        self.set_options(waiter.options)

    def set_options(self, options: Sequence[Option]) -> None:
        """What it can go on with. Where a limit has a part of the caller's own, that part is an option for itself,
        with a line for itself: who waits for the rest does not close it."""
        self.options = options
        signature, has_own = [], False
        for option in options:
            names = []
            for held in option.held:
                limit = held[1]
                names.append(limit.name)
                if limit.own is not None:
                    has_own = True
            signature.append(tuple(names))
        self.signature: Signature = tuple(signature)
        if has_own:
            both = [pair for option in options for pair in _with_own(option)]
            self.options = [option for option, _ in both]
            self.signature = tuple([names for _, names in both])

    @property
    def key(self) -> LaneKey:
        """Of the lane in which it stands."""
        return self.waiter.client, self.band, self.signature

    def forget(self) -> None:
        """It ended. Lists in which it still has a place keep nothing of its call, whose body may be long."""
        del self.waiter, self.options, self.future

    def __lt__(self, other: object) -> bool:
        return False  # what is due at the same moment has no order


def amount_of(entry: Entry, name: str) -> int:
    """What a call takes of the limit of that name, on the first option that needs it."""
    place = place_of(entry.signature, name)
    return 1 if place is None else entry.options[place[0]].held[place[1]][2]


def place_of(signature: Signature, name: str) -> tuple[int, int] | None:
    """The first option that needs the limit of that name, and where among its needs."""
    for index, names in enumerate(signature):
        if name in names:
            return index, names.index(name)
    return None


def _with_own(option: Option) -> list[tuple[Option, tuple[str, ...]]]:
    """An option on the caller's own parts and the option itself, each with the names of its lines."""
    held: list[Held] = []
    names: list[str] = []
    for need, limit, amount, attempt in option.held:
        own = limit.own if limit.own is not None and amount <= limit.own.capacity else None
        held.append((need, own or limit, amount, attempt))
        names.append(own.key if own is not None else limit.name)
    shared = option, tuple([limit.name for _, limit, _, _ in option.held])
    return [(Option(option.target, held), tuple(names)), shared] if tuple(names) != shared[1] else [shared]


class Spot:
    """One option of a lane, parked at a line whose limit it lacks (None: to be tried)."""

    __slots__ = ("index", "lane", "line", "stamp", "start", "tag")

    def __init__(self, lane: Lane, index: int) -> None:
        self.lane = lane
        self.index = index
        self.line: Line | None = None
        self.stamp = 0  # the newest of its entries in the line's heap; others are stale
        self.start = 0  # virtual start and finish of the lane's first call
        self.tag = 0


class Lane:
    """What one of them lacks, those behind it lack as well: only the first has to be tried."""

    __slots__ = (
        "_order",
        "_place",
        "_starved",
        "band",
        "client",
        "count",
        "fresh",
        "head",
        "home",
        "hopeless",
        "key",
        "spots",
        "untold",
    )

    def __init__(self, key: LaneKey, options: int) -> None:
        self.key = key
        self.client, self.band, _ = key
        self.count = 0
        self.head: Entry | None = None  # who came first
        self.spots = tuple([Spot(self, index) for index in range(options)])
        self.home: Line | None = None  # where its calls are counted for positions and estimates
        self.untold: list[Entry] | None = None  # came before there was a home: their place is told then
        self.hopeless: Need | None = None  # of an option that is out for good
        self.fresh = False  # on the list of those that are to be tried
        self._place: tuple[int, int] | None = None  # of the home among the options' needs
        self._order: list[Entry] = []  # by seq; calls that left stay until they surface
        self._starved: list[tuple[int, Entry]] | None = None

    def add(self, entry: Entry) -> None:
        entry.lane = self
        entry.signature = self.key[2]  # one object for all
        self.count += 1
        order = self._order
        if not order:
            order.append(entry)
            self.head = entry
        elif order[-1].seq < entry.seq:
            order.append(entry)
        else:  # it comes from another band
            place = bisect_left(order, entry.seq, key=_seq_of)
            if order[place] is not entry:  # it may still be where it was
                order.insert(place, entry)
            self.head = order[0]
        if entry.starved:
            self.starve(entry)

    def remove(self, entry: Entry) -> None:
        entry.lane = None
        self.count -= 1
        order = self._order
        if entry is self.head:
            gone, length = 1, len(order)
            while gone < length and order[gone].lane is not self:
                gone += 1
            del order[:gone]
            self.head = order[0] if gone < length else None
        if len(order) > 2 * self.count + SLACK:
            self._order = self.entries()

    def starve(self, entry: Entry) -> None:
        if self._starved is None:
            self._starved = []
        heappush(self._starved, (entry.seq, entry))

    def amount(self, entry: Entry) -> int:
        """What one of its calls takes at its home."""
        place = self._place
        return 1 if place is None else entry.options[place[0]].held[place[1]][2]

    def settle(self, home: Line) -> None:
        """Its calls are counted there from now on."""
        self.home = home
        self._place = place_of(self.key[2], home.name)

    @property
    def oldest_starved(self) -> Entry | None:
        heap = self._starved
        while heap and heap[0][1].lane is not self:
            heappop(heap)
        return heap[0][1] if heap else None

    def index(self, entry: Entry) -> int:
        """How many of its own lane are before it."""
        return 0 if self.head is entry else sum([one.seq < entry.seq for one in self.entries()])

    def entries(self) -> list[Entry]:
        """All who wait here, in the order they came."""
        return [entry for entry in self._order if entry.lane is self]


def _seq_of(entry: Entry) -> int:
    return entry.seq
