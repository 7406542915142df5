"""A token bucket that takes refunds without ever giving too much, in exact integers.

What is missing from the full bucket, its *room*, is kept as a pile of chunks, one for each outstanding hold in the
order of admission, and above them the *loose* part that no hold can claim any more. A refill takes from the top of the
pile; a refund of a hold takes from the hold's own chunk, then from those below it. So a refund finds exactly the
smallest room there was since its hold (TERMS 3): what was refilled since then has eaten the chunks from above. The
level is at every moment what it would be had each call taken, when it was admitted, only what it truly used; hence
settled plus held <= burst + rate x time + debt over every window by time of admission.

Why: let L(t) be the level, C - L(t) the room. Had a hold been smaller by x, the level from then on would be higher by
min(x, smallest room since), because what overflows at C is lost. With the rooms' successive minima as prefix sums over
the pile, lowering all of them from one on, where no earlier minimum may exceed a later one, is taking from that chunk
downwards.

Amounts inside are scaled by `per_ns`, so that one nanosecond refills a whole number. A chunk that is used up is united
with the one below (`forward`, as in union-find), one that nobody owns any more with the one above; each happens once a
chunk, so that every operation is O(1) amortised and the pile is never higher than there are holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.state.store import Bucket


class Chunk(msgspec.Struct):
    """A part of the pile: `room` scaled units that its `owners` and all holds above may get back."""

    room: int
    owners: int = 1
    below: Chunk | None = None
    above: Chunk | None = None
    forward: Chunk | None = None


class BucketState:
    """One bucket: `room` is all of the pile, up to `at` on the monotonic clock."""

    kind = Bucket
    __slots__ = ("at", "floor", "full", "limit", "loose", "per", "refill", "room", "top")

    def __init__(self, limit: Bucket, now: int) -> None:
        self.limit = limit
        self.full = limit.capacity * limit.per_ns
        self.refill = limit.refill
        self.per = limit.per_ns
        self.at = now
        self.room = 0
        self.loose = 0
        self.floor = self.top = Chunk(0)  # never empties further, never leaves: owned by the bucket itself

    def adopt(self, limit: Bucket, now: int) -> BucketState:
        """Other parameters from now on: the level stays, but is at most the new capacity. A bucket that is as good as
        new is full under the new ones too, whether or not it was forgotten in between."""
        if self.idle(now):
            return BucketState(limit, now)
        self.resize(limit)
        return self

    def resize(self, limit: Bucket) -> None:
        """Other parameters from now on, as of the last `advance`; a larger bucket fills by its rate."""
        if limit.per_ns != self.per:
            self._rescale(limit.per_ns)
        full = limit.capacity * limit.per_ns
        if full < self.full:
            self._eat(min(self.full - full, self.room))
        else:
            self.room += full - self.full
            self.loose += full - self.full
        self.limit, self.full, self.refill = limit, full, limit.refill

    def gain(self, amount: int) -> int:
        """Fills it as if by time, as of the last `advance`; gives what did not fit. In scaled units."""
        fits = min(amount, self.room)
        self._eat(fits)
        return amount - fits

    def _rescale(self, per: int) -> None:
        """Chunks are rounded down, the room up: never in the caller's favour."""
        old, kept = self.per, 0
        chunk: Chunk | None = self.top
        while chunk is not None:
            chunk.room = chunk.room * per // old
            kept += chunk.room
            chunk = chunk.below
        self.room = -(-self.room * per // old)
        self.loose = self.room - kept
        self.full = self.full // old * per
        self.per = per

    def advance(self, now: int) -> None:
        """Refills up to now."""
        room = self.room
        if room:
            gained = (now - self.at) * self.refill
            if gained > room:
                gained = room
            if gained <= self.loose:
                self.loose -= gained
                self.room = room - gained
            else:
                self._eat(gained)
        self.at = now

    def _eat(self, gained: int) -> None:
        """Lowers the pile from its top by what was gained, at most all of it."""
        self.room -= gained
        top = self.top
        if gained <= self.loose:
            self.loose -= gained
            return
        gained -= self.loose
        self.loose = 0
        while gained > top.room:
            gained -= top.room
            top.room = 0
            top = self._sink(top)
        top.room -= gained

    def _sink(self, chunk: Chunk) -> Chunk:
        """Unites a chunk that is used up with the one below it, and gives that."""
        below, above = chunk.below, chunk.above
        assert below is not None  # the floor never sinks: the pile holds at least what is eaten
        below.owners += chunk.owners
        below.above = above
        chunk.forward = below
        chunk.below = chunk.above = None
        if above is None:
            self.top = below
        else:
            above.below = below
        return below

    # `take` and `settle` run for every call: what is usual stands in them, the rest in methods of its own.

    def take(self, amount: int, now: int) -> Chunk | None:
        """Takes the amount and gives the hold's chunk, or takes nothing and gives None."""
        room = self.room
        if room:
            gained = (now - self.at) * self.refill
            if gained > room:
                gained = room
            if gained <= self.loose:
                self.loose -= gained
                self.room = room = room - gained
            else:
                self._eat(gained)
                room = self.room
        self.at = now
        scaled = amount * self.per
        room += scaled
        if room > self.full and amount:
            return None
        self.room = room
        top = self.top
        self.top = top.above = chunk = Chunk(self.loose + scaled, 1, top)
        self.loose = 0
        return chunk

    def settle(self, chunk: Chunk, amount: int, used: int, now: int) -> None:
        """Ends a hold: gives back what was not used as far as there was room since, or charges what was used above."""
        if used < amount:
            self.advance(now)
            if chunk.forward is not None:
                chunk = self._find(chunk)
            back = (amount - used if used > 0 else amount) * self.per
            if back <= chunk.room:
                chunk.room -= back
                self.room -= back
            else:
                chunk = self._refund(chunk, back)
        else:
            if used > amount:
                self.advance(now)
                over = (used - amount) * self.per
                self.room += over
                self.loose += over
            if chunk.forward is not None:
                chunk = self._find(chunk)
        owners = chunk.owners - 1
        if owners:
            chunk.owners = owners
        elif chunk is self.top:
            self.loose += chunk.room
            self.top = below = chunk.below  # type: ignore[assignment]  # the floor is always owned
            below.above = None  # type: ignore[union-attr]  # the same
        else:
            self._disown(chunk)

    @staticmethod
    def _find(chunk: Chunk) -> Chunk:
        """The chunk that this one was united with, shortening the way for the next time."""
        last = chunk
        while last.forward is not None:
            last = last.forward
        while chunk is not last:
            chunk.forward, chunk = last, chunk.forward
        return last

    def _refund(self, chunk: Chunk, back: int) -> Chunk:
        """Takes from the chunk downwards; gives the chunk that its owner belongs to then."""
        while back > chunk.room:
            if chunk is self.floor:
                return chunk
            back -= chunk.room
            self.room -= chunk.room
            chunk.room = 0
            chunk = self._sink(chunk)
        chunk.room -= back
        self.room -= back
        return chunk

    def _disown(self, chunk: Chunk) -> None:
        """What no hold claims any more goes to the one that came next."""
        below, above = chunk.below, chunk.above
        assert below is not None  # the floor is always owned
        assert above is not None  # the topmost becomes loose instead
        below.above = above
        above.room += chunk.room
        above.below = below

    @property
    def remaining(self) -> int:
        """Whole units there are; below zero: a debt. As of the last change or `advance`."""
        return (self.full - self.room) // self.per

    @property
    def reset_ns(self) -> int:
        """Nanoseconds until it is full. Without a refill it never is; the figure is only shown."""
        return -(-self.room // self.refill) if self.refill else self.per if self.room else 0

    def lack(self, amount: int, now: int) -> tuple[int, int | None]:
        """What is there now, and nanoseconds until the amount would be (None: never)."""
        self.advance(now)
        available = self.remaining
        if amount > self.limit.capacity or not self.refill:
            return available, None
        return available, -(-(self.room + amount * self.per - self.full) // self.refill)

    def debt(self) -> int:
        """Units below zero, rounded up; as of the last change."""
        return -(-(self.room - self.full) // self.per) if self.room > self.full else 0

    @property
    def is_held(self) -> bool:
        """Some hold is not settled yet."""
        return self.top is not self.floor or self.floor.owners > 1

    def idle(self, now: int) -> bool:
        """Nothing is missing and nothing is held: as good as new."""
        self.advance(now)
        return not self.room and not self.is_held

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """At most what is left after these (age in ns, amount), had the bucket been full before."""
        room, at = 0, None
        for age, amount in sorted(used, reverse=True):
            if at is not None:
                room = max(0, room - (at - age) * self.refill)
            room, at = room + amount * self.per, age
        if at is not None:
            room = max(0, room - at * self.refill)
        self.advance(now)
        if room > self.room:
            self.loose += room - self.room
            self.room = room
