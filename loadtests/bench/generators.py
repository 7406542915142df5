"""The programs that make load: wrk for whole answers, streams.c for streams. Each is one process on one core."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtests.bench import machine, native, requests
from loadtests.bench.cases import Case
from loadtests.bench.counters import Counters
from loadtests.bench.errors import BenchError
from loadtests.bench.target import Target

END_S = 60.0  # longest wait for a generator that was told to end (a slow system's streams are read to their end)


class Generator:
    """A running load. `result()` ends it and tells what it saw; `chunks()` what it has read so far."""

    def __init__(self, command: list[str], counter: Counters | None = None) -> None:
        self._counter = counter
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def chunks(self) -> int:
        """Content chunks read; zero for a load without streams."""
        return 0 if self._counter is None else self._counter.read()[0]

    def result(self) -> dict[str, Any]:
        """Stops the load, waits for its end and returns its figures."""
        self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=END_S)
        line = text.strip().rsplit("\n", 1)[-1]
        if self.process.returncode != 0 or not line.startswith("{"):
            raise BenchError(f"{self.process.args!r} failed:\n{text}")
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        if self._counter is not None:
            self._counter.close()


def plain(target: Target, case: Case, folder: Path, longest_s: float) -> Generator:
    """Plain requests, back to back on each connection; ends by itself after `longest_s`."""
    request = requests.chat(case.model, case.size, target.headers)
    body, headers = request.write(folder)
    command = ["wrk", "-t1", f"-c{case.width}", f"-d{max(1, round(longest_s))}s", "--timeout", "30s"]
    command += ["-s", str(native.SOURCES / "post.lua"), f"http://127.0.0.1:{target.port}{requests.PATH}", "--"]
    command += [str(body), str(headers)]
    if target.keys:
        keys = folder / "keys"
        keys.write_text("\n".join(target.keys))
        command.append(str(keys))
    return Generator(machine.pinned(target.load_core, command))


def streams(target: Target, case: Case, folder: Path, programs: Path, longest_s: float) -> Generator:
    """Streams, one after the other on each connection; those under way at the end are read to theirs."""
    request = requests.chat(case.model, case.size, target.headers)
    raw = folder / "request"
    raw.write_bytes(request.raw(f"127.0.0.1:{target.port}"))
    program = native.compiled("streams", programs)
    numbers = (target.port, case.width, longest_s, case.spread_us, request.chunks)
    counter = folder / "streams.counter"
    counters = Counters(counter, 1)
    command = [str(program), *map(str, numbers), str(raw), str(counter)]
    return Generator(machine.pinned(target.load_core, command), counters)
