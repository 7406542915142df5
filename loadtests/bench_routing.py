"""What routing costs a call that nothing goes wrong with: CPU microseconds, the best of several rounds.

python -m loadtests.bench_routing
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gateway.call import Call
from gateway.clock import Clock
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.prices import Prices
from gateway.providers import KINDS
from gateway.providers.base import Provider
from gateway.providers.preamble import beginning_of
from gateway.routes import Router
from gateway.routing.routing import Routing
from gateway.targets import Target

CALLS, ROUNDS = 20_000, 7
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"1200"), (b"x-request-id", b"req_1")]
FIRST = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
TOKEN = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'


def target(name: str, weight: int = 0) -> Target:
    client: Any = SimpleNamespace()
    provider = Provider(name, KINDS["openai"], f"http://{name}.invalid/v1", b"/v1", client=client)
    return Target(provider, "m", "x", Prices({}).quote("openai", name, "m", "x"), weight=weight)


def call_to(targets: list[Target]) -> Call:
    route = Router().match("POST", b"/v1/chat/completions").route
    call = Call(
        id="c", route=route, dialect="openai", method="POST", path=b"/v1/chat/completions", query=b"", raw_headers=[],
        started_ns=0, started_wall_ns=0,
    )  # fmt: skip
    call.targets = targets
    return call


def one_call(routing: Routing, call: Call) -> Callable[[], None]:
    """Everything that routing does for a call that is served at once."""
    targets = call.targets

    def run() -> None:
        call.targets = routing.rank(targets)
        plan = routing.attempts(call, once=False)
        choice = plan.first()
        plan.begin(choice)
        plan.succeeded(choice, HEADERS)
        plan.end(choice)

    return run


def microseconds(run: Callable[[], object]) -> float:
    """CPU time of one run, the best round of several."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(CALLS):
            run()
        best = min(best, time.process_time_ns() - began)
    return best / CALLS / 1000


def main() -> None:
    """Prints a line a case."""
    clock = Clock()
    routing = Routing(clock, Events(clock), Metrics())
    cases: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "one target": one_call(routing, call_to([target("a")])),
        "two targets in order": one_call(routing, call_to([target("a"), target("b")])),
        "two equal targets": one_call(routing, call_to([target("a", 1), target("b", 1)])),
        "four equal targets": one_call(routing, call_to([target(name, 1) for name in "abcd"])),
        "a stream's first event": lambda: beginning_of("chat", FIRST),
        "a stream's first token": lambda: beginning_of("chat", FIRST + TOKEN),
    }
    for name, run in cases.items():
        print(f"{name:24} {microseconds(run):6.2f} us")


if __name__ == "__main__":
    main()
