#!/usr/bin/env python3
"""Writes docs/performance.md, docs/performance.svg and README's table from what `make bench` left in build/.

    scripts/plot_bench.py [--build build] [--docs docs] [--readme README.md]

The page is made whole, text and figures, so that no figure in it was typed by hand.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

PANELS = (
    ("cpu_us_per_request", "CPU of a request, µs (1.2 KB, 32 at once)"),
    ("cpu_us_per_chunk_paced", "CPU of a streamed chunk, µs (32 streams, one chunk each 5 ms)"),
    ("cpu_us_per_chunk_burst", "CPU of a streamed chunk, µs (32 streams, as fast as they go)"),
)
COLUMNS = (
    ("cpu_us_per_request", "µs a request"),
    ("requests_per_s", "requests/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("rss_mb", "idle MB"),
    ("cpu_us_per_chunk_paced", "µs a chunk, paced"),
    ("cpu_us_per_chunk_burst", "µs a chunk, bursts"),
)
OURS = "tidegate"
WIDTH, LABEL, BAR, GAP, TITLE = 720, 90, 18, 6, 34

BEGIN, END = "<!-- written by scripts/plot_bench.py -->", "<!-- until here -->"

PAGE = """\
# Performance

<!-- Written by scripts/plot_bench.py from the results of `make bench`; change it there. -->

What a request and a streamed chunk cost in processor time, and what that means for rate and waiting, beside plain
proxies in the same run. `make bench` measures it again on your machine in about three minutes, `make bench-peers`
with other AI gateways as well; then `scripts/plot_bench.py` writes this page.

![Processor time by system](performance.svg)

{headline}

{settings}

## How it is measured

- The system under test has one core to itself. The provider (a C program with canned answers), the load generators
  (wrk for requests, a C program for streams) and the harness share the other one.
- Processor time is that of the whole process tree, user and kernel, over a window inside the load, divided by what came
  through in that window. Each figure is the median over rounds in which the systems take turns, with the least and the
  most beside it. Where a program other than the system used more than 5 % of its core, a headline window is
  measured again.
- Requests carry the headers that the OpenAI SDK sends. No two chunks of a stream are alike. A stream counts only if
  every chunk came once and in order, then the end marker, then the proper end of the message.
- In front of ours every policy runs: before the measuring, one curl shows it by what comes back; after it, the ledger
  must hold one row for each call that was sent.
- The provider alone answers {margin} times as fast as the fastest system in front of it: *(capacity)* below, with the
  generator on the other core. *(direct)* is the load without a proxy, generator and provider on one core; a system's
  first byte is held against it.

## Requests

{requests}

## Streams

{streams}

## Memory, start and many clients

{own}

## Targets

{goals}

Measured on: {machine}. In {noise} windows other programs used more than 5 % of the system's core: the more of them, the
less the figures are worth.
"""


def main() -> None:
    options = _options()
    short = json.loads((options.build / "bench.json").read_text())
    full = json.loads((options.build / "bench-full.json").read_text())
    (options.docs / "performance.svg").write_text(svg(short))
    (options.docs / "performance.md").write_text(page(short, full))
    if {OURS, "envoy"} <= set(short):
        options.readme.write_text(with_table(options.readme.read_text(), short, full))


def with_table(text: str, short: dict[str, Any], full: dict[str, Any]) -> str:
    """README with the table of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_headline(short)}\n\n{_told(short, full)}\n{END}{after}"


