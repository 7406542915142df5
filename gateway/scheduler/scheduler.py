"""Who goes next. Outlives pipelines and reloads; grants all that a call waits for at once, or nothing.

Calls of one client that need the same limits in the same band stand in a *lane*. Each of a lane's options (targets) is
parked in the *line* of one limit that its first call lacks; the limit is closed to those who come later in that line.
One task, while anybody waits, is woken by what was given back (`Store.listen`), by time (refills, ends of waits, points
of waiting) and by who comes and goes; it asks the store only for the first of each line. So an operation costs
O(log n), and what wakes a line costs nothing for those behind its first.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, get_running_loop, sleep
from collections.abc import Callable, Iterable, Mapping

from gateway.call import Call, Held
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.metrics import Metrics
from gateway.scheduler.agenda import Agenda
from gateway.scheduler.board import Board
from gateway.scheduler.door import Door
from gateway.scheduler.lane import Entry, Lane, Spot
from gateway.scheduler.line import Line
from gateway.scheduler.pace import Honesty
from gateway.scheduler.picture import Picture
from gateway.scheduler.roll import Roll
from gateway.scheduler.settings import HOUR_NS, SECOND_NS, QueueSettings, next_change
from gateway.scheduler.view import Snapshot, View
from gateway.scheduler.waiter import Option, Queued, Waiter, level_of
from gateway.state.store import Grant, Lack, Slots, Store, Want
from gateway.wishes import Urgency

#: Slots come back when somebody lets go, which is told at once; asking again after this is for leases that ran out.
SLOTS_ASKED_NS = 10 * SECOND_NS
#: Who will not wait at all still has all its targets tried.
SHORTEST_NS = 5_000_000
#: Calls renewed at a reload between two turns of the loop.
RENEWED_AT_ONCE = 100
HALF_SECOND_NS = SECOND_NS // 2


class Hour:
    """The moment when everyone's count of requests begins anew."""

    due_ns = 0

    def __lt__(self, other: object) -> bool:
        return False


