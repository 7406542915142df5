"""A call that outlives its hold's time keeps what it holds; a call that is gone does not."""

from __future__ import annotations

import asyncio

from gateway.clock import ManualClock
from gateway.holds import HOLD_TTL_S, renew
from gateway.state.memory import MemoryStore
from gateway.state.store import Slots


async def test_the_hold_of_a_living_call_is_renewed_and_others_end() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    slots = Slots("slots", 2)
    for hold in ("lives", "leaked"):
        assert (await store.reserve(hold, [(slots, 1)], HOLD_TTL_S)).granted
    task = asyncio.ensure_future(renew(store, {"lives"}, every_s=0.001))
    for _ in range(3):
        clock.advance(HOLD_TTL_S * 0.6)
        await asyncio.sleep(0.02)
    task.cancel()
    assert (await store.levels([slots]))[0].remaining == 1
