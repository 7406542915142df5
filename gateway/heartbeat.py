"""Signs of life on a stream whose call still waits: SSE comments, which commit its answer to a 200 (TERMS 16)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import orjson

from gateway.downstream import Downstream
from gateway.errors import BadUpstream, Header, stream_event
from gateway.ratelimit import span
from gateway.server.bodies import IDENTITY, Decoder, decoder
from gateway.server.refusal import BodyRefused

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.scheduler import Scheduler

Result = TypeVar("Result")
Beat = Callable[[bytes], Awaitable[None]]

#: Decoded bytes of an answer that its provider encoded although nobody asked for it.
MOST_DECODED = 64 * 1_048_576


async def beating(
    waiting: Awaitable[Result], call: Call, beat: Beat, scheduler: Scheduler, every_s: float, leader: str = ""
) -> Result:
    """Waits, and has `beat` called meanwhile. `leader`: the id of the call that stands in the queue for this one."""
    beats = asyncio.ensure_future(_beats(call, beat, scheduler, every_s, leader or call.id))
    try:
        return await waiting
    finally:
        beats.cancel()
        await asyncio.wait((beats,))
        if not beats.cancelled():
            beats.exception()  # the client left or takes nothing: the call learns that by itself


async def _beats(call: Call, beat: Beat, scheduler: Scheduler, every_s: float, waits: str) -> None:
    while True:
        await asyncio.sleep(every_s)
        view = scheduler.position(waits)
        if view is not None:
            if call.queued is not None:
                call.queued.waited_ns = view.waited_ms * 1_000_000  # so far: the first beat sends the headers
            await beat(f": queued, {view.position} ahead, about {span(view.estimate_ms / 1000)} left\n\n".encode())


async def beat(down: Downstream, headers: Callable[[list[Header]], list[Header]], comment: bytes) -> None:
    """One comment; the first begins the answer. `headers` adds ours."""
    if not down.started:
        await down.start(
            200, headers([(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")])
        )
    await down.chunk(comment)


class Continued(Downstream):
    """What follows on a stream that heartbeats began: its head is out, so an answer that is no stream becomes an
    event, and one that is encoded is decoded."""

    can_encode = False
    __slots__ = ("_begun", "_call", "_decoder", "_is_stream")

    def __init__(self, begun: Downstream, call: Call) -> None:
        super().__init__(begun._send)
        self._begun = begun
        self._call = call
        self._is_stream = True
        self._decoder: Decoder | None = None

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        await self.start(status, headers)
        if self._is_stream:
            await self.end(body)
            return
        self.finished = True
        is_error = status >= 400 and self._call.dialect == "anthropic"
        body = self._plain(body)
        try:
            event = b"data: " + orjson.dumps(orjson.loads(body))
        except orjson.JSONDecodeError:
            await self._begun.end(self._no_stream())
        else:
            await self._begun.end((b"event: error\n" if is_error else b"") + event + b"\n\n")

    async def start(self, status: int, headers: list[Header]) -> None:
        self._begin()
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        self._is_stream = content_type.startswith(b"text/event-stream")
        encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
        if encoding not in IDENTITY:
            try:
                self._decoder = decoder(encoding, MOST_DECODED)
            except BodyRefused:
                self._is_stream = False

    def _plain(self, data: bytes) -> bytes:
        """Decoded, as far as it can be: what can't is no stream."""
        if self._decoder is None:
            return data
        try:
            return self._decoder.feed(data)
        except BodyRefused:
            self._is_stream = False
            return b""

    async def chunk(self, data: bytes) -> None:
        data = self._plain(data)
        if self._is_stream and data:
            await self._begun.chunk(data)

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        data = self._plain(data)
        await self._begun.end(data if self._is_stream else self._no_stream())

    def cut(self) -> None:
        self._begun.cut()

    def _no_stream(self) -> bytes:
        error = BadUpstream("The provider answered with something that is no stream, after this one had begun.")
        return stream_event(error, self._call.dialect, self._call.id)
