"""Quota and budget of a real gateway in front of a real provider, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from gateway.demo import DemoServer, DemoSettings
from gateway.demo import start as start_provider

CONFIG = """
policies = ["identity", "access", "quota", "budget"]
[providers.fake]
kind = "openai"
base_url = "{base_url}"
api_key = "upstream"
max_concurrent = 600
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
api_key = "upstream"
[models.metered]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[prices.metered]
input = 0
output = 10
[clients.acme]
quota = {{ requests = ["{requests}"], tokens = ["1000000/day"], concurrent = 1000 }}
budget = {{ month_usd = 0.01, hard = true }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
"""
BODY = {"model": "metered", "max_tokens": 100, "messages": [{"role": "user", "content": "Count to a hundred."}]}
HEADERS = {"authorization": "Bearer tg-acme-secret-key"}


@pytest.fixture
async def provider() -> AsyncIterator[DemoServer]:
    """Answers with exactly as many tokens as are asked for, so that a call costs its worst case: 0.001 USD."""
    server = await start_provider(DemoSettings(output_tokens=100))
    yield server
    await server.stop()


async def stats(provider: DemoServer) -> dict[str, Any]:
    async with httpx2.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(f"{provider.base_url}/fake/stats")).json()
    return found


async def test_500_simultaneous_calls_on_a_budget_of_ten(start: Callable[..., Any], provider: DemoServer) -> None:
    config = CONFIG.format(base_url=f"{provider.base_url}/v1", origin=provider.base_url, requests="100000/minute")
    gateway = await asyncio.to_thread(start, config)
    limits = httpx2.Limits(max_connections=500)
    async with httpx2.AsyncClient(base_url=gateway.address, headers=HEADERS, limits=limits, timeout=60) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=BODY) for _ in range(500)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 10 + [429] * 490
    assert (await stats(provider))["calls"] == 10
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    asked = ("usage", "--by", "client", "--json", "--config", str(gateway.config))
    (row,) = await asyncio.to_thread(gateway.tidegate, *asked)
    assert (row["calls"], row["refused"], row["attempts"], row["charge_usd"]) == (500, 490, 10, "0.01")


async def test_a_refusal_by_quota_has_every_header_in_both_dialects(
    start: Callable[..., Any], provider: DemoServer
) -> None:
    config = CONFIG.format(base_url=f"{provider.base_url}/v1", origin=provider.base_url, requests="1/minute")
    gateway = await asyncio.to_thread(start, config)
    async with httpx2.AsyncClient(base_url=gateway.address, headers=HEADERS) as client:
        served = await client.post("/v1/chat/completions", json=BODY)
        refused = await client.post("/v1/chat/completions", json=BODY)
        message = {**BODY, "model": "claude"}
        other = await client.post("/v1/messages", json=message, headers={"anthropic-version": "2023-06-01"})
    assert served.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(served.headers["x-ratelimit-remaining-tokens"]) < 1_000_000
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "1 requests a minute of client acme" in refused.json()["error"]["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert 0 < int(refused.headers["retry-after-ms"]) <= 60_000
    for family in ("requests", "tokens"):
        for part in ("limit", "remaining", "reset"):
            assert refused.headers[f"x-ratelimit-{part}-{family}"]
    assert other.status_code == 429
    assert other.json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(other.headers["retry-after"]) <= 60
    for family in ("requests", "tokens"):
        for part in ("limit", "remaining", "reset"):
            assert other.headers[f"anthropic-ratelimit-{family}-{part}"]
    assert datetime.fromisoformat(other.headers["anthropic-ratelimit-requests-reset"]) > datetime.now(UTC)
