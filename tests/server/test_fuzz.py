"""However its bytes are cut, a request is read the same way; and no bytes make the protocol fail."""

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.server.limits import WireLimits
from gateway.server.protocol import protocol_class


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)})
        self.out = b""
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.out += data

    def writelines(self, data: Any) -> None:
        self.write(b"".join(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


Seen = list[tuple[Any, ...]]


async def feed(parts: list[bytes], limits: WireLimits | None = None) -> tuple[Seen, bytes]:
    """The whole requests that an application sees when these parts arrive, and what is answered."""
    seen: Seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        path = (scope["path"], scope["raw_path"], scope["query_string"])
        seen.append((scope["method"], scope["http_version"], *path, scope["headers"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    config = Config(app, interface="asgi3", proxy_headers=False, log_config=None, lifespan="off")
    protocol = protocol_class(limits or WireLimits())(config, ServerState(), {})
    pipe = Pipe()
    protocol.connection_made(pipe)
    for part in parts:
        while pipe.paused:
            await asyncio.sleep(0)
        if not pipe.closed and part:
            protocol.data_received(part)
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    while protocol.server_state.tasks:
        await asyncio.sleep(0)
    assert not protocol.wire.connections
    return seen, pipe.out


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


WORDS = st.text("abcXYZ019-", min_size=1, max_size=8).map(str.encode)
VALUES = st.text("abc XYZ019-,;=/\t\u00e9", max_size=12).map(lambda text: text.encode("latin-1"))
SPACE = st.sampled_from([b"", b" ", b"\t", b"  "])


@st.composite
def requests(draw: Any) -> bytes:
    """One valid request."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS"]))
    path = b"/" + b"/".join(draw(st.lists(WORDS, max_size=3)))
    query = draw(st.sampled_from([b"", b"?", b"?a=b", b"?//..%2f"]))
    lines = [b"%b %b%b HTTP/1.1" % (method, path, query), b"Host:%bx" % draw(SPACE)]
    for name, value in draw(st.lists(st.tuples(WORDS, VALUES), max_size=5)):
        lines.append(b"X-%b:%b%b%b" % (name, draw(SPACE), value, draw(SPACE)))
    body: bytes = draw(st.one_of(st.just(b""), st.binary(max_size=200), st.just(b"z" * 70_000)))
    if draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
    else:
        lines.append(b"transfer-encoding: Chunked")
        cuts = sorted(draw(st.sets(st.integers(1, max(1, len(body))), max_size=5)) | {0, len(body)})
        parts = [body[start:end] for start, end in pairwise(cuts) if body[start:end]]
        extension = draw(st.sampled_from([b"", b";a", b';a="b c"']))
        body = b"".join(b"%X%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
        body += b"00" + extension + b"\r\n" + draw(st.sampled_from([b"", b"X-T: 1\r\n"])) + b"\r\n"
    return b"\r\n".join([*lines, b"", body])


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in parts that end where `at` says, counted from each end."""
    ends = sorted({0, len(data)} | {number % (len(data) + 1) for number in at})
    return [data[start:end] for start, end in pairwise(ends)]


CUTS = st.lists(st.integers(-120, 1_000), max_size=30)


@settings(max_examples=120, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), CUTS)
def test_any_split_of_valid_requests_gives_the_same_events(
    runner: asyncio.Runner, many: list[bytes], at: list[int]
) -> None:
    data = b"".join(many)
    whole = runner.run(feed([data]))
    assert len(whole[0]) == len(many)
    assert runner.run(feed(cut(data, at))) == whole
    small = data if len(data) < 2_000 else data[:1_000]
    bytewise = [small[number : number + 1] for number in range(len(small))]
    assert runner.run(feed([*bytewise, data[len(small) :]])) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=2), st.lists(st.integers(0, 3), min_size=3, max_size=10))
def test_requests_are_read_as_if_each_came_alone(runner: asyncio.Runner, some: list[bytes], order: list[int]) -> None:
    """What a connection remembers of its last head changes nothing; some of these differ in their length only."""
    longer = [re.sub(rb"(?<=\r\nContent-Length: )\d+$", b"7", each.partition(b"\r\n\r\n")[0]) for each in some]
    some = some + [each + b"\r\n\r\n1234567" for each in longer if b"Content-Length: 7" in each]
    many = [some[number % len(some)] for number in order]
    alone = [runner.run(feed([each]))[0] for each in many]
    assert runner.run(feed([b"".join(many)]))[0] == [each for seen in alone for each in seen]


LINES = [
    *(b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"Host: x\r\n", b"Content-Length: 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Upgrade: websocket\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"\r\n"),
]
FRAGMENTS = st.sampled_from([*LINES, b"\n", b"\r", b" ", b"\0", b"3;", b":", b"abc", b"%2e", b"\xff", b"ffffffff"])
GARBAGE = st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=20).map(b"".join))


@settings(max_examples=250, deadline=None)
@given(GARBAGE, CUTS)
def test_garbage_never_fails_and_is_read_one_way(runner: asyncio.Runner, data: bytes, at: list[int]) -> None:
    limits = WireLimits(max_header_bytes=150, max_headers=6, max_target_bytes=40, max_body_bytes=100)
    whole, out = runner.run(feed([data], limits))
    pieces, pieces_out = runner.run(feed(cut(data, at), limits))
    assert pieces == whole
    assert pieces_out.count(b"HTTP/1.1 200") == out.count(b"HTTP/1.1 200")
    assert out == b"" or out.startswith(b"HTTP/1.1 ")


@settings(max_examples=200, deadline=None)
@given(requests(), st.integers(0, 10_000), st.sampled_from([b"\0", b"\n", b"\r", b" ", b":", b"\t", b"x", b""]), CUTS)
def test_one_changed_byte_is_read_one_way(
    runner: asyncio.Runner, data: bytes, where: int, byte: bytes, at: list[int]
) -> None:
    where %= len(data)
    data = data[:where] + byte + data[where + 1 :] + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    whole, _ = runner.run(feed([data]))
    pieces, _ = runner.run(feed(cut(data, at)))
    assert pieces == whole
