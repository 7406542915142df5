"""Downgrades: which calls are given to a cheaper model, which never are, and what is said of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway.policy import PolicyError, build

FROM = "x-tidegate-downgraded-from"


async def test_a_downgrade_is_said_and_its_saving_recorded_by_real_usage(site: Any) -> None:
    answer = await site.ask(site.chat())
    assert answer.status_code == 200
    assert (answer.headers[FROM], answer.headers["x-tidegate-model"]) == ("dear", "cheap")
    assert answer.headers["x-tidegate-provider"] == "second"
    assert answer.json()["model"].startswith("demo-small")
    row, usage = site.row(answer), answer.json()["usage"]
    saving = row["notes"]["saving"]
    tokens_in, tokens_out = usage["prompt_tokens"], usage["completion_tokens"]
    assert tokens_in > 0
    assert (row["model"], row["served_model"], saving["method"], saving["from"]) == (
        "dear",
        "cheap",
        "downgrade",
        "dear",
    )
    original, actual, saved = Decimal(saving["original_usd"]), Decimal(saving["actual_usd"]), Decimal(row["saved_usd"])
    assert original * 1_000_000 == tokens_in * 10 + tokens_out * 20
    assert actual * 1_000_000 == tokens_in + tokens_out * 2
    assert (row["saving"], saved, Decimal(row["cost_usd"])) == ("downgrade", original - actual, actual)


async def test_a_stream_is_downgraded_alike(site: Any) -> None:
    answer = await site.ask(site.chat(stream=True))
    assert (answer.headers[FROM], answer.headers["x-tidegate-model"]) == ("dear", "cheap")
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert Decimal(site.row(answer)["saved_usd"]) > 0


async def test_an_alias_is_said_as_it_was_asked(site: Any) -> None:
    answer = await site.ask(site.chat(model="best"))
    assert (answer.headers[FROM], answer.headers["x-tidegate-model"]) == ("best", "cheap")


async def test_what_an_alias_of_the_dearer_model_was_answered_goes_with_it(site: Any) -> None:
    body = site.chat(model="best", temperature=0)
    await site.ask(body)
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "hit"
    site.server.tidegate("cache", "purge", "--model", "dear", "--json")
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "miss"


NEVER: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"x_tidegate_priority": "urgent"}),
    ({}, {"x_tidegate_accuracy": "high"}),
    ({}, {"x_tidegate_allow_downgrade": "false"}),
    ({}, {"x_tidegate_accuracy": "high", "x_tidegate_allow_downgrade": "true"}),
    ({"metadata": {"tidegate_priority": "urgent"}}, {}),
    ({"metadata": {"tidegate_accuracy": "high"}}, {}),
    ({"metadata": {"tidegate_allow_downgrade": "false"}}, {}),
    ({}, {"key": "big"}),
    ({}, {"key": "narrow"}),
    ({"max_tokens": 60_000}, {}),
    ({"reasoning_effort": "low"}, {}),
    ({"tools": [{"type": "function", "function": {"name": "f"}}], "response_format": {"type": "json_object"}}, {}),
    ({"messages": [{"role": "user", "content": [{"type": "mystery"}]}]}, {}),
    ({"logit_bias": {"50256": -100}}, {}),  # another vocabulary has another token of that number
    ({"models": ["dear", "tiny"]}, {}),  # the provider would choose among them
]


@pytest.mark.parametrize("case", NEVER, ids=lambda case: json.dumps(case)[:60])
async def test_what_may_or_can_not_go_elsewhere_stays(site: Any, case: tuple[dict[str, Any], dict[str, str]]) -> None:
    more, headers = case
    answer = await site.ask(site.chat(**more), **headers)
    assert answer.status_code == 200, answer.text
    assert FROM not in answer.headers
    assert answer.headers["x-tidegate-model"] == "dear"


async def test_enterprise_may_allow_it(site: Any) -> None:
    answer = await site.ask(site.chat(), key="big", x_tidegate_allow_downgrade="true")
    assert answer.headers["x-tidegate-model"] == "cheap"


IMAGE = "data:image/png;base64,iVBORw0KGgo="
ABLE: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "cheap"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, "tiny"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}]}, "tiny"),
    ({"max_tokens": 30_000}, "tiny"),
]


@pytest.mark.parametrize(("more", "model"), ABLE, ids=lambda value: json.dumps(value)[:40])
async def test_the_first_of_the_chain_that_is_able_takes_it(site: Any, more: Any, model: str) -> None:
    answer = await site.ask(site.chat(**more))
    assert (answer.headers[FROM], answer.headers["x-tidegate-model"]) == ("dear", model)


@pytest.mark.parametrize(
    "headers", [{"x_tidegate_allow_downgrade": "maybe"}, {"x_tidegate_accuracy": "extreme"}], ids=str
)
async def test_wishes_that_mean_nothing_are_refused(site: Any, headers: dict[str, str]) -> None:
    answer = await site.ask(site.chat(), **headers)
    assert answer.status_code == 400
    assert next(iter(headers)).replace("_", "-") in answer.text


async def test_a_downgraded_answer_never_serves_a_call_that_may_not_be_downgraded(site: Any) -> None:
    body = site.chat()
    first = await site.ask(body)
    assert first.headers["x-tidegate-model"] == "cheap"
    exact = await site.ask(body, x_tidegate_allow_downgrade="false")
    assert (exact.headers["x-tidegate-cache"], exact.headers["x-tidegate-model"]) == ("miss", "dear")
    again = await site.ask(body, x_tidegate_accuracy="high")
    assert (again.headers["x-tidegate-cache"], again.headers["x-tidegate-model"]) == ("hit", "dear")


async def test_one_that_may_not_be_downgraded_does_not_follow_one_that_is(site: Any) -> None:
    body = site.chat()
    cheap, dear = await asyncio.gather(site.ask(body), site.ask(body, x_tidegate_accuracy="high"))
    assert dear.headers["x-tidegate-model"] == "dear"
    assert cheap.headers["x-tidegate-model"] in ("cheap", "dear")


async def test_nothing_is_downgraded_without_a_trigger(open_site: Any) -> None:
    site = open_site("when = { budget_used_percent = 50 }")
    assert (await site.ask(site.chat())).headers["x-tidegate-model"] == "dear"
    body = site.chat(max_tokens=50)  # about a mill each, of ten
    models: list[str] = []
    for _ in range(12):
        answer = await site.ask({**body, "seed": len(models)}, key="frugal")
        models.append(answer.headers.get("x-tidegate-model", answer.text))
    assert (models[0], models[-1]) == ("dear", "cheap"), models


async def test_a_short_pool_is_a_trigger(open_site: Any) -> None:
    site = open_site("when = { pool_short_percent = 50 }")
    models = [(await site.ask(site.chat(model="pooled"))).headers["x-tidegate-model"] for _ in range(3)]
    assert models == ["pooled", "pooled", "cheap"]  # 100,000, 60,000 and 20,000 left


async def test_off_peak_is_outside_the_peaks(open_site: Any) -> None:
    inside = open_site('when = { off_peak = true }\npeak = "00:00-24:00"')
    assert (await inside.ask(inside.chat())).headers["x-tidegate-model"] == "dear"
    two_days_on = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(datetime.now(UTC).weekday() + 2) % 7]
    outside = open_site(f'when = {{ off_peak = true }}\npeak = "{two_days_on} 06:00-18:00"')
    assert (await outside.ask(outside.chat())).headers["x-tidegate-model"] == "cheap"


async def test_a_long_queue_is_a_trigger(open_site: Any) -> None:
    site = open_site("when = { queue_wait_s = 0.001 }")
    headers = {"x_fake": "latency-ms=1500"}
    first = [asyncio.ensure_future(site.ask(site.chat(model="waited"), **headers)) for _ in range(2)]
    async with asyncio.timeout(10):  # one runs, one waits
        while (
            "tidegate_queue_waiting 1.0" not in (await site.http.get("/metrics", headers={"accept": "text/plain"})).text
        ):
            await asyncio.sleep(0.02)
    last = await site.ask(site.chat(model="waited"))
    assert last.headers["x-tidegate-model"] == "cheap"
    assert [one.headers["x-tidegate-model"] for one in await asyncio.gather(*first)] == ["waited"] * 2


async def test_observed_it_changes_nothing(open_site: Any) -> None:
    site = open_site('when = { always = true }\nmode = "observe"')
    answer = await site.ask(site.chat())
    assert FROM not in answer.headers
    assert answer.headers["x-tidegate-model"] == "dear"
    assert "downgrade: would change the call" in site.row(answer)["notes"]["observed"]


@pytest.mark.parametrize(
    "settings",
    [
        {"chains": {"a": "b", "b": "a"}},
        {"chains": {"a": "a"}},
        {"when": {"sometimes": True}},
        {"when": {"always": 1}},
        {"when": {"pool_short_percent": 101}},
        {"when": {"queue_wait_s": -1}},
        {"peak": "noon"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        build("downgrade", settings)
