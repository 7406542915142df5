"""Cost of the upstream clients: CPU microseconds a request and a streamed chunk, against a raw server.

    python loadtests/bench_upstream.py [--requests 20000] [--rounds 5] [--with-httpx]

The server runs in a process of its own, pinned to another core, and does as little as it can. `loop` is what the event
loop itself costs: a bare protocol that writes the same bytes and wakes one future for the same reply, without pool,
parser or deadlines. What a client costs "on top of the loop" is the difference to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from gateway.upstream.base import Timeouts, UpstreamClient, UpstreamRequest
from gateway.upstream.native import NativeClient

REPLY_BYTES = 1200
CHUNKS = 200
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"token "}}]}\n\n' * 2
HEADERS = [
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
    (b"authorization", b"Bearer sk-000000000000000000000000000000000000000000000000"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 3.57.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-request-id", b"0193c5c0-0000-7000-8000-000000000000"),
]
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 900 + b'"}]}'


class RawServer(asyncio.Protocol):
    """Answers by path: /short one whole reply, /burst a stream in few writes, /paced one chunk a millisecond."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.held = b""
        head = (
            b"HTTP/1.1 200 OK\r\ndate: Mon, 02 Nov 2026 10:00:00 GMT\r\ncontent-type: application/json\r\n"
            b"openai-organization: org\r\nopenai-processing-ms: 12\r\nx-request-id: req_0123456789\r\n"
        )
        self.short = head + b"content-length: %d\r\n\r\n" % REPLY_BYTES + b"x" * REPLY_BYTES
        self.stream_head = head + b"transfer-encoding: chunked\r\n\r\n"
        self.piece = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            mark = self.held.find(b"content-length: ")
            length = int(self.held[mark + 16 : self.held.index(b"\r", mark)]) if mark >= 0 else 0
            if len(self.held) < end + 4 + length:
                return
            path = self.held[self.held.index(b" ") + 1 : self.held.index(b" HTTP")]
            self.held = self.held[end + 4 + length :]
            self.answer(path)

    def answer(self, path: bytes) -> None:
        if path == b"/short":
            self.transport.write(self.short)
        elif path == b"/burst":
            self.transport.write(self.stream_head)
            self.transport.write(self.piece * CHUNKS + b"0\r\n\r\n")
        else:
            self.transport.write(self.stream_head)
            self.pace(CHUNKS)

    def pace(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left == 0:
            self.transport.write(b"0\r\n\r\n")
            return
        self.transport.write(self.piece)
        asyncio.get_running_loop().call_later(0.001, self.pace, left - 1)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(RawServer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Bare(asyncio.Protocol):
    """The floor: writes and wakes, nothing else."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self.wanted = self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.waiter is not None and (self.got >= self.wanted or self.wanted == 0):
            waiter, self.waiter = self.waiter, None
            waiter.set_result(None)


async def bare_exchange(port: int, requests: int, path: bytes) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Bare, "127.0.0.1", port)
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (path, port)
    head += b"\r\n".join(b": ".join(pair) for pair in HEADERS) + b"\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    request = head + BODY
    short = path == b"/short"
    for _ in range(requests):
        protocol.got, protocol.wanted = 0, REPLY_BYTES if short else 0
        transport.write(request)
        total = 0
        while True:
            protocol.waiter = loop.create_future()
            await protocol.waiter
            total += protocol.got
            protocol.got = 0
            if short or total > CHUNKS * len(CHUNK) + CHUNKS * 6:
                break
    transport.close()


async def client_exchange(client: UpstreamClient, requests: int, path: bytes) -> None:
    for _ in range(requests):
        reply = await client.send(UpstreamRequest("POST", path, HEADERS, BODY))
        while await reply.read():
            pass
        await reply.aclose()


async def spread(worker: Callable[[int], Awaitable[None]], requests: int, concurrency: int) -> float:
    """CPU microseconds of this process for each request."""
    await worker(min(200, requests))
    before = time.process_time()
    await asyncio.gather(*(worker(requests // concurrency) for _ in range(concurrency)))
    return (time.process_time() - before) / requests * 1e6


async def measure(port: int, name: str, path: bytes, requests: int, concurrency: int) -> float:
    if name == "loop":
        return await spread(lambda count: bare_exchange(port, count, path), requests, concurrency)
    client: UpstreamClient
    if name == "native":
        client = NativeClient(f"http://127.0.0.1:{port}", Timeouts())
    else:
        from gateway.upstream.httpx import HttpxClient

        client = HttpxClient(f"http://127.0.0.1:{port}", Timeouts())
    try:
        return await spread(lambda count: client_exchange(client, count, path), requests, concurrency)
    finally:
        await client.aclose()


def table(port: int, names: list[str], requests: int, rounds: int) -> None:
    print(f"{'case':<28}" + "".join(f"{name:>10}" for name in names))
    cases = [
        ("request, 1 at a time", b"/short", requests, 1, 1),
        ("request, 32 at a time", b"/short", requests, 32, 1),
        ("chunk of a burst, 8 streams", b"/burst", max(requests // 50, 8), 8, CHUNKS),
        ("chunk paced 1 ms, 8 streams", b"/paced", 24, 8, CHUNKS),
    ]
    for label, path, count, concurrency, divisor in cases:
        row = []
        for name in names:
            share = max(count // 20, concurrency) if name == "httpx" and path != b"/paced" else count
            best = min(uvloop.run(measure(port, name, path, share, concurrency)) for _ in range(rounds))
            row.append(best / divisor)
        print(f"{label:<28}" + "".join(f"{value:>10.2f}" for value in row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--with-httpx", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if options.serve:
        os.sched_setaffinity(0, {cores[-1]})
        uvloop.run(serve())
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.sched_setaffinity(0, {cores[0]})
        print(
            f"CPU microseconds, best of {options.rounds}; Python {sys.version.split()[0]}, uvloop {uvloop.__version__}"
        )
        names = ["loop", "native", *(["httpx"] if options.with_httpx else [])]
        table(port, names, options.requests, options.rounds)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
