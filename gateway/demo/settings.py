"""Knows what can be set when a fake provider is started, and what each setting is when nobody says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Over = Literal["serve", "refuse", "queue"]
Counting = Literal["quarter", "o200k"]


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Settings of one fake provider.

    host, port: where it listens; port 0 takes a free one.
    log: file that gets one JSON line an attempt, written before the answer; None writes none.
    slots: calls served at the same time; None has no bound. One call more is an over-admission, always counted.
    over: what happens to it: served all the same, refused with 429, or made to wait for a slot.
    service_time_ms: time a call takes before its first byte, the slot held meanwhile.
    latency_ms, chunk_ms: wait before the first byte, and between the events of a stream, when no fault says otherwise.
    output_tokens: length of an answer that nobody limits.
    count: how input is counted; "quarter" is one token for each four bytes of text, "o200k" the exact vocabulary
        (0.4 s to load, 65 MB).
    key: when set, the only credential accepted; otherwise every one is, and none.
    models: what the lists of models name; any other name is answered too.
    plan: rules of faults, see `plan.py`.
    seed: first part of every id; None draws one a start, so that ids of two runs never meet in one log.
    """

    host: str = "127.0.0.1"
    port: int = 0
    log: Path | str | None = None
    slots: int | None = None
    over: Over = "serve"
    service_time_ms: float = 0.0
    latency_ms: float = 0.0
    chunk_ms: float = 0.0
    output_tokens: int = 24
    count: Counting = "quarter"
    key: str | None = None
    models: tuple[str, ...] = ("demo-small", "demo-large")
    plan: Sequence[Mapping[str, Any]] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")
        if self.output_tokens < 0:
            raise ValueError(f"output_tokens must not be negative, not {self.output_tokens}")
        if self.over not in ("serve", "refuse", "queue"):
            raise ValueError(f"over must be serve, refuse or queue, not {self.over!r}")
        if self.count not in ("quarter", "o200k"):
            raise ValueError(f"count must be quarter or o200k, not {self.count!r}")
