"""Admissions in order, one reservation, settlements in reverse; each policy timed.

greet    policies that need no body (identity): refuse strangers before their bytes are read
admit    the other policies, then the one store call for every need that was declared
settle   what follows each `yield`, in reverse, exactly once; then one store call for all that is held
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Sequence
from time import perf_counter_ns
from typing import cast

import structlog

from gateway.call import Call, Need, Outcome
from gateway.errors import GatewayError, Internal
from gateway.metrics import Metrics
from gateway.needs import settled
from gateway.policy import Policy
from gateway.reservations import Reservations
from gateway.routing.told import Told
from gateway.scheduler import Placement, Scheduler
from gateway.shadows import Shadows
from gateway.state.store import Limit, Store
from gateway.targets import Target


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
        self._reservations = Reservations(store, scheduler, self._decisions)
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
            await self._reservations.reserve(call)

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

    def move(self, call: Call, target: Target, *, keep: bool) -> Awaitable[bool]:
        """Before an attempt after the first; see `Reservations.move`."""
        return self._reservations.move(call, target, keep=keep)

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
