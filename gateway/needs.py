"""What a call needs, as amounts of limits on a target; and what of it was used in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from gateway.call import WHOLE, Call, Held, Need, Outcome
from gateway.state.store import Limit
from gateway.targets import Target


def resolved(need: Need, call: Call, target: Target | None, attempt: int) -> Held | None:
    """What of which limit the call takes on that target; None: nothing."""
    limit, amount = need.limit, need.amount
    if need.per_target:
        if target is None:
            return None
        found = limit(call, target)  # type: ignore[operator]  # per_target says so
        if found is None:
            return None
        limit = found
    else:
        attempt = WHOLE
    if not isinstance(amount, int):
        amount = amount(call, target) if target is not None else 0
        if not amount and need.settle is None:
            return None
    return need, cast("Limit", limit), amount, attempt


def split(needs: list[Need], call: Call, target: Target | None) -> tuple[list[Held], list[Held]]:
    """What refuses, and what is waited for."""
    held: list[Held] = []
    waiting: list[Held] = []
    attempt = len(call.attempts)
    asked: object = None
    answer = 0
    one: Any  # a row of what is held: what its fields are, the need says by its flags
    for need in needs:
        if need.is_fixed:
            one = need, need.whole, need.amount, WHOLE
        elif need.per_target or target is None or need.settle is None:
            one = resolved(need, call, target, attempt)
            if one is None:
                continue
        else:  # limits of one kind ask the same in turn: tokens a minute, a day
            amount: Any = need.amount  # a function, since it is not fixed
            if amount is not asked:
                asked, answer = amount, amount(call, target)
            one = need, need.whole, answer, WHOLE
        if need.waits:
            waiting.append(one)
        else:
            held.append(one)
    return held, waiting


def settled(call: Call, outcome: Outcome) -> list[int]:
    """What was truly used of all that is held. A need of an attempt is settled by that attempt's own usage; a need of
    the call by all of them together, so what was reserved besides for a later attempt gives everything back."""
    actual: list[int] = []
    if len(call.attempts) < 2 and not call.is_held_besides:  # nothing is held twice
        asked: object = None
        answer = 0
        for need, _, amount, _ in call.held:
            settle = need.settle
            if settle is None:
                actual.append(amount)
                continue
            if settle is not asked:
                asked, answer = settle, settle(call, outcome)
            actual.append(answer)
        return actual
    last = len(call.attempts) - 1
    of_last = {id(need) for need, _, _, attempt in call.held if attempt == last}
    seen: set[int] = set()
    for need, _, amount, attempt in call.held:
        if need.settle is None:
            actual.append(amount)
        elif not need.per_target:
            actual.append(0 if id(need) in seen else need.settle(call, outcome))
            seen.add(id(need))
        elif attempt > last and id(need) in of_last:  # held besides for one that was never made
            actual.append(0)
        elif attempt >= last or attempt == WHOLE:
            actual.append(need.settle(call, outcome))
        else:
            actual.append(need.settle(call, of_attempt(call, attempt, outcome)))
    return actual


def of_attempt(call: Call, attempt: int, outcome: Outcome) -> Outcome:
    """The outcome of an attempt that was not the call's end: another followed it, or the call ended after it."""
    row = call.attempts[attempt]
    at = (row.provider, row.model, row.upstream_model)
    target = next((one for one in call.targets if (one.provider.name, one.model, one.upstream_model) == at), None)
    return replace(
        outcome,
        kind="failed",
        status=row.status,
        usage=row.usage,
        cost_pusd=row.cost_pusd,
        chunks=None,
        error=None,
        target=outcome.target if target is None else target,
    )
