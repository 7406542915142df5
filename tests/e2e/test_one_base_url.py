"""One base URL for both SDKs, with or without /v1 at its end: the same routes, the same limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway.routes import TABLE, Router, spelt

KEY = "tg-test-shared-key"
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/v1"])
def test_both_sdks_take_any_base_url(gateway: Any, end: str) -> None:
    with OpenAI(base_url=gateway.address + end, api_key=KEY, max_retries=0) as openai:
        assert openai.chat.completions.create(**CHAT).usage is not None  # type: ignore[call-overload]
        assert openai.responses.create(model="demo-small", input="hi").id
        assert openai.embeddings.create(model="demo-small", input="hi").data[0].embedding
        assert "demo-small" in [model.id for model in openai.models.list()]
        stored = openai.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert openai.files.retrieve(stored.id).id == stored.id
    with Anthropic(base_url=gateway.address + end, api_key=KEY, max_retries=0) as anthropic:
        message = anthropic.messages.create(max_tokens=8, **CHAT)  # type: ignore[call-overload]
        assert message.usage.input_tokens
        assert anthropic.messages.count_tokens(**CHAT).input_tokens  # type: ignore[arg-type]
        assert "demo-small" in [model.id for model in anthropic.models.list()]


def test_every_spelling_is_the_route_of_the_table() -> None:
    router = Router()
    for route in TABLE:
        if not route.template.startswith("/v1/"):
            continue
        path = route.template.replace("{id}", "x-1").replace("{path}", "vector_stores/y").encode()
        for method in route.methods:
            wanted = router.match(method, spelt(path))
            spellings = [b"/v1" + path, b"/v1/v1" + path] + ([] if route.name == "other" else [path[3:]])
            assert [router.match(method, spelt(one)) for one in spellings] == [wanted] * len(spellings)
    for path in (b"/livez", b"/workers/x/v1/chat", b"/health", b"/", b"/v1", b"/v1/v1"):
        assert spelt(path) == path


def test_another_spelling_is_no_way_around_a_limit(start: Any) -> None:
    server = start('[clients.a]\nroutes = ["chat"]\nquota = { requests = ["2/day"] }\n[[clients.a.keys]]\n'
                   'secret = "tg-0123456789abcdef"\n')  # fmt: skip

    def status(path: str) -> int:
        return int(server.request("POST", path, CHAT, key="tg-0123456789abcdef")[0])

    assert status("/embeddings") == status("/v1/v1/embeddings") == 403
    assert [status(path) for path in ("/chat/completions", "/v1/v1/chat/completions")] == [200, 200]
    assert status("/v1/chat/completions") == status("/chat/completions") == status("/v1/v1/chat/completions") == 429
    rows = [row for row in server.calls() if row["status"] == 200]
    assert {(row["route"], row["path"]) for row in rows} == {("chat", "/v1/chat/completions")}


def test_errors_keep_the_dialect_of_the_path(gateway: Any) -> None:
    for path in ("/v1/v1/messages", "/messages", "/v1/v1/messages/../x"):
        page = json.loads(gateway.request("POST", path, CHAT, key="tg-unknown-to-all")[2])
        assert page["type"] == "error"


def test_message_batches_by_the_sdk(gateway: Any, tmp_path: Any) -> None:
    """Results too, which the SDK fetches from the address that the provider names: it must be ours."""
    for end in ("", "/v1"):
        with Anthropic(base_url=gateway.address + end, api_key=KEY, max_retries=0) as anthropic:
            batches = anthropic.messages.batches
            params: Any = {"max_tokens": 8, **CHAT}
            made = batches.create(requests=[{"custom_id": name, "params": params} for name in ("one", "two")])
            assert made.id.startswith("msgbatch_")
            assert made.id in [batch.id for batch in batches.list()]
            ended = batches.retrieve(made.id)
            assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 2)
            assert ended.results_url == f"{gateway.address}/v1/messages/batches/{made.id}/results"
            found = {one.custom_id: one.result for one in batches.results(made.id)}
            assert {name: result.type for name, result in found.items()} == {"one": "succeeded", "two": "succeeded"}
            assert [batch.results_url for batch in batches.list() if batch.id == made.id] == [ended.results_url]
            other = batches.create(requests=[{"custom_id": "x", "params": params}])
            assert batches.cancel(other.id).processing_status == "canceling"
            assert batches.retrieve(other.id).request_counts.canceled == 1
            assert batches.delete(other.id).type == "message_batch_deleted"


@pytest.mark.parametrize("protocol", ["native", "httptools"])
def test_a_path_prefix_may_be_taken_off_by_a_proxy_or_not(start: Any, protocol: str) -> None:
    server = start('[server]\nroot_path = "/ai"\n', protocol=protocol)
    for prefix in ("/ai", ""):
        for path in ("/", "/livez", "/v1/models", "/models", "/v1/v1/models"):
            assert server.request("GET", prefix + path)[0] == 200, prefix + path
        assert server.request("POST", f"{prefix}/v1/chat/completions", CHAT)[0] == 200
        assert server.request("GET", f"{prefix}/nothing")[0] == 404
    assert server.request("GET", "/air/v1/models")[0] == 404
    with Anthropic(base_url=f"{server.address}/ai", api_key="tg-test-client-key", max_retries=0) as anthropic:
        params: Any = {"max_tokens": 8, **CHAT}
        made = anthropic.messages.batches.create(requests=[{"custom_id": "x", "params": params}])
        url = anthropic.messages.batches.retrieve(made.id).results_url
        assert url == f"{server.address}/ai/v1/messages/batches/{made.id}/results"
        assert len(list(anthropic.messages.batches.results(made.id))) == 1
    assert {row["path"] for row in server.calls() if row["route"] == "chat"} == {"/v1/chat/completions"}
