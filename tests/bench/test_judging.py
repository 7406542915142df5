"""Figures are held against the goals; what was not measured is neither met nor missed."""

from __future__ import annotations

import pytest

from loadtests.bench import goals, table
from loadtests.bench.cases import BURST, PACED, SMALL_32
from loadtests.bench.load import Sample
from loadtests.bench.results import CAPACITY, DIRECT, Facts, Proof, Results

NOISE = {"busy": 1.0, "foreign": 0.0, "load_busy": 0.5}


def results(ours_us: float = 100.0, responder_per_s: float = 100_000.0, growth_mb: float = 0.0) -> Results:
    """A run in which Envoy takes 100 us a request and a chunk, nginx 10, and ours `ours_us` everywhere."""
    found = Results({}, {})
    for name, cost in (("tidegate", ours_us), ("nginx", 10.0), ("envoy", 100.0)):
        found.systems[name] = Facts(name, [], [0.5], 50.0, 60.0)
        plain = {"cpu_us": cost, "requests_per_s": 1e6 / cost / 10, "p50_ms": 1.0, "p99_ms": 2.0, **NOISE}
        found.samples.append(Sample(name, SMALL_32.name, 1000, 0, plain))
        for case in (PACED, BURST):
            chunks = {"cpu_us": cost / 10, "chunks_per_s": 1.0, "first_byte_ms": 0.4, "first_byte_p99_ms": 1.0, **NOISE}
            found.samples.append(Sample(name, case.name, 10, 0, chunks))
    bare = {"cpu_us": 5.0, "requests_per_s": responder_per_s, "p50_ms": 1.0, "p99_ms": 1.0, **NOISE}
    found.samples.append(Sample(CAPACITY, SMALL_32.name, 1000, 0, bare))
    first = {"cpu_us": 5.0, "chunks_per_s": 1.0, "first_byte_ms": 0.1, "first_byte_p99_ms": 0.1, **NOISE}
    found.samples.append(Sample(DIRECT, PACED.name, 10, 0, first))
    found.soak = [(100, 60.0), (1000, 60.0 + growth_mb)]
    found.clients = {10: [100.0], 10_000: [105.0]}
    found.clients_ready_s = {10: 0.5, 10_000: 0.9}
    found.goals = goals.judge(found)
    return found


def said(found: Results) -> dict[str, bool | None]:
    return {goal.name: goal.met for goal in found.goals}


def test_what_meets_every_goal_but_one_names_it() -> None:
    found = results(ours_us=120.0)
    assert [name for name, met in said(found).items() if met is False] == ["CPU a chunk, bursts / nginx's"]
    assert not table.ok(found)
    assert table.report(found).splitlines()[-1].startswith("bench FAILED: 8 goals met, 1 missed (CPU a chunk, bursts")


def test_everything_met() -> None:
    found = results(ours_us=12.0)
    assert set(said(found).values()) == {True}
    assert table.ok(found)
    assert table.summary(found).startswith("bench ok: 9 goals met, 0 missed")


def test_cost_beyond_envoys_share_is_missed() -> None:
    assert said(results(ours_us=151.0))["CPU a request / Envoy's"] is False
    assert said(results(ours_us=149.0))["CPU a request / Envoy's"] is True


def test_a_responder_that_may_be_the_bottleneck_fails_the_run() -> None:
    slow = results(ours_us=12.0, responder_per_s=15_000.0)
    assert said(slow)["responder's rate / fastest system's"] is False
    assert not table.ok(slow)


def test_growing_memory_is_missed() -> None:
    assert said(results(growth_mb=6.0))["growth of memory over 1,000 requests"] is False


def test_a_failed_proof_fails_the_run() -> None:
    found = results(ours_us=12.0)
    found.proofs = [Proof("a ledger row for each call", False, "9 of 10")]
    assert not table.ok(found)
    assert "1 of 1 proofs failed" in table.summary(found)


def test_a_missing_peer_leaves_its_goals_open() -> None:
    found = results(ours_us=12.0)
    found.samples = [sample for sample in found.samples if sample.target != "envoy"]
    open_goals = [goal.name for goal in goals.judge(found) if goal.met is None]
    assert open_goals == ["CPU a request / Envoy's", "CPU a chunk, paced / Envoy's"]


def test_first_byte_is_held_against_the_same_load_without_a_proxy() -> None:
    assert goals.first_byte_ms(results(), "tidegate") == pytest.approx(0.3)
