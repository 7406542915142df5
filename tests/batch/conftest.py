"""A gateway that batches, before a provider of our own: it refuses some inputs, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import orjson
import pytest

CONFIG = """
[providers.own]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = {slots}
[providers.other]
kind = "openai"
base_url = "{origin}/other"
api_key = "upstream"
[models.small]
targets = ["own/emb"]
[models.both]
targets = ["own/emb", "other/emb"]
[models.lone]
targets = ["own/emb"]
[models.mod]
targets = ["own/mod"]
[prices.small]
input = 0.13
request = 0.000001
[prices.both]
input = 0.13
[clients.acme]
org = "one"
quota = {{ requests = ["100000/minute"], concurrent = 600 }}
[[clients.acme.keys]]
id = "acme-key"
secret = "tg-acme-secret-key"
[clients.sister]
org = "one"
[[clients.sister.keys]]
secret = "tg-sister-secret-key"
[clients.tight]
quota = {{ requests = ["2/hour"] }}
[[clients.tight.keys]]
secret = "tg-tight-secret-key"
[policy.cache]
mode = "{cache}"
[policy.batch]
enabled = true
window_ms = {window}
models = {{ lone = 0 }}
max_inputs = 40
{more}
"""


class Provider:
    """Answers embeddings and moderations on a real socket. An input is refused where "bad" is in it; "slow" makes the
    whole request wait for `go`; "die" closes the connection in the middle of the answer."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cancelled = 0
        self.origin = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = orjson.loads(await reader.readexactly(int(fields[b"content-length"])))
                path = head.split(b" ")[1].decode()
                await self._answer(path, body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.asked.append({"path": path, **body, "input": inputs})
        self.arrived.set()
        text = orjson.dumps(inputs).decode()
        if "slow" in text:
            gone = asyncio.ensure_future(reader.read(1))
            go = asyncio.ensure_future(self.go.wait())
            await asyncio.wait((gone, go), return_when=asyncio.FIRST_COMPLETED)
            go.cancel()
            if gone.done():
                self.cancelled += 1
                raise ConnectionError
            gone.cancel()
            await asyncio.wait((gone, go))
        status, made = 200, self._made(path, body, inputs)
        if "bad" in text:
            status, made = 400, {"error": {"message": "bad input", "type": "invalid_request_error"}}
        if "down" in text and path.startswith("/v1"):
            status, made = 503, {"error": {"message": "overloaded", "type": "server_error"}}
        answer = orjson.dumps(made)
        head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        if "die" in text:
            writer.write(head.encode() + answer[: len(answer) // 2])
            raise ConnectionError
        writer.write(head.encode() + answer)
        await writer.drain()

    def _made(self, path: str, body: Any, inputs: list[Any]) -> Any:
        if path.endswith("moderations"):
            results = [{"flagged": "flag" in one, "said": one} for one in inputs]
            return {"id": "modr-1", "model": body["model"], "results": results}
        data = [{"object": "embedding", "index": i, "embedding": [0.5, len(one)]} for i, one in enumerate(inputs)]
        tokens = sum(3 + len(one) for one in inputs)
        if any("short" in one for one in inputs):
            data.pop()
        data.reverse()  # whatever order: the index counts
        return {
            "object": "list",
            "data": data,
            "model": body["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


class Site:
    def __init__(self, server: Any, provider: Provider) -> None:
        self.server = server
        self.provider = provider
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=300)
        self.http = httpx2.AsyncClient(base_url=server.address, timeout=20, limits=limits)

    async def ask(self, input: Any, key: str = "acme", model: str = "small", **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer tg-{key}-secret-key", **more.pop("headers", {})}
        path = "/v1/moderations" if model == "mod" else "/v1/embeddings"
        return await self.http.post(path, json={"model": model, "input": input, **more}, headers=headers)

    async def together(self, *inputs: Any, **more: Any) -> list[httpx2.Response]:
        self.provider.asked.clear()
        return await asyncio.gather(*[self.ask(one, **more) for one in inputs])


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    made.go.set()
    server.close()


@pytest.fixture
async def open_site(start: Any, provider: Provider) -> AsyncIterator[Callable[..., Site]]:
    opened: list[Site] = []

    def begin(*, window: float = 250, slots: int = 100, cache: str = "observe", more: str = "") -> Site:
        config = CONFIG.format(origin=provider.origin, window=window, slots=slots, cache=cache, more=more)
        opened.append(Site(start(config), provider))
        return opened[-1]

    yield begin
    for site in opened:
        await site.http.aclose()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()
