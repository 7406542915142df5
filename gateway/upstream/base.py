"""The contract of an upstream client: one request in, one streamed reply out, bounded in time, safe to cancel.

UpstreamError                   .sent, .phase
├── ConnectFailed               refused, unreachable, name not resolved, TLS not verified
├── ConnectTimeout              not connected within connect_s
├── PoolTimeout                 all connections stayed busy
├── FirstByteTimeout            no reply head within first_byte_s after the request was handed over
├── IdleTimeout                 the upstream sent (or took) nothing for idle_s
├── TotalTimeout                the exchange outlived total_s or the caller's total_deadline
├── ConnectionLost              reset or end of file before the reply was complete
└── ProtocolError               the reply (or a request body of known length) broke HTTP's framing
"""

# The field's words (FirstByteTimeout, ConnectionLost) read better without "Error" behind each of them.
# ruff: noqa: N818

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Phase = Literal["connect", "send", "head", "body"]
Headers = list[tuple[bytes, bytes]]


class UpstreamError(Exception):
    """An exchange failed.

    `sent` is whether any byte of the request may have reached the upstream: only where it is False may the same
    request be sent again without asking whether it was already handled. `phase` is how far the exchange had come:
    "connect" (waiting for a connection), "send" (the request was being written), "head" (waiting for the reply's
    head), "body" (the head was delivered).
    """

    def __init__(self, message: str, *, phase: Phase, sent: bool) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        self.sent = sent


class ConnectFailed(UpstreamError):
    """Refused, unreachable, unknown name, or a certificate that does not verify."""


class ConnectTimeout(UpstreamError):
    """No connection within `connect_s`."""


class PoolTimeout(UpstreamError):
    """Every connection stayed in use."""


class FirstByteTimeout(UpstreamError):
    """No reply head within `first_byte_s`."""


class IdleTimeout(UpstreamError):
    """Nothing moved for `idle_s`, while we were ready to read or to write."""


class TotalTimeout(UpstreamError):
    """The exchange as a whole took too long."""


class ConnectionLost(UpstreamError):
    """Reset or end of file before the reply was complete."""


class ProtocolError(UpstreamError):
    """Garbage, contradictory framing, a head over the limit, or a body that is not as long as declared."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 or None means no bound."""

    connect_s: float | None = 5.0
    first_byte_s: float | None = 120.0
    idle_s: float | None = 60.0
    total_s: float | None = 600.0


@dataclass(slots=True)
class UpstreamRequest:
    """What is sent.

    `headers` are final but for those that the client writes itself: host, connection, content-length,
    transfer-encoding. An iterator body is sent with `content_length`, or chunked where that is None; it is iterated
    in a task of its own, stopped as soon as the exchange ends. `total_deadline` is a `loop.time()` value that may
    shorten, never lengthen, `Timeouts.total_s`.
    """

    method: str
    target: bytes
    headers: Headers = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] | None = None
    content_length: int | None = None
    total_deadline: float | None = None
    lead: bytes = b""  # what `UpstreamClient.lead` made of method, target and headers, which are not read again then


class UpstreamResponse(ABC):
    """A reply whose head has arrived.

    `headers` have lower-case names, without hop-by-hop ones and without trailers; a content-length is kept as the
    upstream sent it. `first_byte_at` is the `loop.time()` at which the head was complete.
    """

    __slots__ = ("content_length", "first_byte_at", "headers", "status")

    #: Whether a `read` that was cancelled loses nothing; otherwise it ends the exchange.
    read_can_be_cancelled: ClassVar[bool] = False

    status: int
    headers: Headers
    content_length: int | None
    first_byte_at: float

    @abstractmethod
    async def read(self) -> bytes:
        """All bytes that have arrived, or else the next ones; b"" at the clean end. Raises UpstreamError.

        Bytes that came before a failure are returned first. One reader at a time.
        """

    async def pass_to(self, sink: Callable[[bytes], bool]) -> None:  # noqa: B027 (returning at once is allowed)
        """Give `sink` all bytes as they arrive, at once and without a task in between.

        Returns when it answered False (it has no room for more now), when the reply has ended or failed, or at once
        where a client has no such way: in each case `read` goes on. Raises what `sink` raises. No reader meanwhile.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the exchange, at any moment and any number of times.

        The connection is kept where the reply was complete and closed where it was not.
        """


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of one client now, and counts since it was made."""

    open: int
    idle: int
    in_use: int
    connecting: int
    waiting: int
    opened_total: int
    closed_total: int
    reused_total: int
    retried_total: int


class UpstreamClient(ABC):
    """Exchanges with one origin. Bound to the event loop of its first `send`."""

    @abstractmethod
    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send, and return when the reply's head is there. May be cancelled at any await. Raises UpstreamError.

        An exception of the body's iterator is raised as it is, here or by `read()`. ValueError: a request that could
        not be written without ambiguity (line breaks in a header, a target that is not in origin form).
        """

    def lead(self, method: str, target: bytes, headers: Headers) -> bytes:
        """The beginning of a head, checked and written once for many requests that are alike; b"" where the client has
        no use for one. ValueError as in `send`."""
        return b""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection; exchanges under way fail with ConnectionLost."""

    @abstractmethod
    def stats(self) -> PoolStats:
        """A snapshot, cheap enough for a metrics page."""
