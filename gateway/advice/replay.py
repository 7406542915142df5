"""A replay: what recorded calls had cost under other rules of cache and downgrade.

One pass in the order of time, as the gateway decides: the cache first, then the downgrade, then the cache again for
what became of the call. The answer of a cheaper model is kept for calls that are given to it, and for no others. So
rules that work against each other are not both counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.prices import Quote
from gateway.question import TEXTS
from gateway.questions import SAMPLED
from gateway.usage import Usage

_NS = 1_000_000_000
#: Traits after which a call stays with its model.
_STAYS = frozenset(("urgent", "exact", "kept", "unbounded", "unknown"))
_ABILITIES = ("tools", "vision", "json_schema", "reasoning")


class Asked(NamedTuple):
    """A recorded call. Cost in pico-dollars."""

    at_ns: int
    client: str
    route: str
    model: str
    dialect: str
    question: str  # "" where no answer may be given again
    traits: frozenset[str]
    usage: Usage
    cost_pusd: int
    is_hit: bool = False  # answered from the cache
    is_alike: bool = False  # and found there by likeness
    is_kept: bool = False  # its answer could be kept: whole, a success
    turned_to: str = ""  # the cheaper model it was given to
    is_simple: bool = False  # one attempt, at a known price: what it had cost elsewhere can be said


@dataclass(frozen=True, slots=True)
class Cheaper:
    """A model that may stand in for another one."""

    model: str
    quote: Quote
    abilities: frozenset[str]
    context: int  # tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """Rules to replay under. `ttl_s` 0: no cache. `chains` by (model, dialect)."""

    ttl_s: int = 0
    ttl_by_route: Mapping[str, int] = field(default_factory=dict)
    sampled: bool = False
    chains: Mapping[tuple[str, str], Cheaper] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()  # clients whose calls stay unless they say that they need not

    def ttl_ns(self, one: Asked) -> int:
        """How long the answer may be given again."""
        if not self.ttl_s or not one.question or (one.question.startswith(SAMPLED) and not self.sampled):
            return 0
        return self.ttl_by_route.get(one.route, self.ttl_s) * _NS

    def cheaper_pusd(self, one: Asked) -> int | None:
        """What the call had cost at a cheaper model; None: it stays."""
        to = self.chains.get((one.model, one.dialect))
        if to is None or not one.is_simple or one.route not in TEXTS or not _STAYS.isdisjoint(one.traits):
            return None
        if one.client in self.protected and "allowed" not in one.traits:
            return None
        if any(name in one.traits and name not in to.abilities for name in _ABILITIES):
            return None
        if one.usage.input_tokens + one.usage.output_tokens > to.context:
            return None
        cost_pusd = to.quote.cost(one.usage)
        return cost_pusd if cost_pusd < one.cost_pusd else None


class _Made(NamedTuple):
    at_ns: int
    cost_pusd: int


#: By client, question, and the cheaper model that answered; "": the one asked for.
_Answers = dict[tuple[str, str, str], _Made]


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    cost_pusd: int = 0
    hits: int = 0  # calls that the cache answers under the plan; those that it answered are not counted
    downgraded: int = 0
    upstream: list[Asked] = field(default_factory=list)


def replay(calls: Iterable[Asked], plan: Plan) -> Replayed:
    """`calls` in the order of time."""
    done = Replayed()
    made: _Answers = {}
    for one in calls:
        if one.is_hit:
            lost = _lost(one, plan, made)
            if lost is not None:
                done.cost_pusd += lost.cost_pusd
                done.upstream.append(one)
            continue
        cheaper = plan.cheaper_pusd(one)
        turned_to = one.turned_to if cheaper is None else plan.chains[one.model, one.dialect].model
        found = [made.get((one.client, one.question, model)) for model in {"", turned_to}]
        if any(last is not None and one.at_ns - last.at_ns <= plan.ttl_ns(one) for last in found):
            done.hits += 1
            continue
        cost_pusd = one.cost_pusd if cheaper is None else cheaper
        done.cost_pusd += cost_pusd
        done.downgraded += cheaper is not None
        done.upstream.append(one)
        if one.question and one.is_kept:
            made[one.client, one.question, turned_to] = _Made(one.at_ns, cost_pusd)
    return done


def _lost(one: Asked, plan: Plan, made: _Answers) -> _Made | None:
    """What a recorded hit had been instead: one by likeness, of an answer that a cheaper model makes under the plan,
    which is not found so. Any other hit is one of the cheaper model's answer then."""
    to = plan.chains.get((one.model, one.dialect))
    if to is None or not one.is_alike or not one.question:
        return None
    kept, turned = made.get((one.client, one.question, "")), made.get((one.client, one.question, to.model))
    return turned if kept is None or (turned is not None and turned.at_ns > kept.at_ns) else None


def merged(calls: Sequence[Asked], window_ns: int) -> int:
    """How many of these embeddings and moderations had gone up with another one: of the same client and model, within
    the window."""
    opened: dict[tuple[str, str, str], int] = {}
    joined = 0
    for one in calls:
        if one.route not in ("embeddings", "moderations"):
            continue
        key = (one.client, one.route, one.model)
        began_ns = opened.get(key)
        if began_ns is not None and one.at_ns - began_ns <= window_ns:
            joined += 1
        else:
            opened[key] = one.at_ns
    return joined
