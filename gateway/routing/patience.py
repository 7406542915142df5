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
    """Seconds that an answer asks to wait, by `retry-after-ms`, or `retry-after` as seconds or a date; None where it
    says nothing or nonsense. A date counts from the answer's own `date`, so that a wrong clock there does not matter.
    """
    said = date = b""
    for name, value in headers:
        if name == b"retry-after-ms":
            milliseconds = _number(value)
            if milliseconds is not None:
                return milliseconds / 1000
        elif name == b"retry-after":
            said = value
        elif name == b"date":
            date = value
    if not said:
        return None
    seconds = _number(said)
    if seconds is not None:
        return seconds
    until = _date(said)
    if until is None:
        return None
    now = _date(date)
    return max(0.0, until - (wall_s if now is None else now))


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
