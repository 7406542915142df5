"""The printed report: plain text that reads the same on a terminal, in a pipe and in a log."""

from __future__ import annotations

from loadtests.bench import goals
from loadtests.bench.cases import PACED
from loadtests.bench.results import CAPACITY, DIRECT, Goal, Results

NOISY = 0.05  # share of the system's core used by others above which a figure deserves a warning


def report(results: Results) -> str:
    """Settings, figures by case, proofs and goals; the last line sums up."""
    parts = [_settings(results)]
    parts += [_requests(results), _streams(results), _own(results), _noise(results), _proofs(results)]
    return "\n\n".join(part for part in (*parts, _goals(results), summary(results)) if part)


def _settings(results: Results) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in results.machine.items())]
    lines += [f"{name}: {facts.what}; {'; '.join(facts.settings)}" for name, facts in results.systems.items()]
    return "\n".join(lines)


def _names(results: Results, *besides: str) -> list[str]:
    return [*results.systems, *besides]


def _case_names(results: Results, figure: str) -> list[str]:
    return list(dict.fromkeys(s.case for s in results.samples if figure in s.figures and s.target not in (DIRECT, CAPACITY)))


def _requests(results: Results) -> str:
    rows = [["requests", "system", "us a request", "(least..most)", "requests/s", "p50 ms", "p99 ms", "core used", "failed"]]
    for case in _case_names(results, "requests_per_s"):
        for name in _names(results, CAPACITY):
            if results.of(name, case):
                figures = ("requests_per_s", "p50_ms", "p99_ms")
                rows.append([case, name, *_cost(results, name, case), *_figures(results, name, case, figures)])
    return table(rows)


def _streams(results: Results) -> str:
    rows = [["streams", "system", "us a chunk", "(least..most)", "chunks/s", "first byte ms", "p99 ms", "core used", "failed"]]
    for case in _case_names(results, "chunks_per_s"):
        for name in _names(results, DIRECT, CAPACITY):
            if results.of(name, case):
                figures = ("chunks_per_s", "first_byte_ms", "first_byte_p99_ms")
                rows.append([case, name, *_cost(results, name, case), *_figures(results, name, case, figures)])
    return table(rows)


def _cost(results: Results, name: str, case: str) -> list[str]:
    values = results.values(name, case, "cpu_us")
    return [_number(results.median(name, case, "cpu_us")), f"({_number(min(values))}..{_number(max(values))})"]


def _figures(results: Results, name: str, case: str, figures: tuple[str, ...]) -> list[str]:
    busy = results.median(name, case, "busy")
    failed = sum(sample.failed for sample in results.of(name, case))
    shown = [_number(results.median(name, case, figure)) for figure in figures]
    return [*shown, "" if busy is None else f"{busy:.0%}", str(failed)]


def _own(results: Results) -> str:
    rows = [["system", "ready s", "idle MB", "loaded MB", "first byte added ms"]]
    for name, facts in results.systems.items():
        added = goals.first_byte_ms(results, name)
        ready = _number(sorted(facts.ready_s)[len(facts.ready_s) // 2]) if facts.ready_s else ""
        rows.append([name, ready, _number(facts.idle_mb), _number(facts.loaded_mb), _number(added)])
    lines = [table(rows)]
    if results.soak:
        lines.append("memory over the soak: " + ", ".join(f"{mb:.1f} MB at {n:,}" for n, mb in results.soak))
    for clients, values in results.clients.items():
        ready = results.clients_ready_s[clients]
        lines.append(f"{clients:,} clients: {_number(sorted(values)[len(values) // 2])} us a request, ready in {ready:.2f} s")
    return "\n".join(lines)


def _noise(results: Results) -> str:
    foreign = [sample.figures["foreign"] for sample in results.samples if sample.target in results.systems]
    noisy = sum(share > NOISY for share in foreign)
    if not noisy:
        return ""
    return f"NOISE: in {noisy} of {len(foreign)} windows others used more than {NOISY:.0%} of the system's core"


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
    """Nothing missed, nothing unproved, nothing failed on the way."""
    return not _missed(results) and all(p.holds for p in results.proofs) and not sum(results.failures().values())


def _missed(results: Results) -> list[Goal]:
    return [goal for goal in results.goals if goal.met is False]


def summary(results: Results) -> str:
    """One line: goals met, missed (which), not measured; proofs that failed; requests and streams that failed."""
    met = sum(goal.met is True for goal in results.goals)
    unmeasured = sum(goal.met is None for goal in results.goals)
    missed = ", ".join(f"{goal.name} {_number(goal.value)} {goal.unit}" for goal in _missed(results))
    parts = [f"{met} goals met", f"{len(_missed(results))} missed" + (f" ({missed})" if missed else "")]
    parts += [f"{unmeasured} not measured"] if unmeasured else []
    parts.append(f"{sum(not p.holds for p in results.proofs)} of {len(results.proofs)} proofs failed")
    parts.append(f"{sum(results.failures().values())} failed requests or streams")
    return f"bench {'ok' if ok(results) else 'FAILED'}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; text to the left, numbers to the right. Empty without a second row."""
    if len(rows) < 2:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if index < 2 else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
