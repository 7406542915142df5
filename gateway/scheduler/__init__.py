"""The queue behind admission: calls that lack only what comes back wait here, the right ones first."""

from gateway.scheduler.scheduler import QueueSettings, Scheduler
from gateway.scheduler.waiter import LevelName, Option, Placement, Queued, Urgency, Waiter

__all__ = ["LevelName", "Option", "Placement", "QueueSettings", "Queued", "Scheduler", "Urgency", "Waiter"]
