"""What a load is sent to: a system under test, or the responder itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtests.bench.process import Process


@dataclass(frozen=True)
class Target:
    """`load_core` is where the generator runs; the responder is always on the load's core (machine.LOAD_CORE)."""

    name: str
    port: int
    process: Process
    headers: dict[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()  # taken in turn instead of the headers' Authorization
    load_core: int = 1
