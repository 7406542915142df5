"""TidegateProtocol: one client connection speaking HTTP/1.1, served to an ASGI 3 application.

Use it as `uvicorn --http gateway.server.protocol:TidegateProtocol`, or as `Config(http=protocol_class(limits))` for
limits other than the default; stock uvicorn (`--http httptools`) serves the same application without them.

What differs from stock uvicorn, and is meant to:

- The head is read strictly (head.py) and the path is canonical (paths.py) before the application sees anything;
  `scope["raw_path"]` is that canonical path. Protocol errors are answered in JSON, and the connection is closed.
- There are time-outs for all receiving and sending, kept by one sweeper for all connections. A small body is awaited
  in full before the application starts, so that a slow sender never occupies it.
- One task serves a connection's requests one after the other. Context variables that an application sets and does not
  reset are therefore still set in the next request of the same connection.
- `scope["extensions"]["tidegate"]` is the `Exchange`: its attribute `disconnected` and its method
  `on_disconnect(callback)` tell at once that the client has left, without a task that waits for it; its `fields` gives
  request headers by name.
- An application may have a method `direct(exchange)`: what it returns is awaited instead of an ASGI call, unless it
  is None. It reads the request from the exchange's `head`, `take` and `receive`, and answers by `begin` and
  `send_body`, without messages in between.
- A client that shuts down its sending side has left. After that, `send` drops what it is given.
- There is no access log here, and no WebSocket.
"""

import asyncio
import logging
import socket
import struct
from typing import Any
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.server.exchange import Exchange, Scope
from gateway.server.head import CHUNKED, Head, target_too_long
from gateway.server.incoming import BodyClock, ChunkedBody, LengthBody
from gateway.server.limits import WireLimits
from gateway.server.outflow import Outflow
from gateway.server.refusal import BadFraming, Refusal, path_in
from gateway.server.sweeper import NEVER
from gateway.server.template import HeadTemplate
from gateway.server.wire import Wire

logger = logging.getLogger("uvicorn.error")

# What the next bytes are: a head, a body, part of a later request, or of no interest any more.
HEAD, BODY, LATER, NOTHING = range(4)

MOST_BUFFERED = 65_536  # bytes of a body that the application has not taken, before reading pauses
RESET = struct.pack("ii", 1, 0)  # struct linger: on, without waiting
LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r")  # small ones are refused with a sentence
FAILED = Refusal(500, "internal_error", "The server failed to answer this request. The failure is in its log.")


def protocol_class(limits: WireLimits) -> type["TidegateProtocol"]:
    """The protocol with these limits, for uvicorn's `Config(http=...)`."""
    return type("TidegateProtocol", (TidegateProtocol,), {"limits": limits})


