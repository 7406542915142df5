"""The queue of a real gateway in front of a provider with few slots, over sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest

from gateway.demo import DemoServer, DemoSettings
from gateway.demo import start as start_provider

CONFIG = """
[server]
metrics_public = true
[providers.fake]
kind = "openai"
base_url = "{base_url}/v1"
api_key = "upstream"
max_concurrent = {slots}
[models.m]
targets = ["fake/demo-small"]
[policy.queue]
max_waiting = 2000
max_waiting_per_client = 2000
{queue}
[clients.acme]
tier = "enterprise"
quota = {{ requests = [], concurrent = 1000 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.small]
tier = "enterprise"
quota = {{ requests = [], concurrent = 1000 }}
[[clients.small.keys]]
secret = "tg-small-secret-key"
"""
BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}


@pytest.fixture
async def provider() -> AsyncIterator[DemoServer]:
    server = await start_provider(DemoSettings(slots=4, service_time_ms=20, output_tokens=5))
    yield server
    await server.stop()


async def queued_calls(client: httpx2.AsyncClient) -> int:
    """How many calls wait."""
    lines = (await client.get("/metrics")).text.splitlines()
    return int(float(next(line for line in lines if line.startswith("tidegate_queue_waiting")).split()[-1]))


async def stats(provider: DemoServer) -> dict[str, Any]:
    async with httpx2.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(f"{provider.base_url}/fake/stats")).json()
    return found


@pytest.fixture
def queued(start: Callable[..., Any], provider: DemoServer) -> Callable[..., Any]:
    """A gateway in front of the provider."""

    async def begin(slots: int = 4, queue: str = "") -> Any:
        config = CONFIG.format(base_url=provider.base_url, slots=slots, queue=queue)
        return await asyncio.to_thread(start, config)

    return begin


def client_of(gateway: Any, name: str = "acme") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=gateway.address,
        headers={"authorization": f"Bearer tg-{name}-secret-key"},
        limits=httpx2.Limits(max_connections=500),
        timeout=60,
    )


async def test_200_calls_at_once_wait_their_turn_and_none_is_refused(queued: Any, provider: DemoServer) -> None:
    gateway = await queued()
    async with client_of(gateway) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=BODY) for _ in range(200)))
    assert [answer.status_code for answer in answers] == [200] * 200
    told = await stats(provider)
    assert told["max_in_flight"] == 4, "never one call more than it has slots, and all of them used"
    waited = [answer for answer in answers if "x-tidegate-wait-ms" in answer.headers]
    assert len(waited) >= 190
    for answer in waited:
        assert answer.headers["x-tidegate-queue-level"] in ("immediate", "fast", "normal", "batch", "deferred")
        assert int(answer.headers["x-tidegate-queue-position"]) >= 0
        assert int(answer.headers["x-tidegate-wait-estimate-ms"]) >= 0
        overhead = float(answer.headers["x-tidegate-overhead-ms"])
        assert overhead < int(answer.headers["x-tidegate-wait-ms"]) + 1000, "waiting is not overhead"
    assert max(int(answer.headers["x-tidegate-queue-position"]) for answer in waited) > 100


async def test_order_follows_priority(queued: Any, provider: DemoServer) -> None:
    gateway = await queued(slots=1)
    ended: list[str] = []
    async with client_of(gateway) as client:

        async def ask(urgency: str) -> None:
            headers = {"x-tidegate-priority": urgency, "x-tidegate-max-wait-ms": "60000"}
            answer = await client.post("/v1/chat/completions", json=BODY, headers=headers)
            assert answer.status_code == 200
            ended.append(urgency)

        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(ask("low"))
            while (await stats(provider))["calls"] < 2:
                await asyncio.sleep(0.01)
            for urgency in ["normal"] * 5 + ["urgent"] * 5:
                group.create_task(ask(urgency))
    order = [one for one in ended if one != "low"]
    assert order.count("urgent") == 5
    assert order[:4].count("urgent") >= 3
    assert "low" in ended[-5:]


async def test_a_thousand_calls_of_one_client_do_not_delay_anothers_first(queued: Any) -> None:
    gateway = await queued()
    async with client_of(gateway) as big, client_of(gateway, "small") as small:
        flood = [asyncio.ensure_future(big.post("/v1/chat/completions", json=BODY)) for _ in range(400)]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        first = await small.post("/v1/chat/completions", json=BODY)
        answers = await asyncio.gather(*flood)
    positions = [int(answer.headers.get("x-tidegate-queue-position", 0)) for answer in answers]
    assert max(positions) > 200
    assert int(first.headers.get("x-tidegate-queue-position", 0)) <= 1


async def test_what_would_wait_too_long_is_refused_with_the_time_to_come_back(queued: Any) -> None:
    gateway = await queued(slots=1)
    async with client_of(gateway) as client:
        flood = [asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY)) for _ in range(300)]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(20):
            while (await queued_calls(client)) < 50:
                await asyncio.sleep(0.05)
        headers = {"x-tidegate-max-wait-ms": "20", "x-tidegate-priority": "low"}
        began = time.monotonic()
        refused = await client.post("/v1/chat/completions", json=BODY, headers=headers)
        took = time.monotonic() - began
        for call in flood:
            call.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_wait_too_long"
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["x-tidegate-queue-position"]) >= 1
    assert took < 5, "at once, whatever the load of this machine"


async def test_clients_that_leave_while_they_wait_leave_nothing(queued: Any, provider: DemoServer) -> None:
    gateway = await queued(slots=1)
    async with client_of(gateway) as client:
        for _ in range(5):
            calls = [asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY)) for _ in range(40)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        answer = await client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 200
        page = (await client.get("/metrics")).text
    told = await stats(provider)
    # The provider counts a call until it sees that its connection closed; those who left in the queue never went.
    assert told["max_in_flight"] <= 10
    assert told["calls"] <= 100
    assert "tidegate_queue_waiting 0.0" in page


@pytest.mark.parametrize("protocol", ["native", "httptools"])
async def test_who_leaves_with_an_unread_body_is_gone_at_once(start: Any, protocol: str) -> None:
    """A worker's body is passed on as it comes, so nothing of it is read while its call waits."""
    worker = await start_provider(DemoSettings(service_time_ms=5000, slots=1))
    config = f'[workers.slow]\nbase_url = "{worker.base_url}/worker"\nmax_concurrent = 1\n'
    gateway = await asyncio.to_thread(start, config, protocol=protocol)
    admin = {"authorization": "Bearer tg-test-admin-key"}
    try:
        async with (
            httpx2.AsyncClient(base_url=gateway.address, headers=admin) as looking,
            httpx2.AsyncClient(base_url=gateway.address, headers={"x-api-key": "tg-test-client-key"}) as client,
        ):

            async def waiting(wanted: bool) -> bool:
                total = 0
                for _ in range(150):
                    total = (await looking.get("/control/v1/queue")).json()["total"]
                    if (total >= 4) if wanted else not total:
                        return True
                    await asyncio.sleep(0.02)
                return False

            calls = [asyncio.ensure_future(client.post("/workers/slow/send", json={"n": n})) for n in range(5)]
            assert await waiting(True)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert await waiting(False), "they would have stood there for another 5 s each"
    finally:
        await worker.stop()


async def test_a_stream_that_waits_shows_signs_of_life_to_the_sdk(queued: Any, provider: DemoServer) -> None:
    gateway = await queued(slots=1, queue="heartbeat = true\nheartbeat_s = 0.05")
    body = {**BODY, "stream": True}
    async with client_of(gateway) as client:
        calls = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for _ in range(30)]
        answers = await asyncio.gather(*calls)
        sdk = openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="tg-acme-secret-key", max_retries=0)
        more = [asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY)) for _ in range(20)]
        await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
        messages: Any = BODY["messages"]
        chunks = [chunk async for chunk in await sdk.chat.completions.create(model="m", messages=messages, stream=True)]
        await asyncio.gather(*more)
        await sdk.close()
    beaten = [answer for answer in answers if answer.text.startswith(": queued, ")]
    assert beaten
    for answer in beaten:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "x-tidegate-queue-position" in answer.headers
        assert int(answer.headers["x-tidegate-wait-ms"]) >= 40, "how long it has waited so far"
        assert float(answer.headers["x-tidegate-overhead-ms"]) < int(answer.headers["x-tidegate-wait-ms"]) + 1000
        assert answer.text.endswith("data: [DONE]\n\n")
    assert chunks


