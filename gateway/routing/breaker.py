"""A circuit breaker: closed, open (no calls), half-open (one call at a time proves whether it is well again)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gateway.routing.rules import BreakerRules

State = Literal["closed", "open", "half_open"]
Told = Callable[["Breaker", str], None]

#: The window slides by a tenth of its length.
_SLOTS = 10


class Breaker:
    """Counts successes and failures over a sliding window. `told(self, why)` hears of each change of state.

    Times are monotonic nanoseconds, given by the caller. An outcome counts for the state only if its attempt began
    after the last change: what was under way when the breaker opened proves nothing.
    """

    __slots__ = (
        "_bad",
        "_good",
        "_openings",
        "_proofs",
        "_slot",
        "_told",
        "_width_ns",
        "changed_ns",
        "consecutive",
        "model",
        "prober",
        "provider",
        "reopens_ns",
        "rules",
        "state",
    )

    def __init__(self, provider: str, model: str, rules: BreakerRules, told: Told) -> None:
        self.provider = provider
        self.model = model  # upstream; "" where it is about reaching the provider at all
        self.state: State = "closed"
        self.changed_ns = 0
        self.reopens_ns = 0  # when an open breaker lets the next call try
        self.prober: object = None  # who proves, while half-open: one at a time
        self.consecutive = 0  # failures
        self._told = told
        self._openings = 0
        self._proofs = 0
        self._slot = 0
        self._good = [0] * _SLOTS
        self._bad = [0] * _SLOTS
        self.rule(rules)

    def rule(self, rules: BreakerRules) -> None:
        """Other rules from now on; what was counted stays."""
        self.rules = rules
        self._width_ns = max(1, round(rules.window_s * 1e9 / _SLOTS))

    def succeeded(self, began_ns: int, now_ns: int) -> None:
        """An attempt that began then got an answer that shows the upstream to be well."""
        slot = now_ns // self._width_ns
        if slot != self._slot:
            self._slide(slot)
        self._good[slot % _SLOTS] += 1
        self.consecutive = 0
        if self.state != "closed" and began_ns >= self.changed_ns:
            self._proved(now_ns)

    def failed(self, began_ns: int, now_ns: int) -> None:
        """An attempt that began then failed in a way that counts."""
        slot = now_ns // self._width_ns
        if slot != self._slot:
            self._slide(slot)
        self._bad[slot % _SLOTS] += 1
        self.consecutive += 1
        if self.state == "closed":
            why = self._too_much()
            if why:
                self._open(now_ns, why)
        elif began_ns >= self.changed_ns:
            self._proofs = 0
            if self.state == "half_open":
                self._open(now_ns, "the probe failed")

    def is_out(self, now_ns: int) -> bool:
        """Whether no call may go there now. An open breaker whose time is up becomes half-open."""
        if self.state == "closed":
            return False
        if self.state == "open" and now_ns >= self.reopens_ns:
            self._half_open(now_ns, "time is up")
        return self.state == "open" or self.prober is not None

    def postpone(self, until_ns: int) -> None:
        """A free probe failed, so no call has to: stays open until then, but never longer than `longest_open_s`."""
        bound_ns = self.changed_ns + round(self.rules.longest_open_s * 1e9)
        self.reopens_ns = max(self.reopens_ns, min(until_ns, bound_ns))

    def reachable(self, now_ns: int) -> None:
        """A free probe succeeded: reaching the provider is what such a breaker is about, so a call may try now."""
        if self.state == "open" and not self.model:
            self._half_open(now_ns, "the provider can be reached again")

    def counts(self, now_ns: int) -> tuple[int, int]:
        """Successes and failures in the window."""
        slot = now_ns // self._width_ns
        if slot != self._slot:
            self._slide(slot)
        return sum(self._good), sum(self._bad)

    def _slide(self, slot: int) -> None:
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._good[passed % _SLOTS] = self._bad[passed % _SLOTS] = 0
        self._slot = slot

    def _too_much(self) -> str:
        rules = self.rules
        if self.consecutive >= rules.consecutive_failures:
            return f"{self.consecutive} failures one after the other"
        good, bad = sum(self._good), sum(self._bad)
        if good + bad >= rules.min_calls and bad * 100 >= rules.error_percent * (good + bad):
            return f"{bad} of {good + bad} calls failed"
        return ""

    def _open(self, now_ns: int, why: str) -> None:
        rules = self.rules
        longest_ns = round(rules.longest_open_s * 1e9)
        if self.state == "closed" and now_ns - self.changed_ns > longest_ns:
            self._openings = 0  # it was well for long
        open_ns = min(longest_ns, round(rules.open_s * 1e9) << min(self._openings, 20))
        self._openings += 1
        self.reopens_ns = now_ns + open_ns
        self._change("open", now_ns, why)

    def _half_open(self, now_ns: int, why: str) -> None:
        self._proofs = 0
        self._change("half_open", now_ns, why)

    def _proved(self, now_ns: int) -> None:
        self._proofs += 1
        if self._proofs >= self.rules.close_after:
            self._proofs = 0
            self._good, self._bad = [0] * _SLOTS, [0] * _SLOTS
            self._change("closed", now_ns, "it is well again")

    def _change(self, state: State, now_ns: int, why: str) -> None:
        self.state = state
        self.changed_ns = now_ns
        self.prober = None
        self._told(self, why)
