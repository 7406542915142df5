"""Knows the fake provider's own log: one JSON line an attempt, in the file before the first byte of the answer.

`{"event": "attempt", ...}` says what the attempt will cost; where its answer did not arrive whole, a line
`{"event": "cut", ...}` of the same id says how much went out. One `write` a line, so a kill leaves whole lines.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from gateway.demo.exchange import Exchange, Reply


class Journal:
    """The log file, open for appending; writes nothing where there is none."""

    def __init__(self, path: Path | str | None) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = None if path is None else os.open(path, flags, 0o600)

    def attempt(self, exchange: Exchange, reply: Reply) -> None:
        """Records what is about to be answered."""
        if self._file is None:
            return
        usage = reply.usage
        line = {
            "event": "attempt",
            "id": exchange.id,
            "number": exchange.number,
            "time": time.time(),
            "method": exchange.request.method,
            "path": exchange.request.path,
            "route": exchange.route,
            "model": exchange.model,
            "stream": exchange.streams,
            "status": reply.status,
            "in": usage.input,
            "cached": usage.cached,
            "cache_write": usage.cache_write,
            "out": usage.output,
            "reasoning": usage.reasoning,
            "units": usage.units,
            "attempt": exchange.attempt,
            "nonce": exchange.nonce.decode("latin-1"),
            "fake": exchange.fault,
        }
        os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def cut(self, exchange: Exchange, reply: Reply, why: str) -> None:
        """Records that an answer did not arrive whole: `why` is reset, die, stall or cancelled."""
        if self._file is None:
            return
        sent = exchange.sent
        line = {
            "event": "cut",
            "id": exchange.id,
            "number": exchange.number,
            "time": time.time(),
            "why": why,
            "events": sent,
            "out": max(0, min(reply.usage.output, sent - reply.lead)),
            "attempt": exchange.attempt,
        }
        os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
