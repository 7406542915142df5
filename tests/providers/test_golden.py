"""Real replies give exact figures, whole and in every split; garbage gives figures too, and never an exception."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.usage import Usage

CASES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "golden.toml").read_text())["case"]
BY_NAME = {case["name"]: case for case in CASES}
STREAMS = [case["name"] for case in CASES if case.get("sse")]


def bytes_of(case: dict[str, Any], text: str) -> bytes:
    raw = text.removeprefix("\n").encode() if case.get("sse") else text.encode()
    return raw.replace(b"\n", b"\r\n") if case.get("crlf") else raw


def made(case: dict[str, Any], bench: Any) -> Any:
    """A fresh meter for the case's reply."""
    asked = case["asked"].encode() if "asked" in case else None
    kind = case.get("kind", "openai")
    call = bench.call(case["path"], asked, method=case.get("method", "POST"), kind=kind)
    return bench.meter(call, kind, case.get("type", "text/event-stream" if case.get("sse") else "application/json"))


def check(case: dict[str, Any], outcome: tuple[bytes, Usage, str]) -> None:
    out, usage, verdict = outcome
    assert usage == Usage(**case["usage"])
    assert verdict == case.get("verdict", "ok")
    assert out == bytes_of(case, case.get("shown", case["reply"]))


def test_names_are_distinct_and_cases_many() -> None:
    assert len(BY_NAME) == len(CASES) >= 80


@pytest.mark.parametrize("name", BY_NAME)
def test_golden(name: str, bench: Any) -> None:
    case = BY_NAME[name]
    meter = made(case, bench)
    check(case, bench.run(meter, [bytes_of(case, case["reply"])]))
    assert meter.model == case.get("model", meter.model)
    assert meter.object_ids == tuple(case.get("made", ()))


@pytest.mark.parametrize("name", BY_NAME)
def test_byte_by_byte(name: str, bench: Any) -> None:
    case = BY_NAME[name]
    reply = bytes_of(case, case["reply"])
    check(case, bench.run(made(case, bench), [reply[at : at + 1] for at in range(len(reply))]))


@pytest.mark.parametrize("name", STREAMS)
def test_any_split(name: str, bench: Any) -> None:
    case = BY_NAME[name]
    reply = bytes_of(case, case["reply"])
    dice = random.Random(name)
    for _ in range(60):
        cuts = sorted(dice.sample(range(len(reply)), dice.randint(1, 12)))
        check(
            case,
            bench.run(made(case, bench), [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]),
        )


@pytest.mark.parametrize("name", STREAMS)
def test_one_event_a_chunk_goes_on_as_it_came(name: str, bench: Any) -> None:
    """Nothing is copied where nothing is hidden."""
    case = BY_NAME[name]
    if "shown" in case or case.get("crlf"):
        return
    meter = made(case, bench)
    for event in bytes_of(case, case["reply"]).split(b"\n\n")[:-1]:
        chunk = event + b"\n\n"
        assert meter.feed(chunk) is chunk


@pytest.mark.parametrize("name", BY_NAME)
def test_cut_anywhere_is_counted_and_sends_whole_events_only(name: str, bench: Any) -> None:
    case = BY_NAME[name]
    reply = bytes_of(case, case["reply"])
    for at in sorted({0, 1, *range(0, len(reply), max(1, len(reply) // 25)), len(reply)}):
        out, usage, verdict = bench.run(made(case, bench), [reply[:at]], complete=False)
        assert min(usage.input_tokens, usage.output_tokens, *usage.units.values(), 0) >= 0
        if case.get("sse"):
            assert not out or out.endswith((b"\n\n", b"\r\n\r\n")) or verdict == "ok"
        else:
            assert verdict in ("cut", "error", "ok")
            assert out == reply[:at]


def test_an_error_status_costs_nothing(bench: Any) -> None:
    for case in CASES:
        kind = case.get("kind", "openai")
        if kind == "http":
            continue
        call = bench.call(case["path"], case.get("asked", "{}").encode(), kind=kind) if "asked" in case else None
        if call is None:
            continue
        reply = b'{"error":{"message":"no"},"usage":{"prompt_tokens":7,"input_tokens":7}}'
        out, usage, verdict = bench.run(bench.meter(call, kind, status=429), [reply])
        assert (out, usage, verdict) == (reply, Usage(), "error")


PIECES = (
    b'data: |event: error\n|\n\n|\r\n|{|}|"usage":|"usage"|null|[]|"choices":[]|"type":"message_start"|"error":|,|1|-1|'
    b'"message":|"response":|{"usage":{}}|\xff|[[[[|data: [DONE]\n\n|data: 7\n\n|'
    b'data: {"usage":{"prompt_tokens":{},"total_tokens":1e400}}\n\n|data: {"choices":{},"usage":[]}\n\n|'
    b'data: {"type":[],"message":7,"response":[],"delta":1}\n\n|data: {"usage":1}x\n\n'
).split(b"|")
GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.lists(st.sampled_from([*PIECES, b"[" * 5000]), max_size=12).map(b"".join),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(GARBAGE, max_size=4),
    st.booleans(),
    st.sampled_from(["text/event-stream", "application/json", "text/html", ""]),
)
def test_garbage_never_raises(bench: Any, chunks: list[bytes], complete: bool, type: str) -> None:
    for name in (
        "chat stream, usage not asked for",
        "response stream",
        "message stream",
        "images as they become ready",
    ):
        case = dict(BY_NAME[name], type=type)
        out, usage, _ = bench.run(made(case, bench), chunks, complete)
        assert min(usage.input_tokens, usage.output_tokens) >= 0
        assert len(out) <= len(b"".join(chunks)) + 2
    for path in ("/v1/embeddings", "/v1/images/generations", "/v1/audio/speech", "/v1/batches"):
        bench.run(bench.meter(bench.call(path, b"{}"), "openai", type), chunks, complete)
    bench.run(bench.meter(bench.call("/workers/x/y", b"{}", kind="http"), "http", type), chunks, complete)
