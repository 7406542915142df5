"""How loaded this process is, and which calls it turns away for that (../docs/overload.md).

Two signs: the event loop is late again and again, or new connections wait to be accepted, which means that work comes
faster than it is done; and memory. Each
gives a pressure between 0 and 1, the part of the calls that has to be turned away. It moves step by step, so that what
is served stays near what can be served, and it takes the calls of the lowest rank first.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gateway.directory import Directory
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.wishes import PRIORITY, URGENCIES, Urgency, at_most

#: How often the loop's lateness is taken, and over how many times the least counts: one long pause is no overload.
TICK_S = 0.025
WINDOW = 4

#: What one look adds at twice the mark; and the part that it takes away without any lateness, but at least so much. By
#: looks, not by time: a loop that is slower answers later to what was changed, too.
RISE, FALL, LEAST_FALL = 0.03, 0.03, 0.005
MOST = 0.98  # a few calls always pass: they tell when it is over

#: A loop that is late while it did little, or for a few calls, was kept waiting by other processes or by one slow piece
#: of work; turning calls away would not help.
BUSY_SHARE, FEW_CALLS = 0.05, 10

MEMORY_EVERY_S = 0.25
TRIM_EVERY_S = 5.0
#: Points of the tier and of the urgency, in tens: 0 is a stranger.
RANKS = 8
_POINTS: dict[Urgency, int] = {"low": 0, "normal": 10, "high": 20, "urgent": 30}
_WORDS: dict[bytes, Urgency] = {word.encode(): word for word in URGENCIES} | {
    b"critical": "urgent",
    b"medium": "normal",
}


@dataclass(frozen=True, slots=True)
class OverloadRules:
    """Settings of [overload]. `lag_s` 0 and `memory_percent` 0 switch a sign off."""

    lag_s: float = 0.05
    memory_percent: int = 85


class Overload:
    """Measures while it is started. `pressure` is the part of the calls to turn away, 0 when all is well."""

    def __init__(self, directory: Directory, metrics: Metrics, events: Events, random: Random | None = None) -> None:
        self.pressure = 0.0
        self.lag_s = 0.0
        self.claims: Mapping[str, Urgency] = {}  # the most urgent that a tier's calls may be
        self.under_way: Callable[[], int] = lambda: FEW_CALLS  # calls
        self.accept_wait_s: Callable[[float], float] = _none  # of new connections; given the time since it was asked
        self._directory = directory
        self._events = events
        self._random = (random or Random()).random
        self._rules = OverloadRules()
        self._memory_mark = 0
        self._lag_pressure = self._memory_pressure = 0.0
        self._late: deque[float] = deque(maxlen=WINDOW)
        self._seen = [0.0] * RANKS  # calls by rank, fading
        self._shares = [0.0] * RANKS  # part of each rank that is turned away
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._checked = self._trimmed = 0.0
        self._cpu_s = self._at = 0.0
        self.turned_away = metrics.counter(
            "tidegate_overload_refused_total", "Calls turned away before they were read, by rank.", ("rank",)
        )
        metrics.gauge("tidegate_overload_pressure", "Part of the calls to turn away.", self._read("pressure"))
        metrics.gauge("tidegate_loop_lag_seconds", "Least lateness of the event loop lately.", self._read("lag_s"))

    def configure(self, rules: OverloadRules) -> None:
        """From now on; a pressure that is there stays until the next measurement."""
        self._rules = rules
        self._memory_mark = memory_limit() * rules.memory_percent // 100

    def start(self) -> None:
        """Begins to measure, in the running loop."""
        self._at = time.monotonic()
        self._cpu_s = time.thread_time()
        self._plan()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def turns_away(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether a call with these headers has to go. Asked only under pressure."""
        rank = self.rank(fields)
        self._seen[rank] += 1.0
        share = self._shares[rank]
        if share <= 0.0 or (share < 1.0 and self._random() >= share):
            return False
        self.turned_away.add((str(rank),))
        return True

    def rank(self, fields: Mapping[bytes, bytes]) -> int:
        """How much a call matters, 0 to 7, by headers alone: the tier of its key and the urgency that it may claim."""
        authorization = fields.get(b"authorization")
        secret = authorization[7:].strip() if authorization is not None else fields.get(b"x-api-key", b"")
        found = self._directory.find(secret)
        if found is None:
            return 0
        tier = found[1].tier
        said = fields.get(PRIORITY)
        urgency: Urgency = "normal" if said is None else _WORDS.get(said.strip().lower(), "normal")
        points = tier.priority + _POINTS[at_most(urgency, self.claims.get(tier.name, "normal"))]
        return max(1, min(points // 10, RANKS - 1))

    def measure(self, late_s: float, busy_share: float) -> None:
        """One look: how late the loop and its accepting are, and which part of the time since the last it worked."""
        # A backlog that shrinks goes by itself; more pressure would only overshoot, and reach calls that matter.
        shrinks = late_s < sum(self._late) / len(self._late) if self._late else False
        self._late.append(late_s)
        self.lag_s = min(self._late) if len(self._late) == WINDOW else 0.0
        mark_s = self._rules.lag_s
        if mark_s <= 0:
            self._lag_pressure = 0.0
        elif self.lag_s > mark_s:
            if not shrinks and busy_share >= BUSY_SHARE and self.under_way() >= FEW_CALLS:
                over = min(self.lag_s / mark_s - 1, 2.0)
                self._lag_pressure = min(MOST, self._lag_pressure + RISE * over)
        else:
            under = 1 - self.lag_s / mark_s
            fall = max(LEAST_FALL, FALL * self._lag_pressure)
            self._lag_pressure = max(0.0, self._lag_pressure - fall * under)
        self._settle()

    def weigh(self, resident_bytes: int) -> None:
        """One look at memory: from the mark on pressure rises, and is whole a tenth above it."""
        mark = self._memory_mark
        over = (resident_bytes - mark) / (mark / 10) if mark > 0 else 0.0
        self._memory_pressure = min(MOST, max(0.0, over))
        self._settle()

    def _settle(self) -> None:
        before, self.pressure = self.pressure, max(self._lag_pressure, self._memory_pressure)
        if self.pressure > 0:
            self._share_out()
        if (before > 0) != (self.pressure > 0) and (self.pressure == 0 or before == 0):
            self._tell()

    def _share_out(self) -> None:
        """Which part of each rank has to go, so that `pressure` of all does: the lowest ranks first."""
        total = sum(self._seen)
        wanted = self.pressure * total
        for rank, seen in enumerate(self._seen):
            if seen > 0:
                self._shares[rank] = min(1.0, wanted / seen)
                wanted -= self._shares[rank] * seen
            else:
                self._shares[rank] = 1.0 if wanted > 0 else 0.0  # nobody of it came lately
            self._seen[rank] = seen * 0.95

    def _tell(self) -> None:
        if self.pressure > 0:
            why = "memory" if self._memory_pressure > 0 else "lag"
            self._events.emit("overload_began", why=why, lag_s=round(self.lag_s, 3))
        else:
            self._events.emit("overload_ended")

    def _plan(self) -> None:
        self._due = time.monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now, cpu_s = time.monotonic(), time.thread_time()
        elapsed_s = now - self._at
        late_s = max(0.0, now - self._due) + self.accept_wait_s(elapsed_s)
        self.measure(late_s, (cpu_s - self._cpu_s) / elapsed_s)
        self._at, self._cpu_s = now, cpu_s
        if self._memory_mark and now - self._checked > MEMORY_EVERY_S:
            self._checked = now
            self.weigh(resident())
            if self._memory_pressure > 0 and now - self._trimmed > TRIM_EVERY_S:
                self._trimmed = now
                trim()
        self._plan()

    def _read(self, name: str) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
        return lambda: [((), getattr(self, name))]


def _none(_elapsed_s: float) -> float:
    return 0.0


def resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_limit() -> int:
    """Bytes that this process may have: its control group's limit, or else the machine's memory."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            said = Path(path).read_text().strip()
        except OSError:
            continue
        if said.isdigit():
            whole = min(whole, int(said))
    return whole


def trim() -> None:
    """Gives freed memory back: the C library keeps it otherwise, and pressure would never end."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library
