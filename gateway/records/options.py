"""What the durable records can be told: where, how safe, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Durability = Literal["process", "power"]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of [records]. Sizes in bytes. `durability` "process" survives kill -9, "power" a power cut as well."""

    durability: Durability = "process"
    retention_days: int = 90  # calls, attempts and minute roll-ups; 0: for ever
    segments: int = 8
    segment_bytes: int = 4 * 1024 * 1024  # whole pages
    group_ms: int = 50  # how long the writer gathers a group
