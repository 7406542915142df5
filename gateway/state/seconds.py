"""Seconds as people and headers want them, to and from the whole nanoseconds that everything is decided in.

The only file of the state package where a float may appear: no amount of money, tokens or requests comes here.
"""

from __future__ import annotations


def ns_of(seconds: float) -> int:
    """Whole nanoseconds, rounded down."""
    return int(seconds * 1_000_000_000)


def seconds_of(ns: int) -> float:
    """Seconds in whole milliseconds, rounded up: a caller who comes back then is never too early."""
    return -(-ns // 1_000_000) / 1000