class TidegateProtocol(asyncio.Protocol):
    """One connection. `limits` is set on the class by `protocol_class`."""

    limits = WireLimits()
    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_running_loop()
        wire: Wire | None = getattr(server_state, "tidegate_wire", None)
        if wire is None:
            wire = Wire(config, server_state, app_state, self.limits, self.loop)
            server_state.tidegate_wire = wire  # type: ignore[attr-defined]  # what a server shares belongs to it
        self.wire = wire
        self.responses = wire.responses
        self.server_state = server_state
        self.exchange: Exchange | None = None
        self.phase = HEAD
        self.deadline = NEVER
        self.outflow = Outflow(self.loop, self.limits.write_timeout_s)
        self._reading_paused = False
        self._pending = b""
        self._heads = HeadTemplate(wire.reader)
        self._body: LengthBody | ChunkedBody | None = None
        self._clock: BodyClock | None = None
        self._stopping = wire.stopping
        self._answered = False  # one request at least
        self._idle: asyncio.Future[Exchange | None] | None = None
        self._peer: str | None = None
        self.task: asyncio.Task[None] | None = None

    # Transport callbacks --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A client has connected."""
        wire = self.wire
        self.transport = self.outflow.transport = transport
        self.client = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.deadline = self.loop.time() + self.limits.header_timeout_s
        wire.opened += 1
        wire.connections.add(self)
        wire.sweeper.add(self)
        if self.client is not None:
            self._peer, allowed = wire.peers.enter(self.client[0])
            if not allowed:
                message = f"This address has more than {wire.peers.most} connections open. Close some, or reuse them."
                self.refuse(Refusal(503, "too_many_connections", message))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, from whichever side."""
        self.phase = NOTHING
        self.wire.connections.discard(self)
        self.wire.sweeper.discard(self)
        if self._peer is not None:
            self.wire.peers.leave(self._peer)
        self._leave()
        self.outflow.resume()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def eof_received(self) -> None:
        """The client will send nothing more, which is taken as leaving; the transport closes itself then."""
        self._leave()
        if self.phase != NOTHING:
            self.phase = NOTHING
            self.deadline = NEVER
            self.outflow.watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        phase = self.phase
        if phase == HEAD:
            self._read_head(data)
        elif phase == BODY:
            self._read_body(data)
        elif phase == LATER:
            self._pending += data
            if len(self._pending) > self.limits.max_header_bytes:
                self._pause_reading()

    def pause_writing(self) -> None:
        """The client takes less than is written."""
        self.outflow.pause()

    def resume_writing(self) -> None:
        """There is room for more."""
        self.outflow.resume()
        if self.phase != NOTHING:
            self.outflow.deadline = NEVER
        if self.phase == LATER and self.exchange is None:
            self._turn()

    def shutdown(self) -> None:
        """uvicorn's call for a graceful end: what has begun is served, what idles is closed. A connection that is
        new, or a head that is partly here, gets a moment: closing under a request on its way would be a reset."""
        self._stopping = True
        if self.phase == HEAD:
            if self._answered and not self._pending:
                self._close()
            else:
                self.deadline = min(self.deadline, self.loop.time() + self.limits.linger_s)
        elif self.exchange is not None:
            self.exchange.keep_alive = False

    # Reading --------------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        start = 0
        if self._pending:
            start = max(0, len(self._pending) - 3)
            data = self._pending + data
        end = data.find(b"\r\n\r\n", start)
        try:
            if not 0 <= end <= self.limits.max_header_bytes:
                self._check_partial(data, start)
                self._pending = data
                self.deadline = min(self.deadline, self.loop.time() + self.limits.header_timeout_s)
                return
            self._accept(self._heads.read(data[:end]), data[end + 4 :])
        except Refusal as refusal:
            self._pending = data
            self.refuse(refusal)

    def _check_partial(self, data: bytes, start: int) -> None:
        """Refuse what can't become a valid head, whatever comes behind it; `start` is where the new bytes begin."""
        limits = self.limits
        if data[0] not in LETTERS:
            raise BadFraming("it does not begin with a method (is the client speaking TLS or HTTP/2 to this port?)")
        longest_line = limits.max_target_bytes + 32
        if len(data) > longest_line and data.find(b"\r\n", 2, longest_line) < 0:
            raise target_too_long(limits.max_target_bytes)
        if len(data) > limits.max_header_bytes:
            message = f"The headers are larger than {limits.max_header_bytes} bytes. Send fewer or shorter ones."
            raise Refusal(431, "headers_too_large", message)
        if data.count(b"\n", start) != data.count(b"\r\n", max(0, start - 1)):
            raise BadFraming("a line does not end with CR LF")

    def _accept(self, head: Head, rest: bytes) -> None:
        """A request has begun; `rest` is what came behind its head."""
        length = head.length
        exchange = Exchange(self, head, head.keep_alive and not self._stopping)
        self.exchange = exchange
        self.deadline = NEVER
        if length == 0 or 0 < length <= len(rest):
            if length:
                exchange.feed(rest[:length])
            exchange.arrived = True
            self.phase = LATER
            self._pending = rest[length:]
            self._begin(exchange)
            return
        self.phase = BODY
        self._pending = b""
        self._body = LengthBody(length) if length != CHUNKED else ChunkedBody(self.limits.max_body_bytes)
        self._start_clock()
        if rest:
            self._read_body(rest)
        elif exchange.awaits_continue:
            self.deadline = NEVER  # the client waits for us
        held = 0 < length <= self.limits.held_body_bytes and not exchange.awaits_continue
        if self.phase == BODY and not held:
            self._begin(exchange)

    def _read_body(self, data: bytes) -> None:
        exchange, reader = self.exchange, self._body
        assert exchange is not None
        assert reader is not None
        try:
            body = reader.feed(data)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if exchange.awaits_continue:
            exchange.awaits_continue = False
            self._start_clock()
        wanted = not exchange.complete
        if wanted:
            exchange.arrived = reader.done
            exchange.feed(body)
        if reader.done:
            self._end_body(exchange, reader.rest)
        elif wanted and exchange.buffered > MOST_BUFFERED and exchange.begun:
            self._pause_reading()
            self.deadline = NEVER
        elif self._clock is not None:
            self.deadline = self._clock.deadline(self.loop.time(), len(data))

    def _end_body(self, exchange: Exchange, rest: bytes) -> None:
        self.deadline = NEVER
        self.phase = LATER
        self._pending = rest
        self._body = self._clock = None
        if exchange.complete:
            self._turn()
        elif not exchange.begun:
            self._begin(exchange)

    def _start_clock(self) -> None:
        now = self.loop.time()
        self._clock = BodyClock(self.limits, now)
        self.deadline = self._clock.deadline(now)

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    # Serving --------------------------------------------------------------------------------------------------------

    def _begin(self, exchange: Exchange) -> None:
        """Hand the request to the task that owns this connection, or to a new one if that is not idle."""
        wire = self.wire
        exchange.begun = True
        most = wire.limit_concurrency
        if most is not None and len(wire.connections) > most:
            self.refuse(Refusal(503, "overloaded", "The server has too many connections. Try again in a moment."))
            return
        if wire.turn_away is not None and wire.turn_away(exchange):
            return
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(exchange)
            return
        tasks = self.server_state.tasks
        task = self.task = self.loop.create_task(self._serve(exchange))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _serve(self, exchange: Exchange | None) -> None:
        """Run the application for one request after the other."""
        app, direct = self.wire.app, self.wire.direct
        while exchange is not None:
            try:
                if direct is not None and (answering := direct(exchange)) is not None:
                    await answering
                else:
                    await app(self._scope(exchange), exchange.receive, exchange.send)
            except Exception as error:
                self._fail(exchange, error)
            except BaseException:
                if not exchange.complete:
                    self.transport.abort()
                raise
            if not (exchange.complete or exchange.disconnected):
                self._fail(exchange, None)
            if self._idle is not None or self.phase == NOTHING:
                return
            self._idle = idle = self.loop.create_future()
            exchange = None  # nothing of it is kept while the connection is idle
            exchange = await idle

    def _scope(self, exchange: Exchange) -> Scope:
        wire, head = self.wire, exchange.head
        root_path = wire.root_path
        path = head.path.decode("ascii")
        return {
            "type": "http",
            "asgi": wire.asgi,
            "http_version": "1.1" if head.minor else "1.0",
            "method": head.method,
            "scheme": self.scheme,
            "path": root_path + (unquote(path) if "%" in path else path),
            "raw_path": root_path.encode() + head.path if root_path else head.path,
            "query_string": head.query,
            "root_path": root_path,
            "headers": head.headers,
            "client": self.client,
            "server": self.server,
            "state": wire.app_state.copy(),
            "extensions": {"tidegate": exchange},
        }

    def _fail(self, exchange: Exchange, error: Exception | None) -> None:
        """The application raised, or returned without a whole response."""
        if exchange.disconnected and error is None:
            return
        if error is not None or not exchange.is_cut:
            logger.error("The application failed, or returned without a whole response", exc_info=error)
        if exchange.complete or exchange.disconnected:
            return
        if exchange.started:
            exchange.leave()
            self.transport.abort()  # the client must not take the part for the whole
        else:
            self.refuse(FAILED)

    # For the exchange -----------------------------------------------------------------------------------------------

    def continue_reading(self, exchange: Exchange) -> None:
        """The application is ready for more of the request body."""
        if self.phase != BODY or exchange is not self.exchange:
            return
        if exchange.awaits_continue:
            exchange.awaits_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._start_clock()
        elif self._reading_paused:
            self._start_clock()
        self._resume_reading()

    def can_drain(self, exchange: Exchange) -> bool:
        """Whether the rest of the request body is small enough to be read for the sake of the connection."""
        reader = self._body
        if exchange.awaits_continue or not isinstance(reader, LengthBody):
            return False
        return reader.left <= self.limits.drained_body_bytes

    def finish(self, exchange: Exchange) -> None:
        """The response has been written in full."""
        self.server_state.total_requests += 1
        if self.phase == NOTHING:
            return
        if not exchange.arrived:
            if exchange.keep_alive:
                self._start_clock()
                self._resume_reading()
            else:
                self._linger()
        elif exchange.keep_alive:
            self._turn()
        elif self._pending:
            self._linger()
        else:
            self._close()

    # Between requests and at the end ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Be ready for the next request, part of which may be here; not before the client took this response."""
        self.exchange = None
        self._answered = True
        if self._stopping:
            self._close()
        elif self._pending:
            self.loop.call_soon(self._read_pending)
        elif not self.outflow.paused:
            self.phase = HEAD
            self.deadline = self.loop.time() + self.limits.keep_alive_s
            self._resume_reading()

    def _read_pending(self) -> None:
        if self.phase != LATER or self.exchange is not None or self.outflow.paused:
            return
        data, self._pending = self._pending, b""
        self.phase = HEAD
        self.deadline = self.loop.time() + self.limits.keep_alive_s
        self._resume_reading()
        self._read_head(data)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in the application's place, tell it that the client is gone, and close."""
        exchange = self.exchange
        self._leave()
        if self.phase == NOTHING:
            return
        if exchange is not None and exchange.started:
            self.transport.abort()
            return
        path = path_in(self._pending) if exchange is None else exchange.head.path
        self.transport.write(refusal.render(self.server_state.default_headers, path))
        self._linger()

    def _leave(self) -> None:
        if self.exchange is not None:
            self.exchange.leave()

    def _linger(self) -> None:
        """Close our side and read on for a moment: closing with unread bytes would reset the client's last answer."""
        self.phase = NOTHING
        self._pending = b""
        self._body = self._clock = None
        self.deadline = self.loop.time() + self.limits.linger_s
        self._resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Close when all is written, if the client takes it."""
        self.phase = NOTHING
        self.deadline = NEVER
        self.outflow.watch()
        self.transport.close()

    def drop(self) -> None:
        """End the connection at once, by a reset: what the client has not taken would else go on waiting for it in the
        kernel."""
        self._leave()
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        if self.outflow.deadline <= now:
            if self.outflow.is_stuck(self.limits.min_read_rate):
                self.drop()
        elif self.phase == NOTHING or (self.exchange is not None and self.exchange.complete):
            self._close()
        elif self.phase == BODY:
            message = f"The request body came too slowly (nothing for {self.limits.body_timeout_s:g} s, or too little)."
            self.refuse(Refusal(408, "body_timeout", message + " Send it again, faster."))
        elif self._pending not in (b"", b"\r", b"\r\n"):  # a line end behind a body is no request
            message = f"The request's headers were not complete after {self.limits.header_timeout_s:g} s."
            self.refuse(Refusal(408, "header_timeout", message + " Send the request again."))
        else:
            self._close()


def _address(info: Any) -> tuple[str, int] | None:
    """Host and port of a TCP socket's name; None for other sockets."""
    return (str(info[0]), int(info[1])) if isinstance(info, tuple) and len(info) >= 2 else None
