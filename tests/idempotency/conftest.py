"""A real gateway in front of a real fake provider, and calls with idempotency keys."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 600
pass_headers = ["x-fake", "x-nonce"]
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
api_key = "upstream"
pass_headers = ["x-fake"]
[workers.echo]
base_url = "{origin}/worker"
[models.small]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[clients.acme]
org = "one"
quota = {{ requests = ["100000/minute"], concurrent = 500 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.sister]
org = "one"
quota = {{ requests = ["100000/minute"], concurrent = 500 }}
[[clients.sister.keys]]
secret = "tg-sister-secret-key"
[clients.other]
org = "two"
quota = {{ requests = ["1/hour"], concurrent = 500 }}
[[clients.other.keys]]
secret = "tg-other-secret-key"
{more}
"""
CHAT = {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": "Tide."}]}


class Site:
    """The gateway, its provider, and a client of it. Keys are made this site's own."""

    def __init__(self, server: Any, demo: Any, prefix: str) -> None:
        self.server = server
        self.demo = demo
        self.prefix = prefix
        self.http = httpx2.AsyncClient(
            base_url=server.address, timeout=60, limits=httpx2.Limits(max_connections=300), trust_env=False
        )
        self._before = demo.stats()["calls"]

    @property
    def executed(self) -> int:
        """Calls that reached the provider."""
        calls: int = self.demo.stats()["calls"] - self._before
        return calls

    @property
    def in_flight(self) -> int:
        """Calls that the provider is answering."""
        count: int = self.demo.stats()["in_flight"]
        return count

    def fake(self, path: str, body: Any = None) -> Any:
        """The fake provider's own pages."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{self.demo.origin}/fake/{path}", data
        ) as answer:
            return json.loads(answer.read())

    def key(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    async def post(
        self,
        key: str | None = "k",
        path: str = "/v1/chat/completions",
        body: Any = CHAT,
        who: str = "acme",
        **more: Any,
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer tg-{who}-secret-key"}
        if key is not None:
            headers["idempotency-key"] = self.key(key)
        headers.update({name.replace("_", "-"): value for name, value in more.items()})
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.http.post(path, headers=headers, **content)

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not happened():
                await asyncio.sleep(0.01)

    async def calls(self) -> list[dict[str, Any]]:
        """The ledger's latest, newest first."""
        found: list[dict[str, Any]] = await asyncio.to_thread(self.server.calls)
        return found


Open = Callable[..., Any]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, start_session: Any, demo_process: Any) -> Any:
    """One gateway for all tests that need none of their own."""
    config = CONFIG.format(origin=demo_process.origin, more="")
    return start_session(tmp_path_factory.mktemp("idempotency"), config)


@pytest.fixture
async def site(shared: Any, start: Callable[..., Any], demo_process: Any) -> AsyncIterator[Open]:
    """Gives the shared site; one of the test's own with `more` in its configuration, or `own`."""
    sites: list[Site] = []

    async def open(more: str = "", own: bool = False) -> Site:
        server = shared
        if more or own:
            config = CONFIG.format(origin=demo_process.origin, more=more)
            server = await asyncio.to_thread(start, config)
        sites.append(Site(server, demo_process, uuid.uuid4().hex))
        return sites[-1]

    yield open
    for one in sites:
        await one.http.aclose()
    if sites:
        await sites[0].until(lambda: sites[0].in_flight == 0)


@pytest.fixture
def chat() -> dict[str, Any]:
    """A body as `post` sends it, to be changed."""
    return dict(CHAT)
