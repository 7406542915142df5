"""One call's way upstream: an attempt a target until a first byte comes, then the pump.

Each attempt is intended in the ledger before a byte of it is sent, and closed exactly once however it ends. Nothing
sits in the stream's way: chunks go out as they are, the provider's meter looks at them, taps keep references.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from gateway.bodies import ClientGone
from gateway.call import Call, Outcome, OutcomeKind
from gateway.clock import Clock
from gateway.downstream import Downstream
from gateway.errors import GatewayError, Header, Overloaded, stream_event
from gateway.failures import cut_short, disguised, explain
from gateway.objects import ObjectWall
from gateway.providers.base import Meter
from gateway.records.ledger import Ledger, LedgerFull
from gateway.records.rows import AttemptRow
from gateway.server.headers import response_headers
from gateway.targets import Target
from gateway.upstream.base import FirstByteTimeout, TotalTimeout, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.usage import Usage

#: A reply that is not a stream is held back up to this size, so that its headers can tell what it cost.
WHOLE_BYTES = 1_048_576

Conclude = Callable[[Call, Outcome], Awaitable[None]]
Decorate = Callable[[Call, list[Header]], list[Header]]


@dataclass(slots=True)
class Outgoing:
    """What is sent for a call, apart from what depends on its target."""

    headers: list[Header]  # those of the client that may go up
    chunks: AsyncIterator[bytes] | None = None  # an unbuffered body: one attempt only
    content_length: int | None = None
    rewrite: Callable[[bytes], Awaitable[bytes]] | None = None  # of a whole JSON reply (lists of objects)


@dataclass(slots=True)
class Attempt:
    """One exchange under way."""

    row: AttemptRow
    target: Target
    meter: Meter | None = None
    is_stream: bool = False
    sent_ns: int = 0
    headers: list[Header] = field(default_factory=list)  # of the reply, those that may go down
    tapped: list[bytes] = field(default_factory=list)


class Forwarder:
    """Sends calls upstream. `conclude` settles and records a call; `decorate` gives an answer our headers."""

    def __init__(self, ledger: Ledger, wall: ObjectWall, clock: Clock, conclude: Conclude, decorate: Decorate) -> None:
        self._ledger = ledger
        self._wall = wall
        self._now_ns = clock.now_ns
        self._wall_ns = clock.wall_ns
        self._conclude = conclude
        self._decorate = decorate

    async def run(self, call: Call, outgoing: Outgoing, down: Downstream) -> None:
        """Answers the call from upstream. Raises GatewayError only while nothing has gone out."""
        for target in call.targets:
            attempt = self._intend(call, target)
            try:
                await self._ledger.durable()
                response = await self._send(call, attempt, outgoing)
            except UpstreamError as error:
                failed = explain(error, target.provider.name)
                if not error.sent and outgoing.chunks is None and target is not call.targets[-1]:
                    self._close(attempt, "failed", failed.code)
                    self._ledger.settle(attempt.row, None)
                    continue
                billed = isinstance(error, FirstByteTimeout | TotalTimeout)
                await self._end(call, attempt, "failed", self._guess(call, attempt) if billed else Usage(), failed)
                raise failed from None
            except (CancelledError, ClientGone):
                await self._end(call, attempt, "gone", self._guess(call, attempt))
                raise
            except GatewayError as error:  # the body broke a rule while it was being passed on
                await self._end(call, attempt, "failed", Usage(), error)
                raise
            await self._relay(call, attempt, response, outgoing, down)
            return

    def _intend(self, call: Call, target: Target) -> Attempt:
        estimate = target.estimate(call.facts)
        call.reserved_pusd = max(call.reserved_pusd, estimate.cost_pusd)
        number = len(call.attempts) + 1
        row = AttemptRow(
            id=f"{call.id}.{number}",
            call_id=call.id,
            n=number,
            org=call.client.org,
            client=call.client.id,
            key=call.key.id,
            route=call.route.name,
            provider=target.provider.name,
            model=target.model,
            upstream_model=target.upstream_model,
            started_wall_ns=self._wall_ns(),
            worst_pusd=estimate.cost_pusd,
            worst_tokens=estimate.tokens,
            price_version=target.quote.version,
            unpriced=target.quote.unpriced,
        )
        try:
            self._ledger.intend(row)
        except LedgerFull as full:
            message = "The ledger can't be written now, and no call is sent that could not be recorded. Retry shortly."
            raise Overloaded(message, code="ledger_unavailable", retry_after_s=1.0) from full
        call.attempts.append(row)
        return Attempt(row, target, sent_ns=self._now_ns())

    async def _send(self, call: Call, attempt: Attempt, outgoing: Outgoing) -> UpstreamResponse:
        provider = attempt.target.provider
        kind = provider.kind
        body: bytes | AsyncIterator[bytes] | None = outgoing.chunks
        if body is None and call.body is not None:
            body = kind.body_for(call, attempt.target)
        headers = outgoing.headers + provider.sent_headers + kind.extra_headers(call)
        if provider.attempt_header:
            headers.append((provider.attempt_header, attempt.row.id.encode()))
        request = UpstreamRequest(
            call.method,
            kind.path_for(provider, call, attempt.target),
            headers,
            body,
            outgoing.content_length,
        )
        attempt.sent_ns = self._now_ns()
        response = await provider.client.send(request)
        waited_ns = self._now_ns() - attempt.sent_ns
        attempt.row.ttfb_us = waited_ns // 1000
        call.upstream_ns += waited_ns
        attempt.row.status = response.status
        attempt.headers = response_headers(response.headers, provider.response_rules)
        attempt.row.upstream_request_id = value_of(attempt.headers, b"x-upstream-request-id").decode("ascii", "replace")
        attempt.meter = kind.meter(call, attempt.target, response.status, response.headers)
        return response

    async def _relay(
        self, call: Call, attempt: Attempt, response: UpstreamResponse, outgoing: Outgoing, down: Downstream
    ) -> None:
        """From the reply's head on: whoever leaves and whatever breaks, the attempt ends once."""
        content_type = value_of(response.headers, b"content-type")
        attempt.is_stream = content_type.startswith(b"text/event-stream")
        bounded = response.content_length is not None or call.route.body == "json" or response.status >= 400
        try:
            if not attempt.is_stream and bounded and (b"json" in content_type or call.route.dialect != "plain"):
                body, whole = await self._read(response)
                if whole:
                    await self._whole(call, attempt, response, body, outgoing, down)
                    return
                await self._pump(call, attempt, response, down, body)
            else:
                await self._pump(call, attempt, response, down, b"")
        except UpstreamError as error:
            await self._broken(call, attempt, explain(error, attempt.target.provider.name), down)
        finally:
            if not call.concluded:
                await self._end(call, attempt, "gone", self._guess(call, attempt))
            await response.aclose()

    async def _read(self, response: UpstreamResponse) -> tuple[bytes, bool]:
        """The reply's body up to WHOLE_BYTES, and whether that is all of it."""
        body = await response.read()
        if not body or len(body) == response.content_length:
            return body, True
        parts, size = [body], len(body)
        while size <= WHOLE_BYTES:
            chunk = await response.read()
            if not chunk:
                return b"".join(parts), True
            parts.append(chunk)
            size += len(chunk)
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
        meter, status = self._meter(attempt), response.status
        call.upstream_ns = max(call.upstream_ns, self._now_ns() - attempt.sent_ns)
        body = meter.feed(body)
        tail, usage, verdict = meter.finish(complete=True)
        content_type = value_of(response.headers, b"content-type")
        error = disguised(call, attempt.target.provider.name, status, content_type, verdict)
        if error is not None:
            await self._end(call, attempt, "failed", usage, error)
            raise error
        body += tail
        if outgoing.rewrite is not None and status < 300:
            body = await outgoing.rewrite(body)
        good = status < 400 and verdict == "ok"
        code = "" if good else f"upstream_{status}" if status >= 400 else f"reply_{verdict}"
        await self._end(call, attempt, "served" if good else "failed", usage, good=good, code=code, body=body)
        headers = self._decorate(call, attempt.headers)
        if call.method != "HEAD" and status not in (204, 304):
            headers = [header for header in headers if header[0] != b"content-length"]
            headers.append((b"content-length", b"%d" % len(body)))
        await down.whole(status, headers, body)

    async def _pump(
        self, call: Call, attempt: Attempt, response: UpstreamResponse, down: Downstream, first: bytes
    ) -> None:
        """Chunk by chunk as it comes."""
        meter = self._meter(attempt)
        headers = self._decorate(call, attempt.headers)
        if attempt.is_stream:  # events may be hidden from it or added to it
            headers = [header for header in headers if header[0] != b"content-length"]
        feed, read, send = meter.feed, response.read, down.chunk
        keep = attempt.tapped.append if call.tapped else None
        await down.start(response.status, headers)
        chunk = first or await read()
        while chunk:
            out = feed(chunk)
            if keep is not None:
                keep(out)
            if out:
                await send(out)
            chunk = await read()
        tail, usage, verdict = meter.finish(complete=True)
        good = verdict == "ok" and response.status < 400
        error = cut_short(attempt.target.provider.name) if verdict == "cut" else None
        if error is not None:
            tail += stream_event(error, call.dialect, call.id)
        code = "" if good else f"upstream_{response.status}" if response.status >= 400 else f"stream_{verdict}"
        body = b"".join([*attempt.tapped, tail]) if keep is not None else None
        await self._end(call, attempt, "served" if good else "failed", usage, error, good=good, code=code, body=body)
        await down.end(tail)

    async def _broken(self, call: Call, attempt: Attempt, error: GatewayError, down: Downstream) -> None:
        """The reply broke off: an error of its own while nothing is out, an event in a stream, a visible cut else."""
        tail, usage, _ = self._meter(attempt).finish(complete=False)
        await self._end(call, attempt, "failed", usage, error)
        if not down.started:
            raise error
        if attempt.is_stream:
            await down.end(tail + stream_event(error, call.dialect, call.id))

    def _guess(self, call: Call, attempt: Attempt) -> Usage:
        """What was consumed when the reply did not get to tell."""
        kind = attempt.target.provider.kind
        meter = attempt.meter or kind.meter(call, attempt.target, 200, [])
        return meter.finish(complete=False)[1]

    async def _end(
        self,
        call: Call,
        attempt: Attempt,
        kind: OutcomeKind,
        usage: Usage,
        error: GatewayError | None = None,
        *,
        good: bool = False,
        code: str = "",
        body: bytes | None = None,
    ) -> None:
        """Prices and closes the attempt, and concludes the call with it."""
        row = attempt.row
        self._charge(row, attempt.target, usage)
        lists = call.method == "GET" and not call.object_id  # what others made is named there too
        made = attempt.meter.object_ids if attempt.meter is not None and not lists else ()
        if made or call.object_id:
            deleted = good and call.method == "DELETE"
            self._wall.learn(call, made, attempt.target.provider.name, deleted)
        self._close(
            attempt, kind, code or (error.code if error is not None else "client_gone" if kind == "gone" else "")
        )
        outcome = Outcome(
            kind,
            row.status or (error.status if error is not None else 0),
            usage,
            row.cost_pusd,
            good,
            error,
            attempt.target,
            body if body is not None and len(body) <= call.tapped else None,
            attempt.headers,
            attempted=True,
        )
        await self._conclude(call, outcome)

    @staticmethod
    def _charge(row: AttemptRow, target: Target, usage: Usage) -> None:
        row.input_tokens = usage.input_tokens
        row.cached_tokens = usage.cached_tokens
        row.cache_write_tokens = usage.cache_write_tokens
        row.cache_write_1h_tokens = usage.cache_write_1h_tokens
        row.audio_input_tokens = usage.audio_input_tokens
        row.output_tokens = usage.output_tokens
        row.reasoning_tokens = usage.reasoning_tokens
        row.audio_output_tokens = usage.audio_output_tokens
        row.units = usage.units or None
        row.estimated = usage.estimated
        row.cost_pusd = target.quote.cost(usage)

    def _close(self, attempt: Attempt, outcome: str, code: str) -> None:
        row = attempt.row
        row.outcome = outcome
        row.error = code
        row.duration_us = (self._now_ns() - attempt.sent_ns) // 1000

    @staticmethod
    def _meter(attempt: Attempt) -> Meter:
        assert attempt.meter is not None, "the reply's head is there"
        return attempt.meter


def value_of(headers: list[Header], name: bytes) -> bytes:
    """The first header of that lower-case name, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""
