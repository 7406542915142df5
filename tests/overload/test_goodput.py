"""More calls than we can serve: what is served stays near what can be served, and who matters is served first."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from loadtests.open_loop import Load, Seen, closed

BURNING = 'policies = ["identity", "access", "burning:Burning", "quota", "budget", "queue"]\n'


def request(key: str, priority: str = "", path: str = "/v1/chat/completions") -> bytes:
    body = json.dumps({"model": "small", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}).encode()
    more = f"x-tidegate-priority: {priority}\r\n" if priority else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-{key}-secret-key\r\n{more}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )


def slow_gateway(start: Any, demo: Any, config: str, more: str = "") -> Any:
    """Some two or three hundred calls a second, of our own work alone."""
    text = BURNING + config.format(origin=demo.origin, more="[overload]\nlag_ms = 50\n" + more)
    return start(text, env={"PYTHONPATH": str(Path(__file__).parent)})


async def load(server: Any, rate: float, seconds: float, *requests: tuple[str, bytes]) -> Seen:
    return await Load(server.port, list(requests), rate, seconds, most=1000, patience_s=3).run()


async def test_goodput_at_twice_our_own_capacity(start: Any, demo_process: Any, config: str) -> None:
    server = await asyncio.to_thread(slow_gateway, start, demo_process, config)
    for _ in range(4):  # again while what else the machine does changes under way
        await at_ease(server)
        capacity = await closed(server.port, request("gold"), 2.0, at_once=8)
        await load(server, 2 * capacity, 2.0, ("gold", request("gold")))  # it finds its pressure
        seen = await load(server, 2 * capacity, 4.0, ("gold", request("gold")))
        told = (seen.statuses, capacity, seen.goodput, seen.percentile(0.99))
        if seen.goodput >= 0.55 * capacity and seen.statuses["503"]:
            break
    assert seen.goodput >= 0.55 * capacity, told
    assert seen.statuses["503"] > 0, told
    assert not set(seen.statuses) - {"200", "503"}, told
    assert server.request("GET", "/livez", key=None)[0] == 200
    await at_ease(server)


async def test_high_priority_is_refused_last(start: Any, demo_process: Any, config: str) -> None:
    """Four calls of a basic client to one of an enterprise client, at twice the capacity: the one is served."""
    server = await asyncio.to_thread(slow_gateway, start, demo_process, config)
    low, high = request("acme", "urgent"), request("gold", "urgent")  # basic may claim no more than normal
    for _ in range(6):  # again while what else the machine does changes under way
        await at_ease(server)
        capacity = await closed(server.port, request("gold"), 1.5, at_once=8)
        both = [
            Load(server.port, [("low", low)], 1.6 * capacity, 6.0, most=1000, patience_s=5),
            Load(server.port, [("high", high)], 0.4 * capacity, 6.0, most=1000, patience_s=5),
        ]
        seen_low, seen_high = await asyncio.gather(*(one.run() for one in both))
        if seen_low.statuses["503"] > 0.2 * seen_low.due and seen_high.statuses["200"] >= 0.97 * seen_high.due:
            break
    assert seen_low.statuses["503"] > 0.2 * seen_low.due
    assert seen_high.statuses["200"] >= 0.97 * seen_high.due, seen_high.statuses


async def at_ease(server: Any) -> None:
    """Until the pressure is gone and a call is served."""
    body = {"model": "small", "messages": []}
    async with asyncio.timeout(30):
        while server.request("POST", "/v1/chat/completions", body, "tg-gold-secret-key")[
            0
        ] == 503 or "tidegate_overload_pressure 0.0" not in metrics(server):
            await asyncio.sleep(0.1)


def metrics(server: Any) -> str:
    page: bytes = server.request("GET", "/metrics", key="tg-test-admin-key", accept="text/plain")[2]
    return page.decode()
