"""Members of a batch stand for themselves: with their money, at a failover, at the end of the gateway, observed."""

from __future__ import annotations

import asyncio
import json
import signal
from decimal import Decimal
from typing import Any

#: A call of "text N" is held at about 0.000008 USD, a token a byte of its body.
POOR = """
[clients.poor]
budget = {{ day_usd = {usd} }}
quota = {{ requests = ["1000/minute"] }}
[[clients.poor.keys]]
secret = "tg-poor-secret-key"
"""

#: The other provider has tokens for one call or two: each holds a token a byte of its body.
NARROW = """
[models.narrow]
targets = ["own/emb", { to = "other/emb", pools = { elsewhere = "tokens" } }]
[pools.elsewhere]
unit = "tokens"
capacity = 40
refill_per_s = 0.001
reserved_percent = 0
"""


def spent(site: Any) -> Decimal:
    return sum([Decimal(row["charge_usd"]) for row in site.server.tidegate("usage", "--json")], Decimal(0))


async def test_members_reserve_their_money_alone(open_site: Any) -> None:
    site = open_site(more=POOR.format(usd="0.00003"))
    answers = await site.together(*[f"text {number}" for number in range(9)], key="poor")
    served = [answer for answer in answers if answer.status_code == 200]
    assert 2 <= len(served) < 9
    assert {answer.status_code for answer in answers} == {200, 429}
    assert sum(len(one["input"]) for one in site.provider.asked) == len(served)
    assert len(site.provider.asked) < len(served)  # who is counted exactly, for want of money, goes alone
    costs = sum(Decimal(answer.headers["x-tidegate-cost"]) for answer in served)
    assert costs == spent(site) <= Decimal("0.00003")


async def test_who_finds_no_room_at_the_other_provider_stays_behind(open_site: Any) -> None:
    site = open_site(more=NARROW)
    answers = await site.together("down", "b", "c", model="narrow")
    served = [answer for answer in answers if answer.status_code == 200]
    assert 1 <= len(served) < 3
    assert {answer.status_code for answer in answers} == {200, 503}
    assert sum(len(one["input"]) for one in site.provider.asked if one["path"].startswith("/other")) == len(served)
    rows = site.server.calls()
    assert sorted(row["attempts"] for row in rows) == sorted([2] * len(served) + [1] * (3 - len(served)))
    _, _, body = site.server.request("GET", "/control/v1/pools", key="tg-test-admin-key")
    (pool,) = [one for one in json.loads(body)["pools"] if one["name"] == "elsewhere"]
    used = sum(3 + len(text) for text in site.provider.asked[-1]["input"])
    assert pool["shared"]["available"] == 40 - used  # what the others held there is free again


async def test_a_batch_under_way_ends_before_the_gateway_does(open_site: Any) -> None:
    site = open_site()
    calls = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b", "c")]
    await site.provider.arrived.wait()
    site.server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    site.provider.go.set()
    answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert await asyncio.to_thread(site.server.stop) == 0


async def test_a_batch_that_is_cut_by_the_end_is_told_and_recorded_once(open_site: Any) -> None:
    site = open_site(more="[server]\ndrain_s = 1")
    calls = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b", "c")]
    await site.provider.arrived.wait()
    site.server.process.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert {answer.json()["error"]["code"] for answer in answers} == {"draining"}
    assert await asyncio.to_thread(site.server.stop) == 0
    site.provider.go.set()
    rows = site.server.calls()
    assert len(rows) == 3
    assert len({one for row in rows for one in row["notes"]["batch"]["attempts"]}) == 1


async def test_observed_nobody_waits_for_others(open_site: Any) -> None:
    site = open_site(more='mode = "observe"')
    answers = await site.together("a", "b", "c")
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert not any("x-tidegate-batch" in answer.headers for answer in answers)
    assert len(site.provider.asked) == 3
    assert {tuple(row["notes"]["observed"]) for row in site.server.calls()} == {("batch: would change the call",)}
