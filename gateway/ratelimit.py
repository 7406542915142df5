"""Rate limits as callers read them: the x-ratelimit headers of each dialect, and the words of a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from gateway.errors import Dialect, Header
from gateway.rates import usd_text
from gateway.state.store import Lack, Level, Limit, Tally

_NS = 1_000_000_000
_OPENAI = {
    family: tuple(f"x-ratelimit-{part}-{family}".encode() for part in ("limit", "remaining", "reset"))
    for family in ("requests", "tokens")
}
_ANTHROPIC = {
    family: tuple(f"anthropic-ratelimit-{family}-{part}".encode() for part in ("limit", "remaining", "reset"))
    for family in ("requests", "tokens")
}


def headers(dialect: Dialect, levels: Iterable[tuple[Limit, Level]], wall_ns: int) -> list[Header]:
    """The headers of both families as far as there are limits of them; of several limits the one with least left.

    Resets are durations ("1s", "6m0s", "12ms") or, for Anthropic, RFC 3339 (https://docs.anthropic.com/en/api/rate-limits).
    """
    tightest: dict[str, tuple[int, Limit, Level]] = {}
    for limit, level in levels:
        family = limit.header
        if family:
            remaining = level.remaining
            if family not in tightest or remaining < tightest[family][0]:
                tightest[family] = remaining, limit, level
    drawn: list[Header] = []
    names = _ANTHROPIC if dialect == "anthropic" else _OPENAI
    for family, (remaining, limit, level) in tightest.items():
        name_limit, name_remaining, name_reset = names[family]
        reset = timestamp(wall_ns + level.reset_ns) if names is _ANTHROPIC else duration(level.reset_ns)
        drawn += (
            (name_limit, _number(limit.capacity)),
            (name_remaining, b"%d" % remaining if remaining > 0 else b"0"),
            (name_reset, reset),
        )
    return drawn


@lru_cache(maxsize=1024)
def _number(value: int) -> bytes:
    return b"%d" % value


def duration(ns: int) -> bytes:
    """Rounded up: "12ms" below a second, "59s", "6m0s", "23h59m59s"."""
    if ns < _NS:
        return b"%dms" % -(-ns // 1_000_000) if ns > 0 else b"0s"
    return _long_duration(-(-ns // _NS))


@lru_cache(maxsize=4096)
def _long_duration(seconds: int) -> bytes:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds


def timestamp(wall_ns: int) -> bytes:
    """RFC 3339 in UTC and whole seconds, rounded up."""
    return _timestamp(-(-wall_ns // _NS))


@lru_cache(maxsize=4096)
def _timestamp(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def refusal(what: str, limit: Limit, amount: int, lack: Lack) -> str:
    """The message of a refusal: which limit of whom, the figures, and when to come back."""
    if isinstance(limit, Tally):
        needs, there, most = (f"{usd_text(value)} USD" for value in (amount, max(0, lack.available), limit.capacity))
        needs = f"may cost {needs}"
    else:
        needs, there, most = f"needs {amount:,}", f"{max(0, lack.available):,}", f"{limit.capacity:,}"
    said = f"Limit reached: {what}. This call {needs}; {there} of {most} left."
    if lack.retry_after_s is None:
        return f"{said} Waiting won't make it fit."
    return f"{said} Try again in {span(lack.retry_after_s)}."


def span(seconds_s: float) -> str:
    """A length of time for people: "350 ms", "12 s", "3 min 5 s", "2 h 10 min", "6 days 4 h"."""
    ms = -(-int(seconds_s * 1_000_000) // 1000)
    if ms < 1000:
        return f"{ms} ms"
    seconds = -(-ms // 1000)
    for unit, part, size, smaller in (("s", "", 1, 1), ("min", "s", 60, 1), ("h", "min", 3600, 60)):
        if seconds < size * (24 if unit == "h" else 60):
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {part}" if rest else "")
    days, hours = seconds // 86_400, seconds % 86_400 // 3600
    return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")
