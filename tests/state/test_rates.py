"""The grammar of rates and of money."""

from __future__ import annotations

import limits
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rates import charge_of, parse_rate, pusd_of, usd_text
from gateway.state.store import Bucket, Window

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    "text",
    ["600/minute", "5 per 2 hours", "1/second", "1000000/day", "10 / 5 minute", "3PER DAY", " 7/month ", "2 per year",
     "9/30days", "1/0 minutes", "0/minute"],
)  # fmt: skip
def test_rates_mean_what_limits_says(text: str) -> None:
    theirs = limits.parse(text)
    ours = parse_rate(text)
    assert (ours.amount, ours.per_ns) == (theirs.amount, theirs.get_expiry() * SECOND)


@pytest.mark.parametrize(
    "text", ["", "600", "600/", "/minute", "600/fortnight", "six/minute", "-1/minute", "1.5/minute", "1/minutess"]
)
def test_what_limits_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^couldn't parse|no granularity"):
        limits.parse(text)
    with pytest.raises(ValueError, match="is not a rate such as"):
        parse_rate(text)


@given(st.text(alphabet="0123456789 /pervminutshoday", max_size=16))
def test_nothing_else_is_a_rate(text: str) -> None:
    try:
        theirs = limits.parse(text)
    except ValueError:
        with pytest.raises(ValueError, match="is not a rate"):
            parse_rate(text)
    else:
        ours = parse_rate(text)
        assert (ours.amount, ours.per_ns) == (theirs.amount, theirs.get_expiry() * SECOND)


def test_up_to_an_hour_is_a_bucket_and_above_a_window() -> None:
    minute = parse_rate("600/minute").limit("a", "requests")
    assert isinstance(minute, Bucket)
    assert (minute.capacity, minute.refill * 60 * SECOND) == (600, 600 * minute.per_ns)
    assert isinstance(parse_rate("7/hour").limit("a", ""), Bucket)
    day = parse_rate("5000/30 days").limit("a", "tokens")
    assert isinstance(day, Window)
    assert (day.capacity, day.span_ns, day.header) == (5000, 30 * 86_400 * SECOND, "tokens")


@pytest.mark.parametrize(
    ("amount", "milli", "scaled"), [(600, 1500, 900), (1, 1500, 1), (1, 100, 1), (0, 3000, 0), (5, 0, 0)]
)
def test_a_multiplier_scales_down_to_one_but_not_to_none(amount: int, milli: int, scaled: int) -> None:
    assert parse_rate(f"{amount}/minute").scaled(milli).amount == scaled


@given(st.integers(0, 10**24))
def test_dollars_go_there_and_back(pusd: int) -> None:
    assert pusd_of(usd_text(pusd).replace(",", "")) == pusd
    assert usd_text(-pusd) in (f"-{usd_text(pusd)}", "0.00")


@pytest.mark.parametrize("bad", ["x", "-1", "nan", "inf", "1e-13", None, "0.0000000000001"])
def test_what_is_no_amount_of_dollars_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="not an amount in dollars"):
        pusd_of(bad)


def test_dollars_for_people() -> None:
    assert [usd_text(one) for one in (0, 50 * 10**12, 1_234_567 * 10**10, 2_500_000)] == [
        "0.00", "50.00", "12,345.67", "0.0000025",
    ]  # fmt: skip


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(0, 100))
def test_a_charge_is_rounded_once_and_never_above_the_worst(cost: int, worst: int, discount: int) -> None:
    assert abs(charge_of(cost, discount) * 100 - cost * (100 - discount)) <= 50
    if cost <= worst:
        assert charge_of(cost, discount) <= charge_of(worst, discount)
