"""Admissions in order, one reservation, settlements in reverse; each policy timed.

greet    policies that need no body (identity): refuse strangers before their bytes are read
admit    the other policies, then the one store call for every need that was declared
settle   what follows each `yield`, in reverse, exactly once; then one store call for all that is held
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import cast

import structlog

from gateway.call import Call, Need, Outcome, Refuse
from gateway.errors import GatewayError, Internal
from gateway.metrics import Metrics
from gateway.policy import Policy
from gateway.state.store import Grant, Limit, Store
from gateway.targets import Target

#: A hold outlives its call's longest wait and run; a call that runs longer renews it.
HOLD_TTL_S = 900.0


class Step:
    """One policy in its place: how it is applied was decided at start-up."""

    __slots__ = (
        "apply",
        "calls",
        "fail_open",
        "is_coroutine",
        "is_generator",
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
        self.observe = policy.mode == "observe"
        self.fail_open = policy.fail_open
        self.nanoseconds = 0
        self.calls = 0


class Pipeline:
    """The policies of one configuration. Built anew at a reload; calls under way keep the one they began with."""

    def __init__(self, policies: Sequence[Policy], store: Store, metrics: Metrics) -> None:
        steps = [Step(policy) for policy in policies]
        split = next((i for i, step in enumerate(steps) if not step.policy.before_body), len(steps))
        self._greeting, self._admission = steps[:split], steps[split:]
        self.policies = list(policies)
        self._store = store
        self._decisions = metrics.counter(
            "tidegate_policy_decisions_total", "What each policy decided.", ("policy", "mode", "decision")
        )
        metrics.gauge("tidegate_policy_seconds_total", "Time spent in each policy.", self._seconds, ("policy",))
        metrics.gauge("tidegate_policy_calls_total", "Calls each policy saw.", self._calls, ("policy",))

    async def greet(self, call: Call) -> None:
        """Who is calling; before the body is read."""
        await self._descend(self._greeting, call)

    async def admit(self, call: Call) -> None:
        """Lets the call pass with everything it needs held, or raises the GatewayError that refuses it."""
        await self._descend(self._admission, call)
        if call.shadows:
            await self._reserve_shadows(call)
        if call.needs:
            await self._reserve(call)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        """Tells every waiting policy and the store how it ended. Never raises; a second call does nothing."""
        pending, call.pending = call.pending, []
        for step, generator in reversed(pending):
            await self._conclude(step, generator, outcome, call)
        hold, call.hold = call.hold, ""
        try:
            if call.shadows:
                await self._settle_shadows(call, outcome)
            if not hold:
                return
            if outcome.attempted or outcome.kind == "answered":
                await self._store.settle(hold, [_actual(need, amount, call, outcome) for need, amount in call.held])
            else:
                await self._store.release(hold)
        except Exception:
            structlog.get_logger().exception("settlement failed", call=call.id)

    def limits(self, call: Call) -> list[Limit]:
        """What bounds this caller, for the headers of an answer that came before the reservation."""
        return [limit for policy in self.policies for limit in policy.limits(call)]

    async def _descend(self, steps: list[Step], call: Call) -> None:
        for step in steps:
            began = perf_counter_ns()
            call.applying = step.name
            try:
                if step.observe:
                    await self._observe(step, call)
                elif step.is_generator:
                    generator = cast("AsyncGenerator[None, Outcome]", step.apply(call))
                    try:
                        await generator.__anext__()
                    except StopAsyncIteration:
                        pass
                    else:
                        call.pending.append((step, generator))
                elif step.is_coroutine:
                    await cast("Awaitable[None]", step.apply(call))
                else:
                    step.apply(call)
            except GatewayError as error:
                error.policy = error.policy or step.name
                self._decisions.add((step.name, step.policy.mode, "refused"))
                raise
            except Exception:
                self._unexpected(step, call)
            finally:
                step.nanoseconds += perf_counter_ns() - began
                step.calls += 1
            if call.reply is not None:
                self._decisions.add((step.name, step.policy.mode, "answered"))
                call.needs = [need for need in call.needs if need.even_if_cached]
                return

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
        call.targets = list(call.targets)
        try:
            applied = step.apply(call)
            if step.is_generator:
                generator = cast("AsyncGenerator[None, Outcome]", applied)
                try:
                    await generator.__anext__()
                except StopAsyncIteration:
                    pass
                else:
                    call.pending.append((step, generator))
            elif step.is_coroutine:
                await cast("Awaitable[None]", applied)
            if call.reply is not before[2] or call.targets != before[0]:
                self._mark(step, call, "would change the call")
        except GatewayError as error:
            self._mark(step, call, error.code)
        finally:
            shadows = call.needs[before[1] :]
            call.targets, call.reply, call.reply_headers = before[0], before[2], before[3]
            del call.needs[before[1] :]
            call.shadows.extend(shadows)

    def _mark(self, step: Step, call: Call, what: str) -> None:
        call.marks.append(f"{step.name}: {what}")
        self._decisions.add((step.name, "observe", "refused"))

    async def _reserve(self, call: Call) -> None:
        target = call.targets[0] if call.targets else None
        held = [(need, _amount(need, call, target)) for need in call.needs]
        hold = call.id
        grant = await self._store.reserve(hold, [(need.limit, amount) for need, amount in held], HOLD_TTL_S)
        if not grant.granted:
            recounted = self._recount(call, held, grant)
            if recounted is not None:
                held = recounted
                grant = await self._store.reserve(hold, [(need.limit, amount) for need, amount in held], HOLD_TTL_S)
        call.levels = [(need.limit, level) for (need, _), level in zip(held, grant.levels, strict=True)]
        if not grant.granted:
            raise self._refusal(held, grant)
        call.hold, call.held = hold, held

    async def _reserve_shadows(self, call: Call) -> None:
        """Observed needs are counted on limits of their own, so that observing never takes from what is enforced."""
        target = call.targets[0] if call.targets else None
        for index, need in enumerate(call.shadows):
            shadow = replace(need.limit, key=f"shadow:{need.limit.key}")
            hold = f"{call.id}:shadow:{index}"
            amount = _amount(need, call, target)
            grant = await self._store.reserve(hold, [(shadow, amount)], HOLD_TTL_S)
            if not grant.granted:
                call.marks.append(f"{need.policy}: {need.lacking.what} lacking")
                self._decisions.add((need.policy, "observe", "refused"))

    async def _settle_shadows(self, call: Call, outcome: Outcome) -> None:
        for index, need in enumerate(call.shadows):
            hold = f"{call.id}:shadow:{index}"
            if outcome.attempted:
                target = outcome.target or (call.targets[0] if call.targets else None)
                await self._store.settle(hold, [_actual(need, _amount(need, call, target), call, outcome)])
            else:
                await self._store.release(hold)

    def _recount(self, call: Call, held: list[tuple[Need, int]], grant: Grant) -> list[tuple[Need, int]] | None:
        """TERMS 4: where one token a byte is lacking, the input is counted exactly and asked again."""
        target = call.targets[0] if call.targets else None
        by_size = any(callable(held[lack.index][0].amount) for lack in grant.lacks)
        if target is None or not by_size or call.facts.input_tokens is not None:
            return None
        call.facts.input_tokens = target.provider.kind.count_input(call)
        return [(need, _amount(need, call, target)) for need, _ in held]

    def _refusal(self, held: list[tuple[Need, int]], grant: Grant) -> GatewayError:
        """The first lacking need that refuses, else the first that would wait (no scheduler runs yet)."""
        lacks = sorted(grant.lacks, key=lambda lack: not isinstance(held[lack.index][0].lacking, Refuse))
        lack = lacks[0]
        need, amount = held[lack.index]
        waits = [one.retry_after_s for one in grant.lacks]
        longest = None if None in waits else max(cast("list[float]", waits))
        self._decisions.add((need.policy, "enforce", "refused"))
        if lack.retry_after_s is None:
            message = (
                f"{need.lacking.what}: this call needs {amount:,}, the limit is {need.limit.capacity:,} and "
                f"{lack.available:,} are left; waiting won't make it fit."
            )
            return need.lacking.error(message, policy=need.policy, should_retry=False)
        message = (
            f"{need.lacking.what}: this call needs {amount:,}, {max(0, lack.available):,} of "
            f"{need.limit.capacity:,} are left. Retry in {_duration(longest)}."
        )
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


def _amount(need: Need, call: Call, target: Target | None) -> int:
    amount = need.amount
    if isinstance(amount, int):
        return amount
    return amount(call, target) if target is not None else 0


def _actual(need: Need, reserved: int, call: Call, outcome: Outcome) -> int:
    return reserved if need.settle is None else need.settle(call, outcome)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "a while"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.1f} min"
