"""A real gateway with the semantic cache on, in front of a real fake provider."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
pass_headers = ["x-fake", "x-variant"]
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
api_key = "upstream"
[models.dear]
targets = ["fake/demo-small"]
[models.cheap]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[prices.dear]
input = 10
output = 20
[prices.cheap]
input = 1
output = 2
[clients.acme]
org = "one"
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.sister]
org = "one"
[[clients.sister.keys]]
secret = "tg-sister-secret-key"
[clients.other]
org = "two"
[[clients.other.keys]]
secret = "tg-other-secret-key"
[policy.semantic]
enabled = true
{more}
"""


class Site:
    """The gateway and its provider. Each test speaks under a system prompt of its own."""

    def __init__(self, server: Any, demo: Any) -> None:
        self.server = server
        self.demo = demo
        self.system = f"Tide {uuid.uuid4()}."
        self.http = httpx2.AsyncClient(base_url=server.address, timeout=30)

    def chat(self, text: Any, **more: Any) -> dict[str, Any]:
        said = [{"role": "system", "content": self.system}, {"role": "user", "content": text}]
        return {"model": "dear", "max_tokens": 8, "temperature": 0, "messages": said, **more}

    async def ask(
        self, body: dict[str, Any], key: str = "acme", path: str = "/v1/chat/completions", **headers: str
    ) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["authorization"] = f"Bearer tg-{key}-secret-key"
        return await self.http.post(path, json=body, headers=sent)

    async def say(self, text: Any, **more: Any) -> httpx2.Response:
        return await self.ask(self.chat(text, **more))


@pytest.fixture(scope="module")
def start_site(demo_process: Any, start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts a gateway with more configuration."""

    def start(more: str = "") -> Any:
        folder = tmp_path_factory.mktemp("semantic")
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
async def open_site(start_site: Any, demo_process: Any) -> AsyncIterator[Callable[..., Site]]:
    opened: list[Site] = []

    def start(more: str) -> Site:
        opened.append(Site(start_site(more), demo_process))
        return opened[-1]

    yield start
    for site in opened:
        await site.http.aclose()


@pytest.fixture(scope="session")
def pairs() -> list[dict[str, Any]]:
    """Labelled pairs of messages: kind, same (may have one answer), one, other."""
    lines = (Path(__file__).parent / "pairs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
