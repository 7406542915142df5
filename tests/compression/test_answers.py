"""Answers to clients: encoded where they accept it and it saves enough; streams are never held back."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

Text = Callable[[int], bytes]


def chat(content: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def decoded(coding: str | None, body: bytes) -> bytes:
    if coding is None:
        return body
    return gzip.decompress(body) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj().decompress(body)


@pytest.mark.parametrize(
    ("accepts", "coding"), [("gzip", "gzip"), ("zstd, gzip", "zstd"), ("gzip;q=1, zstd;q=0.1", "gzip"), ("br", None)]
)
@pytest.mark.parametrize("size", [12_000, 300_000, 2_000_000])
def test_a_long_answer_is_encoded_as_the_client_accepts(
    site: Any, text: Text, accepts: str, coding: str | None, size: int
) -> None:
    body = text(size)
    site.say(body, etag='"tide"', accept_ranges="bytes", vary="origin")
    answer, wire = site.raw("GET", "/workers/w/table", accept_encoding=accepts)
    assert answer.headers.get("content-encoding") == coding
    assert decoded(coding, wire) == body
    assert "accept-encoding" in answer.headers["vary"]
    assert "origin" in answer.headers["vary"]
    if coding is None:
        assert answer.headers["etag"] == '"tide"'
        return
    assert len(wire) < len(body) * 0.8
    assert answer.headers["etag"] == 'W/"tide"', "these are not the bytes that a strong one names"
    assert "accept-ranges" not in answer.headers
    assert answer.headers.get("content-length", str(len(wire))) == str(len(wire))


NOISE = json.dumps([random.Random(1).randbytes(12_000).hex()]).encode()


@pytest.mark.parametrize(
    ("why", "method", "says"),
    [
        ("short", "GET", {"body": b'{"a":"' + b"b" * 9_000 + b'"}'}),
        ("no content", "GET", {"status": 204, "body": b""}),
        ("not modified", "GET", {"status": 304, "body": b"", "etag": '"a"'}),
        ("a part", "GET", {"status": 206, "content_range": "bytes 0-11999/50000"}),
        ("encoded already", "GET", {"content_encoding": "br"}),
        ("not to be transformed", "GET", {"cache_control": "public, No-Transform"}),
        ("bound by a digest", "GET", {"content_digest": "sha-256=:AAAA:"}),
        ("a picture", "GET", {"content_type": "image/png"}),
        ("asked for its head", "HEAD", {"content_length": "12000"}),
    ],
)
def test_what_is_left_alone(site: Any, why: str, method: str, says: dict[str, Any]) -> None:
    body = says.get("body", b"x" * 12_000)
    site.say(**{"etag": '"strong"', **says, "body": body})
    answer, wire = site.raw(method, "/workers/w/table", accept_encoding="gzip")
    assert answer.headers.get("content-encoding") == says.get("content_encoding"), why
    assert wire == (b"" if method == "HEAD" or answer.status_code in (204, 304) else body)
    assert answer.headers["etag"] == says.get("etag", '"strong"')
    if method == "HEAD":
        assert answer.headers["content-length"] == "12000"


def test_what_saves_too_little_goes_as_it_is(site: Any) -> None:
    body = bytes(random.Random(2).randbytes(30_000))
    site.say(body, content_type="text/plain; charset=latin-1")
    answer, wire = site.raw("GET", "/workers/w/noise", accept_encoding="gzip, zstd")
    assert "content-encoding" not in answer.headers
    assert wire == body
    assert answer.headers["vary"] == "accept-encoding"


def test_a_client_that_says_nothing_gets_the_plain_bytes(site: Any, text: Text) -> None:
    site.say(text(20_000))
    answer, wire = site.raw("GET", "/workers/w/table")
    assert "content-encoding" not in answer.headers
    assert wire == text(20_000)


def test_chat_and_its_repetition_from_the_cache(site: Any) -> None:
    said = chat("The tide comes in. " * 1_000)
    site.say(said)
    body = {"model": "small", "temperature": 0, "messages": [{"role": "user", "content": "long"}]}
    seen = []
    for accepts in ("gzip", "zstd", "identity"):
        answer, wire = site.raw("POST", "/v1/chat/completions", json.dumps(body).encode(), accept_encoding=accepts)
        seen.append((answer.headers["x-tidegate-cache"], answer.headers.get("content-encoding")))
        assert decoded(answer.headers.get("content-encoding"), wire) == said
        assert answer.headers["content-length"] == str(len(wire))
    assert seen == [("miss", "gzip"), ("hit", "zstd"), ("hit", None)]


def test_events_go_out_as_they_come_and_plain(site: Any) -> None:
    events = [b"data: " + b"%d" % i * 20_000 + b"\n\n" for i in range(3)]
    site.say(events, content_type="text/event-stream")
    assert flow(site, events) is None


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
def test_encoded_streams_are_flushed_with_every_piece(flowing: Any, kind: str) -> None:
    events = [b"data: " + (b"%d " % i) * 20_000 + b"\n\n" for i in range(3)]
    flowing.say(events, content_type=kind)
    assert flow(flowing, events) == "gzip"


def flow(site: Any, events: list[bytes]) -> str | None:
    """Reads each event before the next is sent; the coding that they came in."""
    site.upstream.go.clear()
    headers = {"authorization": "Bearer tg-acme-secret-key", "accept-encoding": "gzip"}
    with site.http.stream("GET", site.address + "/workers/w/events", headers=headers) as answer:
        coding = answer.headers.get("content-encoding")
        decoder = zlib.decompressobj(31)
        pieces = answer.iter_raw()
        for event in events:
            got = b""
            while len(got) < len(event):
                piece = next(pieces)
                got += decoder.decompress(piece) if coding else piece
            assert got == event
            site.upstream.go.set()
        rest = b"".join(pieces)
        assert (decoder.decompress(rest) if coding else rest) == b""
        assert not coding or decoder.eof
    return str(coding) if coding else None


def test_an_encoded_stream_that_breaks_ends_with_an_event_that_can_be_read(flowing: Any) -> None:
    flowing.upstream.go.set()
    flowing.say([b"data: one\n\n"], content_type="text/event-stream", cut=True)
    answer, wire = flowing.raw("GET", "/workers/w/events", accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    body = gzip.decompress(wire)
    assert body.startswith(b"data: one\n\n")
    assert b"error" in body[11:]
