"""Downgraded calls and the cache: each is looked up again as what it became, and never mistaken for what it was."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import httpx2
import pytest

FROM, CACHE = "x-tidegate-downgraded-from", "x-tidegate-cache"
ALWAYS = "when = { always = true }\n"
STAYS = {"x_tidegate_accuracy": "high"}


def told(answer: httpx2.Response) -> tuple[str | None, tuple[str, ...], str]:
    """Whether it was downgraded, each word on the cache, and the model that answered."""
    headers = answer.headers
    return headers.get(FROM), tuple(headers.get_list(CACHE)), headers["x-tidegate-model"]


async def counted(site: Any, name: str) -> dict[str, float]:
    """The samples of a metric, by their labels."""
    text = (await site.http.get("/metrics", headers={"accept": "text/plain"})).text
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(name)]
    return {labels.removeprefix(name): float(value) for labels, _, value in lines}


async def test_the_same_again_is_a_hit_of_the_cheaper_model(site: Any) -> None:
    body = site.chat()
    first = await site.ask(body)
    before = await counted(site, "tidegate_cache_saved_picodollars_total")
    again = await site.ask(body)
    assert (told(first), told(again)) == (("dear", ("miss",), "cheap"), ("dear", ("hit",), "cheap"))
    assert again.content == first.content
    cost = Decimal(first.headers["x-tidegate-cost"])
    assert (again.headers["x-tidegate-cost"], Decimal(again.headers["x-tidegate-saved"])) == ("0", cost)
    row = site.row(again)
    assert (row["model"], row["served_model"], row["saving"], row["outcome"]) == ("dear", "cheap", "cache", "answered")
    assert (Decimal(row["saved_usd"]), Decimal(row["cost_usd"])) == (cost, 0)
    after = await counted(site, "tidegate_cache_saved_picodollars_total")
    assert sum(after.values()) - sum(before.values()) == int(cost * 10**12)


async def test_a_hit_is_counted_as_the_caches_answer(site: Any) -> None:
    body = site.chat()
    await site.ask(body)
    names = ("tidegate_policy_decisions_total", "tidegate_cache_lookups_total")
    before = [await counted(site, name) for name in names]
    await site.ask(body)
    decisions, lookups = [
        {labels: more for labels, value in after.items() if (more := value - was.get(labels, 0))}
        for was, after in zip(before, [await counted(site, name) for name in names], strict=True)
    ]
    assert decisions == {'{decision="answered",mode="enforce",policy="cache"}': 1}
    assert lookups == {'{result="miss",route="chat"}': 1, '{result="hit",route="chat"}': 1}


@pytest.mark.parametrize("first", [True, False])
async def test_it_is_kept_in_every_form(site: Any, first: bool) -> None:
    body = site.chat()
    await site.ask({**body, "stream": first})
    again = await site.ask({**body, "stream": not first})
    assert told(again) == ("dear", ("hit",), "cheap")


async def test_neither_is_given_for_the_other(site: Any) -> None:
    """Who may not be downgraded never gets the cheaper model's answer; who asks for that model asks another question;
    what the dearer one said before is everybody's."""
    body = site.chat()
    assert told(await site.ask(body)) == ("dear", ("miss",), "cheap")
    assert told(await site.ask({**body, "model": "cheap"}, **STAYS)) == (None, ("miss",), "cheap")
    assert told(await site.ask(body, key="big")) == (None, ("miss",), "dear")
    assert told(await site.ask(body, **STAYS)) == (None, ("miss",), "dear")
    assert told(await site.ask(body)) == (None, ("hit",), "dear")


async def test_another_clients_is_not_given(site: Any) -> None:
    body = site.chat()
    await site.ask(body)
    assert told(await site.ask(body, key="frugal")) == ("dear", ("miss",), "cheap")


async def test_the_callers_own_wishes_hold(site: Any) -> None:
    body = site.chat()
    assert told(await site.ask(body, cache_control="no-store")) == ("dear", ("bypass",), "cheap")
    assert told(await site.ask(body)) == ("dear", ("miss",), "cheap")
    assert told(await site.ask(body, cache_control="no-cache")) == ("dear", ("bypass",), "cheap")
    assert told(await site.ask(body, cache_control="max-age=0")) == ("dear", ("bypass",), "cheap")
    assert told(await site.ask(body, cache_control="max-age=60")) == ("dear", ("hit",), "cheap")
    sampled = site.chat(temperature=1)
    assert [told(await site.ask(sampled))[1] for _ in range(2)] == [("bypass",)] * 2


async def test_five_hundred_at_once_make_one_call(site: Any, demo_process: Any) -> None:
    body, before = site.chat(), demo_process.stats()["calls"]
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=600)
    async with httpx2.AsyncClient(base_url=site.server.address, timeout=30, limits=limits) as http:
        site.http, old = http, site.http
        answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=1500") for _ in range(500)])
        site.http = old
    assert demo_process.stats()["calls"] == before + 1
    assert {answer.status_code for answer in answers} == {200}
    assert sorted({told(answer)[1][0] for answer in answers}) == ["hit", "miss"]
    assert {told(answer)[::2] for answer in answers} == {("dear", "cheap")}
    assert sum(answer.headers["x-tidegate-cost"] != "0" for answer in answers) == 1


