"""The measurement by itself: what counts as overload, whom it turns away, and that it ends."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from gateway.clients import Client, Key, Tier
from gateway.clock import Clock
from gateway.directory import Directory, KeyEntry
from gateway.door import Door
from gateway.events import Events
from gateway.ids import Ids
from gateway.metrics import Metrics
from gateway.overload import Overload, OverloadRules, memory_limit, resident, trim
from gateway.wishes import CLAIMS

MIB = 1024 * 1024


def make(**rules: Any) -> Overload:
    directory = Directory(b"pepper", Clock())
    clients, keys = [], []
    for tier, points in (("basic", 10), ("enterprise", 40)):
        clients.append(Client(tier, tier, Tier(tier, priority=points)))
        keys.append(KeyEntry(Key(tier, tier, "client"), directory.digest(f"tg-{tier}".encode())))
    directory.replace(clients, keys)
    overload = Overload(directory, Metrics(), Events(Clock()), Random(7))
    overload.claims = CLAIMS
    overload.configure(OverloadRules(**rules))
    return overload


def by(tier: str, priority: str = "") -> dict[bytes, bytes]:
    fields = {b"authorization": f"Bearer tg-{tier}".encode()}
    if priority:
        fields[b"x-tidegate-priority"] = priority.encode()
    return fields


def look(overload: Overload, late_s: float, times: int = 1, busy: float = 0.9) -> None:
    for _ in range(times):
        overload.measure(late_s, busy)


def test_one_long_pause_is_no_overload() -> None:
    overload = make()
    for _ in range(20):
        look(overload, 0.8)
        look(overload, 0.001, 5)
    assert overload.pressure == 0


def test_a_backlog_that_shrinks_adds_no_pressure() -> None:
    overload = make()
    look(overload, 2.0, 10)
    before = overload.pressure
    assert before > 0
    for step in range(30):
        look(overload, 1.95 - step * 0.06)
    assert overload.pressure == before


def test_standing_lateness_is_and_it_ends() -> None:
    overload = make()
    look(overload, 0.2, 30)
    assert overload.pressure > 0.3
    look(overload, 0.2, 300)
    assert overload.pressure < 1
    look(overload, 0.0, 200)
    assert overload.pressure == 0


@pytest.mark.parametrize(("busy", "calls"), [(0.01, 100), (0.9, 3)])
def test_waiting_for_other_processes_or_one_slow_call_is_none(busy: float, calls: int) -> None:
    overload = make()
    overload.under_way = lambda: calls
    look(overload, 0.2, 100, busy)
    assert overload.pressure == 0


def test_zero_switches_a_sign_off() -> None:
    overload = make(lag_s=0, memory_percent=0)
    look(overload, 5.0, 100)
    overload.weigh(1 << 60)
    assert overload.pressure == 0


def test_memory_presses_step_by_step() -> None:
    overload = make(memory_percent=50)
    mark = memory_limit() // 2
    seen = []
    for resident_bytes in (mark - MIB, mark + mark // 100, mark + mark // 20, mark * 2, mark - MIB):
        overload.weigh(resident_bytes)
        seen.append(overload.pressure)
    assert seen[0] == seen[4] == 0
    assert 0 < seen[1] < seen[2] < seen[3] < 1
    assert 0 < resident() < memory_limit()
    trim()


def test_the_part_that_is_turned_away_is_the_pressure_and_the_lowest_ranks_go_first() -> None:
    overload = make()
    look(overload, 0.2, 400)
    overload._lag_pressure = 0.4
    away = {"stranger": 0, "basic": 0, "enterprise": 0}
    total = 0
    for number in range(9000):
        if number % 30 == 0:
            overload.weigh(0)
        for tier in away:
            gone = overload.turns_away(by(tier))
            if number > 1000:
                total += 1
                away[tier] += gone
    each = total / 3
    assert away["stranger"] == pytest.approx(each, rel=0.01)
    assert away["basic"] == pytest.approx(each * 0.2, rel=0.25)
    assert away["enterprise"] == 0


def test_nobody_claims_more_than_the_tier_allows() -> None:
    overload = make()
    assert overload.rank({}) == 0
    assert overload.rank(by("nobody", "urgent")) == 0
    assert overload.rank(by("basic", "urgent")) == overload.rank(by("basic"))
    assert overload.rank(by("basic", "low")) < overload.rank(by("basic"))
    assert overload.rank(by("enterprise", "urgent")) > overload.rank(by("enterprise"))
    assert overload.rank({b"x-api-key": b"tg-enterprise"}) == overload.rank(by("enterprise"))


@pytest.mark.parametrize(
    ("path", "fields", "part"),
    [
        (b"/v1/chat/completions", {}, b'{"error":{"message"'),
        (b"/v1/messages", {}, b'{"type":"error","error":{"type":"overloaded_error"'),
        (b"/v1/models", {b"anthropic-version": b"1"}, b'{"type":"error"'),
        (b"/workers/x/y", {}, b'{"error":"'),
    ],
)
def test_refusals_speak_the_callers_dialect(path: bytes, fields: dict[bytes, bytes], part: bytes) -> None:
    """And ask to come back at different times."""
    overload = make()
    overload.pressure = 1.0
    overload._shares = [1.0] * 8
    door = Door(overload, (b"/livez",).__contains__, Ids(), Clock())
    assert door.answer(b"/livez", fields) is None
    answers = [door.answer(path, fields) for _ in range(50)]
    waits, ids = set(), set()
    for answer in answers:
        assert answer is not None
        headers, body = dict(answer[0]), answer[1]
        assert body.startswith(part)
        assert b"gateway_overloaded" in body or path == b"/v1/messages" or fields
        assert headers[b"content-length"] == b"%d" % len(body)
        assert int(headers[b"retry-after"]) * 1000 >= int(headers[b"retry-after-ms"]) >= 500
        waits.add(headers[b"retry-after-ms"])
        ids.add(headers[b"x-request-id"])
    assert len(waits) > 30
    assert len(ids) == 50
