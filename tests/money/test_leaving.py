"""Clients that leave, at every moment of an answer: upstream is told at once, and the bill is what was served."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[2] / "build"
EACH = 13  # clients at each moment and dialect: 104 in all, so that the 99th of a hundred is one of them
AT_A_TIME = 26
TOKENS = 6
#: What was said before, some 100 tokens.
TALE = "The moon pulls the sea nearer to it more than the earth, and the earth more than the sea on its far side. " * 4
ASKED = [{"role": "user", "content": TALE}]
#: What comes last before a client leaves, by moment and model; at "byte 0" nothing does.
LAST = {
    "first event": {"metered": (b"data: ", 1), "claude": (b"message_start", 1)},
    "before usage": {"metered": (b'"content":', TOKENS + 1), "claude": (b"text_delta", TOKENS)},
    "after usage": {"metered": (b'"usage":{', 1), "claude": (b"event: message_delta", 1)},
}


@dataclass
class Left:
    """Who left when; `at` is in seconds since the epoch."""

    moment: str
    model: str
    nonce: str
    at: float = 0.0


async def leave(left: Left, port: int, wire: Callable[..., bytes], seen: Callable[[str], Awaitable[None]]) -> None:
    """Calls, and goes away at its moment; half of them by FIN, half by RST."""
    first = left.moment == "byte 0"
    fake = "latency-ms=20000" if first else f"chunks={TOKENS}; chunk-ms=120"
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if left.model == "metered" else {}
    sent = wire(
        left.model,
        not first or left.nonce[-1] in "02468",
        fake,
        left.nonce,
        messages=ASKED,
        **(options if not first else {}),
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    if first:
        await seen(left.nonce)
    else:
        mark, times = LAST[left.moment][left.model]
        answer = b""
        while answer.count(mark) < times:
            chunk = await reader.read(65_536)
            assert chunk, answer
            answer += chunk
    left.at = time.time()
    if left.nonce[-1] in "01234":
        writer.close()
    else:
        writer.transport.abort()


def quantile(values: list[float], part: float) -> float:
    """The smallest value that so great a part does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


async def test_whoever_leaves_cancels_upstream_at_once_and_is_billed_for_what_came(
    start: Callable[..., Any],
    start_demo_with: Callable[..., Any],
    book: Callable[[Path], Any],
    config: str,
    wire: Callable[..., bytes],
    priced: Callable[[str, int, int], int],
) -> None:
    demo = await asyncio.to_thread(start_demo_with, "--count", "o200k")
    server = await asyncio.to_thread(start, config.format(origin=demo.origin), log_level="warning")

    async def until(ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def seen(nonce: str) -> None:
        await until(lambda: f'"nonce":"{nonce}"' in demo.log.read_text())

    everybody = [
        Left(moment, model, f"{moment}-{model}-{number}".replace(" ", "-"))
        for number in range(EACH)
        for moment in ("byte 0", *LAST)
        for model in ("metered", "claude")
    ]
    slots = asyncio.Semaphore(AT_A_TIME)

    async def one(left: Left) -> None:
        async with slots:
            await leave(left, server.port, wire, seen)

    first = Left("byte 0", "metered", "first-0")  # the process's first estimate loads the vocabulary
    await one(first)
    await until(lambda: '"event":"cut"' in demo.log.read_text())
    await asyncio.gather(*(one(left) for left in everybody))
    while (await asyncio.to_thread(demo.stats))["in_flight"]:
        await asyncio.sleep(0.05)
    assert await asyncio.to_thread(server.stop) == 0

    entries = demo.entries()
    attempts = {entry["nonce"]: entry for entry in entries if entry["event"] == "attempt"}
    cuts = {entry["attempt"]: entry for entry in entries if entry["event"] == "cut"}
    rows = book(server.folder).attempts()
    assert len(rows) == len(attempts) == len(everybody) + 1
    late_ms: list[float] = []
    served = 0
    errors: dict[str, list[float]] = {}
    for left in everybody:
        attempt = attempts[left.nonce]
        row, cut = rows[attempt["attempt"]], cuts.get(attempt["attempt"])
        if cut is None:  # the rest came before it could leave: so it was served
            assert left.moment == "after usage"
            served += 1
            continue
        assert (row["outcome"], cut["why"]) == ("gone", "cancelled")
        late_ms.append((cut["time"] - left.at) * 1000)
        if left.moment == "after usage":
            assert (row["estimated"], row["input_tokens"], row["output_tokens"]) == (0, attempt["in"], attempt["out"])
        else:
            assert row["estimated"] == 1
            true = priced(left.model, attempt["in"], cut["out"])
            errors.setdefault(left.moment, []).append(abs(row["cost_pusd"] - true) / true)
    report = {
        "left": len(late_ms),
        "first_ms": (cuts[attempts[first.nonce]["attempt"]]["time"] - first.at) * 1000,
        "upstream_cancelled_ms": {"p50": quantile(late_ms, 0.5), "p99": quantile(late_ms, 0.99)},
        "estimate_error_p95": {moment: quantile(values, 0.95) for moment, values in errors.items()},
    }
    BUILD.mkdir(exist_ok=True)
    (BUILD / "leaving.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))
    assert served < EACH
    assert quantile(late_ms, 0.99) < 1000
    assert quantile([error for values in errors.values() for error in values], 0.95) <= 0.1
