"""The canned provider of a run, and its counters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from loadtests.bench import machine, native
from loadtests.bench.counters import Counters
from loadtests.bench.errors import BenchError
from loadtests.bench.process import Process

START_S = 10.0


class Counts(NamedTuple):
    """What the responder has done since it started (struct counters of responder.c)."""

    requests: int
    chunks: int
    streams_started: int
    streams_finished: int
    bytes_in: int
    connections: int


class Responder:
    """The C program on the load's core; its counters are read from shared memory, which costs it nothing."""

    def __init__(self, folder: Path, programs: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shared, log = folder / "responder.counters", folder / "responder.log"
        log.unlink(missing_ok=True)
        self._counters = Counters(shared, len(Counts._fields))
        program = native.compiled("responder", programs)
        self.process = Process(machine.pinned(machine.LOAD_CORE, [str(program), "0", str(shared)]), log)
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.alive:
            text = self.process.log.read_text()
            if text.startswith("ready ") and text.endswith("\n"):
                return int(text.split()[1])
            time.sleep(0.01)
        self.stop()
        raise BenchError(f"the responder did not start: {self.process.tail()}")

    def counts(self) -> Counts:
        return Counts(*self._counters.read())

    def stop(self) -> None:
        self.process.stop()
        self._counters.close()
