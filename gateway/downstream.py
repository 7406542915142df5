"""Our side towards the client: what has gone out, and whether an answer can still be given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import Header

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Downstream:
    """One answer to one client; refuses to begin twice."""

    __slots__ = ("_send", "finished", "sent_bytes", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.finished = False
        self.sent_bytes = 0  # of the body

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """A complete answer in one go."""
        await self.start(status, headers)
        await self.end(body)

    async def start(self, status: int, headers: list[Header]) -> None:
        if self.started:
            raise RuntimeError("this call was answered already")
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
