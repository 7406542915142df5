"""How long to wait before another go: what the upstream says, as far as it makes sense, else a jittered back-off."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway.errors import Header

#: Said, but beyond all patience: a bound of our own is what decides.
NEVER_S = math.inf


def retry_after(headers: list[Header], wall_s: float) -> float | None:
    """Seconds that an answer asks to wait, by `retry-after-ms`, or `retry-after` as seconds or a date: the longest of
    several, None where it says nothing or nonsense. A date counts from the answer's own `date`, so that a wrong clock
    there does not matter.
    """
    milliseconds = [_number(value) for name, value in headers if name == b"retry-after-ms"]
    longest_ms = max([one for one in milliseconds if one is not None], default=None)
    if longest_ms is not None:
        return longest_ms / 1000
    said = [value for name, value in headers if name == b"retry-after"]
    if not said:
        return None
    now = next((_date(value) for name, value in headers if name == b"date"), None)
    waits = [_wait(value, wall_s if now is None else now) for value in said]
    return max([wait for wait in waits if wait is not None], default=None)


def _wait(said: bytes, now_s: float) -> float | None:
    seconds = _number(said)
    if seconds is not None:
        return seconds
    until_s = _date(said)
    return None if until_s is None else max(0.0, until_s - now_s)


def backoff(round_: int, first_s: float, longest_s: float, draw: Callable[[], float]) -> float:
    """Full jitter: anything from nothing to a bound that doubles each round (from 0 on), so that clients that failed
    together don't come back together. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return draw() * min(longest_s, first_s * 2.0 ** min(round_, 30))


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    if math.isnan(number) or number < 0 or b"_" in value:
        return None
    return number


def _date(value: bytes) -> float | None:
    if not value or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
