"""A scheduler over the store of one process, with a clock that moves when told; calls made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.call import Need, Wait
from gateway.clock import ManualClock
from gateway.errors import RateLimited
from gateway.metrics import Metrics
from gateway.scheduler import Option, Placement, Queued, QueueSettings, Scheduler, Urgency, Waiter
from gateway.state.memory import MemoryStore
from gateway.state.store import Bucket, Limit, Slots

TTL_S = 1_000_000.0


@dataclass
class Waiting:
    """One call's wait: its task, what it was told, and how it ended."""

    waiter: Waiter
    queued: Queued
    task: asyncio.Task[Option]

    @property
    def is_granted(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def error(self) -> Any:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None


@dataclass
class Queue:
    """What a test drives."""

    clock: ManualClock = field(default_factory=ManualClock)
    metrics: Metrics = field(default_factory=Metrics)
    number: int = 0
    granted: list[str] = field(default_factory=list)  # ids, in the order of their grants
    tasks: list[asyncio.Task[Option]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.scheduler = Scheduler(self.store, self.clock, self.metrics)

    def configure(self, **settings: Any) -> None:
        self.scheduler.configure(QueueSettings(**settings))

    def need(self, limit: Limit, amount: int = 1) -> tuple[Need, Limit, int, int]:
        return Need(limit, amount, Wait(RateLimited, limit.key)), limit, amount, 0

    def waiter(
        self,
        *options: Iterable[tuple[Limit, int]],
        client: str = "acme",
        urgency: Urgency = "normal",
        points: int = 20,
        longest_s: float = 60.0,
        tokens: int = 1000,
        deadline_s: float | None = None,
        not_before_s: float = 0.0,
        name: str = "",
        body_bytes: int = 0,
    ) -> Waiter:
        self.number += 1
        now = self.clock.now_ns()
        deadline = None if deadline_s is None else now + int(deadline_s * 1e9)
        made = [
            Option(index, [self.need(limit, amount) for limit, amount in option])
            for index, option in enumerate(options)
        ]
        return Waiter(
            id=name or f"call-{self.number}",
            client=client,
            org=client,
            key=f"{client}-key",
            placement=Placement(urgency, points, longest_s, deadline),
            tokens=tokens,
            not_before_ns=now + int(not_before_s * 1e9) if not_before_s else 0,
            options=made,
            resolve=lambda: made,
            ttl_s=TTL_S,
            body_bytes=body_bytes,
        )

    def wait(self, *options: Sequence[tuple[Limit, int]], **how: Any) -> Waiting:
        """Lets a call wait for the limits of its options."""
        waiter = self.waiter(*options, **how)
        queued = Queued("immediate", 0, 0)

        async def wait() -> Option:
            option = await self.scheduler.wait(waiter, queued)
            self.granted.append(waiter.id)
            return option

        task = asyncio.get_running_loop().create_task(wait())
        self.tasks.append(task)
        return Waiting(waiter, queued, task)

    async def calm(self) -> None:
        """Until everything that can happen now has happened."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.wake()
        await self.calm()

    async def take(self, limit: Limit, amount: int = 1, hold: str = "taken") -> None:
        assert (await self.store.reserve(hold, [(limit, amount)], TTL_S)).granted

    async def release(self, hold: str) -> None:
        await self.store.release(hold)
        await self.calm()

    async def left(self, limit: Limit) -> int:
        return (await self.store.levels([limit]))[0].remaining

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.calm()


@pytest.fixture
async def queue() -> AsyncIterator[Queue]:
    made = Queue()
    yield made
    await made.aclose()


@pytest.fixture
def slots() -> Any:
    return lambda key, capacity=1: Slots(key, capacity)


@pytest.fixture
def bucket() -> Any:
    return lambda key, capacity, per_second: Bucket(key, capacity, refill=per_second, per_ns=1_000_000_000)
