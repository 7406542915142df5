"""How much a client may ask for: requests and tokens by time, and calls at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, cast

from pydantic import AfterValidator

from gateway.call import AmountOf, Call, Need, Outcome, Refuse, SettleOf, Wait
from gateway.clients import Client, Key, QuotaRules
from gateway.errors import RateLimited
from gateway.policy import Gate, Policy
from gateway.rates import Rate, parse_rate
from gateway.state.store import History, Limit, Slots, Used
from gateway.targets import Target

Family = Literal["requests", "tokens"]
Part = Literal["input", "cached", "output", "reasoning"]
FAMILIES: tuple[Family, ...] = ("requests", "tokens")
PARTS: tuple[Part, ...] = ("input", "cached", "output", "reasoning")
#: Callers whose needs are kept ready; with more of them all are built anew.
MOST_CALLERS = 50_000
_NS = 1_000_000_000


def _checked_rates(rates: Sequence[str]) -> Sequence[str]:
    for rate in rates:
        parse_rate(rate)
    return rates


def _checked_weight(weight: Decimal) -> Decimal:
    if weight < 0 or weight * 1000 != int(weight * 1000):
        raise ValueError("a weight is 0 or more, with at most 3 decimals")
    return weight


Rates = Annotated[Sequence[str], AfterValidator(_checked_rates)]
Weight = Annotated[Decimal, AfterValidator(_checked_weight)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of a caller: what it counts ("" for concurrent calls), for which model ("" for all)."""

    need: Need
    family: Family | Literal[""] = ""
    model: str = ""

    @property
    def limit(self) -> Limit:
        """The need's own; none of these depends on the target."""
        return cast("Limit", self.need.limit)


@dataclass(frozen=True, slots=True)
class Caller:
    """What one key's calls need, made once; `limits` are those that bound them whatever the model."""

    client: Client
    key: Key
    rules: tuple[Rule, ...]
    needs: tuple[Need, ...]
    limits: tuple[Limit, ...]


