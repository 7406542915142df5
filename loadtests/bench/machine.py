"""The machine a run is made on: its cores, what stands on which, and whether it can be measured on at all."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from loadtests.bench.errors import BenchError

SYSTEM_CORE = 0  # the system under test, alone
LOAD_CORE = 1  # responder, generators and this harness


def check() -> None:
    """Refuses, with what is missing, when the machine cannot keep the system under test apart from its load."""
    usable = os.sched_getaffinity(0)
    if not {SYSTEM_CORE, LOAD_CORE} <= usable:
        raise BenchError(f"needs cores {SYSTEM_CORE} and {LOAD_CORE}; this process may use {sorted(usable)}")
    missing = [name for name in ("gcc", "wrk", "curl", "taskset") if shutil.which(name) is None]
    if missing:
        raise BenchError(f"needs {', '.join(missing)}: run scripts/setup system {' '.join(missing)}")


def stand_aside() -> None:
    """Moves this process to the load's core; what it starts inherits that unless it is pinned elsewhere."""
    os.sched_setaffinity(0, {LOAD_CORE})


def pinned(core: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def describe() -> dict[str, str]:
    """What a reader of the figures wants to know of the machine."""
    cpus = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    version = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return {
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": version.split("[")[0].removeprefix("wrk").strip() if version else "?",
        "load_average": f"{os.getloadavg()[0]:.2f}",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
