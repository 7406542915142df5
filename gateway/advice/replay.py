"""A replay: what recorded calls had cost under other rules of cache and downgrade.

One pass in the order of time, as the gateway decides: the cache first, then the downgrade; the answer of a cheaper
model is not kept. So rules that work against each other are not both counted.
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
    is_kept: bool = False  # its answer could be kept: whole, a success, of the model asked for
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
    is_kept: bool
    is_turned: bool  # by the plan: a cheaper model made it
    cost_pusd: int


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
    made: dict[tuple[str, str], _Made] = {}
    for one in calls:
        key = (one.client, one.question)
        last = made.get(key) if one.question else None
        if one.is_hit:
            if last is not None and last.is_turned:  # what it was answered from would not have been kept
                done.cost_pusd += last.cost_pusd
                done.upstream.append(one)
            continue
        if last is not None and last.is_kept and one.at_ns - last.at_ns <= plan.ttl_ns(one):
            done.hits += 1
            continue
        cheaper = plan.cheaper_pusd(one)
        cost_pusd = one.cost_pusd if cheaper is None else cheaper
        done.cost_pusd += cost_pusd
        done.downgraded += cheaper is not None
        done.upstream.append(one)
        if one.question and one.is_kept:
            made[key] = _Made(one.at_ns, cheaper is None, cheaper is not None, cost_pusd)
    return done


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
