"""A sliding window in 60 slices: an amount counts from its admission until `span_ns` after the end of its slice.

So it counts up to one slice too long and never too short: in no true window of the span is more admitted than the
capacity. What is settled changes the slice of the admission, whenever it comes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from gateway.state.store import Window

SLICES = 60
#: One more than the slices of a span: the oldest is still partly inside.
RING = SLICES + 1
#: Above this an amount no longer fits its place; nothing real comes near.
MOST = 2**62


class WindowState:
    """One window: the amount admitted in the slice that is now, those of the slices before in a ring, and the sum of
    all that count."""

    kind = Window
    __slots__ = ("current", "holds", "latest", "limit", "most", "ring", "seen", "total", "width")

    def __init__(self, limit: Window, now: int) -> None:
        self.limit = limit
        self.most = min(limit.capacity, MOST)
        self.width = -(-limit.span_ns // SLICES)
        self.current = now // self.width  # number of the slice that is now
        self.latest = 0  # admitted in it
        self.ring = array("q", bytes(8 * RING))  # by number modulo RING; the current one's place is empty
        self.total = 0
        self.holds = 0
        self.seen = now

    def adopt(self, limit: Window, now: int) -> WindowState:
        """Other parameters from now on; what was admitted stays so. With another span it is another state: what is
        held then stays at its worst case."""
        self.advance(now)
        if limit.span_ns != self.limit.span_ns:
            other = WindowState(limit, now)
            other.restate([(max(0, now - self.end(number)), amount) for number, amount in self.slices()], now)
            return other
        self.limit = limit
        self.most = min(limit.capacity, MOST)
        return self

    def end(self, number: int) -> int:
        """The last nanosecond of a slice."""
        return (number + 1) * self.width - 1

    def slices(self) -> list[tuple[int, int]]:
        """Numbers and amounts of the slices that count, oldest first."""
        before = [(number, self.ring[number % RING]) for number in range(self.current - SLICES, self.current)]
        return [one for one in [*before, (self.current, self.latest)] if one[1]]

    def advance(self, now: int) -> None:
        """Drops what left the window."""
        self.seen = now
        number = now // self.width
        gone = number - self.current
        if gone <= 0:
            return
        ring = self.ring
        ring[self.current % RING] = latest = min(self.latest, MOST)
        self.total -= self.latest - latest
        for place in range(number - min(gone, RING) + 1, number + 1):
            self.total -= ring[place % RING]
            ring[place % RING] = 0
        self.current = number
        self.latest = 0

    def take(self, amount: int, now: int) -> int | None:
        """Takes the amount and gives the number of its slice, or takes nothing and gives None."""
        number = now // self.width
        if number != self.current:
            self.advance(now)
        self.seen = now
        total = self.total + amount
        if total > self.most and amount:
            return None
        self.total = total
        self.latest += amount
        self.holds += 1
        return number

    def settle(self, number: int, amount: int, used: int, now: int) -> None:
        """Corrects the slice of the admission, if it still counts."""
        self.holds -= 1
        if used == amount:
            return
        change = (used if used > 0 else 0) - amount
        if number == self.current:
            self.latest += change
            self.total += change
        elif self.current - number <= SLICES:
            place = number % RING
            change = min(change, MOST - self.ring[place])
            self.ring[place] += change
            self.total += change

    @property
    def remaining(self) -> int:
        """Units left; below zero: a debt. As of the last change or `advance`."""
        return self.limit.capacity - self.total

    @property
    def reset_ns(self) -> int:
        """Nanoseconds until the newest admission no longer counts."""
        number = self.current
        if not self.latest:
            if not self.total:
                return 0
            number = self.slices()[-1][0]
        return (number + RING) * self.width - self.seen

    def lack(self, amount: int, now: int) -> tuple[int, int | None]:
        """What is left, and nanoseconds until enough of the oldest no longer counts (None: never)."""
        self.advance(now)
        available = self.remaining
        if amount > self.limit.capacity:
            return available, None
        missing = amount - available
        for number, counted in self.slices():
            missing -= counted
            if missing <= 0:
                return available, (number + RING) * self.width - now
        return available, 0

    def debt(self) -> int:
        """Units above the capacity; as of the last change."""
        return max(0, self.total - self.limit.capacity)

    def idle(self, now: int) -> bool:
        """Nothing counts and nothing is held."""
        self.advance(now)
        return not self.total and not self.holds

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """Replaces what is counted by these (age in ns, amount)."""
        self.advance(now)
        self.ring = array("q", bytes(8 * RING))
        self.total = self.latest = 0
        for age, amount in used:
            number = min((now - age) // self.width, self.current)
            if number == self.current:
                self.latest += amount
            elif self.current - number <= SLICES:
                self.ring[number % RING] += amount
            else:
                continue
            self.total += amount
