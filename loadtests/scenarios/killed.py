"""Two targets, one of them killed for half of the time: how many calls are served all the same.

    python -m loadtests.scenarios.killed [SECONDS]

The load is open-loop. In the second quarter of the time one target's process is killed (SIGKILL: connections are
reset, later ones refused) and started anew at the end of the third.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from loadtests.scenarios.bed import ROOT, begin, free_port, ready
from loadtests.scenarios.limits import Limit
from loadtests.scenarios.load import Caller, Kind, percentile

KEY = "tg-scenario-killed-key"
KINDS = (Kind("normal", 1.0, (KEY,)),)
CONFIG = """
[providers.left]
kind = "openai"
base_url = "{left}/v1"
[providers.right]
kind = "openai"
base_url = "{right}/v1"
[models.m]
targets = [{{ to = "left/demo-small", weight = 1 }}, {{ to = "right/demo-small", weight = 1 }}]
[clients.acme]
quota = {{ requests = [], concurrent = 1000 }}
[[clients.acme.keys]]
secret = "{key}"
"""


@dataclass
class Killed:
    """One run of `seconds`, `rate` calls a second. `figures` is what was measured besides the limits."""

    seconds: float = 60.0
    rate: float = 100.0
    latency_ms: int = 50
    figures: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> list[Limit]:
        """Starts everything, kills, restarts, and judges."""
        with tempfile.TemporaryDirectory(prefix="tidegate-killed-") as name:
            folder = Path(name)
            self._ports = {"left": free_port(), "right": free_port()}
            origins = {side: f"http://127.0.0.1:{port}" for side, port in self._ports.items()}
            gateway = f"http://127.0.0.1:{free_port()}"
            text = (ROOT / "gateway.toml").read_text() + CONFIG.format(key=KEY, **origins)
            (folder / "gateway.toml").write_text(text)
            ours = ["gateway", "serve", "-c", "gateway.toml", "--data-dir", "data", "--log-level", "error"]
            processes = [self._fake("left", folder), self._fake("right", folder)]
            try:
                for origin in origins.values():
                    await ready(origin, "/fake/stats", processes, folder)
                processes.append(begin([*ours, "--listen", gateway.removeprefix("http://")], folder))
                await ready(gateway, "/readyz", processes, folder)
                return await self._load(gateway, origins, processes, folder)
            finally:
                for process in processes:
                    process.terminate()
                for process in processes:
                    await asyncio.to_thread(process.wait, 40)

    def _fake(self, side: str, folder: Path) -> subprocess.Popen[bytes]:
        port, latency = str(self._ports[side]), str(self.latency_ms)
        return begin(["gateway.demo", "--port", port, "--latency-ms", latency, "--output-tokens", "5"], folder)

    async def _load(
        self, gateway: str, origins: dict[str, str], processes: list[subprocess.Popen[bytes]], folder: Path
    ) -> list[Limit]:
        caller, probe = Caller(gateway), Caller(origins["left"])
        try:
            await caller.run(KINDS, 20, 1.0)
            await caller.settled()
            caller.done.clear()
            load = asyncio.ensure_future(caller.run(KINDS, self.rate, self.seconds))
            await asyncio.sleep(self.seconds / 4)
            processes[0].kill()
            await asyncio.to_thread(processes[0].wait)
            await asyncio.sleep(self.seconds / 2)
            processes[0] = self._fake("left", folder)
            await ready(origins["left"], "/fake/stats", processes, folder)
            await load
            await caller.settled()
            stats = json.loads((await probe.request("GET", "/fake/stats"))[2])
            return self._judged(caller, stats)
        finally:
            await caller.aclose()
            await probe.aclose()

    def _judged(self, caller: Caller, stats: dict[str, Any]) -> list[Limit]:
        done = caller.done
        served = [one for one in done if one.status == 200]
        took = [one.took_s for one in served]
        self.figures.update(
            calls=len(done),
            statuses={str(status): count for status, count in Counter(one.status for one in done).items()},
            codes=dict(Counter(one.code for one in done if one.status != 200)),
            attempts=dict(Counter(one.headers.get("x-tidegate-attempts", "1") for one in served)),
            served_ms={f"p{percent}": round(percentile(took, percent) * 1000, 1) for percent in (50, 99, 99.9)},
            restarted_target_calls=stats["calls"],
        )
        return [
            Limit("calls served", len(served) / max(1, len(done)), 0.999, at_least=True),
            Limit("calls at the target that came back", stats["calls"], 1, at_least=True),
        ]


def main() -> int:
    """Gives the exit code; build/killed.json has the figures."""
    scenario = Killed(seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        limits = runner.run(scenario.run())
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    rows = [{**asdict(limit), "passed": limit.passed} for limit in limits]
    (build / "killed.json").write_text(json.dumps({"limits": rows, **scenario.figures}, indent=2) + "\n")
    print(json.dumps(scenario.figures, indent=2))
    for limit in limits:
        print(limit)
    failed = sum(not limit.passed for limit in limits)
    print(f"killed: {len(limits) - failed} of {len(limits)} limits held (build/killed.json)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
