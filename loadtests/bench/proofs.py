"""What must be true for the figures to mean what they say."""

from __future__ import annotations

from loadtests.bench import answers
from loadtests.bench.results import Proof, Results
from loadtests.bench.systems import COMPARED, SYSTEMS
from loadtests.bench.systems.base import System


def answers_whole(system: System) -> Proof:
    """One real curl: the provider's answer comes whole through the system."""
    answer = answers.curl(system)
    return Proof(
        f"curl through {system.name} gets the provider's answer", answer.whole, answer.seen, _judged(system.name)
    )


def unfailing(requests_sent: int, failed: int) -> Proof:
    return Proof(f"no request of the soak's {requests_sent:,} failed", failed == 0, f"{failed} failed")


def complete(results: Results) -> list[Proof]:
    """Every stream whole, every request answered, by every system."""
    return [
        Proof(f"{name}: every request answered, every stream whole", failed == 0, f"{failed} failed", _judged(name))
        for name, failed in results.failures().items()
    ]


def hidden_usage(results: Results, name: str) -> Proof:
    """A client that did not ask for the usage of a stream gets no usage event, though the gateway reads it."""
    leaked = sum(s.figures["usage_events"] for s in results.samples if s.target == name and "usage_events" in s.figures)
    return Proof(f"{name} hides the usage event that the client did not ask for", leaked == 0, f"{leaked:.0f} shown")


def _judged(name: str) -> bool:
    return name in COMPARED or name not in SYSTEMS
