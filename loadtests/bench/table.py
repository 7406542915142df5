"""The printed report: plain text that reads the same on a terminal, in a pipe and in a log."""

from __future__ import annotations

from statistics import median

from loadtests.bench import goals
from loadtests.bench.load import NOISY
from loadtests.bench.results import CAPACITY, DIRECT, Goal, Results

SPREAD = "(least..most)"


def report(results: Results) -> str:
    """Settings, figures by case, proofs and goals; the last line sums up."""
    parts = [_settings(results)]
    parts += [_requests(results), _streams(results), _own(results), _noise(results), _proofs(results)]
    return "\n\n".join(part for part in (*parts, _goals(results), summary(results)) if part)


def _settings(results: Results) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in results.machine.items())]
    lines += [f"{name}: {facts.what}; {'; '.join(facts.settings)}" for name, facts in results.systems.items()]
    return "\n".join(lines)


def _requests(results: Results) -> str:
    head = ["requests", "system", "us a request", SPREAD, "requests/s", "p50 ms", "p99 ms"]
    return _cases(results, head, ("requests_per_s", "p50_ms", "p99_ms"))


def _streams(results: Results) -> str:
    head = ["streams", "system", "us a chunk", SPREAD, "chunks/s", "first byte ms", "p99 ms"]
    return _cases(results, head, ("chunks_per_s", "first_byte_ms", "first_byte_p99_ms"))


def _cases(results: Results, head: list[str], figures: tuple[str, ...]) -> str:
    """The cases that have these figures, each with all systems and, for scale, what goes without a proxy."""
    rows = [[*head, "core used", "failed"]]
    for case in dict.fromkeys(sample.case for sample in results.samples if figures[0] in sample.figures):
        for name in (*results.systems, DIRECT, CAPACITY):
            if samples := results.of(name, case):
                costs = results.values(name, case, "cpu_us")
                spread = f"({_number(min(costs))}..{_number(max(costs))})"
                shown = [_number(results.median(name, case, figure)) for figure in figures]
                busy = f"{median(results.values(name, case, 'busy')):.0%}"
                failed = str(sum(sample.failed for sample in samples))
                rows.append([case, name, _number(median(costs)), spread, *shown, busy, failed])
    return table(rows)


def _own(results: Results) -> str:
    rows = [["system", "ready s", "idle MB", "loaded MB", "first byte added ms"]]
    for name, facts in results.systems.items():
        memory = [_number(facts.idle_mb), _number(facts.loaded_mb)]
        rows.append([name, _number(median(facts.ready_s)), *memory, _number(goals.first_byte_ms(results, name))])
    lines = [table(rows)]
    if results.soak:
        lines.append("memory over the soak: " + ", ".join(f"{mb:.1f} MB at {n:,}" for n, mb in results.soak))
    for clients, values in results.clients.items():
        ready = _number(results.clients_ready_s[clients])
        first = _number(results.clients_first.get(clients))
        lines.append(
            f"{clients:,} clients: {_number(median(values))} us a request ({first} the first one's), ready in {ready} s"
        )
    return "\n".join(lines)


def _noise(results: Results) -> str:
    noisy, windows = results.noise()
    if not noisy:
        return ""
    return f"NOISE: in {noisy} of {windows} windows others used more than {NOISY:.0%} of the system's core"


def _proofs(results: Results) -> str:
    return "\n".join(f"{'ok  ' if proof.holds else 'FAIL'}  {proof.what}: {proof.seen}" for proof in results.proofs)


def _goals(results: Results) -> str:
    rows = [["goal", "measured", "limit", ""]]
    for goal in results.goals:
        sign = ">=" if goal.at_least else "<="
        said = {True: "met", False: "MISSED", None: "not measured"}[goal.met]
        rows.append([goal.name, f"{_number(goal.value)} {goal.unit}", f"{sign} {goal.limit:g} {goal.unit}", said])
    return table(rows)


def ok(results: Results) -> bool:
    """Nothing missed, nothing unproved."""
    return not _missed(results) and all(proof.holds for proof in results.proofs if proof.decides)


def _missed(results: Results) -> list[Goal]:
    return [goal for goal in results.goals if goal.met is False]


def summary(results: Results) -> str:
    """One line: goals met, missed (which), not measured; proofs that failed."""
    missed = ", ".join(f"{goal.name}: {_number(goal.value)} {goal.unit}" for goal in _missed(results))
    unmeasured = sum(goal.met is None for goal in results.goals)
    failed = sum(not proof.holds for proof in results.proofs)
    parts = [
        f"{sum(goal.met is True for goal in results.goals)} goals met",
        f"{len(_missed(results))} missed" + (f" ({missed})" if missed else ""),
        f"{unmeasured} not measured",
        f"{failed} of {len(results.proofs)} proofs failed",
    ]
    return f"bench {'ok' if ok(results) else 'FAILED'}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, the first two to the left. Empty without a second row."""
    if len(rows) < 2:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[:2] = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
