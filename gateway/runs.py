"""How long calls to a target take at most, as lately seen."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

#: Calls seen before their times are believed.
ENOUGH = 20
#: What one call lets the longest time fade by: a slow one is forgotten after a few dozen quick ones.
FADING = 64
#: Targets remembered.
MOST = 10_000


class Seen(msgspec.Struct, gc=False):
    """Of one target: how many calls, and the longest of them, fading, in nanoseconds."""

    calls: int = 0
    longest_ns: int = 0


class Runs:
    """By any name of a target. Outlives reloads."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Seen] = {}

    def note(self, name: Hashable, run_ns: int) -> None:
        """A call took so long."""
        seen = self._seen.get(name)
        if seen is None:
            if len(self._seen) >= MOST:
                self._seen.clear()
            seen = self._seen[name] = Seen()
        seen.calls += 1
        seen.longest_ns = max(run_ns, seen.longest_ns - seen.longest_ns // FADING)

    def longest_ns(self, name: Hashable, bound_ns: int) -> int:
        """The longest run to expect: what was seen, if that was enough, and at most the time-out (0: it has none)."""
        seen = self._seen.get(name)
        if seen is None or seen.calls < ENOUGH:
            return bound_ns or 2**63
        return min(seen.longest_ns, bound_ns) if bound_ns else seen.longest_ns
