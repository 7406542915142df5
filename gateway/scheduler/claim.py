"""What is kept for the oldest starved call of limits at which its turn came, while it lacked another one.

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
        """Only a starved call, and an older one takes it from a younger one."""
        return entry.starved and (self.holder is None or self.holder.seq >= entry.seq)

    def drop(self) -> list[str]:
        """Gives the names of the lines at which nothing is kept any more."""
        names = list(self.amounts)
        self.holder = None
        self.amounts = {}
        return names
