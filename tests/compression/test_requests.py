"""Requests to upstreams that accept encoded ones; and that no encoded body can blow up what reads it."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from gateway.providers.base import Meter, Verdict
from gateway.providers.encoded import MOST_BYTES, EncodedMeter
from gateway.usage import Usage

Text = Callable[[int], bytes]


@pytest.mark.parametrize("size", [12_000, 200_000])
@pytest.mark.parametrize("more", [{}, {"idempotency_key": "once"}])
def test_a_long_request_is_sent_shorter(site: Any, text: Text, size: int, more: dict[str, str]) -> None:
    body = text(size)
    if more:
        more = {"idempotency_key": f"once-{size}"}
    site.say(b'{"done": true}')
    answer, _ = site.raw("POST", "/workers/w/do", body, **more)
    assert answer.status_code == 200
    asked = site.last
    assert asked.headers["content-encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompress(asked.body) == body
    assert asked.headers["content-length"] == str(len(asked.body))
    assert len(asked.body) < 0.8 * len(body)


NOISE = random.Random(3).randbytes(30_000)


@pytest.mark.parametrize(
    ("why", "path", "body", "headers"),
    [
        ("short", "/workers/w/do", b'"' + b"a" * 9_000 + b'"', {}),
        ("saves too little", "/workers/w/do", NOISE, {"content_type": "text/plain"}),
        ("a picture", "/workers/w/do", b"a" * 20_000, {"content_type": "image/png"}),
        ("encoded already", "/workers/w/do", gzip.compress(NOISE), {"content_encoding": "gzip"}),
        ("bound by a digest", "/workers/w/do", b"[" + b" " * 20_000 + b"]", {"content_digest": "sha-256=:AA:"}),
        ("a worker that does not say so", "/workers/plain/do", b"[" + b" " * 20_000 + b"]", {}),
    ],
)
def test_what_is_sent_as_it_came(site: Any, why: str, path: str, body: bytes, headers: dict[str, str]) -> None:
    site.say()
    assert site.raw("POST", path, body, **headers)[0].status_code == 200
    assert site.last.body == body, why
    assert site.last.headers.get("content-encoding") == headers.get("content_encoding")


def test_providers_only_where_it_is_set(site: Any) -> None:
    asked = {"messages": [{"role": "user", "content": "tide " * 5_000}]}
    site.say(json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}).encode())
    for model, coding in (("small", None), ("squeezed", "gzip")):
        for _ in range(2):  # the second takes its headers from the first
            body = json.dumps({"model": model, **asked}).encode()
            site.raw("POST", "/v1/chat/completions", body)
            assert site.last.headers.get("content-encoding") == coding
            sent = gzip.decompress(site.last.body) if coding else site.last.body
            assert json.loads(sent)["messages"] == asked["messages"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_request_that_blows_up_is_refused_in_words(site: Any, coding: str) -> None:
    plain = b" " * 40_000_000
    bomb = gzip.compress(plain, 9) if coding == "gzip" else zstandard.ZstdCompressor(level=19).compress(plain)
    before = len(site.upstream.asked)
    answer, said = site.raw("POST", "/v1/chat/completions", bomb, content_encoding=coding)
    assert answer.status_code == 413
    assert len(site.upstream.asked) == before
    assert json.loads(said)["error"]["code"], said
    assert "32" in said.decode() or "33,554,432" in said.decode(), said


class Counting(Meter):
    def __init__(self) -> None:
        self.fed = 0

    def feed(self, chunk: bytes) -> bytes:
        self.fed += len(chunk)
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        return b"", Usage(output_tokens=7, estimated=not complete), "ok"


def packed(coding: bytes, plain: bytes) -> bytes:
    if coding == b"zstd":
        return zstandard.ZstdCompressor().compress(plain)
    return gzip.compress(plain) if coding == b"gzip" else zlib.compress(plain)


@pytest.mark.parametrize("coding", [b"gzip", b"zstd", b"deflate"])
@pytest.mark.parametrize("step", [1_000, 1_000_000])
def test_a_reply_that_blows_up_is_not_read_on(coding: bytes, step: int) -> None:
    whole = packed(coding, b" " * (4 * MOST_BYTES))
    inner = Counting()
    meter = EncodedMeter(inner, coding)
    for start in range(0, len(whole), step):
        assert meter.feed(whole[start : start + step]) == whole[start : start + step]
    assert inner.fed <= MOST_BYTES
    assert meter.finish(True)[1].estimated


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_an_encoded_reply_is_read_for_its_usage(coding: bytes) -> None:
    plain = b'{"usage": {"total_tokens": 3}}' * 500
    whole = packed(coding, plain)
    inner = Counting()
    meter = EncodedMeter(inner, coding)
    for start in range(0, len(whole), 7):
        meter.feed(whole[start : start + 7])
    assert inner.fed == len(plain)
    assert not meter.finish(True)[1].estimated
