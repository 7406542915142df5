"""The steady part of a run: processor time of the system beside what came through it meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench import machine
from loadtests.bench.process import Process


@dataclass(frozen=True)
class Window:
    """Differences over `seconds` of wall time; `cpu_s` is the system's."""

    seconds: float
    cpu_s: float
    requests: int
    chunks: int
    system_core_s: float  # time that the system's core was not idle, whoever used it
    load_core_s: float

    @property
    def busy(self) -> float:
        """Share of its core that the system used: near 1, it was the system that set the rate."""
        return self.cpu_s / self.seconds

    @property
    def foreign(self) -> float:
        """Share of the system's core that others used (other programs, the hypervisor): noise."""
        return max(0.0, (self.system_core_s - self.cpu_s) / self.seconds)

    @property
    def load_busy(self) -> float:
        """Share of the load's core that was used: near 1, responder and generator set the rate."""
        return self.load_core_s / self.seconds

    @property
    def us_per_request(self) -> float:
        return self.cpu_s * 1e6 / self.requests if self.requests else float("nan")

    @property
    def us_per_chunk(self) -> float:
        return self.cpu_s * 1e6 / self.chunks if self.chunks else float("nan")


def watch(process: Process, counts: Callable[[], tuple[int, int]], warm_s: float, window_s: float) -> Window:
    """Lets the load that is running warm up, then takes the differences over the window.

    `counts` tells the requests and the streamed chunks that have come through so far.
    """
    time.sleep(warm_s)
    began, cores, cpu, before = time.perf_counter(), _used(), process.cpu_s(), counts()
    time.sleep(window_s)
    ended, cores_after, cpu_after, after = time.perf_counter(), _used(), process.cpu_s(), counts()
    return Window(
        seconds=ended - began,
        cpu_s=cpu_after - cpu,
        requests=after[0] - before[0],
        chunks=after[1] - before[1],
        system_core_s=cores_after[machine.SYSTEM_CORE] - cores[machine.SYSTEM_CORE],
        load_core_s=cores_after[machine.LOAD_CORE] - cores[machine.LOAD_CORE],
    )


def _used() -> dict[int, float]:
    """Seconds that each core was used since boot: all but idle and iowait, stolen time included (proc(5))."""
    tick, used = os.sysconf("SC_CLK_TCK"), {}
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("cpu") and line[3].isdigit():
            fields = line.split()
            values = [int(value) for value in fields[1:9]]
            used[int(fields[0][3:])] = (sum(values) - values[3] - values[4]) / tick
    return used
