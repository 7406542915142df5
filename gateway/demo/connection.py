"""Knows one connection to the fake provider: requests in, answers out, one at a time and in order."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import cast

import httptools

from gateway.demo.control import answer as control
from gateway.demo.delivery import Delivery
from gateway.demo.exchange import Exchange, Reply, Request
from gateway.demo.faults import GARBAGE
from gateway.demo.provider import Provider
from gateway.demo.refusal import ProviderError
from gateway.demo.script import Script
from gateway.demo.wire import BODILESS, frames

BURST = 2_000  # output tokens of a stream that is written at once, without a task
MOST_PIPELINED = 64
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds, so that close sends RST


class Connection(asyncio.Protocol):
    """Parses requests and writes answers. An answer that takes no time is written without a task."""

    def __init__(self, provider: Provider, loop: asyncio.AbstractEventLoop) -> None:
        self._provider = provider
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._current: tuple[Exchange, Reply] | None = None
        self.task: asyncio.Task[None] | None = None
        self.gone: asyncio.Future[None] = loop.create_future()  # done once the connection is lost
        self._writable: asyncio.Future[None] | None = None
        self._is_reading_body = False
        self._is_answered_early = False
        self._is_last = False  # the connection closes after the answer in hand
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's own class does not inherit from it
        self._transport = transport
        provider = self._provider
        provider.connections.add(self)
        provider.stats.connections += 1
        provider.stats.open_connections += 1
        script = provider.plan.on_connect(self._loop.time())
        if script is not None:
            self._spoil(transport, script)

    def _spoil(self, transport: asyncio.Transport, script: Script) -> None:
        if script.halfopen:  # some loops begin to read only after this, whatever they were told before
            self._loop.call_soon(transport.pause_reading)
        elif script.garbage:
            transport.write(GARBAGE)
            transport.close()
        else:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        provider = self._provider
        provider.connections.discard(self)
        provider.stats.open_connections -= 1
        if self._is_reading_body:
            provider.stats.aborted_requests += 1
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.task is not None:
            self.task.cancel()  # before its slot is given on, so that a waiter who has left is not granted one
        if self._current is not None:
            exchange, reply = self._current
            provider.stats.cancel(exchange, self._loop.time() - exchange.started)
            provider.journal.cut(exchange, reply, "cancelled")
            self._leave()
        self._waiting.clear()
        self._transport = None
        self.gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            self._provider.stats.bad_requests += 1
            if self._transport is not None:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.close()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = []
        self._is_reading_body = True
        self._is_answered_early = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif name == b"x-fake" and b"early" in value:
                self._is_answered_early = True
                self._take(self._request())

    def on_body(self, body: bytes) -> None:
        if not self._is_answered_early:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._is_reading_body = False
        if not self._is_answered_early:
            self._take(self._request())

    def _request(self) -> Request:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        http11 = self._parser.get_http_version() == "1.1"
        return Request(
            self._parser.get_method().decode(),
            self._target.decode("latin-1"),
            self._headers,
            body,
            self._parser.should_keep_alive(),
            http11,
        )

    # --- one answer after the other

    def _take(self, request: Request) -> None:
        if self._current is None:
            self._begin(request)
        elif len(self._waiting) < MOST_PIPELINED:
            self._waiting.append(request)
        else:
            self.reset()

    def _begin(self, request: Request) -> None:
        provider = self._provider
        if request.path.startswith("/fake/"):
            self._control(request)
            return
        exchange, reply = provider.answer(request, self, self._loop.time())
        self._current = exchange, reply
        if provider.is_slow or exchange.script.delays or (reply.events is not None and reply.usage.output > BURST):
            self.task = self._loop.create_task(self._deliver(exchange, reply))
            return
        self._write_whole(exchange, reply)
        self._finish()

    def _write_whole(self, exchange: Exchange, reply: Reply) -> None:
        if reply.events is None or exchange.request.method == "HEAD":
            framing = b"" if reply.status in BODILESS else b"content-length: %d\r\n" % len(reply.body)
            body = b"" if exchange.request.method == "HEAD" else reply.body
        elif exchange.request.http11:
            framing, body = b"transfer-encoding: chunked\r\n", frames(reply.events)
        else:
            framing, body = b"", b"".join(reply.events)
        self._leave()
        self.write(self.head(exchange, reply, framing) + body)

    def head(self, exchange: Exchange, reply: Reply, framing: bytes) -> bytes:
        """The answer's head; says so where the connection closes after it."""
        return self._provider.heads.head(exchange, reply, framing, not self._stays_open(exchange, reply))

    def _stays_open(self, exchange: Exchange, reply: Reply) -> bool:
        request, script = exchange.request, exchange.script
        if script.close or script.early == "close" or not request.keep_alive:
            return False
        return request.http11 or reply.events is None

    async def _deliver(self, exchange: Exchange, reply: Reply) -> None:
        await Delivery(self, exchange, reply).run()
        self._leave()
        self._finish()

    def _leave(self) -> None:
        """The answer is over, for the counters and the slots."""
        if self._current is None:
            return
        self._provider.stats.in_flight -= 1
        if self._provider.slots is not None:
            self._provider.slots.leave(self)
        exchange, reply = self._current
        self._current = None
        self._is_last = not self._stays_open(exchange, reply)

    def _finish(self) -> None:
        self.task = None
        if self._is_last:
            self.close()
        elif self._waiting and self._transport is not None and not self._transport.is_closing():
            self._begin(self._waiting.popleft())

    def _control(self, request: Request) -> None:
        try:
            status, body = control(self._provider, request, self, self._loop.time())
        except ProviderError as error:
            status, body = error.status, error.render(False, "")
        close = b"" if request.keep_alive else b"connection: close\r\n"
        head = b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        self.write(head % (status, close, len(body)) + body)
        if not request.keep_alive:
            self.close()

    # --- what a delivery needs

    @property
    def fileno(self) -> int:
        """The socket's descriptor; -1 where it is closed."""
        if self._transport is None:
            return -1
        found = self._transport.get_extra_info("socket")
        return -1 if found is None else int(found.fileno())

    def write(self, data: bytes) -> None:
        """Writes, or does nothing where the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits until the peer has read enough."""
        if self._writable is not None:
            await self._writable

    def close(self) -> None:
        """Ends the connection with FIN, once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Ends the connection with RST."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()