@dataclass
class Quota(Policy):
    """Requests and tokens a minute up to 30 days, and concurrent calls; per client, key and model.

    A client's own rates hold as they are written, else its tier's. Only where both are silent the ones here apply,
    times the tier's rate multiplier.
    """

    requests: Rates = ("600/minute",)
    tokens: Rates = ()
    #: For each client and model, besides the client's own: {"gpt-4o" = {requests = [...], tokens = [...]}}.
    models: Mapping[str, Mapping[Family, Rates]] = field(default_factory=dict)
    #: How much of a token counts; absent: 1.
    weights: Mapping[Part, Weight] = field(default_factory=dict)

    after: ClassVar[tuple[str, ...]] = ("identity", "access", "idempotency")

    def __post_init__(self) -> None:
        self._defaults: dict[Family, list[Rate]] = {"requests": _parsed(self.requests), "tokens": _parsed(self.tokens)}
        self._by_model: list[tuple[str, Family, Rate]] = [
            (model, family, rate)
            for model, rules in self.models.items()
            for family, rates in rules.items()
            for rate in _parsed(rates)
        ]
        self._weights = tuple(int(Decimal(self.weights.get(part, 1)) * 1000) for part in PARTS)
        self._plain = self._weights == (1000, 1000, 1000, 1000)
        self._at_worst, self._in_truth = (
            self.worst,
            self.used,
        )  # one object each: limits that ask the same are told once
        self._callers: dict[str, Caller] = {}
        self._limits: dict[str, Limit] = {}

    def provide(self, gate: Gate) -> None:
        self._gate = gate

    def apply(self, call: Call) -> None:
        call.needs += self._caller(call.client, call.key).needs

    def limits(self, call: Call) -> Sequence[Limit]:
        return self._caller(call.client, call.key).limits

    def _caller(self, client: Client, key: Key) -> Caller:
        caller = self._callers.get(key.id)
        if caller is None or caller.client is not client or caller.key is not key:
            if len(self._callers) >= MOST_CALLERS:
                self._callers.clear()
                self._limits.clear()
            rules = tuple(self._rules(client, key))
            limits = tuple(rule.limit for rule in rules if rule.family and not rule.model)
            caller = Caller(client, key, rules, tuple(rule.need for rule in rules), limits)
            self._callers[key.id] = caller
        return caller

    def _rules(self, client: Client, key: Key) -> Iterator[Rule]:
        """All that bounds a caller. A key has only limits of its own. Those of all models are declared, since the
        call's model may still change: the limits of others need nothing."""
        for family in FAMILIES:
            for rate in self._of_client(client, family):
                yield self._rule("client", client.id, family, rate)
            for rate in _parsed(_of(key.quota, family) or ()):
                yield self._rule("key", key.id, family, rate)
        for model, family, rate in self._by_model:
            scaled = rate.scaled(client.tier.rate_multiplier_milli)
            yield self._rule("client", client.id, family, scaled, model)
        yield from self._concurrent("client", client.id, _concurrent_of(client))
        yield from self._concurrent("key", key.id, key.quota.concurrent)

    def _of_client(self, client: Client, family: Family) -> list[Rate]:
        own = _of(client.quota, family)
        if own is None:
            own = _of(client.tier.quota, family)
        if own is None:
            return [rate.scaled(client.tier.rate_multiplier_milli) for rate in self._defaults[family]]
        return _parsed(own)

    def _rule(self, scope: str, subject: str, family: Family, rate: Rate, model: str = "") -> Rule:
        # No id and no model's name has a space in it.
        key = f"quota {scope} {subject} {family} {rate.per_ns // _NS}s{' ' if model else ''}{model}"
        limit = self._kept(rate.limit(key, family))
        with_model = f" with model {model}" if model else ""
        lacking = Refuse(RateLimited, f"{rate.amount:,} {family} a {rate.span}{with_model} of {scope} {subject}")
        if family == "requests":
            amount = _one_with(model) if model else 1
            return Rule(Need(limit, amount, lacking, even_if_cached=True, policy=self.name), family, model)
        if not model:
            return Rule(Need(limit, self._at_worst, lacking, self._in_truth, policy=self.name), family)
        return Rule(
            Need(limit, self._worst_with(model), lacking, self._used_with(model), policy=self.name), family, model
        )

    def _concurrent(self, scope: str, subject: str, most: int | None) -> Iterator[Rule]:
        if most is not None:
            limit = self._kept(Slots(f"quota {scope} {subject} concurrent", most))
            lacking = Wait(RateLimited, f"{most:,} calls at a time of {scope} {subject}")
            yield Rule(Need(limit, 1, lacking, policy=self.name))

    def _kept(self, limit: Limit) -> Limit:
        """One object for each limit, however many keys share it: the store finds its state by the object."""
        known = self._limits.get(limit.key)
        if known is not None and known.same(limit):
            return known
        self._limits[limit.key] = limit
        return limit

    def worst(self, call: Call, target: Target) -> int:
        """Weighted tokens a call may use (TERMS 4); calls without a model need none beforehand."""
        if not call.route.model:
            return 0
        estimate = call.estimate(target)
        if self._plain:
            return estimate.input_tokens + estimate.output_tokens
        fresh, cached, output, reasoning = self._weights
        milli = estimate.input_tokens * max(fresh, cached) + estimate.output_tokens * max(output, reasoning)
        return -(-milli // 1000)

    def used(self, call: Call, outcome: Outcome) -> int:
        """Weighted tokens that a call did use."""
        if len(call.attempts) > 1:
            return sum(
                [
                    self._weighted(row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens)
                    for row in call.attempts
                ]
            )
        usage = outcome.usage
        if self._plain:
            return usage.input_tokens + usage.output_tokens
        return self._weighted(usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens)

    def _weighted(self, fresh: int, cached: int, output: int, reasoning: int) -> int:
        by_fresh, by_cached, by_output, by_reasoning = self._weights
        # Some providers state parts above their whole: what is left of it is nothing, not less.
        milli = max(0, fresh - cached) * by_fresh + cached * by_cached
        milli += max(0, output - reasoning) * by_output + reasoning * by_reasoning
        return -(-milli // 1000)

    def _worst_with(self, model: str) -> AmountOf:
        return lambda call, target: self.worst(call, target) if target.model == model else 0

    def _used_with(self, model: str) -> SettleOf:
        def used(call: Call, outcome: Outcome) -> int:
            return self.used(call, outcome) if outcome.target is not None and outcome.target.model == model else 0

        return used

    async def rebuild(self, history: History) -> None:
        """At start: the limits of all callers that the ledger knows count again what they counted."""
        wall_ns = self._gate.clock.wall_ns()
        counted: dict[Limit, list[tuple[int, int]]] = {}
        for row in await history.graded(wall_ns - self._longest_ns()):
            client, key = self._gate.directory.client(row.client), self._gate.directory.key(row.key)
            if client is None:
                continue
            for rule in self._caller(client, key or Key(row.key, row.client, "client")).rules:
                amount = self._counted(rule, row)
                if amount:
                    counted.setdefault(rule.limit, []).append((max(0, wall_ns - row.wall_ns), amount))
        for limit, amounts in counted.items():
            await self._gate.store.restate(limit, amounts)

    def _counted(self, rule: Rule, row: Used) -> int:
        if not rule.family or (rule.model and rule.model != row.model):
            return 0
        if rule.family == "requests":
            return row.requests
        return self._weighted(row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens)

    def _longest_ns(self) -> int:
        """How far back any limit looks: windows keep a slice more than their span."""
        directory = self._gate.directory
        rules = [client.quota for client in directory.clients()] + [client.tier.quota for client in directory.clients()]
        rules += [key.quota for key in [*directory.keys()]]
        texts = {text for one in rules for text in (*(one.requests or ()), *(one.tokens or ()))}
        rates = [*self._defaults["requests"], *self._defaults["tokens"], *(rate for _, _, rate in self._by_model)]
        return max((rate.per_ns for rate in [*rates, *map(parse_rate, texts)]), default=0) * 61 // 60


def _of(rules: QuotaRules, family: Family) -> tuple[str, ...] | None:
    return rules.requests if family == "requests" else rules.tokens


def _concurrent_of(client: Client) -> int:
    for most in (client.quota.concurrent, client.tier.quota.concurrent):
        if most is not None:
            return most
    return client.tier.concurrent


def _one_with(model: str) -> AmountOf:
    return lambda call, target: 1 if target.model == model else 0


def _parsed(rates: Iterable[str]) -> list[Rate]:
    """One rate for each length of time, the tightest."""
    by_span: dict[int, Rate] = {}
    for rate in map(parse_rate, rates):
        known = by_span.get(rate.per_ns)
        if known is None or rate.amount < known.amount:
            by_span[rate.per_ns] = rate
    return list(by_span.values())
