"""Windows of local time on some days of the week, and when they end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

_SECOND_NS = 1_000_000_000
#: Peaks that follow each other without a gap are one. What goes on for longer than all days of a week never ends.
LONGEST = timedelta(days=8)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Peak:
    """A window of local time on some days, which may last past midnight; `first` is before `end`, or the next day's."""

    days: frozenset[int]  # on which it begins; Monday is 0
    begin: time
    end: time  # 00:00: midnight at the end of the day

    @property
    def lasts_past_midnight(self) -> bool:
        return self.end <= self.begin

    def ends(self, zone: ZoneInfo, moment: datetime) -> datetime | None:
        """When the window ends that this moment (UTC) is in; None: it is in none."""
        local = moment.astimezone(zone)
        for back in (0, 1) if self.lasts_past_midnight else (0,):
            day = local.date() - timedelta(days=back)
            if day.weekday() not in self.days:
                continue
            begin = datetime.combine(day, self.begin)
            end = datetime.combine(day + timedelta(days=self.lasts_past_midnight), self.end)
            # By the clock on the wall: an hour that summer time leaves out or repeats is left out or repeated.
            if begin <= local.replace(tzinfo=None, fold=0) < end:
                return _first_after(end, zone, moment)
        return None


def _first_after(wall: datetime, zone: ZoneInfo, moment: datetime) -> datetime:
    """The first instant after `moment` at which local clocks show that time, or are past it: where they show it twice,
    either; where summer time leaves it out, the end of what is left out."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if second < first:  # left out: these are as far before and after
        while second.astimezone(zone).replace(tzinfo=None) < wall:
            second += timedelta(minutes=1)
        return second
    return first if first > moment else second


def parse_peak(text: str) -> Peak:
    """ "14:00-22:00", "mon-fri 22:00-06:00", "sat 10:00-12:00". Raises ValueError."""
    found = _WINDOW.fullmatch(text.strip().lower())
    try:
        if found is None:
            raise ValueError(text)
        first, last = found[1] or "mon", found[2] or found[1] or "sun"
        start, stop = DAYS.index(first), DAYS.index(last)
        days = frozenset((start + n) % 7 for n in range((stop - start) % 7 + 1))
        end = time(0) if (found[5], found[6]) == ("24", "00") else time(int(found[5]), int(found[6]))
        return Peak(days, time(int(found[3]), int(found[4])), end)
    except ValueError:
        raise ValueError(f'{text!r} is not a window such as "14:00-22:00" or "mon-fri 22:00-06:00"') from None


def _checked_windows(windows: str | Sequence[str]) -> str | Sequence[str]:
    for window in [windows] if isinstance(windows, str) else windows:
        parse_peak(window)
    return windows


def _with_an_end(windows: str | Sequence[str]) -> str | Sequence[str]:
    if Peaks(windows, "UTC").end(0) > LONGEST.total_seconds() * _SECOND_NS:
        raise ValueError("these windows are the whole week: no hour is left that is off-peak")
    return windows


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone such as Europe/Berlin") from None
    return name


Windows = Annotated[str | Sequence[str], AfterValidator(_checked_windows)]
#: Those whose end is waited for.
EndingWindows = Annotated[Windows, AfterValidator(_with_an_end)]
ZoneName = Annotated[str, AfterValidator(_checked_zone)]


class Peaks:
    """Some windows together, as calls ask for them: the last answer is kept for the minute it was asked in."""

    def __init__(self, windows: str | Sequence[str], time_zone: str) -> None:
        self._peaks = [parse_peak(window) for window in ([windows] if isinstance(windows, str) else windows)]
        self._zone = ZoneInfo(time_zone)
        self._known = 0, 0, 0  # from, until, end of the peak

    def __bool__(self) -> bool:
        return bool(self._peaks)

    def end(self, wall_ns: int) -> int:
        """When the peak that it is now ends, in ns since the epoch; 0: it is off-peak. For jobs as well."""
        begin, until, end = self._known
        if begin <= wall_ns < until:
            return end
        minute = wall_ns - wall_ns % (60 * _SECOND_NS)  # windows begin and end on full minutes, of any time zone
        end = self._end_at(minute)
        self._known = minute, minute + 60 * _SECOND_NS, end
        return end

    def _end_at(self, wall_ns: int) -> int:
        moment = datetime.fromtimestamp(wall_ns // _SECOND_NS, UTC)
        found: datetime | None = None
        while found is None or found - moment <= LONGEST:
            ends = [end for peak in self._peaks if (end := peak.ends(self._zone, found or moment)) is not None]
            if not ends:
                break
            found = max(ends)
        return 0 if found is None else int(found.timestamp()) * _SECOND_NS
