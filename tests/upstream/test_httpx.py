"""What only the httpx client does: HTTP/2, and proxies when they are asked for."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from gateway.upstream.base import ConnectionLost, ProtocolError, Timeouts, UpstreamRequest
from gateway.upstream.httpx import HttpxClient

STATUS = (":status", "200")
#: Heads that can't be, by path: HTTP/2 frames carry any byte.
EVIL = {
    b"/crlf": [STATUS, ("x-a", "b\r\nx-evil: 1")],
    b"/lf": [STATUS, ("x-a", "b\nx-evil: 1")],
    b"/cr": [STATUS, ("x-a", "b\rx-evil: 1")],
    b"/nul": [STATUS, ("x-a", "b\0c")],
    b"/control": [STATUS, ("x-a", "b\x01c")],
    b"/name-crlf": [STATUS, ("x-a: b\r\nx-evil", "1")],
    b"/name-space": [STATUS, ("x a", "1")],
    b"/name-colon": [STATUS, ("x:a", "1")],
    b"/name-empty": [STATUS, ("", "1")],
    b"/short": [STATUS, ("content-length", "1")],
    b"/long": [STATUS, ("content-length", "3")],
    b"/signed": [STATUS, ("content-length", "+2")],
    b"/lengths": [STATUS, ("content-length", "2"), ("content-length", "3")],
    b"/status": [(":status", "700")],
    b"/word": [(":status", "ok")],
    b"/switching": [(":status", "101")],
}


class Http2Server(asyncio.Protocol):
    """Echoes the path and the body; /reset resets the stream after the first piece."""

    connections: list[Http2Server] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connections.append(self)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.initiate_connection()
        self.paths: dict[int, bytes] = {}
        self.bodies: dict[int, bytes] = {}
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.paths[event.stream_id] = dict(event.headers)[b":path"]
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id)
        self.flush()

    def answer(self, stream: int) -> None:
        path = self.paths[stream]
        if path in EVIL:
            self.h2.send_headers(stream, EVIL[path])
            self.h2.send_data(stream, b"hi", end_stream=True)
            return
        self.h2.send_headers(stream, [(":status", "200"), ("x-path", path)])
        self.h2.send_data(stream, b"hello ")
        if path == b"/reset":
            self.h2.reset_stream(stream)
            return
        self.h2.send_data(stream, self.bodies[stream])
        self.h2.send_headers(stream, [("x-trailer", "1")], end_stream=True)


@pytest.fixture
async def http2() -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    Http2Server.connections = []
    listener = await asyncio.get_running_loop().create_server(Http2Server, "127.0.0.1", 0, ssl=context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    yield f"https://localhost:{listener.sockets[0].getsockname()[1]}", trusting
    listener.close()
    for connection in Http2Server.connections:
        connection.transport.abort()
    await asyncio.sleep(0)


async def test_http2_many_calls_on_one_connection(http2: Any, bench: Any) -> None:
    url, trusting = http2
    client = HttpxClient(url, ssl_context=trusting)
    await bench.exchange(client, UpstreamRequest("GET", b"/first"))

    async def call(number: int) -> None:
        reply, body = await bench.exchange(client, UpstreamRequest("POST", b"/%d?x" % number, [], b"%d" % number))
        assert reply.headers == [(b"x-path", b"/%d?x" % number)]
        assert body == b"hello %d" % number

    await asyncio.gather(*(call(number) for number in range(20)))
    assert len(Http2Server.connections) == 1
    await client.aclose()


async def test_http2_reset_stream_is_a_lost_connection(http2: Any, bench: Any) -> None:
    url, trusting = http2
    client = HttpxClient(url, Timeouts(), ssl_context=trusting)
    with pytest.raises(ConnectionLost):
        await bench.exchange(client, UpstreamRequest("GET", b"/reset"))
    await client.aclose()


@pytest.mark.parametrize("path", EVIL, ids=[path.decode()[1:] for path in EVIL])
async def test_http2_heads_that_cannot_be_are_errors(http2: Any, native: Any, path: bytes) -> None:
    url, trusting = http2
    client = HttpxClient(url, Timeouts(), ssl_context=trusting)
    with pytest.raises(ProtocolError):
        await native.exchange(client, UpstreamRequest("GET", path))
    _, body = await native.exchange(client, UpstreamRequest("GET", b"/fine"))
    assert body == b"hello "
    await client.aclose()


@pytest.mark.parametrize("trust_env", [False, True])
async def test_proxy_of_the_environment_only_when_asked(
    server: Any, native: Any, monkeypatch: pytest.MonkeyPatch, trust_env: bool
) -> None:
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    url = "http://upstream.invalid:81" if trust_env else server.url
    client = HttpxClient(url, trust_env=trust_env)
    _, body = await native.exchange(client, UpstreamRequest("GET", b"/a"))
    assert body == b"ok"
    target = b"http://upstream.invalid:81/a" if trust_env else b"/a"
    assert server.requests[0].split(b" ")[1] == target
    await client.aclose()


async def test_explicit_proxy(server: Any, native: Any) -> None:
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    client = HttpxClient("http://upstream.invalid", proxy=server.url)
    await native.exchange(client, UpstreamRequest("GET", b"/a"))
    assert server.requests[0].split(b" ")[1] == b"http://upstream.invalid/a"
    await client.aclose()


async def test_cookies_are_not_kept(server: Any, native: Any) -> None:
    native.serve(b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\ncontent-length: 0\r\n\r\n")
    client = HttpxClient(server.url)
    for _ in range(2):
        reply, _ = await native.exchange(client, UpstreamRequest("GET", b"/"))
        assert reply.headers[0] == (b"set-cookie", b"a=1")
    assert b"cookie" not in server.requests[1].lower()
    assert len(client._client.cookies.jar) == 0
    await client.aclose()


def test_native_client_does_not_load_httpx2() -> None:
    """Start-up time: what the hot path does not need is loaded when it is needed."""
    code = (
        "import sys, gateway.upstream.native, gateway.upstream.httpx;"
        "sys.exit(any(name.split('.')[0] in ('httpx2', 'httpcore2', 'h2', 'anyio') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
