"""Runs the scenarios, prints each limit, and exits with 1 where one was not held. Results: build/scenarios.json."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict

import uvloop

from loadtests.scenarios.bed import ROOT, bed
from loadtests.scenarios.limits import Limit
from loadtests.scenarios.ourselves import Ourselves
from loadtests.scenarios.overload import Overload


async def run() -> tuple[list[Limit], dict[str, object]]:
    """Overload of the provider, then of the gateway itself."""
    async with bed() as under:
        scenario = Overload(under)
        limits = await scenario.run()
    own = Ourselves()
    limits += await own.run()
    return limits, {**scenario.figures, "ourselves": own.figures}


def main() -> int:
    """Gives the exit code."""
    load_before = os.getloadavg()[0]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        limits, figures = runner.run(run())
    machine = {"cores": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg()[0]}
    rows = [{**asdict(limit), "passed": limit.passed} for limit in limits]
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    result = {"machine": machine, "overload": {"limits": rows, **figures}}
    (build / "scenarios.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for limit in limits:
        print(limit)
    failed = sum(not limit.passed for limit in limits)
    print(f"gateway's core: {figures.get('gateway_cores')} (the figures hold where it need not wait for one)")
    print(f"scenarios: {len(limits) - failed} of {len(limits)} limits held (build/scenarios.json)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
