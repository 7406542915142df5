"""Connection: one socket to an upstream and the exchange on it; bytes in, parsed replies out.

The parser (llhttp) calls back while it reads. Body pieces go straight into a list; nothing else happens for a piece,
and a reader is woken once for all that one read of the socket brought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from httptools import HttpParserError, HttpResponseParser

from gateway.upstream.base import ConnectionLost, Headers, Phase, ProtocolError, UpstreamError
from gateway.upstream.head import HeadError, check_interim, read_head
from gateway.upstream.reply import Reply

READ_BUFFER_BYTES = 256 * 1024
_JOIN_BYTES = 64 * 1024


class Owner(Protocol):
    """Who lends connections out, and what it must hear of them."""

    def release(self, connection: Connection) -> None: ...
    def discard(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """At most one exchange at a time; a connection whose exchange was not finished cleanly is never used again.

    For the sweeper: `deadline` is when the exchange fails (loop time), `silent_since` when it first saw no movement
    (0.0 until then, reset by each read).
    """

    __slots__ = (
        "_barren",
        "_buffered",
        "_bulky",
        "_complete",
        "_drained",
        "_headers",
        "_held",
        "_interim",
        "_keep_alive",
        "_max_header_bytes",
        "_now",
        "_owner",
        "_parser",
        "_until_end",
        "deadline",
        "loop",
        "on_body",
        "parts",
        "paused",
        "reply",
        "sending",
        "silent_since",
        "transport",
    )

    def __init__(
        self, owner: Owner, loop: asyncio.AbstractEventLoop, now: Callable[[], float], max_header_bytes: int
    ) -> None:
        self._owner = owner
        self.loop = loop
        self._now = now
        self._max_header_bytes = max_header_bytes
        self.parts: list[bytes] = []
        self.on_body = self.parts.append  # the parser takes it as its callback: no Python frame for a piece
        self.reply: Reply | None = None
        self.deadline = 0.0
        self.silent_since = 0.0
        self.paused = False
        self.sending = False
        self._headers: Headers = []
        self._held = b""
        self._barren = 0
        self._buffered = 0
        self._bulky = False
        self._complete = False
        self._interim = False
        self._keep_alive = False
        self._until_end = False
        self._drained: asyncio.Future[None] | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    # What the client asks of it

    def start(self, reply: Reply, head: bytes, body: bytes | None, deadline: float) -> None:
        """Write a request; `deadline` is for the reply's head. A body that is uploaded comes by `write`."""
        self.reply = reply
        self.deadline = deadline
        self.silent_since = 0.0
        self._barren = 0
        if body is None:
            self.transport.write(head)
        elif len(body) <= _JOIN_BYTES:
            self.transport.write(head + body)
        else:
            self._bulky = True
            self.transport.write(head)
            self.transport.write(body)

    def take(self) -> bytes:
        """All body bytes that are here; lets the upstream go on if it had to wait for us."""
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered = 0
        if self.paused:
            self._resume()
        return data

    def fail(self, kind: type[UpstreamError], message: str) -> None:
        """End the exchange with an error (after the bytes that came before it) and close the connection."""
        reply = self.reply
        if reply is not None:
            phase: Phase = "body" if reply.started else "send" if self.sending else "head"
            self.fail_with(kind(message, phase=phase, sent=True))

    def fail_with(self, error: Exception) -> None:
        reply = self.reply
        if reply is not None:
            reply.error = error
            self._keep_alive = False
            self._detach(reply)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reply, parser = self.reply, self._parser
        if reply is None or parser is None:
            self._owner.discard(self)  # bytes that nobody asked for
            return
        self.silent_since = 0.0
        self._barren += len(data)
        parts = self.parts
        held = len(parts)
        try:
            if reply.head_only:
                self._feed_head_only(reply, parser, data)
            else:
                parser.feed_data(data)
        except HttpParserError as error:
            if not self._complete:
                self.fail(ProtocolError, f"the reply is not valid HTTP: {error.__context__ or error}")
                return
            self._keep_alive = False
        if self._complete:
            self._detach(reply)
        elif len(parts) > held:
            self._barren = 0
            if reply.sink is not None:
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                reply.pour(reply.sink, data)
                return
            self._buffered += len(data)
            if reply.waiter is not None:
                reply.wake()
            elif self._buffered > READ_BUFFER_BYTES and not self.paused:
                self.paused = True
                self.transport.pause_reading()
        elif self._barren > self._max_header_bytes:
            self.fail(ProtocolError, "the reply's head, trailer or a chunk's head is too long")

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self.resume_writing()
        self._parser = None  # it refers to us
        self._owner.gone(self)

    def pause_writing(self) -> None:
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        self.silent_since = 0.0
        if drained is not None and not drained.done():
            drained.set_result(None)

    # What an upload needs

    @property
    def stalled(self) -> bool:
        """Whether it is the upstream's turn to move: to take more of an upload, or to send more of its reply."""
        if self.sending:
            return self._drained is not None
        return self.reply is not None and self.reply.started and not self.paused

    async def drain(self) -> None:
        if self._drained is not None:
            await self._drained

    def begin_upload(self) -> None:
        self.sending = self._bulky = True

    def end_upload(self, deadline: float) -> None:
        """The last byte is handed over; `deadline` is for the reply's head, unless that is here already."""
        self.sending = False
        if self.reply is not None and not self.reply.started:
            self.deadline = deadline

    # What the parser tells

    def on_message_begin(self) -> None:
        if self._complete:
            raise HeadError("bytes after the end of the reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        reply, parser, headers = self.reply, self._parser, self._headers
        assert reply is not None and parser is not None  # noqa: PT018 — one test, on the hot path
        status = parser.get_status_code()
        self._headers = []
        if status < 200:
            check_interim(status, headers)
            self._interim = True
            return
        if self._barren > self._max_header_bytes and sum(map(_size, headers)) > self._max_header_bytes:
            raise HeadError("the head is too long")
        reply.headers, reply.content_length, chunked = read_head(status, headers)
        reply.status = status
        reply.first_byte_at = self._now()
        reply.started = True
        self._keep_alive = parser.should_keep_alive()
        self._until_end = reply.content_length is None and not chunked
        self._barren = 0
        self.deadline = reply.total_at
        reply.wake()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        self._headers = []  # trailers
        self._complete = True

    # Inside

    def _feed_head_only(self, reply: Reply, parser: HttpResponseParser, data: bytes) -> None:
        """Reply to HEAD: the parser cannot be told that no body follows, so it gets the head and no more."""
        held = self._held + data
        while not reply.started and (end := held.find(b"\r\n\r\n")) >= 0:
            head, held = held[: end + 4], held[end + 4 :]
            parser.feed_data(head)
        self._held = held
        if reply.started:
            self._complete = True
            self._keep_alive = self._keep_alive and not held
            self._held = b""
            self._parser = HttpResponseParser(self)

    def _ended(self, exc: Exception | None) -> None:
        reply = self.reply
        if reply is None:
            self._owner.discard(self)
        elif reply.started and self._until_end and exc is None:
            self._keep_alive = False
            self._detach(reply)
        else:
            self.fail(ConnectionLost, f"the upstream closed the connection{f' ({exc})' if exc else ''}")

    def _detach(self, reply: Reply) -> None:
        """The exchange is over, well or badly: the reply keeps its bytes, the connection goes back or closes."""
        parts = self.parts
        if parts:
            reply.rest = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        self.reply = reply.connection = None
        self._complete = False
        self._buffered = 0
        if self.sending:
            self._keep_alive = False
            if reply.upload is not None:
                reply.upload.cancel()
        if self._keep_alive and not (self._bulky and self._unsent()):
            if self.paused:
                self._resume()
            self._owner.release(self)
        else:
            self._owner.discard(self)
        reply.wake()

    def _unsent(self) -> bool:
        self._bulky = False
        return self.transport.get_write_buffer_size() > 0

    def _resume(self) -> None:
        self.paused = False
        self.silent_since = 0.0
        if not self.transport.is_closing():
            self.transport.resume_reading()


def _size(pair: tuple[bytes, bytes]) -> int:
    return len(pair[0]) + len(pair[1]) + 4
