"""What reading a request and metering its reply cost, in microseconds, the best of many runs.

Bodies of 1.2 KB and 38 KB, compact as the SDKs write them and with the white space of Python's `json.dumps`; a chat
reply of 1.2 KB; streams of 200 chunks, where the usage is asked for and where it has to be hidden.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gateway.call import Call
from gateway.jsonbody import insert, parse, splice
from gateway.prices import Quote
from gateway.providers import KINDS
from gateway.providers.base import Provider
from gateway.providers.openai_shapes import REPLY
from gateway.routes import Router
from gateway.targets import Target
from gateway.upstream.base import UpstreamClient

TEXT = 'The tide does not ask "who owns the boats"; it lifts them {all} by the height of the water, each in its turn.\n'
USAGE = (
    '"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}'
)
JSON = [(b"content-type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream")]


def best(job: Callable[[], object], each: int = 1) -> float:
    """Microseconds of one unit of work; `each` is how many a run does."""
    job()
    begun = time.perf_counter()
    job()
    runs = max(3, min(2000, int(0.005 / max(1e-9, time.perf_counter() - begun))))
    found = []
    for _ in range(40):
        begun = time.perf_counter()
        for _ in range(runs):
            job()
        found.append((time.perf_counter() - begun) / runs)
    return min(found) * 1e6 / each


def request(size: int, messages: int, *, compact: bool = True, **more: Any) -> bytes:
    text = (TEXT * (size // messages // len(TEXT) + 1))[: size // messages - 40]
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at in range(messages)]
    body = {"messages": turns, "model": "gpt-4o", "temperature": 0.7, "max_tokens": 100, **more}
    return json.dumps(body, separators=(",", ":") if compact else None, ensure_ascii=False).encode()


def call_of(path: str, body: bytes, kind: str) -> Call:
    route = Router().match("POST", path.encode()).route
    call = Call(
        id="0",
        route=route,
        dialect=route.dialect,
        method="POST",
        path=path.encode(),
        query=b"",
        raw_headers=[],
        started_ns=0,
        started_wall_ns=0,
    )
    call.body, call.json = body, parse(body)
    call.facts = KINDS[kind].facts(route, call.json, body)
    return call


def chat_chunks(usage: str) -> list[bytes]:
    head = 'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
    head += '"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":['
    delta = '{"index":0,"delta":{"content":" tide"},"logprobs":null,"finish_reason":null}]'
    chunk = f'{head}{delta}{usage},"obfuscation":"abcdefgh"}}\n\n'.encode()
    last = f"{head}],{USAGE}}}\n\n".encode()
    return [*[chunk for _ in range(198)], last, b"data: [DONE]\n\n"]


def message_chunks() -> list[bytes]:
    start = (
        '{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":25,"output_tokens":1}}}'
    )
    delta = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" tide"}}'
    end = '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}'
    return [
        f"event: message_start\ndata: {start}\n\n".encode(),
        *[f"event: content_block_delta\ndata: {delta}\n\n".encode() for _ in range(197)],
        f"event: message_delta\ndata: {end}\n\n".encode(),
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]


def show(what: str, us: float, goal: str = "") -> None:
    print(f"{what:<58}{us:>9.2f} us   {goal}")


def bench_parse(size: int, messages: int, goal: str) -> None:
    compact, spaced = request(size, messages), request(size, messages, compact=False)
    for body, name in ((compact, "compact"), (spaced, "spaced")):
        what = f"{len(body):,} bytes, {name}"
        show(f"orjson.loads, {what}", best(partial(orjson.loads, body)))
        show(f"parse, {what}", best(partial(parse, body)), goal if body is compact else "")


def bench_request(size: int, messages: int, target: Target) -> None:
    kind, call = KINDS["openai"], call_of("/v1/chat/completions", request(size, messages, stream=True), "openai")
    raw = cast(bytes, call.body)
    show(f"facts, {size:,} bytes", best(lambda: kind.facts(call.route, call.json, raw)))
    show(f"body_for with include_usage, {size:,} bytes", best(lambda: kind.body_for(call, target)))
    show(f"splice of the model, {size:,} bytes", best(lambda: splice(raw, "model", b'"other"')))
    show(f"insert, {size:,} bytes", best(lambda: insert(raw, "x", b"1")))


def bench_whole(target: Target) -> None:
    call = call_of("/v1/chat/completions", request(1_200, 4), "openai")
    message = f'{{"role":"assistant","content":{json.dumps((TEXT * 8)[:800])},"refusal":null}}'
    choice = f'{{"index":0,"message":{message},"finish_reason":"stop"}}'
    head = '{"id":"chatcmpl-1","object":"chat.completion","created":1741569952,"model":"gpt-4o"'
    reply = f'{head},"choices":[{choice}],{USAGE}}}'.encode()

    def meter() -> None:
        one = KINDS["openai"].meter(call, target, 200, JSON)
        one.feed(reply)
        one.finish(True)

    decode = best(lambda: REPLY.decode(reply))
    total = best(meter)
    show(f"typed decode of a reply of {len(reply):,} bytes", decode)
    show("the whole meter besides", total - decode, "goal 2")
    show("msgspec decode of all of it, to compare", best(lambda: msgspec.json.decode(reply)))


def bench_streams(target: Target) -> None:
    chat, messages = "/v1/chat/completions", "/v1/messages"
    asked = request(1_200, 4, stream=True, stream_options={"include_usage": True})
    runs = (
        ("chat stream, usage asked for", chat, asked, "openai", chat_chunks(',"usage":null'), "goal 1"),
        (
            "chat stream, usage hidden",
            chat,
            request(1_200, 4, stream=True),
            "openai",
            chat_chunks(',"usage":null'),
            "goal 2",
        ),
        ("chat stream, nothing to strip", chat, request(1_200, 4, stream=True), "openai", chat_chunks(""), "goal 2"),
        ("message stream", messages, request(1_200, 4, stream=True), "anthropic", message_chunks(), "goal 1"),
    )
    for name, path, body, kind, chunks, goal in runs:
        call = call_of(path, body, kind)

        def meter(call: Call = call, kind: str = kind, chunks: list[bytes] = chunks) -> None:
            one = KINDS[kind].meter(call, target, 200, SSE)
            feed = one.feed
            for chunk in chunks:
                feed(chunk)
            one.finish(True)

        burst = b"".join(chunks)
        cut = [burst[at : at + 16_384] for at in range(0, len(burst), 16_384)]
        show(f"{name}, a chunk", best(meter, len(chunks)), goal)
        show(f"{name}, an event in bursts", best(lambda meter=meter, cut=cut: meter(chunks=cut), len(chunks)))


def main() -> None:
    provider = Provider("openai", KINDS["openai"], "https://api.openai.com/v1", b"/v1", cast(UpstreamClient, None))
    target = Target(provider, "gpt-4o", "gpt-4o", cast(Quote, None))
    for size, messages, goal in ((1_200, 4, "goal 4"), (38_000, 40, "goal 40")):
        bench_parse(size, messages, goal)
        bench_request(size, messages, target)
    bench_whole(target)
    bench_streams(target)


if __name__ == "__main__":
    main()
