"""Needs of policies that only observe: counted on limits of their own, which refuse nobody."""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import WHOLE, Call, Outcome
from gateway.holds import HOLD_TTL_S
from gateway.needs import resolved
from gateway.state.store import Limit, Store

#: Shadow limits that are kept ready.
MOST_SHADOWS = 50_000


class Shadows:
    """Of one pipeline. `refused` is told the policy that would have refused."""

    def __init__(self, store: Store, refused: Callable[[str], None]) -> None:
        self._store = store
        self._refused = refused
        self._known: dict[Limit, Limit] = {}

    async def reserve(self, call: Call) -> None:
        """Observed needs are counted on limits of their own, so that observing never takes from what is enforced."""
        target = call.targets[0] if call.targets else None
        for index, need in enumerate(call.shadows):
            one = resolved(need, call, target, WHOLE)
            if one is None:
                continue
            hold = f"{call.id}:shadow:{index}"
            grant = await self._store.reserve(hold, [(self._of(one[1]), one[2])], HOLD_TTL_S)
            if not grant.granted:
                call.marks.append(f"{need.policy}: {need.lacking.what} lacking")
                self._refused(need.policy)

    def _of(self, limit: Limit) -> Limit:
        shadow = self._known.get(limit)
        if shadow is None:
            if len(self._known) >= MOST_SHADOWS:
                self._known.clear()
            shadow = self._known[limit] = limit.shadow()
        return shadow

    async def settle(self, call: Call, outcome: Outcome) -> None:
        for index, need in enumerate(call.shadows):
            hold = f"{call.id}:shadow:{index}"
            if outcome.attempted:
                one = resolved(need, call, outcome.target or (call.targets[0] if call.targets else None), WHOLE)
                if one is not None:
                    await self._store.settle(hold, [one[2] if need.settle is None else need.settle(call, outcome)])
            else:
                await self._store.release(hold)