class Scheduler:
    """Made once for each gateway; `configure` at start and at each reload."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics | None = None) -> None:
        self._store = store
        self._clock = clock
        self._now = clock.now_ns
        self._roll = Roll()
        self._board = Board(self.wake, lambda entry, lane, now: self._door.tell_late(entry, lane, now))
        self._picture = Picture(self._board, self._roll)
        self._agenda = Agenda(self._now, self.wake)
        self._hour = Hour()
        self._last_seq = 0
        self._loop: AbstractEventLoop | None = None
        self._task: Task[None] | None = None
        self._alarm: Future[None] | None = None
        #: Brings a waiting call under the configuration in force, or raises the GatewayError that ends it.
        self.renew: Callable[[Call], None] = lambda call: None
        #: Ids of the calls that hold something in the store, those that wait included.
        self.holding: set[str] = set()
        #: The longest an HTTP call may wait, seconds ([server] http_wait_cap_s).
        self.http_wait_cap_s = 120.0
        #: The most urgent that a tier's calls may be, by its name; others' are normal. The queue policy says it.
        self.claims: Mapping[str, Urgency] = {}
        self._report(metrics or Metrics())
        self.configure(QueueSettings())

    def _report(self, metrics: Metrics) -> None:
        self.honesty = Honesty(metrics)
        self._waits = metrics.histogram("tidegate_queue_wait_seconds", "Waits that ended in a grant.", ("level",))
        self._door = Door(self._board, self._roll, metrics, self._end)
        metrics.gauge("tidegate_queue_waiting", "Calls that wait.", lambda: [((), len(self._roll))])

    def configure(self, settings: QueueSettings) -> None:
        """Takes up other settings; those who wait keep their place."""
        self._door.settings = settings
        self._starvation_ns = int(settings.starvation_s * SECOND_NS)
        self._board.floor_every = settings.floor_every
        for line in self._board.lines.values():
            line.floor_every = settings.floor_every

    # ---- Coming and going --------------------------------------------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """Whether anybody waits."""
        return bool(self._roll.entries)

    def reconsider(self, call_id: str) -> None:
        """What others lend that call changed; nothing where it does not wait."""
        entry = self._roll.entries.get(call_id)
        if entry is not None:
            self._place(entry, self._now())
            self.wake()

    def contended(self, held: Iterable[Held]) -> bool:
        """Whether others wait for one of these already: a newcomer does not overtake them."""
        return bool(self._roll.entries) and self._board.contended(held)

    def count(self, client: str, wall_ns: int) -> None:
        """One more request of a client, waiting or not: its priority falls with every tenth of an hour."""
        if self._roll.count(client, wall_ns):
            now = self._now()
            for entry in self._roll.of_client(client):
                self._place(entry, now)
            self.wake()

    async def wait(self, waiter: Waiter, queued: Queued) -> Option:
        """Gives the option that was granted, held under the waiter's id; fills in `queued`. Raises QueueFull or
        RateLimited with a true retry-after; when cancelled it is gone at once."""
        entry = self.enter(waiter, queued)
        try:
            return await entry.future
        finally:
            queued.waited_ns = self._now() - entry.arrived_ns
            if not entry.done:
                self.leave(entry)

    def enter(self, waiter: Waiter, queued: Queued) -> Entry:
        """Takes a place for a call, or raises the refusal. Whoever enters leaves, unless its future is done."""
        self._loop = loop = get_running_loop()
        now = self._now()
        placement, roll = waiter.placement, self._roll
        ends_ns = now + max(SHORTEST_NS, int(placement.longest_wait_s * SECOND_NS))
        if placement.deadline_ns is not None:
            ends_ns = min(ends_ns, placement.deadline_ns)
        seq = self._last_seq = now if now > self._last_seq else self._last_seq + 1
        entry = Entry(waiter, queued, loop.create_future(), seq, now, ends_ns)
        entry.band = roll.band(entry, now)
        lane = self._door.admit(entry, now)
        if not roll.entries:
            self._store.listen(self._board.freed)
            self._agenda.put(self._hour, now + HOUR_NS - self._clock.wall_ns() % HOUR_NS)
        roll.add(entry)
        if waiter.not_before_ns > now:
            queued.estimate_ms = (waiter.not_before_ns - now) // 1_000_000
            queued.level = level_of(queued.estimate_ms / 1000)
        else:
            self._board.join(entry, lane)
        self._schedule(entry, now)
        if self._task is None:
            self._task = loop.create_task(self._pump())
        else:
            self.wake()
        return entry

    def leave(self, entry: Entry) -> None:
        """Gone at once: nothing of it is held or counted any more, nor kept."""
        lane = entry.lane
        self._roll.remove(entry)
        if lane is not None:
            self._board.leave(entry, lane)
        if self._board.claim.is_of(entry):
            self._board.forgo()
        if not self._roll.entries:
            self._rest()
        entry.forget()

    def _end(self, entry: Entry, error: Exception) -> None:
        if not entry.future.done():
            entry.future.set_exception(error)
        self.leave(entry)

    def _rest(self) -> None:
        """The last one left: nothing is listened to, no task and no timer are left."""
        self._store.listen(None)
        self._agenda.clear()
        self._board.clear()
        self.wake()

    def _place(self, entry: Entry, now: int) -> None:
        """Puts a waiting call where its priority of now belongs."""
        band = self._roll.band(entry, now)
        if band == entry.band:
            return
        lane = entry.lane
        if lane is not None:
            self._board.leave(entry, lane)
        self._roll.move(entry, band)
        if lane is not None:
            self._board.join(entry)

    # ---- What time brings --------------------------------------------------------------------------------------------

    def _schedule(self, entry: Entry, now: int) -> None:
        """The next moment at which time matters to a waiting call."""
        waiter = entry.waiter
        moment = entry.ends_ns
        if entry.lane is None:
            moment = min(moment, waiter.not_before_ns)
        elif not entry.starved:
            starves_ns = self._starves_ns(entry)
            if starves_ns < moment:
                moment = starves_ns
        change = next_change(waiter.placement, entry.arrived_ns, now)
        if change is not None and change < moment:
            moment = change
        self._agenda.put(entry, moment)

    def _starves_ns(self, entry: Entry) -> int:
        waiter = entry.waiter
        begins = waiter.not_before_ns or entry.arrived_ns
        half_ns = (entry.ends_ns - begins) // 2
        usual_ns = int(waiter.placement.usual_wait_s * HALF_SECOND_NS)
        if usual_ns > half_ns:
            half_ns = usual_ns
        return begins + (half_ns if half_ns < self._starvation_ns else self._starvation_ns)

    def _clockwork(self, now: int) -> None:
        for thing in self._agenda.due(now):
            if isinstance(thing, Line):
                self._board.dirty[thing] = None
            elif isinstance(thing, Entry):
                if not thing.done:
                    self._age(thing, now)
            else:
                self._roll.turn_hour(self._clock.wall_ns())
                for entry in self._roll:
                    self._place(entry, now)
                self._agenda.put(self._hour, now + HOUR_NS - self._clock.wall_ns() % HOUR_NS)

    def _age(self, entry: Entry, now: int) -> None:
        if now >= entry.ends_ns:
            self._door.late(entry, now)
            return
        if entry.lane is None and now >= entry.waiter.not_before_ns:
            self._board.join(entry)
        self._place(entry, now)
        if entry.lane is not None and not entry.starved and now >= self._starves_ns(entry):
            entry.starved = True
            entry.lane.starve(entry)
            self._board.push_starved(entry.lane)
        self._schedule(entry, now)

    # ---- The pump ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Looks again at the time and at who waits."""
        alarm = self._alarm
        if alarm is not None and not alarm.done():
            alarm.set_result(None)

    async def _pump(self) -> None:
        """Runs while anybody waits."""
        loop = get_running_loop()
        try:
            while self._roll.entries:
                await self._round()
                if not self._roll.entries:
                    break
                self._agenda.tidy(len(self._roll) + len(self._board.lines) + 1)
                self._agenda.arm(loop)
                self._alarm = loop.create_future()
                await self._alarm
        finally:
            self._task = self._alarm = None
            if self._roll.entries and not loop.is_closed():  # it was cancelled: others still wait
                self._task = loop.create_task(self._pump())

    async def _round(self) -> None:
        """Everything that can be granted now."""
        self._clockwork(self._now())
        while self._board.fresh or self._board.dirty:
            if self._board.fresh:
                fresh, self._board.fresh = self._board.fresh, []
                fresh.sort(key=_rank)
                for lane in fresh:
                    await self._try_lane(lane)
            while self._board.dirty:
                line = next(iter(self._board.dirty))
                del self._board.dirty[line]
                await self._serve(line)

    async def _try_lane(self, lane: Lane) -> None:
        """Its first call on every option that is not parked, as long as one is granted."""
        lane.fresh = False
        index = 0
        while index < len(lane.spots):
            entry, spot = lane.head, lane.spots[index]
            if entry is None:
                return
            if spot.line is None:
                await self._try(entry, lane, spot)
            index = index + 1 if lane.head is entry else 0
        if lane.head is not None and all(spot.line is None for spot in lane.spots):
            self._door.never(lane)
            if lane.count:
                self._board.renew(lane)

    async def _serve(self, line: Line) -> None:
        """Lets through whose turn it is, until the one whose turn it is lacks this very limit."""
        while (turn := line.turn()) is not None:
            spot, entry = turn
            if not await self._try(entry, spot.lane, spot) and spot.line is line:
                self._board.dirty.pop(line, None)
                return

    async def _try(self, entry: Entry, lane: Lane, spot: Spot) -> bool:
        """Asks the store for a call on one of its options; parks the spot where it lacks something."""
        now, waiter = self._now(), entry.waiter
        option, claim, lines = entry.options[spot.index], self._board.claim, self._board.lines
        wants: list[Want] = []
        touched: list[tuple[Line, int]] = []  # lines at what it takes
        for name, (_, limit, amount, _) in zip(entry.signature[spot.index], option.held, strict=True):
            if name in lines:
                line = lines[name]
                is_open = line is spot.line or (name in claim.amounts and claim.is_of(entry))
                if not is_open and line.is_before(entry, lane):
                    self._board.move(spot, entry, line, now)
                    return False
                touched.append((line, amount))
            wants.append((limit, amount))
        try:
            if claim.amounts and not claim.is_of(entry) and not await self._spares(entry, spot, wants, now):
                return False
            grant = await self._store.reserve(waiter.id, wants, waiter.ttl_s)
        except Exception as error:  # it belongs to the call that is being tried
            if not entry.done:
                self._end(entry, error)
            return False
        if entry.done:  # it left while the store was asked
            if grant.granted:
                await self._store.release(waiter.id)
            return False
        if not grant.granted:
            self._lacks(entry, spot, grant, now)
            return False
        self._grant(entry, lane, spot, option, touched, now)
        return True

    async def _spares(self, entry: Entry, spot: Spot, wants: list[Want], now: int) -> bool:
        """Whether a call leaves what is kept for the oldest starved one; it is parked where it would not."""
        kept, names = self._board.claim.amounts, entry.signature[spot.index]
        if not any(name in kept for name in names):
            return True
        more: list[Want] = []
        for name, (limit, amount) in zip(names, wants, strict=True):
            amount += kept.get(name, 0)
            if name in kept and amount > limit.capacity:
                self._board.move(spot, entry, self._board.line(name, limit, now), now)
                return False
            more.append((limit, amount))
        asked = f"{entry.waiter.id} and what is kept"
        grant = await self._store.reserve(asked, more, entry.waiter.ttl_s)
        if grant.granted:
            await self._store.release(asked)
        elif not entry.done:
            self._lacks(entry, spot, grant, now)
        return grant.granted and not entry.done

    async def take_along(self, id: str, option: Option) -> bool:
        """Grants a waiting call out of its turn, since another one's grant has room for it: with no more than `option`,
        if that is there and nobody waits for it. Whether it did."""
        entry = self._roll.entries.get(id)
        if entry is None or entry.done or entry.lane is None or self._board.contended(option.held):
            return False
        if option.held:
            wants = [(limit, amount) for _, limit, amount, _ in option.held]
            if not (await self._store.reserve(id, wants, entry.waiter.ttl_s)).granted:
                return False
        self._waits.observe((entry.queued.level,), (self._now() - entry.arrived_ns) / SECOND_NS)
        future = entry.future
        self.leave(entry)
        if not future.done():
            future.set_result(option)
        return True

    def _lacks(self, entry: Entry, spot: Spot, grant: Grant, now: int) -> None:
        """Parks it at the limit that takes longest to come back; nowhere if one never does."""
        lacks = grant.lacks
        never = next((lack for lack in lacks if lack.retry_after_s is None), None)
        if never is not None:
            spot.lane.hopeless = entry.options[spot.index].held[never.index][0]
            if spot.line is not None:
                self._board.unpark(spot)
                self._board.renew(spot.lane)
            return
        here, names = spot.line, entry.signature[spot.index]
        lack = next((one for one in lacks if here is not None and names[one.index] == here.name), None)
        if lack is None:
            lack = max(lacks, key=_longest)
        limit = entry.options[spot.index].held[lack.index][1]
        line = self._board.line(names[lack.index], limit, now)
        if limit.__class__ is Slots:
            due_ns = now + SLOTS_ASKED_NS
        else:
            assert lack.retry_after_s is not None, "those that never come back are refused"
            due_ns = now + int(lack.retry_after_s * SECOND_NS) + 1
        if not line.due_ns or line.due_ns > due_ns or line is here:
            self._agenda.put(line, due_ns)
        self._board.move(spot, entry, line, now)

    def _grant(
        self, entry: Entry, lane: Lane, spot: Spot, option: Option, touched: list[tuple[Line, int]], now: int
    ) -> None:
        for line, amount in touched:
            line.granted(entry, lane, spot if spot.line is line else None, amount, now)
        waited_s = (now - entry.arrived_ns) / SECOND_NS
        queued = entry.queued
        if entry.naive_s is not None:
            if lane.home is not None:
                lane.home.pace.learn(lane.band, entry.naive_s, waited_s)
            if waited_s >= 1.0:
                self.honesty.note(queued.level, queued.estimate_ms / 1000, waited_s)
        self._waits.observe((queued.level,), waited_s)
        future = entry.future
        self.leave(entry)
        if not future.done():
            future.set_result(option)

    # ---- Reloads, and being read -------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """After a reload: everyone's needs are resolved anew; those who can't go on are refused."""
        for number, entry in enumerate(self._roll):
            if number % RENEWED_AT_ONCE == RENEWED_AT_ONCE - 1:
                await sleep(0)
            if entry.done:
                continue
            try:
                options = entry.waiter.resolve()
            except GatewayError as error:
                self._end(entry, error)
                continue
            lane = entry.lane
            if lane is not None:
                self._board.leave(entry, lane)
            if self._board.claim.is_of(entry):
                self._board.forgo()
            entry.set_options(options)
            if lane is not None:
                self._board.join(entry)
        self.wake()

    def position(self, call_id: str) -> View | None:
        """One waiting call as it stands now; None: it does not wait."""
        return self._picture.position(call_id, self._now())

    def wait_s(self, names: Iterable[str]) -> float:
        """About how long a newcomer of the lowest band would wait for these limits; 0: nobody waits for them."""
        return max(
            [self._board.lines[name].wait_s(self._now()) for name in names if name in self._board.lines], default=0.0
        )

    def snapshot(self) -> Snapshot:
        """The whole queue as it stands now; O(n log n), for people."""
        return self._picture.snapshot(len(self.holding), self._now())


def _rank(lane: Lane) -> tuple[int, int]:
    head = lane.head
    return -lane.band, head.seq if head is not None else 0


def _longest(lack: Lack) -> float:
    return lack.retry_after_s or 0.0
