"""Open-loop load over real sockets: calls go out when they are due, however long others take."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import cast
from urllib.parse import urlsplit

#: A call that is not answered by then counts as lost.
LOST_S = 150.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call: its share of the rate, and the keys that take turns."""

    name: str
    share: float
    keys: tuple[str, ...]
    priority: str = ""


@dataclass(slots=True)
class Done:
    """One call; times in seconds, from when it was due. `status` 0: the connection broke or nothing came."""

    kind: str
    due: float
    took_s: float
    status: int
    headers: dict[str, str]
    code: str = ""

    @property
    def early(self) -> bool:
        """Refused at the door. Who had waited a second by the gateway's own clock gave way to another, or timed out."""
        return self.status in (429, 503) and int(self.headers.get("x-tidegate-wait-ms", 0)) < 1000


class Reader(asyncio.Protocol):
    """One keep-alive connection: one answer at a time, with content-length or chunked."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, dict[str, str], bytes]] | None = None
        self._buffer = b""
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if "content-length" in headers:
            if len(rest) < int(headers["content-length"]):
                return
        elif not rest.endswith(b"0\r\n\r\n"):
            return
        self._buffer = b""
        if headers.get("connection") == "close":
            self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((int(lines[0].split()[1]), headers, rest))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the connection ended"))


@dataclass
class Caller:
    """Sends calls to one origin and keeps what became of them."""

    origin: str
    model: str = "m"
    path: str = "/v1/chat/completions"
    seed: int = 1
    max_tokens: int = 5
    done: list[Done] = field(default_factory=list)
    _idle: list[Reader] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: count[int] = field(default_factory=count)

    async def run(self, kinds: Sequence[Kind], rate: float, seconds: float) -> tuple[float, float]:
        """Calls at random moments (Poisson), `rate` a second; gives when it began and ended (perf_counter)."""
        draw = random.Random(self.seed)
        self.seed += 1
        began = time.perf_counter()
        due, turn = began, 0
        while (due := due + draw.expovariate(rate)) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            kind = draw.choices(kinds, [one.share for one in kinds])[0]
            turn += 1
            task = asyncio.ensure_future(self.call(kind, kind.keys[turn % len(kind.keys)], due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
        return began, began + seconds

    async def settled(self) -> None:
        """Waits for the answers to everything that was sent."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def call(self, kind: Kind, key: str, due: float) -> None:
        """One call, recorded."""
        said = f"Hi for the {next(self._numbers)}th time."  # each its own: no cache answers
        ask = {"model": self.model, "max_tokens": self.max_tokens, "messages": [{"role": "user", "content": said}]}
        body = json.dumps(ask).encode()
        extra = f"x-tidegate-priority: {kind.priority}\r\n" if kind.priority else ""
        status, headers, raw = await self.request("POST", self.path, body, key, extra)
        code = ""
        if status >= 400:
            try:
                code = str(json.loads(raw)["error"]["code"])
            except (ValueError, KeyError, TypeError):
                code = ""
        self.done.append(Done(kind.name, due, time.perf_counter() - due, status, headers, code))

    async def request(
        self, method: str, path: str, body: bytes = b"", key: str = "", extra: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """One exchange; status 0 where there was no answer."""
        parts = urlsplit(self.origin)
        try:
            reader = await self._connection(parts.hostname or "", parts.port or 80)
            head = (
                f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
                f"authorization: Bearer {key}\r\n{extra}"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            reader.answer = asyncio.get_running_loop().create_future()
            assert reader.transport is not None, "it is connected"
            reader.transport.write(head.encode() + body)
            async with asyncio.timeout(LOST_S):
                answer = await reader.answer
        except (OSError, TimeoutError):
            return 0, {}, b""
        if reader.open:
            self._idle.append(reader)
        return answer

    async def _connection(self, host: str, port: int) -> Reader:
        while self._idle:
            reader = self._idle.pop()
            if reader.open:
                return reader
        _, reader = await asyncio.get_running_loop().create_connection(Reader, host, port)
        return reader

    async def aclose(self) -> None:
        """Ends calls under way and closes the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for reader in self._idle:
            if reader.transport is not None:
                reader.transport.close()


def percentile(values: Sequence[float], percent: float) -> float:
    """Of the values, by nearest rank; infinite where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("inf")
