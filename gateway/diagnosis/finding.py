"""Finding: one thing that was looked at, and how it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what was looked at; `hint` what to do, where something is to be done."""

    status: Status
    subject: str
    message: str
    hint: str = ""
