"""Retries: the pause, what the provider says about it, the budget, and what is never sent twice."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from gateway.call import Call
from gateway.providers.faults import FAULTS, may_repeat
from gateway.routes import Router

WORKER = '[workers.w0]\nbase_url = "{f0}/worker"\n'
QUICK = "[retry]\nbackoff_s = 0.001\n"


def plan(one: Any, *rules: dict[str, Any], provider: int = 0) -> None:
    one.fakes[provider].set_plan(rules)


async def test_a_blip_is_not_the_clients(stand: Any) -> None:
    one = await stand(QUICK + "budget_reserve = 100\n")
    for fake in ("status=500", "status=503", "status=429", "reset=head", "garbage", "overloaded", "errorbody", "html"):
        for stream in (False, True):
            plan(one, {"nth": 1, "fake": fake})
            answer = await one.chat(stream=stream)
            assert answer.status_code == 200, (fake, stream)
            assert answer.headers["x-tidegate-attempts"] == "2"
            attempts = await one.attempts(answer.headers["x-request-id"])
            assert [row.outcome for row in attempts] == ["failed", "served"]
            assert attempts[0].cost_pusd == 0 or fake in ("html",)
    calls = (await one.rows()).values()
    assert {call.attempts for call in calls} == {2}
    assert all(call.cost_pusd > 0 for call in calls)


@pytest.mark.parametrize(
    ("fake", "waits_s", "attempts"),
    [
        ("status=429; retry-after=1", (1.0, 1.6), 2),
        ("status=503; retry-after-ms=150", (0.15, 0.6), 2),
        ("status=429; retry-after=date:1", (0.0, 1.6), 2),
        ("status=429; retry-after=0", (0.0, 0.5), 2),
        ("status=429; retry-after=-7", (0.0, 0.5), 2),
        ("status=429; retry-after=as soon as you like", (0.0, 0.5), 2),
        ("status=429; retry-after=6", (0.0, 0.5), 1),
        ("status=429; retry-after=inf", (0.0, 0.5), 1),
        ("status=503; retry-after=86400", (0.0, 0.5), 1),
        ("status=429; retry-after=date:600", (0.0, 0.5), 1),
        ("status=500; should-retry=false", (0.0, 0.5), 1),
    ],
)
async def test_retry_after_is_honoured_or_bounded(
    stand: Any, fake: str, waits_s: tuple[float, float], attempts: int
) -> None:
    one = await stand(QUICK)
    plan(one, {"nth": 1, "fake": fake})
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await one.chat()
    took_s = loop.time() - began
    assert answer.headers.get("x-tidegate-attempts", "1") == str(attempts)
    assert answer.status_code == (200 if attempts == 2 else int(fake[7:10]))
    assert waits_s[0] <= took_s <= waits_s[1] + 2
    if attempts == 1 and "should" not in fake:
        assert "retry-after" in answer.headers  # the provider's own, as it came


@pytest.mark.parametrize("says", ["retry-after=0", "retry-after-ms=0", "retry-after=Tue, 01 Dec 2020 00:00:00 GMT"])
async def test_at_once_is_no_leave_to_hammer(stand: Any, says: str) -> None:
    """Who says "come back at once" in a refusal gets the ordinary back-off: up to 2 s, twice, jittered."""
    one = await stand("[retry]\nbackoff_s = 2\nlongest_backoff_s = 2\n")
    one.gateway.routing.draw = Random(4).random  # pauses of some 0.5 and 0.8 s
    plan(one, {"nth": [1, 2], "fake": f"status=429; {says}"})
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await one.chat()).headers["x-tidegate-attempts"] == "3"
    assert 0.4 < loop.time() - began < 6


async def test_the_providers_last_word_counts(stand: Any) -> None:
    one = await stand(QUICK)
    plan(
        one,
        {"nth": 1, "fake": "status=429; retry-after-ms=20"},
        {"fake": "status=429; retry-after=60"},
    )
    answer = await one.chat()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.headers["x-tidegate-attempts"] == "2"


async def test_a_pause_is_not_taken_for_the_targets_latency(stand: Any) -> None:
    one = await stand(QUICK)
    plan(one, {"nth": 1, "fake": "status=429; retry-after=1"})
    assert (await one.chat()).headers["x-tidegate-attempts"] == "2"
    (row,) = [row for row in one.gateway.routing.snapshot() if row["model"]]
    assert 0 < row["latency_ms"] < 1000


async def test_no_more_than_three_attempts(stand: Any) -> None:
    one = await stand(QUICK)
    answer = await one.chat("status=500")
    assert (answer.status_code, answer.headers["x-tidegate-attempts"]) == (500, "3")
    assert one.fakes[0].stats.calls == 3


async def test_retries_stay_within_a_tenth_of_the_calls(stand: Any) -> None:
    """A provider that fails every call gets hardly more of them for it; the breaker is kept out of this."""
    one = await stand(QUICK + "[breaker]\nconsecutive_failures = 100000\nmin_calls = 100000\n")
    for _ in range(10):
        answers = await asyncio.gather(*(one.chat("status=500") for _ in range(40)))
        assert {answer.status_code for answer in answers} == {500}
    assert one.fakes[0].stats.calls <= 400 + 40 + 10
    assert one.fakes[0].stats.calls >= 400 + 40
    rows = {row["provider"]: row for row in one.gateway.routing.snapshot() if not row["model"]}
    assert rows["f0"]["retry_budget"] <= 1


async def test_an_open_breaker_of_an_only_target_stops_retries_not_calls(stand: Any) -> None:
    one = await stand(QUICK + "[breaker]\nconsecutive_failures = 6\n")
    await one.chat("status=500")
    await one.chat("status=500")
    assert [event["model"] for event in one.named("breaker_open")] == ["demo-small"]
    came = one.fakes[0].stats.calls
    assert (await one.chat("status=500")).status_code == 500
    assert one.fakes[0].stats.calls == came + 1
    assert (await one.chat()).status_code == 200


async def test_who_leaves_during_a_pause_ends_it(stand: Any) -> None:
    one = await stand("[retry]\nlongest_retry_after_s = 60\n")
    plan(one, {"nth": 1, "fake": "status=429; retry-after=30"})
    call = asyncio.ensure_future(one.chat())
    while one.fakes[0].stats.calls == 0 or one.gateway.records.ledger.open:
        await asyncio.sleep(0.005)
    call.cancel()
    await asyncio.wait({call})
    async with asyncio.timeout(5):
        await one.settled()
    (row,) = (await one.rows()).values()
    assert (row.outcome, row.attempts, row.status) == ("gone", 1, 499)
    assert one.fakes[0].stats.calls == 1


@pytest.mark.parametrize(
    ("method", "headers", "body", "fake", "calls"),
    [
        ("GET", {}, None, "status=502", 2),
        ("PUT", {}, b"{}", "status=502", 2),
        ("DELETE", {}, None, "reset=head", 2),
        ("POST", {}, b"{}", "status=502", 1),
        ("POST", {}, b"{}", "status=503", 1),
        ("POST", {}, b"{}", "reset=head", 1),
        ("POST", {}, None, "reset=head", 1),
        ("PATCH", {}, b"{}", "status=504", 1),
        ("POST", {"idempotency-key": "a"}, b'{"x": 1}', "status=502", 2),
        ("POST", {"idempotency-key": "b"}, b'{"x": 1}', "reset=head", 2),
        ("POST", {"idempotency-key": "c"}, b'{"x": 1}', "status=500", 1),
        ("POST", {"idempotency-key": "d"}, b"x" * 1_048_577, "status=502", 1),
    ],
)
async def test_a_workers_work_is_not_done_twice(
    stand: Any, method: str, headers: dict[str, str], body: bytes | None, fake: str, calls: int
) -> None:
    one = await stand(QUICK + WORKER, providers=1)
    plan(one, {"nth": 1, "fake": fake})
    answer = await one.client.request(method, "/workers/w0/do", content=body, headers=headers)
    assert one.fakes[0].stats.calls == calls
    assert (answer.status_code == 200) is (calls == 2)
    if body and calls == 2:
        assert one.fakes[0].requests[-1].body == body == one.fakes[0].requests[-2].body


@pytest.mark.parametrize(
    ("path", "fake", "calls"),
    [
        ("/v1/things", "status=500", 1),
        ("/v1/things", "reset=head", 1),
        ("/v1/things", "status=503", 2),
        ("/v1/chat/completions", "reset=head", 2),
        ("/v1/embeddings", "status=500", 2),
    ],
)
async def test_what_makes_objects_is_repeated_only_where_nothing_was_done(
    stand: Any, path: str, fake: str, calls: int
) -> None:
    one = await stand(QUICK)
    plan(one, {"nth": 1, "fake": fake})
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "input": "x"}
    await one.client.post(path, json=body)
    assert one.fakes[0].stats.calls == calls


async def test_an_upload_gets_one_attempt(stand: Any) -> None:
    one = await stand(QUICK, providers=2)
    plan(one, {"fake": "status=503"})
    files = {"file": ("a.wav", b"x" * 4000, "audio/wav")}
    answer = await one.client.post("/v1/audio/transcriptions", data={"model": "m"}, files=files)
    assert answer.status_code == 503
    assert [fake.stats.calls for fake in one.fakes] == [1, 0]


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_may_repeat_by_route_method_and_row(kind: str) -> None:
    router = Router()
    for method, path, key, generates in (
        ("POST", b"/v1/chat/completions", False, True),
        ("POST", b"/v1/messages", False, True),
        ("POST", b"/v1/files", False, False),
        ("POST", b"/workers/x/y", False, False),
        ("POST", b"/workers/x/y", True, True),
        ("GET", b"/v1/files", False, True),
    ):
        headers = [(b"idempotency-key", b"k")] if key else []
        route = router.match(method, path).route
        call = Call(
            id="c", route=route, dialect=route.dialect, method=method, path=path, query=b"", raw_headers=headers,
            started_ns=0, started_wall_ns=0,
        )  # fmt: skip
        for fault in FAULTS[kind].values():
            assert may_repeat(call, fault) is (generates or fault.work == "none"), (path, fault.name)
