"""A policy that does nothing but hold the gateway under full pressure, to see what turning away costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.call import Call
from gateway.overload import RANKS
from gateway.policy import Gate, Policy


@dataclass
class Pressing(Policy):
    def provide(self, gate: Gate) -> None:
        overload: Any = gate.overload  # type: ignore[attr-defined]  # the gateway's own, which no policy should touch
        overload.measure = overload.weigh = lambda *_: None
        overload.pressure = 1.0
        overload._shares = [1.0] * RANKS

    def apply(self, call: Call) -> None:
        return
