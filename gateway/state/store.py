"""The Store contract: every limit is an atomic reservation of the worst case, settled to the truth afterwards.

A *limit* is named by `key`; its parameters travel with each reservation and are live (after a reload the level is at
most the new capacity). Amounts are integers in the limit's own unit: requests, tokens, pico-dollars, slots. Durations
are integer nanoseconds; seconds (as floats) appear only where a person or a header wants them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from gateway.state.plan import View


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """What all limits have: a key, how much fits, and which x-ratelimit header family it feeds, if any.

    Compared by identity (`same` compares what they say): a store finds its state by the object, so build limits once.
    Limits that draw on the same thing (views of a pool) have its name as their `group`: what one frees, the others may
    take. `own` is the same limit restricted to what nobody else may take, where there is such a part: it stays open to
    its owner when others wait for the rest.
    """

    key: str
    capacity: int
    header: str = ""  # "requests" | "tokens" | ""
    group: str = field(default="", kw_only=True)
    own: Limit | None = field(default=None, kw_only=True)
    name: str = field(init=False, repr=False)  # what `Store.listen` calls it

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.group or self.key)

    @property
    def comes_back(self) -> tuple[int, int] | None:
        """Units that come back by time alone, and in how many nanoseconds; None: none do."""
        return None

    def shadow(self) -> Limit:
        """A limit of the same figures that takes nothing from this one; for observing."""
        return replace(self, key=f"shadow:{self.key}", group=self.group and f"shadow:{self.group}", own=None)

    def same(self, other: Limit) -> bool:
        """Whether both say the same of the same limit."""
        if type(self) is not type(other):
            return False
        return all(getattr(self, one.name) == getattr(other, one.name) for one in fields(self))


@dataclass(frozen=True, slots=True, eq=False)
class Bucket(Limit):
    """A token bucket: `refill` units come back every `per_ns` nanoseconds, up to `capacity` (the burst)."""

    refill: int = 0
    per_ns: int = 60_000_000_000

    @property
    def comes_back(self) -> tuple[int, int]:
        return self.refill, self.per_ns


@dataclass(frozen=True, slots=True, eq=False)
class Window(Limit):
    """A sliding window: at most `capacity` units admitted in any `span_ns` (kept in 60 slices, never in favour)."""

    span_ns: int = 86_400_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Tally(Limit):
    """A sum of money over a calendar period, such as a month. `period` names it ("2026-11"); a new name starts at zero,
    an old one is remembered, so that a wall clock going back and forth mints nothing.

    `ends_wall_ns` is when the period ends, for retry-after. A Tally with an empty period never ends.
    `marks` are amounts in ascending order whose crossing is told (see `Store.watch`), each once.
    `soft` grants whatever is asked: it only counts and tells.
    """

    period: str = ""
    ends_wall_ns: int = 0
    marks: tuple[int, ...] = ()
    soft: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Slots(Limit):
    """Leases: at most `capacity` units held at the same time; settling or releasing gives all of them back."""


class Level(Protocol):
    """How a limit stands. Read it soon: a backend may give a view of the limit itself."""

    @property
    def remaining(self) -> int:
        """Units left; below zero: a debt."""

    @property
    def reset_ns(self) -> int:
        """Nanoseconds until it is whole again (0: it is)."""


class Lack(msgspec.Struct, gc=False):
    """Why a reservation was refused: the index of the want, what is there now, and seconds until it could be granted
    if nothing else came (None: never as it stands, the amount is above the capacity or the period does not end)."""

    index: int
    available: int
    retry_after_s: float | None


class PartLevel(msgspec.Struct, gc=False):
    """How one part of a pool stands, in whole units. `lent` is what others hold of it; `debt` blocks it; nothing is
    granted of the pool for `closed_ns`, since its provider said so."""

    name: str  # "shared", "reserved", "client ID"
    available: int
    capacity: int
    lent: int
    debt: int
    closed_ns: int = 0


class Grant(msgspec.Struct, gc=False):
    """The answer to `reserve`: all wants are held (`lacks` is empty), none is, or (`waits`) all but those that may be
    waited for. `levels` is parallel to the wants: how the limits stand after the decision."""

    lacks: Sequence[Lack]
    levels: Sequence[Level]
    waits: bool = False

    @property
    def granted(self) -> bool:
        return not self.lacks and not self.waits


class Used(msgspec.Struct, frozen=True):
    """What the ledger says was used, as a sum over some time; for rebuilding limits at start.

    `wall_ns` is the end of that time: later than true, so that it counts for longer. Money in pico-dollars.
    """

    wall_ns: int
    org: str
    client: str
    key: str
    model: str  # public name
    requests: int = 0
    input_tokens: int = 0  # cached ones included; of unresolved attempts all tokens at worst
    cached_tokens: int = 0
    output_tokens: int = 0  # reasoning ones included
    reasoning_tokens: int = 0
    charge_pusd: int = 0  # what the client pays
    unresolved_pusd: int = 0  # worst cost of attempts whose end is not known, not in the charge


class History(Protocol):
    """The ledger, as rebuilding asks it: sums by org, client, key and model."""

    async def since(self, wall_ns: int) -> Sequence[Used]:
        """One sum each from a whole minute until now."""

    async def graded(self, wall_ns: int) -> Sequence[Used]:
        """Sums of minutes for the last hours, of hours before, of days before those; from then or a little before."""


Want = tuple[Limit, int]
#: A tally crossed one of its marks: the tally, the index of the mark, what is used now.
Crossed = Callable[[Tally, int, int], None]
#: Something of these limits was given back.
Freed = Callable[[Sequence[str]], None]


class Store(ABC):
    """Verbs over limits, each atomic. Money and counts are exact integers, never floats."""

    async def start(self) -> None:  # noqa: B027 (a backend that remembers by itself has nothing to load)
        """Once, before the first verb: takes up what was remembered."""

    @abstractmethod
    async def reserve(
        self, hold: str, wants: Sequence[Want], ttl_s: float, waiting: int = 0, queued: bool = False
    ) -> Grant:
        """Holds all wants under the id `hold`, or none of them. The hold ends by itself after `ttl_s` seconds unless
        renewed: what it held then counts as used at its worst case, except slots, which return. Reserving under an id
        that is already held adds to it (failover). A want of nothing is always granted, and can be settled to more.

        The last `waiting` wants may be waited for: where only such ones are lacking, or where others wait for them
        already (`queued`), the wants before them are held and the grant `waits`; reserving the rest under the same id
        completes it. A want above its limit's capacity is never waited for.
        Raises ValueError for a negative amount."""

    @abstractmethod
    async def exchange(self, hold: str, dropped: Sequence[int], wants: Sequence[Want], ttl_s: float) -> Grant:
        """In one step adds new wants at the hold's end and gives back those at the indices as if they never were; or
        changes nothing, as one of the new ones is lacking beside what is held. The rest close up. For failover."""

    @abstractmethod
    async def settle(self, hold: str, actual: Sequence[int]) -> None:
        """Ends the hold with what was truly used, parallel to its wants (in the order of its reservations). Less than
        held returns the difference (TERMS 3), more becomes a debt that blocks. Unknown or ended holds are ignored.
        Raises ValueError, and changes nothing, if `actual` is not as long as the wants."""

    @abstractmethod
    async def release(self, hold: str) -> None:
        """Ends the hold as if it had never been: everything returns. For calls that never had an attempt."""

    @abstractmethod
    async def renew(self, hold: str, ttl_s: float) -> None:
        """Moves the hold's expiry to `ttl_s` seconds from now; for calls that outlive it."""

    @abstractmethod
    async def levels(self, limits: Sequence[Limit]) -> list[Level]:
        """How the limits stand, without taking anything."""

    @abstractmethod
    async def restate(self, limit: Limit, used: Iterable[tuple[int, int]]) -> None:
        """At start: what the ledger says was used of a limit, as (age in ns, amount), in any order. Windows and tallies
        are replaced by it; a bucket has at most what is left by it. Backends that never forget ignore it."""

    @abstractmethod
    async def parts(self, view: View) -> list[PartLevel]:
        """How the parts of a pool stand; the view's plan holds from then on."""

    @abstractmethod
    async def learn(self, view: View, remaining: int | None, pause_s: float = 0.0, age_s: float = 0.0) -> None:
        """What the provider itself said of a pool: so much was left in all `age_s` seconds ago (never raises ours),
        and nothing is granted during the next `pause_s` seconds."""

    @abstractmethod
    def listen(self, freed: Freed | None) -> None:
        """Has `freed` called with the names (group, else key) of limits of which something was given back (settled,
        released, expired), for whoever waits; None: nobody waits. What comes back by time alone is told by
        `Lack.retry_after_s`."""

    @abstractmethod
    def watch(self, name: str, crossed: Crossed) -> None:
        """Has `crossed` called when a tally's used amount reaches a mark, or when a hard tally first refuses what would
        not fit even if nothing were held (its last mark). The newest callback of a name replaces the older."""

    async def aclose(self) -> None:  # noqa: B027 (a backend without resources has nothing to close)
        """Lets go of what the backend holds open."""
