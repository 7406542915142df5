"""A raw server that plays scripts byte for byte, and the clients that the conformance suite runs over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from gateway.upstream.base import Timeouts, UpstreamClient, UpstreamRequest, UpstreamResponse
from gateway.upstream.httpx import HttpxClient
from gateway.upstream.native import NativeClient

Script = Callable[["Peer"], Awaitable[None]]
KINDS = {"native": NativeClient, "httpx": HttpxClient}


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The httpx client runs on the loop that the gateway uses; only our own must be right on both."""
    items[:] = [item for item in items if not ("tests/upstream/" in item.nodeid and "asyncio-httpx" in item.nodeid)]


class Peer:
    """The server's end of one connection. What it received is in `received`; each whole request in `requests`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()  # the client has closed or reset its end
        self._rest = bytearray()

    async def read(self) -> bytes:
        """The next bytes; b"" at the end of file or a reset."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        except OSError:
            data = b""
        if not data:
            self.ended.set()
        self.received += data
        return data

    async def request(self) -> bytes:
        """One whole request, head and body as sent; b"" if the client has gone."""
        while (length := whole_length(self._rest)) is None:
            data = await self.read()
            if not data:
                return b""
            self._rest += data
        request = bytes(self._rest[:length])
        del self._rest[:length]
        self.requests.append(request)
        return request

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own: the client gets time to read before the next one goes out."""
        for number, piece in enumerate(pieces):
            if number:
                await turns(6)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(self.sock, piece)

    async def gone(self) -> None:
        """Read until the client closes."""
        while await self.read():
            pass

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class RawServer:
    """Plays `script` for each connection; in `peers` in the order in which they came."""

    def __init__(self) -> None:
        self.script: Script = answer(b"HTTP/1.1 500 No Script\r\ncontent-length: 0\r\n\r\n")
        self.peers: list[Peer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.accepting = asyncio.Event()
        self.accepting.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.accepting.wait()
            sock, _ = await loop.sock_accept(self._socket)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.peers.append(peer)
            task = loop.create_task(self._play(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _play(self, peer: Peer) -> None:
        try:
            await self.script(peer)
        finally:
            peer.close()

    @property
    def requests(self) -> list[bytes]:
        return [request for peer in self.peers for request in peer.requests]

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


def whole_length(data: bytearray) -> int | None:
    """Length of the first request in `data`, head and body; None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    if b"\r\ntransfer-encoding: chunked" in head:
        last = data.find(b"\r\n0\r\n\r\n", end)
        return None if last < 0 else last + 7
    mark = head.find(b"\r\ncontent-length: ")
    body = int(head[mark + 18 :].split(b"\r\n")[0]) if mark >= 0 else 0
    return end + 4 + body if len(data) >= end + 4 + body else None


async def turns(count: int) -> None:
    """Let the event loop poll `count` times: on loopback, what was sent has then arrived."""
    for _ in range(count):
        await asyncio.sleep(0)


def answer(*pieces: bytes, then: Script | None = None) -> Script:
    """Reply to every request with `pieces`, each in a segment of its own; `then` runs after the first reply."""

    async def play(peer: Peer) -> None:
        while await peer.request():
            await peer.send(*pieces)
            if then is not None:
                await then(peer)
                return

    return play


async def read_all(reply: UpstreamResponse) -> bytes:
    pieces = []
    while piece := await reply.read():
        pieces.append(piece)
    return b"".join(pieces)


class Bench:
    """What a test needs at hand: a server, the kind of client under test, and short ways to use them."""

    def __init__(self, server: RawServer, kind: str) -> None:
        self.server = server
        self.kind = kind
        self.native = kind == "native"
        self.clients: list[UpstreamClient] = []

    def client(self, timeouts: Timeouts | None = None, url: str | None = None, **options: Any) -> Any:
        client = KINDS[self.kind](self.server.url if url is None else url, timeouts, **options)
        self.clients.append(client)
        return client

    read_all = staticmethod(read_all)
    turns = staticmethod(turns)
    answer = staticmethod(answer)
    event = staticmethod(asyncio.Event)

    @staticmethod
    async def close(peer: Peer) -> None:
        await turns(6)
        peer.close()

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    async def exchange(self, client: Any, request: UpstreamRequest) -> tuple[UpstreamResponse, bytes]:
        """Send, read to the end, close."""
        reply = await client.send(request)
        try:
            return reply, await read_all(reply)
        finally:
            await reply.aclose()

    def serve(self, *pieces: bytes, then: Script | None = None) -> None:
        self.server.script = answer(*pieces, then=then)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    server = RawServer()
    accepting = asyncio.create_task(server.run())
    yield server
    accepting.cancel()
    await asyncio.wait({accepting})
    await server.aclose()


@pytest.fixture(params=list(KINDS))
async def bench(server: RawServer, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(server, request.param)
    yield bench
    for client in bench.clients:
        await client.aclose()


@pytest.fixture
async def native(server: RawServer) -> AsyncIterator[Bench]:
    bench = Bench(server, "native")
    yield bench
    for client in bench.clients:
        await client.aclose()


@pytest.fixture
def get() -> UpstreamRequest:
    return UpstreamRequest("GET", b"/v1/models?a=%2f", [(b"accept", b"*/*")])


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens, and which nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
