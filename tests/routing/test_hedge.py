"""Hedging: a second attempt beside one that takes long, both in the ledger, and only where it is asked for."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

ON = "[hedge]\nenabled = true\nmin_samples = 10\nmin_delay_ms = 40\npercentile = 75\n"
#: No two calls ask the same: what is cached is not hedged.
NUMBERS = count()
CALM = "[breaker]\nconsecutive_failures = 100000\nmin_calls = 100000\n"


async def embed(one: Any, **headers: str) -> Any:
    return await one.client.post(
        "/v1/embeddings", json={"model": "m", "input": f"hello {next(NUMBERS)}"}, headers=headers
    )


async def warm(one: Any) -> None:
    for _ in range(12):
        assert (await embed(one)).status_code == 200


@pytest.mark.parametrize("providers", [1, 2])
async def test_the_faster_one_answers_and_both_are_billed(stand: Any, providers: int) -> None:
    one = await stand(ON + CALM, providers=providers)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": "latency-ms=4000"}])
    async with asyncio.timeout(2):
        answer = await embed(one)
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-attempts"] == "2"
    assert answer.headers["x-tidegate-provider"] == f"f{providers - 1}"
    rows = sorted(await one.attempts(answer.headers["x-request-id"]), key=lambda row: row.n)
    assert [(row.outcome, row.error) for row in rows] == [("gone", "hedge_lost"), ("served", "")]
    assert all(row.input_tokens > 0 and row.cost_pusd > 0 for row in rows)
    assert rows[0].estimated
    call = (await one.rows())[answer.headers["x-request-id"]]
    assert call.cost_pusd == sum(row.cost_pusd for row in rows)
    await one.settled()
    assert len(one.fakes[0].stats.cancelled) == 1


async def test_the_first_may_still_win(stand: Any) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": "latency-ms=200"}])
    one.fakes[1].set_plan([{"fake": "latency-ms=4000"}])
    async with asyncio.timeout(2):
        answer = await embed(one)
    assert answer.headers["x-tidegate-provider"] == "f0"
    assert answer.headers["x-tidegate-attempts"] == "2"
    rows = sorted(await one.attempts(answer.headers["x-request-id"]), key=lambda row: row.n)
    assert [row.outcome for row in rows] == ["served", "gone"]


@pytest.mark.parametrize("fake", ["reset=head", "status=500"])
async def test_a_hedge_that_fails_is_not_the_answer(stand: Any, fake: str) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": "latency-ms=300"}])
    one.fakes[1].set_plan([{"fake": fake}])
    answer = await embed(one)
    assert (answer.status_code, answer.headers["x-tidegate-provider"]) == (200, "f0")


async def test_when_both_fail_the_call_goes_on_as_ever(stand: Any) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": "latency-ms=200; reset=head"}])
    one.fakes[1].set_plan([{"nth": 1, "fake": "latency-ms=300; reset=head"}])
    answer = await embed(one)
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-attempts"] == "3"
    await one.settled()


async def test_who_leaves_ends_both(stand: Any) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    for fake in one.fakes:
        fake.set_plan([{"fake": "latency-ms=5000"}])
    call = asyncio.ensure_future(embed(one))
    async with asyncio.timeout(5):
        while one.fakes[1].stats.in_flight == 0:
            await asyncio.sleep(0.005)
    call.cancel()
    await asyncio.wait({call})
    await one.settled()
    newest = max(await one.rows())
    assert (await one.rows())[newest].outcome == "gone"
    assert sorted(row.error for row in await one.attempts(newest)) == ["client_gone", "hedge_lost"]


async def test_only_where_it_is_asked_for(stand: Any) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    for _ in range(12):
        await one.chat()
    one.fakes[0].set_plan([{"fake": "latency-ms=500"}])
    assert "x-tidegate-attempts" not in (await one.chat()).headers
    assert "x-tidegate-attempts" not in (await one.chat(stream=True)).headers
    hedged = await one.chat(headers={"idempotency-key": "k"})
    assert hedged.headers["x-tidegate-attempts"] == "2"


async def test_off_by_default(stand: Any) -> None:
    one = await stand(CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"fake": "latency-ms=300"}])
    assert "x-tidegate-attempts" not in (await embed(one)).headers


async def test_a_hedge_that_is_not_needed_keeps_no_half_open_target_from_proving_itself(stand: Any) -> None:
    one = await stand(ON.replace("= 40", "= 4000") + CALM, providers=2)
    await warm(one)
    await one.chat("status=500")  # f1 is known now
    standings = one.gateway.routing.standings
    breaker = standings._places["f1"].standings["demo-small"].breaker
    breaker._open(standings._clock.now_ns(), "so the test wants it")
    breaker.reopens_ns = 0
    assert (await embed(one)).headers["x-tidegate-provider"] == "f0"
    await one.settled()
    one.fakes[0].set_plan([{"fake": "status=500"}])
    assert (await embed(one)).headers["x-tidegate-provider"] == "f1"


@pytest.mark.parametrize("lacking", ["the retry budget", "a limit"])
async def test_a_hedge_that_has_no_room_does_not_stand_in_the_way_of_failover(
    stand: Any, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    from gateway.pipeline import Pipeline

    original = Pipeline.move

    async def move(self: Pipeline, call: Any, target: Any, *, keep: bool) -> bool:
        return not keep and await original(self, call, target, keep=keep)

    if lacking == "a limit":
        monkeypatch.setattr(Pipeline, "move", move)
    budget = "[retry]\nbudget_reserve = 0\nbudget_percent = 0\n" if lacking == "the retry budget" else ""
    one = await stand(ON + CALM + budget, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"fake": "status=500; latency-ms=200"}])
    answer = await embed(one)
    assert (answer.status_code, answer.headers["x-tidegate-provider"]) == (200, "f1")


@pytest.mark.parametrize(
    ("fake", "error", "status"),
    [("reset=head", "upstream_connection_lost", 0), ("status=500", "upstream_500", 500)],
)
async def test_a_hedged_attempt_that_failed_is_told_as_that_and_not_billed(
    stand: Any, fake: str, error: str, status: int
) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": f"{fake}; latency-ms=400"}])
    one.fakes[1].set_plan([{"nth": 1, "fake": "latency-ms=900"}])
    answer = await embed(one)
    assert (answer.status_code, answer.headers["x-tidegate-provider"]) == (200, "f1")
    first, _ = sorted(await one.attempts(answer.headers["x-request-id"]), key=lambda row: row.n)
    assert (first.outcome, first.error, first.status, first.cost_pusd) == ("failed", error, status, 0)
    rows = {(row["provider"], row["model"]): row for row in one.gateway.routing.snapshot()}
    assert rows["f0", "demo-small"]["failures"] == 1


async def test_who_loses_a_race_is_known_to_be_slow(stand: Any) -> None:
    one = await stand(ON + CALM, providers=2)
    await warm(one)
    one.fakes[0].set_plan([{"nth": 1, "fake": "latency-ms=4000"}])
    one.fakes[1].set_plan([{"nth": 1, "fake": "latency-ms=200"}])
    await embed(one)
    rows = {(row["provider"], row["model"]): row for row in one.gateway.routing.snapshot()}
    assert rows["f0", "demo-small"]["latency_ms"] > 200
