"""Every fault does to the socket what its name says, seen through a raw one."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import openai
import pytest

from gateway.demo import DemoServer
from gateway.demo.text import plain

Ask = Callable[..., Awaitable[Any]]
Call = Callable[..., dict[str, Any]]
MESSAGE = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def text_of(events: list[str]) -> str:
    """The text that a stream of chat chunks carries."""
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event != "data: [DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def test_no_fault(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(stream=True))
    assert (answer.status, answer.end) == (200, "fin")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.data.endswith(b"0\r\n\r\n")
    assert answer.events[-1] == "data: [DONE]"
    assert text_of(answer.events) == plain(24)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529])
async def test_status(fake: DemoServer, raw: Ask, call: Call, status: int) -> None:
    answer = await raw(fake, call(), f"status={status}")
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    claude = await raw(fake, MESSAGE, f"status={status}", path="/v1/messages")
    assert claude.status == status
    assert claude.json["type"] == "error"
    assert fake.stats.output_tokens == 0  # a refusal is not billed


async def test_status_without_a_body_and_with_another_code(fake: DemoServer, raw: Ask, call: Call) -> None:
    empty = await raw(fake, call(), "status=204")
    assert (empty.status, empty.body, "content-length" in empty.headers) == (204, b"", False)
    spent = await raw(fake, call(), "status=429; code=insufficient_quota; should-retry=false")
    assert spent.json["error"]["type"] == spent.json["error"]["code"] == "insufficient_quota"
    assert spent.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("value", ["2", "0.5", "-1", "soon", "99999999999", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_retry_after_says_anything(fake: DemoServer, raw: Ask, call: Call, value: str) -> None:
    answer = await raw(fake, call(), f"status=429; retry-after={value}; retry-after-ms=1500")
    assert answer.headers["retry-after"] == value
    assert answer.headers["retry-after-ms"] == "1500"


async def test_retry_after_as_a_date_from_now(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "status=503; retry-after=date:60")
    assert 50 < parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time() <= 61


async def test_latency_is_before_the_first_byte(fake: DemoServer, raw: Ask, call: Call) -> None:
    start = time.monotonic()
    answer = await raw(fake, call(), "latency-ms=150", wait_s=2)
    assert time.monotonic() - start >= 0.15
    assert answer.status == 200
    silent = await raw(fake, call(), "latency_ms=2000", wait_s=0.1)
    assert (silent.data, silent.end) == (b"", "open")


async def test_chunk_ms_is_between_the_events(fake: DemoServer, raw: Ask, call: Call) -> None:
    start = time.monotonic()
    answer = await raw(fake, call(stream=True), "chunks=5; chunk-ms=40", wait_s=2)
    assert time.monotonic() - start >= 0.04 * (len(answer.events) - 1)
    assert text_of(answer.events) == plain(5)


@pytest.mark.parametrize("count", [0, 1, 5_000])
async def test_chunks(fake: DemoServer, raw: Ask, call: Call, count: int) -> None:
    answer = await raw(fake, call(stream=True), f"chunks={count}", wait_s=5)
    assert text_of(answer.events) == plain(count)
    whole = await raw(fake, call(), f"chunks={count}")
    assert whole.json["usage"]["completion_tokens"] == count


async def test_a_slow_reader_is_waited_for(fake: DemoServer, call: Call) -> None:
    """A stream larger than all buffers is not written faster than it is read."""
    reader, writer = await asyncio.open_connection(fake.host, fake.port, limit=1024)
    body = json.dumps(call(stream=True)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx-fake: chunks=100000\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
    await reader.readexactly(1000)
    await asyncio.sleep(0.2)
    assert fake.stats.in_flight == 1  # 30 MB do not fit into the sockets
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got = got[-100:] + await reader.read(1 << 20)
    assert fake.stats.in_flight == 0
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_chunk_bytes_cuts_where_no_event_ends(fake: DemoServer, raw: Ask, call: Call, size: int) -> None:
    answer = await raw(fake, call(stream=True), f"chunks=3; chunk-bytes={size}")
    assert answer.data.partition(b"\r\n\r\n")[2].startswith(b"%x\r\n" % size)
    assert text_of(answer.events) == plain(3)


@pytest.mark.parametrize("stream", [False, True])
async def test_slice_sends_single_bytes(fake: DemoServer, call: Call, stream: bool) -> None:
    """One byte at a time, head included: the first read can hold only a few of them."""
    body = json.dumps(call(stream=stream)).encode()
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx-fake: slice=1; chunks=2\r\nconnection: close\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
    pieces = []
    while piece := await reader.read(65536):
        pieces.append(piece)
    writer.close()
    await writer.wait_closed()
    whole = b"".join(pieces)
    assert len(pieces) > len(whole) / 8
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert plain(2).split()[1].encode() in whole


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "end"), [("reset", "reset"), ("die", "fin"), ("stall", "open")])
async def test_cut_at_head(fake: DemoServer, raw: Ask, call: Call, kind: str, end: str, stream: bool) -> None:
    answer = await raw(fake, call(stream=stream), f"{kind}=head", wait_s=0.2)
    assert (answer.data, answer.end) == (b"", end)


@pytest.mark.parametrize(("kind", "end"), [("reset", "reset"), ("die", "fin"), ("stall", "open")])
async def test_cut_in_the_body(fake: DemoServer, raw: Ask, call: Call, kind: str, end: str) -> None:
    plain_body = await raw(fake, call(), f"{kind}=body", wait_s=0.2)
    assert plain_body.end == end
    assert len(plain_body.body) == int(plain_body.headers["content-length"]) // 2
    stream = await raw(fake, call(stream=True), f"{kind}=body", wait_s=0.2)
    assert (len(stream.events), stream.end) == (1, end)


@pytest.mark.parametrize(("kind", "end"), [("reset", "reset"), ("die", "fin"), ("stall", "open")])
@pytest.mark.parametrize("count", [0, 1, 10])
async def test_cut_after_events(fake: DemoServer, raw: Ask, call: Call, kind: str, end: str, count: int) -> None:
    answer = await raw(fake, call(stream=True), f"{kind}=after:{count}", wait_s=0.2)
    assert (answer.status, len(answer.events), answer.end) == (200, count, end)
    assert not answer.data.endswith(b"0\r\n\r\n")
    part = await raw(fake, call(), f"{kind}=after:{count}", wait_s=0.2)
    assert (len(part.body), part.end) == (count, end)


async def test_cut_after_the_end_never_comes_about(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(stream=True), "die=after:1000")
    assert answer.events[-1] == "data: [DONE]"


async def test_sdk_sees_a_death_in_mid_stream(client: openai.AsyncOpenAI, call: Call) -> None:
    stream = await client.chat.completions.create(**call(stream=True), extra_headers={"x-fake": "die=after:5"})
    with pytest.raises(openai.APIConnectionError):
        _ = [chunk async for chunk in stream]


async def test_halfopen_never_answers(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "halfopen", wait_s=0.2)
    assert (answer.data, answer.end) == (b"", "open")


async def test_garbage_is_not_http(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "garbage")
    assert answer.end == "fin"
    assert answer.data
    assert not answer.data.startswith(b"HTTP/")


async def test_html_and_error_body_come_with_200(fake: DemoServer, raw: Ask, call: Call) -> None:
    page = await raw(fake, call(), "html")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body.startswith(b"<!DOCTYPE html>")
    gone = await raw(fake, call(), "html; status=502")
    assert gone.status == 502
    wrong = await raw(fake, call(), "errorbody")
    assert (wrong.status, wrong.json["error"]["type"]) == (200, "server_error")


async def test_huge_event(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(stream=True), "huge-event=3000000", wait_s=2)
    assert max(map(len, answer.events)) > 3_000_000
    assert text_of(answer.events) == plain(24)
    whole = await raw(fake, call(), "huge-event=100000")
    assert len(whole.json["padding"]) == 100_000


@pytest.mark.parametrize(("place", "before"), [("overloaded", 0), ("overloaded=after:1", 1), ("overloaded=after:9", 9)])
async def test_overloaded_inside_a_stream(fake: DemoServer, raw: Ask, call: Call, place: str, before: int) -> None:
    answer = await raw(fake, call(stream=True), place)
    assert (answer.status, len(answer.events)) == (200, before + 1)
    assert json.loads(answer.events[-1].removeprefix("data: "))["error"]["code"] == "server_overloaded"
    claude = await raw(fake, MESSAGE | {"stream": True}, place, path="/v1/messages")
    assert (claude.status, len(claude.events)) == (200, before + 1)
    kind, data = claude.events[-1].split("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "overloaded_error"
    responses = await raw(fake, {"model": "m", "input": "hi", "stream": True}, place, path="/v1/responses")
    assert responses.events[-1].startswith("event: error\n")


@pytest.mark.parametrize(
    ("fault", "usage"),
    [("no-usage", "missing"), ("null-usage", None), ("zero-usage", 0), ("cached=4", 24), ("reasoning=6", 30)],
)
async def test_usage_lies(fake: DemoServer, raw: Ask, call: Call, fault: str, usage: Any) -> None:
    answer = (await raw(fake, call(), fault)).json
    body = call(stream=True, stream_options={"include_usage": True})
    events = (await raw(fake, body, fault)).events
    last = json.loads(events[-2].removeprefix("data: "))
    for told in (answer, last):
        found = told.get("usage", "missing")
        assert (found["completion_tokens"] if isinstance(found, dict) else found) == usage
    if fault == "cached=4":
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    if fault == "reasoning=6":
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 6


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/completions", "/worker/x"])
async def test_usage_can_be_missing_everywhere(fake: DemoServer, raw: Ask, path: str) -> None:
    body = MESSAGE | {"input": "hi", "prompt": "hi"}
    assert "usage" in (await raw(fake, body, path=path)).json
    assert "usage" not in (await raw(fake, body, "no-usage", path=path)).json
    assert (await raw(fake, body, "null-usage", path=path)).json["usage"] is None


async def test_input_is_what_the_script_says(fake: DemoServer, raw: Ask, call: Call) -> None:
    usage = (await raw(fake, call(), "input=1234; cached=5000")).json["usage"]
    assert usage["prompt_tokens"] == 1234
    assert usage["prompt_tokens_details"]["cached_tokens"] == 1234  # never more than there was


async def test_gzip(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body))["object"] == "chat.completion"
    stream = await raw(fake, call(stream=True), "gzip")
    events = zlib.decompress(stream.body, wbits=31).decode().split("\n\n")
    assert text_of([event for event in events if event]) == plain(24)


async def test_badjson(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "badjson")
    assert len(answer.body) == int(answer.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        _ = answer.json
    events = (await raw(fake, call(stream=True), "badjson")).events
    with pytest.raises(json.JSONDecodeError):
        json.loads(events[1].removeprefix("data: "))
    assert events[-1] == "data: [DONE]"


async def test_truncate_ends_in_order_but_too_soon(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(stream=True), "truncate=6")
    assert (len(answer.events), answer.end) == (6, "fin")
    assert answer.data.endswith(b"0\r\n\r\n")
    assert "[DONE]" not in answer.events[-1]
    whole = await raw(fake, call(), "truncate=10")
    assert len(whole.body) == int(whole.headers["content-length"]) == 10


async def test_wrong_length(fake: DemoServer, raw: Ask, call: Call) -> None:
    right = len((await raw(fake, call())).body)
    short = await raw(fake, call(), "wrong-length=short")
    assert (len(short.body), int(short.headers["content-length"])) == (right, right - 10)
    long = await raw(fake, call(), "wrong-length=25")
    assert (len(long.body), int(long.headers["content-length"]), long.end) == (right, right + 25, "fin")
    stream = await raw(fake, call(stream=True), "wrong-length=long")
    assert not stream.data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(("value", "status"), [("", 400), ("=413", 413), ("=close", 400)])
async def test_early_answers_before_the_body(fake: DemoServer, send: Ask, call: Call, value: str, status: int) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nx-fake: early{value}\r\ncontent-length: 1000000\r\n\r\n".encode()
    answer = await send(fake, head + b"only a part", 0.2)
    assert answer.status == status
    assert answer.end == ("fin" if value == "=close" else "open")


async def test_early_leaves_a_usable_connection(fake: DemoServer, send: Ask, call: Call) -> None:
    body = json.dumps(call()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n"
    sent = head % (b"x-fake: early=429\r\n", len(body)) + body + head % (b"", len(body)) + body
    answer = await send(fake, sent, 0.3)
    assert answer.data.count(b"HTTP/1.1 429") == 1
    assert answer.data.count(b"HTTP/1.1 200") == 1
    assert answer.data.index(b" 429 ") < answer.data.index(b" 200 ")


async def test_crlf_and_line_separators(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(stream=True), "crlf")
    assert b"}\r\n\r\n" in answer.body
    assert b"\n\n" not in answer.body
    odd = await raw(fake, call(stream=True), "u2028; chunks=3")
    assert text_of(odd.events).startswith("The\u2028 tide")


async def test_rate_limit_headers(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "remaining-tokens=12; reset-tokens=6m0s; remaining-requests=0")
    assert answer.headers["x-ratelimit-remaining-tokens"] == "12"
    assert answer.headers["x-ratelimit-reset-tokens"] == "6m0s"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    claude = await raw(fake, MESSAGE, "remaining-tokens=12", path="/v1/messages")
    assert claude.headers["anthropic-ratelimit-tokens-remaining"] == "12"


async def test_close_and_other_headers(fake: DemoServer, send: Ask, call: Call) -> None:
    body = json.dumps(call()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nx-fake: close; header=set-cookie: a=b\r\n"
    answer = await send(fake, head + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert (answer.headers["connection"], answer.headers["set-cookie"], answer.end) == ("close", "a=b", "fin")


async def test_a_misspelt_fault_is_an_error(fake: DemoServer, raw: Ask, call: Call) -> None:
    answer = await raw(fake, call(), "stats=500")
    assert answer.status == 400
    assert "unknown key 'stats'" in answer.json["error"]["message"]


async def test_nonce_comes_back_in_head_body_and_every_event(fake: DemoServer, raw: Ask, call: Call) -> None:
    plain_answer = await raw(fake, call(), headers="x-nonce: n-1\r\n")
    assert (plain_answer.headers["x-nonce"], plain_answer.json["x_nonce"]) == ("n-1", "n-1")
    stream = await raw(fake, call(stream=True), headers="x-nonce: n-2\r\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in stream.events[:-1]]
    assert {chunk["x_nonce"] for chunk in chunks} == {"n-2"}
    by_body = await raw(fake, call(metadata={"x-nonce": "n-3"}))
    assert (by_body.headers["x-nonce"], by_body.json["x_nonce"]) == ("n-3", "n-3")
    hostile = await raw(fake, call(metadata={"x-nonce": "a\r\nset-cookie: b"}))
    assert "x-nonce" not in hostile.headers
    assert "set-cookie" not in hostile.headers
