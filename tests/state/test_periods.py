"""Calendar periods, and what operators change about budgets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.periods import Adjustment, Adjustments, figure, period_at, zone_of

NS = 1_000_000_000
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "America/Santiago",
    "Pacific/Apia",
    "Asia/Beirut",
)


def ns(*at: int) -> int:
    return int(datetime(*at, tzinfo=UTC).timestamp()) * NS  # type: ignore[arg-type,misc]  # year, month, ...


def test_days_and_months_by_the_calendar() -> None:
    day = period_at("day", ns(2026, 11, 24, 23, 59, 59), UTC)
    assert (day.name, day.starts_wall_ns, day.ends_wall_ns) == ("2026-11-24", ns(2026, 11, 24), ns(2026, 11, 25))
    month = period_at("month", ns(2026, 12, 31, 23), UTC)
    assert (month.name, month.starts_wall_ns, month.ends_wall_ns) == ("2026-12", ns(2026, 12, 1), ns(2027, 1, 1))


def test_a_day_where_the_clocks_change_is_shorter() -> None:
    day = period_at("day", ns(2026, 3, 29, 12), zone_of("Europe/Berlin"))
    assert day.ends_wall_ns - day.starts_wall_ns == 23 * 3600 * NS
    assert day.starts_wall_ns == ns(2026, 3, 28, 23)


@given(st.sampled_from(ZONES), st.integers(ns(1990, 1, 1), ns(2037, 1, 1)), st.sampled_from(["day", "month"]))
def test_periods_follow_each_other_without_a_gap(name: str, wall_ns: int, span: str) -> None:
    zone = zone_of(name)
    period = period_at(span, wall_ns, zone)  # type: ignore[arg-type]  # spans are those
    assert period.starts_wall_ns <= wall_ns < period.ends_wall_ns
    following = period_at(span, period.ends_wall_ns, zone)  # type: ignore[arg-type]  # the same
    assert following.starts_wall_ns == period.ends_wall_ns
    assert following.name > period.name
    assert period_at(span, period.ends_wall_ns - 1, zone) == period  # type: ignore[arg-type]  # the same


def test_an_unknown_zone_is_refused() -> None:
    for name in ("Mars/Olympus", "", "../etc/passwd"):
        with pytest.raises(ValueError, match="is not a time zone"):
            zone_of(name)


def change(at: int, action: str, amount: int | None = None, **more: object) -> Adjustment:
    return Adjustment(f"id-{at}", at, "client", "acme", "month", action, "why", amount_pusd=amount, **more)  # type: ignore[arg-type]  # its own fields


def test_what_was_changed_adds_up_in_order() -> None:
    month = period_at("month", ns(2026, 11, 24), UTC)
    now = ns(2026, 11, 24)
    assert figure(100, (), month, now) == 100
    assert figure(None, (), month, now) is None
    top_up = change(1, "top_up", 20, period="2026-11")
    assert figure(100, (top_up, change(2, "top_up", 5, period="2026-12")), month, now) == 120
    override = change(3, "override", 40)
    assert figure(100, (top_up, override), month, now) == 60
    assert figure(100, (override, change(4, "override", None)), month, now) is None
    assert figure(100, (override, change(4, "restore")), month, now) == 100
    short = change(5, "override", 70, until_wall_ns=now)
    assert figure(100, (short,), month, now - 1) == 70
    assert figure(100, (override, short), month, now) == 100
    assert figure(None, (top_up,), month, now) is None


def test_adjustments_are_found_by_their_budget_in_order() -> None:
    every = Adjustments([change(2, "override", 2), change(1, "override", 1)])
    version = every.version
    assert [one.amount_pusd for one in every.of("client", "acme", "month")] == [1, 2]
    assert every.of("client", "acme", "day") == ()
    every.add(change(3, "restore"))
    assert every.version > version
    assert [one.action for one in every.of("client", "acme", "month")] == ["override", "override", "restore"]
