"""Who goes next. Outlives pipelines and reloads; grants all that a call waits for at once, or nothing."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.call import Call, Held
from gateway.clock import Clock
from gateway.errors import QueueFull, RateLimited
from gateway.scheduler.waiter import Option, Queued, Urgency, Waiter
from gateway.state.store import Limit, Store


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """[policy.queue]; see there."""

    max_waiting: int = 1000
    max_waiting_per_client: int = 200
    starvation_s: float = 600.0
    floor_percent: int = 5
    longest_wait_s: dict[Urgency, float] = field(
        default_factory=lambda: {"urgent": 1.0, "high": 10.0, "normal": 60.0, "low": 120.0}
    )


class Scheduler:
    """Made once for each gateway; `configure` at start and at each reload."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._now = clock.now_ns
        self._settings = QueueSettings()
        self._waiting: dict[str, tuple[Waiter, Future[Option]]] = {}
        self._loop: AbstractEventLoop | None = None
        self._pumping = False
        #: Calls that hold something: those that wait and those that run.
        self.holding: set[str] = set()
        #: Brings a waiting call under the configuration in force, or raises the GatewayError that ends it.
        self.renew: Callable[[Call], None] = lambda call: None

    def configure(self, settings: QueueSettings) -> None:
        """Takes up other settings; those who wait keep their place."""
        self._settings = settings

    def contended(self, held: Iterable[Held]) -> bool:
        """Whether others wait for one of these already: a newcomer does not overtake them."""
        return bool(self._waiting)

    async def wait(self, waiter: Waiter, queued: Queued) -> Option:
        """Gives the option that was granted, held under the waiter's id; fills in `queued`. Raises QueueFull or
        RateLimited with a true retry-after; when cancelled it is gone at once."""
        if len(self._waiting) >= self._settings.max_waiting:
            raise QueueFull("The queue is full.", retry_after_s=1.0, policy="queue")
        self._loop = get_running_loop()
        future: Future[Option] = self._loop.create_future()
        self._waiting[waiter.id] = waiter, future
        self._store.listen(self._freed)
        timer = self._loop.call_later(waiter.placement.longest_wait_s, self._late, waiter)
        began = self._now()
        self._freed(())
        try:
            return await future
        finally:
            timer.cancel()
            queued.waited_ms = (self._now() - began) // 1_000_000
            self._waiting.pop(waiter.id, None)
            if not self._waiting:
                self._store.listen(None)

    async def refresh(self) -> None:
        """After a reload: everyone's needs are resolved anew; those who can't go on are refused."""

    def _late(self, waiter: Waiter) -> None:
        _, future = self._waiting[waiter.id]
        if not future.done():
            future.set_exception(RateLimited("The longest wait is over.", retry_after_s=1.0, policy="queue"))

    def _freed(self, keys: Sequence[str]) -> None:
        if not self._pumping and self._loop is not None:
            self._pumping = True
            self._task = self._loop.create_task(self._pump())

    async def _pump(self) -> None:
        self._pumping = False
        for waiter, future in list(self._waiting.values()):
            if future.done():
                continue
            option = await self._try(waiter)
            if option is not None:
                future.set_result(option)

    async def _try(self, waiter: Waiter) -> Option | None:
        for option in waiter.options:
            wants = [(limit, amount) for _, limit, amount, _ in option.held]
            if (await self._store.reserve(waiter.id, wants, waiter.ttl_s)).granted:
                return option
        return None


__all__ = ["Limit", "QueueSettings", "Scheduler"]
