"""Admissions in order, one reservation, settlements in reverse; each policy timed.

greet    policies that need no body (identity): refuse strangers before their bytes are read
admit    the other policies, then the one store call for every need that was declared
settle   what follows each `yield`, in reverse, exactly once; then one store call for all that is held
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Sequence
from operator import itemgetter
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast

import structlog

from gateway.call import Call, Held, Need, Outcome
from gateway.errors import GatewayError, Internal, RateLimited
from gateway.heartbeat import beating
from gateway.holds import HOLD_TTL_S
from gateway.metrics import Metrics
from gateway.needs import resolved, settled, split
from gateway.policy import Policy
from gateway.ratelimit import refusal, span
from gateway.routing.told import Told
from gateway.scheduler import Option, Placement, Queued, Scheduler, Waiter
from gateway.shadows import Shadows
from gateway.state.store import Grant, Limit, Store, Want
from gateway.targets import Target

if TYPE_CHECKING:
    from gateway.batches import Seat

#: Of a row of what is held.
_LIMIT, _WANT = itemgetter(1), itemgetter(1, 2)


class Step:
    """One policy in its place: how it is applied was decided at start-up."""

    __slots__ = (
        "apply",
        "calls",
        "concerns",
        "fail_open",
        "is_coroutine",
        "is_generator",
        "is_plain",
        "name",
        "nanoseconds",
        "observe",
        "policy",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name = policy.name
        self.apply = policy.apply
        self.is_generator = inspect.isasyncgenfunction(policy.apply)
        self.is_coroutine = inspect.iscoroutinefunction(policy.apply)
        self.concerns = None if type(policy).concerns is Policy.concerns else policy.concerns
        self.observe = policy.mode == "observe"
        self.is_plain = not (self.observe or self.is_generator or self.is_coroutine)
        self.fail_open = policy.fail_open
        self.nanoseconds = 0
        self.calls = 0


class Pipeline:
    """The policies of one configuration. Built anew at a reload; calls under way keep the one they began with."""

    def __init__(self, policies: Sequence[Policy], store: Store, metrics: Metrics, scheduler: Scheduler) -> None:
        steps = [Step(policy) for policy in policies]
        split = next((i for i, step in enumerate(steps) if not step.policy.before_body), len(steps))
        self._greeting, self._admission = steps[:split], steps[split:]
        self.policies = list(policies)
        self._twice = [step for step in self._admission if type(step.policy).again is not Policy.again]
        self._hearing = [one for one in policies if type(one).heard is not Policy.heard and one.mode == "enforce"]
        self._store = store
        self._scheduler = scheduler
        self._shadows = Shadows(store, lambda policy: self._decisions.add((policy, "observe", "refused")))
        self._decisions = metrics.counter(
            "tidegate_policy_decisions_total", "What each policy decided.", ("policy", "mode", "decision")
        )
        metrics.gauge("tidegate_policy_seconds_total", "Time spent in each policy.", self._seconds, ("policy",))
        metrics.gauge("tidegate_policy_calls_total", "Calls each policy saw.", self._calls, ("policy",))

    def greet(self, call: Call) -> Awaitable[None]:
        """Who is calling; before the body is read."""
        return self._descend(self._greeting, call)

    async def admit(self, call: Call) -> None:
        """Lets the call pass with everything it needs held, or raises the GatewayError that refuses it."""
        await self._descend(self._admission, call)
        if call.shadows:
            await self._shadows.reserve(call)
        if call.needs:
            await self._reserve(call)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        """Tells every waiting policy and the store how it ended. Never raises; a second call does nothing."""
        pending, call.pending = call.pending, []
        self._scheduler.holding.discard(call.id)
        for step, generator in reversed(pending):
            await self._conclude(step, generator, outcome, call)
        hold, call.hold = call.hold, ""
        try:
            if call.shadows:
                await self._shadows.settle(call, outcome)
            if not hold:
                return
            if outcome.attempted or outcome.kind == "answered":
                await self._store.settle(hold, settled(call, outcome))
                for target, told, at_ns in call.heard:
                    await self._hear(call, target, told, at_ns)
            else:
                await self._store.release(hold)
        except Exception:
            structlog.get_logger().exception("settlement failed", call=call.id)

    @property
    def others_wait(self) -> bool:
        """Whether calls stand in the queue."""
        return self._scheduler.crowded

    async def heard(self, call: Call, target: Target, told: Told, at_ns: int) -> None:
        """A reply's head said at `at_ns` how its provider's limits stand. Said again after the settlement, which may
        give back more than the provider has."""
        call.heard.append((target, told, at_ns))
        await self._hear(call, target, told, at_ns)

    async def _hear(self, call: Call, target: Target, told: Told, at_ns: int) -> None:
        for policy in self._hearing:
            try:
                await policy.heard(call, target, told, at_ns)
            except Exception:
                structlog.get_logger().exception("policy failed", policy=policy.name, call=call.id)

    def limits(self, call: Call) -> list[Limit]:
        """What bounds this caller, for the headers of an answer that came before the reservation."""
        return [limit for policy in self.policies for limit in policy.limits(call)]

    def spending(self, call: Call) -> list[Limit]:
        """The limits of money that bound this caller."""
        return [limit for policy in self.policies for limit in policy.spending(call)]

    def place(self, call: Call) -> Placement | None:
        """How this call would stand in the queue; None: nothing waits here."""
        for policy in self.policies:
            placement = policy.place(call) if policy.mode == "enforce" else None
            if placement is not None:
                return placement
        return None

    async def _descend(self, steps: list[Step], call: Call) -> None:
        began = perf_counter_ns()
        for step in steps:
            concerns = step.concerns
            if concerns is not None and not concerns(call):
                step.calls += 1
                continue
            call.applying = step.name
            try:
                if step.is_plain:
                    step.apply(call)
                elif step.observe:
                    await self._observe(step, call)
                else:
                    await self._apply(step, call)
            except GatewayError as error:
                error.policy = error.policy or call.applying
                self._decisions.add((call.applying, step.policy.mode, "refused"))
                raise
            except Exception:
                self._unexpected(step, call)
            finally:
                ended = perf_counter_ns()
                step.nanoseconds += ended - began
                step.calls += 1
                began = ended
            if call.reply is not None:
                self._decisions.add((call.applying, step.policy.mode, "answered"))
                call.needs = [need for need in call.needs if need.even_if_cached]
                return

    async def again(self, call: Call) -> None:
        """Lets earlier policies decide once more, on what the policy that asks for it made of the call. Where one of
        them ends it, `call.applying` stays at its name."""
        began = perf_counter_ns()
        asking = next(step for step in self._admission if step.name == call.applying)
        ended = {mark.partition(":")[0] for mark in call.marks}  # those that only observe would have ended it before
        for step in self._twice:
            if step.name in ended or not step.policy.concerns(call):
                continue
            call.applying = step.name
            step.policy.again(call)
            try:
                await (self._observe if step.observe else self._apply)(step, call)
            except GatewayError:
                raise
            except Exception:
                self._unexpected(step, call)
            finally:
                spent_ns, began = perf_counter_ns() - began, perf_counter_ns()
                step.nanoseconds += spent_ns
                asking.nanoseconds -= spent_ns
            if call.reply is not None:
                return
        call.applying = asking.name

    @staticmethod
    async def _apply(step: Step, call: Call) -> None:
        applied = step.apply(call)
        if step.is_coroutine:
            await cast("Awaitable[None]", applied)
            return
        generator = cast("AsyncGenerator[None, Outcome]", applied)
        if await anext(generator, step) is None:  # else it ended without a `yield`
            call.pending.append((step, generator))

    def _unexpected(self, step: Step, call: Call) -> None:
        """An exception that no policy means to raise: closed unless the policy says otherwise."""
        structlog.get_logger().exception("policy failed", policy=step.name, call=call.id, fail_open=step.fail_open)
        self._decisions.add((step.name, step.policy.mode, "error"))
        if not (step.fail_open or step.observe):
            error = Internal()
            error.policy = step.name
            raise error from None

    async def _observe(self, step: Step, call: Call) -> None:
        """Decides and records, lets pass: needs go to shadow limits, every other effect is taken back."""
        before = (call.targets, len(call.needs), call.reply, list(call.reply_headers))
        place = call.placement, call.not_before_ns, call.seat
        notes = dict(call.notes)
        call.targets = list(call.targets)
        try:
            if step.is_coroutine or step.is_generator:
                await self._apply(step, call)
            else:
                step.apply(call)
            if call.reply is not before[2] or call.targets != before[0] or (call.not_before_ns, call.seat) != place[1:]:
                self._mark(step, call, "would change the call")
        except GatewayError as error:
            self._mark(step, call, error.code)
        finally:
            shadows = call.needs[before[1] :]
            call.targets, call.reply, call.reply_headers = before[0], before[2], before[3]
            call.placement, call.not_before_ns, call.seat = place
            call.notes = notes
            del call.needs[before[1] :]
            call.shadows.extend(shadows)

    def _mark(self, step: Step, call: Call, what: str) -> None:
        call.marks.append(f"{step.name}: {what}")
        self._decisions.add((step.name, "observe", "refused"))

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

    def redeclare(self, call: Call) -> list[Need]:
        """What a waiting call waits for by this configuration's policies (after a reload)."""
        needs, call.needs = call.needs, []
        try:
            for step in self._admission:
                if step.is_plain:
                    call.applying = step.name
                    step.apply(call)
            return [need for need in call.needs if need.waits]
        finally:
            call.needs = needs

    async def _reserve(self, call: Call) -> None:
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
                queued = bool(call.not_before_ns) or self._scheduler.contended(waiting)
        rows = held + waiting
        grant = await self._ask(call, rows, len(waiting), queued)
        if grant.lacks and not grant.waits:
            recounted = self._recount(call, rows, grant)
            if recounted is not None:
                held, waiting = recounted if call.placement is not None else (recounted[0] + recounted[1], [])
                rows = held + waiting
                grant = await self._ask(call, rows, len(waiting), queued)
        call.levels = list(zip(map(_LIMIT, rows), grant.levels, strict=False))
        if grant.waits:
            call.held = held
            await self._wait(call)
        elif grant.lacks:
            raise self._refusal(rows, grant)
        else:
            call.held = rows

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

    def _recount(self, call: Call, held: list[Held], grant: Grant) -> tuple[list[Held], list[Held]] | None:
        """TERMS 4: where one token a byte is lacking, the input is counted exactly and asked again."""
        target = call.targets[0] if call.targets else None
        by_size = any(callable(held[lack.index][0].amount) for lack in grant.lacks)
        if target is None or not by_size or call.facts.input_tokens is not None:
            return None
        call.facts.input_tokens = target.provider.kind.count_input(call)
        return split(call.needs, call, target)

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

    async def _conclude(
        self, step: Step, generator: AsyncGenerator[None, Outcome], outcome: Outcome, call: Call
    ) -> None:
        try:
            await generator.asend(outcome)
        except StopAsyncIteration:
            return
        except Exception:
            structlog.get_logger().exception("policy failed to settle", policy=step.name, call=call.id)
            self._decisions.add((step.name, step.policy.mode, "settle_error"))
            return
        structlog.get_logger().error("policy yields more than once", policy=step.name)
        await generator.aclose()

    def _seconds(self) -> list[tuple[tuple[str, ...], float]]:
        return [((step.name,), step.nanoseconds / 1e9) for step in self._greeting + self._admission]

    def _calls(self) -> list[tuple[tuple[str, ...], float]]:
        return [((step.name,), float(step.calls)) for step in self._greeting + self._admission]
