"""Every fault that the fake provider can make is classified as the table says, and none is passed off as a success."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.providers.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]

#: Breakers and budgets are out of the way: what is seen is the table alone.
CALM = """
[retry]
backoff_s = 0.001
longest_backoff_s = 0.001
budget_reserve = 100000
attempts = {attempts}
preamble_s = {preamble_s}
[breaker]
consecutive_failures = 100000
min_calls = 100000
"""
QUICK = "timeouts = { connect_s = 0.3, first_byte_s = 0.3, idle_s = 0.3, total_s = 10 }"
#: Where nothing is to time out, on however slow a machine.
PATIENT = "timeouts = { connect_s = 5, first_byte_s = 5, idle_s = 5, total_s = 30 }"
PROVIDERS = """
[providers.f0]
kind = "openai"
base_url = "{{f0}}/v1"
pass_headers = ["x-fake"]
{quick}
[providers.c0]
kind = "anthropic"
base_url = "{{f0}}"
pass_headers = ["x-fake"]
{quick}
[models.claude]
targets = ["c0/demo-small"]
[workers.w0]
base_url = "{{f0}}/worker"
timeout_s = 0.4
"""

#: The fault, the row of the table, and the status that a client sees when nothing helps.
PLAIN = [
    ("reset=head", "reset", 502),
    ("die=head", "reset", 502),
    ("reset=body", "cut_body", 502),
    ("die=after:20", "cut_body", 502),
    ("wrong-length=long", "cut_body", 502),
    ("slice=1; reset=after:50", "cut_body", 502),
    ("garbage", "garbage", 502),
    ("garbage; slice=1", "garbage", 502),
    ("halfopen", "first_byte_timeout", 504),
    ("latency-ms=2000", "first_byte_timeout", 504),
    ("stall=head", "first_byte_timeout", 504),
    ("stall=body", "idle_timeout", 504),
    ("html", "html", 502),
    ("errorbody", "error_body", 502),
    ("badjson", "unreadable", 502),
    ("status=204", "unreadable", 502),
    ("status=400", "4xx", 400),
    ("status=401", "401", 502),
    ("status=403", "403", 403),
    ("status=404", "404", 404),
    ("status=408", "408", 408),
    ("status=409", "409", 409),
    ("status=413", "4xx", 413),
    ("status=422", "4xx", 422),
    ("status=429", "429", 429),
    ("status=429; retry-after=0", "429", 429),
    ("status=429; retry-after=3600", "429", 429),
    ("status=429; retry-after=nonsense", "429", 429),
    ("status=429; retry-after=date:7200", "429", 429),
    ("status=429; code=insufficient_quota", "quota", 429),
    ("status=500", "500", 500),
    ("status=500; slice=1", "500", 500),
    ("status=502", "502", 502),
    ("status=502; html", "502", 502),
    ("status=503", "503", 503),
    ("status=503; html", "503", 503),
    ("status=504", "504", 504),
    ("status=529", "529", 529),
    ("status=520", "5xx", 520),
]
#: The same for streams: what comes before any content.
STREAMED = [
    ("reset=head", "reset", 502),
    ("die=after:1", "cut_stream", 502),
    ("reset=body", "cut_stream", 502),
    ("truncate=0", "cut_stream", 502),
    ("garbage", "garbage", 502),
    ("halfopen", "first_byte_timeout", 504),
    ("html", "html", 502),
    ("status=500", "500", 500),
    ("status=529", "529", 529),
    ("overloaded", "overloaded", 503),
    ("overloaded; crlf", "overloaded", 503),
    ("overloaded; slice=1", "overloaded", 503),
    ("overloaded; chunk-bytes=7", "overloaded", 503),
    ("overloaded=after:1", "overloaded", 503),
    ("overloaded=after:1; chunk-ms=50", "overloaded", 503),
]
WORKED = [
    ("reset=head", "reset", 502),
    ("garbage", "garbage", 502),
    ("halfopen", "total_timeout", 504),
    ("wrong-length=long", "cut_body", 502),
    ("status=404", "4xx", 404),
    ("status=429", "429", 429),
    ("status=500", "500", 500),
    ("status=502", "502", 502),
    ("status=503", "503", 503),
    ("status=504", "504", 504),
    ("status=520", "5xx", 520),
]


def seen(stand: Any) -> Counter[str]:
    """Failures so far by their row."""
    counter = stand.gateway.metrics.counter("tidegate_upstream_failures_total", "", ("provider", "failure"))
    found: Counter[str] = Counter()
    for (_, failure), count in counter.values.items():
        found[failure] += count
    return found


async def send(stand: Any, kind: str, fake: str, stream: bool) -> httpx2.Response:
    if kind == "http":
        answer: httpx2.Response = await stand.client.get("/workers/w0/thing", headers={"x-fake": fake})
        return answer
    make = stand.chat if kind == "openai" else stand.message
    return await make(fake, model="m" if kind == "openai" else "claude", stream=stream)  # type: ignore[no-any-return]


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    ("kind", "stream", "faults"),
    [
        ("openai", False, PLAIN),
        ("openai", True, STREAMED),
        ("anthropic", False, PLAIN),
        ("anthropic", True, STREAMED),
        ("http", False, WORKED),
    ],
)
async def test_all_faults_are_classified_and_repeated_as_the_table_says(
    stand: Any, kind: str, stream: bool, faults: list[tuple[str, str, int]], late: bool
) -> None:
    config = CALM.format(attempts=2, preamble_s=5) + PROVIDERS.format(quick=QUICK if late else PATIENT)
    one = await stand(config if late else config.replace("timeout_s = 0.4", "timeout_s = 5"))
    for fake, row, status in faults:
        if late != row.endswith("timeout") or (kind == "anthropic" and row == "quota"):  # OpenAI's word
            continue
        before, came = seen(one), one.fakes[0].stats.calls
        answer = await send(one, kind, fake, stream)
        after, sent = seen(one) - before, one.fakes[0].stats.calls - came
        fault = FAULTS[kind][row]
        wait = re.search(r"retry-after=(3600|date)", fake)
        expected = 2 if fault.same == "yes" and wait is None else 1
        assert answer.status_code == status, (fake, answer.text)
        assert after == Counter({row: expected}), (fake, after)
        assert sent == expected, (fake, sent)
        assert answer.headers.get("x-tidegate-attempts", "1") == str(expected), fake
    await one.settled()


async def test_connections_that_fail(stand: Any) -> None:
    one = await stand(
        CALM.format(attempts=2, preamble_s=0.25)
        + '[providers.f0]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
        + '[providers.x]\nkind = "openai"\nbase_url = "http://192.0.2.1/v1"\ntimeouts = { connect_s = 0.2 }\n'
        + '[models.far]\ntargets = ["x/m"]\n'
    )
    answer = await one.chat()
    assert (answer.status_code, seen(one)) == (503, Counter(connect_failed=2))
    answer = await one.chat(model="far")
    assert answer.status_code in (503, 504)  # a machine without a route refuses at once
    assert sum(seen(one).values()) in (3, 4)


async def test_a_pool_that_stays_busy(stand: Any) -> None:
    import asyncio

    one = await stand(
        CALM.format(attempts=2, preamble_s=0.25)
        + '[providers.f0]\nkind = "openai"\nbase_url = "{f0}/v1"\npass_headers = ["x-fake"]\nmax_connections = 1\n'
        + "timeouts = { connect_s = 0.2 }\n"
    )
    busy = asyncio.ensure_future(one.chat("latency-ms=1500"))
    while one.fakes[0].stats.in_flight == 0:
        await asyncio.sleep(0.005)
    answer = await one.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert seen(one) == Counter(pool_timeout=1)
    assert (await busy).status_code == 200


async def test_a_total_timeout_is_not_repeated(stand: Any) -> None:
    timeouts = PATIENT.replace("total_s = 30", "total_s = 0.25")
    config = CALM.format(attempts=3, preamble_s=0.25) + PROVIDERS.format(quick=timeouts)
    one = await stand(config)
    answer = await one.chat("chunk-ms=100; chunk-bytes=10; slice=1; latency-ms=290")
    assert answer.status_code == 504
    assert seen(one) == Counter(total_timeout=1)


async def test_what_is_no_fault_is_left_alone(stand: Any) -> None:
    one = await stand(CALM.format(attempts=3, preamble_s=0.25) + PROVIDERS.format(quick=PATIENT))
    for fake in ("", "slice=1", "gzip", "u2028", "close", "latency-ms=100", "huge-event=300000"):
        for stream in (False, True):
            for kind in ("openai", "anthropic"):
                answer = await send(one, kind, fake, stream)
                assert answer.status_code == 200, (fake, stream, answer.text)
    for fake in ("chunk-bytes=1", "crlf", "chunk-ms=20", "slice=7"):
        assert (await send(one, "openai", fake, True)).text.rstrip().endswith("data: [DONE]")
        assert "message_stop" in (await send(one, "anthropic", fake, True)).text
    assert not seen(one)
    assert one.fakes[0].stats.calls == 7 * 4 + 4 * 2


async def test_an_answer_with_status_200_that_says_overloaded_is_told_as_that(stand: Any) -> None:
    """As in a stream: an SDK's own error for it, and when to come back."""
    one = await stand(CALM.format(attempts=2, preamble_s=0.25) + PROVIDERS.format(quick=""))
    answer = await send(one, "anthropic", "overloaded", stream=False)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")
    assert answer.headers["retry-after"] == "1"
    assert seen(one) == Counter({"overloaded": 2})


