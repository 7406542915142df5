"""The queue behind admission: calls that lack only what comes back wait here, the right ones first."""

from gateway.scheduler.loans import Loans
from gateway.scheduler.scheduler import Scheduler
from gateway.scheduler.settings import QueueSettings
from gateway.scheduler.view import LevelView, Snapshot, View
from gateway.scheduler.waiter import (
    LEVELS,
    LevelName,
    Option,
    Placement,
    Queued,
    Waiter,
    level_of,
)
from gateway.wishes import Urgency

__all__ = [
    "LEVELS",
    "LevelName",
    "LevelView",
    "Loans",
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
