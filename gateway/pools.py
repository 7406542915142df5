"""The configured pools: how each is divided at a time of the wall clock, and who may take what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock
from gateway.rates import parse_rate
from gateway.runs import Runs
from gateway.state.plan import REFILL_SCALE, RESERVED, SHARED, Part, Plan, View
from gateway.state.seconds import ns_of
from gateway.state.store import PartLevel, Store, Window

if TYPE_CHECKING:
    from gateway.config.pools import DedicatedSettings, PoolSettings


@dataclass(frozen=True, slots=True, eq=False)
class PoolUse:
    """What one call takes: by pool, units or the name of what is counted. Compared by identity."""

    amounts: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Span:
    """A sliding window over a pool, and how its rate is written."""

    window: Window
    text: str


class Era:
    """A pool between two changes of its dedicated parts, and its views, made when they are first asked for."""

    def __init__(self, from_wall_ns: int, until_wall_ns: int, plan: Plan, lends: bool) -> None:
        self.from_wall_ns = from_wall_ns
        self.until_wall_ns = until_wall_ns
        self.plan = plan
        self._lends = lends
        self._parts = {part.name: part for part in plan.parts}
        self._views: dict[tuple[str, bool, bool], View] = {}
        self._own: dict[tuple[str, ...], View] = {}

    def view(self, client: str, urgent: bool, short: bool) -> View:
        """What a caller may take; `short` work may borrow."""
        own = f"client {client}"
        asked = (own if own in self._parts else "", urgent, short and self._lends)
        view = self._views.get(asked)
        if view is None:
            view = self._views[asked] = self._made(*asked)
        return view

    def _made(self, own: str, urgent: bool, short: bool) -> View:
        owned = tuple(name for name in (own, RESERVED if urgent else "") if name in self._parts)
        takes = (*owned, SHARED)
        borrows = tuple(part.name for part in self.plan.parts if part.name not in takes) if short else ()
        kind = ", ".join([*takes, *(["idle ones"] if borrows else [])])
        return self._view(kind, takes, len(owned), borrows, own, self._only(owned, own) if owned else None)

    def _only(self, owned: tuple[str, ...], own: str) -> View:
        view = self._own.get(owned)
        if view is None:
            view = self._own[owned] = self._view(f"only {', '.join(owned)}", owned, len(owned), (), own)
        return view

    def _view(
        self,
        kind: str,
        takes: tuple[str, ...],
        owned: int,
        borrows: tuple[str, ...],
        own: str,
        only: View | None = None,
    ) -> View:
        group = f"pool {self.plan.pool}"
        return View(
            f"{group}: {kind}",
            sum(self._parts[name].capacity for name in takes),
            group=group,
            own=only,
            plan=self.plan,
            takes=takes,
            owned=owned,
            borrows=borrows,
            debtor=own or SHARED,
        )


class Pool:
    """One pool of the configuration."""

    def __init__(self, name: str, settings: PoolSettings, clock: Clock) -> None:
        self.name = name
        self.unit = settings.unit
        self.settings = settings
        self.lend_ns = ns_of(settings.lend_s)
        self.learns = settings.learn is not False
        self._clock = clock
        self.spans = [_span(name, text) for text in settings.windows]
        self._era = self._turned(clock.wall_ns())

    def at(self, wall_ns: int) -> Era:
        """How it is divided at that time."""
        era = self._era
        if not era.from_wall_ns <= wall_ns < era.until_wall_ns:
            era = self._era = self._turned(wall_ns)
        return era

    @property
    def whole(self) -> View:
        """Any view of it as it is now."""
        return self.at(self._clock.wall_ns()).view("", False, False)

    def _turned(self, wall_ns: int) -> Era:
        start, end = 0, 2**63
        parts: list[DedicatedSettings] = []
        for at, dedicated in self.settings.eras():
            if at > wall_ns:
                end = at
                break
            start, parts = at, dedicated
        return Era(start, end, self._plan(parts), self.settings.lend_idle)

    def _plan(self, dedicated: Iterable[DedicatedSettings]) -> Plan:
        of, percent = self.settings, self.settings.reserved_percent
        parts = [Part(f"client {one.client}", one.capacity, one.refill_milli * 100) for one in dedicated]
        if percent:
            parts.append(Part(RESERVED, of.capacity * percent // 100, of.refill_milli * percent))
        capacity = of.capacity - sum(part.capacity for part in parts)
        refill = of.refill_milli * REFILL_SCALE // 1000 - sum(part.refill for part in parts)
        shared = Part(SHARED, capacity, refill)
        return Plan(self.name, (shared, *parts), ns_of(of.idle_s), self._clock.now_ns())


class Pools:
    """All pools of one configuration."""

    def __init__(self, settings: Mapping[str, PoolSettings], clock: Clock, runs: Runs | None = None) -> None:
        self.by_name = {name: Pool(name, one, clock) for name, one in settings.items()}
        self.runs = Runs() if runs is None else runs
        self.stated: set[str] = set()  # of which some worker's callers may state an amount
        self._uses: dict[str, list[PoolUse]] = {}  # by public model, pattern or worker

    def use(self, name: str, amounts: Mapping[str, int | str]) -> PoolUse | None:
        """What a target of that public name takes; None: nothing."""
        if not amounts:
            return None
        made = PoolUse(dict(amounts))
        self._uses.setdefault(name, []).append(made)
        return made

    def taken_by(self, name: str) -> dict[str, int | str]:
        """What calls of a public model or a worker take; of the pattern that stands for it, if it is not named."""
        found = self._uses.get(name)
        if found is None:
            patterns = sorted((one for one in self._uses if "*" in one), key=len, reverse=True)
            found = next((self._uses[one] for one in patterns if fnmatchcase(name, one)), [])
        return {pool: amount for use in found for pool, amount in use.amounts.items()}

    def measures(self, pool: str) -> set[int | str]:
        """All that anything counts of a pool; 0 where callers may state amounts themselves."""
        found = {use.amounts[pool] for uses in self._uses.values() for use in uses if pool in use.amounts}
        return found | {0} if pool in self.stated else found

    def learn_by(self, drawn: Iterable[tuple[PoolUse | None, str]]) -> None:
        """Given what is taken at which provider: a pool of several learns from none of them, unless it is told to."""
        providers: dict[str, set[str]] = {}
        for use, provider in drawn:
            for name in use.amounts if use is not None else ():
                providers.setdefault(name, set()).add(provider)
        for name, pool in self.by_name.items():
            if pool.settings.learn is None:
                pool.learns = len(providers.get(name, ())) <= 1

    async def declare(self, store: Store) -> None:
        """Has the store know every pool, so that it is shown before its first call, and as it is now after a reload."""
        for pool in self.by_name.values():
            await store.parts(pool.whole)

    async def snapshot(self, store: Store, waiting: Iterable[str] = ()) -> list[dict[str, Any]]:
        """How all pools stand, for people; given the names of the limits for which calls wait, one a call."""
        counts = Counter(waiting)
        return [await self._stands(pool, store, counts) for pool in self.by_name.values()]

    @staticmethod
    async def _stands(pool: Pool, store: Store, counts: Counter[str]) -> dict[str, Any]:
        parts = await store.parts(pool.whole)
        levels = await store.levels([span.window for span in pool.spans])
        by_name = {level.name: _shown(level) for level in parts}
        return {
            "name": pool.name,
            "unit": pool.unit,
            "closed_ms": -(-parts[0].closed_ns // 1_000_000),
            "waiting": counts[pool.whole.name] + sum(counts[span.window.name] for span in pool.spans),
            "shared": by_name[SHARED],
            "reserved": by_name.get(RESERVED),
            "dedicated": {
                level.name.removeprefix("client "): by_name[level.name]
                for level in parts
                if level.name not in (SHARED, RESERVED)
            },
            "windows": [
                {
                    "rate": span.text,
                    "limit": span.window.capacity,
                    "used": span.window.capacity - level.remaining,
                    "remaining": max(0, level.remaining),
                }
                for span, level in zip(pool.spans, levels, strict=True)
            ],
        }


def _shown(level: PartLevel) -> dict[str, Any]:
    return {
        "available": level.available,
        "capacity": level.capacity,
        "percentage": level.available * 100 // level.capacity if level.capacity else 0,
        "lent": level.lent,
        "debt": level.debt,
    }


def _span(pool: str, text: str) -> Span:
    """Of any length a sliding window: the bucket is the pool itself."""
    rate = parse_rate(text)
    return Span(Window(f"pool {pool} {rate.per_ns // 10**9}s", rate.amount, "", rate.per_ns), text)
