"""The line at one limit that is lacking: bands of priority, within a band weighted fair queueing by virtual finish.

A client's first call finishes, in virtual time, at max(virtual time of the band, finish of the client's last granted
call) + tokens / weight, and the band's virtual time is the start of the last call that was granted (A. Demers et al.,
"Analysis and simulation of a fair queueing algorithm", 1989; P. Goyal et al., "Start-time fair queuing", 1997): clients
alternate by what their calls take, whatever the number of their calls.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from itertools import count

from gateway.scheduler.lane import Entry, Lane, Spot
from gateway.scheduler.pace import Pace
from gateway.scheduler.settings import BANDS, STARVED_EVERY
from gateway.scheduler.waiter import Waiter

#: Virtual time is whole: a token of weight 1 counts this much.
SCALE = 1000
#: A band remembers so many clients without a call in it before those that virtual time has passed are forgotten.
SLACK = 256


#: Calls ahead of one: in higher bands, and in its own.
Ahead = tuple[int, int]


def cost(waiter: Waiter) -> int:
    """Virtual time that a call takes: tokens over the tier's points / 10."""
    return waiter.tokens * SCALE * 10 // max(1, waiter.placement.points)


class Band:
    """The lanes of one band at one line."""

    __slots__ = ("finished", "heap", "lengths", "parked", "virtual")

    def __init__(self) -> None:
        self.virtual = 0
        self.finished: dict[str, int] = {}  # by client: the virtual finish of its last granted call
        self.heap: list[tuple[int, int, Spot]] = []
        self.parked = 0
        self.lengths: list[int] = []  # at n: how many of these lanes are longer than n

    def start(self, client: str) -> int:
        return max(self.virtual, self.finished.get(client, 0))

    def passed(self, client: str, start: int, finish: int) -> None:
        """A call of this client was granted."""
        if start > self.virtual:
            self.virtual = start
        self.finished[client] = finish
        if len(self.finished) > 2 * self.parked + SLACK:
            self.finished = {one: at for one, at in self.finished.items() if at > self.virtual}


