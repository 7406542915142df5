"""NativeClient: HTTP/1.1 to one origin over httptools and asyncio transports, on uvloop or stock asyncio.

A request costs one write and one future; a piece of a stream costs one future. Deadlines cost nothing but a stored
number, which one timer a client compares (see sweeper). What is retried, and what never is: docs/upstream.md.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable

from gateway.upstream.base import (
    Headers,
    PoolStats,
    Timeouts,
    TotalTimeout,
    UpstreamClient,
    UpstreamRequest,
    UpstreamResponse,
)
from gateway.upstream.connection import Connection
from gateway.upstream.head import RequestHead
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool, PoolLimits
from gateway.upstream.reply import Reply
from gateway.upstream.sweeper import sweep_interval
from gateway.upstream.upload import upload


class NativeClient(UpstreamClient):
    """`base_url` names the origin only; its path is the caller's to put into `target`.

    `max_idle` bounds the connections that rest (None: all may), `idle_keep_s` how long one may (0: for ever; choose
    less than the upstream keeps them), `pool_wait_s` the wait while all are in use (None: as `connect_s`). `clock`
    must agree with `loop.time()`. With TLS, certificates are verified against the system's store, or as `ssl_context`
    says.
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
        max_header_bytes: int = 65536,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        timeouts = Timeouts() if timeouts is None else timeouts
        self._origin = Origin.parse(base_url)
        self._request_head = RequestHead(self._origin.host_field)
        self._max_header_bytes = max_header_bytes
        self._first_byte_s = _bound(timeouts.first_byte_s)
        self._total_s = _bound(timeouts.total_s)
        self._limits = PoolLimits(
            max_connections=max_connections,
            max_idle=max_connections if max_idle is None else max_idle,
            idle_keep_s=_bound(idle_keep_s),
            connect_s=_bound(timeouts.connect_s),
            pool_wait_s=_bound(timeouts.connect_s if pool_wait_s is None else pool_wait_s),
            idle_s=_bound(timeouts.idle_s),
        )
        self._interval_s = sweep_interval(
            (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s, idle_keep_s, pool_wait_s)
        )
        self._ssl = (_default_context() if ssl_context is None else ssl_context) if self._origin.tls else None
        self._clock = clock
        self._uploads: set[asyncio.Task[None]] = set()
        self._pool: Pool | None = None

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        pool = self._open_pool() if self._pool is None else self._pool
        head = self._request_head.write(request)
        now = self._now()
        total_at = now + self._total_s
        if request.total_deadline is not None and request.total_deadline < total_at:
            total_at = request.total_deadline
            if total_at <= now:
                raise TotalTimeout("the deadline had passed before the call was sent", phase="connect", sent=False)
        connection = pool.take()
        if connection is None:
            connection = await pool.acquire(total_at)
            now = self._now()
        reply = Reply(connection, total_at, request.method == "HEAD")
        body = request.body
        if body is None or isinstance(body, bytes):
            connection.start(reply, head, body, min(now + self._first_byte_s, total_at))
        else:
            connection.start(reply, head, None, total_at)
            self._start_upload(connection, reply, body, request.content_length)
        waiter = reply.waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:  # cancelled, or the loop is going down: the exchange ends with its caller
            await reply.aclose()
            raise
        if reply.error is not None:
            await reply.aclose()
            raise reply.error
        return reply

    def lead(self, method: str, target: bytes, headers: Headers) -> bytes:
        return self._request_head.lead(method, target, headers)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._uploads:
            await asyncio.wait(self._uploads)

    def stats(self) -> PoolStats:
        return PoolStats(0, 0, 0, 0, 0, 0, 0, 0, 0) if self._pool is None else self._pool.stats()

    def _open_pool(self) -> Pool:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time if self._clock is None else self._clock
        self._pool = Pool(self._loop, self._now, self._limits, self._interval_s, self._connect)
        return self._pool

    async def _connect(self) -> Connection:
        pool = self._pool
        assert pool is not None
        _, connection = await self._loop.create_connection(
            lambda: Connection(pool, self._loop, self._now, self._max_header_bytes),
            self._origin.host,
            self._origin.port,
            ssl=self._ssl,
            server_hostname=self._origin.host if self._ssl is not None else None,
        )
        return connection

    def _start_upload(
        self, connection: Connection, reply: Reply, body: AsyncIterator[bytes], content_length: int | None
    ) -> None:
        def head_deadline() -> float:
            return min(self._now() + self._first_byte_s, reply.total_at)

        connection.begin_upload()
        task = self._loop.create_task(upload(connection, reply, body, content_length, head_deadline))
        reply.upload = task
        self._uploads.add(task)
        task.add_done_callback(self._uploads.discard)


def _bound(seconds: float | None) -> float:
    return seconds if seconds else math.inf


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
