"""The queue as it stands: every call's place and what is left of its wait."""

from __future__ import annotations

from gateway.scheduler.board import Board
from gateway.scheduler.lane import Entry, Lane
from gateway.scheduler.line import Ahead, Line, cost
from gateway.scheduler.roll import Roll
from gateway.scheduler.settings import SECOND_NS, priority
from gateway.scheduler.view import Snapshot, View
from gateway.scheduler.waiter import level_of
from gateway.state.store import Slots


def estimate(entry: Entry, lane: Lane, line: Line, ahead: Ahead, now: int) -> tuple[float, float]:
    """Seconds until a call of a lane is let through at its home, before and after what earlier waits taught."""
    pace, band = line.pace, lane.band
    if line.due_ns and not any(ahead) and not isinstance(pace.limit, Slots):
        return 0.0, max(0.0, (line.due_ns - now) / SECOND_NS)  # by time alone, which is known
    naive_s = pace.naive_s(band, ahead, line.share(band), lane.amount(entry), now)
    return naive_s, pace.corrected_s(band, naive_s)


class Picture:
    """Reads the board; changes nothing."""

    def __init__(self, board: Board, roll: Roll) -> None:
        self._board = board
        self._roll = roll

    def position(self, call_id: str, now: int) -> View | None:
        """One waiting call as it stands now; None: it does not wait."""
        entry = self._roll.entries.get(call_id)
        if entry is None:
            return None
        lane = entry.lane
        ahead = lane.home.ahead_of(lane, lane.index(entry)) if lane is not None and lane.home is not None else (0, 0)
        return self._view(entry, ahead, now)

    def snapshot(self, holding: int, now: int) -> Snapshot:
        """The whole queue as it stands now; O(n log n), for people."""
        lines: dict[Line | None, list[tuple[int, int, int, int, Entry]]] = {}
        for lane in self._board.lanes.values():
            spot = None if lane.home is None else lane.home.spot_of(lane)
            finish, stamp = (0, 0) if spot is None else (spot.start, spot.stamp)
            for entry in lane.entries():
                finish += cost(entry.waiter)
                lines.setdefault(lane.home, []).append((-lane.band, finish, stamp, entry.seq, entry))
        views = []
        for entries in lines.values():
            above, within, band = 0, 0, None
            for _, _, _, _, entry in sorted(entries):
                if band != entry.band:
                    above, within, band = above + within, 0, entry.band
                views.append(self._view(entry, (above, within), now))
                within += 1
        views += [self._view(entry, (0, 0), now) for entry in self._roll if entry.lane is None]
        snapshot = Snapshot()
        for view in sorted(views, key=lambda view: (view.position, view.estimate_ms)):
            snapshot.add(view)
        snapshot.executing = max(0, holding - snapshot.total)
        return snapshot

    def _view(self, entry: Entry, ahead: Ahead, now: int) -> View:
        waiter, lane = entry.waiter, entry.lane
        left_s, limit = max(0.0, (waiter.not_before_ns - now) / SECOND_NS), ""
        if lane is not None and lane.home is not None:
            limit = lane.home.name
            left_s = estimate(entry, lane, lane.home, ahead, now)[1]
        waited_ns = now - entry.arrived_ns
        return View(
            id=waiter.id,
            client=waiter.client,
            org=waiter.org,
            level=level_of(left_s),
            priority=priority(waiter.placement, waited_ns, self._roll.requests(waiter.client), now),
            urgency=waiter.placement.urgency,
            position=sum(ahead),
            estimate_ms=int(left_s * 1000),
            waited_ms=waited_ns // 1_000_000,
            starved=entry.starved,
            limit=limit,
        )
