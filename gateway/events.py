"""What happened: one stream that metrics, alerts and pages read. Emitting never fails and never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.clock import Clock


@dataclass(frozen=True, slots=True)
class Event:
    """A named fact; `at_wall_ns` since the epoch."""

    name: str
    at_wall_ns: int
    fields: dict[str, Any] = field(default_factory=dict)


Subscriber = Callable[[Event], None]


class Events:
    """Keeps the last `keep` events and tells every subscriber about each new one."""

    def __init__(self, clock: Clock, keep: int = 1000) -> None:
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self.recent: deque[Event] = deque(maxlen=keep)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def emit(self, name: str, **fields: Any) -> None:
        """Tells all; a subscriber that raises is logged and does not disturb the others."""
        event = Event(name, self._clock.wall_ns(), fields)
        self.recent.append(event)
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:
                structlog.get_logger().error("event subscriber failed", event_name=name, error=repr(error))