async def test_the_leader_may_leave(site: Any, demo_process: Any) -> None:
    body, before = site.chat(), demo_process.stats()["calls"]
    leader = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=2500"))
    async with asyncio.timeout(10):
        while demo_process.stats()["calls"] == before:
            await asyncio.sleep(0.02)
    follower = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=2500"))
    async with asyncio.timeout(10):
        while not (await counted(site, "tidegate_cache_followers"))[""]:
            await asyncio.sleep(0.02)
    leader.cancel()
    assert told(await follower) == ("dear", ("hit",), "cheap")
    assert demo_process.stats()["calls"] == before + 1


async def test_many_do_not_fail_one_after_another(site: Any) -> None:
    """Whoever waited for three that came to nothing goes for itself; none of them asks the dear model."""
    body, began = site.chat(), time.monotonic()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=800; status=400") for _ in range(30)])
    assert {(answer.status_code, *told(answer)) for answer in answers} == {(400, "dear", ("miss",), "cheap")}
    assert time.monotonic() - began < 0.8 * 15
    assert told(await site.ask(body)) == ("dear", ("miss",), "cheap")


async def test_waiting_is_the_caches_time(site: Any) -> None:
    body, name = site.chat(), "tidegate_policy_seconds_total"
    before = await counted(site, name)
    await asyncio.gather(*[site.ask(body, x_fake="latency-ms=600") for _ in range(2)])
    after = await counted(site, name)
    spent_s = {one: after[f'{{policy="{one}"}}'] - before[f'{{policy="{one}"}}'] for one in ("cache", "downgrade")}
    assert spent_s["cache"] > 0.5
    assert 0 <= spent_s["downgrade"] < spent_s["cache"] / 2


async def test_one_that_may_not_follows_none_of_them(site: Any) -> None:
    body = site.chat()
    asked = [site.ask(body, x_fake="latency-ms=300", **(STAYS if i % 2 else {})) for i in range(10)]
    answers = await asyncio.gather(*asked)
    assert {told(answer)[::2] for answer in answers[1::2]} == {(None, "dear")}
    assert {told(answer)[::2] for answer in answers[::2]} <= {(None, "dear"), ("dear", "cheap")}


async def test_a_shared_cost_is_shared_by_the_downgraded(open_site: Any) -> None:
    """And all savings come to what each asking the dear model for itself had cost."""
    site = open_site(ALWAYS + '[policy.cache]\nfollowers = "share"')
    body = site.chat()
    answers = await asyncio.gather(*[site.ask(body, x_fake="latency-ms=1500") for _ in range(3)])
    assert sorted(told(answer)[1][0] for answer in answers) == ["hit", "hit", "miss"]
    rows = [site.row(answer) for answer in answers]
    (leader,) = [row for row in rows if row["attempts"]]
    cost, borne = Decimal(leader["cost_usd"]), [Decimal(answer.headers["x-tidegate-cost"]) for answer in answers]
    assert sum(borne) == cost
    assert len({Decimal(row["charge_usd"]) for row in rows}) <= 2
    original = Decimal(leader["notes"]["saving"]["original_usd"])
    assert original > cost
    assert sum(Decimal(row["saved_usd"]) for row in rows) == original - cost + 2 * cost
    assert sorted(row["saving"] for row in rows) == ["downgrade", "single_flight", "single_flight"]


async def test_an_observing_cache_tells_what_it_would_have_done(open_site: Any) -> None:
    site = open_site(ALWAYS + '[policy.cache]\nmode = "observe"')
    body = site.chat()
    first, again = await site.ask(body), await site.ask(body)
    assert told(first) == told(again) == ("dear", (), "cheap")
    assert [site.row(answer)["notes"].get("observed") for answer in (first, again)] == [
        None,
        ["cache: would change the call"],
    ]
    stays = await site.ask(body, **STAYS)
    assert told(stays) == (None, (), "dear")
    assert site.row(await site.ask(body))["notes"]["observed"] == ["cache: would change the call"]


async def test_a_replay_says_it_as_well(site: Any) -> None:
    """By its idempotency key, whoever made the first answer; what the cache had said of that is not repeated."""
    body, stream = site.chat(), site.chat(stream=True)
    for number, asked in enumerate((body, stream, body)):  # the last one is a hit
        key = f"{asked['messages'][0]['content']} {number}"
        first, again = [await site.ask(asked, idempotency_key=key) for _ in range(2)]
        assert told(first) == ("dear", ("hit" if number == 2 else "miss",), "cheap")
        assert told(again) == ("dear", (), "cheap")
        assert (again.headers["idempotent-replayed"], again.headers["x-tidegate-cost"]) == ("true", "0")
        assert not {"x-tidegate-saved", "x-tidegate-cache-key", "age"} & set(again.headers)
        assert again.content == first.content
