"""What goes out: heads, bodies of every kind, and what is refused before a byte is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.upstream.base import ConnectFailed, ConnectionLost, ProtocolError, UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_request_on_the_wire(native: Any) -> None:
    native.serve(OK)
    request = UpstreamRequest("POST", b"/v1/a%2Fb/../c?x=1", [(b"x-a", b"1"), (b"x-a", b"\xe9")], b"body")
    await native.exchange(native.client(), request)
    assert native.server.requests == [
        b"POST /v1/a%2Fb/../c?x=1 HTTP/1.1\r\nhost: 127.0.0.1:" + str(native.server.port).encode() + b"\r\n"
        b"x-a: 1\r\nx-a: \xe9\r\ncontent-length: 4\r\n\r\nbody"
    ]


async def test_target_is_forwarded_as_it_is(bench: Any) -> None:
    bench.serve(OK)
    client = bench.client()
    for target in (b"/", b"/a//b/../c", b"/%2f%2F%00", b"/?q=a+b&c=%zz", b"//host/x", b"/" + b"x" * 4000):
        await bench.exchange(client, UpstreamRequest("GET", target))
        assert bench.server.requests[-1].split(b" ")[1] == target


async def test_client_writes_its_own_framing_fields(bench: Any) -> None:
    """Another's content-length, transfer-encoding, host or connection never goes out beside ours."""
    bench.serve(OK)
    headers = [
        (b"host", b"evil"),
        (b"connection", b"close"),
        (b"content-length", b"99"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"x-kept", b"1"),
    ]
    await bench.exchange(bench.client(), UpstreamRequest("POST", b"/", headers, b"four"))
    sent = bench.server.requests[0].lower()
    assert sent.count(b"\r\nhost:") == 1
    assert sent.count(b"\r\ncontent-length: 4\r\n") == sent.count(b"content-length") == 1
    for absent in (b"evil", b"transfer-encoding", b"\r\nte:", b"\r\nconnection: close"):
        assert absent not in sent
    assert b"\r\nx-kept: 1\r\n" in sent


@pytest.mark.parametrize(
    "request_",
    [
        UpstreamRequest("GET", b"/", [(b"x", b"a\r\ny: b")]),
        UpstreamRequest("GET", b"/", [(b"x", b"a\nb")]),
        UpstreamRequest("GET", b"/", [(b"x", b"a\rb")]),
        UpstreamRequest("GET", b"/", [(b"x", b"a\0b")]),
        UpstreamRequest("GET", b"/", [(b"x\r\ny", b"a")]),
        UpstreamRequest("GET", b"/ HTTP/1.1\r\nx: y"),
        UpstreamRequest("GET", b"/a b"),
        UpstreamRequest("GET", b"/\xc3\xa4"),
        UpstreamRequest("GET", b"/\x7f"),
        UpstreamRequest("GET", b"a"),
        UpstreamRequest("GET", b""),
        UpstreamRequest("GET", b"http://other/"),
        UpstreamRequest("GET /", b"/"),
        UpstreamRequest("G\r\nT", b"/"),
        UpstreamRequest("", b"/"),
        UpstreamRequest("CONNECT", b"/"),
    ],
)
async def test_ambiguous_request_is_refused_before_a_byte_is_sent(bench: Any, request_: UpstreamRequest) -> None:
    bench.serve(OK)
    with pytest.raises(ValueError):
        await bench.client().send(request_)
    assert bench.server.peers == []


async def test_bodies_in_memory(bench: Any) -> None:
    bench.serve(OK)
    client = bench.client()
    for body in (b"", b"x", b"x" * 70_000, b"x" * 3_000_000):
        await bench.exchange(client, UpstreamRequest("POST", b"/", [], body))
        assert bench.server.requests[-1].partition(b"\r\n\r\n")[2] == body
    for method in ("POST", "PUT", "PATCH"):
        await bench.exchange(client, UpstreamRequest(method, b"/"))
        assert b"\r\ncontent-length: 0\r\n" in bench.server.requests[-1].lower()
    for method in ("GET", "DELETE", "OPTIONS", "PURGE"):
        await bench.exchange(client, UpstreamRequest(method, b"/"))
        assert b"content-length" not in bench.server.requests[-1].lower()
    assert len(bench.server.peers) == 1


async def test_iterator_of_known_length(bench: Any) -> None:
    bench.serve(OK)
    client = bench.client()
    for _ in range(3):
        request = UpstreamRequest("POST", b"/", [], pieces(b"ab", b"", b"cde"), content_length=5)
        _, body = await bench.exchange(client, request)
        assert body == b"ok"
        head, _, sent = bench.server.requests[-1].partition(b"\r\n\r\n")
        assert sent == b"abcde"
        assert b"content-length: 5" in head.lower()
        assert b"transfer-encoding" not in head.lower()
    assert len(bench.server.peers) == 1


