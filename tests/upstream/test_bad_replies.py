"""Replies that must not be believed: contradictory framing, garbage, early ends; and bytes that nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.upstream.base import ConnectionLost, ProtocolError, UpstreamError, UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
BAD = {
    "length and chunked": OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "list of lengths": OK + b"content-length: 3, 4\r\n\r\nabcd",
    "signed length": OK + b"content-length: +3\r\n\r\nabc",
    "negative length": OK + b"content-length: -3\r\n\r\nabc",
    "length no number": OK + b"content-length: 3x\r\n\r\nabc",
    "huge length": OK + b"content-length: 99999999999999999999999\r\n\r\nabc",
    "other coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked not last": OK + b"transfer-encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size no number": CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n",
    "chunk size signed": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
    "switching, bare": b"HTTP/1.1 101 Switching\r\n\r\nabc",
    "status over 599": b"HTTP/1.1 600 Odd\r\ncontent-length: 3\r\n\r\nabc",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status no number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "space before colon": OK + b"content-length : 3\r\n\r\nabc",
    "NUL in a value": OK + b"x: a\0b\r\ncontent-length: 3\r\n\r\nabc",
    "control character in a value": OK + b"x: a\x01b\r\ncontent-length: 3\r\n\r\nabc",
    "DEL in a value": OK + b"x: a\x7fb\r\ncontent-length: 3\r\n\r\nabc",
    "bare CR in a value": OK + b"x: a\rb: c\r\ncontent-length: 3\r\n\r\nabc",
}
# What h11 lets pass in replies, as RFC 9112 allows: harmless, since the framing stays clear, but our own is stricter.
STRICTER = {
    "folded line": OK + b"x: a\r\n b\r\ncontent-length: 3\r\n\r\nabc",
    "bare LF": OK + b"x: a\nb: c\r\ncontent-length: 3\r\n\r\nabc",
    "same length twice": OK + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "length in the trailers": CHUNKED + b"0\r\ncontent-length: 9\r\n\r\n",
    "chunk size overflows": CHUNKED + b"fffffffffffffffff\r\nabc",
    "interim reply with a body": b"HTTP/1.1 104 Odd\r\ncontent-length: 4\r\n\r\nEVIL"
    + OK
    + b"content-length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 Odd\r\ncontent-length: 3\r\n\r\nabc",
}


async def refused(bench: Any, client: Any, request: UpstreamRequest) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await bench.exchange(client, request)
    return caught.value


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD.keys())
async def test_bad_framing_is_an_error_and_ends_the_connection(bench: Any, get: Any, wire: bytes) -> None:
    bench.serve(wire, then=lambda peer: peer.gone())
    error = await refused(bench, bench.client(), get)
    assert isinstance(error, ProtocolError)
    assert error.sent
    assert error.phase in ("head", "body")
    await bench.server.peers[0].ended.wait()


@pytest.mark.parametrize("wire", (BAD | STRICTER).values(), ids=(BAD | STRICTER).keys())
async def test_bad_framing_cut_at_every_byte(native: Any, get: Any, wire: bytes) -> None:
    cuts = iter(range(1, len(wire)))

    async def script(peer: Any) -> None:
        await peer.request()
        at = next(cuts)
        await peer.send(wire[:at], wire[at:])
        await peer.gone()

    native.server.script = script
    client = native.client()
    for _ in range(1, len(wire)):
        assert isinstance(await refused(native, client, get), ProtocolError)
    stats = client.stats()
    assert (stats.open, stats.opened_total) == (0, len(wire) - 1)


ENDS = {
    "nothing": b"",
    "in the status": OK[:9],
    "in the head": OK + b"content-length: 3\r\nx-",
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "in the body": OK + b"content-length: 3\r\n\r\nab",
    "in a chunk": CHUNKED + b"3\r\nab",
    "before the last chunk": CHUNKED + b"2\r\nab\r\n",
    "in the trailers": CHUNKED + b"0\r\nx-a: b\r\n",
}


@pytest.mark.parametrize("wire", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
async def test_early_end_is_a_lost_connection(bench: Any, get: Any, wire: bytes, how: str) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if wire:
            await peer.send(wire)
            await bench.turns(6)
        getattr(peer, how)()
        if how == "half_close":
            await peer.gone()

    bench.server.script = script
    error = await refused(bench, bench.client(), get)
    assert isinstance(error, ConnectionLost)
    assert error.sent
    assert len(bench.server.requests) == 1  # it may have been handled: never sent again


async def test_reset_in_a_body_without_length_is_not_its_end(bench: Any, get: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nabc")
        await bench.turns(6)
        peer.reset()

    bench.server.script = script
    assert isinstance(await refused(bench, bench.client(), get), ConnectionLost)


async def test_bytes_before_a_failure_are_read_first(bench: Any, get: Any) -> None:
    bench.serve(OK + b"content-length: 9\r\n\r\n", b"abc", then=bench.close)
    reply = await bench.client().send(get)
    assert await reply.read() == b"abc"
    for _ in range(2):
        with pytest.raises(ConnectionLost) as lost:
            await reply.read()
        assert lost.value.phase == "body"
    await reply.aclose()


async def test_surplus_bytes_are_never_the_next_reply(bench: Any, get: Any) -> None:
    """A second reply behind the first one, whole or begun: whoever asks next must not get it."""
    for surplus in (OK + b"content-length: 4\r\n\r\nEVIL", OK + b"x-evil: ", b"HT", b"x"):
        bench.serve(OK + b"content-length: 4\r\n\r\ngood" + surplus)
        client = bench.client()
        for _ in range(3):
            reply, body = await bench.exchange(client, get)
            assert body == b"good"
            assert b"x-evil" not in dict(reply.headers)


async def test_surplus_bytes_after_head_only_replies_are_never_the_next_reply(bench: Any) -> None:
    for surplus in (b"body!", b"5\r\nEVIL!", OK + b"content-length: 4\r\n\r\nEVIL"):
        bench.serve(OK + b"content-length: 5\r\n\r\n" + surplus)
        client = bench.client()
        for _ in range(3):
            reply, body = await bench.exchange(client, UpstreamRequest("HEAD", b"/"))
            assert (reply.status, body) == (200, b"")
        assert len(bench.server.peers) % 3 == 0


async def test_bytes_on_a_resting_connection_close_it(bench: Any, get: Any) -> None:
    bench.serve(
        OK + b"content-length: 4\r\n\r\ngood",
        b"",
        b"",
        OK + b"content-length: 4\r\n\r\nEVIL",
        then=lambda peer: peer.gone(),
    )
    client = bench.client()
    await bench.exchange(client, get)
    await bench.turns(40)
    bench.serve(OK + b"content-length: 4\r\n\r\nnext")
    _, body = await bench.exchange(client, get)
    assert body == b"next"
    assert len(bench.server.peers) == 2


async def test_head_over_the_limit_is_refused(bench: Any, get: Any) -> None:
    """As one piece, as many, as one endless value, as endless interim replies."""
    line = b"x-filler: " + b"f" * 1000 + b"\r\n"
    heads = [
        [OK + line * 300 + b"content-length: 0\r\n\r\n"],
        [OK, *[line * 20] * 20, b"content-length: 0\r\n\r\n"],
        [OK + b"x: ", *[b"v" * 20_000] * 20],
    ]
    if bench.native:  # h11 forgets each interim reply; its flood ends by the first-byte deadline
        heads.append([b"HTTP/1.1 103 Early Hints\r\n" + line * 20 + b"\r\n"] * 20)
    for pieces in heads:
        bench.serve(*pieces, then=lambda peer: peer.gone())
        error = await refused(bench, bench.client(), get)
        assert isinstance(error, ProtocolError)
        assert error.phase == "head"


async def test_head_below_the_limit_is_taken_with_a_large_body_behind_it(native: Any, get: Any) -> None:
    native.serve(OK + b"content-length: 300000\r\n\r\n" + b"b" * 300_000)
    _, body = await native.exchange(native.client(max_header_bytes=100), get)
    assert len(body) == 300_000
    native.serve(OK + b"x: " + b"y" * 100 + b"\r\ncontent-length: 300000\r\n\r\n" + b"b" * 300_000)
    with pytest.raises(ProtocolError):
        await native.exchange(native.client(max_header_bytes=100), get)


async def test_endless_chunk_extension_or_trailer_is_refused(native: Any, get: Any) -> None:
    for start in (b"3;x=", b"0\r\nx-t: "):
        native.serve(CHUNKED + start, *[b"y" * 20_000] * 10, then=lambda peer: peer.gone())
        assert isinstance(await refused(native, native.client(), get), ProtocolError)
