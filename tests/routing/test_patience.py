"""What providers say about coming again: seconds, dates, nonsense; and our own back-off."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.patience import backoff, retry_after

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"2", 2.0),
        (b"1.5", 1.5),
        (b"120", 120.0),
        (b"Sun, 15 Jun 2025 15:07:10 GMT", 30.0),
        (b"Sunday, 15-Jun-25 15:07:10 GMT", 30.0),
        (b"Sun, 15 Jun 2025 15:06:00 GMT", 0.0),  # past
        (b"1e9", 1e9),
        (b"inf", float("inf")),
        (b"", None),
        (b"-1", None),
        (b"nan", None),
        (b"soon", None),
        (b"1_0", None),
        (b"99:99", None),
        (b"Sun, 99 Jun 2025 15:06:00 GMT", None),
        (b"\xff\xfe", None),
        (b"9" * 5000, float("inf")),
    ],
)
def test_seconds_dates_and_nonsense(value: bytes, seconds: float | None) -> None:
    assert retry_after([(b"retry-after", value)], NOW) == seconds


def test_milliseconds_count_over_seconds() -> None:
    assert retry_after([(b"retry-after", b"2"), (b"retry-after-ms", b"250")], NOW) == 0.25
    assert retry_after([(b"retry-after-ms", b"nonsense"), (b"retry-after", b"2")], NOW) == 2.0


@pytest.mark.parametrize("name", [b"retry-after", b"retry-after-ms"])
def test_of_several_the_longest_counts_that_makes_sense(name: bytes) -> None:
    said = [(name, value) for value in (b"1000", b"5000", b"2000", b"soon", b"-9000")]
    assert retry_after(said, NOW) == (5000 if name == b"retry-after" else 5)
    assert retry_after([(name, b"soon"), (name, b"nan")], NOW) is None


def test_a_date_counts_from_the_providers_own_clock() -> None:
    headers = [(b"retry-after", b"Sun, 15 Jun 2025 15:07:10 GMT"), (b"date", b"Sun, 15 Jun 2025 15:07:00 GMT")]
    assert retry_after(headers, NOW - 7200) == 10.0


@given(st.binary(max_size=80))
def test_no_text_is_a_crash_or_a_negative_wait(value: bytes) -> None:
    found = retry_after([(b"retry-after", value), (b"date", value[::-1])], NOW)
    assert found is None or found >= 0


def test_back_off_is_full_jitter_and_bounded() -> None:
    draw = Random(3).random
    for round_, bound in enumerate((0.25, 0.5, 1.0, 2.0, 4.0, 4.0)):
        pauses = [backoff(round_, 0.25, 4.0, draw) for _ in range(500)]
        assert max(pauses) <= bound
        assert min(pauses) < bound / 20
        assert 0.4 * bound < sum(pauses) / 500 < 0.6 * bound
    assert backoff(10_000, 0.25, 4.0, draw) <= 4.0
