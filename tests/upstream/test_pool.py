"""The pool: reuse, bounds, order, stale connections, and what is retried."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.upstream.base import ConnectFailed, ConnectionLost, PoolTimeout, UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def gated(bench: Any) -> tuple[Any, list[bytes]]:
    """A server that answers each request only when `gate` is set; the order in which requests came."""
    gate, order = asyncio.Event(), []

    async def script(peer: Any) -> None:
        while request := await peer.request():
            order.append(request.split(b" ")[1])
            await gate.wait()
            await peer.send(OK)

    bench.server.script = script
    return gate, order


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_connection_is_kept_and_reused(bench: Any, get: Any) -> None:
    bench.serve(OK)
    client = bench.client()
    for _ in range(5):
        _, body = await bench.exchange(client, get)
        assert body == b"ok"
    assert len(bench.server.peers) == 1
    stats = client.stats()
    assert (stats.opened_total, stats.reused_total, stats.in_use, stats.waiting) == (1, 4, 0, 0)


async def test_never_more_connections_than_allowed(bench: Any) -> None:
    gate, order = gated(bench)
    client = bench.client(max_connections=3)
    calls = [asyncio.create_task(bench.exchange(client, UpstreamRequest("GET", b"/%d" % n))) for n in range(10)]
    await until(lambda: len(order) == 3)
    await bench.turns(30)
    assert (len(bench.server.peers), len(order)) == (3, 3)
    stats = client.stats()
    assert (stats.in_use, stats.waiting) == (3, 7)
    gate.set()
    assert [body for _, body in await asyncio.gather(*calls)] == [b"ok"] * 10
    assert len(bench.server.peers) == 3


async def test_who_waited_longest_is_served_first(bench: Any) -> None:
    gate, order = gated(bench)
    client = bench.client(max_connections=1)
    calls = []
    for number in range(20):
        calls.append(asyncio.create_task(bench.exchange(client, UpstreamRequest("GET", b"/%d" % number))))
        await bench.turns(2)
    gate.set()
    await asyncio.gather(*calls)
    assert order == [b"/%d" % number for number in range(20)]


async def test_cancelled_waiters_lose_no_slot(bench: Any) -> None:
    gate, order = gated(bench)
    client = bench.client(max_connections=1)
    calls = []
    for number in range(20):
        calls.append(asyncio.create_task(bench.exchange(client, UpstreamRequest("GET", b"/%d" % number))))
        await bench.turns(2)
    for call in calls[1::2]:
        call.cancel()
    gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == [b"/%d" % number for number in range(0, 20, 2)]
    assert client.stats().waiting == client.stats().in_use == 0


async def test_waiter_cancelled_just_as_it_is_served_hands_its_connection_on(native: Any, get: Any) -> None:
    gate, order = gated(native)
    client = native.client(max_connections=1)
    first, second, third = (asyncio.create_task(native.exchange(client, get)) for _ in range(3))
    await until(lambda: len(order) == 1 and client.stats().waiting == 2)

    def cancel_once_served() -> None:
        """Runs in each turn of the loop before what was made ready in it: the second call has not seen its turn yet."""
        if client.stats().waiting == 1:
            second.cancel()
        else:
            asyncio.get_running_loop().call_soon(cancel_once_served)

    cancel_once_served()
    gate.set()
    ends = await asyncio.gather(first, second, third, return_exceptions=True)
    assert isinstance(ends[1], asyncio.CancelledError)
    assert ends[0][1] == ends[2][1] == b"ok"
    assert (len(order), len(native.server.peers), client.stats().opened_total) == (2, 1, 1)


async def test_most_recently_used_is_taken_and_least_recently_used_closed(native: Any, get: Any) -> None:
    gate, order = gated(native)
    client = native.client(max_idle=2)
    calls = [asyncio.create_task(native.exchange(client, get)) for _ in range(4)]
    await until(lambda: len(order) == 4)
    gate.set()
    await asyncio.gather(*calls)
    stats = client.stats()
    assert (stats.open, stats.idle, stats.closed_total) == (2, 2, 2)
    await until(lambda: sum(peer.ended.is_set() for peer in native.server.peers) == 2)
    resting = [peer for peer in native.server.peers if not peer.ended.is_set()]
    for _ in range(3):
        await native.exchange(client, get)
    assert sorted(len(peer.requests) for peer in resting) == [1, 4]


async def test_idle_connection_is_closed_after_its_time(native: Any, get: Any) -> None:
    native.serve(OK)
    client = native.client(idle_keep_s=0.05)
    await native.exchange(client, get)
    assert client.stats().idle == 1
    async with asyncio.timeout(5):
        await native.server.peers[0].ended.wait()
    assert client.stats().open == 0


async def test_stale_connection_found_closed_before_writing_is_replaced(bench: Any) -> None:
    """Whatever the method: nothing was sent on it."""
    bench.serve(OK, then=bench.close)
    client = bench.client()
    for _ in range(3):
        _, body = await bench.exchange(client, UpstreamRequest("POST", b"/", [], b"x"))
        assert body == b"ok"
        await bench.turns(40)
    assert len(bench.server.requests) == 3


async def test_connection_that_breaks_before_it_is_used_is_replaced_once(native: Any, get: Any) -> None:
    async def script(peer: Any) -> None:
        if len(native.server.peers) <= broken:
            await peer.send(b"bytes before any request")
        await native.answer(OK)(peer)

    native.server.script = script
    broken = 1
    _, body = await native.exchange(native.client(), get)
    assert body == b"ok"
    assert native.clients[0].stats().retried_total == 1
    broken = 9
    with pytest.raises(ConnectionLost) as lost:
        await native.client().send(get)
    assert not lost.value.sent
    assert len(native.server.requests) == 1


async def test_request_is_never_sent_twice_once_it_was_written(bench: Any, get: Any) -> None:
    """A reused connection that closes without an answer may have had the request handled, even a GET."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    bench.server.script = script
    client = bench.client()
    await bench.exchange(client, get)
    with pytest.raises(ConnectionLost) as lost:
        await bench.exchange(client, get)
    assert (lost.value.sent, lost.value.phase) == (True, "head")
    assert len(bench.server.requests) == 2


