"""A pool for one kind of caller: what it may take of which part, what comes back to whom, who owes."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.state.bucket import BucketState, Chunk
from gateway.state.plan import SCALE, View
from gateway.state.pool import PartState, PoolState

OWN, SHARED, LENT = 1, 0, -1
#: Where nothing comes back by time but by who holds it: callers are told to ask again after this.
COME_BACK_NS = 1_000_000_000
#: What a call has of one part: the part, its chunk there, how much (scaled), and by which right.
Taken = tuple[PartState, Chunk, int, int]


class ViewState:
    """The parts of a view that its pool has now; it has nothing else of its own."""

    kind = View
    __slots__ = ("debtor", "lenders", "limit", "owned", "parts", "pool", "version")

    def __init__(self, limit: View, pool: PoolState) -> None:
        self.limit = limit
        self.pool = pool
        self._bind()

    def _bind(self) -> None:
        view, parts = self.limit, self.pool.parts
        self.version = self.pool.version
        self.parts = [parts[name] for name in view.takes if name in parts]
        self.owned = [parts[name] for name in view.takes[: view.owned] if name in parts]
        self.lenders = [parts[name] for name in view.borrows if name in parts]
        self.debtor = parts[view.debtor if view.debtor in parts else self.pool.plan.parts[0].name]

    def adopt(self, limit: View, now: int) -> ViewState:
        """Other parameters from now on."""
        self.limit = limit
        self.pool.adopt(limit.plan, now)
        self._bind()
        return self

    def advance(self, now: int) -> None:
        """Refills up to now."""
        self.pool.advance(now)

    def take(self, amount: int, now: int) -> list[Taken] | None:
        """Takes the amount from as few parts as it needs, or takes nothing and gives None."""
        if self.version != self.pool.version:
            self._bind()
        for state in self.owned:
            state.asked = now
        need = amount * SCALE
        if not need:
            return []
        if now < self.pool.paused_until or not self.parts:
            return None
        first = self.parts[0]
        chunk = first.bucket.take(need, now)
        if chunk is None:
            return self._together(need, now)
        if not self.owned:
            return [(first, chunk, need, SHARED)]
        first.held += 1
        return [(first, chunk, need, OWN)]

    def _together(self, need: int, now: int) -> list[Taken] | None:
        shares: list[tuple[PartState, int]] = []
        for state in self._usable(now):
            state.bucket.advance(now)
            share = min(need, state.level)
            if share > 0:
                shares.append((state, share))
                need -= share
                if not need:
                    return [self._take(state, share, now) for state, share in shares]
        return None

    def _usable(self, now: int) -> list[PartState]:
        idle_ns = self.pool.plan.idle_ns
        return [*self.parts, *[state for state in self.lenders if state.lends(now, idle_ns)]]

    def _take(self, state: PartState, share: int, now: int) -> Taken:
        chunk = state.bucket.take(share, now)
        assert chunk is not None, "the level was looked at before"
        if state in self.owned:
            state.held += 1
            return state, chunk, share, OWN
        if state in self.parts:
            return state, chunk, share, SHARED
        state.lent += share
        return state, chunk, share, LENT

    def settle(self, taken: list[Taken], amount: int, used: int, now: int) -> None:
        """Each part gets back what was not used, those that lent first; what was used above it is the debtor's."""
        left = used * SCALE if used > 0 else 0
        for state, chunk, share, right in taken:
            kept = min(share, left)
            left -= kept
            state.bucket.settle(chunk, share, kept, now)
            if right == OWN:
                state.held -= 1
                state.asked = now
            elif right == LENT:
                state.lent -= share
        if left:
            if self.version != self.pool.version:
                self._bind()
            self.debtor.owe(left, now)

    @property
    def remaining(self) -> int:
        """Whole units it may count on; below zero: a debt, and nothing else. As of the last change or `advance`."""
        levels = [state.level for state in self.parts]
        return (sum(level for level in levels if level > 0) or sum(levels)) // SCALE

    @property
    def reset_ns(self) -> int:
        """Nanoseconds until its parts are full."""
        return max([state.bucket.reset_ns for state in self.parts], default=0)

    def lack(self, amount: int, now: int) -> tuple[int, int | None]:
        """What is there now, and nanoseconds until the amount would be, if whoever lends goes on (None: never)."""
        self.pool.advance(now)
        available = self.remaining
        if amount > self.limit.capacity:
            return available, None
        buckets = [state.bucket for state in self._usable(now)]
        wait = self._wait(amount * SCALE, buckets)
        if wait is None and any(one.is_held for one in buckets):
            wait = COME_BACK_NS  # what is held may be given back
        return available, None if wait is None else max(wait, self.pool.paused_until - now)

    @staticmethod
    def _wait(need: int, buckets: list[BucketState]) -> int | None:
        def gathered(ns: int) -> int:
            return sum([max(0, one.full - max(0, one.room - ns * one.refill)) for one in buckets])

        filling = [one for one in buckets if one.refill]
        late = max([-(-one.room // one.refill) for one in filling], default=0)
        if gathered(late) < need:
            return None
        if len(buckets) == 1:
            (one,) = buckets
            return max(0, -(-(need - one.full + one.room) // one.refill)) if one.refill else 0
        early = -1
        while late - early > 1:
            middle = (early + late) // 2
            if gathered(middle) < need:
                early = middle
            else:
                late = middle
        return late

    def debt(self) -> int:
        """Units that the pool's parts owe, rounded up; as of the last change."""
        return sum(max(0, -(state.level // SCALE)) for state in self.pool.parts.values())

    def idle(self, now: int) -> bool:
        """What there is to know is the pool's."""
        return True

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """At most what is left after these in the whole pool."""
        self.pool.restate(used, now)
