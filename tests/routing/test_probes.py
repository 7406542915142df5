"""Health probes: while a breaker is open the provider is asked something that costs nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

RULES = "[breaker]\nconsecutive_failures = 2\nopen_s = 0.6\nprobe_every_s = 0.4\nlongest_open_s = 30\n"


def taken() -> socket.socket:
    """Has a port on which nobody listens, and which nobody else gets before it is closed."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def dead(number: int) -> str:
    return f'[providers.f0]\nkind = "openai"\nbase_url = "http://127.0.0.1:{number}/v1"\napi_key = "sk-x"\n'


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_provider_that_comes_back_is_noticed_before_a_call_is_risked(stand: Any) -> None:
    from gateway.demo import DemoSettings, start

    held = taken()
    number = held.getsockname()[1]
    one = await stand(RULES + dead(number), providers=2)
    for _ in range(3):
        assert (await one.chat()).headers["x-tidegate-provider"] == "f1"
    assert [(event["provider"], event["model"]) for event in one.named("breaker_open")] == [("f0", "")]
    await asyncio.sleep(0.9)  # longer than open_s: free probes failed, so it is still open
    assert (await one.chat()).headers.get("x-tidegate-attempts") is None
    held.close()
    async with await start(DemoSettings(port=number)) as back:
        await until(lambda: one.named("breaker_half_open"))
        assert [request.path for request in back.requests] == ["/v1/models"]
        assert dict(back.requests[0].headers)[b"authorization"] == b"Bearer sk-x"
        for _ in range(2):
            assert (await one.chat()).headers["x-tidegate-provider"] == "f0"
        assert one.named("breaker_closed")
        await until(lambda: not one.gateway.routing.prober._tasks)
        seen = {request.path for request in back.requests}
        assert seen == {"/v1/models", "/v1/chat/completions"}
        await one.client.aclose()


async def test_a_worker_is_only_connected_to(stand: Any) -> None:
    one = await stand(RULES + '[workers.w0]\nbase_url = "{f0}/worker"\n')
    one.fakes[0].set_plan([{"fake": "status=500"}])
    for _ in range(2):
        await one.client.get("/workers/w0/x")
    calls, connected = one.fakes[0].stats.calls, one.fakes[0].stats.connections
    await until(lambda: one.fakes[0].stats.connections >= connected + 2)
    assert one.fakes[0].stats.calls == calls
    assert [event["provider"] for event in one.named("breaker_open")] == ["workers/w0"]


async def test_a_health_path_of_ones_own(stand: Any) -> None:
    one = await stand(RULES + '[workers.w0]\nbase_url = "{f0}/worker"\nhealth_path = "/worker/healthz"\n')
    one.fakes[0].set_plan([{"path": "/worker/x", "fake": "status=500"}])
    for _ in range(2):
        await one.client.get("/workers/w0/x")
    await until(lambda: any(request.path == "/worker/healthz" for request in one.fakes[0].requests))


async def test_probes_end_with_the_gateway(stand: Any) -> None:
    with taken() as held:
        one = await stand(RULES + dead(held.getsockname()[1]), providers=2)
        for _ in range(3):
            await one.chat()
        assert one.gateway.routing.prober._tasks  # the stand finds no task left after closing
