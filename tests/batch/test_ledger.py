"""One attempt row for each exchange, each member's share in its call's row, and both add up exactly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

from gateway.prices import PUSD


def rows(site: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Attempts and calls, as the database has them in the end."""
    site.server.stop()
    with sqlite3.connect(site.server.folder / "data" / "tidegate.db") as database:
        database.row_factory = sqlite3.Row
        found = [[dict(row) for row in database.execute(f"select * from {table}")] for table in ("attempts", "calls")]
    database.close()
    return found[0], found[1]


def agree(attempts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
    assert {one["outcome"] for one in attempts}.isdisjoint({"open", "unresolved"})
    assert sum(one["cost_pusd"] for one in calls) == sum(one["cost_pusd"] for one in attempts)
    shared = [json.loads(one["notes"] or "{}").get("batch") for one in calls]
    lasts = {one["attempts"][-1] if one else f"{call['id']}.1" for call, one in zip(calls, shared, strict=True)}
    last = [one for one in attempts if one["id"] in lasts]  # a call's tokens are those of its last attempt
    assert sum(one["input_tokens"] for one in calls) == sum(one["input_tokens"] for one in last)


async def test_one_attempt_and_a_share_in_each_call(site: Any) -> None:
    texts = ["a", "bb cc dd", "one two three four five", "x" * 100]
    answers = await site.together(*texts)
    attempts, calls = rows(site)
    agree(attempts, calls)
    assert len(attempts) == 1
    assert len(calls) == 4
    assert attempts[0]["input_tokens"] == sum(3 + len(text) for text in texts)
    assert attempts[0]["cost_pusd"] == attempts[0]["input_tokens"] * 130_000 + 1_000_000
    by_id = {one["id"]: one for one in calls}
    for answer in answers:
        row = by_id[answer.headers["x-request-id"]]
        assert row["input_tokens"] == answer.json()["usage"]["prompt_tokens"] > 0
        whole, _, part = answer.headers["x-tidegate-cost"].partition(".")
        assert int(whole) * PUSD + int(part.ljust(12, "0")) == row["cost_pusd"]
        assert row["attempts"] == 1
        assert json.loads(row["notes"])["batch"] == {"attempts": [attempts[0]["id"]], "calls": 4}
    saved = [json.loads(one["notes"])["saving"] for one in calls]
    assert {one["method"] for one in saved} == {"batching"}
    assert sum(one["original_pusd"] - one["actual_pusd"] for one in saved) == 3_000_000  # three requests


async def test_shares_add_up_where_inputs_are_bad_members_leave_and_upstreams_die(site: Any) -> None:
    await site.together("a", "bad", "ccc", "dddd", "e")
    await site.together("a", "die", "b")
    await site.together("short", "b")
    await site.together("down", "b", "c", model="both")
    site.provider.arrived.clear()
    calls = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b", "c c c")]
    await site.provider.arrived.wait()
    for leaver in calls[:2]:
        leaver.cancel()
    await asyncio.sleep(0.5)  # the gateway sees that they left
    site.provider.go.set()
    assert (await calls[2]).status_code == 200
    site.provider.go.clear()
    site.provider.arrived.clear()
    gone = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b")]
    await site.provider.arrived.wait()
    for leaver in gone:
        leaver.cancel()
    while not site.provider.cancelled:
        await asyncio.sleep(0.02)
    attempts, rows_ = rows(site)
    agree(attempts, rows_)
    outcomes = [one["outcome"] for one in rows_]
    assert len(rows_) == 18
    assert outcomes.count("gone") == 4
    assert all(one["cost_pusd"] > 0 for one in rows_ if one["outcome"] == "gone")


async def test_slots_and_limits_are_given_back(open_site: Any) -> None:
    site = open_site(slots=1, window=20)
    for _ in range(3):
        await site.together("a", "bad", "b", "die", "short")
        assert [answer.status_code for answer in await site.together("a", "b")] == [200, 200]


async def test_a_pool_counts_a_request_once_and_everyones_tokens(open_site: Any) -> None:
    pools = """
[models.pooled]
targets = ["own/emb"]
pools = { upstream-requests = "requests", upstream-tokens = "tokens" }
[pools.upstream-requests]
unit = "requests"
capacity = 2
refill_per_s = 0.001
reserved_percent = 0
[pools.upstream-tokens]
unit = "tokens"
capacity = 100000
refill_per_s = 0.001
reserved_percent = 0
"""
    site = open_site(more=pools)
    for _ in range(2):
        answers = await site.together("a", "bb", "c", model="pooled")
        assert {answer.status_code for answer in answers} == {200}
    status, _, body = site.server.request("GET", "/control/v1/pools", key="tg-test-admin-key")
    assert status == 200
    left = {one["name"]: one for one in json.loads(body)["pools"]}
    assert left["upstream-tokens"]["shared"]["available"] == 100000 - 2 * (4 + 5 + 4)
    assert left["upstream-requests"]["shared"]["available"] == 0
