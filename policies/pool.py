"""What a call takes of shared resources: a provider's tokens and requests, emails, queries, anything countable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from pydantic import AfterValidator

from gateway.call import Call, LimitOf, Need, Outcome, Wait
from gateway.errors import BadRequest, RateLimited, Unavailable
from gateway.policy import Gate, Policy
from gateway.routes import TABLE
from gateway.state.store import History, Limit, Used
from gateway.stated import HEADER, MEMBERS, in_header
from gateway.targets import Target

if TYPE_CHECKING:
    from gateway.pools import Pool as Resource
    from gateway.pools import PoolUse
    from gateway.routing.told import Told
    from gateway.state.plan import View

Amount = int | str
MEASURES = ("tokens", "input_tokens", "output_tokens", "requests", "images", "characters", "bytes")
#: Sets of pools whose needs are kept ready; more are made anew each time.
MOST_KEPT = 10_000
HOUR_NS = 3_600_000_000_000
#: What the ledger keeps of a call, and a provider tells.
LEDGER = frozenset(("tokens", "input_tokens", "output_tokens", "requests"))
NOTHING: Mapping[str, Amount] = {}
#: What a call takes of a pool on a target; None: nothing.
Takes = Callable[[Call, Target], "Amount | None"]


def _checked(routes: Mapping[str, Mapping[str, Amount]]) -> Mapping[str, Mapping[str, Amount]]:
    known = {route.name for route in TABLE}
    for route, amounts in routes.items():
        if route not in known:
            raise ValueError(f"{route!r} is no route; one of {', '.join(sorted(known))}")
        for amount in amounts.values():
            if amount not in MEASURES if isinstance(amount, str) else amount < 1:
                raise ValueError(f"a whole number of units a call, or one of {', '.join(MEASURES)}")
    return routes


ByRoute = Annotated[Mapping[str, Mapping[str, Amount]], AfterValidator(_checked)]


@dataclass
class Pool(Policy):
    """Declares what is taken of which pools: by the model, the worker, the route, and what the caller states.

    Everything here waits: the scheduler grants it together with all else, or refuses what would wait too long.
    """

    #: By route, what each of its calls takes, besides what its model takes.
    routes: ByRoute = field(default_factory=dict)

    after: ClassVar[tuple[str, ...]] = (
        "identity", "access", "idempotency", "quota", "cache", "offpeak", "downgrade", "budget",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self._kept: dict[tuple[PoolUse | str, ...], tuple[Need, ...]] = {}

    def provide(self, gate: Gate) -> None:
        self._gate = gate
        self._wall_ns = gate.clock.wall_ns
        self._pools = gate.pools.by_name
        self._runs = gate.pools.runs
        self._needs = {name: tuple(self._made(pool)) for name, pool in self._pools.items()}

    def apply(self, call: Call) -> None:
        route = self.routes.get(call.route.name)
        uses = [target.pools for target in call.targets if target.pools is not None]
        if uses or route:
            call.needs += self._of(uses, call.route.name if route else "")
        if HEADER in call.headers:
            call.needs += self._stated(call, in_header(call.headers[HEADER]), HEADER.decode())
        elif call.facts.stated:
            call.needs += self._stated(call, call.facts.stated, MEMBERS[0])

    def _of(self, uses: Iterable[PoolUse], route: str) -> tuple[Need, ...]:
        """The needs of all pools that any of the targets takes from; those of others need nothing."""
        asked: tuple[PoolUse | str, ...] = (*uses, route)
        needs = self._kept.get(asked)
        if needs is None:
            names = dict.fromkeys([name for use in uses for name in use.amounts] + [*self.routes.get(route, ())])
            needs = tuple(need for name in names for need in self._needs[name])
            if len(self._kept) < MOST_KEPT:
                self._kept[asked] = needs
        return needs

    def _made(self, pool: Resource) -> Iterator[Need]:
        """What models, workers and routes take of a pool."""

        def takes(call: Call, target: Target) -> Amount | None:
            amount = target.pools.amounts.get(pool.name) if target.pools is not None else None
            return self.routes.get(call.route.name, NOTHING).get(pool.name) if amount is None else amount

        return self._over(pool, takes)

    def _over(self, pool: Resource, takes: Takes) -> Iterator[Need]:
        """The need of a pool itself, and one for each window over it."""

        def view(call: Call, target: Target) -> Limit | None:
            return None if takes(call, target) is None else self._view(pool, call, target)

        def worst(call: Call, target: Target) -> int:
            return _worst(takes(call, target), call, target)

        def used(call: Call, outcome: Outcome) -> int:
            target = outcome.target
            if target is None or _never_sent(call, outcome):
                return 0
            return _used(takes(call, target), pool.unit, call, outcome)

        def used_now(call: Call, outcome: Outcome) -> int:
            self._note(call, outcome)
            return used(call, outcome)

        def inside(window: Limit) -> LimitOf:
            return lambda call, target: None if takes(call, target) is None else window

        yield Need(view, worst, Wait(RateLimited, f"{pool.unit} of pool {pool.name}"), used_now, policy=self.name)
        for span in pool.spans:
            lacking = Wait(RateLimited, f"{span.text} {pool.unit} of pool {pool.name}")
            yield Need(inside(span.window), worst, lacking, used, policy=self.name)

    def _view(self, pool: Resource, call: Call, target: Target) -> View:
        """The pool as this caller sees it now. Who is urgent is the queue's to say."""
        placement = call.placement
        urgent = placement is not None and placement.urgency == "urgent"
        bound_ns = int((target.provider.timeouts.total_s or 0) * 1e9)
        longest_ns = self._runs.longest_ns((target.provider.name, target.upstream_model), bound_ns)
        return pool.at(self._wall_ns()).view(call.client.id, urgent, longest_ns <= pool.lend_ns)

    def _note(self, call: Call, outcome: Outcome) -> None:
        target = outcome.target
        if target is not None and outcome.kind == "served" and call.attempts:
            self._runs.note((target.provider.name, target.upstream_model), call.attempts[-1].duration_us * 1000)

    def _stated(self, call: Call, amounts: Mapping[str, int], where: str) -> list[Need]:
        """What the caller says its work takes: of a worker's pools that its configuration lets callers state."""
        target = call.targets[0] if call.targets else None
        allowed = target.provider.stated_pools if target is not None else frozenset()
        needs: list[Need] = []
        for name, amount in amounts.items():
            if name not in allowed:
                may = f"may state {', '.join(sorted(allowed))}" if allowed else "may state none here"
                raise BadRequest(f"This call states a need of pool '{name[:64]}'; callers {may}.", param=where)
            needs += self.stated(self._pools[name], amount)
        return needs

    def stated(self, pool: Resource, amount: int) -> Iterator[Need]:
        """The needs of a call that says itself how much it takes; a worker's report settles them."""
        return self._over(pool, lambda call, target: amount)

    async def heard(self, call: Call, target: Target, told: Told, at_ns: int) -> None:
        """The provider's own figures correct the pools that count the same as it does."""
        for name, measure in target.pools.amounts.items() if target.pools is not None else ():
            pool = self._pools[name]
            if not pool.learns:
                continue
            age_s = (self._gate.clock.now_ns() - at_ns) / 1e9
            left = told.left.get(measure) if isinstance(measure, str) else None
            if left is not None or told.pause_s > age_s:
                await self._gate.store.learn(pool.whole, left, max(0.0, told.pause_s - age_s), age_s)

    async def rebuild(self, history: History) -> None:
        """At start: pools and their windows count again what the ledger says calls of their models took. Only those of
        which it keeps all that is counted: tokens and requests. For the others the store's own memory has to do."""
        known = {name: pool for name, pool in self._pools.items() if self._is_in_ledger(name)}
        spans = [span.window.span_ns for pool in known.values() for span in pool.spans]
        wall_ns = self._wall_ns()
        counted: dict[Limit, list[tuple[int, int]]] = {}
        for row in await history.graded(wall_ns - max([HOUR_NS, *spans]) * 61 // 60):
            age_ns = max(0, wall_ns - row.wall_ns)
            for name, amount in self._gate.pools.taken_by(row.model).items():
                pool = known.get(name)
                for limit in (pool.whole, *[span.window for span in pool.spans]) if pool is not None else ():
                    counted.setdefault(limit, []).append((age_ns, _counted(amount, row)))
        for limit, amounts in counted.items():
            await self._gate.store.restate(limit, amounts)

    def _is_in_ledger(self, name: str) -> bool:
        by_route = [amounts[name] for amounts in self.routes.values() if name in amounts]
        return not by_route and self._gate.pools.measures(name) <= LEDGER


def _worst(amount: Amount | None, call: Call, target: Target) -> int:
    """Units that a call may take (TERMS 4)."""
    if isinstance(amount, int):
        return amount
    if amount == "requests":
        return 0 if call.rides else 1  # several calls may go up as one request
    if amount == "bytes":
        length = call.header(b"content-length") or b""
        return max(call.facts.prompt_bytes, int(length) if length.isdigit() else 0)
    if amount in ("images", "characters"):
        return call.facts.units.get(amount, 0)
    if not call.route.model:
        return 0
    estimate = call.estimate(target)
    parts = {"input_tokens": estimate.input_tokens, "output_tokens": estimate.output_tokens}
    return parts[amount] if amount in parts else estimate.input_tokens + estimate.output_tokens


def _used(amount: Amount | None, unit: str, call: Call, outcome: Outcome) -> int:
    """Units that it did take: what was reported of the pool's unit, else what is counted."""
    usage = outcome.usage
    if amount == "tokens":
        return usage.input_tokens + usage.output_tokens
    if amount == "input_tokens":
        return usage.input_tokens
    if amount == "output_tokens":
        return usage.output_tokens
    reported = usage.units.get(unit)
    if reported is not None:
        return reported
    if isinstance(amount, int):
        return amount
    if amount == "requests":
        return 0 if call.rides else 1
    if outcome.target is None or amount is None:
        return 0
    return usage.units.get(amount, _worst(amount, call, outcome.target))


def _never_sent(call: Call, outcome: Outcome) -> bool:
    """No connection, so nothing was asked for."""
    return not (call.attempts and call.attempts[-1].status) and isinstance(outcome.error, Unavailable)


def _counted(measure: Amount, row: Used) -> int:
    """What a sum of the ledger took."""
    tokens = {"input_tokens": row.input_tokens, "output_tokens": row.output_tokens, "requests": row.requests}
    return tokens.get(cast("str", measure), row.input_tokens + row.output_tokens)
