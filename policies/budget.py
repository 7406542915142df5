"""How much may be spent: US dollars a calendar day and month, per org, client and key.

What counts is the *charge*, what the client pays for a call after its tier's discount (TERMS 21): a budget is the
client's money. The worst case of the dearest target is reserved, what the call was charged replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from gateway.call import Call, Need, Outcome, Refuse
from gateway.clients import BudgetRules, Client, Key
from gateway.errors import Forbidden, OverBudget
from gateway.periods import Adjustments, Period, Scope, Span, figure, period_at, zone_of
from gateway.policy import Gate, Policy
from gateway.rates import charge_of
from gateway.state.store import History, Limit, Tally, Used
from gateway.targets import Target

#: Keys whose needs are kept ready; with more of them all are built anew.
MOST_CALLERS = 50_000
#: How many budgets are looked at before calls have their turn.
SHARE = 200
SPANS: tuple[Span, ...] = ("day", "month")
EVENTS = ("budget_warning", "budget_critical", "budget_stop")
NO_RULES = BudgetRules()


Percent = Annotated[int, Field(ge=1, le=100)]


class Name(NamedTuple):
    """Which budget it is."""

    scope: Scope
    subject: str
    span: Span

    @property
    def key(self) -> str:
        """The limit's key: no id has a space in it."""
        return f"budget {self.scope} {self.subject} {self.span}"


class BudgetLevel(NamedTuple):
    """How a budget stands, for people; money in pico-dollars. `left` is what is neither spent nor held."""

    scope: Scope
    subject: str
    span: Span
    period: str
    ends_wall_ns: int
    limit_pusd: int
    left_pusd: int
    hard: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """What one key's calls need, as long as nothing changes and within a time of the wall clock."""

    client: Client
    key: Key
    org: BudgetRules
    version: int  # of the adjustments
    from_wall_ns: int
    until_wall_ns: int
    needs: tuple[Need, ...]


