"""What a pool is made of, and views of it: which of its parts a kind of caller may take, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.state.store import Limit

SHARED = "shared"
RESERVED = "reserved"

#: A part's refill is written in this many parts of a unit a second: thousandths, times a percentage.
REFILL_SCALE = 100_000
#: A unit in the scale in which one nanosecond refills a whole number: nothing is ever rounded.
SCALE = REFILL_SCALE * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A token bucket inside a pool: "shared", "reserved" or "client ID". `refill` in 100,000ths of a unit a second."""

    name: str
    capacity: int
    refill: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A pool as it is to be now. The first part is the shared one; where a provider says that less is left than we
    think, they are lowered in this order. A part that its owner did not ask for during `idle_ns` may be lent.

    Of two plans the one with the higher `version` (a monotonic time) holds: who still has an older one changes nothing.
    """

    pool: str
    parts: tuple[Part, ...]
    idle_ns: int = 0
    version: int = 0

    @property
    def capacity(self) -> int:
        """Of all parts together."""
        return sum(part.capacity for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View(Limit):
    """A pool as one kind of caller sees it. An amount may be made up of several parts, taken in the order of `takes`
    and then, where their owners are idle, of `borrows`. The first `owned` of `takes` are the caller's own: by asking it
    ends that they are lent. What is used above the reservation is owed by `debtor`.

    Its `capacity` is that of `takes` together (nobody can count on what is lent), its `group` the pool.
    """

    plan: Plan
    takes: tuple[str, ...] = (SHARED,)
    owned: int = 0
    borrows: tuple[str, ...] = ()
    debtor: str = SHARED

    @property
    def comes_back(self) -> tuple[int, int]:
        return sum(part.refill for part in self.plan.parts if part.name in self.takes), SCALE
