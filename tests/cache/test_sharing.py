"""`followers = "share"`: who is answered by one call bears its cost together, to the last pico-dollar."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.answers import Answers, Flight
from gateway.clock import ManualClock
from gateway.interest import Interest
from gateway.metrics import Metrics
from policies.cache import Cache, split

SHARE = """
[clients.acme.budget]
day_usd = 5.00
[policy.cache]
followers = "share"
"""


@pytest.fixture(scope="module")
def sharing_server(start_site: Any) -> Any:
    return start_site(SHARE)


@pytest.fixture
async def shared(sharing_server: Any, make_site: Any) -> Any:
    return make_site(sharing_server)


def pusd(dollars: str) -> int:
    return int(Decimal(dollars) * 10**12)


def test_parts_make_the_whole() -> None:
    draw = random.Random(7)
    for _ in range(2000):
        cost, followers = draw.randrange(10 ** draw.randrange(1, 15)), draw.randrange(1, 600)
        share, leader = split(cost, followers)
        assert leader + share * followers == cost
        assert 0 <= share <= leader < share + followers + 1


async def test_the_cost_is_shared_to_the_last_picodollar(shared: Any) -> None:
    site = shared
    body = site.chat(max_tokens=7)
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=1500; input=31") for _ in range(7)])
    rows = {row["id"]: row for row in site.server.calls()}
    mine = [rows[answer.headers["x-request-id"]] for answer in answers]
    charges = [pusd(row["charge_usd"]) for row in mine]
    cost = 31 * 10**6 + 7 * 2 * 10**6
    assert cost % 7
    assert sum(charges) == cost
    assert max(charges) - min(charges) == cost % 7
    assert [charge == max(charges) for charge in charges] == [row["attempts"] == 1 for row in mine]
    assert sum(pusd(row["saved_usd"]) for row in mine) == 6 * cost
    assert {row["saving"] for row in mine} == {"single_flight"}
    assert [pusd(answer.headers["x-tidegate-cost"]) for answer in answers] == charges
    shown = json.loads(site.server.command("budget", "show", "client:acme", "--json").stdout)
    assert {pusd(one["used_usd"]) for one in shown} == {cost}


async def test_a_later_hit_bears_nothing(shared: Any) -> None:
    site = shared
    body = site.chat()
    await asyncio.gather(*[site.ask(body, x_fake="latency-ms=400") for _ in range(3)])
    again = await site.ask(body, x_fake="latency-ms=400")
    assert (again.headers["x-tidegate-cache"], again.headers["x-tidegate-cost"]) == ("hit", "0")


async def test_a_follower_that_left_before_bears_nothing(shared: Any) -> None:
    site = shared
    body, before = site.chat(max_tokens=8), site.upstream()
    leader = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=1500; input=10"))
    await site.under_way(before)
    follower = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=1500; input=10"))
    await site.followed(1)
    follower.cancel()
    await site.followed(0)
    answer = await leader
    assert pusd(answer.headers["x-tidegate-cost"]) == 26 * 10**6


async def test_a_follower_that_leaves_as_it_lands_pays_the_share_it_was_counted_for() -> None:
    charged: list[list[int]] = []

    async def settle(_hold: str, amounts: list[int]) -> None:
        charged.append(amounts)

    async def reserve(*_: Any) -> None:
        return None

    cache = Cache(followers="share")
    cache._answers = Answers(ManualClock(), Metrics())
    cache._gate = cast("Any", SimpleNamespace(scheduler=None, store=SimpleNamespace(reserve=reserve, settle=settle)))
    call = cast("Any", SimpleNamespace(
        id="2", deadline_ns=None, dialect="openai", json={}, beat=None, borne_pusd=None,
        client=SimpleNamespace(tier=SimpleNamespace(discount_percent=0)),
        pipeline=SimpleNamespace(place=lambda _: None, spending=lambda _: ["a budget"]),
    ))  # fmt: skip
    flight = Flight(Interest(), "1")
    follower = asyncio.ensure_future(cache._follow(call, flight))
    await asyncio.sleep(0)
    follower.cancel()  # it is still counted until its task comes to know
    assert flight.followers == 1
    flight.share_pusd = 7
    flight.land(None)
    with pytest.raises(asyncio.CancelledError):
        await follower
    assert (call.borne_pusd, charged) == (7, [[7]])


async def test_a_failure_is_not_shared(shared: Any) -> None:
    site = shared
    body = site.chat()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=1000; status=400") for _ in range(3)])
    rows = {row["id"]: row for row in site.server.calls()}
    assert [pusd(rows[answer.headers["x-request-id"]]["charge_usd"]) for answer in answers] == [0, 0, 0]
