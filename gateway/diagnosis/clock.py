"""The clock: budget days and expiry go by it, so it is compared with the Date header of what was reached."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.diagnosis.endpoints import Probe
from gateway.diagnosis.finding import Finding, Status

WARN_S, FAIL_S = 5, 300  # Date has whole seconds, and an answer takes some


def clock(probes: Sequence[Probe]) -> Finding:
    """By the endpoint that differs least: one of them may have a wrong clock of its own."""
    skews = [(abs(probe.skew_s), probe.skew_s, probe.name) for probe in probes if probe.skew_s is not None]
    if not skews:
        return Finding("info", "clock", "nothing to compare it with: no provider sent a Date header")
    size, skew, name = min(skews)
    if size < WARN_S:
        return Finding("ok", "clock", f"agrees with {name}")
    direction = "ahead of" if skew > 0 else "behind"
    status: Status = "fail" if size >= FAIL_S else "warn"
    hint = "set it by NTP: budget days, expiry of keys and TLS go by it"
    return Finding(status, "clock", f"{size:.0f} s {direction} {name}", hint)