async def test_refused_connection(bench: Any, get: Any, closed_port: int) -> None:
    client = bench.client(url=f"http://127.0.0.1:{closed_port}")
    for _ in range(3):
        with pytest.raises(ConnectFailed) as failed:
            await client.send(get)
        assert (failed.value.sent, failed.value.phase) == (False, "connect")
    assert client.stats().in_use == client.stats().waiting == 0


async def test_unknown_name(bench: Any, get: Any) -> None:
    with pytest.raises(ConnectFailed):
        await bench.client(url="http://name.invalid").send(get)


async def test_full_pool_times_out(bench: Any, get: Any) -> None:
    gate, order = gated(bench)
    client = bench.client(max_connections=1, pool_wait_s=0.05)
    call = asyncio.create_task(bench.exchange(client, get))
    await until(lambda: len(order) == 1)
    with pytest.raises(PoolTimeout) as full:
        await client.send(get)
    assert (full.value.sent, full.value.phase) == (False, "connect")
    gate.set()
    _, body = await call
    assert body == b"ok"


async def test_closing_the_client_ends_exchanges_waits_and_connections(native: Any, get: Any) -> None:
    _, order = gated(native)
    client = native.client(max_connections=2)
    calls = [asyncio.create_task(client.send(get)) for _ in range(4)]
    await until(lambda: len(order) == 2)
    await client.aclose()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(end.sent for end in ends if isinstance(end, ConnectionLost)) == [False, False, True, True]
    assert client.stats().open == 0
    with pytest.raises(ConnectionLost):
        await client.send(get)
    await client.aclose()


async def test_connection_is_aborted_when_its_reply_is_closed_early(bench: Any, get: Any) -> None:
    bench.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"x", then=lambda peer: peer.gone())
    client = bench.client(max_connections=1)
    for number in range(3):
        reply = await client.send(get)
        for _ in range(3):
            await reply.aclose()
        with pytest.raises(ConnectionLost):
            await reply.read()
        await bench.server.peers[number].ended.wait()
    assert client.stats().in_use == 0


async def test_complete_reply_that_was_not_read_keeps_its_connection(native: Any, get: Any) -> None:
    native.serve(OK)
    client = native.client()
    for _ in range(3):
        reply = await client.send(get)
        await reply.aclose()
    assert len(native.server.peers) == 1


async def test_two_readers_are_refused(native: Any, get: Any) -> None:
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", then=lambda peer: peer.gone())
    reply = await native.client().send(get)
    reader = asyncio.create_task(reply.read())
    await native.turns(2)
    with pytest.raises(RuntimeError):
        await reply.read()
    await reply.aclose()
    with pytest.raises(ConnectionLost):
        await reader


async def test_cancelled_read_can_be_taken_up_again(native: Any, get: Any) -> None:
    go = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await go.wait()
        await peer.send(b"hello")
        await peer.gone()

    native.server.script = script
    reply = await native.client().send(get)
    reader = asyncio.create_task(reply.read())
    await native.turns(3)
    reader.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await reply.read() == b"hello"
    assert await reply.read() == b""
