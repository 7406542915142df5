"""Scripts and plans are read strictly, and rules act when they say."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.demo import DemoSettings
from gateway.demo.plan import Plan, read_rule
from gateway.demo.script import Cut, parse, parse_text


def test_a_script_is_read() -> None:
    script = parse_text(
        "status=503; retry-after=date:5; latency-ms=1.5; die=after:3; gzip; no_usage; remaining-tokens=0"
    )
    assert (script.status, script.retry_after, script.latency_ms) == (503, "date:5", 1.5)
    assert script.cut == Cut("die", 3)
    assert (script.gzip, script.usage) == (True, "no")
    assert script.limits == {"remaining_tokens": "0"}
    assert script.shapes
    assert script.delays


def test_nothing_changes_nothing() -> None:
    script = parse_text(" ; ")
    assert not script.shapes
    assert not script.delays


def test_a_table_says_the_same_as_a_text() -> None:
    table = parse({"status": 500, "gzip": True, "html": False, "chunks": 3, "cached": None})
    assert (table.status, table.gzip, table.html, table.chunks, table.cached) == (500, True, False, 3, 0)


@pytest.mark.parametrize(
    "text",
    [
        "stats=1",
        "status=99",
        "status=x",
        "chunks=-1",
        "slice=0",
        "latency-ms=-1",
        "latency-ms=nan",
        "die=soon",
        "reset=after:",
        "early=maybe",
        "header=nothing",
        "wrong-length=much",
        "overloaded=before:2",
    ],
)
def test_bad_scripts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="x-fake"):
        parse_text(text)


def met(rule: dict[str, Any], calls: int = 12, at: float = 0.0) -> list[int]:
    """The numbers of the calls on which a rule acts."""
    plan = Plan.read([{"fake": "status=500", **rule}], 0.0)
    return [number for number in range(1, calls + 1) if plan.script_for("m", "/v1/x", "k", at) is not None]


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ({}, list(range(1, 13))),
        ({"nth": 3}, [3]),
        ({"nth": [1, 4]}, [1, 4]),
        ({"every": 5}, [5, 10]),
        ({"every": 5, "from": 2}, [2, 7, 12]),
        ({"from": 10}, [10, 11, 12]),
        ({"until": 2}, [1, 2]),
        ({"times": 3}, [1, 2, 3]),
        ({"model": "other"}, []),
        ({"model": "?"}, list(range(1, 13))),
        ({"path": "/v1/*", "nth": 1}, [1]),
        ({"key": "x"}, []),
    ],
)
def test_a_rule_acts_on_its_calls(rule: dict[str, Any], numbers: list[int]) -> None:
    assert met(rule) == numbers


@pytest.mark.parametrize(("at", "acts"), [(0.5, False), (1.0, True), (2.9, True), (3.0, False)])
def test_a_rule_acts_in_its_window(at: float, acts: bool) -> None:
    assert bool(met({"after_s": 1, "for_s": 2}, at=at)) is acts


def test_the_first_rule_that_acts_decides() -> None:
    plan = Plan.read([{"nth": 2, "fake": "status=500"}, {"fake": {"status": 429}}], 0.0)
    statuses = [found[0].status for _ in range(3) if (found := plan.script_for("m", "/", "", 0.0))]
    assert statuses == [429, 500, 429]


@pytest.mark.parametrize(
    "rule", [{}, {"fake": "stats=1"}, {"fake": "html", "modle": "x"}, {"fake": "html", "every": 0}]
)
def test_bad_rules_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"plan|x-fake"):
        read_rule(rule)


@pytest.mark.parametrize("bad", [{"slots": 0}, {"output_tokens": -1}, {"over": "maybe"}, {"count": "words"}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DemoSettings(**bad)
