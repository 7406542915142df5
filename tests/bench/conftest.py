"""The benchmark's own programs, compiled once a session, and a responder to try them on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.bench import native, requests
from loadtests.bench.counters import Counters
from loadtests.bench.responder import Responder

Streams = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled programs lie."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def responder(programs: Path, tmp_path: Path) -> Iterator[Responder]:
    started = Responder(tmp_path / "responder", programs)
    yield started
    started.stop()


@pytest.fixture
def streams(programs: Path, tmp_path: Path) -> Streams:
    """Runs the stream generator for a moment against a port; what it printed."""

    def run(port: int, model: str, width: int = 4, seconds: float = 0.2, chunks: int | None = None) -> dict[str, Any]:
        request = requests.chat(model, requests.SMALL, {"Authorization": "Bearer x"})
        raw, counter = tmp_path / "request", tmp_path / "counter"
        raw.write_bytes(request.raw(f"127.0.0.1:{port}"))
        counters = Counters(counter, 1)
        numbers = (port, width, seconds, 0, request.chunks if chunks is None else chunks)
        command = [str(native.compiled("streams", programs)), *map(str, numbers), str(raw), str(counter)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        seen: dict[str, Any] = json.loads(done.stdout)
        assert counters.read() == (seen["chunks"],)
        counters.close()
        return seen

    return run
