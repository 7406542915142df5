"""The store's tests run over every backend; this is where one is added."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.clock import ManualClock
from gateway.state.memory import MemoryStore
from gateway.state.store import Store

BACKENDS = {"memory": MemoryStore}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(BACKENDS))
async def store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Store]:
    made = BACKENDS[request.param](clock)
    await made.start()
    yield made
    await made.aclose()
