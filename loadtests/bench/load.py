"""Runs one case against one target: the generator, the window on it, and what came of both."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.bench import generators
from loadtests.bench.cases import SMALL_32, Case
from loadtests.bench.errors import BenchError
from loadtests.bench.responder import Responder
from loadtests.bench.target import Target
from loadtests.bench.window import Window, watch

STALLED_S = 30.0
NOISY = 0.05  # share of the system's core used by others above which a sample is taken again, if it may be


@dataclass(frozen=True)
class Sample:
    """One run of one case. `figures` holds what the case's kind has, each under its name with its unit."""

    target: str
    case: str
    completed: int  # requests or streams that the generator saw whole
    failed: int
    figures: dict[str, float]
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class Sent:
    """What a target was sent over all runs: `cut` is the most that the ends of runs can have cut off besides."""

    completed: int = 0
    cut: int = 0


class Load:
    """One generator at a time, and the books of what each target was sent."""

    def __init__(self, responder: Responder, programs: Path, folder: Path) -> None:
        self.responder = responder
        self.programs = programs
        self.folder = folder
        self.sent: dict[str, Sent] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, target: Target, case: Case, warm_s: float, window_s: float) -> Sample:
        warm_s += case.begun_s
        longest_s = warm_s + window_s + 10
        if case.streams:
            generator = generators.streams(target, case, self.folder, self.programs, longest_s)
        else:
            generator = generators.plain(target, case, self.folder, longest_s)
        with generator:
            # Requests as the responder counts them, since wrk tells its count only at the end; chunks as they are read,
            # since a slow system leaves thousands of them in its sockets.
            counts = lambda: (self.responder.counts().requests, generator.chunks())  # noqa: E731
            window = watch(target.process, counts, warm_s, window_s)
            seen = generator.result()
        sample = (_stream_sample if case.streams else _plain_sample)(target, case, window, seen)
        self._book(target, case, sample.completed)
        return sample

    def send(self, target: Target, total: int) -> int:
        """Keeps `target` busy with plain requests until the responder has answered `total` more; the failed ones."""
        goal = self.responder.counts().requests + total
        with generators.plain(target, SMALL_32, self.folder, 3600) as generator:
            seen, since = 0, time.monotonic()
            while seen < goal:
                time.sleep(0.02)
                before, seen = seen, self.responder.counts().requests
                since = time.monotonic() if seen > before else since
                if time.monotonic() - since > STALLED_S:
                    raise BenchError(f"{target.name} has answered nothing for {STALLED_S:.0f} s")
            result = generator.result()
        self._book(target, SMALL_32, result["requests"] - result["bad_status"])
        return int(result["bad_status"] + result["socket_errors"])

    def _book(self, target: Target, case: Case, completed: int) -> None:
        sent = self.sent.setdefault(target.name, Sent())
        sent.completed += completed
        sent.cut += case.width


def _plain_sample(target: Target, case: Case, window: Window, seen: dict[str, Any]) -> Sample:
    reasons = {name: int(seen[name]) for name in ("bad_status", "socket_errors") if seen[name]}
    figures = {
        "cpu_us": window.us_per_request,
        "requests_per_s": window.requests / window.seconds,
        "p50_ms": seen["p50_us"] / 1e3,
        "p99_ms": seen["p99_us"] / 1e3,
        **_noise(window),
    }
    return Sample(
        target.name, case.name, seen["requests"] - seen["bad_status"], sum(reasons.values()), figures, reasons
    )


def _stream_sample(target: Target, case: Case, window: Window, seen: dict[str, Any]) -> Sample:
    figures = {
        "cpu_us": window.us_per_chunk,
        "chunks_per_s": window.chunks / window.seconds,
        "first_byte_ms": seen["first_byte_us"]["p50"] / 1e3,
        "first_byte_p99_ms": seen["first_byte_us"]["p99"] / 1e3,
        "delay_ms": seen["delay_us"]["p50"] / 1e3,
        "delay_p99_ms": seen["delay_us"]["p99"] / 1e3,
        "first_delay_ms": seen["first_delay_us"]["p50"] / 1e3,
        "usage_events": float(seen["usage_events"]),
        **_noise(window),
    }
    return Sample(target.name, case.name, seen["complete"], seen["incomplete"], figures, dict(seen["reasons"]))


def _noise(window: Window) -> dict[str, float]:
    return {"busy": window.busy, "foreign": window.foreign, "load_busy": window.load_busy}