async def test_after_content_nothing_is_repeated_and_the_end_is_told(stand: Any) -> None:
    one = await stand(
        CALM.format(attempts=3, preamble_s=0.25) + PROVIDERS.format(quick=PATIENT.replace("idle_s = 5", "idle_s = 1"))
    )
    for fake in ("die=after:4", "reset=after:4", "stall=after:4", "overloaded=after:4", "truncate=4"):
        for kind in ("openai", "anthropic"):
            came = one.fakes[0].stats.calls
            answer = await send(one, kind, fake, True)
            assert answer.status_code == 200
            assert '"error"' in answer.text, (fake, kind, answer.text)
            assert "x-tidegate-attempts" not in answer.headers
            assert one.fakes[0].stats.calls == came + 1, fake
    rows = await one.rows()
    assert {row.outcome for row in rows.values()} == {"failed"}


async def test_a_slow_preamble_is_not_held_for_long(stand: Any) -> None:
    one = await stand(CALM.format(attempts=3, preamble_s=0.1) + PROVIDERS.format(quick="timeouts = { idle_s = 5 }"))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-fake": "chunk-ms=1000; chunks=3"}
    async with one.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        pieces = answer.aiter_raw()
        first = await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]  # a generator, though not declared as one
        assert json.loads(first.decode().splitlines()[0][6:])["choices"][0]["delta"]["role"] == "assistant"
        assert one.fakes[0].stats.in_flight == 1  # the second event is still to come
        assert first.count(b"\n\n") == 1


def test_the_page_shows_the_table() -> None:
    text = (ROOT / "docs" / "resilience.md").read_text()
    for kinds, heading in ((("openai", "anthropic"), "## AI providers"), (("http",), "## Workers")):
        section = text.split(heading, 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|", section, re.MULTILINE)
        for kind in kinds:
            assert [tuple(row) for row in rows] == [tuple(fault) for fault in FAULTS[kind].values()]
