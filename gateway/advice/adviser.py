"""Recommendations from the ledger: each rule replayed on top of those before it, so that savings add up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orjson import loads
from sqlalchemy import Connection, select

from gateway.abilities import context_of
from gateway.advice.replay import Asked, Cheaper, Plan, Replayed, merged, replay
from gateway.advice.rules import Lines, Rule, Standing, cache_rules, chains_of, downgrade_rule, joined, toml
from gateway.errors import GatewayError
from gateway.peaks import Peaks
from gateway.prices import PUSD, usd
from gateway.records import schema
from gateway.records.verbs import instant
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.directory import Directory
    from gateway.policy import Policy
    from gateway.records.queries import Queries
    from gateway.targets import Target

_DAY_NS = 86_400_000_000_000
_MS = 1_000_000

#: Calls that are replayed at most: the newest.
MOST_CALLS = 200_000
MOST_DAYS = 90

#: From the system replaced: what is worth a word, a week.
MODEL_PUSD = 10 * PUSD
BATCHED_CALLS = 100
PEAK = "14:00-22:00"


@dataclass(slots=True)
class Advice:
    """What was found. `applied` are the rules that save something, in their order, with what each saves."""

    before: Replayed
    after: Replayed
    applied: list[tuple[Rule, int, int]] = field(default_factory=list)  # rule, pico-dollars, calls


def advise(calls: Sequence[Asked], plan: Plan, rules: Sequence[Callable[[Plan], Rule | None]]) -> Advice:
    """Replays each rule on top of those that saved something. The savings' sum is what all of them save together."""
    before = replay(calls, plan)
    advice = Advice(before, before)
    for make in rules:
        rule = make(plan)
        if rule is None:
            continue
        done = replay(calls, rule.plan)
        saved = advice.after.cost_pusd - done.cost_pusd
        if saved > 0:
            touched = done.hits - advice.after.hits if rule.type == "caching" else done.downgraded
            touched -= advice.after.downgraded if rule.type == "model_downgrade" else 0
            advice.applied.append((rule, saved, touched))
            advice.after, plan = done, rule.plan
    return advice


class Adviser:
    """`policies()` and `resolve` are of the configuration in force."""

    def __init__(
        self,
        queries: Queries,
        flush: Callable[[], Awaitable[None]],
        directory: Directory,
        policies: Callable[[], Sequence[Policy]],
        resolve: Callable[..., list[Target]],
        clock: Clock,
    ) -> None:
        self._queries = queries
        self._flush = flush
        self._directory = directory
        self._policies = policies
        self._resolve = resolve
        self._clock = clock

    async def advise(self, client: str = "", days: int = 7) -> dict[str, Any]:
        """For JSON, money as decimal strings of dollars. `client` "": all of them. Raises ValueError."""
        if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
            raise ValueError(f"days is a whole number from 1 to {MOST_DAYS}")
        await self._flush()
        until_ns = self._clock.wall_ns()
        since_ns = until_ns - days * _DAY_NS
        standing = self._standing()
        return await self._queries.read(
            lambda connection: self._said(_calls(connection, client, since_ns), standing, client, days, until_ns)
        )

    def _standing(self) -> Standing:
        known = {one.name: vars(one) for one in self._policies() if one.mode == "enforce"}
        offpeak = known.get("offpeak")
        return Standing(
            known.get("cache"), known.get("downgrade"), known.get("batch"), bool(offpeak and offpeak.get("peak"))
        )

    def _said(
        self, calls: Sequence[Asked], standing: Standing, client: str, days: int, until_ns: int
    ) -> dict[str, Any]:
        since_ns = calls[0].at_ns if len(calls) == MOST_CALLS else until_ns - days * _DAY_NS
        plan = self._plan(standing)
        rules = [*cache_rules(standing), *self._downgrades(calls, standing, days)]
        advice = advise(calls, plan, rules)
        basis = {
            "since": instant(since_ns),
            "until": instant(until_ns),
            "calls": len(calls),
            "with_question": sum([bool(one.question) for one in calls]),
        }
        cost_pusd = sum([one.cost_pusd for one in calls])
        recommendations = [
            {
                "type": rule.type,
                "what": rule.what,
                "calls": touched,
                "saving_usd": usd(saved),
                "basis": {**basis, "assumes": rule.assumes},
                "toml": toml(rule.lines),
            }
            for rule, saved, touched in advice.applied
        ]
        lines: Lines = {}
        for rule, _, _ in advice.applied:
            lines = joined(lines, rule.lines)
        for more, its_lines in without_saving(advice.after.upstream, standing, days):
            recommendations.append({**more, "basis": {**basis, "assumes": more["basis"]}, "toml": toml(its_lines)})
            lines = joined(lines, its_lines)
        return {
            "client": client,
            **basis,
            "days": days,
            "cost_usd": usd(cost_pusd),
            "saving_usd": usd(sum([saved for _, saved, _ in advice.applied])),
            "recommendations": recommendations,
            "toml": toml(lines),
        }

    def _plan(self, standing: Standing) -> Plan:
        """The rules in force, as far as they hold for every call."""
        cache, downgrade = standing.cache, standing.downgrade
        chains = chains_of(standing, self._find) if downgrade is not None and downgrade["when"].get("always") else {}
        tiers = set(downgrade["protected_tiers"]) if downgrade is not None else set()
        protected = frozenset(one.id for one in self._directory.clients() if one.tier.name in tiers)
        if cache is None:
            return Plan(chains=chains, protected=protected)
        return Plan(cache["ttl_s"], dict(cache["routes"]), cache["sampled"], chains, protected)

    def _downgrades(self, calls: Sequence[Asked], standing: Standing, days: int) -> list[Callable[[Plan], Rule | None]]:
        """The dearest model first."""
        spent: dict[tuple[str, str], int] = {}
        for one in calls:
            key = (one.model, one.dialect)
            spent[key] = spent.get(key, 0) + one.cost_pusd
        worth = [key for key, cost in spent.items() if cost * 7 >= MODEL_PUSD * days]
        dear = sorted(worth, key=lambda key: -spent[key])

        def of(model: str, dialect: str) -> Callable[[Plan], Rule | None]:
            return lambda plan: downgrade_rule(plan, standing, model, dialect, self._find)

        return [of(model, dialect) for model, dialect in dear]

    def _find(self, model: str, to: str, dialect: str) -> Cheaper | None:
        """The cheaper model as it can be had now, where it has a price."""
        try:
            targets = self._resolve(to, dialect)
        except GatewayError:
            return None
        if not targets or targets[0].quote.unpriced:
            return None
        able = targets[0].abilities
        names = [name for name in ("tools", "vision", "json_schema", "reasoning") if getattr(able, name)]
        return Cheaper(to, targets[0].quote, frozenset(names), context_of(targets[0]))


