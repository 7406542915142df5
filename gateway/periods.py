"""Budget periods, calendar days and months in a time zone, and what operators changed about a budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Span = Literal["day", "month"]
Scope = Literal["org", "client", "key"]


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ValueError."""
    if name.upper() in ("UTC", "ETC/UTC", "Z"):
        return UTC  # needs no data base of time zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone such as UTC or Europe/Berlin") from None


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar day ("2026-11-24") or month ("2026-11"), from its first nanosecond to the next one's first."""

    name: str
    starts_wall_ns: int
    ends_wall_ns: int


#: How the periods of each span are named.
NAMED: dict[Span, str] = {"day": "%Y-%m-%d", "month": "%Y-%m"}


def is_period(span: Span, name: str) -> bool:
    """Whether there is such a day or month, written as we do."""
    try:
        return datetime.strptime(name, NAMED[span]).strftime(NAMED[span]) == name
    except ValueError:
        return False


def period_at(span: Span, wall_ns: int, zone: tzinfo) -> Period:
    """The day or month that an instant falls into."""
    here = datetime.fromtimestamp(wall_ns // _NS, zone)
    if span == "day":
        first = datetime(here.year, here.month, here.day)
        after = first + timedelta(days=1)
    else:
        first = datetime(here.year, here.month, 1)
        after = datetime(here.year + here.month // 12, here.month % 12 + 1, 1)
    return Period(first.strftime(NAMED[span]), _wall_ns(first, zone), _wall_ns(after, zone))


def _wall_ns(local: datetime, zone: tzinfo) -> int:
    """The instant at which the clocks of a zone come to a local time or, where it is left out, jump over it."""
    return (local.replace(tzinfo=zone) - _EPOCH) // timedelta(microseconds=1) * 1000


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What an operator did to a budget, and why. Nothing is ever changed or removed: the rows are the history.

    top_up: `amount_pusd` more for `period` only. override: `amount_pusd` instead of the configured figure (None: no
    bound) until `until_wall_ns` (None: until another override). restore: back to the configured figure.
    """

    id: str
    at_wall_ns: int
    scope: Scope
    subject: str  # id of the org, client or key
    span: Span
    action: Literal["top_up", "override", "restore"]
    reason: str
    actor: str = ""
    amount_pusd: int | None = None
    period: str = ""
    until_wall_ns: int | None = None


def figure(configured: int | None, adjustments: Iterable[Adjustment], period: Period, wall_ns: int) -> int | None:
    """What one budget allows in a period, after all that was changed about it, oldest first; None: no bound."""
    base, extra = configured, 0
    for one in adjustments:
        if one.action == "top_up":
            extra += (one.amount_pusd or 0) if one.period == period.name else 0
        elif one.action == "restore":
            base = configured
        elif one.until_wall_ns is None or wall_ns < one.until_wall_ns:
            base = one.amount_pusd
        else:
            base = configured
    return None if base is None else base + extra


class Adjustments:
    """All that was changed about budgets; one object for the life of the process, so that a reload keeps it.
    `version` grows with every change."""

    def __init__(self, adjustments: Iterable[Adjustment] = ()) -> None:
        self.version = 0
        self._by_budget: dict[tuple[str, str, str], tuple[Adjustment, ...]] = {}
        self.replace(adjustments)

    def replace(self, adjustments: Iterable[Adjustment]) -> None:
        """Takes these instead of all there were, in the order in which they were made."""
        by_budget: dict[tuple[str, str, str], tuple[Adjustment, ...]] = {}
        for one in sorted(adjustments, key=lambda one: (one.at_wall_ns, one.id)):
            budget = one.scope, one.subject, one.span
            by_budget[budget] = (*by_budget.get(budget, ()), one)
        self._by_budget = by_budget
        self.version += 1

    def add(self, one: Adjustment) -> None:
        """The newest."""
        budget = one.scope, one.subject, one.span
        self._by_budget[budget] = (*self._by_budget.get(budget, ()), one)
        self.version += 1

    def of(self, scope: Scope, subject: str, span: Span) -> tuple[Adjustment, ...]:
        """Those of one budget, oldest first."""
        return self._by_budget.get((scope, subject, span), ())

    def all(self) -> list[Adjustment]:
        """Every one, oldest first."""
        every = [one for changes in self._by_budget.values() for one in changes]
        return sorted(every, key=lambda one: (one.at_wall_ns, one.id))
