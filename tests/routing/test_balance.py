"""The order in which targets are tried: weights, latency, calls under way, and what is out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.prices import Prices
from gateway.providers import KINDS
from gateway.providers.base import Provider
from gateway.routing.routing import Routing
from gateway.targets import Target


def target(name: str, weight: int = 0) -> Target:
    provider = Provider(name, KINDS["openai"], f"http://{name}.invalid/v1", b"/v1", client=None)  # type: ignore[arg-type]
    return Target(provider, "m", "x", Prices({}).quote("openai", name, "m", "x"), weight=weight)


def seen(routing: Routing, one: Target, latency_ms: float, clock: ManualClock, times: int = 1) -> None:
    standing = routing.standings.of(one)
    for _ in range(times):
        now = clock.now_ns()
        standing.succeeded(now - round(latency_ms * 1e6), now)


def shares(routing: Routing, targets: list[Target], calls: int = 4000) -> dict[str, float]:
    first = Counter(routing.rank(targets)[0].provider.name for _ in range(calls))
    return {name: count / calls for name, count in first.items()}


def names(targets: list[Target]) -> list[str]:
    return [one.provider.name for one in targets]


def test_targets_without_a_weight_stay_in_order(routed: Callable[..., Routing]) -> None:
    routing, targets = routed(), [target("a"), target("b"), target("c")]
    assert all(names(routing.rank(targets)) == ["a", "b", "c"] for _ in range(50))
    assert routing.rank(targets[:1]) == targets[:1]


def test_weights_share_the_load(routed: Callable[..., Routing], clock: ManualClock) -> None:
    routing, targets = routed(), [target("a", 3), target("b", 1)]
    for one in targets:
        seen(routing, one, 100, clock)
    assert shares(routing, targets)["a"] == pytest.approx(0.75, abs=0.03)


def test_groups_stay_in_their_places(routed: Callable[..., Routing]) -> None:
    routing, targets = routed(), [target("a"), target("b", 1), target("c", 1), target("d"), target("e", 2)]
    ranked = [names(routing.rank(targets)) for _ in range(200)]
    assert {(one[0], one[3], one[4]) for one in ranked} == {("a", "d", "e")}
    assert {tuple(one[1:3]) for one in ranked} == {("b", "c"), ("c", "b")}


def test_the_slower_and_the_busier_of_two_gets_less(routed: Callable[..., Routing], clock: ManualClock) -> None:
    routing, targets = routed(), [target("a", 1), target("b", 1)]
    seen(routing, targets[0], 100, clock)
    seen(routing, targets[1], 1000, clock)
    assert shares(routing, targets)["b"] == pytest.approx(0.25, abs=0.03)  # only where both draws are it
    routing.standings.of(targets[0]).outstanding = 50
    assert shares(routing, targets)["b"] == pytest.approx(0.75, abs=0.03)


def test_a_peak_counts_at_once_and_is_forgotten_slowly(routed: Callable[..., Routing], clock: ManualClock) -> None:
    routing, one = routed(), target("a", 1)
    seen(routing, one, 100, clock)
    seen(routing, one, 2000, clock)
    standing = routing.standings.of(one)
    assert standing.latency_ns == 2e9
    clock.advance(1)
    seen(routing, one, 100, clock)
    assert 1.5e9 < standing.latency_ns < 2e9
    for _ in range(60):
        clock.advance(1)
        seen(routing, one, 100, clock)
    assert standing.latency_ns < 0.12e9


def open_(routing: Routing, one: Target, clock: ManualClock) -> None:
    for _ in range(5):
        routing.standings.of(one).breaker.failed(clock.now_ns(), clock.now_ns())
    clock.advance(0.001)


@pytest.mark.parametrize(("count", "opened", "out"), [(1, 1, 0), (2, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2), (5, 2, 2)])
def test_at_most_half_of_the_targets_are_ejected(
    routed: Callable[..., Routing], clock: ManualClock, count: int, opened: int, out: int
) -> None:
    routing, targets = routed(), [target(f"t{i}") for i in range(count)]
    for one in targets[:opened]:
        open_(routing, one, clock)
    assert names(routing.out(targets, clock.now_ns())) == [f"t{i}" for i in range(out)]
    ranked = names(routing.rank(targets))
    assert ranked == [f"t{i}" for i in range(out, count)] + [f"t{i}" for i in range(out)]


def test_connection_failures_count_for_all_models_of_a_provider(
    routed: Callable[..., Routing], clock: ManualClock
) -> None:
    routing = routed()
    one = target("a")
    other, third = replace(one, upstream_model="y"), target("b")
    for _ in range(5):
        routing.standings.of(one).place.breaker.failed(clock.now_ns(), clock.now_ns())
    assert names(routing.rank([other, third])) == ["b", "a"]
    states = {(row["provider"], row["model"]): row["state"] for row in routing.snapshot()}
    assert states == {("a", ""): "open", ("a", "y"): "closed", ("b", ""): "closed", ("b", "x"): "closed"} | {
        ("a", "x"): "closed"
    }


def test_names_of_models_dont_pile_up(routed: Callable[..., Routing], clock: ManualClock) -> None:
    routing, one = routed(), target("a")
    open_(routing, one, clock)
    for i in range(3000):
        routing.standings.of(replace(one, upstream_model=f"made-up-{i}"))
    rows: list[dict[str, Any]] = routing.snapshot()
    assert len(rows) <= 1100
    assert [row["model"] for row in rows if row["state"] == "open"] == ["x"]
