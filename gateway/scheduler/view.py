"""The queue as people see it: depths, ages, and every call's place."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.scheduler.waiter import LEVELS, LevelName
from gateway.wishes import Urgency


@dataclass(frozen=True, slots=True)
class View:
    """One waiting call as it stands now. Times in ms."""

    id: str
    client: str
    org: str
    level: LevelName
    priority: int  # 0..100
    urgency: Urgency
    position: int  # zero-based
    estimate_ms: int  # of what is left of its wait
    waited_ms: int
    starved: bool
    limit: str  # what it waits for: the limit's name, "" before its hour


@dataclass(slots=True)
class LevelView:
    """One of the five levels; `oldest_ms` is how long its oldest call has waited, 0 where nobody waits."""

    depth: int = 0
    oldest_ms: int = 0
    starved: int = 0


@dataclass(slots=True)
class Snapshot:
    """All of the queue. `executing` counts admitted calls under way; `waiting` is ordered by position."""

    levels: dict[LevelName, LevelView] = field(default_factory=lambda: {name: LevelView() for name, _ in LEVELS})
    executing: int = 0
    total: int = 0  # that wait
    waiting: list[View] = field(default_factory=list)

    def add(self, view: View) -> None:
        level = self.levels[view.level]
        level.depth += 1
        level.oldest_ms = max(level.oldest_ms, view.waited_ms)
        level.starved += view.starved
        self.total += 1
        self.waiting.append(view)
