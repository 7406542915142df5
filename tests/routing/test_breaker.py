"""The circuit breaker by itself, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.clock import ManualClock
from gateway.routing.breaker import Breaker
from gateway.routing.rules import BreakerRules

RULES = BreakerRules(consecutive_failures=5, error_percent=50, min_calls=20, window_s=30, open_s=5, longest_open_s=60)


class Bench:
    def __init__(self, clock: ManualClock, rules: BreakerRules = RULES) -> None:
        self.clock = clock
        self.told: list[tuple[str, str]] = []
        self.breaker = Breaker("p", "m", rules, lambda breaker, why: self.told.append((breaker.state, why)))

    def good(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.succeeded(self.clock.now_ns(), self.clock.now_ns())

    def bad(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.clock.now_ns(), self.clock.now_ns())

    def is_out(self) -> bool:
        return self.breaker.is_out(self.clock.now_ns())


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


def test_consecutive_failures_open_it(bench: Bench) -> None:
    bench.bad(4)
    bench.good()
    bench.bad(4)
    assert bench.breaker.state == "closed"
    bench.bad()
    assert bench.breaker.state == "open"
    assert bench.is_out()
    assert bench.told == [("open", "5 failures one after the other")]


def test_the_error_rate_opens_it_once_there_are_enough_calls(bench: Bench) -> None:
    for _ in range(9):
        bench.bad()
        bench.good()
    assert bench.breaker.state == "closed"  # 18 calls: too few to judge
    bench.good()
    bench.bad()
    assert bench.breaker.state == "open"
    assert bench.told[0][1] == "10 of 20 calls failed"


def test_the_window_forgets(bench: Bench) -> None:
    for _ in range(9):
        bench.bad()
        bench.good()
    bench.clock.advance(31)
    bench.good()
    bench.bad()
    assert bench.breaker.state == "closed"
    assert bench.breaker.counts(bench.clock.now_ns()) == (1, 1)
    bench.clock.advance(16)
    bench.good()
    assert bench.breaker.counts(bench.clock.now_ns()) == (2, 1)
    bench.clock.advance(16)
    assert bench.breaker.counts(bench.clock.now_ns()) == (1, 0)


def test_half_open_lets_one_prove_at_a_time(bench: Bench) -> None:
    bench.bad(5)
    bench.clock.advance(4.9)
    assert bench.is_out()
    bench.clock.advance(0.2)
    assert not bench.is_out()
    assert bench.breaker.state == "half_open"
    bench.breaker.prober = object()
    assert bench.is_out()
    bench.breaker.prober = None
    bench.good()
    assert bench.breaker.state == "half_open"
    bench.good()
    assert bench.breaker.state == "closed"
    assert not bench.is_out()
    assert bench.breaker.counts(bench.clock.now_ns()) == (0, 0)


def test_a_failed_probe_opens_it_for_twice_as_long(bench: Bench) -> None:
    bench.bad(5)
    for open_s in (5, 10, 20, 40, 60, 60):
        bench.clock.advance(open_s - 0.1)
        assert bench.is_out(), open_s
        bench.clock.advance(0.2)
        assert not bench.is_out(), open_s
        bench.bad()
        assert bench.breaker.state == "open"


def test_what_was_under_way_when_it_opened_proves_nothing(bench: Bench) -> None:
    began = bench.clock.now_ns()
    bench.clock.advance(1)
    bench.bad(5)
    bench.clock.advance(6)
    assert not bench.is_out()
    for _ in range(3):
        bench.breaker.succeeded(began, bench.clock.now_ns())
    assert bench.breaker.state == "half_open"
    bench.breaker.failed(began, bench.clock.now_ns())
    assert bench.breaker.state == "half_open"


def test_free_probes_postpone_but_not_for_ever(bench: Bench) -> None:
    bench.bad(5)
    for _ in range(40):
        bench.breaker.postpone(bench.clock.now_ns() + 3_000_000_000)
        bench.clock.advance(2)
        if not bench.is_out():
            break
    assert 59 <= (bench.clock.now_ns() - 1_000_000_000_000) / 1e9 <= 63


@pytest.mark.parametrize("model", ["", "m"])
def test_being_reachable_is_proof_for_the_provider_only(clock: ManualClock, model: str) -> None:
    breaker = Breaker("p", model, RULES, lambda breaker, why: None)
    for _ in range(5):
        breaker.failed(clock.now_ns(), clock.now_ns())
    breaker.reachable(clock.now_ns())
    assert breaker.state == ("open" if model else "half_open")


def test_other_rules_hold_from_a_reload_on(bench: Bench, routed: Callable[..., object]) -> None:
    bench.bad(2)
    bench.breaker.rule(BreakerRules(consecutive_failures=3))
    bench.bad()
    assert bench.breaker.state == "open"