@dataclass
class Budget(Policy):
    """Hard budgets refuse what may not fit any more, soft ones only tell; both tell when they come near."""

    warn_percent: Percent = 80
    critical_percent: Percent = 95
    #: Whether models without a price are served, for nothing, or refused.
    unpriced: Literal["serve", "refuse"] = "serve"

    after: ClassVar[tuple[str, ...]] = ("identity", "access", "idempotency", "quota", "cache", "offpeak", "downgrade")

    def __post_init__(self) -> None:
        self._callers: dict[str, Caller] = {}
        self._tallies: dict[str, Tally] = {}
        self._periods: dict[Span, Period] = {}
        self._at_worst, self._in_truth = self.worst, self.charged  # one object each: budgets that ask are told once

    def provide(self, gate: Gate) -> None:
        self._gate = gate
        self._zone = zone_of(gate.time_zone)
        self._orgs: Mapping[str, BudgetRules] = getattr(gate, "orgs", {})
        self._adjustments: Adjustments = getattr(gate, "adjustments", None) or Adjustments()
        gate.store.watch("budget", self._crossed)

    def apply(self, call: Call) -> None:
        if self.unpriced == "refuse":
            self._refuse_unpriced(call)
        call.needs += self._caller(call.client, call.key, call.started_wall_ns).needs

    def spending(self, call: Call) -> list[Limit]:
        needs = self._caller(call.client, call.key, call.started_wall_ns).needs
        return [need.limit for need in needs if isinstance(need.limit, Limit)]

    def _refuse_unpriced(self, call: Call) -> None:
        if not call.route.model or not any(target.quote.unpriced for target in call.targets):
            return
        priced = [target for target in call.targets if not target.quote.unpriced]
        if not priced:
            raise Forbidden(
                f"The model '{call.facts.model}' has no price here, and models without one are refused. "
                "Ask the operator to set one under [prices].",
                code="model_unpriced",
                param="model",
            )
        call.targets = priced

    def _caller(self, client: Client, key: Key, wall_ns: int) -> Caller:
        caller = self._callers.get(key.id)
        if (
            caller is None
            or caller.client is not client
            or caller.key is not key
            or caller.version != self._adjustments.version
            or not caller.from_wall_ns <= wall_ns < caller.until_wall_ns
        ):
            caller = self._make(client, key, wall_ns)
        return caller

    def _make(self, client: Client, key: Key, wall_ns: int) -> Caller:
        if len(self._callers) >= MOST_CALLERS:
            self._callers.clear()
            self._tallies.clear()
        org = self._orgs.get(client.org, NO_RULES)
        tallies = list(self._tallies_of(client, key, org, wall_ns))
        needs = tuple(
            Need(tally, self._at_worst, Refuse(OverBudget, _what(name, tally)), self._in_truth, policy=self.name)
            for name, tally in tallies
        )
        day = self._period("day", wall_ns)
        until = min([day.ends_wall_ns, *self._ends_of_overrides(client, key, wall_ns)])
        caller = Caller(client, key, org, self._adjustments.version, day.starts_wall_ns, until, needs)
        self._callers[key.id] = caller
        return caller

    def _ends_of_overrides(self, client: Client, key: Key, wall_ns: int) -> Iterator[int]:
        """When a budget that was changed for a time becomes what it was."""
        for span in SPANS:
            for name in (Name("org", client.org, span), Name("client", client.id, span), Name("key", key.id, span)):
                for one in self._adjustments.of(*name):
                    if one.until_wall_ns is not None and one.until_wall_ns > wall_ns:
                        yield one.until_wall_ns

    def _tallies_of(self, client: Client, key: Key, org: BudgetRules, wall_ns: int) -> Iterator[tuple[Name, Tally]]:
        """The budgets that bound a caller. What a client says of itself goes before what its tier says."""
        for span in SPANS:
            own = client.budget if _figure(client.budget, span) is not None else client.tier.budget
            for scope, subject, rules in (
                ("org", client.org, org),
                ("client", client.id, own),
                ("key", key.id, key.budget),
            ):
                name = Name(scope, subject, span)  # type: ignore[arg-type]  # scopes are those
                tally = self._tally(name, rules, wall_ns)
                if tally is not None:
                    yield name, tally

    def _tally(self, name: Name, rules: BudgetRules, wall_ns: int) -> Tally | None:
        period = self._period(name.span, wall_ns)
        most = figure(_figure(rules, name.span), self._adjustments.of(*name), period, wall_ns)
        if most is None:
            return None
        marks = tuple(-(-most * percent // 100) for percent in (self.warn_percent, self.critical_percent, 100))
        tally = Tally(name.key, most, "", period.name, period.ends_wall_ns, marks, not rules.hard)
        known = self._tallies.get(name.key)
        if known is None or not known.same(tally):
            self._tallies[name.key] = known = tally
        return known

    def _period(self, span: Span, wall_ns: int) -> Period:
        """The period of an instant; the last one is kept, since calls mostly come in the same."""
        period = self._periods.get(span)
        if period is None or not period.starts_wall_ns <= wall_ns < period.ends_wall_ns:
            period = self._periods[span] = period_at(span, wall_ns, self._zone)
        return period

    def worst(self, call: Call, target: Target) -> int:
        """What the client may be charged: by the dearest target where all may still be tried, else by this one."""
        cost = call.estimate(target).cost_pusd
        targets = call.targets
        if len(targets) > 1 and target is targets[0]:
            cost = max(cost, *[call.estimate(other).cost_pusd for other in targets[1:]])
        return charge_of(cost, call.client.tier.discount_percent)

    def charged(self, call: Call, outcome: Outcome) -> int:
        """What the client is charged: the same figure as in the ledger's row of the call."""
        cost = outcome.cost_pusd
        if call.borne_pusd is not None:
            cost = call.borne_pusd
        elif len(call.attempts) > 1:
            cost = sum([row.cost_pusd for row in call.attempts])
        return charge_of(cost, call.client.tier.discount_percent)

    def _crossed(self, tally: Tally, mark: int, used_pusd: int) -> None:
        """A budget came to its warning, its critical part, or its end: told once a period and figure."""
        observed = tally.key.startswith("shadow:")
        _, scope, subject, span = tally.key.removeprefix("shadow:").split(" ")
        self._gate.events.emit(
            EVENTS[mark],
            scope=scope,
            subject=subject,
            span=span,
            period=tally.period,
            used_pusd=used_pusd,
            limit_pusd=tally.capacity,
            percent=(self.warn_percent, self.critical_percent, 100)[mark],
            hard=not tally.soft,
            observed=observed,
        )

    async def status(self, scope: str = "", subject: str = "") -> list[BudgetLevel]:
        """How all budgets stand, or those of one scope or subject."""
        wall_ns = self._gate.clock.wall_ns()
        found: dict[Name, Tally] = {}
        for count, (name, tally) in enumerate(self._everybody(wall_ns)):
            if scope in ("", name.scope) and subject in ("", name.subject):
                found[name] = tally
            if count % SHARE == 0:
                await asyncio.sleep(0)  # calls go on meanwhile
        chosen = sorted(found.items())
        levels = await self._gate.store.levels([tally for _, tally in chosen])
        return [
            BudgetLevel(*name, tally.period, tally.ends_wall_ns, tally.capacity, level.remaining, not tally.soft)
            for (name, tally), level in zip(chosen, levels, strict=True)
        ]

    def _everybody(self, wall_ns: int) -> Iterator[tuple[Name, Tally]]:
        directory = self._gate.directory
        for key in [*directory.keys()]:
            client = directory.client(key.client_id)
            if client is not None:
                yield from self._tallies_of(client, key, self._orgs.get(client.org, NO_RULES), wall_ns)
        nobody = Key("", "", "client")
        for client in directory.clients():
            yield from self._tallies_of(client, nobody, self._orgs.get(client.org, NO_RULES), wall_ns)

    async def rebuild(self, history: History) -> None:
        """At start: every budget counts what the ledger says was charged in its period, unresolved attempts at their
        worst."""
        wall_ns = self._gate.clock.wall_ns()
        tallies = dict(self._everybody(wall_ns))
        for span in SPANS:
            spent: dict[Name, int] = {}
            for row in await history.since(self._period(span, wall_ns).starts_wall_ns):
                charge = self._charge(row)
                for name in (Name("org", row.org, span), Name("client", row.client, span), Name("key", row.key, span)):
                    spent[name] = spent.get(name, 0) + charge
            for name, tally in tallies.items():
                if name.span == span and name in spent:
                    await self._gate.store.restate(tally, [(0, spent[name])])

    def _charge(self, row: Used) -> int:
        client = self._gate.directory.client(row.client)
        discount = 0 if client is None else client.tier.discount_percent
        return row.charge_pusd + charge_of(row.unresolved_pusd, discount)


def _figure(rules: BudgetRules, span: Span) -> int | None:
    return rules.day_pusd if span == "day" else rules.month_pusd


def _what(name: Name, tally: Tally) -> str:
    return f"the budget of {name.scope} {name.subject} for the {name.span} {tally.period}"
