"""A call's own deadline, as its client states it in `x-tidegate-deadline`; the one place where that is read."""

from __future__ import annotations

from asyncio import timeout
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from gateway.errors import BadRequest, DeadlineExceeded

if TYPE_CHECKING:
    from gateway.call import Call

Result = TypeVar("Result")

NAME = b"x-tidegate-deadline"

#: Numbers below are seconds since the epoch (until the year 5138), others milliseconds (from 1973 on).
_FIRST_MS = 100_000_000_000
_LATEST_NS = 253_402_300_799 * 1_000_000_000

_WANTED = (
    "an RFC 3339 time such as 2030-01-01T00:00:00Z, or seconds or milliseconds since 1970-01-01 UTC, such as 1893456000"
)


def deadline_of(call: Call) -> int | None:
    """When the answer is of no more use to the client: nanoseconds of the monotonic clock that `call.started_ns` was
    read from, or None. Raises BadRequest."""
    given = call.headers.get(NAME)
    if given is None:
        return None
    return call.started_ns + parse(given) - call.started_wall_ns


def parse(text: bytes) -> int:
    """Nanoseconds since the epoch. Raises BadRequest."""
    try:
        written = text.decode("ascii").strip()
        seconds, _, fraction = written.partition(".")
        if seconds.isdigit() and (fraction.isdigit() or "." not in written) and len(written) <= 32:
            unit = 1_000_000_000 if int(seconds) < _FIRST_MS else 1_000_000
            wall_ns = int(seconds) * unit + int(float("0." + (fraction or "0")) * unit)
            if wall_ns > _LATEST_NS:
                raise ValueError("after the year 9999")
            return wall_ns
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            raise ValueError("a time without its offset")
        return round(moment.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        raise BadRequest(f"The header x-tidegate-deadline is not {_WANTED}.", param="x-tidegate-deadline") from None


def check(call: Call, now_ns: int) -> None:
    """Raises DeadlineExceeded where nothing that is done now could still be in time."""
    if call.deadline_ns is not None and now_ns >= call.deadline_ns:
        raise exceeded(bool(call.attempts))


async def within(deadline_ns: int | None, now_ns: int, waiting: Awaitable[Result]) -> Result:
    """Waits for what another call brings, but no longer than this one's answer is of use. Monotonic instants."""
    if deadline_ns is None:
        return await waiting
    try:
        async with timeout((deadline_ns - now_ns) / 1e9):
            return await waiting
    except TimeoutError:
        raise exceeded(is_sent=False) from None


def exceeded(is_sent: bool) -> DeadlineExceeded:
    """The refusal of a call whose time is up."""
    what = "before the upstream's answer was complete" if is_sent else "before the call was sent; it was not"
    return DeadlineExceeded(f"The deadline of this call (x-tidegate-deadline) passed {what}.")


def told(wall_ns: int, left_ns: int) -> list[tuple[bytes, bytes]]:
    """What a worker is told: the moment, in RFC 3339, and how long that is from now."""
    moment = datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [(NAME, moment.encode()), (b"x-tidegate-deadline-ms", b"%d" % max(0, left_ns // 1_000_000))]
