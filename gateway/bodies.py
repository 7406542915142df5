"""The body of an inbound request: read whole within a bound, or passed on as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gateway.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from gateway.server.exchange import Exchange

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


#: How much of a body that is passed on unread can be looked at before it is.
FIRST_BYTES = 65_536


class ClientGone(Exception):  # noqa: N818 (not an error of ours)
    """The client left before its request was complete."""


class Inbound:
    """One request's body, read at most once. `limit` in bytes."""

    def __init__(
        self, receive: Receive, content_length: bytes | None, limit: int, exchange: Exchange | None = None
    ) -> None:
        self._receive = receive
        self._exchange = exchange
        self._limit = limit
        self.ended = False  # received to its end, though perhaps not yet passed on
        self._size = 0
        self._first = bytearray()
        self._held: list[bytes] = []  # received ahead of being passed on
        self.length = _length(content_length)
        if self.length is not None and self.length > limit:
            raise self._too_large()

    async def whole(self) -> bytes:
        """All of it. Raises TooLarge while still receiving, ClientGone."""
        if self._exchange is not None and self._exchange.arrived and not self._exchange.disconnected:
            self.ended = True
            body = self._exchange.take()
            if len(body) > self._limit:
                raise self._too_large()
            return body
        message = await self._next()
        body = bytes(message.get("body", b""))
        if not message.get("more_body", False):
            self.ended = True
            if len(body) > self._limit:
                raise self._too_large()
            return body
        parts, size = [body], len(body)
        while not self.ended:
            message = await self._next()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise self._too_large()
            self.ended = not message.get("more_body", False)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """As it comes. Raises TooLarge, ClientGone."""
        while self.unread:
            chunk = self._held.pop(0) if self._held else await self._chunk()
            if chunk:
                yield chunk

    @property
    def unread(self) -> bool:
        """Whether `chunks` has more to give."""
        return bool(self._held) or not self.ended

    async def first_bytes(self) -> bytes:
        """The first FIRST_BYTES of the body, or all of it; they are passed on all the same."""
        while len(self._first) < FIRST_BYTES and not self.ended:
            self._held.append(await self._chunk())
        return bytes(self._first)

    async def look_ahead(self) -> None:
        """Receives a short body before it is passed on. Under a server that is not ours a client is seen to leave only
        behind the end of its body."""
        if self._exchange is None and self.length is not None and self.length <= FIRST_BYTES:
            await self.first_bytes()

    async def _chunk(self) -> bytes:
        message = await self._next()
        self.ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        if self._size > self._limit:
            raise self._too_large()
        if len(self._first) < FIRST_BYTES:
            self._first += chunk[: FIRST_BYTES - len(self._first)]
        return chunk

    async def _next(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The request body is larger than {self._limit:,} bytes, the most this gateway takes (body_limit). "
            "Send less, in parts, or have the operator raise it."
        )


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit():
        raise BadRequest("The content-length header is not a number.")
    return int(value)
