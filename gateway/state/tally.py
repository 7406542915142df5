"""Sums of money by calendar period: what is settled, what is held, and which marks were told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from gateway.state.store import Tally

#: Periods remembered for a key. A wall clock that goes back finds what was spent, one that goes forth and back too.
KEPT = 4
#: A period not asked for during this (62 days) is over, whatever the wall clock says.
OVER_NS = 62 * 86_400 * 1_000_000_000


class Period(msgspec.Struct):
    """One period of one tally; `told` marks were told, `holds` are outstanding."""

    name: str
    used: int = 0
    held: int = 0
    holds: int = 0
    told: int = 0
    touched: int = 0  # on the monotonic clock


class TallyState:
    """One tally: the period that was last asked for, and a few others."""

    kind = Tally
    __slots__ = ("crossed", "limit", "other", "period")

    def __init__(self, limit: Tally, now: int) -> None:
        self.limit = limit
        self.period = Period(limit.period)
        self.other: dict[str, Period] = {}
        self.crossed: Callable[[Tally, int, int], None] | None = None  # set by the store

    def adopt(self, limit: Tally, now: int) -> TallyState:
        """Another period or capacity from now on. New marks count as told as far as they are passed already, one lower
        than before (a top-up taken back) is not told again."""
        if limit.period != self.period.name:
            self.other[self.period.name] = self.period
            known = self.other.pop(limit.period, None)
            self.period = Period(limit.period) if known is None else known
            self._forget()
        if limit.marks != self.limit.marks:
            self.period.told = min(self.period.told, _passed(limit.marks, self.period.used))
        self.limit = limit
        return self

    def _forget(self) -> None:
        """Keeps the newest periods, and those with holds."""
        free = sorted((one for one in self.other.values() if not one.holds), key=lambda one: one.touched)
        for one in free[: max(0, len(self.other) - KEPT)]:
            del self.other[one.name]

    def advance(self, now: int) -> None:
        """Time changes nothing here: the period comes with the limit."""

    def take(self, amount: int, now: int) -> Period | None:
        """Holds the amount and gives its period, or holds nothing and gives None."""
        period, limit = self.period, self.limit
        if period.used + period.held + amount > limit.capacity and amount and not limit.soft:
            last = len(limit.marks)
            if period.told == last - 1 and period.used + amount > limit.capacity >= amount:
                self._tell(period, last)
            return None
        period.touched = now
        period.held += amount
        period.holds += 1
        return period

    def settle(self, period: Period, amount: int, used: int, now: int) -> None:
        """Turns what was held into what was used, in the period of the admission."""
        period.held -= amount
        period.holds -= 1
        if used > 0:
            period.used += used
            marks = self.limit.marks
            if period.told < len(marks) and period.used >= marks[period.told] and period is self.period:
                self._tell(period, _passed(marks, period.used))

    def _tell(self, period: Period, passed: int) -> None:
        """Tells the marks up to this one that were not told yet."""
        for mark in range(period.told, passed):
            period.told = mark + 1
            if self.crossed is not None:
                self.crossed(self.limit, mark, period.used)

    @property
    def remaining(self) -> int:
        """What is neither used nor held; below zero: overspent."""
        return self.limit.capacity - self.period.used - self.period.held

    @property
    def reset_ns(self) -> int:
        """How long the period lasts is the wall clock's business: see `lack`."""
        return 0

    def lack(self, amount: int, now: int) -> tuple[int, int | None]:
        """What is left, and the wall-clock nanoseconds at which the period ends (None: never, or not by waiting)."""
        available = self.remaining
        if amount > self.limit.capacity or not self.limit.period:
            return available, None
        return available, self.limit.ends_wall_ns

    def debt(self) -> int:
        """Used above the capacity."""
        return 0 if self.limit.soft else max(0, self.period.used - self.limit.capacity)

    def idle(self, now: int) -> bool:
        """Nothing is held, and nothing was used or its period is long over."""
        return not any(
            one.holds or (one.used and (not one.name or now - one.touched < OVER_NS))
            for one in (self.period, *self.other.values())
        )

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """Replaces what is settled in the current period by the sum of these (age in ns, amount)."""
        self.period.used = sum(amount for _, amount in used)
        if self.limit.marks:
            self._tell(self.period, _passed(self.limit.marks, self.period.used))


def _passed(marks: tuple[int, ...], used: int) -> int:
    return sum(1 for mark in marks if used >= mark)
