"""Events that an operator should see at once, as lines of the log. The others are logged where they arise."""

from __future__ import annotations

import structlog

from gateway.events import Event
from gateway.records.verbs import outside

#: By name; how loud.
LOUD = {
    "budget_warning": "warning",
    "budget_critical": "warning",
    "budget_stop": "error",
    "budget_changed": "info",
    "breaker_open": "warning",
    "breaker_closed": "info",
    "overload_began": "warning",
    "overload_ended": "info",
}


def log_event(event: Event) -> None:
    """Writes it with its fields, money in dollars; each comes seldom, so that the loop may."""
    level = LOUD.get(event.name)
    if level is not None:
        getattr(structlog.get_logger(), level)(event.name, **outside(event.fields))
