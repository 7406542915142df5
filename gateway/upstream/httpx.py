"""HttpxClient: the same contract over httpx2, for providers that want HTTP/2 or sit behind a proxy.

Slower than the native client by far, so nothing here is tuned; httpx2 is imported when a client is made. httpx2 tells
how far an exchange has come through its trace events: from them come `phase`, `sent` and the deadlines.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeGuard

from gateway.upstream.base import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    Headers,
    IdleTimeout,
    Phase,
    PoolStats,
    PoolTimeout,
    ProtocolError,
    Timeouts,
    TotalTimeout,
    UpstreamClient,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from gateway.upstream.head import CLIENT_FIELDS, HeadError, RequestHead, check_fields, read_head
from gateway.upstream.origin import Origin

if TYPE_CHECKING:
    import httpx2


_END_OF_FILE = ("disconnected", "closed connection", "streamreset", "connectionterminated")


class HttpxClient(UpstreamClient):
    """Options as for NativeClient. `proxy` is a proxy's URL; the environment is asked for one if `trust_env`.

    Bodies are passed on as they come (no decoding), redirects are not followed, cookies not kept. `stats()` sees
    exchanges, not connections: of `open` and `idle` httpx2 tells nothing.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts | None = None,
        *,
        max_connections: int = 1000,
        max_idle: int | None = None,
        idle_keep_s: float = 60.0,
        pool_wait_s: float | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http2: bool = True,
        proxy: str | None = None,
        trust_env: bool = False,
    ) -> None:
        import httpx2

        self._httpx2 = httpx2
        self._timeouts = Timeouts() if timeouts is None else timeouts
        origin = Origin.parse(base_url)
        self._url = httpx2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, path="/")
        self._request_head = RequestHead(origin.host_field)
        self._client = httpx2.AsyncClient(
            http2=http2,
            proxy=proxy,
            trust_env=trust_env,
            verify=ssl.create_default_context() if ssl_context is None else ssl_context,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx2.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_idle,
                keepalive_expiry=idle_keep_s if idle_keep_s else None,
            ),
        )
        connect_s = self._timeouts.connect_s or None
        self._httpx_timeouts = {
            "connect": None,  # one bound over TCP and TLS together is kept by the exchange
            "read": None,
            "write": self._timeouts.idle_s or None,
            "pool": connect_s if pool_wait_s is None else pool_wait_s or None,
        }
        self._exchanges: set[_Exchange] = set()
        self._opened_total = self._sent_total = 0
        self._closed = False

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        self._request_head.write(request)  # refuses what could be read in two ways
        if self._closed:
            raise ConnectionLost("the client was closed", phase="connect", sent=False)
        exchange = _Exchange(self, request)
        self._exchanges.add(exchange)
        try:
            response = await exchange.run()
        except BaseException:
            await exchange.drop()
            raise
        try:
            status, raw = response.status_code, [(name.lower(), value) for name, value in response.headers.raw]
            if status < 200:
                raise HeadError(f"status {status} was not asked for")
            check_fields(raw)
            kept, length, _ = read_head(status, raw)
        except HeadError as error:
            await exchange.close(response)
            raise exchange.translate(error) from error
        self._sent_total += 1
        return HttpxReply(exchange, response, (kept, length))

    async def aclose(self) -> None:
        self._closed = True
        await self._client.aclose()

    def stats(self) -> PoolStats:
        waiting = sum(exchange.phase == "connect" for exchange in self._exchanges)
        in_use = len(self._exchanges) - waiting
        reused = max(0, self._sent_total - self._opened_total)
        return PoolStats(in_use, 0, in_use, 0, waiting, self._opened_total, 0, reused, 0)


