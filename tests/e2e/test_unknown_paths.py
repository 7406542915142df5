"""A path that we know nothing about is no way around what the known ones enforce."""

from __future__ import annotations

import json
from typing import Any

import pytest

CONFIG = """
policies = ["identity", "access", "quota", "budget"]
[providers.up]
kind = "openai"
base_url = "{origin}/v1"
api_key = "sk-provider-secret-0001"
[providers.claude]
kind = "anthropic"
base_url = "{origin}"
[models."gpt-4o"]
targets = ["up/gpt-4o-2024-08-06"]
[models."secret-model"]
targets = ["up/gpt-4o-mini"]
[models."claude-sonnet-4-5"]
targets = ["claude/claude-sonnet-4-5"]
[workers.dav]
base_url = "{origin}/dav"
[clients.narrow]
models = ["gpt-4o"]
[[clients.narrow.keys]]
secret = "tg-narrow-of-the-test"
[clients.wide]
[[clients.wide.keys]]
secret = "tg-wide-of-the-test"
[clients.poor]
budget = {{ day_usd = 0.00001 }}
[[clients.poor.keys]]
secret = "tg-poor-of-the-test"
"""
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
REPLY = {"id": "x", "object": "chat.completion", "model": "m", "choices": [], "usage": USAGE}
SPELT = [
    "/v1/chat/completions/",
    "/v1/CHAT/completions",
    "/v1/chat/completions;x",
    "/v1/chat;y/completions",
    "/v1/chat/completions%20",
    "/v1/responses/",
    "/v1/embeddings/",
    "/v1/messages/",
    "/v1/Messages",
    "/v1/FILES/file-1",
    "/v1/engines/gpt-4o/chat/completions",
    "/v1/deployments/gpt-4o/chat/completions",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any, scripted: Any) -> Any:
    return start_module(tmp_path_factory.mktemp("paths"), CONFIG.format(origin=scripted.origin))


@pytest.fixture
def upstream(scripted: Any) -> Any:
    scripted.asked.clear()
    scripted.script = lambda asked: REPLY
    return scripted


def call_row(server: Any, headers: dict[str, str]) -> dict[str, Any]:
    return next(call for call in server.calls() if call["id"] == headers["x-request-id"])


@pytest.mark.parametrize("path", SPELT)
def test_a_known_path_in_another_spelling_is_404(server: Any, upstream: Any, path: str) -> None:
    status, _, body = server.request("POST", path, {"model": "gpt-4o", "messages": []}, key="tg-wide-of-the-test")
    assert status == 404, body
    assert b"/v1/" in body
    assert not upstream.asked


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/videos", "/v1/x/chat/completions", "/v1/messages/later"])
def test_a_model_on_an_unknown_path_is_resolved_and_in_scope(server: Any, upstream: Any, path: str) -> None:
    for body in ({"model": "secret-model"}, {"model": "gpt-4o", "graders": [{"model": "secret-model"}]}):
        status, _, answer = server.request("POST", path, body, key="tg-narrow-of-the-test")
        assert status in (403, 404), answer
    assert server.request("POST", path, {"model": "no-such"}, key="tg-wide-of-the-test")[0] == 404
    assert not upstream.asked


def test_further_models_of_known_paths_are_in_scope(server: Any, upstream: Any) -> None:
    inside = {"requests": [{"custom_id": "1", "params": {"model": "secret-model"}}]}
    assert server.request("POST", "/v1/messages/batches", inside, key="tg-narrow-of-the-test")[0] == 403
    chat = {"model": "gpt-4o", "messages": [], "models": ["secret-model"]}
    assert server.request("POST", "/v1/chat/completions", chat, key="tg-narrow-of-the-test")[0] == 403
    tools = {"model": "gpt-4o", "input": "x", "tools": [{"type": "image_generation", "model": "secret-model"}]}
    assert server.request("POST", "/v1/responses", tools, key="tg-narrow-of-the-test")[0] == 403
    assert not upstream.asked