async def test_iterator_of_unknown_length_is_chunked(bench: Any) -> None:
    bench.serve(OK)
    client = bench.client()
    for _ in range(3):
        await bench.exchange(client, UpstreamRequest("POST", b"/", [], pieces(b"ab", b"", b"c" * 20)))
        head, _, sent = bench.server.requests[-1].partition(b"\r\n\r\n")
        assert sent == b"2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n"
        assert b"transfer-encoding: chunked" in head.lower()
        assert b"content-length" not in head.lower()
    assert len(bench.server.peers) == 1


@pytest.mark.parametrize("parts", [(b"abc",), (b"abc", b"defg"), ()])
async def test_body_that_is_not_as_long_as_declared_is_an_error(bench: Any, parts: tuple[bytes, ...]) -> None:
    """Bytes over the length would be the next request; none of them is sent, and the connection ends."""

    async def script(peer: Any) -> None:
        await peer.gone()

    bench.server.script = script
    with pytest.raises(ProtocolError) as caught:
        await bench.client().send(UpstreamRequest("POST", b"/", [], pieces(*parts), content_length=5))
    assert caught.value.phase == "send"
    peer = bench.server.peers[0]
    await peer.ended.wait()
    assert len(peer.received.partition(b"\r\n\r\n")[2]) <= 5


async def test_exception_of_the_iterator_is_raised_as_it_is(bench: Any) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        raise LookupError("the client has gone")

    bench.server.script = lambda peer: peer.gone()
    with pytest.raises(LookupError, match="the client has gone"):
        await bench.client().send(UpstreamRequest("POST", b"/", [], broken()))
    await bench.server.peers[0].ended.wait()


async def test_early_answer_while_the_body_is_still_coming(native: Any) -> None:
    """The reply is there although the iterator never ends; the connection is closed, the iterator stopped."""
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def script(peer: Any) -> None:
        while b"first" not in peer.received:
            await peer.read()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await peer.gone()

    native.server.script = script
    client = native.client()
    for length in (None, 1000):
        stopped.clear()
        reply, body = await native.exchange(client, UpstreamRequest("POST", b"/", [], endless(), content_length=length))
        assert (reply.status, body) == (413, b"no")
        assert stopped.is_set()
    assert client.stats().open == 0


async def test_early_answer_while_the_upstream_takes_no_more_of_the_body(native: Any) -> None:
    """The upstream answers and reads on no more: neither side may wait for the other for ever."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async def script(peer: Any) -> None:
        await peer.read()
        await native.turns(50)  # the socket's buffers fill
        await peer.send(b"HTTP/1.1 507 Full\r\ncontent-length: 2\r\n\r\nno")
        await native.turns(50)

    native.server.script = script
    reply, body = await native.exchange(native.client(), UpstreamRequest("POST", b"/", [], endless()))
    assert (reply.status, body) == (507, b"no")


async def test_reply_may_stream_while_the_request_streams(native: Any) -> None:
    """Both directions at once: the upstream echoes each piece before the next one is sent."""
    echoed: asyncio.Queue[bytes] = asyncio.Queue()

    async def source() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            assert await echoed.get() == b"%d" % number

    async def script(peer: Any) -> None:
        await peer.read()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            while b"1\r\n%d\r\n" % number not in peer.received:
                await peer.read()
            await peer.send(b"1\r\n%d\r\n" % number)
        while not peer.received.endswith(b"0\r\n\r\n"):
            await peer.read()
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    native.server.script = script
    client = native.client()
    reply = await client.send(UpstreamRequest("POST", b"/", [], source()))
    while piece := await reply.read():
        await echoed.put(piece)
    assert client.stats().idle == 1


async def test_iterator_is_closed_when_its_exchange_fails(native: Any) -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    async def script(peer: Any) -> None:
        await peer.read()

    native.server.script = script
    with pytest.raises(ConnectionLost) as lost:
        await native.client().send(UpstreamRequest("POST", b"/", [], source()))
    assert lost.value.phase in ("send", "head")
    assert closed.is_set()


async def test_iterator_is_left_alone_when_nothing_could_be_sent(bench: Any, closed_port: int) -> None:
    """So that another upstream can be tried with the same body."""
    body = pieces(b"ab", b"c")
    with pytest.raises(ConnectFailed) as caught:
        await bench.client(url=f"http://127.0.0.1:{closed_port}").send(UpstreamRequest("POST", b"/", [], body))
    assert not caught.value.sent
    bench.serve(OK)
    await bench.exchange(bench.client(), UpstreamRequest("POST", b"/", [], body))
    assert b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" in bench.server.requests[0]
