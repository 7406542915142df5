"""The headers and messages of limits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.ratelimit import duration, headers, refusal, span, timestamp
from gateway.state.store import Bucket, Lack, Limit, Tally, Window

SECOND = 1_000_000_000
WALL = 1_764_000_000 * SECOND


@dataclass
class Fixed:
    remaining: int
    reset_ns: int


REQUESTS = Bucket("r", 600, "requests", 1, 1)
DAILY = Window("d", 5000, "requests", 1)
TOKENS = Bucket("t", 100_000, "tokens", 1, 1)
MONEY = Tally("m", 50 * 10**12)
LEVELS: list[tuple[Limit, Fixed]] = [
    (REQUESTS, Fixed(599, 100_000_000)),
    (DAILY, Fixed(12, 360 * SECOND)),
    (TOKENS, Fixed(-5, 61 * SECOND)),
    (MONEY, Fixed(3, 0)),
]


def test_openai_headers_are_those_of_the_tightest_limit() -> None:
    assert dict(headers("openai", LEVELS, WALL)) == {
        b"x-ratelimit-limit-requests": b"5000",
        b"x-ratelimit-remaining-requests": b"12",
        b"x-ratelimit-reset-requests": b"6m0s",
        b"x-ratelimit-limit-tokens": b"100000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"1m1s",
    }


def test_anthropic_headers_tell_the_time() -> None:
    assert dict(headers("anthropic", LEVELS[:1], WALL)) == {
        b"anthropic-ratelimit-requests-limit": b"600",
        b"anthropic-ratelimit-requests-remaining": b"599",
        b"anthropic-ratelimit-requests-reset": b"2025-11-24T16:00:01Z",
    }


def test_without_limits_there_are_no_headers() -> None:
    assert headers("openai", [], WALL) == []
    assert headers("plain", LEVELS[3:], WALL) == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, b"0s"), (1, b"1ms"), (12_000_000, b"12ms"), (999_000_001, b"1000ms"), (SECOND, b"1s"), (SECOND + 1, b"2s"),
     (59 * SECOND, b"59s"), (360 * SECOND, b"6m0s"), (86_399 * SECOND, b"23h59m59s")],
)  # fmt: skip
def test_durations_are_rounded_up(ns: int, text: bytes) -> None:
    assert duration(ns) == text


def test_timestamps_are_rounded_up() -> None:
    assert timestamp(WALL) == b"2025-11-24T16:00:00Z"
    assert timestamp(WALL + 1) == b"2025-11-24T16:00:01Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.35, "350 ms"), (0.0000001, "0 ms"), (1.0, "1 s"), (1.001, "2 s"), (60, "1 min"), (185, "3 min 5 s"),
     (7200, "2 h"),
     (7800, "2 h 10 min"), (86_400, "1 day"), (86_400 * 6 + 4 * 3600, "6 days 4 h")],
)  # fmt: skip
def test_times_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_refusal_names_limit_figures_and_time() -> None:
    assert refusal("600 requests a minute of client acme", REQUESTS, 1, Lack(0, 0, 0.1)) == (
        "Limit reached: 600 requests a minute of client acme. This call needs 1; 0 of 600 left. Try again in 100 ms."
    )
    assert refusal("the budget", MONEY, 3 * 10**12, Lack(0, -5, None)) == (
        "Limit reached: the budget. This call may cost 3.00 USD; 0.00 USD of 50.00 USD left. Waiting won't make it fit."
    )
