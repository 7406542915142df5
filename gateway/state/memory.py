"""The store of one process: every limit in memory, decided between two awaits and therefore at once.

Time is the monotonic clock, so a jump of the wall clock mints nothing and locks no one out. Used from one event loop
only. What must outlast the process is written by a journal (see `journal.py`) and, for money and long windows, rebuilt
from the ledger by the policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.clock import Clock
from gateway.state.bucket import BucketState
from gateway.state.plan import View
from gateway.state.pool import PoolState
from gateway.state.seconds import ns_of, seconds_of
from gateway.state.slots import SlotsState
from gateway.state.snapshot import VERSION, Header, Line, encode, line_of, seal, state_of, unseal
from gateway.state.store import (
    Bucket,
    Crossed,
    Freed,
    Grant,
    Lack,
    Level,
    Limit,
    PartLevel,
    Slots,
    Store,
    Tally,
    Want,
    Window,
)
from gateway.state.tally import TallyState
from gateway.state.view import ViewState
from gateway.state.window import WindowState

if TYPE_CHECKING:
    from gateway.metrics import Metrics
    from gateway.state.journal import Journal

#: States by the kind of limit they keep.
STATES: dict[type[Limit], Any] = {Bucket: BucketState, Window: WindowState, Tally: TallyState, Slots: SlotsState}

#: How many states one sweep looks at, and the time between two sweeps: never a pause that a call would notice.
SWEPT = 256
SWEEP_NS = 100_000_000
#: Time between two rounds over all states.
ROUND_NS = 30_000_000_000
#: Ended holds left in the heap of expiries before it is cleaned.
SLACK = 512


class Hold(msgspec.Struct):
    """What one call holds: its wants, and for each the state and what the state gave for it."""

    expires: int
    wants: tuple[Want, ...]
    states: list[Any]
    taken: list[Any]


class MemoryStore(Store):
    """The embedded default. With a journal it takes up the last snapshot at `start` and keeps writing new ones."""

    def __init__(self, clock: Clock, journal: Journal | None = None, metrics: Metrics | None = None) -> None:
        self.clock = clock
        self._now = clock.now_ns
        self._journal = journal
        self._states: dict[str, Any] = {}  # by the limits' keys
        self._pools: dict[str, PoolState] = {}  # by the groups of their views
        self._known: dict[Limit, Any] = {}  # the same by the limits themselves, as they were last seen
        self._holds: dict[str, Hold] = {}
        self._expiries: list[tuple[int, str]] = []  # heap; entries of ended and renewed holds stay until they surface
        self._debtors: dict[str, Any] = {}
        self._watchers: dict[str, Crossed] = {}
        self._freed: Freed | None = None
        self._round: Iterator[tuple[str, Any]] = iter(())
        self._sweep_at = 0
        self._round_at = 0
        self._wake_at = 0  # the next sweep or expiry
        self._ttl_s: float | None = None  # the last time to live that was asked for, mostly the same
        self._ttl_ns = 0
        self.changed = False  # since the journal last looked
        if metrics is not None:
            metrics.gauge("tidegate_store_limits", "Limits in memory.", lambda: [((), len(self._states))])
            metrics.gauge("tidegate_store_holds", "Calls that hold something.", lambda: [((), len(self._holds))])
            metrics.gauge("tidegate_store_debt", "Units used above what was reserved.", self._debt_by_unit, ("unit",))
            labels = ("pool", "part")
            metrics.gauge(
                "tidegate_pool_available", "Units that a part of a pool has.", self._by_part("available"), labels
            )
            metrics.gauge("tidegate_pool_capacity", "Units it has when full.", self._by_part("capacity"), labels)
            metrics.gauge("tidegate_pool_lent", "Units of it that others hold.", self._by_part("lent"), labels)
            metrics.gauge("tidegate_pool_debt", "Units of it that are owed.", self._by_part("debt"), labels)

    async def start(self) -> None:
        if self._journal is not None:
            await self._journal.open(self)

    async def aclose(self) -> None:
        if self._journal is not None:
            await self._journal.aclose(self)

    async def reserve(
        self, hold: str, wants: Sequence[Want], ttl_s: float, waiting: int = 0, queued: bool = False
    ) -> Grant:
        if queued:
            return await self._begin(hold, wants, ttl_s, waiting)
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        find = self._known.get
        states: list[Any] = []
        taken: list[Any] = []
        try:
            for limit, amount in wants:
                state = find(limit) or self._state(limit, now)
                if amount < 0:
                    raise ValueError(f"{limit.key}: an amount of {amount}")
                took = state.take(amount, now)
                if took is None:
                    break
                states.append(state)
                taken.append(took)
        except BaseException:
            self._undo(wants, states, taken, now)
            raise
        if len(taken) < len(wants):
            self._undo(wants, states, taken, now)
            grant = self._refuse(wants, now)
            if waiting and self._may_wait(wants, grant.lacks, waiting):
                return await self._begin(hold, wants, ttl_s, waiting, grant.lacks)
            return grant
        if ttl_s != self._ttl_s:
            self._ttl_s, self._ttl_ns = ttl_s, ns_of(ttl_s)
        expires = now + self._ttl_ns
        held = self._holds.get(hold)
        if held is None:
            self._holds[hold] = Hold(expires, tuple(wants), states, taken)
        else:
            self._holds[hold] = Hold(expires, (*held.wants, *wants), held.states + states, held.taken + taken)
        heappush(self._expiries, (expires, hold))
        if expires < self._wake_at:
            self._wake_at = expires
        self.changed = True
        return Grant((), states)

    async def _begin(
        self, hold: str, wants: Sequence[Want], ttl_s: float, waiting: int, lacks: Sequence[Lack] = ()
    ) -> Grant:
        """Holds what comes before the waiting wants; these are for the scheduler."""
        first, last = wants[:-waiting], wants[-waiting:]
        now = self._now()
        for offset, (limit, amount) in enumerate(last):
            if amount > limit.capacity:
                never = Lack(len(first) + offset, (self._known.get(limit) or self._state(limit, now)).remaining, None)
                return Grant([never], [self._known[limit] for limit, _ in first if limit in self._known])
        grant = await self.reserve(hold, first, ttl_s)
        if not grant.granted:
            return grant
        levels = [*grant.levels, *[self._known.get(limit) or self._state(limit, now) for limit, _ in last]]
        return Grant(lacks, levels, waits=True)

    @staticmethod
    def _may_wait(wants: Sequence[Want], lacks: Sequence[Lack], waiting: int) -> bool:
        first = len(wants) - waiting
        return all(lack.index >= first and wants[lack.index][1] <= wants[lack.index][0].capacity for lack in lacks)

    async def exchange(self, hold: str, dropped: Sequence[int], wants: Sequence[Want], ttl_s: float) -> Grant:
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        held = self._holds.get(hold)
        if held is None:
            return await self.reserve(hold, wants, ttl_s)
        states: list[Any] = []
        taken: list[Any] = []
        for limit, amount in wants:
            state = self._known.get(limit) or self._state(limit, now)
            took = state.take(amount, now)
            if took is None:
                self._undo(wants, states, taken, now)
                return self._refuse(wants, now)
            states.append(state)
            taken.append(took)
        kept = [index for index in range(len(held.wants)) if index not in dropped]
        for index in sorted(dropped, reverse=True):
            held.states[index].settle(held.taken[index], held.wants[index][1], 0, now)
        gone = [held.states[index].limit.name for index in dropped]
        held.wants = (*[held.wants[index] for index in kept], *wants)
        held.states = [held.states[index] for index in kept] + states
        held.taken = [held.taken[index] for index in kept] + taken
        held.expires = max(held.expires, now + ns_of(ttl_s))
        heappush(self._expiries, (held.expires, hold))
        self.changed = True
        if self._freed is not None and gone:
            self._freed(gone)
        return Grant((), states)

    async def settle(self, hold: str, actual: Sequence[int]) -> None:
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        held = self._holds.get(hold)
        if held is None:
            return
        wants = held.wants
        if len(actual) != len(wants):
            raise ValueError(f"hold {hold} has {len(wants)} wants, not {len(actual)}")
        del self._holds[hold]
        for (_, amount), state, took, used in zip(wants, held.states, held.taken, actual):  # noqa: B905 (checked above)
            state.settle(took, amount, used, now)
            if used > amount:
                self._debtors[state.limit.name] = state
        self.changed = True
        if self._freed is not None:
            self._freed([state.limit.name for state in held.states])

    async def release(self, hold: str) -> None:
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        held = self._holds.pop(hold, None)
        if held is not None:
            self._undo(held.wants, held.states, held.taken, now)
            if self._freed is not None:
                self._freed([state.limit.name for state in held.states])

    async def renew(self, hold: str, ttl_s: float) -> None:
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        held = self._holds.get(hold)
        if held is not None:
            held.expires = now + ns_of(ttl_s)
            heappush(self._expiries, (held.expires, hold))
            self._wake_at = min(self._wake_at, held.expires)

    async def levels(self, limits: Sequence[Limit]) -> list[Level]:
        now = self._now()
        if now >= self._wake_at:
            self._wake(now)
        found: list[Level] = []
        for limit in limits:
            state = self._known.get(limit)
            if state is None and limit.key in self._states:
                state = self._state(limit, now)
            elif state is None and isinstance(limit, View):
                state = self._view(limit, now)
            elif state is None:
                state = STATES[type(limit)](limit, now)  # as good as new, and not kept for being looked at
            state.advance(now)
            found.append(state)
        return found

    async def restate(self, limit: Limit, used: Iterable[tuple[int, int]]) -> None:
        now = self._now()
        self._state(limit, now).restate(used, now)

    async def parts(self, view: View) -> list[PartLevel]:
        now = self._now()
        return self._view(view, now).pool.levels(now)

    async def learn(self, view: View, remaining: int | None, pause_s: float = 0.0, age_s: float = 0.0) -> None:
        now = self._now()
        self._view(view, now).pool.learn(remaining, ns_of(pause_s), ns_of(age_s), now)
        self.changed = True

    def dump(self) -> bytes:
        """A snapshot of all limits (see `snapshot.py`), taken at once."""
        header = Header(VERSION, "", self._now(), self.clock.wall_ns())
        return seal(header, encode(self.lines(self.keys())))

    def load(self, data: bytes, down_ns: int) -> None:
        """Takes up a snapshot that was written `down_ns` ago. What was held then counts as used; slots are free.
        Raises BadSnapshotError, and changes nothing, if it is not whole."""
        header, lines = unseal(data)
        now = self._now()
        for line in lines:
            state = state_of(line, now - down_ns - header.now_ns, now)
            if isinstance(state, PoolState):
                self._pools[line.key] = state
                continue
            if isinstance(state, TallyState):
                state.crossed = self._crossed
            before = self._states.get(line.key)
            if before is not None:
                self._known.pop(before.limit, None)
            self._states[line.key] = self._known[state.limit] = state

    def keys(self) -> list[str]:
        """Names of all limits in memory."""
        return [*self._states, *self._pools]

    def lines(self, keys: Iterable[str]) -> list[Line]:
        """What a snapshot says of these limits."""
        now = self._now()
        lines = [line_of(key, self._states.get(key) or self._pools.get(key), now) for key in keys]
        return [line for line in lines if line is not None]

    def listen(self, freed: Freed | None) -> None:
        self._freed = freed

    def watch(self, name: str, crossed: Crossed) -> None:
        self._watchers[name] = crossed

    def _crossed(self, limit: Tally, mark: int, used: int) -> None:
        for crossed in self._watchers.values():
            crossed(limit, mark, used)

    def _state(self, limit: Limit, now: int) -> Any:
        """The state of a limit that was not seen before, or not with these parameters."""
        state: Any = self._states.get(limit.key)
        if state is not None:
            self._known.pop(state.limit, None)
        if isinstance(limit, View):
            state = self._view(limit, now)
        elif state is None or state.kind is not type(limit):
            state = STATES[type(limit)](limit, now)
            if isinstance(state, TallyState):
                state.crossed = self._crossed
        elif state.limit.same(limit):
            state.limit = limit
        else:
            state = state.adopt(limit, now)
        self._states[limit.key] = self._known[limit] = state
        return state

    def _view(self, limit: View, now: int) -> ViewState:
        """A view of the pool of its group. A view has no state of its own, the pool is never forgotten."""
        pool = self._pools.get(limit.group)
        if pool is None:
            pool = self._pools[limit.group] = PoolState(limit.plan, now)
        pool.adopt(limit.plan, now)
        return ViewState(limit, pool)

    def _refuse(self, wants: Sequence[Want], now: int) -> Grant:
        """What is lacking: takes one after the other again and gives all back."""
        given: list[Want] = []
        states: list[Any] = []
        taken: list[Any] = []
        lacks: list[Lack] = []
        for index, (limit, amount) in enumerate(wants):
            state = self._known.get(limit) or self._state(limit, now)
            took = state.take(amount, now)
            if took is None:
                available, wait = state.lack(amount, now)
                if wait is not None and state.kind is Tally:
                    wait = max(0, wait - self.clock.wall_ns())
                lacks.append(Lack(index, available, None if wait is None else seconds_of(wait)))
            else:
                given.append((limit, amount))
                states.append(state)
                taken.append(took)
        self._undo(given, states, taken, now)
        return Grant(lacks, [self._known[limit] for limit, _ in wants])

    @staticmethod
    def _undo(wants: Sequence[Want], states: list[Any], taken: list[Any], now: int) -> None:
        """Gives back everything that was taken for the first of the wants, the last first."""
        for index in range(len(taken) - 1, -1, -1):
            states[index].settle(taken[index], wants[index][1], 0, now)

    def _wake(self, now: int) -> None:
        """Ends the holds whose time is over: what they held is used. Then a part of the sweep, if it is time."""
        expiries, holds = self._expiries, self._holds
        while expiries and expiries[0][0] <= now:
            _, hold = heappop(expiries)
            held = holds.get(hold)
            if held is not None and held.expires <= now:
                del holds[hold]
                for (_, amount), state, took in zip(held.wants, held.states, held.taken, strict=True):
                    state.settle(took, amount, amount, now)
                if self._freed is not None:
                    self._freed([state.limit.name for state in held.states])
        if now >= self._sweep_at:
            self._sweep(now)
        self._wake_at = min(self._sweep_at, self._expiries[0][0]) if self._expiries else self._sweep_at

    def _sweep(self, now: int) -> None:
        """Forgets limits that are as good as new, a few at a time, and what is left of ended holds."""
        self._sweep_at = now + SWEEP_NS
        if len(self._expiries) > 2 * len(self._holds) + SLACK:
            self._expiries = [(held.expires, hold) for hold, held in self._holds.items()]
            heapify(self._expiries)
        for key, state in islice(self._round, SWEPT):
            if key in self._states and self._states[key] is state and state.idle(now):
                del self._states[key], self._known[state.limit]
                self._debtors.pop(key, None)
        if length_hint(self._round) == 0 and now >= self._round_at:
            self._round = iter(list(self._states.items()))
            self._round_at = now + ROUND_NS

    def _by_part(self, figure: str) -> Callable[[], list[tuple[tuple[str, ...], int]]]:
        return lambda: [
            ((pool.plan.pool, level.name), getattr(level, figure))
            for pool in self._pools.values()
            for level in pool.levels(self._now())
        ]

    def _debt_by_unit(self) -> list[tuple[tuple[str, ...], int]]:
        """What is owed now, by the unit of the limits that owe."""
        now, owed = self._now(), {"requests": 0, "tokens": 0, "pusd": 0, "other": 0}
        for key, state in list(self._debtors.items()):
            state.advance(now)
            if state.debt() == 0:
                del self._debtors[key]
            owed["pusd" if state.kind is Tally else state.limit.header or "other"] += state.debt()
        return [((unit,), amount) for unit, amount in owed.items()]
