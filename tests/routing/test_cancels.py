"""Calls that are cancelled at any moment, some of them twice: nothing is lost, leaked or mixed up.

TIDEGATE_CANCELS sets how many (2,000 by default; the proof is 100,000, which leaves its figures in build/cancels.json).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream.native import NativeClient
from gateway.upstream.pool import Pool

CANCELS = int(os.environ.get("TIDEGATE_CANCELS", "2000"))
ROOT = Path(__file__).resolve().parents[2]
CALLERS = 12
SLOTS = 4  # connections: callers wait for them
PHASES = ("pool wait", "connect", "headers", "body")
CONFIG = """
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
pass_headers = ["x-fake", "x-nonce"]
max_connections = 4
timeouts = { connect_s = 20, first_byte_s = 20, idle_s = 20, total_s = 60 }
[breaker]
consecutive_failures = 1000000
min_calls = 1000000
[clients.busy]
quota = { requests = [], concurrent = 12 }
[[clients.busy.keys]]
secret = "tg-busy-secret-key"
"""
#: Answers of every sort, some without an end, some on connections that close, so that others must be made.
FAKES = (
    "", "close", "latency-ms=1", "latency-ms=2; close", "slice=200", "slice=50; close", "chunk-bytes=60; chunks=8",
    "chunk-ms=1; chunks=4", "chunk-ms=2; chunks=10", "chunk-ms=3; chunks=6; close", "latency-ms=3; chunk-ms=1",
    "status=500; should-retry=false", "stall=after:2; chunks=6", "stall=body", "halfopen",
)  # fmt: skip


class Caller:
    """One call through the application itself, without a client of its own: cancelling its task is all there is."""

    def __init__(self, app: Any, number: int, chance: random.Random) -> None:
        self.app = app
        self.nonce = f"nonce-{number}-"
        self.stream = chance.random() < 0.5
        self.fake = chance.choice(FAKES)
        self.status = 0
        self.body = b""
        self.finished = False
        self.left = asyncio.Event()

    async def run(self) -> None:
        ask = {"model": "m", "stream": self.stream, "messages": [{"role": "user", "content": self.nonce}]}
        body = json.dumps(ask).encode()
        headers = {
            "host": "x", "authorization": "Bearer tg-busy-secret-key", "content-type": "application/json",
            "content-length": str(len(body)), "x-fake": self.fake, "x-nonce": self.nonce,
        }  # fmt: skip
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions", "query_string": b"", "scheme": "http", "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.body += message["body"]
                self.finished = not message.get("more_body", False)

        await self.app(scope, receive, send)

    def check(self) -> None:
        """Whatever came is this call's own."""
        text = self.body.decode()
        assert text.count("nonce-") == text.count(self.nonce), (self.nonce, text)
        if self.finished and self.status == 200:
            assert self.nonce in text
            assert not self.stream or text.endswith("data: [DONE]\n\n") or '"error"' in text


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> dict[asyncio.Task[Any], str]:
    """What each task's exchange is at: pool wait, connect, headers or body."""
    where: dict[asyncio.Task[Any], str] = {}
    send, acquire = NativeClient.send, Pool.acquire

    async def noted_send(self: NativeClient, request: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        where[task] = "headers"
        response = await send(self, request)
        where[task] = "body"
        return response

    async def noted_acquire(self: Pool, total_at: float) -> Any:
        task = asyncio.current_task()
        assert task is not None
        where[task] = "pool wait" if self.stats().open >= SLOTS else "connect"
        connection = await acquire(self, total_at)
        where[task] = "headers"
        return connection

    monkeypatch.setattr(NativeClient, "send", noted_send)
    monkeypatch.setattr(Pool, "acquire", noted_acquire)
    return where


@pytest.mark.timeout(max(60, CANCELS // 50))
async def test_nothing_is_lost_by_cancels_and_double_cancels(stand: Any, phases: dict[asyncio.Task[Any], str]) -> None:
    one = await stand(CONFIG)
    chance = random.Random(20)
    seen: Counter[str] = Counter()
    numbers = count()

    async def caller() -> None:
        while sum(seen[phase] for phase in PHASES) < CANCELS:  # those that were over by then don't count
            await cancelled(Caller(one.gateway, next(numbers), chance), chance, phases, seen)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    for phase in PHASES:
        assert seen[phase] >= CANCELS / 100, seen
    if "TIDEGATE_CANCELS" in os.environ:
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "cancels.json").write_text(json.dumps({"cancels": CANCELS, **seen}, indent=2) + "\n")

    await one.settled()
    follow = [Caller(one.gateway, next(numbers), chance) for number in range(100)]
    for start in range(0, 100, CALLERS):  # as many at a time as the client may: not one lease was lost
        group = follow[start : start + CALLERS]
        for each in group:
            each.fake = ""
        await asyncio.gather(*(each.run() for each in group))
    for each in follow:
        each.check()
        assert (each.status, each.finished) == (200, True), each.body
    await one.settled()
    (client,) = (client for _, client in one.gateway._clients.values())
    stats = client.stats()
    assert (stats.in_use, stats.waiting, stats.connecting) == (0, 0, 0)
    assert stats.idle == stats.open <= SLOTS
    assert one.gateway.records.ledger.open == 0


async def cancelled(
    caller: Caller, chance: random.Random, phases: dict[asyncio.Task[Any], str], seen: Counter[str]
) -> None:
    """Runs a call until a moment of chance, then cancels it once or twice, or lets its client leave."""
    task = asyncio.ensure_future(caller.run())
    if chance.random() < 0.7:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(chance.random() * 0.012)
    how = chance.choice(("once", "twice", "left"))
    seen[how] += 1
    seen["over" if task.done() else phases.get(task, "admission")] += 1
    if how == "left":
        caller.left.set()
    else:
        task.cancel()
    if how == "twice":
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait({task})
    phases.pop(task, None)
    if not task.cancelled():
        error = task.exception()
        assert error is None, error
    caller.check()
