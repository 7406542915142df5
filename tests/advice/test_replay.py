"""Replays under other rules: what they save adds up, and is never more than what was spent."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.advice.adviser import advise, without_saving
from gateway.advice.replay import Asked, Cheaper, Plan, merged, replay
from gateway.advice.rules import Lines, Standing, cache_rules, downgrade_rule, joined, toml
from gateway.usage import Usage

HOUR = 3_600 * 1_000_000_000


class Quarter:
    """A model at two pico-dollars a token."""

    unpriced = False

    def cost(self, usage: Usage) -> int:
        return 2 * (usage.input_tokens + usage.output_tokens)


CHEAP = Cheaper("gpt-3.5-turbo", Quarter(), frozenset(("tools",)), 1_000)  # type: ignore[arg-type]  # all that is asked
CACHE = {"ttl_s": 3_600, "routes": {}, "sampled": False}
STANDING = Standing(CACHE, {"chains": {}, "when": {}, "protected_tiers": ()}, None, has_peaks=False)
NOW = Plan(ttl_s=3_600)


def asked(at_h: float = 0, question: str = "=a", cost: int = 100, **more: Any) -> Asked:
    said: dict[str, Any] = {
        "client": "acme",
        "route": "chat",
        "model": "gpt-4",
        "dialect": "openai",
        "traits": frozenset(),
    }
    said |= {"usage": Usage(input_tokens=5, output_tokens=5), "is_kept": True, "is_simple": True, **more}
    return Asked(at_ns=int(at_h * HOUR), question=question, cost_pusd=cost, **said)


def rules() -> list[Any]:
    def downgrade(plan: Plan) -> Any:
        return downgrade_rule(plan, STANDING, "gpt-4", "openai", lambda model, to, dialect: CHEAP)

    return [*cache_rules(STANDING), downgrade]


def test_answers_are_given_again_within_their_age_to_the_same_client_only() -> None:
    calls = [asked(0), asked(0.9), asked(1.1), asked(1.2, client="other"), asked(2.0), asked(2.0, question="")]
    done = replay(calls, NOW)
    assert (done.hits, done.cost_pusd) == (2, 400), "a hit does not make an answer younger"
    assert replay(calls, Plan()).cost_pusd == 600


def test_what_draws_lots_only_where_that_is_allowed() -> None:
    calls = [asked(0, "~a"), asked(0.1, "~a")]
    assert replay(calls, NOW).hits == 0
    assert replay(calls, Plan(ttl_s=3_600, sampled=True)).hits == 1


def test_an_answer_that_was_not_whole_is_not_given_again() -> None:
    assert replay([asked(0, is_kept=False), asked(0.1)], NOW).hits == 0


@pytest.mark.parametrize(
    "more",
    [
        {"traits": frozenset({"urgent"})},
        {"traits": frozenset({"exact"})},
        {"traits": frozenset({"kept"})},
        {"traits": frozenset({"unbounded"})},
        {"traits": frozenset({"vision"})},
        {"client": "vip"},
        {"route": "embeddings"},
        {"model": "other"},
        {"dialect": "anthropic"},
        {"is_simple": False},
        {"usage": Usage(input_tokens=999, output_tokens=2)},
        {"cost": 20},
    ],
)
def test_what_stays_with_its_model(more: dict[str, Any]) -> None:
    plan = Plan(chains={("gpt-4", "openai"): CHEAP}, protected=frozenset({"vip"}))
    assert replay([asked(**more)], plan).downgraded == 0
    assert replay([asked(traits=frozenset({"tools"}))], plan).cost_pusd == 20
    assert replay([asked(client="vip", traits=frozenset({"allowed"}))], plan).downgraded == 1


TURNS = Plan(ttl_s=3_600, chains={("gpt-4", "openai"): CHEAP})


def test_the_answer_of_a_cheaper_model_is_kept_for_those_it_is_given_to() -> None:
    hit = asked(0.2, cost=0, is_hit=True)
    calls = [asked(0), asked(0.1), hit]
    done = replay(calls, TURNS)
    assert (done.cost_pusd, done.hits, done.downgraded) == (20, 1, 1)
    assert replay(calls, NOW).cost_pusd == 100
    stays = asked(0.1, traits=frozenset({"exact"}))
    done = replay([asked(0), stays, asked(0.2), asked(1.05)], TURNS)
    assert (done.cost_pusd, done.hits) == (120, 2), "who may not be downgraded asks anew; its answer is everybody's"
    assert replay([asked(0), asked(0.1, cost=20)], TURNS).hits == 0, "what is not cheaper elsewhere stays"
    by_likeness = replay([asked(0), hit._replace(is_alike=True)], TURNS)
    assert (by_likeness.cost_pusd, len(by_likeness.upstream)) == (40, 2), "likeness finds no answer of a cheaper model"


def test_a_recorded_downgrade_is_found_again_by_its_like() -> None:
    """In the same way, and by no call that stayed."""
    cheap = asked(0, cost=20, turned_to="gpt-3.5-turbo", is_simple=False)
    later = cheap._replace(at_ns=int(1.5 * HOUR))
    assert replay([cheap, later], NOW).hits == 0
    assert replay([cheap, later], Plan(ttl_s=7_200)).hits == 1
    assert replay([cheap, asked(0.5)], NOW).hits == 0
    assert replay([cheap, asked(0.5)], TURNS).hits == 1
    assert replay([asked(0), cheap._replace(at_ns=HOUR // 2)], NOW).hits == 1


CALLS = st.lists(
    st.builds(
        asked,
        st.floats(0, 40),
        st.sampled_from(["", "=a", "=b", "~a", "~b"]),
        st.integers(0, 200),
        client=st.sampled_from(["acme", "other"]),
        model=st.sampled_from(["gpt-4", "gpt-3.5-turbo"]),
        traits=st.sets(st.sampled_from(["urgent", "tools", "low"]), max_size=1).map(frozenset),
        is_kept=st.booleans(),
        is_simple=st.booleans(),
        is_hit=st.just(False),
        turned_to=st.sampled_from(["", "", "gpt-3.5-turbo"]),
    ),
    max_size=40,
).map(lambda calls: sorted(calls, key=lambda one: one.at_ns))
HITS = st.lists(st.booleans(), min_size=40, max_size=40)


@given(CALLS, HITS)
@settings(max_examples=200, deadline=None)
def test_savings_add_up_to_what_all_rules_save_together(calls: list[Asked], hits: list[bool]) -> None:
    calls = [
        one._replace(is_hit=True, cost_pusd=0) if hit and one.question else one
        for one, hit in zip(calls, hits, strict=False)
    ]
    advice = advise(calls, NOW, rules())
    savings = [saved for _, saved, _ in advice.applied]
    assert all(saved > 0 for saved in savings)
    assert sum(savings) == advice.before.cost_pusd - advice.after.cost_pusd
    assert advice.before.cost_pusd <= sum(one.cost_pusd for one in calls)
    assert advice.after.cost_pusd >= 0
    if advice.applied:
        assert advice.after.cost_pusd == replay(calls, advice.applied[-1][0].plan).cost_pusd


def test_rules_that_save_nothing_are_not_recommended() -> None:
    assert advise([asked(0), asked(0.5)], NOW, rules()[:2]).applied == []
    assert [rule.type for rule, *_ in advise([asked(0)], NOW, rules()).applied] == ["model_downgrade"]


def test_embeddings_within_a_moment_of_each_other_go_up_together() -> None:
    one = asked(route="embeddings")
    calls = [one._replace(at_ns=at) for at in (0, 4_000_000, 6_000_000, 9_000_000)]
    assert merged(calls, 5_000_000) == 2
    assert merged([calls[0], calls[1]._replace(client="other"), asked()], 5_000_000) == 0


def test_calls_of_low_urgency_in_peak_hours_are_told_and_save_nothing() -> None:
    low = frozenset({"low"})
    calls = [asked(15, traits=low), asked(21.9, traits=low), asked(22.1, traits=low), asked(15)]
    (told, lines), *more = without_saving(calls, STANDING, 7)
    assert (told["type"], told["calls"], told["saving_usd"]) == ("offpeak", 2, "0")
    assert lines == {"policy.offpeak": {"peak": "14:00-22:00"}}
    assert more == []
    assert without_saving(calls, replace(STANDING, has_peaks=True), 7) == []


def test_batching_from_a_hundred_calls_a_week_on() -> None:
    one = asked(route="embeddings")
    off = replace(STANDING, batch={"enabled": False})
    for count, wanted in ((101, ["batching"]), (100, [])):
        assert [told["type"] for told, _ in without_saving([one] * count, off, 7)] == wanted
    assert without_saving([one] * 200, replace(STANDING, batch={"enabled": True}), 7) == []


def test_lines_are_toml_and_tables_come_together() -> None:
    import tomllib

    one: Lines = {"policy.downgrade": {"chains": {"gpt-4": "gpt-3.5-turbo"}, "when": {"always": True}}}
    other: Lines = {
        "policy.downgrade": {"chains": {"gpt-4o": "gpt-4o-mini"}},
        "policy.cache": {"sampled": True, "ttl_s": 9},
    }
    assert tomllib.loads(toml(joined(one, other)))["policy"] == {
        "downgrade": {"chains": {"gpt-4": "gpt-3.5-turbo", "gpt-4o": "gpt-4o-mini"}, "when": {"always": True}},
        "cache": {"sampled": True, "ttl_s": 9},
    }


def test_a_chain_that_stands_already_is_counted_where_the_lines_set_it_to_work() -> None:
    """`always` holds for every chain, so a rule for one model changes the others' calls as well."""
    standing = replace(STANDING, downgrade={"chains": {"opus": "haiku"}, "when": {"queue_wait_s": 5}})

    def find(model: str, to: str, dialect: str) -> Any:
        return CHEAP if dialect == ("anthropic" if to == "haiku" else "openai") else None

    rule = downgrade_rule(NOW, standing, "gpt-4", "openai", find)
    assert rule is not None
    assert set(rule.plan.chains) == {("gpt-4", "openai"), ("opus", "anthropic")}
    assert set(rule.lines["policy.downgrade"]["chains"]) == {"gpt-4", "opus"}
    assert "opus to haiku" in rule.what
    assert downgrade_rule(rule.plan, standing, "opus", "anthropic", find) is None


def test_no_policy_no_rule() -> None:
    nothing = Standing(None, None, None, has_peaks=False)
    assert list(cache_rules(nothing)) == []
    find: Any = SimpleNamespace
    assert downgrade_rule(NOW, nothing, "gpt-4", "openai", find) is None
