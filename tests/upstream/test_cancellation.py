"""Cancelled at any moment: no slot lost, no connection leaked, no answer to another's question.

TIDEGATE_CANCELLATIONS sets how many calls are cancelled (2,000 by default).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.upstream.base import UpstreamRequest

CANCELLATIONS = int(os.environ.get("TIDEGATE_CANCELLATIONS", "2000"))
SLOTS = 6
REPEATED = 20


def nonce_server(bench: Any, chance: random.Random) -> None:
    """Answers each request with its own target, in one of several framings, cut anywhere, after any delay."""

    async def script(peer: Any) -> None:
        while request := await peer.request():
            nonce = request.split(b" ")[1]
            body = nonce * REPEATED
            head = b"HTTP/1.1 200 OK\r\nx-nonce: " + nonce
            reply = chance.choice(
                [
                    head + b"\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body),
                    head + b"\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
                ]
            )
            cuts = sorted(chance.randrange(len(reply)) for _ in range(chance.randrange(6)))
            await bench.turns(chance.randrange(8))
            await peer.send(*(reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)))

    bench.server.script = script


class Caller:
    """One call; `phase` says how far it has come."""

    def __init__(self, bench: Any, client: Any, number: int, upload: bool) -> None:
        self.bench, self.client = bench, client
        self.nonce = b"/nonce-%d" % number
        self.upload = upload
        self.phase = "send"

    async def source(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 10
            await asyncio.sleep(0)

    async def run(self) -> None:
        body = self.source() if self.upload else None
        method = "POST" if self.upload else "GET"
        reply = await self.client.send(UpstreamRequest(method, self.nonce, [], body, 30 if self.upload else None))
        self.phase = "body"
        try:
            assert dict(reply.headers)[b"x-nonce"] == self.nonce
            assert await self.bench.read_all(reply) == self.nonce * REPEATED
        finally:
            await reply.aclose()
        self.phase = "done"

    def reached(self, contended: bool) -> str:
        if self.phase != "send":
            return self.phase
        seen = any(self.nonce + b" " in peer.received for peer in self.bench.server.peers[-3 * SLOTS :])
        return "head" if seen else "pool wait" if contended else "connect"


async def cancel_many(bench: Any, client: Any, chance: random.Random, contended: bool) -> Counter[str]:
    """Half of the cancellations; with as many callers as slots (so that they connect), or with four times as many."""
    reached: Counter[str] = Counter()
    number = 0

    async def one() -> None:
        nonlocal number
        number += 1
        caller = Caller(bench, client, 2 * number + contended, upload=chance.random() < 0.2)
        task = asyncio.create_task(caller.run())
        await bench.turns(chance.choice((0, 1, 2, 3, 5, 8, 13, 21, 34, 55)))
        if not task.done():
            reached[caller.reached(contended)] += 1
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass

    async def worker() -> None:
        while sum(reached.values()) < CANCELLATIONS // 2:
            await one()

    await asyncio.gather(*(worker() for _ in range(4 * SLOTS if contended else SLOTS)))
    return reached


async def test_random_cancellations(bench: Any) -> None:
    chance = random.Random(20261102)
    nonce_server(bench, chance)
    client = bench.client(max_connections=SLOTS, pool_wait_s=60)
    reached = await cancel_many(bench, client, chance, False) + await cancel_many(bench, client, chance, True)
    assert all(reached[phase] > CANCELLATIONS // 40 for phase in ("pool wait", "connect", "head", "body")), reached
    assert len(bench.server.peers) > CANCELLATIONS // 10  # each cancelled exchange costs its connection

    calls = [Caller(bench, client, 10_000_000 + extra, upload=extra % 5 == 0) for extra in range(100)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(call.run() for call in calls))
    assert {call.phase for call in calls} == {"done"}
    await check_all_slots(bench, client)


async def check_all_slots(bench: Any, client: Any) -> None:
    """As many exchanges at once as there are slots, and none more."""
    stats = client.stats()
    assert (stats.in_use, stats.waiting, stats.connecting) == (0, 0, 0)
    assert stats.open <= SLOTS
    gate, arrived = asyncio.Event(), []

    async def script(peer: Any) -> None:
        while request := await peer.request():
            arrived.append(request)
            await gate.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\nx-nonce: x\r\ncontent-length: 0\r\n\r\n")

    # Connections that rest are still played by the other script: they are used up first, then closed.
    await client.aclose()
    client = bench.client(max_connections=SLOTS)
    bench.server.script = script
    calls = [asyncio.create_task(bench.exchange(client, UpstreamRequest("GET", b"/"))) for _ in range(SLOTS + 2)]
    async with asyncio.timeout(10):
        while len(arrived) < SLOTS:
            await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_after_each_number_of_turns(bench: Any, turns: int) -> None:
    """The first steps of a first call one by one: connecting, handing over, writing, the reply in pieces."""
    bench.serve(b"HTTP/1.1 200 OK\r\n", b"content-length: 4\r\n\r\n", b"go", b"od")
    client = bench.client(max_connections=1)
    for _ in range(3):
        task = asyncio.create_task(bench.exchange(client, UpstreamRequest("GET", b"/")))
        await bench.turns(turns)
        task.cancel()
        await asyncio.wait({task})
    async with asyncio.timeout(10):
        _, body = await bench.exchange(client, UpstreamRequest("GET", b"/"))
    assert body == b"good"
    assert client.stats().in_use == client.stats().waiting == 0


async def test_no_task_is_left_behind(native: Any, get: Any) -> None:
    before = asyncio.all_tasks()
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"go")
    client = native.client()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    for body in (None, endless()):
        task = asyncio.create_task(client.send(UpstreamRequest("POST", b"/", [], body)))
        await native.turns(15)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await task.result().aclose()
    await client.aclose()
    left = {task for task in asyncio.all_tasks() - before if "RawServer" not in repr(task)}
    assert left == set()