async def test_what_a_provider_compresses_unasked_is_plain_on_a_stream_that_heartbeats_began(
    queued: Any, provider: DemoServer
) -> None:
    gateway = await queued(slots=1, queue="heartbeat = true\nheartbeat_s = 0.02")
    provider.set_plan([{"fake": "gzip"}])
    async with client_of(gateway) as client:
        calls = (client.post("/v1/chat/completions", json={**BODY, "stream": True}) for _ in range(20))
        answers = await asyncio.gather(*calls)
    assert any(answer.text.startswith(": queued, ") for answer in answers)
    for answer in answers:
        assert answer.text.endswith("data: [DONE]\n\n"), answer.content


async def test_a_refusal_after_a_heartbeat_is_an_event(queued: Any) -> None:
    gateway = await queued(slots=1, queue="heartbeat = true\nheartbeat_s = 0.02")
    async with client_of(gateway) as client:
        flood = [asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY)) for _ in range(100)]
        await asyncio.sleep(0.05)
        headers = {"x-tidegate-max-wait-ms": "150", "x-tidegate-priority": "low"}
        answer = await client.post("/v1/chat/completions", json={**BODY, "stream": True}, headers=headers)
        for call in flood:
            call.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    if answer.status_code == 200:  # else it was refused at once, before any heartbeat
        assert answer.text.startswith(": queued, ")
        assert '"code":"queue_wait_too_long"' in answer.text
    else:
        assert answer.json()["error"]["code"] == "queue_wait_too_long"


async def test_long_bodies_do_not_pile_up_while_they_wait(queued: Any) -> None:
    gateway = await queued(slots=1, queue="max_waiting_mib = 4")
    text = "x" * 900_000
    async with client_of(gateway) as client:
        bodies = [{**BODY, "messages": [{"role": "user", "content": f"{n}{text}"}]} for n in range(8)]
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for body in bodies))
        small = await client.post("/v1/chat/completions", json=BODY)
    codes = [answer.json()["error"]["code"] for answer in answers if answer.status_code != 200]
    assert codes
    assert set(codes) == {"queue_full"}
    assert len(codes) <= 5, "one goes at once, two wait"
    assert small.status_code == 200
