"""The canned provider answers right in each of its modes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from loadtests.bench import requests
from loadtests.bench.responder import Responder


def post(responder: Responder, fields: dict[str, Any], size: int = 0) -> tuple[str, str]:
    """Head and body of one answer, by curl."""
    body = json.dumps({**fields, "padding": "x" * size}).encode()
    url = f"http://127.0.0.1:{responder.port}{requests.PATH}"
    command = ["curl", "-sS", "-i", "-N", "--max-time", "20", "--noproxy", "*", url, "--data-binary", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, check=False)
    head, _, rest = done.stdout.decode().partition("\r\n\r\n")
    return head, rest


def events(body: str) -> list[dict[str, Any]]:
    *lines, last = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def contents(body: str) -> list[str]:
    found = [choice["delta"].get("content") for event in events(body) for choice in event["choices"]]
    return [content for content in found if content is not None]


def test_plain_answer_has_its_usage_and_size(responder: Responder) -> None:
    head, body = post(responder, {"model": "bench-plain"})
    assert head.startswith("HTTP/1.1 200")
    assert 1_150 <= len(body) <= 1_300
    assert json.loads(body)["usage"]["total_tokens"] == 420


def test_large_bodies_are_swallowed(responder: Responder) -> None:
    head, body = post(responder, {"model": "bench-plain"}, size=38_000)
    assert head.startswith("HTTP/1.1 200")
    assert json.loads(body)["object"] == "chat.completion"
    assert responder.counts().bytes_in > 38_000


def test_requests_are_of_the_stated_size() -> None:
    for size in (requests.SMALL, requests.LARGE):
        request = requests.chat("bench-plain", size, {})
        assert len(request.body) == size
        assert json.loads(request.body)["model"] == "bench-plain"


def test_burst_chunks_all_differ_and_come_in_order(responder: Responder) -> None:
    _, body = post(responder, {"model": "bench-burst-50", "stream": True})
    found = contents(body)
    assert [int(content.split()[0]) for content in found] == list(range(50))
    assert len({content.split()[2] for content in found}) > 40
    assert responder.counts().chunks == 50


def test_paced_chunks_are_five_milliseconds_apart(responder: Responder) -> None:
    _, body = post(responder, {"model": "bench-paced-21", "stream": True})
    sent = [int(content.split()[1], 16) for content in contents(body)]
    assert len(sent) == 21
    assert sent[-1] - sent[0] >= 0.95 * 20 * 5_000_000


def test_usage_comes_only_when_asked_for(responder: Responder) -> None:
    asked = {"model": "bench-burst-3", "stream": True, "stream_options": {"include_usage": True}}
    _, with_usage = post(responder, asked)
    _, without = post(responder, {"model": "bench-burst-3", "stream": True})
    assert events(with_usage)[-1]["usage"]["completion_tokens"] == 3
    assert all(event["usage"] is None for event in events(with_usage)[:-1])
    assert all("usage" not in event for event in events(without))


def test_a_streaming_model_without_stream_gets_a_plain_answer(responder: Responder) -> None:
    _, body = post(responder, {"model": "bench-burst-3"})
    assert json.loads(body)["object"] == "chat.completion"
