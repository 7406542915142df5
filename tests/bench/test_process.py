"""Processor time and memory are those of the whole tree, and the whole tree ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from loadtests.bench.process import Process

# A parent that starts a child which keeps a second thread busy, then both idle until they are ended.
BUSY = """
import subprocess, sys, threading, time
def burn():
    end = time.thread_time() + 0.3
    while time.thread_time() < end: pass
if len(sys.argv) > 1:
    thread = threading.Thread(target=burn); thread.start(); thread.join()
    open(sys.argv[1], "w").write("burnt")
    time.sleep(60)
else:
    subprocess.Popen([sys.executable, __file__, "burnt"], cwd=".").wait()
"""


@pytest.fixture
def process(tmp_path: Path) -> Process:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    return Process(["sh", "-c", f"cd {tmp_path}; {sys.executable} {script}; true"], tmp_path / "log")


def runs(pid: int) -> bool:
    """False when it is gone, or dead and only not yet collected by whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_tree_is_accounted_for_and_ended(process: Process, tmp_path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (tmp_path / "burnt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = process.tree()
    assert len(pids) == 3
    assert 0.3 <= process.cpu_s() < 3.0
    assert 10 < process.rss_mb() < 200
    process.stop()
    assert not any(runs(pid) for pid in pids)