def test_a_model_on_an_unknown_path_is_sent_by_its_name_priced_and_metered(server: Any, upstream: Any) -> None:
    status, headers, _ = server.request(
        "POST", "/v1/complete", {"model": "gpt-4o", "prompt": "x"}, key="tg-narrow-of-the-test"
    )
    assert status == 200
    assert upstream.asked[0].json["model"] == "gpt-4o-2024-08-06"
    row = call_row(server, headers)
    assert (row["model"], row["input_tokens"], row["output_tokens"]) == ("gpt-4o", 10, 5)
    assert float(row["cost_usd"]) > 0
    upstream.script = lambda asked: (200, "text/event-stream", b"data: " + json.dumps(REPLY).encode() + b"\n\n")
    _, headers, _ = server.request(
        "POST", "/v1/complete", {"model": "gpt-4o", "stream": True}, key="tg-narrow-of-the-test"
    )
    assert call_row(server, headers)["output_tokens"] == 5
    upstream.script = lambda asked: {"usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 2}}
    body = {"model": "claude-sonnet-4-5", "prompt": "x"}
    _, headers, _ = server.request(
        "POST", "/v1/complete", body, key="tg-wide-of-the-test", anthropic_version="2023-06-01"
    )
    assert call_row(server, headers)["input_tokens"] == 7


def test_a_budget_holds_on_unknown_paths(server: Any, upstream: Any) -> None:
    body = {"model": "gpt-4o", "prompt": "x" * 1000}
    status, _, answer = server.request("POST", "/v1/complete", body, key="tg-poor-of-the-test")
    assert status == 429, answer
    assert not upstream.asked


def test_paths_without_a_model_still_pass(server: Any, upstream: Any) -> None:
    upstream.script = lambda asked: {"id": "vs_123456789", "object": "vector_store"}
    assert server.request("POST", "/v1/vector_stores", {"name": "x"}, key="tg-narrow-of-the-test")[0] == 200
    assert (
        server.request("POST", "/v1/vector_stores/vs_123456789/search", {"query": "x"}, key="tg-narrow-of-the-test")[0]
        == 200
    )
    raw = server.request("POST", "/v1/listen", b"\x00\x01RIFF", key="tg-wide-of-the-test", content_type="audio/wav")
    assert raw[0] == 200
    assert (upstream.asked[-1].body, upstream.asked[-1].headers["content-type"]) == (b"\x00\x01RIFF", "audio/wav")


@pytest.mark.parametrize(
    "path",
    [
        "realtime/sessions",
        "realtime/client_secrets",
        "Realtime/calls",
        "chatkit/sessions",
        "organization/admin_api_keys",
    ],
)
def test_what_hands_out_credentials_is_not_offered(server: Any, upstream: Any, path: str) -> None:
    status, headers, body = server.request("POST", f"/v1/{path}", {"model": "gpt-4o"}, key="tg-wide-of-the-test")
    assert status == 501, body
    assert headers["x-should-retry"] == "false"
    assert not upstream.asked


def test_anthropic_version_selects_only_where_both_have_the_path(server: Any, upstream: Any) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
    upstream.script = lambda asked: {**REPLY, "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    status, headers, _ = server.request(
        "POST", "/v1/chat/completions", body, key="tg-wide-of-the-test", anthropic_version="2023-06-01"
    )
    assert status == 200
    assert headers["x-tidegate-provider"] == "up"
    row = call_row(server, headers)
    assert (row["input_tokens"], row["output_tokens"], row["dialect"]) == (10, 5, "openai")
    upstream.script = lambda asked: {"data": [], "has_more": False, "first_id": None, "last_id": None}
    headers = server.request("GET", "/v1/files", key="tg-wide-of-the-test", anthropic_version="2023-06-01")[1]
    assert headers["x-tidegate-provider"] == "claude"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/audio/speech", "/v1/other/things", "/v1/files"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=B"])
def test_a_body_that_can_not_be_read_is_415(server: Any, upstream: Any, path: str, kind: str) -> None:
    body = json.dumps({"model": "secret-model", "prompt": "x", "input": "x"}).encode()
    status, _, answer = server.request("POST", path, body, key="tg-narrow-of-the-test", content_type=kind)
    assert status == 415, answer
    assert b"application/json" in answer
    assert not upstream.asked


def test_json_by_another_name_is_415(server: Any, upstream: Any) -> None:
    for body in (b' {"model": "secret-model"}', '{"model": "secret-model"}'.encode("utf-16")):
        kind = "application/octet-stream"
        assert (
            server.request("POST", "/v1/other/things", body, key="tg-narrow-of-the-test", content_type=kind)[0] == 415
        )
        assert (
            server.request("POST", "/v1/images/generations", body, key="tg-narrow-of-the-test", content_type=kind)[0]
            == 415
        )
    assert not any(asked.body for asked in upstream.asked)


def test_a_worker_takes_any_method(server: Any, upstream: Any) -> None:
    upstream.script = lambda asked: {"ok": True}
    for method in ("PROPFIND", "REPORT", "MKCOL", "VERSION-CONTROL", "PURGE"):
        assert server.request(method, "/workers/dav/x", key="tg-wide-of-the-test")[0] == 200, method
        assert upstream.asked[-1].method == method
    for path in ("/v1/chat/completions", "/v1/other/things"):
        assert server.request("PROPFIND", path, key="tg-wide-of-the-test")[0] == 405


def test_head_of_models(server: Any) -> None:
    status, headers, body = server.request("HEAD", "/v1/models", key="tg-wide-of-the-test")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    assert server.request("HEAD", "/v1/models/gpt-4o", key="tg-narrow-of-the-test")[0] == 200
    assert server.request("HEAD", "/v1/models/secret-model", key="tg-narrow-of-the-test")[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/audio/voices"),
        ("GET", "/v1/audio/voice_consents"),
        ("DELETE", "/v1/audio/voice_consents/consent"),
        ("GET", "/v1/deployments"),
    ],
)
def test_collections_beside_known_paths_are_passed_on(server: Any, upstream: Any, method: str, path: str) -> None:
    upstream.script = lambda asked: {"object": "list", "data": []}
    status, _, body = server.request(method, path, key="tg-wide-of-the-test")
    assert status == 200, body
    assert [asked.path for asked in upstream.asked] == [path]
