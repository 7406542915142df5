"""Twice what the gateway itself can serve: the provider is quick, so that the gateway's own core is what lacks."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.open_loop import Load, Seen, closed
from loadtests.scenarios.bed import begin, free_port, ready
from loadtests.scenarios.limits import Limit

KEY = "tg-scenario-own-key"
PATIENCE_S = 3.0
MOST = 2000  # connections

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{provider}/v1"
api_key = "x"
max_concurrent = 4000
[models.m]
targets = ["fake/demo-small"]
[clients.own]
tier = "premium"
quota = {{ requests = [], tokens = [], concurrent = 4000 }}
budget = {{ month_usd = 1000000 }}
[[clients.own.keys]]
secret = "{key}"
"""


def request() -> bytes:
    """1.2 KB, as an SDK sends it."""
    ask = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello " * 190}]}
    body = json.dumps(ask).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\naccept: application/json\r\n"
        f"user-agent: OpenAI/Python 3.57.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Ourselves:
    """One run; `figures` is what was measured besides the limits."""

    seconds: float = 10.0
    figures: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> list[Limit]:
        with tempfile.TemporaryDirectory(prefix="tidegate-scenarios-") as name:
            folder = Path(name)
            provider, gateway = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
            (folder / "gateway.toml").write_text(CONFIG.format(provider=provider, key=KEY))
            fake = ["gateway.demo", "--port", provider.rpartition(":")[2], "--output-tokens", "5"]
            ours = ["gateway", "serve", "-c", str(folder / "gateway.toml"), "--data-dir", str(folder / "data")]
            ours += ["--listen", gateway.removeprefix("http://"), "--log-level", "error"]
            processes = []
            try:
                for command, path, origin in ((fake, "/fake/stats", provider), (ours, "/readyz", gateway)):
                    processes.append(begin(command, folder))
                    await ready(origin, path, processes, folder)
                _apart(processes[1].pid, processes[0].pid)
                return await self._measure(int(gateway.rpartition(":")[2]))
            finally:
                for process in reversed(processes):
                    process.terminate()
                    process.wait(40)

    async def _measure(self, port: int) -> list[Limit]:
        await closed(port, request(), 2.0, at_once=32)
        capacity = await closed(port, request(), self.seconds / 2, at_once=32)
        await self._load(port, 2 * capacity, self.seconds / 3)  # it finds its pressure
        seen = await self._load(port, 2 * capacity, self.seconds)
        self.figures = {
            "capacity": round(capacity),
            "sent": round(seen.due / seen.seconds),
            "goodput": round(seen.goodput),
            "statuses": dict(seen.statuses),
            "latency_ms": {"p50": round(seen.percentile(0.5) * 1000), "p99": round(seen.percentile(0.99) * 1000)},
        }
        others = sum(number for status, number in seen.statuses.items() if status not in ("200", "503"))
        return [
            Limit("goodput at twice our own capacity", seen.goodput / capacity, 0.55, at_least=True),
            Limit("load that was really sent, over our own capacity", seen.due / seen.seconds / capacity, 1.9, True),
            Limit("calls without a proper answer at twice our own capacity", others, 0),
        ]

    async def _load(self, port: int, rate: float, seconds: float) -> Seen:
        return await Load(port, [("call", request())], rate, seconds, most=MOST, patience_s=PATIENCE_S).run()


def _apart(gateway: int, provider: int) -> None:
    """The gateway has a core of its own, where there are several."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) < 2:
        return
    os.sched_setaffinity(gateway, {cores[0]})
    for pid in (provider, 0):
        os.sched_setaffinity(pid, set(cores[1:]))
