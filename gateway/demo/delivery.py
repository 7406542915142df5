"""Knows how an answer goes out when it takes time or goes wrong: waits, pace, slices, and ends before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.demo.faults import GARBAGE, rechunk
from gateway.demo.script import Cut
from gateway.demo.wire import BODILESS, LAST_CHUNK, frame

if TYPE_CHECKING:
    from gateway.demo.connection import Connection
    from gateway.demo.exchange import Exchange, Reply

SETTLE_S = 0.02  # between the last bytes and a reset, so that the peer has read them
BATCH = 65_536  # bytes of an unpaced stream written at once


class Delivery:
    """One answer on its way."""

    def __init__(self, connection: Connection, exchange: Exchange, reply: Reply) -> None:
        self._connection = connection
        self._exchange = exchange
        self._reply = reply
        self._script = exchange.script
        self._loop = asyncio.get_running_loop()
        self._is_cut = False

    async def run(self) -> None:
        """Sends the answer as its script says. Cancelled when the client leaves."""
        script, provider = self._script, self._exchange.provider
        if self._exchange.waits and provider.slots is not None:
            await provider.slots.wait(self._connection)
        latency_ms = provider.settings.latency_ms if script.latency_ms is None else script.latency_ms
        if wait_ms := latency_ms + provider.settings.service_time_ms:
            await asyncio.sleep(wait_ms / 1000)
        if script.halfopen:
            await self._end(Cut("stall", "head"))
        elif script.cut is not None and script.cut.at == "head":
            await self._end(script.cut)
        elif script.garbage:
            await self._send(GARBAGE)
            self._connection.close()
        elif self._reply.events is None or self._exchange.request.method == "HEAD":
            await self._plain()
        else:
            await self._stream(self._reply.events)

    async def _send(self, data: bytes) -> None:
        """Writes, in slices where the script says so, and waits while the peer reads too slowly."""
        connection, size = self._connection, self._script.slice
        if size is None:
            connection.write(data)
        else:
            for start in range(0, len(data), size):
                if start:
                    await asyncio.sleep(0)
                connection.write(data[start : start + size])
        await connection.drain()

    async def _plain(self) -> None:
        body, delta, cut = self._reply.body, self._script.wrong_length, self._script.cut
        framing = b"content-length: %d\r\n" % max(0, len(body) + delta)
        if self._reply.status in BODILESS:
            framing = b""
        head = self._connection.head(self._exchange, self._reply, framing)
        if self._exchange.request.method == "HEAD":
            body = b""
        if cut is None:
            await self._send(head + body)
            self._exchange.sent = len(body)
            if delta > 0:
                self._connection.close()
            return
        place = len(body) // 2 if cut.at == "body" else int(cut.at)
        await self._send(head + body[:place])
        self._exchange.sent = min(place, len(body))
        await self._end(cut)

    async def _stream(self, events: Iterable[bytes]) -> None:
        script, exchange = self._script, self._exchange
        chunked = exchange.request.http11
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        head = self._connection.head(exchange, self._reply, framing)
        if script.chunk_bytes is not None:
            events = rechunk(events, script.chunk_bytes)
        await self._events(events, head, chunked)
        if self._is_cut:
            return
        if script.wrong_length:
            await self._send(b"%x\r\nx\r\n" % max(0, 1 + script.wrong_length))
            self._connection.close()
        elif chunked:
            await self._send(LAST_CHUNK)

    async def _events(self, events: Iterable[bytes], head: bytes, chunked: bool) -> None:
        """Sends head and events, each at its time; stops at the script's cut."""
        script, exchange = self._script, self._exchange
        settings = exchange.provider.settings
        pace_s = (settings.chunk_ms if script.chunk_ms is None else script.chunk_ms) / 1000
        last = self._last_event()
        waiting, start = [head], self._loop.time()
        size = len(head)
        for index, event in enumerate(events):
            if index == last:
                break
            if pace_s and index:
                await self._until(start + index * pace_s)
            waiting.append(frame(event) if chunked else event)
            size += len(event)
            exchange.sent = index + 1
            if pace_s or script.slice or size > BATCH:
                await self._send(b"".join(waiting))
                waiting.clear()
                size = 0
        await self._send(b"".join(waiting))
        if last is not None and script.cut is not None:
            await self._end(script.cut)

    def _last_event(self) -> int | None:
        """The number of events before the cut; None where there is none."""
        cut = self._script.cut
        if cut is None:
            return None
        return 1 if cut.at == "body" else int(cut.at)

    async def _until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._loop.time()))

    async def _end(self, cut: Cut) -> None:
        """Ends the answer where it must not end; a stall lasts until the client leaves."""
        self._is_cut = True
        self._exchange.provider.journal.cut(self._exchange, self._reply, cut.kind)
        if cut.kind == "stall":
            await self._loop.create_future()
        elif cut.kind == "die":
            self._connection.close()
        else:
            if cut.at != "head":
                await asyncio.sleep(SETTLE_S)
            self._connection.reset()