class Line:
    """Everyone who lacks the limit of this name. Lives as long as somebody is parked here."""

    __slots__ = (
        "_mask",
        "_stamps",
        "_starved",
        "bands",
        "due_ns",
        "floor_every",
        "name",
        "pace",
        "parked",
        "since_floor",
        "since_starved",
        "waiting",
    )

    def __init__(self, name: str, pace: Pace, floor_every: int) -> None:
        self.name = name
        self.pace = pace
        self.floor_every = floor_every
        self.bands: list[Band | None] = [None] * BANDS
        self.waiting = [0] * BANDS  # calls of each band whose home this is
        self.parked = 0
        self.due_ns = 0  # when the first one's need will be there if nothing is given back before
        self.since_starved = 0  # contended grants since the oldest starved call had one
        self.since_floor = 0  # ... since the lowest band had one
        self._mask = 0  # bit n: somebody is parked in band n
        self._starved: list[tuple[int, int, Spot]] = []
        self._stamps = count(1)

    def __lt__(self, other: object) -> bool:
        return False  # what is due at the same moment has no order

    def band(self, number: int) -> Band:
        found = self.bands[number]
        if found is None:
            found = self.bands[number] = Band()
        return found

    def grow(self, number: int, length: int) -> None:
        """A lane of that band became one longer than `length`."""
        lengths = (self.bands[number] or self.band(number)).lengths
        if length == len(lengths):
            lengths.append(1)
        else:
            lengths[length] += 1
        self.waiting[number] += 1

    def shrink(self, number: int, length: int) -> None:
        """A lane of that band was `length` long and is one shorter now."""
        band = self.bands[number]
        assert band is not None, "the lane was counted there"
        band.lengths[length - 1] -= 1
        self.waiting[number] -= 1

    def park(self, spot: Spot) -> None:
        """From now on this spot waits here."""
        if spot.line is not None:
            spot.line.unpark(spot)
        lane = spot.lane
        band = self.band(lane.band)
        spot.line = self
        self.parked += 1
        band.parked += 1
        self._mask |= 1 << lane.band
        spot.start = band.start(lane.client)
        self.push(spot)
        self.push_starved(spot)

    def unpark(self, spot: Spot) -> None:
        number = spot.lane.band
        band = self.band(number)
        spot.line = None
        self.parked -= 1
        band.parked -= 1
        if not band.parked:
            self._mask &= ~(1 << number)
            band.heap.clear()

    def push(self, spot: Spot) -> None:
        """Puts a parked spot in its place, after its lane's first call or what it starts from has changed."""
        head = spot.lane.head
        assert head is not None, "empty lanes are not parked"
        stamp = spot.stamp = next(self._stamps)
        tag = spot.tag = spot.start + cost(head.waiter)
        band = self.bands[spot.lane.band]
        assert band is not None, "it is parked there"
        heap = band.heap
        if heap and heap[0][2] is spot:  # where it stood before
            heapreplace(heap, (tag, stamp, spot))
        else:
            heappush(heap, (tag, stamp, spot))
        if len(heap) > 4 * band.parked + SLACK:
            heap[:] = sorted(one for one in heap if one[2].line is self and one[2].stamp == one[1])

    def push_starved(self, spot: Spot) -> None:
        """After a call of a parked lane became starved."""
        oldest = spot.lane.oldest_starved
        if oldest is not None:
            heappush(self._starved, (oldest.seq, next(self._stamps), spot))

    def may_be_next(self, spot: Spot) -> bool:
        """Whether it could be this one's turn: what changes elsewhere in the line changes nothing for now."""
        if self._starved or (self.floor_every and self.since_floor >= self.floor_every - 1):
            return True
        number = spot.lane.band
        band = self.bands[number]
        if self._mask >> (number + 1) or band is None or not band.heap:
            return False
        heap = band.heap
        _, stamp, first = heap[0]
        return first is spot or first.line is not self or first.stamp != stamp

    def turn(self) -> tuple[Spot, Entry] | None:
        """Whose turn it is: every fourth contended grant the oldest starved call's, then and when the lowest band's,
        else the first of the highest band."""
        if self.since_starved >= STARVED_EVERY - 1 and self._starved:
            found = self._oldest_starved()
            if found is not None:
                return found
        mask = self._mask
        if not mask:
            return None
        if self.floor_every and self.since_floor >= self.floor_every - 1:
            mask &= -mask
        spot = self._top(mask.bit_length() - 1)
        head = spot.lane.head
        assert head is not None, "empty lanes are not parked"
        return spot, head

    def is_before(self, entry: Entry, lane: Lane) -> bool:
        """Whether somebody who waits here goes before that call, which does not (yet)."""
        if not self._mask:
            return False
        if self.since_starved >= STARVED_EVERY - 1 and self._starved:
            found = self._oldest_starved()
            if found is not None:
                return found[1] is not entry
        floor = self.floor_every and self.since_floor >= self.floor_every - 1
        number = ((self._mask & -self._mask) if floor else self._mask).bit_length() - 1
        if number != lane.band:
            return (number < lane.band) if floor else number > lane.band
        spot = self._top(number)
        if spot.lane is lane:
            return False
        return spot.tag <= self.band(number).start(lane.client) + cost(entry.waiter)

    def _top(self, number: int) -> Spot:
        """The first of a band in which somebody is parked."""
        band = self.bands[number]
        assert band is not None, "somebody is parked there"
        heap = band.heap
        while True:
            tag, stamp, spot = heap[0]
            if spot.line is not self or spot.stamp != stamp:
                heappop(heap)
                continue
            finished = band.finished.get(spot.lane.client, 0)
            if finished <= spot.start:
                return spot
            # Another lane of this client was served meanwhile: starts and finishes only ever move on.
            spot.tag, spot.start = tag + finished - spot.start, finished
            heapreplace(heap, (spot.tag, stamp, spot))

    def _oldest_starved(self) -> tuple[Spot, Entry] | None:
        heap = self._starved
        while heap:
            seq, _, spot = heap[0]
            oldest = spot.lane.oldest_starved if spot.line is self else None
            if oldest is not None and oldest.seq == seq:
                return spot, oldest
            heappop(heap)
            if oldest is not None:
                heappush(heap, (oldest.seq, next(self._stamps), spot))
        return None

    def granted(self, entry: Entry, lane: Lane, spot: Spot | None, amount: int, now: int) -> None:
        """A call that took from this limit goes; `spot` if it was parked here. Before it leaves its lane."""
        number = lane.band
        band = self.bands[number] or self.band(number)
        start = band.start(lane.client) if spot is None else spot.start
        band.passed(lane.client, start, start + cost(entry.waiter))
        self.pace.granted(amount, now)
        if self.parked <= (spot is not None) and lane.count <= 1:
            return  # nobody else wants it
        if self._starved:
            starved = self._oldest_starved()
            self.since_starved = 0 if starved is None or starved[1] is entry else self.since_starved + 1
        else:
            self.since_starved = 0
        is_lowest = not self._mask & ((1 << number) - 1)
        self.since_floor = 0 if is_lowest else self.since_floor + 1

    def ahead(self, number: int, length: int, *, is_inside: bool = False) -> Ahead:
        """How many calls go before one of that band that has `length` of its own lane before it, as it stands now:
        those of higher bands, and as many of each other lane as of its own. `is_inside`: it is counted itself."""
        own = self.bands[number]
        above = sum(self.waiting[number + 1 :])
        return above, 0 if own is None else sum(own.lengths[: length + 1]) - is_inside

    def ahead_of(self, lane: Lane, index: int) -> Ahead:
        """The same for a call that waits here, `index` of its own lane before it, by the order as it stands now."""
        mine, within = self.spot_of(lane), index
        for tag, stamp, spot in self.band(lane.band).heap if mine is not None else ():
            if mine is not None and spot.stamp == stamp and spot.line is self and spot is not mine:
                within += min(spot.lane.count, index + ((tag, stamp) < (mine.tag, mine.stamp)))
        return sum(self.waiting[lane.band + 1 :]), within

    def wait_s(self, now: int) -> float:
        """About how long one would wait who comes now and lets everybody before."""
        if not self.waiting_here:
            return 0.0
        return self.pace.corrected_s(0, self.pace.naive_s(0, (0, self.waiting_here), self.share(0), 1, now))

    @property
    def waiting_here(self) -> int:
        """How many wait here."""
        return sum(self.waiting)

    def share(self, number: int) -> float:
        """The share of grants that a band has at least: the lowest has its floor."""
        if not self.floor_every or self._mask & ((1 << number) - 1):
            return 0.0
        return 1.0 / self.floor_every

    def spot_of(self, lane: Lane) -> Spot | None:
        """Where a lane is parked here, if it is."""
        return next((spot for spot in lane.spots if spot.line is self), None)
