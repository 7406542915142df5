"""One started program and all it started: what processor time they took, what memory they hold, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

STOP_S = 10.0


class Process:
    """A program in a session of its own, so that it ends with everything it started."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env} if env is not None else None,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def tree(self) -> list[int]:
        """Process ids: the program's and those of its descendants."""
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += _children(pid)
        return found

    def cpu_s(self) -> float:
        """Processor time of the tree so far, user and system, all threads (ended ones too), in seconds."""
        return sum(_cpu_s(pid) for pid in self.tree())

    def rss_mb(self) -> float:
        """Resident memory of the tree in MB (10^6 bytes); pages that its processes share count once for each."""
        return sum(_rss_bytes(pid) for pid in self.tree()) / 1e6

    def stop(self) -> None:
        """Asks the tree to end and, after ten seconds, ends it."""
        tree = self.tree() if self.alive else []
        if self.alive:
            self.popen.terminate()
        try:
            self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in tree[1:]:
            _end(pid, self.popen.pid)

    def tail(self, lines: int = 20) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except OSError:  # the thread has just ended
            continue
    return found


def _cpu_s(pid: int) -> float:
    # The processor clock of another process, to the nanosecond, where /proc/PID/stat counts in hundredths of a second.
    # The id is made as glibc's clock_getcpuclockid(3) does: ~pid in the upper bits, CPUCLOCK_SCHED (2) in the lower.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _rss_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _end(pid: int, session: int) -> None:
    """Ends a process left over, if it is still one of ours (ids are given out again), and waits until it has."""
    for _ in range(100):
        try:
            if os.getsid(pid) != session or _is_dead(pid):
                return
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
