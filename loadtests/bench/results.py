"""What a run found, gathered while it runs, and the two JSON files made of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.bench.cases import BURST, PACED, SMALL_32
from loadtests.bench.load import NOISY, Sample

DIRECT = "direct"  # no proxy: generator and responder both on the load's core
CAPACITY = "capacity"  # no proxy: the generator on the system's core, so that the responder has its core alone


@dataclass(frozen=True)
class Proof:
    """Something that must be true for the figures to mean what they say."""

    what: str
    holds: bool
    seen: str
    decides: bool = True  # False: of a system that no goal compares us with; told, but the run is not judged by it


@dataclass(frozen=True)
class Goal:
    """One target of the design. `value` None: not measured in this run, so neither met nor missed."""

    name: str
    value: float | None
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Facts:
    """Of one system, besides its samples. Memory in MB of 10^6 bytes, resident, whole process tree."""

    what: str
    settings: list[str]
    ready_s: list[float] = field(default_factory=list)
    idle_mb: float = 0.0
    loaded_mb: float = 0.0


@dataclass
class Results:
    """All samples of a run, and what was measured besides them."""

    machine: dict[str, str]
    plan: dict[str, Any]
    systems: dict[str, Facts] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    soak: list[tuple[int, float]] = field(default_factory=list)  # requests so far, MB
    clients: dict[int, list[float]] = field(default_factory=dict)  # configured clients: us a request, a round each
    clients_first: dict[int, float] = field(default_factory=dict)  # us of each client's first request
    clients_ready_s: dict[int, float] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def of(self, target: str, case: str) -> list[Sample]:
        return [sample for sample in self.samples if (sample.target, sample.case) == (target, case)]

    def values(self, target: str, case: str, figure: str) -> list[float]:
        return [sample.figures[figure] for sample in self.of(target, case)]

    def median(self, target: str, case: str, figure: str) -> float | None:
        values = self.values(target, case, figure)
        return median(values) if values else None

    def failures(self) -> dict[str, int]:
        """Refused, cut or incomplete, by system."""
        found: dict[str, int] = {}
        for sample in self.samples:
            found[sample.target] = found.get(sample.target, 0) + sample.failed
        return found

    def noise(self) -> tuple[int, int]:
        """Windows on systems in which others used more than NOISY of the core, and all windows on systems."""
        foreign = [sample.figures["foreign"] for sample in self.samples if sample.target in self.systems]
        return sum(share > NOISY for share in foreign), len(foreign)

    def short(self) -> dict[str, dict[str, float | None]]:
        """The figures that are compared from release to release: medians at concurrency 32 and 1.2 KB."""
        return {name: self._headline(name) for name in self.systems}

    def _headline(self, name: str) -> dict[str, float | None]:
        return {
            "cpu_us_per_request": _rounded(self.median(name, SMALL_32.name, "cpu_us")),
            "requests_per_s": _rounded(self.median(name, SMALL_32.name, "requests_per_s")),
            "p50_ms": _rounded(self.median(name, SMALL_32.name, "p50_ms")),
            "p99_ms": _rounded(self.median(name, SMALL_32.name, "p99_ms")),
            "rss_mb": _rounded(self.systems[name].idle_mb),
            "cpu_us_per_chunk_paced": _rounded(self.median(name, PACED.name, "cpu_us")),
            "cpu_us_per_chunk_burst": _rounded(self.median(name, BURST.name, "cpu_us")),
        }

    def full(self) -> dict[str, Any]:
        """Everything: each case of each system with median, least and most over the rounds."""
        return {
            "machine": self.machine,
            "plan": self.plan,
            "noisy_windows": dict(zip(("noisy", "all"), self.noise(), strict=True)),
            "systems": {name: {**asdict(facts), "cases": self._cases(name)} for name, facts in self.systems.items()},
            "no_proxy": {name: self._cases(name) for name in (DIRECT, CAPACITY)},
            "soak": [{"requests": requests, "rss_mb": _rounded(mb)} for requests, mb in self.soak],
            "clients": {str(n): [_rounded(value) for value in values] for n, values in self.clients.items()},
            "clients_first": {str(n): _rounded(value) for n, value in self.clients_first.items()},
            "clients_ready_s": {str(n): _rounded(value) for n, value in self.clients_ready_s.items()},
            "proofs": [asdict(proof) for proof in self.proofs],
            "goals": [{**asdict(goal), "value": _rounded(goal.value), "met": goal.met} for goal in self.goals],
        }

    def _cases(self, target: str) -> dict[str, Any]:
        names = dict.fromkeys(sample.case for sample in self.samples if sample.target == target)
        return {name: self._case(target, name) for name in names}

    def _case(self, target: str, case: str) -> dict[str, Any]:
        samples = self.of(target, case)
        reasons: dict[str, int] = {}
        for sample in samples:
            for reason, count in sample.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        spread = {figure: self._spread(target, case, figure) for figure in samples[0].figures}
        counts = {"completed": sum(s.completed for s in samples), "failed": sum(s.failed for s in samples)}
        return {**spread, **counts, "reasons": reasons}

    def _spread(self, target: str, case: str, figure: str) -> dict[str, float | None]:
        values = self.values(target, case, figure)
        return {"median": _rounded(median(values)), "min": _rounded(min(values)), "max": _rounded(max(values))}

    def write(self, build: Path) -> None:
        (build / "bench.json").write_text(json.dumps(self.short(), indent=2) + "\n")
        (build / "bench-full.json").write_text(json.dumps(self.full(), indent=1) + "\n")


def _rounded(value: float | None) -> float | None:
    """Four significant digits; what is not a number is not written as one."""
    return float(f"{value:.4g}") if value is not None and value == value else None
