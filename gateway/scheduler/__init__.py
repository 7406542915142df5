"""The queue behind admission: calls that lack only what comes back wait here, the right ones first."""

from gateway.scheduler.scheduler import Scheduler
from gateway.scheduler.settings import QueueSettings
from gateway.scheduler.view import LevelView, Snapshot, View
from gateway.scheduler.waiter import (
    LEVELS,
    URGENCIES,
    LevelName,
    Option,
    Placement,
    Queued,
    Urgency,
    Waiter,
    level_of,
)

__all__ = [
    "LEVELS",
    "URGENCIES",
    "LevelName",
    "LevelView",
    "Option",
    "Placement",
    "QueueSettings",
    "Queued",
    "Scheduler",
    "Snapshot",
    "Urgency",
    "View",
    "Waiter",
    "level_of",
]
