"""What is held while a call fails over: after an attempt that may have been billed, both targets' limits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

CONFIG = """
[retry]
attempts = 2
[breaker]
consecutive_failures = 100000
min_calls = 100000
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
timeouts = { first_byte_s = 0.3 }
[pools.first]
unit = "tokens"
capacity = 1_000
refill_per_s = 0
reserved_percent = 0
[pools.second]
unit = "tokens"
capacity = 1_000
refill_per_s = 0
reserved_percent = 0
[prices."f0/demo-small"]
output = 10000
[prices."f1/demo-small"]
output = 10000
[clients.thrifty]
quota = { requests = ["1000/minute"], concurrent = 10 }
budget = { month_usd = 20 }
[[clients.thrifty.keys]]
secret = "tg-thrifty-secret-key"
"""
TARGETS = (
    '{ to = "f0/demo-small", pools = { first = "output_tokens" } }, '
    '{ to = "f1/demo-small", pools = { second = "output_tokens" } }'
)
THRIFTY = {"authorization": "Bearer tg-thrifty-secret-key"}


async def left(one: Any) -> dict[str, int]:
    """What the two pools have left."""
    pools = await one.gateway.sight.pools()
    return {pool["name"]: pool["shared"]["available"] for pool in pools if pool["name"] in ("first", "second")}


@pytest.mark.parametrize(("fake", "both"), [("halfopen", True), ("reset=head", True), ("status=500", False)])
async def test_both_targets_limits_are_held_after_an_attempt_that_may_have_been_billed(
    stand: Any, fake: str, both: bool
) -> None:
    """A call is worth USD 8 at most, on either target: while two attempts are held (16), one of 5 does not fit into
    20, and each pool lacks its 800 tokens."""
    one = await stand(CONFIG, providers=2, targets=TARGETS)
    one.fakes[0].set_plan([{"nth": 1, "fake": fake}])
    one.fakes[1].set_plan([{"nth": 1, "fake": "latency-ms=1000"}])
    call = asyncio.ensure_future(one.chat(max_tokens=800, headers=THRIFTY))
    async with asyncio.timeout(5):
        while not one.fakes[1].stats.in_flight:
            await asyncio.sleep(0.005)
    assert await left(one) == {"first": 200 if both else 1000, "second": 200}
    other = await one.chat(max_tokens=500, headers=THRIFTY, messages=[{"role": "user", "content": "another one"}])
    assert other.status_code == (429 if both else 200), other.text
    answer = await call
    assert (answer.status_code, answer.headers["x-tidegate-attempts"]) == (200, "2")
    used = sum(row.output_tokens for row in (await one.rows()).values())
    assert sum((await left(one)).values()) == 2000 - used  # what was held besides came back
    assert (await one.chat(max_tokens=500, headers=THRIFTY)).status_code == 200


async def test_a_call_that_ends_between_two_attempts_is_settled_by_what_they_cost(stand: Any) -> None:
    """The client leaves during the pause before the retry: budget, quota and pool count the attempt that was made, as
    the ledger does."""
    config = CONFIG.replace("attempts = 2", "attempts = 2\nbackoff_s = 80000\nlongest_backoff_s = 80000")
    config = config.replace('["1000/minute"]', '["1000/minute"], tokens = ["100000/day"]')
    target = '{ to = "f0/demo-small", pools = { first = "output_tokens" } }'
    one = await stand(config, providers=1, targets=target)
    one.fakes[0].set_plan([{"nth": 1, "fake": "reset=body; chunks=400"}])
    with pytest.raises(httpx2.TimeoutException):
        await one.client.post(
            "/v1/chat/completions",
            json={"model": "m", "max_tokens": 400, "messages": [{"role": "user", "content": "hi"}]},
            headers=THRIFTY,
            timeout=2,
        )
    await one.settled()
    (row,) = (await one.rows()).values()
    assert (row.outcome, row.attempts) == ("gone", 1)
    assert row.charge_pusd > 0
    assert row.output_tokens > 0
    budget = next(policy for policy in one.gateway._live.pipeline.policies if policy.name == "budget")
    (level,) = await budget.status("client", "thrifty")
    assert level.limit_pusd - level.left_pusd == row.charge_pusd
    assert (await left(one))["first"] == 1000 - row.output_tokens
    answer = await one.chat(max_tokens=1, headers=THRIFTY)
    spent = row.input_tokens + row.output_tokens + answer.json()["usage"]["total_tokens"]
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 100_000 - spent
