"""The store's limits on paper: a header, a line for each limit, a checksum. JSON, as it has integers of any size.

Times are those of the writing process's monotonic clock; reading shifts them to the reader's. Nothing read is ever in
the caller's favour: what was held counts as used, a slice of a window counts from its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import msgspec

from gateway.state.bucket import BucketState
from gateway.state.plan import Part, Plan
from gateway.state.pool import PoolState
from gateway.state.store import Bucket, Tally, Window
from gateway.state.tally import Period, TallyState
from gateway.state.window import WindowState

VERSION = 1


class Header(msgspec.Struct):
    """When it was written, on both clocks; `boot` names the run of the machine that the monotonic one belongs to."""

    version: int
    boot: str
    now_ns: int
    wall_ns: int


class BucketLine(msgspec.Struct, tag="bucket", array_like=True):
    """A token bucket: `room` (scaled by per_ns) was missing at `at`."""

    key: str
    capacity: int
    header: str
    refill: int
    per_ns: int
    room: int
    at: int


class WindowLine(msgspec.Struct, tag="window", array_like=True):
    """A sliding window: the end of each slice that counts, and its amount."""

    key: str
    capacity: int
    header: str
    span_ns: int
    slices: list[tuple[int, int]]


class TallyLine(msgspec.Struct, tag="tally", array_like=True):
    """A tally: the current period first."""

    key: str
    capacity: int
    soft: bool
    ends_wall_ns: int
    periods: list[tuple[str, int, int, int]]  # name, used or held, marks told, when touched


class PoolLine(msgspec.Struct, tag="pool", array_like=True):
    """A pool: what was missing of each part at `at`, and until when its provider wants to be left alone."""

    key: str
    pool: str
    parts: list[tuple[str, int, int, int]]  # name, capacity, refill, room (scaled)
    at: int
    paused_until: int


Line = BucketLine | WindowLine | TallyLine | PoolLine
State = BucketState | WindowState | TallyState | PoolState
_LINE = msgspec.json.Decoder(Line)
_HEADER = msgspec.json.Decoder(Header)


class BadSnapshotError(ValueError):
    """Not a whole snapshot of a version that is understood."""


def line_of(key: str, state: object, now: int) -> Line | None:
    """What is kept of a state; None: nothing needs to be (slots, and what is as good as new)."""
    if isinstance(state, BucketState):
        state.advance(now)
        one = state.limit
        if not state.room:
            return None
        return BucketLine(one.key, one.capacity, one.header, one.refill, one.per_ns, state.room, now)
    if isinstance(state, WindowState):
        state.advance(now)
        slices = [(min(now, state.end(number)), amount) for number, amount in state.slices()]
        window = state.limit
        return WindowLine(window.key, window.capacity, window.header, window.span_ns, slices) if slices else None
    if isinstance(state, TallyState):
        periods = [(p.name, p.used + p.held, p.told, p.touched) for p in (state.period, *state.other.values())]
        tally = state.limit
        return TallyLine(tally.key, tally.capacity, tally.soft, tally.ends_wall_ns, periods)
    if isinstance(state, PoolState):
        state.advance(now)
        parts = [(one.part.name, one.part.capacity, one.part.refill, one.bucket.room) for one in state.parts.values()]
        return PoolLine(key, state.plan.pool, parts, now, state.paused_until)
    return None


def state_of(line: Line, shift: int, now: int) -> State:
    """The state that a line tells of; `shift` goes from the writer's monotonic clock to ours."""
    if isinstance(line, BucketLine):
        bucket = BucketState(Bucket(line.key, line.capacity, line.header, line.refill, line.per_ns), now)
        bucket.at = min(now, line.at + shift)
        bucket.room = bucket.loose = line.room
        bucket.advance(now)
        return bucket
    if isinstance(line, WindowLine):
        window = WindowState(Window(line.key, line.capacity, line.header, line.span_ns), now)
        window.restate([(max(0, now - end - shift), amount) for end, amount in line.slices], now)
        return window
    if isinstance(line, PoolLine):
        return _pool_of(line, shift, now)
    current, *others = [Period(name, used, 0, 0, told, touched + shift) for name, used, told, touched in line.periods]
    tally = TallyState(Tally(line.key, line.capacity, "", current.name, line.ends_wall_ns, (), line.soft), now)
    tally.period = current
    tally.other = {period.name: period for period in others}
    return tally


def _pool_of(line: PoolLine, shift: int, now: int) -> PoolState:
    at = min(now, line.at + shift)
    pool = PoolState(Plan(line.pool, tuple(Part(name, *figures) for name, *figures, _ in line.parts), version=-1), at)
    for name, _, _, room in line.parts:
        pool.parts[name].owe(room, at)
    pool.advance(now)
    pool.paused_until = line.paused_until + shift
    return pool


def encode(lines: Iterable[Line]) -> bytes:
    """Lines of a snapshot's body."""
    return b"".join([msgspec.json.encode(line) + b"\n" for line in lines])


def seal(header: Header, body: bytes) -> bytes:
    """A whole snapshot: header, body, checksum of both."""
    data = msgspec.json.encode(header) + b"\n" + body
    return data + b"%08x\n" % zlib.crc32(data)


def unseal(data: bytes) -> tuple[Header, list[Line]]:
    """Header and lines. Raises BadSnapshotError."""
    body, checksum = data[:-9], data[-9:]
    if checksum != b"%08x\n" % zlib.crc32(body):
        raise BadSnapshotError("the checksum does not fit: the snapshot is cut or changed")
    first, *rest = body.splitlines()
    try:
        header = _HEADER.decode(first)
        if header.version != VERSION:
            raise BadSnapshotError(f"version {header.version} is not understood, only {VERSION}")
        return header, [_LINE.decode(line) for line in rest]
    except msgspec.DecodeError as error:
        raise BadSnapshotError(str(error)) from None
