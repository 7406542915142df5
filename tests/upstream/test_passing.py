"""Passing pieces on at once: the same bytes as reading, and back to reading whenever the sink says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def script_of(go: asyncio.Event, pieces: int) -> Any:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(HEAD)
        await go.wait()
        for number in range(pieces):
            await peer.send(b"4\r\n%04d\r\n" % number)
            await asyncio.sleep(0)
        await peer.send(b"0\r\n\r\n")

    return script


async def test_all_bytes_come_in_order_whoever_takes_them(bench: Any, get: Any) -> None:
    go = asyncio.Event()
    bench.server.script = script_of(go, 500)
    client = bench.client()
    reply = await client.send(get)
    asyncio.get_running_loop().call_later(0.01, go.set)
    taken: list[bytes] = []
    found = bytearray()

    def sink(data: bytes) -> bool:
        taken.append(data)
        found.extend(data)
        return len(taken) % 3 != 0

    while True:
        await reply.pass_to(sink)
        piece = await reply.read()
        if not piece:
            break
        found.extend(piece)
    assert bytes(found) == b"".join(b"%04d" % number for number in range(500))
    if bench.native:
        assert taken, "the native client passes on"
    assert client.stats().in_use == 0


async def test_a_sink_without_room_leaves_the_rest_to_reading(native: Any, get: Any) -> None:
    go = asyncio.Event()
    native.server.script = script_of(go, 50)
    reply = await native.client().send(get)
    asyncio.get_running_loop().call_later(0.01, go.set)
    taken: list[bytes] = []

    def full(data: bytes) -> bool:
        taken.append(data)
        return False

    await reply.pass_to(full)
    assert len(taken) == 1
    rest = await native.read_all(reply)
    assert taken[0] + rest == b"".join(b"%04d" % number for number in range(50))


async def test_what_a_sink_raises_is_told_to_who_waits_and_the_reply_goes_on(native: Any, get: Any) -> None:
    go = asyncio.Event()
    native.server.script = script_of(go, 50)
    reply = await native.client().send(get)
    asyncio.get_running_loop().call_later(0.01, go.set)

    def broken(data: bytes) -> bool:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await reply.pass_to(broken)
    assert await native.read_all(reply)


async def test_cancelled_while_passing_nothing_leaks(native: Any, get: Any) -> None:
    native.server.script = script_of(asyncio.Event(), 1)
    client = native.client()
    reply = await client.send(get)
    waiting = asyncio.create_task(reply.pass_to(lambda data: True))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await reply.aclose()
    assert client.stats().in_use == 0
