"""What the durable records can be told: where, how safe, how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gateway.records.frames import PAGE

Durability = Literal["process", "power"]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of [records]. Sizes in bytes. `durability` "process" survives kill -9, "power" a power cut as well."""

    durability: Durability = "process"
    retention_days: int = 90  # calls, attempts and minute roll-ups; 0: for ever
    segments: int = 8
    segment_bytes: int = 4 * 1024 * 1024  # whole pages
    group_ms: int = 100  # how long the writer gathers a group

    def with_journal(self, size_bytes: int) -> Options:
        """With a journal of about that size, in whole pages."""
        return replace(self, segment_bytes=max(1, size_bytes // self.segments // PAGE) * PAGE)
