"""Knows the command line: `python -m gateway.demo` runs a fake provider until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from gateway.demo.control import read_rules
from gateway.demo.server import start
from gateway.demo.settings import DemoSettings


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. Exits with 2 where an argument or the plan is wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    _runner()(_serve(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.demo", description="A fake OpenAI and Anthropic provider.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="one JSON line an attempt goes here, before its answer")
    parser.add_argument("--slots", type=int, help="calls served at the same time")
    parser.add_argument("--over", choices=("serve", "refuse", "queue"), default="serve", help="a call above the slots")
    parser.add_argument("--service-time-ms", type=float, default=0.0, help="a call's time before its first byte")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="the same, replaced by a fault's latency-ms")
    parser.add_argument("--chunk-ms", type=float, default=0.0, help="between the events of a stream")
    parser.add_argument("--output-tokens", type=int, default=24, help="length of an answer that nobody limits")
    parser.add_argument("--count", choices=("quarter", "o200k"), default="quarter", help="how input is counted")
    parser.add_argument("--key", help="the only credential accepted; any by default")
    parser.add_argument("--model", action="append", help="a model for the list; may be given again")
    parser.add_argument("--plan", type=Path, help="JSON file of rules")
    parser.add_argument("--seed", type=int, help="first part of every id; drawn by default")
    return parser


def _settings(options: argparse.Namespace) -> DemoSettings:
    given = vars(options)
    models, plan = given.pop("model"), given.pop("plan")
    if models:
        given["models"] = tuple(models)
    if plan is not None:
        given["plan"] = tuple(read_rules(plan.read_bytes()))
    return DemoSettings(**given)


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    return run


async def _serve(settings: DemoSettings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = await start(settings)
    print(f"fake provider at {server.base_url}", flush=True)
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    main()
