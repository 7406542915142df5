"""Pools of a real gateway in front of real providers, over sockets."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from gateway.demo import DemoServer, DemoSettings
from gateway.demo import start as start_provider

CONFIG = """
[providers.one]
kind = "openai"
base_url = "{one}/v1"
api_key = "upstream"
max_concurrent = 600
pass_headers = ["x-fake"]
[providers.two]
kind = "openai"
base_url = "{two}/v1"
api_key = "upstream"
[models.bounded]
targets = ["one/demo-small"]
pools = {{ gpt = "output_tokens" }}
[models.told]
targets = ["one/demo-small"]
pools = {{ learned = "tokens" }}
[models.refilled]
targets = ["one/demo-small"]
pools = {{ refilled = "requests" }}
[models.moving]
targets = [
  {{ to = "one/demo-small", pools = {{ first = "output_tokens" }} }},
  {{ to = "two/demo-small", pools = {{ second = "output_tokens" }} }},
]
[workers.mailer]
base_url = "{one}/worker"
stated_pools = ["email"]
pools = {{ database = 5 }}
[workers.other]
base_url = "{one}/worker"
[pools.gpt]
unit = "tokens"
capacity = 1_100
refill_per_s = 0
reserved_percent = 10
lend_idle = false
[pools.learned]
unit = "tokens"
capacity = 100_000
refill_per_s = 0
reserved_percent = 0
[pools.refilled]
capacity = 5
refill_per_s = 10
reserved_percent = 0
[pools.first]
unit = "tokens"
capacity = 1_000
refill_per_s = 0
reserved_percent = 0
[pools.second]
unit = "tokens"
capacity = 1_000
refill_per_s = 0
reserved_percent = 0
[pools.database]
refill_per_s = 0
[pools.email]
refill_per_s = 0
[tiers.enterprise]
concurrent = 1000
[clients.acme]
tier = "enterprise"
quota = {{ requests = ["100000/minute"] }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
"""
HEADERS = {"authorization": "Bearer tg-acme-secret-key", "x-tidegate-max-wait-ms": "0"}
ADMIN = {"authorization": "Bearer tg-test-admin-key"}


def body(model: str, max_tokens: int = 100) -> dict[str, Any]:
    return {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "Count on."}]}


@pytest.fixture
async def one() -> AsyncIterator[DemoServer]:
    """Answers with exactly as many tokens as are asked for, so that a call uses its worst case."""
    server = await start_provider(DemoSettings(output_tokens=100, service_time_ms=20))
    yield server
    await server.stop()


@pytest.fixture
async def two() -> AsyncIterator[DemoServer]:
    server = await start_provider(DemoSettings(output_tokens=60))
    yield server
    await server.stop()


@pytest.fixture
async def client(start: Callable[..., Any], one: DemoServer, two: DemoServer) -> AsyncIterator[httpx2.AsyncClient]:
    gateway = await asyncio.to_thread(start, CONFIG.format(one=one.base_url, two=two.base_url))
    limits = httpx2.Limits(max_connections=500)
    async with httpx2.AsyncClient(base_url=gateway.address, headers=HEADERS, limits=limits, timeout=60) as client:
        yield client


async def available(client: httpx2.AsyncClient) -> dict[tuple[str, str], int]:
    """By pool and part."""
    page = (await client.get("/metrics", headers=ADMIN)).text
    found = re.findall(r"tidegate_pool_available\{(.*)\} (\S+)", page)
    labels = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]
    return {(label["pool"], label["part"]): int(value) for label, value in labels}


async def test_500_simultaneous_calls_on_a_pool_of_ten(client: httpx2.AsyncClient, one: DemoServer) -> None:
    assert (await available(client))["gpt", "shared"] == 990
    answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body("bounded", 99)) for _ in range(500)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 490
    async with httpx2.AsyncClient() as other:
        assert (await other.get(f"{one.base_url}/fake/stats")).json()["calls"] == 10
    assert (await available(client))["gpt", "shared"] == 0
    # The reserved part is there for the urgent ones, of which one fits.
    urgent = {"x-tidegate-priority": "urgent"}
    answers = await asyncio.gather(
        *(client.post("/v1/chat/completions", json=body("bounded"), headers=urgent) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 19
    assert (await available(client))["gpt", "reserved"] <= 10


async def test_a_call_that_fails_over_is_counted_where_it_was_served(
    client: httpx2.AsyncClient, two: DemoServer
) -> None:
    headers = {"x-fake": "status=429; retry-after=30"}
    answer = await client.post("/v1/chat/completions", json=body("moving"), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tidegate-provider"] == "two"
    there = await available(client)
    assert there["first", "shared"] == 1000
    assert there["second", "shared"] == 940
    # The first provider asked not to be called for 30 s: its pool is closed, and nothing is sent there.
    refused = await client.post("/v1/chat/completions", json={**body("moving"), "n": 15})
    assert refused.status_code == 429


async def test_the_next_call_waits_for_what_the_provider_has_left(client: httpx2.AsyncClient) -> None:
    headers = {"x-fake": "remaining-tokens=150"}
    first = await client.post("/v1/chat/completions", json=body("told", 10), headers=headers)
    assert first.status_code == 200, first.text
    assert (await available(client))["learned", "shared"] == 150
    second = await client.post("/v1/chat/completions", json=body("told", 150))
    assert second.status_code == 429
    assert "pool learned" in second.json()["error"]["message"]
    third = await client.post("/v1/chat/completions", json=body("told", 10))
    assert third.status_code == 200


async def test_a_worker_call_states_what_it_needs(client: httpx2.AsyncClient) -> None:
    good = await client.post("/workers/mailer/send", json={}, headers={"x-tidegate-needs": "email=3"})
    assert good.status_code == 200, good.text
    there = await available(client)
    assert there["email", "shared"] == 897
    assert there["database", "shared"] == 44_995
    bad = await client.post("/workers/mailer/send", json={}, headers={"x-tidegate-needs": "sms=3"})
    assert bad.status_code == 400
    assert "email" in bad.text
    model = await client.post("/v1/chat/completions", json=body("told"), headers={"x-tidegate-needs": "email=3"})
    assert model.status_code == 400
    assert model.json()["error"]["param"] == "x-tidegate-needs"


async def test_a_worker_call_states_what_it_needs_in_its_body(client: httpx2.AsyncClient) -> None:
    async def send(requirements: Any, key: str = "resourceRequirements", **headers: str) -> httpx2.Response:
        sent = {"action": "send", key: requirements, "text": "x" * 30_000}
        return await client.post("/workers/mailer/send", json=sent, headers=headers)

    before = (await available(client))["email", "shared"]
    good = await send({"email": 3})
    assert good.status_code == 200, good.text
    assert int(dict(good.json()["headers"])["content-length"]) > 30_000, "the body goes on as it came"
    assert (await available(client))["email", "shared"] == before - 3
    assert (await send({"email": 2}, "resource_requirements")).status_code == 200
    assert (await send({"email": 4}, **{"x-tidegate-needs": "email=1"})).status_code == 200, "the header counts first"
    assert (await send({"email": 0})).status_code == 200
    assert (await send(None)).status_code == 200
    assert (await available(client))["email", "shared"] == before - 6
    for bad in ({"sms": 3}, {"email": -1}, {"email": 1.5}, {"email": "3"}, {"email": True}, {"email": 10**13}, [], 3):
        answer = await send(bad)
        assert answer.status_code == 400, bad
        assert answer.json()["code"] == "invalid_request"
    twice = b'{"resourceRequirements": {"email": 900}, "resourceRequirements": {"email": 1}}'
    json = {"content-type": "application/json"}
    assert (await client.post("/workers/mailer/send", content=twice, headers=json)).status_code == 400
    both = b'{"resourceRequirements": {"email": 900}, "resource_requirements": {"email": 1}}'
    assert (await client.post("/workers/mailer/send", content=both, headers=json)).status_code == 400
    # What is no JSON, longer than is looked at, or of another worker goes on unread.
    assert (await client.post("/workers/mailer/send", content=twice)).status_code == 200
    assert (await client.post("/workers/mailer/send", content=b"{" + twice, headers=json)).status_code == 400
    long = b'{"text": "%s", "resourceRequirements": {"email": 900}}' % (b"x" * 70_000)
    assert (await client.post("/workers/mailer/send", content=long, headers=json)).status_code == 200
    assert (await client.post("/workers/other/send", content=twice, headers=json)).status_code == 200
    assert (await available(client))["email", "shared"] == before - 6


async def test_calls_wait_for_the_refill_and_none_is_refused(client: httpx2.AsyncClient) -> None:
    """5 at once, then 10 a second: the last of twelve comes after 0.7 s, and nobody sees a 429."""
    began = time.monotonic()
    patient = {"x-tidegate-max-wait-ms": "30000"}
    answers = await asyncio.gather(
        *(client.post("/v1/chat/completions", json=body("refilled", 10), headers=patient) for _ in range(12))
    )
    assert [answer.status_code for answer in answers] == [200] * 12
    assert time.monotonic() - began >= 0.65
    assert 1 <= sum("x-tidegate-wait-ms" in answer.headers for answer in answers) <= 7  # fewer where they come slowly
