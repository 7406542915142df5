"""A provider's or worker's own retry and breaker settings, beside those of all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.config import load

OWN = """
[breaker]
consecutive_failures = 100000
min_calls = 100000
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
pass_headers = ["x-fake"]
retry = { attempts = 2, backoff_s = 0.001, longest_retry_after_s = 0.2, budget_reserve = 1 }
breaker = { consecutive_failures = 3, open_s = 30, probe_every_s = 60 }
[providers.other]
kind = "openai"
base_url = "{f0}/v1"
pass_headers = ["x-fake"]
[models.other]
targets = ["other/demo-small"]
[workers.w0]
base_url = "{f0}/worker"
pass_headers = ["x-fake"]
retry = { attempts = 1 }
"""


async def test_attempts_and_patience_are_those_of_the_provider(stand: Any) -> None:
    one = await stand(OWN)
    assert (await one.chat("status=408")).headers["x-tidegate-attempts"] == "2"
    assert "x-tidegate-attempts" not in (await one.chat("status=408")).headers  # its reserve was one
    assert (await one.chat("status=408", model="other")).headers["x-tidegate-attempts"] == "3"
    assert "x-tidegate-attempts" not in (await one.chat("status=429; retry-after=1")).headers
    gone = await one.client.get("/workers/w0/thing", headers={"x-fake": "reset=head"})
    assert gone.status_code == 502
    assert "x-tidegate-attempts" not in gone.headers


async def test_the_breaker_is_the_providers_own_and_so_it_stays_over_a_reload(stand: Any) -> None:
    one = await stand(OWN)
    path = one.folder / "gateway.toml"
    path.write_text(path.read_text() + '\n[clients.more]\nmodels = ["m"]\n')
    await one.gateway.reload()
    for model in ("m", "other"):
        await asyncio.gather(*(one.chat("status=500", model=model) for _ in range(6)))
    assert [event["provider"] for event in one.named("breaker_open")] == ["f0"]
    path.write_text(path.read_text().replace("consecutive_failures = 3", "consecutive_failures = 1000"))
    await one.gateway.reload()
    place = one.gateway.routing.standings._places["f0"]
    assert place.standings["demo-small"].breaker.rules.consecutive_failures == 1000
    assert place.standings["demo-small"].breaker.rules.min_calls == 100000  # of all: what it does not say itself


async def test_an_empty_budget_of_one_target_leaves_the_others_retries(stand: Any) -> None:
    config = """
[providers.f0]
kind = "openai"
base_url = "{f0}/v1"
retry = { budget_percent = 0, budget_reserve = 0 }
"""
    one = await stand(config, providers=2)
    for fake in one.fakes:
        fake.set_plan([{"nth": 1, "fake": "status=500"}])
    answer = await one.chat()
    assert (answer.status_code, answer.headers["x-tidegate-attempts"]) == (200, "3")
    assert answer.headers["x-tidegate-provider"] == "f1"


@pytest.mark.parametrize("line", ["retry = { preamble_s = 1 }", "breaker = { max_ejected_percent = 10 }"])
def test_what_concerns_a_whole_call_or_model_is_not_a_providers(tmp_path: Any, line: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f'[providers.x]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n{line}\n')
    with pytest.raises(Exception, match=line.split()[3]):
        load(path, {}, env={})
