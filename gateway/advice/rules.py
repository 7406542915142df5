"""The rules that advice tries, one after another, and the lines of gateway.toml that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.advice.replay import Cheaper, Plan

#: Tables of gateway.toml by their names, with what is to stand in them.
Lines = dict[str, dict[str, Any]]

DAY_S = 86_400
#: In which models are asked.
DIALECTS = ("openai", "anthropic")

#: Model to cheaper model of the same maker; those of the configuration count first.
CHAINS = {
    "gpt-4": "gpt-3.5-turbo",
    "gpt-4-turbo": "gpt-3.5-turbo",
    "gpt-4o": "gpt-4o-mini",
    "gpt-4.1": "gpt-4.1-mini",
    "claude-3-opus": "claude-3-haiku",
    "claude-3-sonnet": "claude-3-haiku",
}

Find = Callable[[str, str, str], Cheaper | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One change: the plan with it, and what is to be written for it."""

    type: str
    what: str
    assumes: str
    plan: Plan
    lines: Lines


@dataclass(frozen=True, slots=True)
class Standing:
    """What the configuration says now of the policies that advice is about; None: the policy is not in force."""

    cache: Mapping[str, Any] | None
    downgrade: Mapping[str, Any] | None
    batch: Mapping[str, Any] | None
    has_peaks: bool


def cache_rules(standing: Standing) -> Iterator[Callable[[Plan], Rule | None]]:
    """Answers for longer, and also those that draw lots."""
    if standing.cache is None:
        return

    def longer(plan: Plan) -> Rule | None:
        if plan.ttl_s >= DAY_S:
            return None
        lines: Lines = {"policy.cache": {"ttl_s": DAY_S}}
        assumes = "answers up to a day old are as good, and all find room in memory"
        return Rule("caching", "Keep answers for a day.", assumes, replace(plan, ttl_s=DAY_S), lines)

    def sampled(plan: Plan) -> Rule | None:
        if plan.sampled:
            return None
        lines: Lines = {"policy.cache": {"sampled": True}}
        assumes = "the same words to the same question are good enough where the model draws lots"
        what = "Give answers again whose temperature is above 0, too."
        return Rule("caching", what, assumes, replace(plan, sampled=True), lines)

    yield longer
    yield sampled


def downgrade_rule(plan: Plan, standing: Standing, model: str, dialect: str, find: Find) -> Rule | None:
    """The calls of one model to a cheaper one, always; so the chains that stand already are set to work as well."""
    now = standing.downgrade
    if now is None or (model, dialect) in plan.chains:
        return None
    to = now["chains"].get(model, CHAINS.get(model))
    cheaper = None if to is None else find(model, to, dialect)
    if to is None or cheaper is None:
        return None
    chains: dict[str, str] = {**now["chains"], model: to}
    others: dict[tuple[str, str], Cheaper] = {}
    if not now["when"].get("always"):
        others = {key: known for key, known in chains_of(standing, find).items() if key not in plan.chains}
    lines: Lines = {"policy.downgrade": {"chains": chains, "when": {**now["when"], "always": True}}}
    told = sorted({f"{one} to {chains[one]}" for one, _ in others if one != model})
    what = ", ".join([f"Give calls of {model} to {to}", *told])
    assumes = f"{to} answers well enough, and with as many tokens"
    wider = replace(plan, chains={**plan.chains, **others, (model, dialect): cheaper})
    return Rule("model_downgrade", f"{what}.", assumes, wider, lines)


def chains_of(standing: Standing, find: Find) -> dict[tuple[str, str], Cheaper]:
    """Those of the configuration, as far as both models can be had."""
    now = standing.downgrade
    if now is None:
        return {}
    found = {(one, spoken): find(one, to, spoken) for one, to in now["chains"].items() for spoken in DIALECTS}
    return {key: cheaper for key, cheaper in found.items() if cheaper is not None}


def joined(one: Lines, other: Lines) -> Lines:
    """Both, tables within tables together."""
    made = {name: dict(table) for name, table in one.items()}
    for name, table in other.items():
        mine = made.setdefault(name, {})
        for key, value in table.items():
            known = mine.get(key)
            mine[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return made


def toml(lines: Lines) -> str:
    """As it stands in a file."""
    tables = [
        "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())])
        for name, table in lines.items()
    ]
    return "\n\n".join(tables) + "\n" if tables else ""


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
