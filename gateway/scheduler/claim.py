"""What is kept for one call of limits at which its turn came, while it lacked another one.

A call that needs two limits stands in one line at a time. Where others need only the one or only the other, what its
turn had for it would be gone each time it came back from the other line, and it would never go.
"""

from __future__ import annotations

from gateway.scheduler.lane import Entry


class Claim:
    """One call's, since two could wait for each other; by the line's name, how much."""

    __slots__ = ("amounts", "holder")

    def __init__(self) -> None:
        self.holder: Entry | None = None
        self.amounts: dict[str, int] = {}

    def is_of(self, entry: Entry) -> bool:
        """Whether that call has it."""
        return self.holder is entry

    def may_have(self, entry: Entry) -> bool:
        """The oldest starved call takes it from all others; else one of the highest band, the oldest of them."""
        return self.holder is None or _rank(entry) >= _rank(self.holder)

    def drop(self) -> list[str]:
        """Gives the names of the lines at which nothing is kept any more."""
        names = list(self.amounts)
        self.holder = None
        self.amounts = {}
        return names


def _rank(entry: Entry) -> tuple[bool, int, int]:
    return entry.starved, 0 if entry.starved else entry.band, -entry.seq
