"""Replies as upstreams send them: every framing, whole, cut in two at every byte, and byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.upstream.base import UpstreamRequest


@dataclass(frozen=True)
class Case:
    wire: bytes
    body: bytes
    status: int = 200
    length: int | None = None
    method: str = "GET"
    kept: bool = True  # the connection may be used again
    closes: bool = False  # the end of file is the end of the reply


OK = b"HTTP/1.1 200 OK\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
CASES = {
    "length": Case(OK + b"Content-Length: 5\r\n\r\nhello", b"hello", length=5),
    "empty": Case(OK + b"content-length: 0\r\n\r\n", b"", length=0),
    "chunked": Case(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
    "chunked, extensions and trailers": Case(
        OK + b"Transfer-Encoding: Chunked\r\n\r\n5;a=b;c\r\nhello\r\n00;x\r\nx-sum: 1\r\nset-cookie: t=1\r\n\r\n",
        b"hello",
    ),
    "until the end": Case(OK + b"x-a: 1\r\n\r\nhello", b"hello", kept=False, closes=True),
    "HTTP/1.0": Case(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", length=5, kept=False, closes=True),
    "connection close": Case(
        OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", b"hello", length=5, kept=False, closes=True
    ),
    "HEAD": Case(OK + b"content-length: 5\r\n\r\n", b"", length=5, method="HEAD"),
    "HEAD, chunked": Case(OK + b"transfer-encoding: chunked\r\n\r\n", b"", method="HEAD"),
    "204": Case(b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
    "204 with a length": Case(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", b"", 204),
    "304": Case(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\netag: x\r\n\r\n", b"", 304, length=9),
    "100 and 103 first": Case(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        + OK
        + b"content-length: 2\r\n\r\nok",
        b"ok",
        length=2,
    ),
    "103 before HEAD": Case(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK + b"content-length: 2\r\n\r\n",
        b"",
        length=2,
        method="HEAD",
    ),
    "error with a body": Case(
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}", b"{}", 429, length=2
    ),
    "no reason": Case(b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", b"ok", length=2),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def play(bench: Any, case: Case, cuts: list[list[bytes]]) -> None:
    """Each request gets the next way of cutting the reply."""
    remaining = iter(cuts)

    async def script(peer: Any) -> None:
        while await peer.request():
            await peer.send(*next(remaining))
            if case.closes:
                await bench.turns(4)
                return

    bench.server.script = script


async def check(bench: Any, client: Any, case: Case) -> None:
    reply, body = await bench.exchange(client, UpstreamRequest(case.method, b"/x"))
    assert (reply.status, body, reply.content_length) == (case.status, case.body, case.length)
    names = [name for name, _ in reply.headers]
    assert all(name == name.lower() for name in names)
    assert not {b"transfer-encoding", b"connection", b"x-sum", b"set-cookie", b"link"} & set(names)
    assert (b"content-length" in names) == (case.length is not None)


async def test_reply_whole(bench: Any, case: Case) -> None:
    play(bench, case, [[case.wire]] * 2)
    client = bench.client()
    for _ in range(2):
        await check(bench, client, case)
    assert len(bench.server.peers) == (1 if case.kept else 2)


async def test_reply_cut_at_every_byte(bench: Any, case: Case) -> None:
    positions = range(1, len(case.wire))
    play(bench, case, [[case.wire[:at], case.wire[at:]] for at in positions])
    client = bench.client()
    for _ in positions:
        await check(bench, client, case)
    assert len(bench.server.peers) == (1 if case.kept else len(positions))


async def test_reply_byte_by_byte(bench: Any, case: Case) -> None:
    play(bench, case, [[case.wire[at : at + 1] for at in range(len(case.wire))]])
    await check(bench, bench.client(), case)


async def test_whole_reply_is_buffered_and_its_connection_free_when_send_returns(native: Any, get: Any) -> None:
    native.serve(OK + b"content-length: 5\r\n\r\nhello")
    client = native.client()
    reply = await client.send(get)
    assert client.stats().idle == 1
    with pytest.raises(StopIteration) as done:
        reply.read().send(None)  # returns without waiting for the event loop
    assert done.value.value == b"hello"
    assert await reply.read() == b""


async def test_read_joins_what_has_arrived(native: Any, get: Any) -> None:
    native.serve(OK + b"transfer-encoding: chunked\r\n\r\n", b"3\r\nhel\r\n2\r\nlo\r\n", b"1\r\n!\r\n0\r\n\r\n")
    reply = await native.client().send(get)
    assert await reply.read() == b"hello"
    assert await reply.read() == b"!"
    assert await reply.read() == b""


async def test_stream_is_passed_on_as_it_comes(bench: Any, get: Any) -> None:
    """No byte waits for a later one: the upstream sends the next piece only when we have read the one before."""
    read = bench.event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            await peer.send(b"7\r\npiece %d\r\n" % number)
            await read.wait()
            read.clear()
        await peer.send(b"0\r\n\r\n")

    bench.server.script = script
    reply = await bench.client().send(get)
    for number in range(5):
        assert await reply.read() == b"piece %d" % number
        read.set()
    assert await reply.read() == b""


async def test_bodies_are_not_decoded(bench: Any, get: Any) -> None:
    bench.serve(OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x00\xff")
    reply, body = await bench.exchange(bench.client(), get)
    assert body == b"\x1f\x8b\x00\xff"
    assert (b"content-encoding", b"gzip") in reply.headers


async def test_redirects_are_not_followed(bench: Any, get: Any) -> None:
    bench.serve(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n")
    reply, _ = await bench.exchange(bench.client(), get)
    assert reply.status == 302
    assert len(bench.server.requests) == 1


async def test_hop_by_hop_headers_and_those_that_connection_names_are_dropped(bench: Any, get: Any) -> None:
    bench.serve(
        OK + b"Connection: keep-alive, X-Secret, content-type, Set-Cookie\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
        b"Trailer: x\r\nProxy-Authenticate: Basic\r\nX-Secret: 1\r\nContent-Type: text/plain \r\nSet-Cookie: a=1\r\n"
        b"X-Kept:  v \r\ncontent-length: 0\r\n\r\n"
    )
    reply, _ = await bench.exchange(bench.client(), get)
    assert reply.headers == [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"x-kept", b"v"),
        (b"content-length", b"0"),
    ]


async def test_first_byte_time_is_the_loop_time_of_the_head(bench: Any, get: Any) -> None:
    bench.serve(OK + b"content-length: 1\r\n\r\n", b"x")
    before = bench.now()
    reply, _ = await bench.exchange(bench.client(), get)
    assert before <= reply.first_byte_at <= bench.now()
