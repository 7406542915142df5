"""An open-loop load: requests fall due at a rate whatever becomes of the earlier ones, as they do on the internet.

One event loop and bare HTTP/1.1 connections, one request at a time on each; what finds no idle connection opens another
one, up to `most`, beyond which it waits here. Latency counts from when a request was due.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass
class Seen:
    """What came of a load. `good` are the 200s that came within the patience, seconds from when they were due."""

    seconds: float = 0.0
    due: int = 0
    good: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)  # of the 200s

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    def percentile(self, part: float) -> float:
        """Of the latencies of the 200s, in seconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("inf")


class Line(asyncio.Protocol):
    """One connection and the request it waits for."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self._load = load
        self._got = b""
        self.due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def ask(self, due: float, request: bytes) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(got, 0, end + 2)
        if length is None or len(got) < end + 4 + int(length[1]):
            return
        self._got = b""
        due, self.due = self.due, None
        if due is not None:
            self._load.answered(self, due, got[9:12].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        due, self.due = self.due, None
        self._load.lost(self, due)


class Load:
    """Requests at `rate` a second for `seconds`. Requests are taken in turn from `requests` (name, bytes)."""

    def __init__(
        self, port: int, requests: list[tuple[str, bytes]], rate: float, seconds: float, *, most: int, patience_s: float
    ) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._seconds = seconds
        self._most = most
        self._patience_s = patience_s
        self._idle: deque[Line] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._lines: set[Line] = set()
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen = Seen()

    async def run(self) -> Seen:
        loop = asyncio.get_running_loop()
        began = loop.time()
        step, sent = 1 / self._rate, 0
        while (now := loop.time()) < began + self._seconds:
            while began + sent * step <= now:
                self._send(began + sent * step, self._requests[sent % len(self._requests)][1])
                sent += 1
            await asyncio.sleep(max(0.0005, began + sent * step - loop.time()))
        self.seen.seconds = loop.time() - began
        self.seen.due = sent
        until = loop.time() + self._patience_s
        while loop.time() < until and (self._waiting or any(line.due is not None for line in self._lines)):
            await asyncio.sleep(0.01)
        for line in list(self._lines):
            line.due = None
            line.transport.abort()
        return self.seen

    def answered(self, line: Line, due: float, status: str) -> None:
        self.seen.statuses[status] += 1
        if status == "200":
            latency_s = asyncio.get_running_loop().time() - due
            self.seen.latencies_s.append(latency_s)
            self.seen.good += latency_s <= self._patience_s
        if self._waiting:
            line.ask(*self._waiting.popleft())
        else:
            self._idle.append(line)

    def lost(self, line: Line, due: float | None) -> None:
        self._lines.discard(line)
        if line in self._idle:
            self._idle.remove(line)
        if due is not None:
            self.seen.statuses["lost"] += 1

    def _send(self, due: float, request: bytes) -> None:
        if self._idle:
            self._idle.pop().ask(due, request)
            return
        self._waiting.append((due, request))
        if len(self._lines) + self._opening < self._most:
            self._opening += 1
            task = asyncio.ensure_future(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        try:
            _, line = await asyncio.get_running_loop().create_connection(lambda: Line(self), "127.0.0.1", self._port)
        except OSError:
            self.seen.statuses["refused"] += 1
            return
        finally:
            self._opening -= 1
        self._lines.add(line)
        if self._waiting:
            line.ask(*self._waiting.popleft())
        else:
            self._idle.append(line)


async def closed(port: int, request: bytes, seconds: float, *, at_once: int) -> float:
    """The capacity: 200s a second while a few clients each wait for their answer before they ask again."""
    seen = Seen()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    load = Load(port, [("", request)], 1.0, seconds, most=at_once, patience_s=60.0)
    load.seen = seen

    def again(line: Line, due: float, status: str) -> None:
        seen.statuses[status] += 1
        if loop.time() < until:
            line.ask(loop.time(), request)

    load.answered = again  # type: ignore[method-assign]  # asks again instead of when it is due
    lines = [(await loop.create_connection(lambda: Line(load), "127.0.0.1", port))[1] for _ in range(at_once)]
    for line in lines:
        line.ask(loop.time(), request)
    await asyncio.sleep(seconds)
    served = seen.statuses["200"]
    for line in lines:
        line.due = None
        line.transport.abort()
    if set(seen.statuses) != {"200"}:
        raise RuntimeError(f"capacity can't be measured: {dict(seen.statuses)}")
    return served / seconds
