"""Followers lend the leader their place in the queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.scheduler import Loans, Placement

NARROW = """
[providers.narrow]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 1
pass_headers = ["x-fake"]
[models.narrow]
targets = ["narrow/demo-small"]
[policy.queue.claims]
standard = "urgent"
basic = "urgent"
"""


@pytest.fixture(scope="module")
def narrow_server(start_site: Any, demo_process: Any) -> Any:
    return start_site(NARROW.replace("{origin}", demo_process.origin))


@pytest.fixture
def narrow(narrow_server: Any, make_site: Any) -> Any:
    return make_site(narrow_server)


async def waiting(site: Any, number: int) -> None:
    """Until so many calls stand in the queue."""
    for _ in range(200):
        if len(await queued(site)) == number:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"not {number} in the queue")


async def queued(site: Any) -> list[str]:
    text = (await site.http.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("tidegate_queue_waiting"))
    return [""] * int(float(line.rsplit(" ", 1)[1]))


@pytest.mark.parametrize("follows", [True, False])
async def test_the_leader_counts_as_the_highest_of_its_group(narrow: Any, follows: bool) -> None:
    ended: dict[str, float] = {}

    async def ask(name: str, body: dict[str, Any], key: str, priority: str) -> None:
        answer = await narrow.ask(body, key=key, x_tidegate_priority=priority, x_fake="latency-ms=1200")
        assert answer.status_code == 200, answer.text
        ended[name] = time.monotonic()

    one, two, three = (narrow.chat(model="narrow") for _ in range(3))
    before = narrow.upstream()
    tasks = [asyncio.ensure_future(ask("holder", one, "acme", "normal"))]
    await narrow.under_way(before)
    tasks.append(asyncio.ensure_future(ask("other", two, "sister", "normal")))
    await waiting(narrow, 1)
    tasks.append(asyncio.ensure_future(ask("leader", three, "acme", "low")))
    await waiting(narrow, 2)
    if follows:
        tasks.append(asyncio.ensure_future(ask("follower", three, "acme", "high")))
        await narrow.followed(1)
    await asyncio.gather(*tasks)
    assert (ended["leader"] < ended["other"]) is follows


async def test_a_stream_that_follows_has_signs_of_life_while_its_leader_stands_in_the_queue(
    open_site: Any, demo_process: Any
) -> None:
    beats = "heartbeat = true\nheartbeat_s = 0.2\n"  # the table of the queue goes on here
    site = open_site(beats + NARROW.replace("{origin}", demo_process.origin))
    before = site.upstream()
    holder = asyncio.ensure_future(site.ask(site.chat(model="narrow"), x_fake="latency-ms=2000"))
    await site.under_way(before)
    body = site.chat(model="narrow", stream=True)
    both = [asyncio.ensure_future(site.ask(body)) for _ in range(2)]
    leader, follower = await asyncio.gather(*both)
    for answer in (leader, follower):
        lines = answer.text.splitlines()
        assert lines[0].startswith(": queued, 0 ahead"), lines[:2]
        assert lines[-2] == "data: [DONE]"
    assert (await holder).status_code == 200


def test_alike_places_are_counted_and_given_back() -> None:
    loans, high, low = Loans(), Placement("high", 20, 1.0), Placement("low", 20, 1.0)
    for placement in (high, high, low):
        loans.lend(placement)
    assert loans.priority(0, 100, 0) == 40
    loans.take_back(high)
    assert loans.priority(0, 100, 0) == 40
    loans.take_back(high)
    assert loans.priority(0, 100, 0) == 20
    loans.take_back(low)
    assert loans.priority(0, 100, 0) == 0