def page(short: dict[str, Any], full: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    margin = next((goal["value"] for goal in full["goals"] if goal["name"].startswith("responder")), None)
    return PAGE.format(
        headline=_headline(short),
        settings="\n".join(
            f"- **{name}**: {s['what']}; {'; '.join(s['settings'])}" for name, s in full["systems"].items()
        ),
        margin=_number(margin),
        requests=_cases(full, "requests_per_s", ("requests_per_s", "p50_ms", "p99_ms")),
        streams=_cases(full, "chunks_per_s", ("chunks_per_s", "first_byte_ms", "first_byte_p99_ms")),
        own=_own(full),
        goals=_goals(full),
        noise="{noisy} of {all}".format(**full["noisy_windows"]),
        machine=_machine(full),
    )


def _headline(short: dict[str, Any]) -> str:
    rows = [[name, *(_number(figures[key]) for key, _ in COLUMNS)] for name, figures in short.items()]
    return _table(["system", *(title for _, title in COLUMNS)], rows)


def _told(short: dict[str, Any], full: dict[str, Any]) -> str:
    """What stands below the table in README."""
    goals = full["goals"]
    met = sum(1 for goal in goals if goal["met"])
    ratio = short[OURS]["cpu_us_per_request"] / short["envoy"]["cpu_us_per_request"]
    return (
        f"Measured on: {_machine(full)}; every policy on, a ledger row for each call. A request costs {ratio:.1f} "
        f"times Envoy's; {met} of {len(goals)} targets are met, all of them stand in the page."
    )


def _machine(full: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in full["machine"].items())


def _cases(full: dict[str, Any], mark: str, figures: tuple[str, ...]) -> str:
    rows = []
    systems = {name: system["cases"] for name, system in full["systems"].items()}
    for case in dict.fromkeys(case for cases in systems.values() for case in cases):
        for name, cases in {**systems, **{f"({n})": cases for n, cases in full["no_proxy"].items()}}.items():
            if mark in cases.get(case, {}):
                found = cases[case]
                cost = found["cpu_us"]
                spread = f"{_number(cost['median'])} ({_number(cost['min'])}..{_number(cost['max'])})"
                shown = [_number(found[figure]["median"]) for figure in figures]
                rows.append([case, name, spread, *shown, str(found["failed"])])
    return _table(["load", "system", "µs each (least..most)", *(f.replace("_", " ") for f in figures), "failed"], rows)


def _own(full: dict[str, Any]) -> str:
    rows = [
        [
            name,
            *(_number(value) for value in (sorted(s["ready_s"])[len(s["ready_s"]) // 2], s["idle_mb"], s["loaded_mb"])),
        ]
        for name, s in full["systems"].items()
    ]
    parts = [_table(["system", "ready after s", "idle MB", "MB after the load"], rows)]
    if full["soak"]:
        points = ", ".join(f"{_number(p['rss_mb'])} at {p['requests']:,}" for p in full["soak"])
        parts.append(f"Ours over the soak, MB at so many requests: {points}.")
    for clients, costs in full["clients"].items():
        costs = sorted(costs)
        median = _number(costs[len(costs) // 2])
        line = f"With {int(clients):,} clients, their keys in turn: {median} µs a request ({_range(costs)})"
        first = full.get("clients_first", {}).get(clients)
        parts.append(
            f"{line}, {_number(first)} µs each client's first." if first and int(clients) > 1000 else f"{line}."
        )
    return "\n\n".join(parts)


def _range(values: list[float]) -> str:
    return f"{_number(values[0])}..{_number(values[-1])}"


def _goals(full: dict[str, Any]) -> str:
    said = {True: "met", False: "**missed**", None: "not measured"}
    rows = [
        [
            g["name"],
            f"{_number(g['value'])} {g['unit']}",
            f"{'≥' if g['at_least'] else '≤'} {g['limit']:g} {g['unit']}",
            said[g["met"]],
        ]
        for g in full["goals"]
    ]
    return _table(["target", "measured", "limit", ""], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def svg(short: dict[str, Any]) -> str:
    """Bars by system, a panel a figure; the scale is logarithmic where the figures lie far apart."""
    parts, top = [], 8
    for key, title in PANELS:
        values = {name: figures[key] for name, figures in short.items() if figures[key] is not None}
        parts.append(f'<text x="{LABEL}" y="{top + 18}" class="title">{escape(title)}{_scale_note(values)}</text>')
        top += TITLE
        for name, value in values.items():
            parts += _bar(name, value, list(values.values()), top)
            top += BAR + GAP
    style = (
        "text{font:13px sans-serif;fill:#57606a}.title{font-weight:600}.bar{fill:#8c959f}.ours{fill:#0969da}"
        "@media(prefers-color-scheme:dark){text{fill:#9198a1}.ours{fill:#4493f8}}"
    )
    size = f'width="{WIDTH}" height="{top + 8}" viewBox="0 0 {WIDTH} {top + 8}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{style}</style>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _bar(name: str, value: float, values: list[float], top: float) -> list[str]:
    room = WIDTH - LABEL - 80
    length = max(2.0, room * _share(value, values))
    kind = "ours" if name == OURS else "bar"
    return [
        f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        f'<text x="{LABEL + length + 6:.1f}" y="{top + 13}">{_number(value)}</text>',
    ]


def _far_apart(values: list[float]) -> bool:
    return max(values) / min(values) > 20


def _scale_note(values: dict[str, float]) -> str:
    return ", logarithmic" if values and _far_apart(list(values.values())) else ""


def _share(value: float, values: list[float]) -> float:
    """Part of the widest bar, linear or, from half the least figure on, logarithmic."""
    if not _far_apart(values):
        return value / max(values)
    least = min(values) / 2
    return math.log(value / least) / math.log(max(values) / least)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
