"""Quotas: who may ask for how much, under a real pipeline and store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.call import Call, Outcome
from gateway.clients import QuotaRules, Tier
from gateway.errors import GatewayError, RateLimited
from gateway.policy import PolicyError
from gateway.ratelimit import headers
from gateway.state.store import Used
from gateway.usage import Usage

NS = 1_000_000_000
Make = Callable[..., Any]


async def admitted(pipeline: Any, call: Call) -> bool:
    try:
        await pipeline.admit(call)
    except RateLimited:
        return False
    return True


async def left(bench: Any, policy: Any, call: Call) -> list[int]:
    return [level.remaining for level in await bench.store.levels(policy.limits(call))]


async def test_admits_the_rate_then_refuses_and_says_when(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("quota", requests=["3/minute"]))
    acme = bench.person()
    for _ in range(3):
        await pipeline.admit(bench.call(acme))
    with pytest.raises(RateLimited) as refused:
        await pipeline.admit(bench.call(acme))
    assert "3 requests a minute of client acme" in refused.value.message
    assert refused.value.policy == "quota"
    assert refused.value.retry_after_s == 20.0
    assert await admitted(pipeline, bench.call(bench.person("other")))
    bench.clock.advance(20)
    assert await admitted(pipeline, bench.call(acme))
    assert not await admitted(pipeline, bench.call(acme))


async def test_a_request_is_a_request_however_it_ends(bench: Any) -> None:
    quota = bench.policy("quota", requests=["10/minute"])
    pipeline, acme = bench.pipeline(quota), bench.person()
    ends: list[Outcome] = [
        Outcome("served", 200, Usage(), attempted=True),
        Outcome("failed", 502, Usage(), attempted=True),
        Outcome("gone", 499, Usage(), attempted=True),
        Outcome("answered", 200, Usage()),
    ]
    for outcome in ends:
        call = bench.call(acme)
        await pipeline.admit(call)
        await pipeline.settle(call, outcome)
    assert await left(bench, quota, bench.call(acme)) == [6]


@pytest.mark.parametrize("kind", ["refused", "gone", "failed"])
async def test_a_call_without_an_attempt_gets_everything_back(bench: Any, kind: Any) -> None:
    quota = bench.policy("quota", requests=["10/minute"], tokens=["1000/minute", "5000/day"])
    pipeline, call = bench.pipeline(quota), bench.call(bench.person(), prompt_bytes=100, max_tokens=50)
    await pipeline.admit(call)
    assert await left(bench, quota, call) == [9, 850, 4850]
    await pipeline.settle(call, Outcome(kind, 499, Usage()))
    assert await left(bench, quota, call) == [10, 1000, 5000]


async def test_a_cancelled_call_holds_nothing(bench: Any) -> None:
    quota = bench.policy("quota", requests=["10/minute"], tokens=["1000/minute"])
    pipeline, acme = bench.pipeline(quota), bench.person()

    async def work() -> None:
        call = bench.call(acme, max_tokens=100)
        await pipeline.admit(call)
        try:
            await asyncio.Event().wait()
        finally:
            await pipeline.settle(call, Outcome("gone", 499, Usage()))

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    await asyncio.sleep(0)
    assert await left(bench, quota, bench.call(acme)) == [5, 500]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await left(bench, quota, bench.call(acme)) == [10, 1000]


async def test_tokens_are_reserved_at_worst_and_settled_to_the_truth(bench: Any) -> None:
    quota = bench.policy("quota", requests=[], tokens=["1000/minute", "100000/30 days"])
    pipeline, acme = bench.pipeline(quota), bench.person()
    call = bench.call(acme, prompt_bytes=400, max_tokens=200)
    await pipeline.admit(call)
    assert await left(bench, quota, call) == [400, 99_400]
    assert not await admitted(pipeline, bench.call(acme, max_tokens=401))
    await pipeline.settle(call, Outcome("served", 200, Usage(input_tokens=90, output_tokens=60), attempted=True))
    assert await left(bench, quota, call) == [850, 99_850]


async def test_more_than_reserved_is_a_debt(bench: Any) -> None:
    quota = bench.policy("quota", tokens=["600/minute"])
    pipeline, acme = bench.pipeline(quota), bench.person()
    call = bench.call(acme, max_tokens=100)
    await pipeline.admit(call)
    await pipeline.settle(call, Outcome("served", 200, Usage(output_tokens=800), attempted=True))
    assert (await left(bench, quota, call))[1] == -200
    with pytest.raises(RateLimited) as refused:
        await pipeline.admit(bench.call(acme, max_tokens=1))
    assert refused.value.retry_after_s == pytest.approx(20.1)


async def test_input_is_counted_exactly_where_a_token_a_byte_is_lacking(bench: Any) -> None:
    quota = bench.policy("quota", tokens=["1000/minute"])
    pipeline, acme = bench.pipeline(quota), bench.person()
    call = bench.call(acme, prompt_bytes=2000, max_tokens=300)
    await pipeline.admit(call)
    assert call.facts.input_tokens == 500
    assert (await left(bench, quota, call))[1] == 200


async def test_what_never_fits_is_not_to_be_retried(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("quota", tokens=["1000/minute"])), bench.person()
    with pytest.raises(RateLimited) as refused:
        await pipeline.admit(bench.call(acme, max_tokens=1001))
    assert refused.value.retry_after_s is None
    assert refused.value.should_retry is False


async def test_calls_without_a_model_need_no_tokens(bench: Any) -> None:
    quota = bench.policy("quota", tokens=["100/minute"])
    pipeline, acme = bench.pipeline(quota), bench.person()
    assert await admitted(pipeline, bench.call(acme, route="files", prompt_bytes=10_000))
    assert await left(bench, quota, bench.call(acme)) == [599, 100]


# -- who has which limits


async def test_a_clients_own_rates_go_before_the_tiers_and_those_before_the_default(bench: Any) -> None:
    quota = bench.policy("quota", requests=["10/minute"], tokens=["100/minute"])
    rules = QuotaRules(requests=("7/minute",), tokens=())
    tier = Tier("t", rate_multiplier_milli=1500, quota=QuotaRules(requests=("8/minute",)))
    multiplied = Tier("m", rate_multiplier_milli=2500)
    assert await left(bench, quota, bench.call(bench.person("a", tier=tier, quota=rules))) == [7]
    assert await left(bench, quota, bench.call(bench.person("b", tier=tier))) == [8, 150]
    assert await left(bench, quota, bench.call(bench.person("c", tier=multiplied))) == [25, 250]
    assert await left(bench, quota, bench.call(bench.person("d"))) == [10, 100]


async def test_a_key_has_its_own_limits_within_the_clients(bench: Any) -> None:
    quota = bench.policy("quota", requests=["5/minute"])
    pipeline = bench.pipeline(quota)
    client, key = bench.person(key_quota=QuotaRules(requests=("2/minute",), tokens=("50/day",)))
    for _ in range(2):
        await pipeline.admit(bench.call((client, key)))
    with pytest.raises(RateLimited, match="2 requests a minute of key acme-key"):
        await pipeline.admit(bench.call((client, key)))
    other = type(key)("second", client.id, "client")
    assert await left(bench, quota, bench.call((client, other))) == [3]
    assert await left(bench, quota, bench.call((client, key))) == [3, 0, 50]


async def test_two_keys_of_a_client_share_its_limit(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("quota", requests=["4/minute"]))
    client, key = bench.person()
    keys = [key, type(key)("second", client.id, "client")]
    assert [await admitted(pipeline, bench.call((client, keys[n % 2]))) for n in range(5)] == [True] * 4 + [False]


async def test_a_model_has_limits_of_its_own(bench: Any, target: Make) -> None:
    models = {"large": {"requests": ["1/minute"], "tokens": ["100/minute"]}}
    quota = bench.policy("quota", requests=["10/minute"], tokens=[], models=models)
    pipeline, acme = bench.pipeline(quota), bench.person()
    large, small = target("large"), target("small")
    with pytest.raises(RateLimited, match="100 tokens a minute with model large of client acme"):
        await pipeline.admit(bench.call(acme, large, max_tokens=101))
    for _ in range(3):
        await pipeline.admit(bench.call(acme, small, max_tokens=500))
    await pipeline.admit(bench.call(acme, large, max_tokens=60))
    with pytest.raises(RateLimited, match="1 requests a minute with model large of client acme"):
        await pipeline.admit(bench.call(acme, large, max_tokens=1))
    assert await admitted(pipeline, bench.call(acme, small))


async def test_a_models_tokens_settle_only_for_calls_that_it_served(bench: Any, target: Make) -> None:
    quota = bench.policy("quota", models={"large": {"tokens": ["100/minute"]}})
    pipeline, acme = bench.pipeline(quota), bench.person()
    large, small = target("large"), target("small")
    for one, remaining in ((small, 100), (large, 70)):
        call = bench.call(acme, one, max_tokens=60)
        await pipeline.admit(call)
        await pipeline.settle(call, Outcome("served", 200, Usage(output_tokens=30), target=one, attempted=True))
        levels = await bench.store.levels([need.limit for need in call.needs])
        assert levels[1].remaining == remaining


async def test_concurrent_calls_are_bounded_and_come_back(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("quota"))
    acme = bench.person(tier=Tier("t", concurrent=9, quota=QuotaRules(concurrent=2)))
    calls = [bench.call(acme) for _ in range(3)]
    await pipeline.admit(calls[0])
    await pipeline.admit(calls[1])
    with pytest.raises(RateLimited, match="2 calls at a time of client acme"):
        await pipeline.admit(calls[2])
    await pipeline.settle(calls[0], Outcome("failed", 502, Usage(), attempted=True))
    assert await admitted(pipeline, bench.call(acme))


async def test_weights_say_how_much_of_a_token_counts(bench: Any) -> None:
    from decimal import Decimal

    weights = {"cached": Decimal("0.1"), "output": 4, "reasoning": 2}
    quota = bench.policy("quota", requests=[], tokens=["10000/minute"], weights=weights)
    pipeline = bench.pipeline(quota)
    call = bench.call(bench.person(), prompt_bytes=100, max_tokens=50)
    await pipeline.admit(call)
    assert await left(bench, quota, call) == [10_000 - 100 - 4 * 50]
    usage = Usage(input_tokens=90, cached_tokens=45, output_tokens=40, reasoning_tokens=30)
    await pipeline.settle(call, Outcome("served", 200, usage, attempted=True))
    assert await left(bench, quota, call) == [10_000 - (45 + 5 + 40 + 60)]  # 4.5 cached tokens are 5


async def test_a_part_above_its_whole_gives_no_weight_back(bench: Any) -> None:
    from decimal import Decimal

    weights = {"cached": Decimal("0.1"), "output": 4, "reasoning": 2}
    quota = bench.policy("quota", requests=[], tokens=["10000/minute"], weights=weights)
    pipeline = bench.pipeline(quota)
    call = bench.call(bench.person(), prompt_bytes=100, max_tokens=50)
    await pipeline.admit(call)
    usage = Usage(input_tokens=10, cached_tokens=50, output_tokens=3, reasoning_tokens=9)
    await pipeline.settle(call, Outcome("served", 200, usage, attempted=True))
    assert await left(bench, quota, call) == [10_000 - (5 + 18)]


async def test_what_changes_about_a_client_holds_for_its_next_call(bench: Any) -> None:
    quota = bench.policy("quota", requests=["10/minute"])
    pipeline = bench.pipeline(quota)
    for _ in range(8):
        await pipeline.admit(bench.call(bench.person()))
    lowered = bench.person(quota=QuotaRules(requests=("1/minute",)))
    assert await admitted(pipeline, bench.call(lowered))
    assert not await admitted(pipeline, bench.call(lowered))


async def test_a_reload_keeps_what_was_used(bench: Any) -> None:
    acme = bench.person()
    await bench.pipeline(bench.policy("quota", requests=["3/minute"])).admit(bench.call(acme))
    again = bench.pipeline(bench.policy("quota", requests=["3/minute"]))
    assert [await admitted(again, bench.call(acme)) for _ in range(3)] == [True, True, False]


async def test_observed_quotas_count_apart_and_refuse_nothing(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("quota", requests=["1/minute"], mode="observe")), bench.person()
    for _ in range(3):
        call = bench.call(acme)
        await pipeline.admit(call)
    assert call.marks == ["quota: 1 requests a minute of client acme lacking"]


async def test_needs_are_made_once_for_a_key(bench: Any) -> None:
    quota = bench.policy("quota", tokens=["5/minute"])
    acme = bench.person()
    first, second = bench.call(acme), bench.call(acme)
    quota.apply(first)
    quota.apply(second)
    assert len(first.needs) == 3
    assert all(one is other for one, other in zip(first.needs, second.needs, strict=True))


async def test_headers_tell_what_is_left(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("quota", requests=["600/minute", "5/day"], tokens=["1000/minute"]))
    call = bench.call(bench.person(), max_tokens=100)
    await pipeline.admit(call)
    drawn = dict(headers("openai", call.levels, bench.clock.wall_ns()))
    assert drawn[b"x-ratelimit-limit-requests"] == b"5"
    assert drawn[b"x-ratelimit-remaining-requests"] == b"4"
    assert drawn[b"x-ratelimit-remaining-tokens"] == b"900"
    assert drawn[b"x-ratelimit-reset-tokens"] == b"6s"


# -- settings


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"tokens": ["60/fortnight"]}, "tokens", "is not a rate such as"),
        ({"requests": 60}, "requests", "60"),
        ({"models": {"m": {"requests": ["x"]}}}, "models.m.requests", "is not a rate such as"),
        ({"models": {"m": {"images": ["1/day"]}}}, "models.m.images", "images"),
        ({"weights": {"input": -1}}, "weights.input", "a weight is 0 or more"),
        ({"weights": {"intput": 1}}, "weights.intput", "intput"),
        ({"token": []}, "token", "unknown setting"),
    ],
)
def test_a_wrong_setting_names_its_key(bench: Any, settings: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        bench.policy("quota", **settings)
    assert refused.value.policy == "quota"
    assert refused.value.key.startswith(key)
    assert says in str(refused.value)


def test_refusals_are_gateway_errors() -> None:
    assert issubclass(RateLimited, GatewayError)


# -- at start


class Ledger:
    """What the ledger says, by hand."""

    def __init__(self, *rows: Used) -> None:
        self.rows, self.asked = rows, 0

    async def since(self, wall_ns: int) -> list[Used]:
        return [row for row in self.rows if row.wall_ns >= wall_ns]

    async def graded(self, wall_ns: int) -> list[Used]:
        self.asked = wall_ns
        return [row for row in self.rows if row.wall_ns >= wall_ns]


async def test_limits_count_again_what_the_ledger_knows(bench: Any) -> None:
    models = {"large": {"requests": ["100/day"]}}
    quota = bench.policy("quota", requests=["60/minute", "500/day"], tokens=["9000/30 days"], models=models)
    client, key = bench.person(key_quota=QuotaRules(requests=("50/day",)))
    wall = bench.clock.wall_ns()
    ledger = Ledger(
        Used(wall - 30 * NS, "org", "acme", "acme-key", "large", 20, 400, 0, 100),
        Used(wall - 3600 * NS, "org", "acme", "acme-key", "small", 10, 1000, 0, 500),
        Used(wall - 5 * 86_400 * NS, "org", "acme", "revoked", "small", 7, 2000, 0, 0),
        Used(wall - 5, "org", "deleted", "other", "small", 7, 2000, 0, 0),
    )
    await quota.rebuild(ledger)
    assert ledger.asked <= wall - 30 * 86_400 * NS
    call = bench.call((client, key))
    assert await left(bench, quota, call) == [60, 470, 20, 5000]
    quota.apply(call)
    levels = {need.limit.key: level for need, level in zip(
        call.needs, await bench.store.levels([need.limit for need in call.needs]), strict=True)}  # fmt: skip
    assert levels["quota client acme requests 86400s large"].remaining == 80
    assert await left(bench, quota, bench.call(bench.person("other"))) == [60, 500, 9000]


async def test_a_minute_bucket_starts_with_what_the_last_minute_left(bench: Any) -> None:
    quota = bench.policy("quota", requests=["60/minute"])
    acme = bench.person()
    await quota.rebuild(Ledger(Used(bench.clock.wall_ns() - 10 * NS, "org", "acme", "acme-key", "m", 50)))
    assert await left(bench, quota, bench.call(acme)) == [20]
