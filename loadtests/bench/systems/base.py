"""What a system under test has to tell: how it is installed, configured, started, and when it is ready."""

from __future__ import annotations

import http.client
import socket
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from loadtests.bench import machine, requests
from loadtests.bench.errors import BenchError
from loadtests.bench.process import Process


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class System(ABC):
    """One proxy in front of the responder. `folder` is its own: configuration, data and log go there."""

    name: ClassVar[str]
    what: ClassVar[str]  # one line for the table: version and kind of configuration
    ready_path: ClassVar[str | None] = None  # answers 200 when ready; None: the first answered call tells
    start_s: ClassVar[float] = 30.0  # longest wait until it is ready

    def __init__(self, folder: Path, build: Path, upstream_port: int) -> None:
        self.folder = folder
        self.build = build
        self.upstream_port = upstream_port
        self.port = free_port()
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def install(self) -> None:
        """Makes the program available; does nothing when it is. Raises BenchError when it cannot be had."""

    @abstractmethod
    def configure(self) -> None:
        """Writes the configuration into `folder`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that serves `port`."""

    def environment(self) -> dict[str, str]:
        return {}

    def headers(self) -> dict[str, str]:
        """Request headers that this system needs besides those of the SDK."""
        return {"Authorization": "Bearer sk-bench-0000000000000000000000000000000000000000"}

    def settings(self) -> list[str]:
        """What differs from its defaults, a line each, as it is printed."""
        return []

    def start(self) -> float:
        """Starts it on its core; seconds from the start of the process until it is ready."""
        began = time.perf_counter()
        command = machine.pinned(machine.SYSTEM_CORE, self.command())
        self.process = Process(command, self.folder / "log", self.environment())
        while time.perf_counter() - began < self.start_s and self.process.alive:
            if self._ready():
                return time.perf_counter() - began
            time.sleep(0.002)
        tail = self.process.tail()
        self.stop()
        raise BenchError(f"{self.name} was not ready after {time.perf_counter() - began:.1f} s:\n{tail}")

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.start_s)
        try:
            if self.ready_path is not None:
                connection.request("GET", self.ready_path)
            else:
                call = requests.chat("bench-plain", requests.SMALL, self.headers())
                connection.request("POST", requests.PATH, call.body, call.headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    @property
    def running(self) -> Process:
        if self.process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self.process
