"""Peak hours: who waits for their end, and when that is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.call import Outcome
from gateway.errors import RateLimited
from gateway.policy import PolicyError, build
from gateway.usage import Usage

PEAK = "14:00-22:00"
LOW = {b"x-tidegate-priority": b"low"}


def at(bench: Any, text: str) -> None:
    """Sets the wall clock (UTC)."""
    wanted = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    bench.clock.jump_wall(wanted - bench.clock.wall_ns() / 1e9)


def ends(bench: Any, text: str, **settings: Any) -> str:
    """When the peak of that moment ends, both in UTC; "" off-peak."""
    wall = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9
    end = bench.policy("offpeak", **settings).peak_ends(wall)
    return datetime.fromtimestamp(end // 10**9, UTC).strftime("%Y-%m-%d %H:%M") if end else ""


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        ("2026-03-04 13:59:59", ""),
        ("2026-03-04 14:00:00", "2026-03-04 22:00"),
        ("2026-03-04 21:59:59", "2026-03-04 22:00"),
        ("2026-03-04 22:00:00", ""),
    ],
)
def test_a_window(bench: Any, moment: str, end: str) -> None:
    assert ends(bench, moment, peak=PEAK) == end


@pytest.mark.parametrize(
    ("peak", "moment", "end"),
    [
        ("22:00-06:00", "2026-03-04 23:00", "2026-03-05 06:00"),
        ("22:00-06:00", "2026-03-05 05:59", "2026-03-05 06:00"),
        ("22:00-06:00", "2026-03-05 06:00", ""),
        ("08:00-24:00", "2026-03-05 23:59", "2026-03-06 00:00"),
        ("mon-fri 08:00-18:00", "2026-03-07 12:00", ""),  # a Saturday
        ("mon-fri 08:00-18:00", "2026-03-06 12:00", "2026-03-06 18:00"),
        ("fri 22:00-06:00", "2026-03-07 03:00", "2026-03-07 06:00"),  # it began on Friday
        ("fri 22:00-06:00", "2026-03-06 03:00", ""),
        ("sat-mon 08:00-10:00", "2026-03-08 09:00", "2026-03-08 10:00"),
        (["08:00-12:00", "12:00-14:00"], "2026-03-04 09:00", "2026-03-04 14:00"),
        ([f"{hour:02}:00-{hour + 1:02}:00" for hour in range(22)], "2026-03-04 00:30", "2026-03-04 22:00"),
        ("tue-sun 00:00-24:00", "2026-03-03 09:00", "2026-03-09 00:00"),  # six days
    ],
)
def test_windows(bench: Any, peak: Any, moment: str, end: str) -> None:
    assert ends(bench, moment, peak=peak) == end


@pytest.mark.parametrize(
    ("peak", "moment", "end"),
    [
        ("14:00-22:00", "2026-01-15 15:00", "2026-01-15 21:00"),  # CET
        ("14:00-22:00", "2026-07-15 15:00", "2026-07-15 20:00"),  # CEST
        ("01:00-04:00", "2026-03-29 00:30", "2026-03-29 02:00"),  # 02:00 to 03:00 does not exist
        ("01:00-02:30", "2026-03-29 00:30", "2026-03-29 01:00"),  # no clock shows its end: at 03:00, which is past it
        ("01:00-02:30", "2026-03-29 01:00", ""),
        ("01:00-04:00", "2026-10-25 00:30", "2026-10-25 03:00"),  # 02:00 to 03:00 comes twice
        ("01:00-02:30", "2026-10-25 00:10", "2026-10-25 00:30"),
        ("01:00-02:30", "2026-10-25 00:45", ""),  # after the first 02:30
        ("01:00-02:30", "2026-10-25 01:10", "2026-10-25 01:30"),  # 02:10 again
    ],
)
def test_summer_time(bench: Any, peak: str, moment: str, end: str) -> None:
    assert ends(bench, moment, peak=peak, time_zone="Europe/Berlin") == end


@pytest.mark.parametrize(
    "settings",
    [
        {"peak": "14-22"},
        {"peak": ["25:00-26:00"]},
        {"time_zone": "Mars/Base"},
        {"peak": "00:00-24:00"},  # no hour is left
        {"peak": ["mon-fri 00:00-24:00", "sat-sun 00:00-12:00", "sat-sun 12:00-00:00"]},
    ],
)
def test_what_is_not_understood_stops_start_up(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        build("offpeak", settings)


def test_low_urgency_in_peak_hours_is_told_when_to_come_back(bench: Any) -> None:
    at(bench, "2026-03-04 20:00:00")
    call = bench.call(bench.person())
    call.headers = LOW
    with pytest.raises(RateLimited) as refused:
        bench.policy("offpeak", peak=PEAK).apply(call)
    assert refused.value.retry_after_s == 7200
    assert refused.value.code == "off_peak_only"


def test_all_calls_of_a_tier_that_may_claim_low_only_keep_to_it(bench: Any) -> None:
    at(bench, "2026-03-04 20:00:00")
    call = bench.call(bench.person())
    bench.policy("queue", claims={call.client.tier.name: "low"})
    for headers in ({}, {b"x-tidegate-priority": b"normal"}):
        call.headers = headers
        with pytest.raises(RateLimited):
            bench.policy("offpeak", peak=PEAK).apply(call)


def test_others_and_other_hours_pass(bench: Any) -> None:
    at(bench, "2026-03-04 20:00:00")
    call = bench.call(bench.person())
    bench.policy("offpeak", peak=PEAK).apply(call)
    at(bench, "2026-03-04 23:00:00")
    call.headers = LOW
    bench.policy("offpeak", peak=PEAK).apply(call)
    assert call.not_before_ns == 0


async def test_a_low_call_waits_for_the_end_if_it_is_near(bench: Any) -> None:
    at(bench, "2026-03-04 21:59:00")
    pipeline = bench.pipeline(bench.policy("offpeak", peak=PEAK), bench.policy("queue"))
    call = bench.call(bench.person())
    call.targets[0].provider.max_concurrent = 5
    call.headers, call.pipeline = LOW, pipeline
    waiting = asyncio.ensure_future(pipeline.admit(call))
    for second in (0, 59.9):
        bench.clock.advance(second)
        bench.scheduler.wake()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert call.queued.estimate_ms == 60_000
    bench.clock.advance(0.1)
    bench.scheduler.wake()
    await waiting
    assert call.queued.waited_ms == 60_000
    await pipeline.settle(call, Outcome("served", 200, Usage(), attempted=True))


async def test_without_a_queue_it_is_told_when_to_come_back(bench: Any) -> None:
    at(bench, "2026-03-04 21:59:00")
    pipeline = bench.pipeline(bench.policy("offpeak", peak=PEAK))
    call = bench.call(bench.person())
    call.headers = LOW
    call.need(*_some_need(), **_lacking())
    with pytest.raises(RateLimited) as refused:
        await pipeline.admit(call)
    assert refused.value.retry_after_s == 60


async def test_observing_changes_nothing(bench: Any) -> None:
    at(bench, "2026-03-04 21:59:00")
    pipeline = bench.pipeline(bench.policy("offpeak", peak=PEAK, mode="observe"), bench.policy("queue"))
    call = bench.call(bench.person())
    call.targets[0].provider.max_concurrent = 5
    call.headers, call.pipeline = LOW, pipeline
    await pipeline.admit(call)
    assert call.queued is None
    assert call.marks == ["offpeak: would change the call"]


def _some_need() -> Any:
    from gateway.state.store import Slots

    return Slots("any", 1), 1


def _lacking() -> Any:
    from gateway.call import Wait

    return {"lacking": Wait(RateLimited, "any")}
