"""Reply: what one exchange of the native client has received so far, and who waits for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.upstream.base import ConnectionLost, UpstreamResponse

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection


class Reply(UpstreamResponse):
    """Attached to its connection until the reply is complete or has failed; then it holds the rest of the bytes."""

    __slots__ = (
        "connection",
        "error",
        "head_only",
        "rest",
        "sink",
        "sink_error",
        "started",
        "total_at",
        "upload",
        "waiter",
    )

    read_can_be_cancelled = True

    def __init__(self, connection: Connection, total_at: float, head_only: bool) -> None:
        self.connection: Connection | None = connection
        self.total_at = total_at
        self.head_only = head_only
        self.started = False
        self.rest = b""
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.upload: asyncio.Task[None] | None = None
        self.sink: Callable[[bytes], bool] | None = None
        self.sink_error: Exception | None = None

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def read(self) -> bytes:
        while True:
            connection = self.connection
            if connection is None:
                return self._take_rest()
            if connection.parts:
                return connection.take()
            if self.waiter is not None:
                raise RuntimeError("two readers of one reply")
            waiter = self.waiter = connection.loop.create_future()
            try:
                await waiter
            finally:
                self.waiter = None

    async def pass_to(self, sink: Callable[[bytes], bool]) -> None:
        connection = self.connection
        if connection is None or connection.parts:
            return
        if self.waiter is not None:
            raise RuntimeError("two readers of one reply")
        waiter = self.waiter = connection.loop.create_future()
        self.sink = sink
        try:
            await waiter
        finally:
            self.sink = self.waiter = None
        failed, self.sink_error = self.sink_error, None
        if failed is not None:
            raise failed

    def pour(self, sink: Callable[[bytes], bool], data: bytes) -> None:
        """The connection's: bytes for `pass_to`."""
        try:
            if sink(data):
                return
        except Exception as error:  # its own business, so not the connection's: told to who waits
            self.sink_error = error
        self.sink = None
        self.wake()

    def _take_rest(self) -> bytes:
        rest = self.rest
        if rest:
            self.rest = b""
        elif self.error is not None:
            raise self.error
        return rest

    def abandon(self) -> None:
        """End the exchange now; its connection is closed unless the reply was complete."""
        self.rest = b""
        if self.connection is not None:
            self.connection.fail(ConnectionLost, "the exchange was closed before its reply was complete")
            self.rest = b""
        elif self.upload is not None:
            self.upload.cancel()

    async def aclose(self) -> None:
        self.abandon()
        upload = self.upload
        if upload is not None and not upload.done():
            # The iterator belongs to the caller, who may use its source again as soon as we return.
            await asyncio.wait({upload})
