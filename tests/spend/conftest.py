"""A real gateway in front of a real fake provider, with a dear model and cheaper ones."""

from __future__ import annotations

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
[providers.second]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 600
pass_headers = ["x-fake"]
[providers.single]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 1
pass_headers = ["x-fake"]
[models.waited]
targets = ["single/demo-large"]
[prices.waited]
input = 10
output = 20
[models.dear]
targets = ["fake/demo-large"]
aliases = ["best"]
[models.cheap]
targets = ["second/demo-small"]
abilities = {{ context = 20000, tools = true }}
[models.tiny]
targets = ["fake/demo-tiny"]
abilities = {{ context = 50000, vision = true, json_schema = true }}
[models.pooled]
targets = ["fake/demo-large"]
pools = {{ shared = 40000 }}
[prices.pooled]
input = 10
output = 20
[prices.dear]
input = 10
output = 20
[prices.cheap]
input = 1
output = 2
[prices.tiny]
input = 2
output = 3
[pools.shared]
unit = "tokens"
capacity = 100000
refill_per_s = 1
[clients.acme]
quota = {{ requests = ["100000/minute"], concurrent = 600 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.narrow]
models = ["dear"]
[[clients.narrow.keys]]
secret = "tg-narrow-secret-key"
[clients.big]
tier = "enterprise"
[[clients.big.keys]]
secret = "tg-big-secret-key"
[clients.frugal]
budget = {{ day_usd = 0.01 }}
[[clients.frugal.keys]]
secret = "tg-frugal-secret-key"
[policy.downgrade]
chains = {{ dear = "cheap", cheap = "tiny", pooled = "cheap", waited = "cheap" }}
{more}
"""


class Site:
    """The gateway and a client of it. Questions are made this site's own."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.http = httpx2.AsyncClient(base_url=server.address, timeout=30)

    @staticmethod
    def chat(**more: Any) -> dict[str, Any]:
        said = [{"role": "user", "content": f"Tide {uuid.uuid4()}."}]
        return {"model": "dear", "max_tokens": 8, "temperature": 0, "messages": said, **more}

    async def ask(
        self, body: dict[str, Any], key: str = "acme", path: str = "/v1/chat/completions", **headers: str
    ) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["authorization"] = f"Bearer tg-{key}-secret-key"
        return await self.http.post(path, json=body, headers=sent)

    def row(self, answer: httpx2.Response) -> dict[str, Any]:
        """The ledger's row of a call."""
        return next(row for row in self.server.calls() if row["id"] == answer.headers["x-request-id"])


@pytest.fixture(scope="module")
def start_site(demo_process: Any, start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts a gateway with more of [policy.downgrade], or whatever follows it."""

    def start(more: str = "") -> Any:
        folder = tmp_path_factory.mktemp("spend")
        return start_module(folder, CONFIG.format(origin=demo_process.origin, more=more))

    return start


@pytest.fixture(scope="module")
def always(start_site: Any) -> Any:
    return start_site("when = { always = true }")


@pytest.fixture
async def site(always: Any) -> AsyncIterator[Site]:
    made = Site(always)
    yield made
    await made.http.aclose()


@pytest.fixture
async def open_site(start_site: Any) -> AsyncIterator[Callable[..., Site]]:
    opened: list[Site] = []

    def start(more: str) -> Site:
        opened.append(Site(start_site(more)))
        return opened[-1]

    yield start
    for site in opened:
        await site.http.aclose()
