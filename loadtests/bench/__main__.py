"""Command line of the benchmark: `python -m loadtests.bench`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from loadtests.bench import machine, table
from loadtests.bench.cases import LONG, SHORT, TINY
from loadtests.bench.errors import CannotMeasure
from loadtests.bench.run import Run
from loadtests.bench.systems import SYSTEMS

PLANS = {"short": SHORT, "long": LONG, "tiny": TINY}


def main() -> int:
    """0: measured and every goal met; 1: a goal missed or a proof failed; 2: nothing could be measured."""
    options = _options()
    plan = PLANS[options.plan]
    if options.requests is not None:
        plan = replace(plan, soak_requests=options.requests)
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    try:
        machine.check()
        results = Run(plan, options.systems, options.build).measure()
    except CannotMeasure as error:
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
    parser.add_argument("--plan", choices=PLANS, default="short", help="how long it measures (default: short)")
    parser.add_argument("--systems", type=_systems, default=["tidegate", "nginx", "envoy"], help="a,b,c")
    parser.add_argument("--requests", type=int, help="requests of the soak, instead of the plan's")
    parser.add_argument("--rounds", type=int, help="rounds, instead of the plan's")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where results and work files go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
