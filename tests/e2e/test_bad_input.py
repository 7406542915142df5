"""Every bad input, from either side, gets a clear error in the caller's dialect, and the attempt has its row."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

CONFIG = """
[retry]
budget_percent = 0
budget_reserve = 0
[providers.demo]
kind = "openai"
base_url = "{origin}/v1"
pass_headers = ["x-fake"]
timeouts = {{ connect_s = 1, first_byte_s = 0.8, idle_s = 0.8, total_s = 5 }}
[providers.claude]
kind = "anthropic"
base_url = "{origin}"
pass_headers = ["x-fake"]
timeouts = {{ connect_s = 1, first_byte_s = 0.8, idle_s = 0.8, total_s = 5 }}
[providers.dead]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.demo-small]
targets = ["demo/demo-small", "claude/demo-small"]
[providers.small]
kind = "openai"
base_url = "{origin}/v1"
body_limit = "200 B"
[models.small]
targets = ["small/x"]
[models.dead]
targets = ["dead/x"]
[models.saved]
targets = ["dead/x", "demo/demo-large"]
[server]
body_limit = "1 MiB"
"""
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "demo-small", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any, demo_process: Any) -> Any:
    return start_module(tmp_path_factory.mktemp("bad"), CONFIG.format(origin=demo_process.origin))


def chat(server: Any, fake: str = "", **more: Any) -> tuple[int, dict[str, str], bytes]:
    headers = {"x_fake": fake} if fake else {}
    return server.request("POST", "/v1/chat/completions", {**CHAT, **more}, **headers)  # type: ignore[no-any-return]


def row(server: Any, headers: dict[str, str]) -> dict[str, Any]:
    calls = {call["id"]: call for call in server.calls()}
    return calls[headers["x-request-id"]]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"model": ', "JSON"),
        (b"", "JSON"),
        (b'{"model": "demo-small", "model": "demo-large", "messages": []}', "twice"),
        (b'{"model": "demo-small", "n": NaN, "messages": []}', "JSON"),
        (b'{"model": "demo-small\xff", "messages": []}', "UTF-8"),
        (b'{"model": "demo-small", "x": ' + b"[" * 70 + b"]" * 70 + b"}", "deep"),
        (b"[1, 2]", "object"),
        (b'{"messages": []}', "model"),
        (b'{"model": 7, "messages": []}', "model"),
        (b'{"model": "demo-small", "messages": [], "stream": "yes"}', "stream"),
    ],
)
def test_malformed_bodies(server: Any, body: bytes, word: str) -> None:
    status, headers, answer = server.request("POST", "/v1/chat/completions", body)
    assert status == 400
    error = json.loads(answer)["error"]
    assert error["type"] == "invalid_request_error"
    assert word.lower() in error["message"].lower()
    assert headers["x-ratelimit-limit-requests"]
    status, _, answer = server.request("POST", "/v1/messages", body)
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_wrong_content_type(server: Any) -> None:
    status, _, answer = server.request("POST", "/v1/chat/completions", b"model=x", content_type="text/plain")
    assert status == 415
    assert "application/json" in json.loads(answer)["error"]["message"]


def test_unknown_path_and_method(server: Any) -> None:
    status, _, answer = server.request("GET", "/nothing/here")
    assert status == 404
    assert "/v1" in json.loads(answer)["error"]["message"]
    status, headers, _ = server.request("PUT", "/v1/chat/completions", CHAT)
    assert status == 405
    assert headers["allow"] == "GET, POST"


def test_too_large_by_content_length(server: Any) -> None:
    """Refused before a byte of the body is read."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test-client-key\r\n"
            b"content-type: application/json\r\ncontent-length: 99999999\r\n\r\n"
        )
        assert b" 413 " in client.recv(4096).split(b"\r\n")[0]


def test_too_large_for_its_provider(server: Any) -> None:
    assert chat(server, model="small")[0] == 200
    status, _, body = chat(server, model="small", user="x" * 300)
    assert status == 413
    assert "small" in json.loads(body)["error"]["message"]


