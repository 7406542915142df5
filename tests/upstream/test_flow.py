"""Backpressure: neither a slow reader nor a slow upstream makes our memory grow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

from gateway.upstream.base import UpstreamRequest
from gateway.upstream.connection import READ_BUFFER_BYTES

OK = b"HTTP/1.1 200 OK\r\n"


async def test_upstream_is_held_back_while_nobody_reads(native: Any, get: Any) -> None:
    sent = 0

    async def script(peer: Any) -> None:
        nonlocal sent
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await peer.request()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(1000):
            await peer.send(piece)
            sent += 65536
        await peer.send(b"0\r\n\r\n")

    native.server.script = script
    client = native.client()
    reply = await client.send(get)
    before = -1
    while before != sent:  # until the upstream is stuck
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 30_000_000  # what the kernel's buffers hold, and ours
    first = await reply.read()
    assert len(first) <= 2 * READ_BUFFER_BYTES + 65536
    assert len(first) + len(await native.read_all(reply)) == 65_536_000
    assert client.stats().idle == 1
    _, body = await native.exchange(native.client(), get)
    assert len(body) == 65_536_000


async def test_source_of_an_upload_is_held_back_while_the_upstream_does_not_read(bench: Any) -> None:
    asked = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(500):
            asked += 1
            yield b"x" * 65536

    go = asyncio.Event()

    async def script(peer: Any) -> None:
        await go.wait()
        await peer.request()
        await peer.send(OK + b"content-length: 2\r\n\r\nok")

    bench.server.script = script
    call = asyncio.create_task(
        bench.exchange(bench.client(), UpstreamRequest("POST", b"/", [], source(), content_length=500 * 65536))
    )
    before = -1
    while before != asked or asked == 0:
        before = asked
        await asyncio.sleep(0.05)
    assert asked < 300
    go.set()
    _, body = await call
    assert (body, asked) == (b"ok", 500)


async def test_connection_of_a_paused_reply_that_completes_reads_again(native: Any, get: Any) -> None:
    """The last bytes arrive while reading was paused; the next exchange on that connection must see its reply."""
    size = 3 * READ_BUFFER_BYTES
    native.serve(OK + b"content-length: %d\r\n\r\n" % size, b"x" * size)
    client = native.client()
    for _ in range(5):
        reply = await client.send(get)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await native.read_all(reply)) == size
    assert len(native.server.peers) == 1
