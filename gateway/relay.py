"""A reply's way down to the client: whole where its headers are to tell what it cost, else chunk by chunk.

Nothing sits in a stream's way: chunks go out as they are, the provider's meter looks at them, taps keep references.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.attempt import Attempt, Outgoing, Spoilt, value_of
from gateway.call import Call
from gateway.clock import Clock
from gateway.closing import Closing
from gateway.compression import Compression
from gateway.downstream import Downstream
from gateway.errors import BadUpstream, Header, stream_event
from gateway.failures import cut_short, disguised, overloaded
from gateway.providers.faults import FAULTS
from gateway.providers.preamble import disguise_of
from gateway.routing.attempts import LONGEST_ASIDE_S
from gateway.routing.patience import retry_after
from gateway.upstream.base import UpstreamError, UpstreamResponse

#: A reply that is not a stream is held back up to this size, so that its headers can tell what it cost.
WHOLE_BYTES = 1_048_576

#: A list that has to be filtered is read up to this size, and refused above.
LIST_BYTES = 33_554_432

#: Bodies without names in them: no lists, and read by nobody on paths that we know nothing about.
MEDIA = (b"application/octet-stream", b"application/pdf", b"application/zip", b"audio/", b"image/", b"video/")

Decorate = Callable[[Call, list[Header]], list[Header]]


class Relay:
    """Passes replies on. `decorate` gives an answer our headers."""

    def __init__(self, closing: Closing, decorate: Decorate, clock: Clock, compression: Compression) -> None:
        self._closing = closing
        self._compression = compression
        self._decorate = decorate
        self._now_ns = clock.now_ns
        self._wall_ns = clock.wall_ns

    async def relay(
        self,
        call: Call,
        attempt: Attempt,
        response: UpstreamResponse,
        held: bytes,
        outgoing: Outgoing,
        down: Downstream,
    ) -> None:
        """From the reply's head on."""
        try:
            content_type = value_of(response.headers, b"content-type")
            is_list = outgoing.rewrite is not None and response.status < 400
            is_list = is_list and not attempt.is_stream and not content_type.startswith(MEDIA)
            if is_list or (attempt.is_whole and response.status < 400):
                held, attempt.is_whole = await self.read(attempt, response, LIST_BYTES if is_list else WHOLE_BYTES)
            if is_list and not attempt.is_whole:
                raise BadUpstream(f"Provider '{attempt.target.provider.name}' gave a list that is too long to check.")
            if attempt.is_whole or b"html" in content_type:
                await self._whole(call, attempt, response, held, outgoing, down)
            else:
                await self._pump(call, attempt, response, down, held)
        except UpstreamError as error:
            if not down.started:
                raise
            await self._broken(call, attempt, error, down)

    async def read(self, attempt: Attempt, response: UpstreamResponse, most: int) -> tuple[bytes, bool]:
        """The reply's body up to `most` bytes, and whether that is all of it."""
        body = await response.read()
        if not body or len(body) == response.content_length:
            return body, True
        parts, size = [body], len(body)
        try:
            while size <= most:
                chunk = await response.read()
                if not chunk:
                    return b"".join(parts), True
                parts.append(chunk)
                size += len(chunk)
        except BaseException:  # it broke or the client left: what came is estimated from
            attempt.counting.feed(b"".join(parts))
            raise
        return b"".join(parts), False

    async def _whole(
        self,
        call: Call,
        attempt: Attempt,
        response: UpstreamResponse,
        body: bytes,
        outgoing: Outgoing,
        down: Downstream,
    ) -> None:
        meter, status = attempt.counting, response.status
        call.upstream_ns = max(call.upstream_ns, self._now_ns() - attempt.sent_ns)
        body = meter.feed(body)
        tail, usage, verdict = meter.finish(complete=True)
        error = disguised(call, attempt.target.provider.name, status, attempt.headers, verdict, body)
        if error is not None:
            error.retry_after_s = self._asked_wait(response) if status >= 400 else None
            kind = attempt.target.provider.kind.name
            is_json = b"json" in value_of(response.headers, b"content-type")
            fault = FAULTS[kind][disguise_of(body, is_json)] if status < 400 else None
            if fault is not None and fault.name == "overloaded":
                error = overloaded(attempt.target.provider)
            raise Spoilt(fault, error, usage)
        if status < 400:
            attempt.plan.succeeded(attempt.choice, response.headers)
        body += tail
        if outgoing.rewrite is not None and status < 300:
            body = await outgoing.rewrite(body)
        good = status < 400 and verdict == "ok"
        code = "" if good else f"upstream_{status}" if status >= 400 else f"reply_{verdict}"
        if call.recording is not None:
            call.recording.keep(body)
        await self._closing.end(call, attempt, "served" if good else "failed", usage, good=good, code=code)
        headers = self._decorate(call, attempt.headers)
        if len(body) >= self._compression.min_bytes and down.can_encode:
            headers, body = await self._compression.answer(call, status, headers, body)
        if len(body) != response.content_length and call.method != "HEAD" and status not in (204, 304):
            headers = [header for header in headers if header[0] != b"content-length"]
            headers.append((b"content-length", b"%d" % len(body)))
        await down.whole(status, headers, body)

    async def _pump(
        self, call: Call, attempt: Attempt, response: UpstreamResponse, down: Downstream, first: bytes
    ) -> None:
        """Chunk by chunk as it comes."""
        if not (first or attempt.is_stream):
            first = await response.read()  # what breaks before that has another attempt, or an error for its answer
        if response.status < 400 and (
            not attempt.is_stream or attempt.is_encoded or attempt.target.provider.kind.name == "http"
        ):
            attempt.plan.succeeded(attempt.choice, response.headers)
        meter = attempt.counting
        headers = self._decorate(call, attempt.headers)
        if attempt.is_stream:  # events may be hidden from it or added to it
            headers = [header for header in headers if header[0] != b"content-length"]
        feed, read = meter.feed, response.read
        headers, down, first = await self._compression.stream(call, response.status, headers, down, first, read)
        send = down.chunk
        keep = None if call.recording is None else call.recording.keep

        def pushed(chunk: bytes) -> bool:
            """The same as below, from the upstream's socket to the client's without a task in between."""
            out = feed(chunk)
            if keep is not None:
                keep(out)
            return down.push(out) if out else True

        await down.start(response.status, headers)
        chunk = first or await read()
        while chunk:
            out = feed(chunk)
            if keep is not None:
                keep(out)
            if out:
                await send(out)
            if down.can_push:
                await response.pass_to(pushed)
                await down.drained()
            chunk = await read()
        tail, usage, verdict = meter.finish(complete=True)
        good = verdict == "ok" and response.status < 400
        error = cut_short(attempt.target.provider.name) if verdict == "cut" else None
        if error is not None:
            attempt.plan.failed(attempt.choice, FAULTS[attempt.target.provider.kind.name]["cut_body"])
            tail += stream_event(error, call.dialect, call.id)
        code = "" if good else f"upstream_{response.status}" if response.status >= 400 else f"stream_{verdict}"
        if keep is not None:
            keep(tail)
        await self._closing.end(call, attempt, "served" if good else "failed", usage, error, good=good, code=code)
        if error is None or not attempt.is_encoded:
            await down.end(tail)
        else:
            down.cut()  # no event can be added to an encoded stream

    async def _broken(self, call: Call, attempt: Attempt, error: UpstreamError, down: Downstream) -> None:
        """The reply broke off after it began: an event in a stream, a visible cut else."""
        spoilt = self._closing.spoilt(call, attempt, error)
        assert spoilt.fault is not None, "a failed exchange has one"
        attempt.plan.failed(attempt.choice, spoilt.fault)
        tail = attempt.counting.finish(complete=False)[0]
        await self._closing.end(call, attempt, "failed", spoilt.usage, spoilt.error)
        if attempt.is_stream and not attempt.is_encoded:
            await down.end(tail + stream_event(spoilt.error, call.dialect, call.id))
        else:
            down.cut()

    def _asked_wait(self, response: UpstreamResponse) -> float | None:
        """The provider's own retry-after, for an answer that is not passed on as it came."""
        seconds = retry_after(response.headers, self._wall_ns() / 1e9)
        return None if seconds is None else min(seconds, LONGEST_ASIDE_S)