class _Exchange:
    """How far one exchange has come, and until when it may take."""

    def __init__(self, client: HttpxClient, request: UpstreamRequest) -> None:
        self.client = client
        self._httpx2 = client._httpx2
        self._timeouts = client._timeouts
        self._request = request
        self.loop = asyncio.get_running_loop()
        self.total_at = self._after(self._timeouts.total_s)
        if request.total_deadline is not None:
            later = request.total_deadline if self.total_at is None else self.total_at
            self.total_at = min(request.total_deadline, later)
        self.phase: Phase = "connect"
        self.sent = False
        self.first_byte_at = 0.0
        self._bound: asyncio.Timeout | None = None
        self._late: type[UpstreamError] = TotalTimeout
        self._response: httpx2.Response | None = None
        self._stream: Any = None  # httpx2's stream, while it is being connected

    async def run(self) -> httpx2.Response:
        """Send, and read until the head is there."""
        request = self._build()
        try:
            async with asyncio.timeout_at(self.total_at) as self._bound:
                self._response = await self.client._client.send(request, stream=True)
        except Exception as error:
            raise self.translate(error) from error
        finally:
            self._bound = None
        self.phase = "body"
        return self._response

    async def next_piece(self, pieces: AsyncGenerator[bytes]) -> bytes:
        """The next bytes of the body; b"" at its end."""
        try:
            async with asyncio.timeout_at(self._deadline(self._timeouts.idle_s, IdleTimeout)):
                async for piece in pieces:
                    if piece:
                        return piece
            return b""
        except Exception as error:
            raise self.translate(error) from error

    async def drop(self) -> None:
        """It failed or was cancelled. httpx2 forgets a TCP connection whose TLS handshake is cancelled: close it."""
        self.client._exchanges.discard(self)
        if self.phase == "connect" and self._stream is not None:
            await self._stream.aclose()

    async def close(self, response: httpx2.Response) -> None:
        self.client._exchanges.discard(self)
        await response.aclose()

    def translate(self, error: Exception) -> Exception:
        """The contract's error for one of httpx2's."""
        httpx2 = self._httpx2
        kind: type[UpstreamError]
        if isinstance(error, TimeoutError):
            kind = self._late
        elif isinstance(error, httpx2.PoolTimeout):
            kind = PoolTimeout
        elif isinstance(error, httpx2.WriteTimeout):
            kind = IdleTimeout
        elif isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
            kind = ConnectFailed
        elif isinstance(error, httpx2.NetworkError) or _is_end_of_file(error):
            kind = ConnectionLost
        elif (
            isinstance(error, httpx2.ProtocolError | HeadError)
            or type(error).__module__.startswith(("h2.", "h11."))
            or (isinstance(error, ValueError) and self.phase == "head")
        ):
            kind = ProtocolError
        else:
            return error  # the body iterator's own
        return kind(str(error) or kind.__name__, phase=self.phase, sent=self.sent)

    def _build(self) -> httpx2.Request:
        request = self._request
        headers = [pair for pair in request.headers if pair[0] not in CLIENT_FIELDS]
        if request.content_length is not None and not isinstance(request.body, bytes | None):
            headers.append((b"content-length", b"%d" % request.content_length))
        built: httpx2.Request = self._httpx2.Request(
            request.method,
            self.client._url,
            headers=headers,
            content=request.body,
            extensions={"timeout": self.client._httpx_timeouts, "target": request.target, "trace": self._trace},
        )
        return built

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        _, _, step = event.partition(".")
        if step == "connect_tcp.started":
            self._rebound(self._timeouts.connect_s, ConnectTimeout)
        elif step == "connect_tcp.complete":
            self.client._opened_total += 1
            self._stream = info["return_value"]
        elif step == "send_request_headers.started":
            self.phase, self.sent = "send", True
            self._rebound(None, TotalTimeout)
        elif step == "receive_response_headers.started":
            self.phase = "head"
            self._rebound(self._timeouts.first_byte_s, FirstByteTimeout)
        elif step == "receive_response_headers.complete":
            self.first_byte_at = self.loop.time()
            self._rebound(None, TotalTimeout)
        elif event == "http11.response_closed.started" and _followed_by_more(self._response):
            await self._response.extensions["network_stream"].aclose()

    def _rebound(self, seconds: float | None, late: type[UpstreamError]) -> None:
        if self._bound is not None:
            self._bound.reschedule(self._deadline(seconds, late))

    def _deadline(self, seconds: float | None, late: type[UpstreamError]) -> float | None:
        """When the step that begins now must be over, if ever; missing it will mean `late`, or the total time-out."""
        step_at = self._after(seconds)
        total = step_at is None or (self.total_at is not None and self.total_at <= step_at)
        self._late = TotalTimeout if total else late
        return self.total_at if total else step_at

    def _after(self, seconds: float | None) -> float | None:
        return self.loop.time() + seconds if seconds else None


class HttpxReply(UpstreamResponse):
    """`read` returns what httpx2 hands over at a time, at most 64 KiB."""

    __slots__ = ("_error", "_exchange", "_pieces", "_response")

    def __init__(self, exchange: _Exchange, response: httpx2.Response, kept: tuple[Headers, int | None]) -> None:
        self._exchange = exchange
        self._response = response
        self._pieces: AsyncGenerator[bytes] | None = response.aiter_raw()
        self._error: Exception | None = None
        self.status = response.status_code
        self.headers, self.content_length = kept
        self.first_byte_at = exchange.first_byte_at

    async def read(self) -> bytes:
        if self._error is not None:
            raise self._error
        if self._pieces is None:
            return b""
        try:
            piece = await self._exchange.next_piece(self._pieces)
        except Exception as error:
            self._error = error
            raise
        except BaseException:
            # httpx2 has closed the connection under a cancelled read; what it reads next would look like the end.
            self._error = ConnectionLost("a read of this reply was cancelled", phase="body", sent=True)
            raise
        if not piece:
            await self._end()
        return piece

    async def aclose(self) -> None:
        if self._pieces is not None and self._error is None:
            self._error = ConnectionLost(
                "the exchange was closed before its reply was complete", phase="body", sent=True
            )
        await self._end()

    async def _end(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.aclose()
            await self._exchange.close(self._response)


def _is_end_of_file(error: Exception) -> bool:
    """httpx2 reports an end of file as a protocol error, and only its words tell; a reset HTTP/2 stream likewise."""
    text = str(error).lower()
    return any(words in text for words in ("disconnected", "closed connection", "streamreset", "connectionterminated"))


def _followed_by_more(response: httpx2.Response | None) -> TypeGuard[httpx2.Response]:
    """Whether bytes came after the end of a reply.

    httpx2 keeps such bytes and would take them for the reply to the next request on that connection. It has no public
    way to ask; should its inside change, the conformance suite's test of surplus bytes fails.
    """
    inside: Any = None if response is None else response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state"):
        inside = getattr(inside, name, None)
    return inside is not None and bool(inside.trailing_data[0])
