"""Our side towards the client: what has gone out, and whether an answer can still be given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from gateway.errors import Header

if TYPE_CHECKING:
    from gateway.codings import Encoder
    from gateway.server.exchange import Exchange

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Downstream:
    """One answer to one client; refuses to begin twice."""

    can_push = False
    can_encode = True  # False: its head is out already
    __slots__ = ("_send", "encoder", "finished", "sent_bytes", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.encoder: Encoder | None = None  # of an answer that is encoded on its way; see `Encoded`
        self.started = False
        self.finished = False
        self.sent_bytes = 0  # of the body

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """A complete answer in one go."""
        await self.start(status, headers)
        await self.end(body)

    async def start(self, status: int, headers: list[Header]) -> None:
        self._begin()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def push(self, data: bytes) -> bool:
        """As `chunk`, without waiting; whether there is room for more. Only where `can_push`."""
        raise NotImplementedError

    async def drained(self) -> None:
        """Returns when there is room for more."""

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        if self.encoder is not None:
            data = self.encoder.end(data)
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def cut(self) -> None:
        """The answer ends short of its end, so that nobody takes it for whole."""

    def _begin(self) -> None:
        if self.started:
            raise RuntimeError("this call was answered already")
        self.started = True


class Directly(Downstream):
    """The same by our own protocol, without messages in between. Who has left is written nothing."""

    can_push = True
    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.send)  # type: ignore[arg-type]  # its messages are dicts, ASGI's any mapping
        self.exchange = exchange

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        self._begin()
        self.finished = True
        self.sent_bytes = len(body)
        exchange = self.exchange
        if not exchange.disconnected:
            exchange.begin(status, headers)
            exchange.send_body(body, more=False)

    async def start(self, status: int, headers: list[Header]) -> None:
        self._begin()
        if not self.exchange.disconnected:
            self.exchange.begin(status, headers)

    async def chunk(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        exchange = self.exchange
        if not exchange.disconnected:
            exchange.send_body(data, more=True)
            if exchange.is_crowded:
                await exchange.drained()

    def push(self, data: bytes) -> bool:
        self.sent_bytes += len(data)
        exchange = self.exchange
        if exchange.disconnected:
            return False
        exchange.send_body(data, more=True)
        return not exchange.is_crowded

    def cut(self) -> None:
        self.exchange.is_cut = True

    async def drained(self) -> None:
        await self.exchange.drained()

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        if self.encoder is not None:
            data = self.encoder.end(data)
        self.sent_bytes += len(data)
        if not self.exchange.disconnected:
            self.exchange.send_body(data, more=False)
