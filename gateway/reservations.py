"""What a call needs, held: reserved at once or waited for, taken along by another one, moved to the next target."""

from __future__ import annotations

from collections.abc import Awaitable
from operator import itemgetter
from typing import TYPE_CHECKING, cast

from gateway.call import Call, Held, Need
from gateway.errors import GatewayError, RateLimited
from gateway.heartbeat import beating
from gateway.holds import HOLD_TTL_S
from gateway.metrics import Counter
from gateway.needs import resolved, split
from gateway.providers import VOCABULARY
from gateway.ratelimit import refusal, span
from gateway.scheduler import Option, Queued, Scheduler, Waiter
from gateway.state.store import Grant, Store, Want
from gateway.targets import Target

if TYPE_CHECKING:
    from gateway.batches import Seat

#: Of a row of what is held.
_LIMIT, _WANT = itemgetter(1), itemgetter(1, 2)


class Reservations:
    """The pipeline's: one store call for a call that does not wait, the scheduler for one that does."""

    def __init__(self, store: Store, scheduler: Scheduler, decisions: Counter) -> None:
        self._store = store
        self._scheduler = scheduler
        self._decisions = decisions

    async def reserve(self, call: Call) -> None:
        """The one store call of a call that does not wait."""
        if call.seat is not None and await self._board(call, call.seat):
            return
        target = call.targets[0] if call.targets else None
        held, waiting = split(call.needs, call, target)
        call.hold = call.id
        self._scheduler.holding.add(call.id)
        queued = False
        if waiting or call.not_before_ns:
            if call.placement is None:
                if call.not_before_ns:
                    raise self._too_early(call)
                held, waiting = held + waiting, []
            else:
                queued = self._stands_behind(call, waiting)
        rows = held + waiting
        grant = await self._ask(call, rows, len(waiting), queued)
        if grant.lacks and not grant.waits:
            recounted = await self._recount(call, rows, grant)
            if recounted is not None:
                held, waiting = recounted if call.placement is not None else (recounted[0] + recounted[1], [])
                rows, queued = held + waiting, call.placement is not None and self._stands_behind(call, waiting)
                grant = await self._ask(call, rows, len(waiting), queued)
        call.levels = list(zip(map(_LIMIT, rows), grant.levels, strict=False))
        if grant.waits:
            call.held = held
            await self._recount_for_wait(call, rows, waiting, grant)
            await self._wait(call)
        elif grant.lacks:
            raise self._refusal(rows, grant)
        else:
            call.held = rows

    def _stands_behind(self, call: Call, waiting: list[Held]) -> bool:
        """Whether it waits in any case: for its hour, or with others who wait for the same."""
        return bool(call.not_before_ns) or self._scheduler.contended(waiting)

    async def _board(self, call: Call, seat: Seat) -> bool:
        """Joins calls that go up together soon: with all that it needs itself, but no slot and no provider request.
        False: there are none with room, or it can't have the rest at once."""
        if call.not_before_ns or not seat.has_room:
            return False
        call.rides = True
        held, waiting = split(call.needs, call, seat.target)
        if not self._scheduler.contended(waiting):
            call.hold = call.id
            self._scheduler.holding.add(call.id)
            rows = held + waiting
            grant = await self._store.reserve(call.id, list(map(_WANT, rows)), HOLD_TTL_S)
            if grant.granted and seat.board():
                call.levels = list(zip(map(_LIMIT, rows), grant.levels, strict=False))
                call.held = rows
                return True
            if grant.granted:
                await self._store.release(call.id)
        call.rides = False
        return False

    async def _take_along(self, call: Call, seat: Seat) -> None:
        """A call's turn has come: those who wait for the same go with it, as far as they have all else they need."""
        if call.targets[0] is not seat.target:
            return  # it goes where the others don't
        seat.lead()
        attempt = len(call.attempts)
        for other in seat.companions():
            if not other.has_room:
                break
            mate = other.call
            mate.rides = True
            held = [one for need in mate.needs if need.waits if (one := resolved(need, mate, other.target, attempt))]
            if not (other.board() and await self._scheduler.take_along(mate.id, Option(0, held))):
                other.leave()
                mate.rides = False

    def _too_early(self, call: Call) -> GatewayError:
        """Off-peak without a queue to wait in."""
        wait_s = max(0.0, (call.not_before_ns - call.started_ns) / 1e9)
        message = f"Calls of this urgency are served off-peak. Try again in {span(wait_s)}."
        return RateLimited(message, retry_after_s=wait_s, policy="offpeak")

    def _ask(self, call: Call, rows: list[Held], waiting: int, queued: bool) -> Awaitable[Grant]:
        """`waiting`: how many of the last rows are waited for."""
        wants = list(map(_WANT, rows))
        if queued and not waiting:
            return self._ask_for_later(call, wants)
        return self._store.reserve(call.hold, wants, HOLD_TTL_S, waiting, queued)

    async def _ask_for_later(self, call: Call, wants: list[Want]) -> Grant:
        """Where only the hour is lacking."""
        grant = await self._store.reserve(call.hold, wants, HOLD_TTL_S)
        return Grant((), grant.levels, waits=True) if grant.granted else grant

    async def _wait(self, call: Call) -> None:
        """For its turn; then everything is held, and the target that was granted comes first."""
        assert call.placement is not None, "only calls with a place wait"
        attempt = len(call.attempts)
        needs = [need for need in call.needs if need.waits]

        def options(needs: list[Need]) -> tuple[Option, ...]:
            targets = call.targets[: None if any(need.per_target for need in needs) else 1]
            made = [
                Option(index, tuple([one for need in needs if (one := resolved(need, call, target, attempt))]))
                for index, target in enumerate(targets)
            ]
            return tuple(made) or (Option(0, ()),)

        def resolve() -> tuple[Option, ...]:
            self._scheduler.renew(call)
            fresh = call.pipeline.redeclare(call)
            call.needs = [need for need in call.needs if not need.waits] + fresh
            return options(fresh)

        target = call.targets[0] if call.targets else None
        waiter = Waiter(
            id=call.id,
            client=call.client.id,
            org=call.client.org,
            key=call.key.id,
            placement=call.placement,
            tokens=call.estimate(target).label_tokens if target is not None and call.route.model else 1000,
            not_before_ns=call.not_before_ns,
            options=options(needs),
            resolve=resolve,
            ttl_s=HOLD_TTL_S,
            loans=call.loans,
            body_bytes=len(call.body) if call.body is not None else 0,
        )
        call.queued = Queued("immediate", 0, 0)
        waiting = self._scheduler.wait(waiter, call.queued)
        if call.beat is not None and call.placement.heartbeat_s:
            waiting = beating(waiting, call, call.beat, self._scheduler, call.placement.heartbeat_s)
        if call.seat is None:
            option = await waiting
        else:
            call.seat.stand()
            try:
                option = await waiting
            finally:
                call.seat.stand_no_more()
        call.notes["queued_ms"] = call.queued.waited_ms
        call.held += option.held
        if option.target:
            call.targets = [
                call.targets[option.target],
                *[one for i, one in enumerate(call.targets) if i != option.target],
            ]
        if call.seat is not None and not call.rides:
            await self._take_along(call, call.seat)

    async def _recount(self, call: Call, held: list[Held], grant: Grant) -> tuple[list[Held], list[Held]] | None:
        """TERMS 4: where one token a byte is lacking, the input is counted exactly and asked again."""
        target = call.targets[0] if call.targets else None
        by_size = any(callable(held[lack.index][0].amount) for lack in grant.lacks)
        if target is None or not by_size or call.facts.input_tokens is not None:
            return None
        await self._count(call, target)
        return split(call.needs, call, target)

    async def _recount_for_wait(self, call: Call, rows: list[Held], waiting: list[Held], grant: Grant) -> None:
        """The same for what it would wait for: no call waits for more than it can take, and some need not wait."""
        target, size = call.targets[0] if call.targets else None, call.facts.prompt_bytes
        if target is None or not size or call.facts.input_tokens is not None:
            return
        by_size = [one for one in waiting if callable(one[0].amount) and one[2] >= size]
        lacking = [rows[lack.index] for lack in grant.lacks]
        if any(one in lacking if lacking else self._scheduler.contended((one,)) for one in by_size):
            await self._count(call, target)

    @staticmethod
    async def _count(call: Call, target: Target) -> None:
        await VOCABULARY.ready()
        call.facts.input_tokens = target.provider.kind.count_input(call)

    def _refusal(self, held: list[Held], grant: Grant) -> GatewayError:
        """One that never fits, else the first lacking need that refuses, else the first that would wait."""
        lack = min(grant.lacks, key=lambda lack: (lack.retry_after_s is not None, held[lack.index][0].waits))
        need, limit, amount, _ = held[lack.index]
        waits = [one.retry_after_s for one in grant.lacks]
        longest = None if None in waits else max(cast("list[float]", waits))
        self._decisions.add((need.policy, "enforce", "refused"))
        message = refusal(need.lacking.what, limit, amount, lack)
        if lack.retry_after_s is None:
            return need.lacking.error(message, policy=need.policy, should_retry=False)
        return need.lacking.error(message, policy=need.policy, retry_after_s=longest)

    async def move(self, call: Call, target: Target, *, keep: bool) -> bool:
        """Before an attempt after the first: moves what depends on the target to this one, in one step and without
        waiting. `keep`: the attempt before may have been billed, so what it holds stays and this one's comes besides.
        False: it does not fit, the target is to be skipped."""
        attempt = len(call.attempts)
        needs = [need for need in call.needs if need.per_target]
        dropped: list[int] = []
        if keep:
            needs += [need for need in call.needs if not need.per_target and callable(need.amount) and need.settle]
        else:
            dropped = [i for i, (need, _, _, n) in enumerate(call.held) if need.per_target and n == max(0, attempt - 1)]
        fresh = [one for need in needs if (one := resolved(need, call, target, attempt)) is not None]
        same = {call.held[i][:3]: i for i in dropped}  # stays where it is
        stays = {same[one[:3]] for one in fresh if one[:3] in same}
        fresh = [one for one in fresh if one[:3] not in same]
        dropped = [i for i in dropped if i not in stays]
        if fresh or dropped:
            wants = list(map(_WANT, fresh))
            if not (await self._store.exchange(call.hold, dropped, wants, HOLD_TTL_S)).granted:
                return False
        call.is_held_besides = call.is_held_besides or keep
        kept = [(*one[:3], attempt) if i in stays else one for i, one in enumerate(call.held) if i not in dropped]
        call.held = kept + fresh
        return True
