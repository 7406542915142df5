"""A call that waits: how it stands in the queue, and what it needs to go on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from gateway.call import Held
from gateway.wishes import Urgency

if TYPE_CHECKING:
    from gateway.scheduler.loans import Loans

LevelName = Literal["immediate", "fast", "normal", "batch", "deferred"]

#: The five levels: labels of an estimated wait, by the seconds below which each applies.
LEVELS: tuple[tuple[LevelName, float], ...] = (
    ("immediate", 1.0),
    ("fast", 10.0),
    ("normal", 60.0),
    ("batch", 3600.0),
    ("deferred", float("inf")),
)
_NAMES = tuple([name for name, _ in LEVELS])
_BELOW_S = [below_s for _, below_s in LEVELS[:-1]]


class Placement(msgspec.Struct):
    """What the queue policy says of a call before it is known whether it has to wait.

    `points` are those of its tier (0..40), its weight in the fair order is a tenth of them. Instants are monotonic ns.
    """

    urgency: Urgency
    points: int
    longest_wait_s: float
    deadline_ns: int | None = None
    usual_wait_s: float = 0.0  # the longest of its urgency: who wishes a shorter one is not starved the sooner for it
    heartbeat_s: float = 0.0  # between two signs of life on a stream that waits; 0: none


class Option(msgspec.Struct, frozen=True, eq=False):
    """One target of a call, by its place in `call.targets`, and what the call has to hold to go there. Collected: its
    needs may lead back to the call."""

    target: int
    held: Sequence[Held]


class Waiter(msgspec.Struct, eq=False):
    """One call as the scheduler sees it. `resolve` gives its options anew, in rank (after a reload), or raises the
    GatewayError that ends it: its key was revoked, its targets are gone."""

    id: str  # of the call, and of its hold in the store
    client: str
    org: str
    key: str
    placement: Placement
    tokens: int  # the label estimate; calls without tokens count 1,000
    not_before_ns: int
    options: Sequence[Option]
    resolve: Callable[[], Sequence[Option]]
    ttl_s: float  # of the hold
    loans: Loans | None = None  # places that others lend it
    body_bytes: int = 0  # of its request's body, which is kept while it waits


class Queued(msgspec.Struct, gc=False):
    """How a call waited; for its headers, its log line and the estimate's own error."""

    level: LevelName
    position: int  # zero-based, at arrival
    estimate_ms: int  # of the whole wait, at arrival
    waited_ns: int = 0

    @property
    def waited_ms(self) -> int:
        """Of the whole wait, once it is over."""
        return self.waited_ns // 1_000_000


def level_of(wait_s: float) -> LevelName:
    """The label of an estimated wait."""
    return _NAMES[bisect_right(_BELOW_S, wait_s)]
