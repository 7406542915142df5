"""Command line of the benchmark: `python -m loadtests.bench`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from loadtests.bench import machine, table
from loadtests.bench.cases import LONG, SHORT, TINY
from loadtests.bench.errors import BenchError
from loadtests.bench.run import Run
from loadtests.bench.systems import COMPARED, SYSTEMS


def main() -> int:
    """0: measured and every goal met; 1: a goal missed or a proof failed; 2: nothing could be measured."""
    options = _options()
    plan = options.plan
    if options.requests is not None:
        plan = replace(plan, soak_requests=options.requests)
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    try:
        machine.check()
        results = Run(plan, options.systems, options.build).measure()
    except BenchError as error:
        print(f"bench FAILED: {error}")
        return 2
    results.write(options.build)
    print(table.report(results))
    return 0 if table.ok(results) else 1


def _systems(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    for name, plan, what in (
        ("--short", SHORT, "about three minutes (the default)"),
        ("--long", LONG, "more and longer rounds, a soak of a million requests"),
        ("--tiny", TINY, "seconds: whether the harness works, not how fast anything is"),
    ):
        length.add_argument(name, dest="plan", action="store_const", const=plan, help=what)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--systems", type=_systems, default=list(COMPARED), help=f"of {','.join(SYSTEMS)}")
    which.add_argument("--peers", dest="systems", action="store_const", const=list(SYSTEMS), help="all of them")
    parser.set_defaults(plan=SHORT)
    parser.add_argument("--requests", type=int, help="requests of the soak, instead of the plan's")
    parser.add_argument("--rounds", type=int, help="rounds, instead of the plan's")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where results and work files go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
