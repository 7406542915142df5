"""TLS: certificates and names are verified, SNI is sent, the framing rules hold as they do without it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from gateway.upstream.base import ConnectFailed, ConnectionLost, UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@dataclass
class TlsServer:
    """Answers `reply` to each request; `names` are the SNI values it saw, None where there was none."""

    reply: bytes = OK
    hang_up: bool = False
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    versions: list[str | None] = field(default_factory=list)
    requests: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.versions.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(self.reply)
                await writer.drain()
                if self.hang_up:
                    break
        writer.transport.abort()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def serve(authority: trustme.CA) -> AsyncIterator[Callable[..., Any]]:
    servers = []

    async def start(certificate: trustme.LeafCert, **options: Any) -> TlsServer:
        server = TlsServer(**options)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = lambda _socket, name, _context: server.names.append(name)
        listener = await asyncio.start_server(server.play, "127.0.0.1", 0, ssl=context)
        server.port = listener.sockets[0].getsockname()[1]
        servers.append((listener, server))
        return server

    yield start
    for listener, server in servers:
        listener.close()
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_verified_exchange_over_tls(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = await serve(authority.issue_cert("localhost"))
    client = bench.client(url=f"https://localhost:{server.port}", ssl_context=trusting)
    for _ in range(3):
        reply, body = await bench.exchange(client, get)
        assert (reply.status, body) == (200, b"hello")
    assert server.names == ["localhost"]
    assert server.requests == 3
    assert len(server.writers) == 1


async def test_large_bodies_over_tls(bench: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    size = 3_000_000
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    server = await serve(authority.issue_cert("localhost"), reply=wire)
    client = bench.client(url=f"https://localhost:{server.port}", ssl_context=trusting)
    for _ in range(2):
        _, body = await bench.exchange(client, UpstreamRequest("GET", b"/"))
        assert len(body) == size


async def test_address_in_the_certificate(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = await serve(authority.issue_cert("127.0.0.1"))
    _, body = await bench.exchange(bench.client(url=f"https://127.0.0.1:{server.port}", ssl_context=trusting), get)
    assert body == b"hello"


async def refused(bench: Any, get: Any, server: TlsServer, context: ssl.SSLContext | None) -> None:
    client = bench.client(url=f"https://localhost:{server.port}", ssl_context=context)
    for _ in range(2):
        with pytest.raises(ConnectFailed) as failed:
            await client.send(get)
        assert not failed.value.sent
        assert "certificate" in str(failed.value).lower()
    assert server.requests == 0
    assert client.stats().in_use == 0


async def test_unknown_authority_is_refused(bench: Any, get: Any, serve: Any) -> None:
    """By default, that is without a context of the caller's."""
    await refused(bench, get, await serve(trustme.CA().issue_cert("localhost")), None)


async def test_other_host_name_is_refused(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    await refused(bench, get, await serve(authority.issue_cert("other.example")), trusting)


async def test_expired_certificate_is_refused(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    import datetime

    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    await refused(bench, get, await serve(authority.issue_cert("localhost", not_after=past)), trusting)


async def test_plain_text_server_behind_an_https_url(bench: Any, get: Any) -> None:
    bench.server.script = bench.answer(OK)

    async def talk(peer: Any) -> None:
        await peer.read()
        await peer.send(OK)

    bench.server.script = talk
    with pytest.raises(ConnectFailed):
        await bench.client(url=f"https://127.0.0.1:{bench.server.port}").send(get)


async def test_lost_connection_over_tls(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"
    server = await serve(authority.issue_cert("localhost"), reply=wire, hang_up=True)
    client = bench.client(url=f"https://localhost:{server.port}", ssl_context=trusting)
    with pytest.raises(ConnectionLost):
        await bench.exchange(client, get)


async def test_cancelled_at_any_moment_over_tls(
    bench: Any, get: Any, serve: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = await serve(authority.issue_cert("localhost"))
    client = bench.client(url=f"https://localhost:{server.port}", ssl_context=trusting, max_connections=1)
    for turns in range(0, 40, 2):
        task = asyncio.create_task(bench.exchange(client, get))
        await bench.turns(turns)
        task.cancel()
        await asyncio.wait({task})
    async with asyncio.timeout(10):
        _, body = await bench.exchange(client, get)
    assert body == b"hello"
    assert client.stats().in_use == 0
