"""A real gateway in front of a real fake provider, and calls that could be answered without it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

CONFIG = """
[server]
metrics_public = true
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 600
pass_headers = ["x-fake", "x-variant"]
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
api_key = "upstream"
pass_headers = ["x-fake"]
[models.small]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[prices.small]
input = 1
output = 2
[clients.acme]
org = "one"
quota = {{ requests = ["100000/minute"], concurrent = 600 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.sister]
org = "one"
quota = {{ requests = ["100000/minute"], concurrent = 600 }}
[[clients.sister.keys]]
secret = "tg-sister-secret-key"
[clients.other]
org = "two"
[[clients.other.keys]]
secret = "tg-other-secret-key"
[policy.queue]
max_waiting = 1000
max_waiting_per_client = 1000
{more}
"""


class Site:
    """The gateway, its provider, and a client of it. Questions are made this site's own."""

    def __init__(self, server: Any, demo: Any) -> None:
        self.server = server
        self.demo = demo
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=600)
        self.http = httpx2.AsyncClient(base_url=server.address, timeout=30, limits=limits)

    @staticmethod
    def chat(**more: Any) -> dict[str, Any]:
        """A question that nobody asked before."""
        said = [{"role": "user", "content": f"Tide {uuid.uuid4()}."}]
        return {"model": "small", "max_tokens": 8, "temperature": 0, "messages": said, **more}

    async def ask(
        self, body: dict[str, Any], key: str = "acme", path: str = "/v1/chat/completions", **headers: str
    ) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["authorization"] = f"Bearer tg-{key}-secret-key"
        return await self.http.post(path, json=body, headers=sent)

    def upstream(self) -> int:
        """Calls that the provider has seen."""
        return int(self.demo.stats()["calls"])

    async def under_way(self, before: int) -> None:
        """Until the provider has seen one call more than before."""
        async with asyncio.timeout(20):
            while self.upstream() == before:
                await asyncio.sleep(0.02)

    async def followed(self, number: int) -> None:
        """Until so many calls wait for another one's answer."""
        line = f"tidegate_cache_followers {number}.0"
        async with asyncio.timeout(20):
            while line not in (await self.http.get("/metrics", headers={"accept": "text/plain"})).text:
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def start_site(demo_process: Any, start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts a gateway with more configuration."""

    def start(more: str = "") -> Any:
        folder = tmp_path_factory.mktemp("cache")
        return start_module(folder, CONFIG.format(origin=demo_process.origin, more=more))

    return start


@pytest.fixture(scope="module")
def plain_server(start_site: Any) -> Any:
    return start_site()


@pytest.fixture
async def site(plain_server: Any, demo_process: Any) -> AsyncIterator[Site]:
    made = Site(plain_server, demo_process)
    yield made
    await made.http.aclose()


@pytest.fixture
async def make_site(demo_process: Any) -> AsyncIterator[Callable[..., Site]]:
    """A client of a gateway that was started already."""
    opened: list[Site] = []

    def make(server: Any) -> Site:
        opened.append(Site(server, demo_process))
        return opened[-1]

    yield make
    for site in opened:
        await site.http.aclose()


@pytest.fixture
def open_site(start_site: Any, make_site: Any) -> Callable[..., Site]:
    return lambda more: make_site(start_site(more))
