"""Identical calls in the air together: one goes up, and nobody is worse off for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


async def test_five_hundred_identical_calls_make_one(site: Any) -> None:
    body, before = site.chat(), site.upstream()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=1500") for _ in range(500)])
    assert site.upstream() == before + 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    costs = [answer.headers["x-tidegate-cost"] for answer in answers]
    assert sum(cost != "0" for cost in costs) == 1


async def test_the_leader_may_leave(site: Any) -> None:
    body, before = site.chat(), site.upstream()
    leader = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=1500"))
    await site.under_way(before)
    follower = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=1500"))
    await site.followed(1)
    leader.cancel()
    answer = await follower
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-cache"] == "hit"
    assert site.upstream() == before + 1


async def test_when_the_last_one_leaves_the_call_ends(site: Any) -> None:
    body, before = site.chat(), site.demo.stats()["cancelled_calls"]
    both = [asyncio.ensure_future(site.ask(body, x_fake="latency-ms=20000")) for _ in range(2)]
    await site.followed(1)
    for one in both:
        one.cancel()
    async with asyncio.timeout(10):
        while site.demo.stats()["cancelled_calls"] == before:
            await asyncio.sleep(0.05)


async def test_if_the_leader_fails_one_of_the_others_leads(site: Any) -> None:
    body, before = site.chat(), site.upstream()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=800; status=400") for _ in range(4)])
    assert {answer.status_code for answer in answers} == {400}
    assert site.upstream() == before + 4


@pytest.mark.parametrize("first", [True, False])
async def test_who_wants_it_in_another_form_waits_as_well(site: Any, first: bool) -> None:
    body, before = site.chat(), site.upstream()
    leader = asyncio.ensure_future(site.ask({**body, "stream": first}, x_fake="latency-ms=1500"))
    await site.under_way(before)
    others = [site.ask({**body, "stream": not first}, x_fake="latency-ms=1500") for _ in range(3)]
    answers = await asyncio.gather(*others)
    assert site.upstream() == before + 1
    assert {answer.headers["x-tidegate-cache"] for answer in answers} == {"hit"}
    assert {answer.headers["content-type"].startswith("text/event-stream") for answer in answers} == {not first}
    assert (await leader).status_code == 200


async def test_who_shares_the_cost_waits_for_its_own_form_only(open_site: Any) -> None:
    """Whether an answer can be given in another form is known when it is there; by then the cost is shared."""
    site = open_site('[policy.cache]\nfollowers = "share"')
    body, before = site.chat(), site.upstream()
    both = [site.ask({**body, "stream": form}, x_fake="latency-ms=1200") for form in (True, False)]
    await asyncio.gather(*both)
    assert site.upstream() == before + 2


async def test_many_do_not_fail_one_after_another(site: Any) -> None:
    """Whoever waited for three that came to nothing goes for itself."""
    body, began = site.chat(), time.monotonic()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=800; status=400") for _ in range(30)])
    assert {answer.status_code for answer in answers} == {400}
    assert time.monotonic() - began < 0.8 * 15


async def test_an_answer_that_its_client_left_is_not_kept(site: Any) -> None:
    body, before = site.chat(stream=True), site.demo.stats()["cancelled_calls"]
    headers = {"authorization": "Bearer tg-acme-secret-key", "x-fake": "latency-ms=100; chunk-ms=300"}
    async with site.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.headers["x-tidegate-cache"] == "miss"
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(10):
        while site.demo.stats()["cancelled_calls"] == before:
            await asyncio.sleep(0.02)
    again = await site.ask(body, x_fake="latency-ms=100; chunk-ms=300")
    assert again.headers["x-tidegate-cache"] == "miss"
    assert again.content.endswith(b"data: [DONE]\n\n")
