"""Slots: how many are held at the same time."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.state.store import Slots

#: When another call lets go can't be known; callers are told to come back after this.
COME_BACK_NS = 1_000_000_000


class SlotsState:
    """One set of leases; all of a hold's return when it ends, however it ends."""

    kind = Slots
    __slots__ = ("held", "holds", "limit")

    def __init__(self, limit: Slots, now: int) -> None:
        self.limit = limit
        self.held = 0
        self.holds = 0

    def adopt(self, limit: Slots, now: int) -> SlotsState:
        """Another capacity from now on; what is held stays held."""
        self.limit = limit
        return self

    def advance(self, now: int) -> None:
        """Time changes nothing here."""

    def take(self, amount: int, now: int) -> int | None:
        """Holds the amount and gives it, or None."""
        held = self.held + amount
        if held > self.limit.capacity and amount:
            return None
        self.held = held
        self.holds += 1
        return amount

    def settle(self, taken: int, amount: int, used: int, now: int) -> None:
        """Everything returns."""
        self.held -= taken
        self.holds -= 1

    @property
    def remaining(self) -> int:
        """Free slots; below zero after the capacity was lowered."""
        return self.limit.capacity - self.held

    @property
    def reset_ns(self) -> int:
        """When the held ones return is not known."""
        return COME_BACK_NS if self.held else 0

    def lack(self, amount: int, now: int) -> tuple[int, int | None]:
        """Free slots, and when to ask again (None: never, there are not so many)."""
        return self.remaining, None if amount > self.limit.capacity else COME_BACK_NS

    def debt(self) -> int:
        """Slots are never owed."""
        return 0

    def idle(self, now: int) -> bool:
        """Nothing is held."""
        return not self.holds

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """Holds ended with the process that had them."""
