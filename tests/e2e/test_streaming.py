"""Streams pass chunk by chunk as they come; who leaves cancels the upstream call and is billed for what was served."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

CONFIG = """
[providers.demo]
kind = "openai"
base_url = "{origin}/v1"
pass_headers = ["x-fake"]
[providers.claude]
kind = "anthropic"
base_url = "{origin}"
pass_headers = ["x-fake"]
[models.demo-small]
targets = ["demo/demo-small", "claude/demo-small"]
[workers.echo]
base_url = "{origin}/worker"
[server]
protocol = "{protocol}"
"""


@pytest.fixture(scope="module", params=["native", "httptools"])
def server(request: Any, tmp_path_factory: pytest.TempPathFactory, start_module: Any, demo_process: Any) -> Any:
    folder = tmp_path_factory.mktemp("stream")
    return start_module(folder, CONFIG.format(origin=demo_process.origin, protocol=request.param))


def open_stream(server: Any, path: str, body: dict[str, Any], fake: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port))
    client.settimeout(10)
    data = json.dumps(body).encode()
    client.sendall(
        f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test-client-key\r\nx-fake: {fake}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return client


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}


def test_chunks_come_as_they_are_sent(server: Any) -> None:
    """Ten events 150 ms apart arrive one after the other, not at once."""
    with open_stream(server, "/v1/chat/completions", chat_body(), "chunks=10; chunk_ms=150") as client:
        times = []
        data = b""
        while b"[DONE]" not in data:
            data += client.recv(65536)
            times.append(time.monotonic())
    assert len(times) >= 7  # a busy machine may bring two at once
    assert times[-1] - times[0] > 0.5


def wait_for(server: Any, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for call in server.calls():
            if call["id"] == request_id:
                return call  # type: ignore[no-any-return]
        time.sleep(0.05)
    raise AssertionError("the call has no row")


@pytest.mark.parametrize("events", [1, 5])
def test_leaving_cancels_upstream_and_bills_what_was_served(server: Any, demo_process: Any, events: int) -> None:
    before = demo_process.stats()
    client = open_stream(server, "/v1/chat/completions", chat_body(), "chunks=200; chunk_ms=50")
    data = b""
    while data.count(b"\n\n") < events:
        data += client.recv(65536)
    request_id = data.lower().split(b"x-request-id: ")[1].split(b"\r\n")[0].decode()
    left = time.monotonic()
    client.close()
    while demo_process.stats()["cancelled_calls"] == before["cancelled_calls"]:
        assert time.monotonic() - left < 5, "the upstream call goes on"  # it would for ten seconds
        time.sleep(0.02)
    call = wait_for(server, request_id)
    assert call["outcome"] == "gone"
    assert call["estimated"]
    assert 0 <= call["output_tokens"] <= events + 8
    assert call["input_tokens"] > 0


def test_leaving_before_the_first_byte(server: Any, demo_process: Any) -> None:
    before = demo_process.stats()
    client = open_stream(server, "/v1/chat/completions", chat_body(), "latency_ms=20000")
    deadline = time.monotonic() + 20
    while demo_process.stats()["in_flight"] == before["in_flight"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.close()
    left = time.monotonic()
    while demo_process.stats()["cancelled_calls"] == before["cancelled_calls"]:
        assert time.monotonic() - left < 5
        time.sleep(0.02)
    deadline = time.monotonic() + 20
    while server.calls()[0]["outcome"] != "gone":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_anthropic_stream_is_forwarded_byte_for_byte(server: Any) -> None:
    body = {"model": "demo-small", "max_tokens": 6, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    status, headers, data = server.request("POST", "/v1/messages", body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert data.startswith(b"event: message_start\ndata: {")
    assert data.rstrip().endswith(b'data: {"type":"message_stop"}')


def test_upload_is_not_buffered(start: Any) -> None:
    """The provider sees the first bytes of a file before the client has sent the last ones."""
    with socket.create_server(("127.0.0.1", 0)) as provider:
        provider.settimeout(10)
        origin = f"http://127.0.0.1:{provider.getsockname()[1]}"
        server = start(f'[providers.raw]\nkind = "openai"\nbase_url = "{origin}/v1"\n')
        head = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
        head += b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        tail = b"\r\n--b--\r\n"
        length = len(head) + 300_000 + len(tail)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(10)
            client.sendall(
                b"POST /v1/files HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test-client-key\r\n"
                b"content-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n" % length + head
            )
            client.sendall(b"x" * 100_000)
            upstream, _ = provider.accept()
            with upstream:
                upstream.settimeout(10)
                seen = b""
                while seen.count(b"x") < 50_000:
                    seen += upstream.recv(65536)
                client.sendall(b"x" * 200_000 + tail)
                while not seen.endswith(tail):
                    seen += upstream.recv(65536)
                upstream.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n"
                    b'{"id": "file-1234567"}'[:21]
                )
            client.recv(65536)
    assert b"content-length: %d" % length in seen.lower()
    assert seen.endswith(tail)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_worker_gets_everything_as_it_was(server: Any, method: str) -> None:
    body = b"\x00\x01raw bytes" if method not in ("GET", "DELETE") else None
    status, _, answer = server.request(
        method, "/workers/echo/a%20b/c?x=1&y=%2F&x=2", body, content_type="application/x-thing", x_custom="kept"
    )
    assert status == 200
    seen = json.loads(answer)
    assert seen["method"] == method
    assert seen["path"].endswith("/a%20b/c")
    assert seen["query"] == "x=1&y=%2F&x=2"
    received = {name.lower(): value for name, value in dict(seen["headers"]).items()}
    assert received["x-custom"] == "kept"
    assert received["content-type"] == "application/x-thing"
    assert "authorization" not in received, "the client's key went to the worker"
    assert "tg-test-client-key" not in answer.decode()
    if body is not None:
        assert seen["bytes"] == len(body)
