"""The Store contract: every limit is an atomic reservation of the worst case, settled to the truth afterwards.

A *limit* is named by `key`; its parameters travel with each reservation and are live (after a reload the level is at
most the new capacity). Amounts are integers in the limit's own unit: requests, tokens, pico-dollars, slots.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """What all limits have: a key, how much fits, and which x-ratelimit header family it feeds, if any."""

    key: str
    capacity: int
    header: str = ""  # "requests" | "tokens" | ""


@dataclass(frozen=True, slots=True)
class Bucket(Limit):
    """A token bucket: `refill` units come back every `per_ns` nanoseconds, up to `capacity` (the burst)."""

    refill: int = 0
    per_ns: int = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Window(Limit):
    """A sliding window: at most `capacity` units admitted in any `span_ns` (kept in 60 slices, never in favour)."""

    span_ns: int = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Tally(Limit):
    """A sum over a calendar period, such as money a month. `period` names it ("2026-11"); a new name starts at zero.

    `ends_wall_ns` is when the period ends, for retry-after. A Tally with an empty period never ends.
    """

    period: str = ""
    ends_wall_ns: int = 0


@dataclass(frozen=True, slots=True)
class Slots(Limit):
    """Leases: at most `capacity` units held at the same time; settling or releasing gives all of them back."""


@dataclass(slots=True)
class Level:
    """How a limit stands after the decision: `remaining` units now; `reset_s` seconds until it is whole again."""

    remaining: int
    reset_s: float


@dataclass(slots=True)
class Lack:
    """Why a reservation was refused: the index of the want, what is there now, and seconds until it could be granted
    if nothing else came (None: never as it stands, the amount is above the capacity or the period does not end)."""

    index: int
    available: int
    retry_after_s: float | None


@dataclass(slots=True)
class Grant:
    """The answer to `reserve`: all wants are held (`lacks` is empty) or none is. `levels` is parallel to the wants."""

    lacks: tuple[Lack, ...]
    levels: tuple[Level, ...]

    @property
    def granted(self) -> bool:
        return not self.lacks


Want = tuple[Limit, int]


class Store(ABC):
    """Verbs over limits, each atomic. Money and counts are exact integers, never floats."""

    @abstractmethod
    async def reserve(self, hold: str, wants: Sequence[Want], ttl_s: float) -> Grant:
        """Holds all wants under the id `hold`, or none of them. The hold ends by itself after `ttl_s` seconds unless
        renewed: what it held then counts as used at its worst case, except slots, which return. Reserving under an id
        that is already held adds to it (failover)."""

    @abstractmethod
    async def settle(self, hold: str, actual: Sequence[int]) -> None:
        """Ends the hold with what was truly used, parallel to its wants (in the order of its reservations). Less than
        held returns the difference (TERMS 3), more becomes a debt that blocks. Unknown or ended holds are ignored."""

    @abstractmethod
    async def release(self, hold: str) -> None:
        """Ends the hold as if it had never been: everything returns. For calls that never had an attempt."""

    @abstractmethod
    async def renew(self, hold: str, ttl_s: float) -> None:
        """Moves the hold's expiry to `ttl_s` seconds from now; for calls that outlive it."""

    @abstractmethod
    async def levels(self, limits: Sequence[Limit]) -> list[Level]:
        """How the limits stand, without taking anything."""

    async def aclose(self) -> None:  # noqa: B027 (a backend without resources has nothing to close)
        """Lets go of what the backend holds open."""
