"""Exchange: one request and its response, as an ASGI application sees them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from uvicorn.server import ServerState

from gateway.server.head import Head
from gateway.server.outflow import Outflow
from gateway.server.response import UNKNOWN_LENGTH, Headers, ResponseHeads

logger = logging.getLogger("uvicorn.error")

Message = dict[str, Any]
Scope = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

Direct = Callable[["Exchange"], Awaitable[None] | None]
TurnAway = Callable[["Exchange"], bool]

BODILESS = frozenset((204, 304))


class Connection(Protocol):
    """What an exchange needs of its connection."""

    loop: asyncio.AbstractEventLoop
    outflow: Outflow
    responses: ResponseHeads
    server_state: ServerState
    client: tuple[str, int] | None
    task: asyncio.Task[None] | None

    def continue_reading(self, exchange: "Exchange") -> None: ...
    def can_drain(self, exchange: "Exchange") -> bool: ...
    def finish(self, exchange: "Exchange") -> None: ...


class Exchange:
    """One request and its response. Attributes an application may read:

    `disconnected`: whether the client has left. `fields`: request header values by lower-case name (the last one
    where a name is repeated; credentials, content-type and what frames the message are never repeated). `arrived`:
    whether the request body is here in full; `take` gives it then.
    """

    # Defaults live on the class: a request sets only what differs.
    disconnected = False
    begun = False  # whether the application was started
    started = False  # whether response bytes were written
    complete = False  # whether the response was written in full
    is_cut = False  # set by an application that ends its response short on purpose
    arrived = False  # whether the request body has arrived in full
    status = 0
    headers: Headers = ()
    _pieces: list[bytes] | None = None  # what arrived of the body and was not received yet
    buffered = 0  # its size in bytes
    _received = False  # whether the application got the whole request body
    _chunked = False
    _bodiless = False
    _left = UNKNOWN_LENGTH  # bytes that the response's content-length still promises
    _waiters: list[asyncio.Future[None]] | None = None
    _callbacks: list[Callable[[], object]] | None = None

    def __init__(self, connection: Connection, head: Head, keep_alive: bool) -> None:
        self._connection = connection
        self.head = head
        self.fields = head.fields
        self.keep_alive = keep_alive
        self.awaits_continue = head.expects_continue and head.length != 0

    # For the application -------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The client's address, or nothing."""
        client = self._connection.client
        return client[0] if client is not None else ""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that serves this request when the application is called directly."""
        return self._connection.task

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, synchronously, when the client leaves before its response is complete.

        If it has left already the call comes at once. It must not block and must not raise.
        """
        if self.disconnected:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    async def receive(self) -> Message:
        """ASGI's receive: the body in one message or more, then `http.disconnect` when the client has left."""
        while not (self.disconnected or self.complete):
            if not self._received:
                if self.arrived or self._pieces is not None:
                    return {"type": "http.request", "body": self.take(), "more_body": not self.arrived}
                self._connection.continue_reading(self)
            await self._wait()
        return {"type": "http.disconnect"}

    @property
    def is_crowded(self) -> bool:
        """More was written than the client takes at once: wait for `drained` before writing more."""
        return self._connection.outflow.paused

    async def drained(self) -> None:
        """Return when there is room for more of the response, or nobody to take it."""
        if self._connection.outflow.paused:
            await self._connection.outflow.drained()

    async def send(self, message: Message) -> None:
        """ASGI's send. The head goes out with the first body message; returns when there is room for more.

        After the client has left, messages are dropped silently.

        Raises:
            RuntimeError: the message is out of order, or can't be sent as valid HTTP.
        """
        kind = message["type"]
        if self.disconnected:
            return
        if kind == "http.response.body":
            more = message.get("more_body", False)
            self.send_body(message.get("body", b""), more)
            if more and self._connection.outflow.paused:
                await self._connection.outflow.drained()
        elif kind == "http.response.start":
            headers = message.get("headers", ())
            self.begin(message["status"], headers if isinstance(headers, list | tuple) else list(headers))
        else:
            raise RuntimeError(f"Unexpected ASGI message {kind!r}.")

    def begin(self, status: int, headers: Headers) -> None:
        """Set status and headers; nothing is written yet."""
        if self.status:
            raise RuntimeError("The response has been started before.")
        self.status = status
        self.headers = headers

    def send_body(self, body: bytes, more: bool) -> None:
        """Write part of the body, the last one unless `more`. Does not wait: `send` does.

        Raises:
            RuntimeError: the response is complete, was not started, or does not fit its content-length.
        """
        if self.complete or not self.status:
            raise RuntimeError("The response is complete, or has not been started.")
        head = b"" if self.started else self._head(body, more)
        if self._left != UNKNOWN_LENGTH:
            self._left -= len(body)
            if self._left and (self._left < 0 or not more):
                raise RuntimeError("The response body is not as long as its content-length.")
        elif self._chunked:
            body = _chunk(body, more)
        elif self._bodiless:
            body = b""
        self.started = True
        if more:
            self._connection.outflow.write(head, body)
            return
        self.complete = True
        self.headers = ()
        self._callbacks = None  # they lead back here: a cycle that only the collector would take apart
        self._connection.outflow.write(head, body)
        if self._waiters is not None:
            self._wake()
        self._connection.finish(self)

    def _head(self, body: bytes, more: bool) -> bytes:
        """The head's bytes; decides how the body is framed."""
        connection, request = self._connection, self.head
        responses = connection.responses
        lines, length, closes = responses.compose(self.status, self.headers, connection.server_state.default_headers)
        if request.method == "HEAD" or self.status in BODILESS:
            self._bodiless = True
        elif length != UNKNOWN_LENGTH:
            self._left = length
        elif not more:
            lines.append(b"content-length: %d" % len(body))
        elif request.minor:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            closes = True
        if closes or not (self.arrived or connection.can_drain(self)):
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close")
        elif not request.minor:
            lines.append(b"connection: keep-alive")
        return responses.seal(lines)

    # For the connection ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take a part of the request body; `arrived` is set before the last one."""
        if data:
            self.buffered += len(data)
            if self._pieces is None:
                self._pieces = [data]
            else:
                self._pieces.append(data)
        if self._waiters is not None and (data or self.arrived):
            self._wake()

    def leave(self) -> None:
        """The client has left, or was dropped: tell the application."""
        if self.complete or self.disconnected:
            return
        self.disconnected = True
        self._wake()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                logger.exception("An on_disconnect callback failed")

    def take(self) -> bytes:
        """What has arrived of the body since it was taken or received last."""
        pieces, self._pieces = self._pieces, None
        self.buffered = 0
        self._received = self.arrived
        if not self.arrived:
            self._connection.continue_reading(self)
        if pieces is None:
            return b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = self._connection.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        await waiter


def _chunk(body: bytes, more: bool) -> bytes:
    """The body in the chunked transfer coding."""
    if not body:
        return b"" if more else b"0\r\n\r\n"
    return b"%x\r\n%b\r\n%b" % (len(body), body, b"" if more else b"0\r\n\r\n")
