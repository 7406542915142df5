"""One exchange with an upstream, under way: what is sent, what is known of it so far, and how it may spoil."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from gateway.errors import GatewayError, Header
from gateway.providers.base import Meter, Provider
from gateway.providers.faults import Fault
from gateway.records.rows import AttemptRow
from gateway.routing.attempts import Attempts, Choice
from gateway.targets import Target
from gateway.usage import Usage


@dataclass(slots=True)
class Outgoing:
    """What is sent for a call, apart from what depends on its target."""

    headers: Callable[[Provider], list[Header]]  # those of the client that may go up to that provider
    chunks: AsyncIterator[bytes] | None = None  # an unbuffered body: one attempt only
    content_length: int | None = None
    aim: Callable[[Target], int | None] | None = None  # such a body at the target it goes to; gives its length
    rewrite: Callable[[bytes], Awaitable[bytes]] | None = None  # of a list of objects


@dataclass(slots=True)
class Attempt:
    """One exchange under way."""

    row: AttemptRow
    target: Target
    plan: Attempts
    choice: Choice
    meter: Meter | None = None
    is_stream: bool = False
    is_whole: bool = False  # held back until it is complete
    held: bytes = b""  # of a stream, while nothing of it went out
    is_encoded: bool = False  # by the provider, though the plain bytes were asked for
    sent_ns: int = 0
    headers: list[Header] = field(default_factory=list)  # of the reply, those that may go down

    @property
    def is_open(self) -> bool:
        """Not closed in the ledger."""
        return self.row.outcome == "open"

    @property
    def counting(self) -> Meter:
        """The meter, once the reply's head is there."""
        assert self.meter is not None, "the reply's head is there"
        return self.meter


class Spoilt(Exception):  # noqa: N818 — what an attempt is, not an error that anybody is told
    """An attempt failed before a byte of an answer went out. `fault` None: judged already, `following` comes next."""

    def __init__(self, fault: Fault | None, error: GatewayError, usage: Usage, following: Choice | None = None) -> None:
        super().__init__(error.message)
        self.fault = fault
        self.error = error
        self.usage = usage
        self.following = following


def value_of(headers: list[Header], name: bytes) -> bytes:
    """The first header of that lower-case name, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""
