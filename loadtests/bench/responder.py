"""The canned provider of a run, and its counters."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple

from loadtests.bench import machine, native
from loadtests.bench.errors import CannotMeasure
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
        program = native.compiled("responder", programs)
        self.process = Process(machine.pinned(machine.LOAD_CORE, [str(program), "0", str(shared)]), log)
        self.port = self._wait_for_port()
        with shared.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), struct.calcsize("6Q"), access=mmap.ACCESS_READ)

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.alive:
            text = self.process.log.read_text()
            if text.startswith("ready ") and text.endswith("\n"):
                return int(text.split()[1])
            time.sleep(0.01)
        self.process.stop()
        raise CannotMeasure(f"the responder did not start: {self.process.tail()}")

    def counts(self) -> Counts:
        return Counts(*struct.unpack("6Q", self._memory[:]))

    def stop(self) -> None:
        self._memory.close()
        self.process.stop()
