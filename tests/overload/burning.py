"""A policy that works for so long, as CPU time of the thread: makes a gateway of a known, small capacity."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.call import Call
from gateway.policy import Policy


@dataclass
class Burning(Policy):
    ms: float = 3.0

    def apply(self, call: Call) -> None:
        end = time.thread_time() + self.ms / 1000
        while time.thread_time() < end:
            pass