def test_too_large_while_receiving(server: Any) -> None:
    """Refused while the body still comes, also without a content-length."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(10)
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test-client-key\r\n"
            b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            for _ in range(64):
                client.sendall(chunk)
        except OSError:
            pass
        assert b" 413 " in client.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("fake", "status", "code"),
    [
        ("halfopen", 504, "upstream_timeout"),
        ("latency_ms=1500", 504, "upstream_timeout"),
        ("reset=head", 502, "upstream_connection_lost"),
        ("reset=body", 502, "upstream_connection_lost"),
        ("garbage", 502, "bad_upstream_answer"),
        ("html", 502, "bad_upstream_answer"),
        ("errorbody", 502, "bad_upstream_answer"),
        ("badjson", 502, "bad_upstream_answer"),
    ],
)
def test_upstream_failures(server: Any, fake: str, status: int, code: str) -> None:
    got, headers, body = chat(server, fake)
    assert got == status, body
    error = json.loads(body)["error"]
    assert error["code"] == code
    assert "demo" in error["message"]
    call = row(server, headers)
    assert call["outcome"] == "failed"
    assert call["attempts"] == 1
    assert call["error"] == code


def test_anthropic_callers_get_their_own_shape(server: Any) -> None:
    status, _, body = server.request("POST", "/v1/messages", MESSAGE, x_fake="reset=head")
    assert status == 502
    page = json.loads(body)
    assert page["type"] == "error"
    assert page["error"]["type"] == "api_error"


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_provider_errors_pass(server: Any, status: int) -> None:
    got, headers, body = chat(server, f"status={status}; retry-after=7")
    assert got == status
    assert json.loads(body)["error"]["message"]
    assert row(server, headers)["outcome"] == "failed"
    if status == 429:
        assert headers["retry-after"] == "7"


def test_our_credential_refused_is_not_the_callers_fault(server: Any) -> None:
    got, _, body = chat(server, "status=401")
    assert got == 502
    assert json.loads(body)["error"]["code"] == "provider_credential_refused"


def test_unreachable_and_failover(server: Any) -> None:
    got, headers, body = chat(server, model="dead")
    assert got == 503
    assert json.loads(body)["error"]["code"] == "upstream_unavailable"
    assert row(server, headers)["attempts"] == 1
    got, headers, _ = chat(server, model="saved")
    assert got == 200
    assert headers["x-tidegate-provider"] == "demo"
    assert row(server, headers)["attempts"] == 2


@pytest.mark.parametrize("fake", ["die=after:4; chunks=20", "reset=after:4; chunks=20", "chunks=20; chunk_ms=1000"])
def test_stream_that_dies_in_the_middle(server: Any, fake: str) -> None:
    """The client gets what came and an error event; the ledger has what was served, flagged as an estimate."""
    status, headers, body = chat(server, fake, stream=True)
    assert status == 200
    last = [line for line in body.split(b"\n") if line.startswith(b"data: ")][-1]
    error = json.loads(last[6:])["error"]
    assert error["code"] in ("stream_cut", "upstream_connection_lost", "upstream_timeout")
    call = row(server, headers)
    assert call["outcome"] == "failed"
    assert call["estimated"]
    assert (0 if "chunk_ms" in fake else 1) <= call["output_tokens"] < 20


def test_anthropic_stream_that_dies(server: Any) -> None:
    _, headers, body = server.request("POST", "/v1/messages", {**MESSAGE, "stream": True}, x_fake="die=after:5")
    assert b"event: error\n" in body
    call = row(server, headers)
    assert call["outcome"] == "failed"
    assert call["input_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_missing_usage_is_estimated(server: Any, stream: bool) -> None:
    status, headers, _ = chat(server, "no_usage", stream=stream)
    assert status == 200
    call = row(server, headers)
    assert call["outcome"] == "served"
    assert call["estimated"]
    assert call["output_tokens"] > 0


def test_websocket_is_refused_with_a_sentence(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"GET /v1/realtime HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test-client-key\r\n"
            b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = client.recv(4096)
    assert answer.split(b" ")[1] in (b"426", b"501")
    assert b"WebSocket" in answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (429, "rate_limit_error"), (503, "api_error")],
)
def test_a_refusal_without_json_keeps_its_status_and_its_delay(server: Any, status: int, kind: str) -> None:
    """A caller's mistake must not look like an outage, which SDKs would retry."""
    got, headers, body = chat(server, f"html; status={status}; header=retry-after: 7")
    assert got == status
    assert headers["retry-after"] == "7"
    error = json.loads(body)["error"]
    assert error["type"] == kind
    assert error["code"] == f"upstream_{status}"
    call = row(server, headers)
    assert (call["status"], call["outcome"]) == (status, "failed")


def test_an_error_in_a_200_keeps_its_words(server: Any) -> None:
    got, _, body = chat(server, "errorbody")
    assert got == 502
    assert "it said: " in json.loads(body)["error"]["message"]


def test_what_came_of_a_broken_plain_reply_is_counted(server: Any) -> None:
    got, headers, _ = chat(server, "reset=body; chunks=400; slice=700", max_tokens=400)
    assert got == 502
    call = row(server, headers)
    assert call["estimated"]
    assert call["output_tokens"] > 0


def test_an_encoded_stream_that_breaks_is_cut_and_not_spoilt(server: Any) -> None:
    """An event in plain text would be garbage to a client that decodes; the missing end tells it."""
    body = json.dumps({**CHAT, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tg-test-client-key\r\n"
        head += "content-type: application/json\r\nx-fake: gzip; die=after:4; chunks=20\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        client.settimeout(5)
        got = b""
        while chunk := client.recv(65536):
            got += chunk
    assert b"content-encoding: gzip" in got.lower()
    assert b"stream_cut" not in got
    assert b"upstream_connection_lost" not in got
    assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("name", ["a\nb", "a\x00", "\x1b[31mred", "x" * 300])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
def test_a_models_name_is_one(server: Any, demo_process: Any, path: str, name: str) -> None:
    """It would stand in headers, in log lines and on terminals."""
    before = demo_process.stats()["calls"]
    status, headers, page = server.request("POST", path, {**MESSAGE, "input": "x", "model": name})
    assert status == 400
    assert "model" in json.loads(page)["error"]["message"]
    assert len(page) < 1000
    assert demo_process.stats()["calls"] == before
    (row,) = [row for row in server.calls() if row["id"] == headers["x-request-id"]]
    assert (row["outcome"], row["model"]) == ("refused", "")
    if path == "/v1/messages":
        assert headers["request-id"] == headers["x-request-id"]
