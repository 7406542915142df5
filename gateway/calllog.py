"""One line a call, written behind the calls: readable on a terminal, JSON elsewhere. Never a key, never a prompt."""

from __future__ import annotations

import sys
import threading
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO

import orjson

from gateway.prices import usd
from gateway.records.rows import CallRow

#: Lines that may wait for a slow reader of our output; more are dropped and counted.
MAX_WAITING = 20_000
FLUSH_S = 0.1

_COLOURS = {"served": "32", "answered": "36", "refused": "33", "failed": "31", "gone": "35"}


class CallLog:
    """Takes rows on the loop, formats and writes them in a thread of its own."""

    def __init__(self, json: bool, out: BinaryIO | None = None, enabled: bool = True) -> None:
        self.is_json = json
        self._out = out or sys.stdout.buffer
        self._enabled = enabled
        self._colour = not json and self._out.isatty()
        self._rows: deque[tuple[CallRow, str]] = deque()
        self._stop = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="call-log", daemon=True)
        if enabled:
            self._thread.start()

    def write(self, row: CallRow, marks: list[str]) -> None:
        """Costs an append; `marks` are what observing policies would have done."""
        if not self._enabled:
            return
        if len(self._rows) >= MAX_WAITING:
            self.dropped += 1
            return
        self._rows.append((row, "; ".join(marks) if marks else ""))

    def close(self) -> None:
        """Writes what is waiting."""
        self._stop.set()
        if self._enabled:
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        rows, lines = self._rows, []
        draw = self._as_json if self.is_json else self._as_text
        while rows:
            lines.append(draw(*rows.popleft()))
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            lines.append(orjson.dumps({"event": "log lines dropped", "count": dropped}))
        if not lines:
            return
        try:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()
        except (OSError, ValueError):
            self._enabled = False  # nobody reads our output any more

    @staticmethod
    def _as_json(row: CallRow, marks: str) -> bytes:
        line: dict[str, object] = {
            "event": "call",
            "time": _time(row.started_wall_ns),
            "id": row.id,
            "org": row.org,
            "client": row.client,
            "key": row.key,
            "method": row.method,
            "path": row.path,
            "route": row.route,
            "model": row.model,
            "served_model": row.served_model,
            "provider": row.provider,
            "outcome": row.outcome,
            "status": row.status,
            "stream": row.stream,
            "attempts": row.attempts,
            "duration_ms": row.duration_us / 1000,
            "ttfb_ms": row.ttfb_us / 1000,
            "overhead_ms": row.overhead_us / 1000,
            "input_tokens": row.input_tokens,
            "cached_tokens": row.cached_tokens,
            "output_tokens": row.output_tokens,
            "reasoning_tokens": row.reasoning_tokens,
            "cost_pusd": row.cost_pusd,
            "charge_pusd": row.charge_pusd,
            "estimated": row.estimated,
        }
        if row.error:
            line["error"] = row.error
        if row.policy:
            line["policy"] = row.policy
        if marks:
            line["observed"] = marks
        return orjson.dumps(line)

    def _as_text(self, row: CallRow, marks: str) -> bytes:
        outcome = f"{row.outcome} {row.status}"
        if self._colour:
            outcome = f"\x1b[{_COLOURS.get(row.outcome, '0')}m{outcome}\x1b[0m"
        parts = [
            f"{_time(row.started_wall_ns)[11:23]} {row.method:<4} {row.path}",
            outcome,
            f"{row.duration_us / 1000:.1f} ms",
            row.client or "nobody",
        ]
        if row.model:
            shown = row.model if row.served_model in ("", row.model) else f"{row.model} > {row.served_model}"
            parts.append(f"{shown}@{row.provider}" if row.provider else shown)
        if row.input_tokens or row.output_tokens:
            about = "~" if row.estimated else ""
            parts.append(f"{about}{row.input_tokens}+{row.output_tokens} tokens")
        if row.cost_pusd:
            parts.append(f"${usd(row.cost_pusd)}")
        if row.error:
            parts.append(row.error + (f" by {row.policy}" if row.policy else ""))
        if marks:
            parts.append(f"observed: {marks}")
        parts.append(row.id)
        return "  ".join(parts).encode("utf-8", "replace")


def _time(wall_ns: int) -> str:
    ms = wall_ns // 1_000_000
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    """Lines come in the order of time, so nearly all find theirs here."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
