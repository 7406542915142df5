"""The end of an attempt: what it consumed, what that costs, its row, and the call concluded with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.attempt import Attempt, Spoilt
from gateway.call import Call, Outcome, OutcomeKind
from gateway.clock import Clock
from gateway.deadline import exceeded
from gateway.errors import GatewayError, Overloaded
from gateway.failures import explain
from gateway.objects import ObjectWall
from gateway.providers.faults import FAULTS, of_error
from gateway.records.rows import AttemptRow
from gateway.targets import Target
from gateway.upstream.base import FirstByteTimeout, TotalTimeout, UpstreamError
from gateway.usage import Usage

#: What the client of a call is told that did not end within the grace time of a shutdown.
CUT = "This gateway shut down before the call was complete. Retry: another one, or its successor, will answer."

Conclude = Callable[[Call, Outcome], Awaitable[None]]


class Closing:
    """Closes attempts. `conclude` settles and records a call."""

    def __init__(self, wall: ObjectWall, clock: Clock, conclude: Conclude) -> None:
        self._wall = wall
        self._now_ns = clock.now_ns
        self.conclude = conclude
        self.cutting = False  # calls end because we do, not because their clients left

    def spoilt(self, call: Call, attempt: Attempt, error: UpstreamError) -> Spoilt:
        """An exchange that failed, as a row of the failure table and as an error for the caller."""
        kind, provider = attempt.target.provider.kind.name, attempt.target.provider
        fault, explained = of_error(kind, error), explain(error, provider)
        if attempt.is_stream and fault.name == "cut_body":
            fault = FAULTS[kind].get("cut_stream", fault)
        if call.deadline_ns is not None and fault.name == "total_timeout" and self._now_ns() >= call.deadline_ns:
            fault, explained = FAULTS[kind]["deadline"], exceeded(error.sent)
        if attempt.meter is not None:
            if attempt.held:
                attempt.meter.feed(attempt.held)
            usage = attempt.meter.finish(complete=False)[1]
        else:
            billed = isinstance(error, FirstByteTimeout | TotalTimeout) and error.sent
            usage = self.guess(call, attempt) if billed else Usage()
        return Spoilt(fault, explained, usage)

    def guess(self, call: Call, attempt: Attempt) -> Usage:
        """What was consumed when the reply did not get to tell."""
        kind = attempt.target.provider.kind
        meter = attempt.meter or kind.meter(call, attempt.target, 200, [])
        return meter.finish(complete=False)[1]

    def left(self, call: Call) -> Outcome:
        """How a call ends that is cancelled between two attempts: its client left, or we shut down."""
        if self._cuts(call):
            return Outcome("failed", 503, Usage(), error=_cut())
        return Outcome("gone", 499, Usage())

    def _cuts(self, call: Call) -> bool:
        return self.cutting and not call.left

    async def end(
        self,
        call: Call,
        attempt: Attempt,
        kind: OutcomeKind,
        usage: Usage,
        error: GatewayError | None = None,
        *,
        good: bool = False,
        code: str = "",
    ) -> None:
        """Prices and closes the attempt, and concludes the call with it."""
        row = attempt.row
        if kind == "gone" and self._cuts(call):
            kind, error = "failed", _cut()
        self.charge(row, attempt.target, usage)
        lists = call.method == "GET" and not call.object_id  # what others made is named there too
        made = attempt.meter.object_ids if attempt.meter is not None and not lists else ()
        if made or call.object_id:
            deleted = good and call.method == "DELETE"
            self._wall.learn(call, made, attempt.target.provider.name, deleted)
        self.close(
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
            None if call.recording is None else call.recording.chunks,
            attempt.headers,
            attempted=True,
        )
        await self.conclude(call, outcome)

    @staticmethod
    def charge(row: AttemptRow, target: Target, usage: Usage) -> None:
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

    def close(self, attempt: Attempt, outcome: str, code: str) -> None:
        row = attempt.row
        row.outcome = outcome
        row.error = code
        row.duration_us = (self._now_ns() - attempt.sent_ns) // 1000


def _cut() -> GatewayError:
    return Overloaded(CUT, code="draining", retry_after_s=1.0)
