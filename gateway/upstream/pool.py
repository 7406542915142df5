"""Pool: the connections of one origin, who may have one next, and when to give up on them.

A connection goes to the call that has waited longest, or else rests; the most recently used one is taken first, so
that the least recently used ones grow old and are closed. Every connect is a task of the pool, not of a call: a call
that is cancelled while it waits leaves nothing half done behind.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.upstream.base import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    PoolStats,
    PoolTimeout,
    TotalTimeout,
    UpstreamError,
)
from gateway.upstream.connection import Connection
from gateway.upstream.sweeper import Sweeper


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Counts, and seconds (infinity where there is no bound)."""

    max_connections: int
    max_idle: int
    idle_keep_s: float
    connect_s: float
    pool_wait_s: float
    idle_s: float


@dataclass(slots=True, eq=False)
class _Waiter:
    future: asyncio.Future[Connection]
    give_up_at: float
    total_at: float


@dataclass(slots=True, eq=False)
class _Attempt:
    """A connect under way; `late` once the sweeper has stopped it."""

    deadline: float
    late: bool = False
    task: asyncio.Task[None] | None = None


class Pool:
    """Every method runs to its end without an await, but for `acquire` and `aclose`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        limits: PoolLimits,
        interval_s: float,
        connect: Callable[[], Awaitable[Connection]],
    ) -> None:
        self._loop = loop
        self._now = now
        self._limits = limits
        self._connect = connect
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # least recently used first, and since when it rests
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._attempts: set[_Attempt] = set()
        self._closing: set[Connection] = set()  # given up, but the event loop has not closed them yet
        self._all_gone: asyncio.Future[None] | None = None
        self._sweeper = Sweeper(loop, interval_s, self._sweep)
        self._closed = False
        self._opened_total = self._closed_total = self._reused_total = self._retried_total = 0

    def take(self) -> Connection | None:
        """The resting connection that was used last; None where `acquire` must wait for one."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if not connection.transport.is_closing():
                self._reused_total += 1
                return connection
            self.discard(connection)
            self._retried_total += 1
        return None

    async def acquire(self, total_at: float) -> Connection:
        """A connection that became free, or a new one; first come, first served.

        One that the upstream closed (or spoke on) while it was handed over is replaced once: nothing was sent on it.
        """
        for _ in range(2):
            connection = await self._wait(total_at)
            if not connection.transport.is_closing():
                return connection
            self.discard(connection)
            self._retried_total += 1
        message = "two connections were closed, or broken by the upstream, before anything was sent"
        raise ConnectionLost(message, phase="connect", sent=False)

    def release(self, connection: Connection) -> None:
        """Hand a connection that is fit for another exchange to who waits longest, or let it rest."""
        if self._closed:
            self.discard(connection)
        elif self._waiters and self._give(connection):
            self._reused_total += 1
        else:
            self._rest(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection, whatever it was doing; its slot is free at once."""
        self._idle.pop(connection, None)
        if connection in self._connections:
            self._connections.remove(connection)
            self._closing.add(connection)
            self._closed_total += 1
            self._grow()
        connection.transport.abort()

    def gone(self, connection: Connection) -> None:
        self._closing.discard(connection)
        if self._all_gone is not None and not self._closing and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def aclose(self) -> None:
        self._closed = True
        self._sweeper.stop()
        while self._waiters:
            self._refuse(ConnectionLost, "the client was closed")
        for connection in tuple(self._connections):
            connection.fail(ConnectionLost, "the client was closed")
            self.discard(connection)
        tasks = [attempt.task for attempt in self._attempts if attempt.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._closing:
            self._all_gone = self._loop.create_future()
            await self._all_gone

    def stats(self) -> PoolStats:
        return PoolStats(
            open=len(self._connections),
            idle=len(self._idle),
            in_use=len(self._connections) - len(self._idle),
            connecting=len(self._attempts),
            waiting=sum(not waiter.future.done() for waiter in self._waiters),
            opened_total=self._opened_total,
            closed_total=self._closed_total,
            reused_total=self._reused_total,
            retried_total=self._retried_total,
        )

    # Waiting and connecting

    def _give(self, connection: Connection) -> bool:
        """Whether somebody waited for it."""
        waiters = self._waiters
        while waiters:
            waiter, _ = waiters.popitem(last=False)
            if not waiter.future.done():
                waiter.future.set_result(connection)
                return True
        return False

    def _rest(self, connection: Connection) -> None:
        idle = self._idle
        idle[connection] = self._now()
        if len(idle) > self._limits.max_idle:
            self.discard(next(iter(idle)))

    async def _wait(self, total_at: float) -> Connection:
        if self._closed:
            raise ConnectionLost("the client was closed", phase="connect", sent=False)
        waiter = _Waiter(self._loop.create_future(), self._now() + self._limits.pool_wait_s, total_at)
        self._waiters[waiter] = None
        self._grow()
        self._sweeper.arm()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._take_back(waiter)
            raise

    def _take_back(self, waiter: _Waiter) -> None:
        """The waiting call was cancelled, maybe just after it had been given a connection."""
        self._waiters.pop(waiter, None)
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            connection = future.result()
            if connection in self._connections:
                self.release(connection)

    def _grow(self) -> None:
        """Connect for calls that wait, as far as there are slots."""
        while (
            len(self._attempts) < len(self._waiters)
            and len(self._connections) + len(self._attempts) < self._limits.max_connections
            and not self._closed
        ):
            attempt = _Attempt(self._now() + self._limits.connect_s)
            self._attempts.add(attempt)
            attempt.task = self._loop.create_task(self._open(attempt))

    async def _open(self, attempt: _Attempt) -> None:
        try:
            connection = await self._connect()
        except asyncio.CancelledError:
            self._attempts.discard(attempt)
            if not attempt.late:
                raise
            self._refuse(ConnectTimeout, f"not connected within {self._limits.connect_s:g} s")
        except (OSError, UnicodeError) as error:
            self._attempts.discard(attempt)
            self._refuse(ConnectFailed, f"cannot connect: {error}")
        else:
            self._attempts.discard(attempt)
            self._admit(connection)
        self._grow()

    def _admit(self, connection: Connection) -> None:
        if connection.transport.is_closing():
            self._refuse(ConnectFailed, "the upstream closed the connection at once")
            return
        self._connections.add(connection)
        self._opened_total += 1
        if self._closed:
            self.discard(connection)
        elif not self._give(connection):
            self._rest(connection)

    def _refuse(self, kind: type[UpstreamError], message: str) -> None:
        """Fail the call that has waited longest."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.future.done():
                waiter.future.set_exception(kind(message, phase="connect", sent=False))
                return

    # Deadlines

    def _sweep(self) -> bool:
        now = self._now()
        self._sweep_attempts(now)
        self._sweep_waiters(now)
        self._sweep_idle(now)
        for connection in tuple(self._connections):
            self._sweep_exchange(connection, now)
        return bool(self._connections or self._attempts or self._waiters)

    def _sweep_attempts(self, now: float) -> None:
        for attempt in self._attempts:
            if now >= attempt.deadline and not attempt.late and attempt.task is not None:
                attempt.late = True
                attempt.task.cancel()

    def _sweep_waiters(self, now: float) -> None:
        covered = len(self._attempts)  # for the first ones a connect is under way, which has its own deadline
        for place, waiter in enumerate(tuple(self._waiters)):
            error: UpstreamError
            if now >= waiter.total_at:
                error = TotalTimeout("no connection within the total time", phase="connect", sent=False)
            elif now >= waiter.give_up_at and place >= covered:
                error = PoolTimeout("every connection stayed in use", phase="connect", sent=False)
            else:
                continue
            del self._waiters[waiter]
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def _sweep_idle(self, now: float) -> None:
        oldest = now - self._limits.idle_keep_s
        for connection in [connection for connection, since in self._idle.items() if since <= oldest]:
            self.discard(connection)

    def _sweep_exchange(self, connection: Connection, now: float) -> None:
        reply = connection.reply
        if reply is None:
            return
        if now >= connection.deadline:
            if now >= reply.total_at:
                connection.fail(TotalTimeout, "the exchange took too long in all")
            else:
                connection.fail(FirstByteTimeout, "the upstream did not begin its reply in time")
        elif connection.stalled:
            if connection.silent_since == 0.0:
                connection.silent_since = now
            elif now - connection.silent_since >= self._limits.idle_s:
                connection.fail(IdleTimeout, f"nothing moved for {self._limits.idle_s:g} s")
