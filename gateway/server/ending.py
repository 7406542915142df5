"""A server that ends as load balancers and clients expect (../../docs/overload.md).

signal    no longer ready, connections that idle are closed, answers close theirs; for `accept_s` calls are served
closed    new calls are refused, health pages still answered; what runs may end until `drain_s` after the signal
cut       what is left is cancelled, settled, and told to its client; a second signal comes here at once
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Protocol

import structlog
import uvicorn

_TICK_S = 0.02
#: For what was cancelled, to settle and say goodbye.
_CUT_S = 1.0
#: For the last bytes of answers to reach their clients.
_FLUSH_S = 0.3


class Application(Protocol):
    """What ends."""

    @property
    def calls(self) -> int:
        """Calls under way."""

    def drain(self) -> None:
        """No longer ready."""

    def close_door(self) -> None:
        """No further call comes in."""

    def cut(self) -> None:
        """Calls that are cancelled from now on are so because of us."""


class Server(uvicorn.Server):
    """Uvicorn's server ends the process by the signal that it caught; ours has records to close after it."""

    def __init__(self, config: uvicorn.Config, app: Application, drain_s: float, accept_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._accept_s = accept_s
        self._signals = 0
        self._began = 0.0
        self._forced = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(one, self._signalled)
        yield

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._begin()
            self.should_exit = True
        elif self._signals == 2:
            self._forced.set()
        else:
            os._exit(1)  # the journal has all that was begun

    def opened(self) -> int:
        """Connections so far, where the protocol is our own."""
        wire = getattr(self.server_state, "tidegate_wire", None)
        return 0 if wire is None else int(wire.opened)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """From the signal to the last connection."""
        log = structlog.get_logger()
        loop = asyncio.get_running_loop()
        if not self._signals:  # the end has another reason
            self._begin()
        deadline = self._began + self._drain_s
        log.info("draining", calls=self._app.calls, at_most_s=self._drain_s)
        if self._accept_s:
            await self._until(lambda: False, min(self._began + self._accept_s, deadline))
        self._app.close_door()
        await self._until(lambda: self._app.calls == 0, deadline)
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        cut = self._app.calls
        if cut:
            log.warning("calls were cut at the end of the grace time", calls=cut, forced=self._forced.is_set())
            await self._cut()
        self._hush()
        flush_by = loop.time() + _FLUSH_S if cut else max(deadline, loop.time() + _FLUSH_S)
        await self._until(lambda: not self.server_state.connections, flush_by)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _begin(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._app.drain()
        self._hush()

    def _hush(self) -> None:
        """Connections that idle are closed, the others after their answer."""
        self.server_state.tidegate_stopping = True  # type: ignore[attr-defined]  # for connections made from now on
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _cut(self) -> None:
        self._app.cut()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CUT_S)

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        """Until it is so, the time is up, or a second signal came."""
        loop = asyncio.get_running_loop()
        while not (done() or self._forced.is_set() or loop.time() >= deadline):  # noqa: ASYNC110 (none has an event)
            await asyncio.sleep(_TICK_S)