def without_saving(calls: Sequence[Asked], standing: Standing, days: int) -> list[tuple[dict[str, Any], Lines]]:
    """What saves no dollars by the price list, since tokens cost the same: fewer requests upstream, a lower peak."""
    found: list[tuple[dict[str, Any], Lines]] = []
    joins = merged(calls, 5 * _MS)
    if standing.batch is not None and not standing.batch.get("enabled") and joins * 7 >= BATCHED_CALLS * days:
        what = f"Send embeddings and moderations together: {joins} requests fewer."
        basis = "calls of one client and model within 5 ms join; providers charge by token, so that costs the same"
        told = {"type": "batching", "what": what, "calls": joins, "saving_usd": "0", "basis": basis}
        found.append((told, {"policy.batch": {"enabled": True}}))
    peaks = Peaks(PEAK, "UTC")
    late = sum([1 for one in calls if "low" in one.traits and peaks.end(one.at_ns)])
    if not standing.has_peaks and late:
        what = f"Serve calls of low urgency off-peak: {late} calls fewer in peak hours."
        basis = f"peak hours are {PEAK} UTC and prices the same at all hours"
        told = {"type": "offpeak", "what": what, "calls": late, "saving_usd": "0", "basis": basis}
        found.append((told, {"policy.offpeak": {"peak": PEAK}}))
    return found


_WANTED = (
    "id", "started_wall_ns", "client", "route", "model", "dialect", "question", "traits", "input_tokens",
    "cached_tokens", "output_tokens", "reasoning_tokens", "cost_pusd", "outcome", "status", "saving", "attempts",
    "unpriced", "served_model",
)  # fmt: skip


def _calls(connection: Connection, client: str, since_ns: int) -> list[Asked]:
    """The newest ones since then, oldest first."""
    table = schema.calls
    # Ids are UUIDv7: their first 48 bits are the time in milliseconds.
    digits = f"{since_ns // 1_000_000:012x}"
    query = select(*(table.c[name] for name in _WANTED)).where(table.c.id >= f"{digits[:8]}-{digits[8:]}")
    if client:
        query = query.where(table.c.client == client)
    rows = connection.execute(query.order_by(table.c.id.desc()).limit(MOST_CALLS)).all()
    sources = _sources(connection, rows)
    return [
        _asked(row, sources.get(row.id) or row.question or "")
        for row in reversed(rows)
        if row.outcome != "refused" and not _is_repeated(row)
    ]


def _sources(connection: Connection, rows: Sequence[Any]) -> dict[str, str]:
    """By the id of a call that was answered by likeness: the question that its answer was made for."""
    if not any(row.saving == "semantic" for row in rows):
        return {}
    table, oldest = schema.calls, rows[-1].id
    questions = {row.id: row.question for row in rows}
    query = select(table.c.id, table.c.notes).where(table.c.id >= oldest, table.c.saving == "semantic")
    return {row.id: questions.get(loads(row.notes)["saving"]["of"]) or "" for row in connection.execute(query)}


def _is_repeated(row: Any) -> bool:
    """By its idempotency key: the first one counts, whatever the rules. Pages of our own likewise."""
    return bool(row.outcome == "answered" and not row.saving)


def _asked(row: Any, question: str) -> Asked:
    usage = Usage(
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )
    is_whole = row.outcome == "served" and row.status == 200
    return Asked(
        row.started_wall_ns,
        row.client,
        row.route,
        row.model,
        row.dialect,
        question,
        frozenset((row.traits or "").split()),
        usage,
        row.cost_pusd,
        is_hit=row.outcome == "answered",
        is_alike=row.saving == "semantic",
        is_kept=is_whole,
        turned_to=row.served_model if row.saving == "downgrade" else "",
        is_simple=is_whole and row.saving == "" and row.attempts == 1 and not row.unpriced,
    )
