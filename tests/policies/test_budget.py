"""Budgets: money by the calendar, under a real pipeline and store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.call import Call, Outcome
from gateway.clients import BudgetRules, Tier
from gateway.errors import Forbidden, OverBudget, render
from gateway.periods import Adjustment
from gateway.policy import PolicyError
from gateway.state.store import Used
from gateway.usage import Usage

USD = 10**12
DAY_S, HOUR_S = 86_400, 3600
Make = Callable[..., Any]


def at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[arg-type,misc]  # year, month, ...


@pytest.fixture(autouse=True)
def november(bench: Any) -> None:
    """It is noon of 24 November 2026."""
    bench.clock.jump_wall((at(2026, 11, 24, 12) - bench.clock.wall_ns()) // 10**9)


async def admitted(pipeline: Any, call: Call) -> bool:
    try:
        await pipeline.admit(call)
    except OverBudget:
        return False
    return True


async def spend(bench: Any, pipeline: Any, person: Any, usd: float, **more: Any) -> None:
    """A call that costs so much; at a micro-dollar a token."""
    tokens = int(usd * 1_000_000)
    call = bench.call(person, max_tokens=tokens, **more)
    await pipeline.admit(call)
    outcome = Outcome("served", 200, Usage(output_tokens=tokens), tokens * 1_000_000, True, attempted=True)
    await pipeline.settle(call, outcome)


async def left(budget: Any, *name: str) -> int:
    return next(one.left_pusd for one in await budget.status() if one[:3] == name)


def rules(day: float | None = None, month: float | None = None, hard: bool = True) -> BudgetRules:
    return BudgetRules(*(None if usd is None else int(usd * 1000) * USD // 1000 for usd in (day, month)), hard=hard)


# -- refusing


async def test_admits_what_fits_and_refuses_the_rest_for_good(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("budget"))
    acme = bench.person(budget=rules(day=2.0))
    await spend(bench, pipeline, acme, 1.5)
    with pytest.raises(OverBudget) as refused:
        await pipeline.admit(bench.call(acme, max_tokens=600_000))
    status, headers, body = render(refused.value, "openai", "id")
    assert status == 429
    assert (b"x-should-retry", b"false") in headers
    assert b'"code":"insufficient_quota"' in body
    assert refused.value.retry_after_s == 12 * HOUR_S
    assert "budget of client acme for the day 2026-11-24" in refused.value.message
    assert await admitted(pipeline, bench.call(acme, max_tokens=500_000))


async def test_500_at_once_on_ten_worst_cases(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("budget"))
    acme = bench.person(budget=rules(month=10 * 0.001))
    calls = [bench.call(acme, prompt_bytes=300, max_tokens=700) for _ in range(500)]
    assert sum(await asyncio.gather(*(admitted(pipeline, call) for call in calls))) == 10


async def test_settles_to_what_it_cost_and_gives_back_the_rest(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0, month=10.0))
    call = bench.call(acme, max_tokens=900_000)
    await pipeline.admit(call)
    assert await left(budget, "client", "acme", "day") == USD // 10
    await pipeline.settle(call, Outcome("served", 200, Usage(), 123_456_789, attempted=True))
    assert await left(budget, "client", "acme", "day") == USD - 123_456_789
    assert await left(budget, "client", "acme", "month") == 10 * USD - 123_456_789


@pytest.mark.parametrize("kind", ["failed", "gone"])
async def test_settles_attempts_that_failed_to_what_they_cost(bench: Any, kind: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    for cost in (0, 77):
        call = bench.call(acme, max_tokens=100_000)
        await pipeline.admit(call)
        await pipeline.settle(call, Outcome(kind, 502, Usage(), cost, attempted=True))
    assert await left(budget, "client", "acme", "day") == USD - 77


async def test_a_cancelled_call_without_an_attempt_costs_nothing(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))

    async def work() -> None:
        call = bench.call(acme, max_tokens=100_000)
        await pipeline.admit(call)
        try:
            await asyncio.Event().wait()
        finally:
            await pipeline.settle(call, Outcome("gone", 499, Usage()))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert await left(budget, "client", "acme", "day") == 9 * USD // 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await left(budget, "client", "acme", "day") == USD


async def test_the_dearest_target_is_reserved(bench: Any, target: Make) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    targets = [target("a", 1_000_000), target("b", 5_000_000), target("c", 2_000_000)]
    await pipeline.admit(bench.call(acme, *targets, max_tokens=100_000))
    assert await left(budget, "client", "acme", "day") == USD // 2


async def test_several_attempts_are_charged_together(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    call = bench.call(acme, max_tokens=1000)
    await pipeline.admit(call)
    call.attempts = [SimpleNamespace(cost_pusd=300), SimpleNamespace(cost_pusd=40)]
    await pipeline.settle(call, Outcome("served", 200, Usage(), 40, attempted=True))
    assert await left(budget, "client", "acme", "day") == USD - 340


async def test_input_is_counted_exactly_where_money_is_lacking(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("budget")), bench.person(budget=rules(day=0.001))
    call = bench.call(acme, prompt_bytes=2000, max_tokens=400)
    await pipeline.admit(call)
    assert call.facts.input_tokens == 500


async def test_a_budget_counts_the_charge(bench: Any) -> None:
    """TERMS 21: a client of a tier with 20 % discount gets 25 % more for its budget."""
    budget = bench.policy("budget")
    pipeline = bench.pipeline(budget)
    acme = bench.person(tier=Tier("t", discount_percent=20, concurrent=100), budget=rules(day=1.0))
    await spend(bench, pipeline, acme, 1.25)
    assert await left(budget, "client", "acme", "day") == 0


# -- whose budget


async def test_org_client_and_key_each_have_their_own(bench: Any) -> None:
    bench.orgs = {"org": rules(month=3.0)}
    budget = bench.policy("budget")
    pipeline = bench.pipeline(budget)
    acme = bench.person("acme", budget=rules(day=2.0), key_budget=rules(day=1.5))
    other = bench.person("other")
    await spend(bench, pipeline, acme, 1.2)
    await spend(bench, pipeline, other, 1.5)
    assert await left(budget, "key", "acme-key", "day") == 3 * USD // 10
    assert await left(budget, "client", "acme", "day") == 8 * USD // 10
    assert await left(budget, "org", "org", "month") == 3 * USD // 10
    with pytest.raises(OverBudget, match="budget of org org for the month 2026-11"):
        await pipeline.admit(bench.call(other, max_tokens=300_001))
    assert await admitted(pipeline, bench.call(acme, max_tokens=300_000))


async def test_a_tiers_budget_holds_where_the_client_says_nothing(bench: Any) -> None:
    budget = bench.policy("budget")
    tier = Tier("t", budget=rules(day=5.0, month=50.0))
    bench.person("acme", tier=tier, budget=rules(month=7.0))
    assert await left(budget, "client", "acme", "day") == 5 * USD
    assert await left(budget, "client", "acme", "month") == 7 * USD


async def test_without_any_budget_nothing_is_needed(bench: Any) -> None:
    call = bench.call(bench.person(), max_tokens=10**9)
    bench.policy("budget").apply(call)
    assert call.needs == []


async def test_needs_are_made_once_for_a_key_and_period(bench: Any) -> None:
    budget, acme = bench.policy("budget"), bench.person(budget=rules(day=1.0, month=5.0))
    calls = [bench.call(acme) for _ in range(2)]
    bench.clock.advance(12 * HOUR_S)
    calls.append(bench.call(acme))
    for call in calls:
        budget.apply(call)
    assert all(one is other for one, other in zip(calls[0].needs, calls[1].needs, strict=True))
    day, month = calls[2].needs
    assert day.limit.period == "2026-11-25"
    assert month.limit is calls[0].needs[1].limit


# -- time


async def test_a_new_day_has_a_new_budget_and_the_month_goes_on(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0, month=1.5))
    await spend(bench, pipeline, acme, 1.0)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    bench.clock.advance(12 * HOUR_S)
    await spend(bench, pipeline, acme, 0.5)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    bench.clock.advance(7 * DAY_S)
    assert await admitted(pipeline, bench.call(acme, max_tokens=1_000_000))


async def test_periods_follow_the_time_zone(bench: Any) -> None:
    bench.time_zone = "Pacific/Auckland"  # it is 25 November there, 01:00
    budget = bench.policy("budget")
    bench.person(budget=rules(day=1.0))
    (level,) = await budget.status()
    assert level.period == "2026-11-25"
    assert level.ends_wall_ns == at(2026, 11, 25, 11)


async def test_a_wall_clock_going_forth_and_back_mints_nothing(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    bench.clock.jump_wall(11.5 * HOUR_S)
    await spend(bench, pipeline, acme, 1.0)
    bench.clock.jump_wall(HOUR_S)  # over midnight
    await spend(bench, pipeline, acme, 0.8)
    bench.clock.jump_wall(-HOUR_S)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    bench.clock.jump_wall(HOUR_S)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=200_001))
    assert await admitted(pipeline, bench.call(acme, max_tokens=200_000))


async def test_a_call_over_midnight_counts_where_it_began(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    call = bench.call(acme, max_tokens=1_000_000)
    await pipeline.admit(call)
    bench.clock.advance(12 * HOUR_S)
    await spend(bench, pipeline, acme, 0.4)
    await pipeline.settle(call, Outcome("served", 200, Usage(), USD, attempted=True))
    assert await left(budget, "client", "acme", "day") == 6 * USD // 10


# -- telling


def told(bench: Any) -> list[tuple[str, str, int]]:
    return [(event.name, event.fields["period"], event.fields["percent"]) for event in bench.events.recent]


async def test_thresholds_are_told_once_a_period(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("budget")), bench.person(budget=rules(day=1.0))
    await spend(bench, pipeline, acme, 0.7999)
    assert told(bench) == []
    for _ in range(3):
        await spend(bench, pipeline, acme, 0.04)
    assert told(bench) == [("budget_warning", "2026-11-24", 80)]
    await spend(bench, pipeline, acme, 0.0801)
    assert told(bench)[1:] == [("budget_critical", "2026-11-24", 95), ("budget_stop", "2026-11-24", 100)]
    event = bench.events.recent[-1].fields
    assert (event["scope"], event["subject"], event["span"]) == ("client", "acme", "day")
    assert (event["used_pusd"], event["limit_pusd"], event["hard"], event["observed"]) == (USD, USD, True, False)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    assert len(told(bench)) == 3
    bench.clock.advance(12 * HOUR_S)
    await spend(bench, pipeline, acme, 0.8)
    assert told(bench)[3:] == [("budget_warning", "2026-11-25", 80)]


async def test_a_hard_budget_that_refuses_near_its_end_has_stopped(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("budget")), bench.person(budget=rules(day=1.0))
    await spend(bench, pipeline, acme, 0.96)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=50_000))
    assert not await admitted(pipeline, bench.call(acme, max_tokens=50_000))
    assert [name for name, *_ in told(bench)] == ["budget_warning", "budget_critical", "budget_stop"]


async def test_thresholds_can_be_set(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("budget", warn_percent=50, critical_percent=60))
    await spend(bench, pipeline, bench.person(budget=rules(day=1.0)), 0.6)
    assert [percent for *_, percent in told(bench)] == [50, 60]


async def test_a_soft_budget_only_tells(bench: Any) -> None:
    pipeline, acme = bench.pipeline(bench.policy("budget")), bench.person(budget=rules(day=1.0, hard=False))
    await spend(bench, pipeline, acme, 0.9)
    await spend(bench, pipeline, acme, 5.0)
    assert [name for name, *_ in told(bench)] == ["budget_warning", "budget_critical", "budget_stop"]
    assert not bench.events.recent[-1].fields["hard"]


async def test_an_observed_budget_tells_that_it_would_have(bench: Any) -> None:
    pipeline = bench.pipeline(bench.policy("budget", mode="observe"))
    acme = bench.person(budget=rules(day=1.0))
    await spend(bench, pipeline, acme, 0.97)
    call = bench.call(acme, max_tokens=100_000)
    await pipeline.admit(call)
    assert call.marks == ["budget: the budget of client acme for the day 2026-11-24 lacking"]
    assert {event.fields["observed"] for event in bench.events.recent} == {True}


# -- unpriced models


async def test_models_without_a_price_are_served_or_refused(bench: Any, target: Make) -> None:
    acme = bench.person(budget=rules(day=1.0))
    free, priced = target("free", 0, unpriced=True), target("priced")
    assert await admitted(bench.pipeline(bench.policy("budget")), bench.call(acme, free, max_tokens=10**9))
    pipeline = bench.pipeline(bench.policy("budget", unpriced="refuse"))
    with pytest.raises(Forbidden) as refused:
        await pipeline.admit(bench.call(acme, free))
    assert refused.value.code == "model_unpriced"
    call = bench.call(acme, free, priced)
    await pipeline.admit(call)
    assert call.targets == [priced]
    assert await admitted(pipeline, bench.call(acme, free, route="files"))


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"warn_percent": 0}, "warn_percent"), ({"unpriced": "maybe"}, "unpriced"), ({"warn": 80}, "warn")],
)
def test_a_wrong_setting_names_its_key(bench: Any, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(PolicyError) as refused:
        bench.policy("budget", **settings)
    assert refused.value.key == key


# -- changed by operators


def change(bench: Any, action: Any, usd: float | None = None, **more: Any) -> Adjustment:
    amount = None if usd is None else int(usd * USD)
    wall = bench.clock.wall_ns()
    return Adjustment(f"{wall}", wall, "client", "acme", "day", action, "why", amount_pusd=amount, **more)


async def test_a_top_up_holds_at_once_and_for_its_period(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    await spend(bench, pipeline, acme, 1.0)
    bench.adjustments.add(change(bench, "top_up", 0.5, period="2026-11-24"))
    await spend(bench, pipeline, acme, 0.5)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    bench.clock.advance(12 * HOUR_S)
    assert await left(budget, "client", "acme", "day") == USD


async def test_an_override_holds_until_its_time(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person(budget=rules(day=1.0))
    bench.adjustments.add(change(bench, "override", 3.0, until_wall_ns=bench.clock.wall_ns() + HOUR_S * 10**9))
    await spend(bench, pipeline, acme, 2.0)
    bench.clock.advance(HOUR_S)
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1))
    assert await left(budget, "client", "acme", "day") == -USD


async def test_a_budget_can_be_made_and_lifted_by_override(bench: Any) -> None:
    budget = bench.policy("budget")
    pipeline, acme = bench.pipeline(budget), bench.person()
    bench.adjustments.add(change(bench, "override", 1.0))
    assert not await admitted(pipeline, bench.call(acme, max_tokens=1_000_001))
    bench.clock.advance(1)
    bench.adjustments.add(change(bench, "override", None))
    assert await admitted(pipeline, bench.call(acme, max_tokens=1_000_001))
    bench.clock.advance(1)
    bench.adjustments.add(change(bench, "restore"))
    assert await budget.status() == []


# -- at start


class Ledger:
    def __init__(self, *rows: Used) -> None:
        self.rows = rows

    async def since(self, wall_ns: int) -> list[Used]:
        return [row for row in self.rows if row.wall_ns >= wall_ns]

    async def graded(self, wall_ns: int) -> list[Used]:
        raise AssertionError("budgets ask for whole periods")


async def test_budgets_count_again_what_the_ledger_knows(bench: Any) -> None:
    bench.orgs = {"org": rules(month=100.0)}
    budget = bench.policy("budget")
    tier = Tier("t", discount_percent=50)
    bench.person("acme", tier=tier, budget=rules(day=10.0, month=20.0), key_budget=rules(month=5.0))
    await budget.rebuild(
        Ledger(
            Used(at(2026, 11, 24, 3), "org", "acme", "acme-key", "m", charge_pusd=3 * USD, unresolved_pusd=2 * USD),
            Used(at(2026, 11, 10), "org", "acme", "revoked", "m", charge_pusd=USD),
            Used(at(2026, 11, 10), "org", "deleted", "gone", "m", charge_pusd=7 * USD),
            Used(at(2026, 10, 31), "org", "acme", "acme-key", "m", charge_pusd=50 * USD),
        )
    )
    assert await left(budget, "client", "acme", "day") == 6 * USD
    assert await left(budget, "client", "acme", "month") == 15 * USD
    assert await left(budget, "key", "acme-key", "month") == USD
    assert await left(budget, "org", "org", "month") == 88 * USD
