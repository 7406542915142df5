"""Lanes and the lines they are parked at: who is to be tried, and which limits are closed to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.call import Held
from gateway.scheduler.claim import Claim
from gateway.scheduler.lane import Entry, Lane, LaneKey, Spot, amount_of
from gateway.scheduler.line import Line
from gateway.scheduler.pace import Pace
from gateway.scheduler.settings import QueueSettings
from gateway.state.store import Limit, Slots

#: Paces that are remembered; the oldest is forgotten.
MOST_PACES = 10_000


class Board:
    """`ring` is called when somebody is to be tried, `tell` for a call whose lane has found its line."""

    def __init__(self, ring: Callable[[], None], tell: Callable[[Entry, Lane, int], None]) -> None:
        self.lanes: dict[LaneKey, Lane] = {}
        self.lines: dict[str, Line] = {}
        self.fresh: list[Lane] = []  # with options that are parked nowhere yet
        self.dirty: dict[Line, None] = {}  # whose first is to be tried
        self.floor_every = QueueSettings().floor_every
        self.claim = Claim()
        self._parts: dict[str, dict[str, None]] = {}  # lines at parts of a limit, by the limit's name
        self._paces: dict[str, Pace] = {}
        self._ring = ring
        self._tell = tell

    def contended(self, held: Iterable[Held]) -> bool:
        """Whether somebody waits for one of these, or may do so before the next turn of the loop."""
        lines, kept = self.lines, self.claim.amounts
        return bool(self.fresh) or any(limit.name in lines or limit.name in kept for _, limit, _, _ in held)

    def clear(self) -> None:
        """Nobody waits any more."""
        self.fresh.clear()
        self.dirty.clear()

    def join(self, entry: Entry, lane: Lane | None = None) -> None:
        """Takes its place in the lane of its like; `lane`: what was found for it, perhaps ended since."""
        if lane is None or not lane.count:
            key = entry.key
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = Lane(key, len(entry.options))
        head, home = lane.head, lane.home
        lane.add(entry)
        if home is not None:
            home.grow(lane.band, lane.count - 1)
            home.pace.arrived(lane.band, lane.amount(entry))
        elif entry.naive_s is None:
            if lane.untold is None:
                lane.untold = []
            lane.untold.append(entry)
        if head is None:
            self.renew(lane)
        elif entry.seq < head.seq:
            self.advance(lane)
        if entry.starved:
            self.push_starved(lane)

    def renew(self, lane: Lane) -> None:
        if not lane.fresh:
            lane.fresh = True
            self.fresh.append(lane)
            self._ring()

    def touch(self, line: Line) -> None:
        """Somebody else may be its first: who it is has to be tried."""
        if line not in self.dirty:
            self.dirty[line] = None
            self._ring()

    def push_starved(self, lane: Lane) -> None:
        for spot in lane.spots:
            if spot.line is not None:
                spot.line.push_starved(spot)
                self.touch(spot.line)

    def leave(self, entry: Entry, lane: Lane) -> None:
        was_first = lane.head is entry
        if lane.home is not None:
            lane.home.shrink(lane.band, lane.count)
        lane.remove(entry)
        if not lane.count:
            del self.lanes[lane.key]
            for spot in lane.spots:
                if spot.line is not None:
                    self.unpark(spot)
        elif was_first:
            self.advance(lane)
        elif entry.starved:
            self.push_starved(lane)

    def advance(self, lane: Lane) -> None:
        """Another call is its first now."""
        for spot in lane.spots:
            line = spot.line
            if line is None:
                self.renew(lane)
            else:
                finished = line.band(lane.band).finished.get(lane.client, 0)
                if finished > spot.start:
                    spot.start = finished
                matters = line.may_be_next(spot)
                line.push(spot)
                if matters:
                    self.touch(line)

    def park(self, spot: Spot, line: Line, now: int) -> None:
        if spot.line is line:
            return
        if spot.line is not None:
            self.unpark(spot)
        line.park(spot)
        lane = spot.lane
        if lane.home is None or not lane.home.parked:
            self.rehome(lane, line)
        if lane.untold:
            untold, lane.untold = lane.untold, None
            for entry in untold:
                if entry.lane is lane:
                    self._tell(entry, lane, now)

    def move(self, spot: Spot, entry: Entry, line: Line, now: int) -> None:
        """Parks the first of a line elsewhere. What its turn had for it is kept; but a slot, which idles meanwhile,
        only if it is starved, and not while it waits for a refill, which may take long."""
        before = spot.line
        if before is not None and before is not line and self.claim.may_have(entry):
            is_slot = before.pace.limit.__class__ is Slots
            if not is_slot or (entry.starved and line.pace.limit.__class__ is Slots):
                if not self.claim.is_of(entry):
                    self.forgo()
                    self.claim.holder = entry
                self.claim.amounts[before.name] = amount_of(entry, before.name)
        self.park(spot, line, now)

    def forgo(self) -> None:
        """Nothing is kept for anybody any more: those who were kept from it are tried again."""
        for name in self.claim.drop():
            line = self.lines.get(name)
            if line is not None:
                self.touch(line)

    @staticmethod
    def rehome(lane: Lane, line: Line) -> None:
        """Its calls are counted there now."""
        before = lane.home
        lane.settle(line)
        if before is not None:
            for length in range(lane.count, 0, -1):
                before.shrink(lane.band, length)
        for length in range(lane.count):
            line.grow(lane.band, length)

    def unpark(self, spot: Spot) -> None:
        line = spot.line
        assert line is not None, "it is parked"
        matters = line.may_be_next(spot)
        line.unpark(spot)
        if line.parked:
            if matters:
                self.touch(line)
        else:
            del self.lines[line.name]
            parts = self._parts.get(line.pace.limit.name)
            if parts is not None and parts.pop(line.name, True) is None and not parts:
                del self._parts[line.pace.limit.name]
            self.dirty.pop(line, None)
            line.due_ns = 0

    def line(self, name: str, limit: Limit, now: int) -> Line:
        line = self.lines.get(name)
        if line is None:
            pace = self._paces.pop(name, None)
            if pace is None:
                pace = Pace(limit)
                if len(self._paces) >= MOST_PACES:
                    del self._paces[next(iter(self._paces))]
            self._paces[name] = pace
            pace.resume(limit, now)
            line = self.lines[name] = Line(name, pace, self.floor_every)
            if limit.name != name:
                self._parts.setdefault(limit.name, {})[name] = None
        return line

    def freed(self, names: Sequence[str]) -> None:
        lines, parts = self.lines, self._parts
        for name in names:
            if name in lines:
                self.touch(lines[name])
            if name in parts:
                for part in parts[name]:
                    self.touch(lines[part])
