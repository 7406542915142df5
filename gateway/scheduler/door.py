"""Who may wait, what a call is told of its wait before it begins, and with which words it ends without a grant."""

from __future__ import annotations

from collections.abc import Callable

from gateway.deadline import exceeded
from gateway.errors import LimitError, QueueFull, RateLimited
from gateway.metrics import Metrics
from gateway.ratelimit import span
from gateway.scheduler.board import Board
from gateway.scheduler.lane import Entry, Lane
from gateway.scheduler.picture import estimate
from gateway.scheduler.roll import Roll
from gateway.scheduler.settings import SECOND_NS, QueueSettings
from gateway.scheduler.waiter import level_of

#: No refusal asks to come back sooner.
SOONEST_S = 0.05


class Door:
    """The scheduler's: it reads the board and the roll; `end` takes a waiting call out with an error."""

    def __init__(self, board: Board, roll: Roll, metrics: Metrics, end: Callable[[Entry, Exception], None]) -> None:
        self._board = board
        self._roll = roll
        self._end = end
        self.settings = QueueSettings()
        self._refused = metrics.counter("tidegate_queue_refused_total", "Calls the queue refused.", ("reason",))

    def admit(self, entry: Entry, now: int) -> Lane | None:
        """The bounds of the queue, and what can be known of the wait before it begins; gives the lane of its like."""
        settings, waiter = self.settings, entry.waiter
        if entry.ends_ns <= now:
            raise exceeded(is_sent=False)  # only a deadline lies so near; one in metadata is first met here
        lane = self._board.lanes.get(entry.key)
        if lane is not None and lane.home is not None and waiter.not_before_ns <= now:
            first = lane.spots[0].line
            if first is not None and first is not lane.home:
                self._board.rehome(lane, first)
            self._tell(entry, lane, lane.count, now)
        elif waiter.not_before_ns > entry.ends_ns:
            self._refuse_early(entry, (waiter.not_before_ns - now) / SECOND_NS, now)
        mine = self._roll.number(waiter.client)
        if mine >= settings.max_waiting_per_client:
            wait_s = max(1.0, self._left_s(entry, now) / (mine + 1))
            message = f"The queue holds {mine:,} calls of client {waiter.client}, the most one client may have there."
            raise self._full(message, wait_s, "client_full")
        if waiter.body_bytes:
            self._weigh(entry, now)
        if len(self._roll.entries) >= settings.max_waiting:
            other = self._roll.gives_way(entry.band, settings.floor_places)
            if other is None:
                message = f"The queue is full: {len(self._roll):,} calls wait, and none of them gives way to this one."
                raise self._full(message, max(1.0, self._left_s(entry, now)), "full")
            wait_s = max(1.0, self._left_s(other, now))
            gave_way = "The queue is full, and this call gave way to one that is more urgent, or owed a place."
            self._end(other, self._full(gave_way, wait_s, "displaced"))
        return lane

    def _weigh(self, entry: Entry, now: int) -> None:
        """Bodies are kept while their calls wait: all long ones together have a bound, and each client half of it."""
        waiter, most = entry.waiter, self.settings.max_waiting_bytes
        if waiter.body_bytes <= self.settings.short_body:
            waiter.body_bytes = 0
            return
        mine = self._roll.bytes_of(waiter.client) + waiter.body_bytes
        if mine > most // 2 or self._roll.body_bytes + waiter.body_bytes > most:
            message = "The bodies of the calls that wait leave no room for this one's."
            raise self._full(message, max(1.0, self._left_s(entry, now)), "bodies_full")

    def _full(self, message: str, wait_s: float, reason: str) -> QueueFull:
        self._refused.add((reason,))
        return QueueFull(f"{message} Try again in {span(wait_s)}.", retry_after_s=wait_s, policy="queue")

    def _left_s(self, entry: Entry, now: int) -> float:
        """Seconds of its wait that are still to come, as far as one can tell."""
        lane = entry.lane or self._board.lanes.get(entry.key)
        if lane is None or lane.home is None:
            return 1.0
        is_inside = entry.lane is lane
        length = lane.index(entry) if is_inside else lane.count
        ahead = lane.home.ahead(lane.band, length, is_inside=is_inside)
        return max(SOONEST_S, estimate(entry, lane, lane.home, ahead, now)[1])

    def _tell(self, entry: Entry, lane: Lane, length: int, now: int) -> None:
        """Position and estimate at arrival. Raises RateLimited where the wait would be too long."""
        line, queued = lane.home, entry.queued
        assert line is not None, "the lane is parked"
        ahead = line.ahead(lane.band, length, is_inside=entry.lane is lane)
        naive_s, estimate_s = estimate(entry, lane, line, ahead, now)
        queued.position = ahead[0] + ahead[1]
        queued.estimate_ms = int(estimate_s * 1000)
        queued.level = level_of(estimate_s)
        entry.naive_s = 0.0  # the error of a guess would be no lesson
        if line.pace.is_measured:
            entry.naive_s = naive_s
            self._refuse_early(entry, estimate_s, now)

    def tell_late(self, entry: Entry, lane: Lane, now: int) -> None:
        """The same for a call that had to be tried before it was known what it lacks."""
        try:
            self._tell(entry, lane, lane.index(entry), now)
        except LimitError as error:
            self._end(entry, error)

    def _refuse_early(self, entry: Entry, estimate_s: float, now: int) -> None:
        longest_s = (entry.ends_ns - now) / SECOND_NS
        if estimate_s <= longest_s:
            return
        self._refused.add(("early",))
        wait_s = estimate_s - max(0.0, longest_s) + SOONEST_S
        raise RateLimited(
            f"This call would wait about {span(estimate_s)}, longer than its longest wait of "
            f"{span(max(0.0, longest_s))}. Try again in {span(wait_s)}.",
            code="queue_wait_too_long",
            retry_after_s=wait_s,
            should_retry=False if entry.ends_ns == entry.waiter.placement.deadline_ns else None,  # the same is no use
            policy="queue",
        )

    def late(self, entry: Entry, now: int) -> None:
        """Its longest wait or its deadline is over."""
        self._refused.add(("late",))
        waited_s = (now - entry.arrived_ns) / SECOND_NS
        lane, naive_s = entry.lane, entry.naive_s
        if lane is not None and lane.home is not None and naive_s is not None and waited_s > naive_s:
            lane.home.pace.learn(lane.band, naive_s, waited_s)
        deadline_ns = entry.waiter.placement.deadline_ns
        if deadline_ns is not None and now >= deadline_ns:
            self._end(entry, exceeded(is_sent=False))
            return
        wait_s = max(1.0, self._left_s(entry, now))
        message = f"This call waited {span(waited_s)}, the longest it may. Try again in {span(wait_s)}."
        self._end(entry, RateLimited(message, code="queue_wait_too_long", retry_after_s=wait_s, policy="queue"))

    def never(self, lane: Lane) -> None:
        """Its first call's need is above the limit's capacity, or of what nobody gives back: no wait makes it fit."""
        entry, need = lane.head, lane.hopeless
        assert entry is not None, "empty lanes are not tried"
        assert need is not None, "every option was tried"
        message = f"This call needs more of {need.lacking.what} than there will be. Waiting won't make it fit."
        self._refused.add(("never",))
        self._end(entry, need.lacking.error(message, policy=need.policy, should_retry=False))
