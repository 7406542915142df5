"""Connect, first-byte, idle and total deadlines; what is bounded by them and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.upstream.base import (
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    Timeouts,
    TotalTimeout,
    UpstreamRequest,
)
from gateway.upstream.sweeper import sweep_interval

OK = b"HTTP/1.1 200 OK\r\n"
SOON = 0.05
#: Where something is to come in time first, on a busy machine as well.
LATER = 0.4
FAR = 30.0


async def test_connect_deadline_covers_the_tls_handshake(bench: Any, get: Any) -> None:
    """The peer accepts and says nothing: TCP is there, TLS never."""
    bench.server.script = lambda peer: peer.gone()
    url = f"https://127.0.0.1:{bench.server.port}"
    client = bench.client(Timeouts(SOON, FAR, FAR, FAR), url=url, max_connections=1)
    for _ in range(2):
        with pytest.raises(ConnectTimeout) as late:
            await client.send(get)
        assert (late.value.sent, late.value.phase) == (False, "connect")
    for peer in bench.server.peers:
        await peer.ended.wait()
    assert client.stats().in_use == 0


async def test_first_byte_deadline(bench: Any, get: Any) -> None:
    """A head that trickles in, or interim replies, do not put it off."""
    for pieces in ((), (OK, b"x-a: 1\r\n"), (b"HTTP/1.1 103 Early Hints\r\n\r\n",)):
        bench.serve(*pieces, then=lambda peer: peer.gone())
        client = bench.client(Timeouts(FAR, SOON, FAR, FAR))
        with pytest.raises(FirstByteTimeout) as late:
            await client.send(get)
        assert (late.value.sent, late.value.phase) == (True, "head")
        await bench.server.peers[-1].ended.wait()
        assert client.stats().in_use == 0


async def test_first_byte_deadline_starts_when_the_body_is_out(bench: Any) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await asyncio.sleep(LATER / 3)

    bench.serve(OK + b"content-length: 2\r\n\r\nok")
    client = bench.client(Timeouts(FAR, LATER, FAR, FAR))
    _, body = await bench.exchange(client, UpstreamRequest("POST", b"/", [], slow()))
    assert body == b"ok"
    bench.server.script = lambda peer: peer.gone()
    with pytest.raises(FirstByteTimeout):
        await bench.client(Timeouts(FAR, SOON, FAR, FAR)).send(UpstreamRequest("POST", b"/", [], slow()))


async def test_idle_deadline_in_the_body(bench: Any, get: Any) -> None:
    for head, piece in (
        (b"content-length: 9\r\n\r\n", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
    ):
        bench.serve(OK + head, piece, then=lambda peer: peer.gone())
        reply = await bench.client(Timeouts(FAR, FAR, LATER, FAR)).send(get)
        assert await reply.read() == b"abc"
        with pytest.raises(IdleTimeout) as late:
            await reply.read()
        assert late.value.phase == "body"
        await bench.server.peers[-1].ended.wait()
        await reply.aclose()


async def test_stream_that_keeps_moving_is_not_idle(bench: Any, get: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(LATER / 4)
            await peer.send(b"1\r\nx\r\n")
        await peer.send(b"0\r\n\r\n")

    bench.server.script = script
    _, body = await bench.exchange(bench.client(Timeouts(FAR, FAR, 1.5 * LATER, FAR)), get)
    assert body == b"x" * 8


async def test_slow_reader_is_not_an_idle_upstream(native: Any, get: Any) -> None:
    """We stopped reading because our buffer is full; the upstream cannot move, which is not its fault."""
    total = 4_000_000
    native.serve(OK + b"content-length: %d\r\n\r\n" % total, b"b" * total)
    client = native.client(Timeouts(FAR, FAR, LATER, FAR))
    reply = await client.send(get)
    size = len(await reply.read())
    await asyncio.sleep(1.5 * LATER)
    size += len(await native.read_all(reply))
    assert size == total


async def test_idle_deadline_of_an_upload_that_the_upstream_does_not_take(bench: Any) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    done = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.read()
        await done.wait()

    bench.server.script = script
    with pytest.raises(IdleTimeout) as late:
        await bench.client(Timeouts(FAR, FAR, SOON, FAR)).send(UpstreamRequest("POST", b"/", [], endless()))
    assert (late.value.phase, late.value.sent) == ("send", True)
    done.set()


async def test_slow_source_of_an_upload_is_not_an_idle_upstream(bench: Any) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x"
            await asyncio.sleep(2 * SOON)

    bench.serve(OK + b"content-length: 2\r\n\r\nok")
    client = bench.client(Timeouts(FAR, FAR, SOON, FAR))
    _, body = await bench.exchange(client, UpstreamRequest("POST", b"/", [], slow()))
    assert body == b"ok"


async def test_total_deadline_of_a_stream_that_never_ends(bench: Any, get: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        while not peer.ended.is_set():
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.005)

    bench.server.script = script
    reply = await bench.client(Timeouts(FAR, FAR, FAR, LATER)).send(get)
    with pytest.raises(TotalTimeout) as late:
        await bench.read_all(reply)
    assert late.value.phase == "body"
    await reply.aclose()
    bench.server.peers[0].ended.set()


async def test_total_deadline_before_the_head(bench: Any, get: Any) -> None:
    bench.server.script = lambda peer: peer.gone()
    with pytest.raises(TotalTimeout) as late:
        await bench.client(Timeouts(FAR, FAR, FAR, SOON)).send(get)
    assert (late.value.phase, late.value.sent) == ("head", True)


async def test_total_deadline_while_waiting_for_a_connection(bench: Any, get: Any) -> None:
    bench.server.script = lambda peer: peer.gone()
    client = bench.client(Timeouts(FAR, FAR, FAR, FAR), max_connections=1)
    call = asyncio.create_task(client.send(get))
    while not bench.server.requests and not (bench.server.peers and bench.server.peers[0].received):
        await asyncio.sleep(0)
    bounded = UpstreamRequest("GET", b"/", total_deadline=bench.now() + SOON)
    with pytest.raises(TotalTimeout) as late:
        await client.send(bounded)
    assert (late.value.phase, late.value.sent) == ("connect", False)
    call.cancel()
    await asyncio.wait({call})


async def test_callers_deadline_shortens_but_never_lengthens(bench: Any) -> None:
    bench.server.script = lambda peer: peer.gone()
    with pytest.raises(TotalTimeout):
        await bench.client().send(UpstreamRequest("GET", b"/", total_deadline=bench.now() + SOON))
    with pytest.raises(TotalTimeout):
        await bench.client(Timeouts(FAR, FAR, FAR, SOON)).send(
            UpstreamRequest("GET", b"/", total_deadline=bench.now() + FAR)
        )


async def test_passed_deadline_sends_nothing(bench: Any) -> None:
    with pytest.raises(TotalTimeout) as late:
        await bench.client().send(UpstreamRequest("GET", b"/", total_deadline=bench.now() - 1))
    assert (late.value.sent, late.value.phase) == (False, "connect")


async def test_zero_or_none_is_no_bound(bench: Any, get: Any) -> None:
    bench.serve(OK + b"content-length: 2\r\n\r\n", b"ok")
    for bound in (0, None):
        _, body = await bench.exchange(bench.client(Timeouts(bound, bound, bound, bound), idle_keep_s=0), get)
        assert body == b"ok"


async def test_no_timer_is_left_when_nothing_is_open(native: Any, get: Any) -> None:
    """The sweeper stops by itself, so an unused client costs nothing."""
    native.serve(OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok")
    client = native.client(Timeouts(SOON, SOON, SOON, SOON))
    await native.exchange(client, get)
    async with asyncio.timeout(5):
        while client._pool._sweeper._timer is not None:
            await asyncio.sleep(0.01)


def test_sweep_interval_follows_the_shortest_bound() -> None:
    assert sweep_interval([5.0, 120.0, None, 0, 600.0]) == 0.1
    assert sweep_interval([0.4, 120.0]) == pytest.approx(0.05)
    assert sweep_interval([0.001]) == 0.005
    assert sweep_interval([]) == 0.1
