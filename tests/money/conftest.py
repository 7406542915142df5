"""Callers that never tire, and the ledger as it stands in the file."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

KEY = "tg-acme-secret-key"
QUESTION = [{"role": "user", "content": "Why do tides come twice a day?"}]

#: Two providers at one fake, priced in whole millionths of a dollar a token; a tenth off for the client.
CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
pass_headers = ["x-fake", "x-nonce"]
attempt_header = "x-tidegate-attempt"
max_concurrent = 1000
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
api_key = "upstream"
pass_headers = ["x-fake", "x-nonce"]
attempt_header = "x-tidegate-attempt"
max_concurrent = 1000
[models.metered]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[prices.metered]
input = 2
output = 10
[prices.claude]
input = 3
output = 15
[clients.acme]
tier = "premium"
quota = {{ requests = ["100000000/day"], concurrent = 1000 }}
budget = {{ month_usd = 100000, hard = true }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
"""
#: US dollars a million tokens are pico-dollars, in millions, a token.
PRICES = {"metered": (2_000_000, 10_000_000), "claude": (3_000_000, 15_000_000)}


def request(model: str, stream: bool, fake: str = "", nonce: str = "", **more: Any) -> bytes:
    """A call as it goes over the wire; its connection ends with its answer. `nonce` comes into the provider's log."""
    asked = {"model": model, "max_tokens": 64, "messages": QUESTION, "stream": stream, **more}
    body = json.dumps(asked).encode()
    path, version = "/v1/chat/completions", ""
    if model == "claude":
        path, version = "/v1/messages", "2023-06-01"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    )
    for name, value in (("anthropic-version", version), ("x-fake", fake), ("x-nonce", nonce)):
        head += f"{name}: {value}\r\n" if value else ""
    return f"{head}\r\n".encode() + body


class Load:
    """So many callers over sockets of their own: plain and streamed calls in both dialects; one in six leaves early.
    A gateway that is not there is called again. Answers are counted by status; "lost" are those that broke off."""

    def __init__(self, port: int, callers: int) -> None:
        self.statuses: dict[str, int] = {}
        self.busy = 0  # calls under way
        self._port = port
        self._open = asyncio.Event()
        self._tasks = [asyncio.create_task(self._caller()) for _ in range(callers)]

    def go(self) -> None:
        self._open.set()

    def pause(self) -> None:
        """No new calls; those under way go on."""
        self._open.clear()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _caller(self) -> None:
        while True:
            await self._open.wait()
            model, stream = random.choice(["metered", "claude"]), random.random() < 0.6
            fake = f"chunks={random.randrange(1, 40)}; chunk-ms=2" if stream else f"chunks={random.randrange(1, 40)}"
            try:
                status = await self.call(request(model, stream, fake), leaves=stream and random.random() < 0.25)
            except OSError:
                status = "lost"
            if status == "lost":
                await asyncio.sleep(0.01)
            self.statuses[status] = self.statuses.get(status, 0) + 1

    async def call(self, sent: bytes, leaves: bool = False) -> str:
        """The status of the answer, read to its end, or left after its first bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.busy += 1
        try:
            writer.write(sent)
            answer = await reader.read(4096)
            while not leaves and (chunk := await reader.read(65_536)):
                answer += chunk
        finally:
            self.busy -= 1
            writer.transport.abort()
        return answer[9:12].decode() or "lost"


@pytest.fixture
async def load() -> AsyncIterator[Callable[[int, int], Load]]:
    loads: list[Load] = []

    def begin(port: int, callers: int) -> Load:
        loads.append(Load(port, callers))
        return loads[-1]

    yield begin
    for one in loads:
        await one.stop()


_CALLS = "SELECT client, served_model, provider, count(*), sum(charge_pusd) FROM calls GROUP BY 1, 2, 3"
_ATTEMPTS = """
SELECT client, model, provider, count(*), sum(input_tokens), sum(output_tokens), sum(cost_pusd) FROM attempts
GROUP BY 1, 2, 3
"""


class Book:
    """What the database file holds, read beside whoever owns it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "data" / "tidegate.db"

    def all(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def attempts(self) -> dict[str, dict[str, Any]]:
        names = ("model", "outcome", "status", "input_tokens", "output_tokens", "cost_pusd", "worst_pusd", "estimated")
        return {
            id: dict(zip(names, row, strict=True))
            for id, *row in self.all(f"SELECT id, {', '.join(names)} FROM attempts")
        }

    def sums(self) -> list[tuple[Any, ...]]:
        """By client, model, provider: calls, attempts, tokens in and out, cost and charge, from the rows."""
        calls = {row[:3]: row[3:] for row in self.all(_CALLS)}
        attempts = {row[:3]: row[3:] for row in self.all(_ATTEMPTS)}
        groups = sorted(calls.keys() | attempts.keys())
        return [(*group, *calls.get(group, (0, 0)), *attempts.get(group, (0, 0, 0, 0))) for group in groups]

    def charged(self) -> int:
        """What a budget must count: what calls were charged, and unresolved attempts at their worst, a tenth off."""
        ((charge,),) = self.all("SELECT coalesce(sum(charge_pusd), 0) FROM calls")
        ((worst,),) = self.all("SELECT coalesce(sum(cost_pusd), 0) FROM attempts WHERE outcome = 'unresolved'")
        return int(charge + worst * 9 // 10)


@pytest.fixture
def book() -> Callable[[Path], Book]:
    return Book


@pytest.fixture
def config() -> str:
    return CONFIG


@pytest.fixture
def wire() -> Callable[..., bytes]:
    return request


@pytest.fixture
def priced() -> Callable[[str, int, int], int]:
    """Pico-dollars of a model's tokens in and out."""

    def cost(model: str, into: int, out: int) -> int:
        prices = PRICES[model]
        return into * prices[0] + out * prices[1]

    return cost
