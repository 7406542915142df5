"""Failover: where a call goes when its first target can't serve it, what is held, billed and told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

WORKER = '[workers.w0]\nbase_url = "{f0}/worker"\n'
CALM = "[breaker]\nconsecutive_failures = 100000\nmin_calls = 100000\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fake", ["status=500", "status=429; retry-after=60", "reset=head", "overloaded", "status=401", "status=404"]
)
async def test_the_next_target_serves_at_once_and_is_told(stand: Any, fake: str, stream: bool) -> None:
    one = await stand(CALM, providers=2)
    one.fakes[0].set_plan([{"fake": fake}])
    answer = await one.chat(stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-provider"] == "f1"
    assert answer.headers["x-tidegate-attempts"] == "2"
    attempts = await one.attempts(answer.headers["x-request-id"])
    assert [(row.provider, row.outcome) for row in attempts] == [("f0", "failed"), ("f1", "served")]
    assert [fake.stats.calls for fake in one.fakes] == [1, 1]


async def test_a_mistake_of_the_caller_is_not_passed_around(stand: Any) -> None:
    one = await stand(CALM, providers=2)
    one.fakes[0].set_plan([{"fake": "status=400"}])
    answer = await one.chat()
    assert answer.status_code == 400
    assert [fake.stats.calls for fake in one.fakes] == [1, 0]


async def test_when_all_fail_the_last_answer_comes_as_it_is(stand: Any) -> None:
    one = await stand(CALM + "[retry]\nattempts = 3\n", providers=3)
    for number, status in enumerate((500, 502, 503)):
        one.fakes[number].set_plan([{"fake": f"status={status}; retry-after=7"}])
    answer = await one.chat()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.headers["x-tidegate-provider"] == "f2"
    assert [fake.stats.calls for fake in one.fakes] == [1, 1, 1]


PRICED = """
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
timeouts = { first_byte_s = 0.3 }
[prices."f0/demo-small"]
input = 100
output = 1000
[prices."f1/demo-small"]
input = 1
output = 10
"""


async def test_every_attempt_is_billed_at_its_own_price_and_both_are_held(stand: Any) -> None:
    """The first may have been billed (a time-out), so its estimate stays; the budget ends at the sum of both."""
    one = await stand(CALM + PRICED, providers=2)
    one.fakes[0].set_plan([{"fake": "halfopen"}])
    answer = await one.chat()
    assert answer.headers["x-tidegate-attempts"] == "2"
    first, second = await one.attempts(answer.headers["x-request-id"])
    assert first.cost_pusd > 0
    assert first.estimated
    assert second.cost_pusd > 0
    (call,) = (await one.rows()).values()
    assert call.cost_pusd == first.cost_pusd + second.cost_pusd
    text = answer.headers["x-tidegate-cost"]
    assert round(float(text) * 1e12) == call.cost_pusd


async def test_targets_without_room_are_skipped(stand: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.pipeline import Pipeline

    asked: list[tuple[str, bool]] = []
    original = Pipeline.move

    async def move(self: Pipeline, call: Any, target: Any, *, keep: bool) -> bool:
        asked.append((target.provider.name, keep))
        return target.provider.name != "f1" and await original(self, call, target, keep=keep)

    monkeypatch.setattr(Pipeline, "move", move)
    one = await stand(CALM, providers=3)
    one.fakes[0].set_plan([{"fake": "status=500"}])
    answer = await one.chat()
    assert answer.headers["x-tidegate-provider"] == "f2"
    assert asked == [("f1", False), ("f2", False)]
    assert [fake.stats.calls for fake in one.fakes] == [1, 0, 1]


def states_of(one: Any) -> dict[tuple[str, str], str]:
    return {(row["provider"], row["model"]): row["state"] for row in one.gateway.routing.snapshot()}


async def test_an_open_breaker_sends_calls_elsewhere_and_closes_again(stand: Any) -> None:
    rules = "[breaker]\nconsecutive_failures = 3\nopen_s = 30\nclose_after = 2\nprobe_every_s = 60\n"
    one = await stand(rules, providers=2)
    place = one.gateway.routing.standings._places
    one.fakes[0].set_plan([{"fake": "status=500"}])
    for _ in range(3):
        assert (await one.chat()).status_code == 200
    assert [event["why"] for event in one.named("breaker_open")] == ["3 failures one after the other"]
    came = one.fakes[0].stats.calls
    answers = await asyncio.gather(*(one.chat() for _ in range(20)))
    assert all("x-tidegate-attempts" not in answer.headers for answer in answers)
    assert one.fakes[0].stats.calls == came
    assert states_of(one)["f0", "demo-small"] == "open"
    page = one.gateway.metrics.render()[0].decode()
    assert 'tidegate_breaker_state{model="demo-small",provider="f0"} 1.0' in page

    place["f0"].standings["demo-small"].breaker.reopens_ns = 0  # the time is up
    one.fakes[0].set_plan([{"fake": "status=500; latency-ms=100"}])
    answers = await asyncio.gather(*(one.chat() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert one.fakes[0].stats.calls == came + 1  # half-open: one call at a time
    assert states_of(one)["f0", "demo-small"] == "open"
    place["f0"].standings["demo-small"].breaker.reopens_ns = 0
    one.fakes[0].set_plan([])
    for _ in range(3):
        assert (await one.chat()).status_code == 200
    assert [event["why"] for event in one.named("breaker_closed")] == ["it is well again"]
    assert (await one.chat()).headers["x-tidegate-provider"] == "f0"


async def test_a_long_stream_that_began_well_keeps_no_half_open_target_from_closing(stand: Any) -> None:
    rules = "[breaker]\nconsecutive_failures = 3\nopen_s = 30\nclose_after = 2\nprobe_every_s = 60\n"
    one = await stand(rules, providers=2)
    one.fakes[0].set_plan([{"fake": "status=500"}])
    for _ in range(3):
        await one.chat()
    one.gateway.routing.standings._places["f0"].standings["demo-small"].breaker.reopens_ns = 0
    one.fakes[0].set_plan([{"nth": 1, "fake": "chunk-ms=400"}])
    stream = asyncio.ensure_future(one.chat(stream=True))
    breaker = one.gateway.routing.standings._places["f0"].standings["demo-small"].breaker
    async with asyncio.timeout(5):
        while breaker._proofs == 0:  # its first event came
            await asyncio.sleep(0.005)
    assert (await one.chat()).headers["x-tidegate-provider"] == "f0"
    assert not stream.done()
    assert states_of(one)["f0", "demo-small"] == "closed"
    assert (await stream).status_code == 200


async def test_a_provider_that_asks_for_time_is_left_alone(stand: Any) -> None:
    one = await stand(CALM, providers=2)
    one.fakes[0].set_plan([{"nth": 1, "fake": "status=429; retry-after-ms=1500"}])
    assert (await one.chat()).headers["x-tidegate-attempts"] == "2"
    for _ in range(5):
        assert (await one.chat()).headers["x-tidegate-provider"] == "f1"
    assert one.fakes[0].stats.calls == 1
    await asyncio.sleep(1.55)
    assert (await one.chat()).headers["x-tidegate-provider"] == "f0"


@pytest.mark.parametrize("fake", ["status=429", "status=529", "status=503", "overloaded"])
@pytest.mark.parametrize("every", [1, 3])
async def test_overload_goes_to_a_target_that_is_well_however_long_it_lasts(stand: Any, fake: str, every: int) -> None:
    """No retry-after, no open breaker: all the same no call is refused while the other target has room."""
    one = await stand(CALM + "[retry]\nbudget_reserve = 2\n", providers=2)
    one.fakes[0].set_plan([{"every": every, "fake": fake}])
    answers = [await one.chat() for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}


async def test_overload_is_not_passed_on_to_one_that_is_overloaded_too(stand: Any) -> None:
    """Two targets that refuse everything get little more than the calls that come, once both are known to."""
    one = await stand(CALM + "[retry]\nbudget_reserve = 2\n", providers=2)
    for fake in one.fakes:
        fake.set_plan([{"fake": "status=429"}])
    for _ in range(20):
        assert (await one.chat()).status_code == 429
    came = sum(fake.stats.calls for fake in one.fakes)
    for _ in range(60):
        assert (await one.chat()).status_code == 429
    assert sum(fake.stats.calls for fake in one.fakes) - came <= 60 * 1.1 + 1


async def test_a_provider_without_money_is_left_alone_for_a_while(stand: Any) -> None:
    """As a key of several is: waiting a second does not mend it, and asking costs each call a round trip."""
    one = await stand(CALM, providers=2)
    one.fakes[0].set_plan([{"fake": "status=429; code=insufficient_quota"}])
    for _ in range(6):
        assert (await one.chat()).headers["x-tidegate-provider"] == "f1"
    assert one.fakes[0].stats.calls == 1


async def test_breakers_outlive_a_reload(stand: Any) -> None:
    one = await stand("[breaker]\nconsecutive_failures = 3\n", providers=2)
    one.fakes[0].set_plan([{"fake": "status=500"}])
    for _ in range(3):
        await one.chat()
    path = one.folder / "gateway.toml"
    path.write_text(path.read_text() + '\n[clients.other]\nmodels = ["m"]\n')
    await one.gateway.reload()
    came = one.fakes[0].stats.calls
    assert (await one.chat()).headers["x-tidegate-provider"] == "f1"
    assert one.fakes[0].stats.calls == came


async def test_paths_without_a_model_stand_by_themselves(stand: Any) -> None:
    one = await stand("[breaker]\nconsecutive_failures = 2\n")
    one.fakes[0].set_plan([{"path": "/v1/files*", "fake": "status=500"}])
    for _ in range(2):
        await one.client.get("/v1/files")
    assert states_of(one) == {("f0", ""): "closed", ("f0", "(no model)"): "open"}
    assert (await one.chat()).status_code == 200


async def test_a_provider_that_is_gone_is_forgotten(stand: Any) -> None:
    one = await stand(providers=2)
    one.fakes[0].set_plan([{"fake": "status=500"}])
    await one.chat()
    path = one.folder / "gateway.toml"
    path.write_text(path.read_text().replace('"f0/demo-small", ', "").replace("[providers.f0]", "[providers.f2]"))
    await one.gateway.reload()
    assert set(states_of(one)) == {("f1", ""), ("f1", "demo-small"), ("f2", "")}
    assert (await one.chat()).status_code == 200


async def test_equal_targets_share_the_load_and_one_takes_over(stand: Any) -> None:
    equal = '{ to = "f0/demo-small", weight = 3 }, { to = "f1/demo-small", weight = 1 }'
    one = await stand(CALM, providers=2, targets=equal, latency_ms=20)
    for _ in range(10):
        await asyncio.gather(*(one.chat() for _ in range(20)))
    share = one.fakes[0].stats.calls / 200
    assert 0.55 <= share <= 0.95
    assert one.fakes[0].stats.calls + one.fakes[1].stats.calls == 200


KEYS = """
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
api_key = "sk-first"
api_keys = ["sk-second", "sk-third"]
"""


async def test_several_keys_share_and_stand_in_for_each_other(stand: Any) -> None:
    one = await stand(CALM + KEYS)
    await asyncio.gather(*(one.chat() for _ in range(60)))
    used = [dict(request.headers)[b"authorization"].decode()[-6:] for request in one.fakes[0].requests]
    assert set(used) == {"-first", "second", "-third"}
    one.fakes[0].set_plan(
        [{"key": "sk-first", "fake": "status=429; retry-after=60"}, {"key": "sk-second", "fake": "status=401"}]
    )
    resting: list[bool] = []
    failed = 0
    async with asyncio.timeout(60):
        while resting != [True, True, False]:  # which key a call draws is chance
            answer = await one.chat()
            assert answer.status_code == 200
            failed += "x-tidegate-attempts" in answer.headers
            (row,) = [row for row in one.gateway.routing.snapshot() if not row["model"]]
            resting = [key["rests_s"] > 0 for key in row["keys"]]
    assert failed <= 2  # each is met once, then rests
    for _ in range(20):
        assert "x-tidegate-attempts" not in (await one.chat()).headers
    used = [dict(request.headers)[b"authorization"].decode() for request in one.fakes[0].requests][-20:]
    assert set(used) == {"Bearer sk-third"}
    assert "sk-" not in str(one.gateway.routing.snapshot())


async def test_a_key_rests_until_its_limit_is_whole_again(stand: Any) -> None:
    one = await stand(CALM + KEYS.replace(', "sk-third"', ""))
    one.fakes[0].set_plan([{"key": "sk-first", "fake": "remaining-requests=0; reset-requests=60s"}])
    for _ in range(20):
        assert (await one.chat()).status_code == 200
    used = [dict(request.headers)[b"authorization"].decode() for request in one.fakes[0].requests]
    assert used.count("Bearer sk-first") <= 1


async def test_headers_for_one_provider_dont_reach_the_other(stand: Any) -> None:
    config = CALM + '[providers.f0]\nkind = "openai"\nbase_url = "{f0}/v1"\npass_headers = ["x-fake", "x-secret"]\n'
    one = await stand(config, providers=2)
    one.fakes[0].set_plan([{"fake": "status=500"}])
    answer = await one.chat(headers={"x-secret": "for f0 only"})
    assert answer.headers["x-tidegate-provider"] == "f1"
    assert dict(one.fakes[0].requests[-1].headers)[b"x-secret"] == b"for f0 only"
    assert b"x-secret" not in dict(one.fakes[1].requests[-1].headers)


async def test_providers_that_had_no_call_yet_are_shown_and_those_that_are_gone_are_not(stand: Any) -> None:
    one = await stand(WORKER, providers=2)
    assert states_of(one) == {("f0", ""): "closed", ("f1", ""): "closed", ("workers/w0", ""): "closed"}
    path = one.folder / "gateway.toml"
    path.write_text(path.read_text().replace(WORKER.format(f0=one.fakes[0].base_url), ""))
    await one.gateway.reload()
    assert states_of(one) == {("f0", ""): "closed", ("f1", ""): "closed"}
