"""What one configuration made: swapped as a whole at a reload, closed when its last call has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.pipeline import Pipeline
from gateway.resolve import Resolver


@dataclass(eq=False, slots=True)
class Live:
    """The parts that depend on the configuration. `calls` counts those under way on it."""

    resolver: Resolver
    pipeline: Pipeline
    body_limit: int  # bytes
    trusted: Callable[[str], bool]  # peers whose x-forwarded-* is believed
    demo: bool = False
    prefix: bytes = b""  # of our public address, in front of every path
    calls: int = 0
    on_idle: Callable[[], None] | None = None  # set when another configuration took over

    def enter(self) -> None:
        self.calls += 1

    def leave(self) -> None:
        """The last call of a retired configuration lets go of what nobody else uses."""
        self.calls -= 1
        if self.calls == 0 and self.on_idle is not None:
            self.on_idle()

    def retire(self, on_idle: Callable[[], None]) -> None:
        """Another configuration took over; `on_idle` runs once no call is left on this one."""
        self.on_idle = on_idle
        if self.calls == 0:
            on_idle()
