"""`tidegate prove` against our own gateway, and against one that has no limits at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.demo import DemoSettings
from gateway.demo import start as start_provider

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 4
[models.m]
targets = ["fake/demo-small"]
[tiers.basic]
concurrent = 50
[clients.bounded]
quota = {{ requests = ["40/day"], concurrent = 50 }}
[[clients.bounded.keys]]
secret = "tg-bounded-secret-key"
[clients.other]
quota = {{ requests = [], concurrent = 50 }}
[[clients.other.keys]]
secret = "tg-other-secret-key"
"""


async def proved(*arguments: str) -> tuple[int, Any]:
    import asyncio

    command = [sys.executable, "-m", "gateway", "prove", "--json", "--seconds", "1", "--flood", "10", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert done.stdout, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["findings"]}


async def test_our_own_gateway_holds(start: Any) -> None:
    import asyncio

    async with await start_provider(DemoSettings(slots=4, service_time_ms=10, output_tokens=1)) as provider:
        gateway = await asyncio.to_thread(start, CONFIG.format(origin=provider.base_url))
        key, other = ["--key", "tg-bounded-secret-key"], ["--other-key", "tg-other-secret-key"]
        more = ["--model", "m", "--burst", "60", "--provider", provider.base_url]
        _, found = await proved("--against", gateway.address, *key, *other, *more)
    assert found["over-admission"]["verdict"] == "pass", found
    assert found["over-admission"]["figures"]["above_slots"] == 0
    assert found["over-admission"]["figures"]["over_admitted"] == 0
    assert found["refusal latency"]["figures"]["refused"] >= 20
    assert found["refusal latency"]["figures"]["with_retry_after"] == found["refusal latency"]["figures"]["refused"]
    assert found["starvation"]["figures"]["served"] == found["starvation"]["figures"]["calls"] > 0


async def test_a_gateway_without_limits_is_seen_through() -> None:
    async with await start_provider(DemoSettings(slots=4, service_time_ms=10, output_tokens=1)) as provider:
        code, found = await proved(
            "--against", f"{provider.base_url}/v1", "--key", "any", "--model", "m", "--burst", "30",
            "--allowed", "10", "--provider", provider.base_url,
        )  # fmt: skip
    assert code == 1
    assert found["over-admission"]["verdict"] == "fail"
    assert found["over-admission"]["figures"]["over_admitted"] == 20
    assert found["over-admission"]["figures"]["above_slots"] > 0
    assert found["refusal latency"]["verdict"] == "unknown"
