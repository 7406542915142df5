"""What a hit and a look-up cost, as ratios and CPU time within one run."""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import orjson

from gateway.answers import Answers
from gateway.call import Call, Facts, Outcome
from gateway.clients import Client, Tier
from gateway.clock import ManualClock
from gateway.metrics import Metrics
from gateway.routes import Router
from gateway.usage import Usage
from loadtests.bench.requests import PATH, SMALL, Request, chat
from loadtests.bench.responder import Responder
from loadtests.bench.systems.tidegate import Tidegate
from policies.cache import Cache

if TYPE_CHECKING:
    from gateway.policy import Gate
    from gateway.targets import Target

#: Rounds of one second each, in turn; the median counts, since the machine does other things as well.
ROUNDS, AT_ONCE = 5, 32
ROOT = Path(__file__).parents[2]


def cpu_s(pid: int) -> float:
    """What all threads of a process spent on a processor, to the nanosecond; from proc(5)."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def cost_us(gateway: Tidegate, request: Request, folder: Path) -> float:
    """Processor time of the gateway for one call, under a load that keeps it busy."""
    pid = gateway.running.popen.pid
    url = f"http://127.0.0.1:{gateway.port}{PATH}"
    script = ROOT / "loadtests" / "bench" / "post.lua"
    files = [str(file) for file in request.write(folder)]
    command = ["wrk", "-t1", f"-c{AT_ONCE}", "-d1s", "-s", str(script), url, "--", *files]
    began = cpu_s(pid)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.search(r"(\d+) requests in", done)
    assert found, done
    assert "Non-2xx" not in done, done
    time.sleep(0.3)  # the records' writer ends what it has
    return (cpu_s(pid) - began) / int(found[1]) * 1e6


def test_a_hit_costs_at_most_60_percent_of_a_forwarded_call(tmp_path: Path) -> None:
    responder = Responder(tmp_path, ROOT / "build")
    gateway = Tidegate(tmp_path / "gateway", ROOT / "build", responder.port)
    try:
        gateway.configure()
        gateway.start()
        asked = chat("bench-plain", SMALL, gateway.headers())
        hit = replace(asked, body=asked.body.replace(b'"temperature":0.7', b'"temperature":0.0'))
        forward = replace(hit, headers={**hit.headers, "Cache-Control": "no-store"})
        cost_us(gateway, hit, tmp_path)  # the one that is kept, and the first of everything
        rounds = [(cost_us(gateway, hit, tmp_path), cost_us(gateway, forward, tmp_path)) for _ in range(ROUNDS)]
    finally:
        gateway.stop()
        responder.stop()
    hits, forwarded = zip(*rounds, strict=True)
    ratio = median(hits) / median(forwarded)
    print(f"a hit costs {ratio:.0%} of a forwarded call's CPU")
    assert ratio <= 0.6, rounds


#: Microseconds that `yardstick` takes on a quiet machine on which a look-up may take 10.
YARDSTICK_US, AT_MOST_US = 3.2, 10.0


def a_call() -> Call:
    """A usual one, of an SDK."""
    route = Router().match("POST", b"/v1/chat/completions").route
    names = b"host accept connection user-agent content-type authorization content-length x-stainless-lang".split()
    call = Call(
        id="1", route=route, dialect="openai", method="POST", path=b"/v1/chat/completions", query=b"",
        raw_headers=[(name, b"something") for name in names], started_ns=0, started_wall_ns=0,
    )  # fmt: skip
    call.json = {
        "model": "m",
        "max_tokens": 8,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Hi. " * 20}],
    }
    call.facts, call.client = Facts(model="m"), Client(id="acme", org="one", tier=Tier("standard"))
    call.body = orjson.dumps(call.json)
    provider = SimpleNamespace(answers_as="fake\0http://127.0.0.1/v1\00123456789abcdef", passes=frozenset())
    target = SimpleNamespace(provider=provider, upstream_model="demo-small", model="m", enforce_output_cap=False)
    call.targets = [cast("Target", target)]
    return call


def us_of(*works: Callable[[], None]) -> list[float]:
    """Microseconds of CPU of each, the best of many rounds in turn, so that all find the machine's quiet moments."""
    best, number = [float("inf")] * len(works), 300
    for _ in range(30):
        for index, once in enumerate(works):
            began = time.process_time_ns()
            for _ in range(number):
                once()
            best[index] = min(best[index], (time.process_time_ns() - began) / number / 1000)
    return best


async def test_a_look_up_adds_at_most_10_us_to_a_miss() -> None:
    clock, metrics, call = ManualClock(), Metrics(), a_call()
    cache = Cache()
    cache.provide(cast("Gate", SimpleNamespace(answers=Answers(clock, metrics), clock=clock, metrics=metrics)))
    outcome = Outcome("failed", 500, Usage())

    def missed() -> None:
        """From the question whether it concerns the cache to the end of its flight, without an event loop's turns."""
        call.interest = call.recording = call.loans = None
        call.reply_headers.clear()
        assert cache.concerns(call)
        steps = cache.apply(call)
        with suppress(StopIteration):
            steps.__anext__().send(None)
        with suppress(StopAsyncIteration):
            steps.asend(outcome).send(None)

    def yardstick() -> None:
        text = orjson.dumps(call.json, option=orjson.OPT_SORT_KEYS)
        orjson.loads(text)
        dict(call.raw_headers)
        sorted(call.raw_headers)
        hashlib.blake2b(text * 8, digest_size=24).digest()

    look_up_us, yard_us = us_of(missed, yardstick)
    print(f"a look-up adds {look_up_us:.1f} us to a miss; the yardstick takes {yard_us:.1f} us")
    assert look_up_us <= AT_MOST_US * yard_us / YARDSTICK_US


async def test_routes_without_a_cache_skip_it() -> None:
    cache, call = Cache(routes={"chat": 0}), a_call()
    assert not cache.concerns(call)
    assert Cache().concerns(call)
    call.method = "GET"
    assert not Cache().concerns(call)
