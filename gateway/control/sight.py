"""What operators may look at: pools, queue and providers as they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.pools import Pools
    from gateway.routing.routing import Routing
    from gateway.scheduler import Scheduler, Snapshot
    from gateway.state.store import Lack, Store, Want

#: Waiting calls that are shown unless more are asked for.
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Sight:
    """`of_pools()` gives those of the configuration in force."""

    of_pools: Callable[[], Pools]
    store: Store
    scheduler: Scheduler
    routing: Routing
    clock: Clock

    async def standing(self) -> dict[str, Any]:
        """Pools, queue and providers at one moment, ready for JSON."""
        snapshot = self.scheduler.snapshot()
        return {
            "pools": await self.pools(snapshot),
            "queue": self.queue(snapshot),
            "providers": self.providers(),
        }

    async def pools(self, snapshot: Snapshot | None = None) -> list[dict[str, Any]]:
        """One row a pool; see `Pools.snapshot`."""
        snapshot = self.scheduler.snapshot() if snapshot is None else snapshot
        return await self.of_pools().snapshot(self.store, [view.limit for view in snapshot.waiting])

    async def lacks(self, pool: str, amount: int) -> list[Lack]:
        """Why that much of a pool's shared part can't be had now, of the part and of the windows over it; none: it
        can. Asked as a call would ask, and given back at once."""
        found = self.of_pools().by_name[pool]
        wants: list[Want] = [(found.whole, amount), *[(span.window, amount) for span in found.spans]]
        hold = f"asking {self.clock.now_ns()}"
        grant = await self.store.reserve(hold, wants, 1.0)
        if grant.granted:
            await self.store.release(hold)
        return list(grant.lacks)

    def queue(self, snapshot: Snapshot | None = None, shown: int = SHOWN) -> dict[str, Any]:
        """Levels, sums, and the first calls by position; times in ms."""
        snapshot = self.scheduler.snapshot() if snapshot is None else snapshot
        return {
            "levels": {name: asdict(level) for name, level in snapshot.levels.items()},
            "executing": snapshot.executing,
            "total": snapshot.total,
            "waiting": [asdict(view) for view in snapshot.waiting[:shown]],
        }

    def providers(self) -> list[dict[str, Any]]:
        """A row a target, and one a provider as a whole."""
        return self.routing.snapshot()
