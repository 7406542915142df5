"""A fake provider of each test's own, SDK clients pointed at it, and a raw socket for what no SDK would show."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from gateway.demo import DemoServer, DemoSettings, start

Started = Callable[..., Awaitable[DemoServer]]


@pytest.fixture
async def run() -> AsyncIterator[Started]:
    """Starts a fake provider with the given settings; all are stopped at the end, and left no task and no error."""
    servers: list[DemoServer] = []

    async def started(**settings: Any) -> DemoServer:
        server = await start(DemoSettings(**settings))
        servers.append(server)
        return server

    yield started
    for server in servers:
        await server.stop()
        assert server.stats.failures == 0
    left = [
        task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "").startswith("Connection")
    ]
    assert left == []


@pytest.fixture
async def fake(run: Started) -> DemoServer:
    """A fake provider as it comes."""
    return await run()


@pytest.fixture
async def client(fake: DemoServer) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own SDK, without retries."""
    async with openai.AsyncOpenAI(base_url=f"{fake.base_url}/v1", api_key="sk-test", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def claude(fake: DemoServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's own SDK, without retries."""
    async with anthropic.AsyncAnthropic(base_url=fake.base_url, api_key="sk-test", max_retries=0) as sdk:
        yield sdk


@dataclass
class Raw:
    """What came back over a raw socket: all bytes until the peer ended or the time was up, and how it ended."""

    data: bytes
    end: str  # fin, reset or open

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """The body, a chunked one put together; whatever is left where a chunk is cut off."""
        body = self.data.partition(b"\r\n\r\n")[2]
        if self.headers.get("transfer-encoding") != "chunked":
            return body
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            if not size or int(size, 16) == 0:
                break
            whole += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        return whole

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        return [event for event in self.body.decode().split("\n\n") if event]


def request(
    body: Any, fake: str = "", path: str = "/v1/chat/completions", method: str = "POST", headers: str = ""
) -> bytes:
    """A request's bytes. `headers` are whole lines."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    script = f"x-fake: {fake}\r\n" if fake else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: fake\r\n{script}{headers}content-length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def ask(server: DemoServer, data: bytes, wait_s: float = 0.5) -> Raw:
    """Sends `data`, and reads until the peer ends or nothing has come for `wait_s`."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    got, end = b"", "open"
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(wait_s):
                piece = await reader.read(65536)
            if not piece:
                end = "fin"
                break
            got += piece
    except TimeoutError:
        pass
    except ConnectionResetError:
        end = "reset"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return Raw(got, end)


@pytest.fixture
def raw() -> Callable[..., Awaitable[Raw]]:
    """`await raw(server, body, fake="...", path=..., method=..., headers=..., wait_s=...)` over its own socket."""

    async def asked(server: DemoServer, body: Any, fake: str = "", wait_s: float = 0.5, **rest: Any) -> Raw:
        headers = rest.pop("headers", "")
        if "connection:" not in headers:
            headers += "connection: close\r\n"
        return await ask(server, request(body, fake, headers=headers, **rest), wait_s)

    return asked


@pytest.fixture
def send() -> Callable[..., Awaitable[Raw]]:
    """`await send(server, bytes)`: the bytes as they are, over a socket of their own."""
    return ask


@pytest.fixture
def call() -> Callable[..., dict[str, Any]]:
    """The body of a small chat completion, with whatever else it should hold."""

    def made(**more: Any) -> dict[str, Any]:
        return {"model": "demo-small", "messages": [{"role": "user", "content": "How high is the tide?"}]} | more

    return made
