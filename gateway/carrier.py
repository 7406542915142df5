"""The way upstream of calls that go up together: one exchange for all, its answer split, what it cost shared out.

The leader's task makes it; the others wait for their verdict. The ledger has one row an attempt, under the leader's id;
each member's call has its share beside it (../docs/batching.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import msgspec
import orjson

from gateway.attempt import Outgoing
from gateway.batches import Batch, Seat, Verdict
from gateway.call import Call, Outcome
from gateway.clock import Clock
from gateway.closing import CUT, Closing
from gateway.compression import Compression
from gateway.conclude import Concluder
from gateway.downstream import Downstream
from gateway.errors import BadUpstream, GatewayError, Header, Internal, Overloaded, Unavailable
from gateway.forward import Forwarder
from gateway.merging import share_usage, shares, split
from gateway.metrics import Metrics
from gateway.objects import ObjectWall
from gateway.providers import VOCABULARY
from gateway.records.ledger import Ledger
from gateway.records.rows import AttemptRow
from gateway.relay import Relay
from gateway.routing.routing import Routing
from gateway.routing.told import Told
from gateway.targets import Target
from gateway.usage import Usage

#: Answers that one input of many may be the reason for.
INPUT_FAULTS = (400, 413, 422)


class Kept(Downstream):
    """Keeps an answer instead of sending it."""

    can_encode = False  # it is taken apart first

    __slots__ = ("headers", "parts", "status")

    def __init__(self) -> None:
        self.started = self.finished = False
        self.sent_bytes = 0
        self.status = 0
        self.headers: list[Header] = []
        self.parts: list[bytes] = []

    async def start(self, status: int, headers: list[Header]) -> None:
        self._begin()
        self.status, self.headers = status, headers

    async def chunk(self, data: bytes) -> None:
        self.parts.append(data)

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        self.parts.append(data)


@dataclass(eq=False)
class Convoy:
    """Stands for the pipeline while several calls go up as one: what is moved is moved for each of them."""

    lead: Call
    seats: list[Seat]  # of the exchange that is being made
    attempts: list[AttemptRow] = field(default_factory=list)  # of all exchanges of the batch
    outcome: Outcome | None = None  # of the last one
    refusals: int = 0  # exchanges of several that one of their inputs was the reason for
    most_refusals: int = field(init=False)  # of which one bad input can be the reason
    noted: int = 0  # attempts whose riders are known
    at: Target = field(init=False)  # where the leader's slot is
    others_wait = False

    def __post_init__(self) -> None:
        self.at = self.lead.targets[0]
        self.most_refusals = len(self.seats).bit_length()

    async def heard(self, carrier: Call, target: Target, told: Told, at_ns: int) -> None:
        """What a provider says of its limits is said once."""
        await self.lead.pipeline.heard(self.lead, target, told, at_ns)

    async def move(self, carrier: Call, target: Target, *, keep: bool) -> bool:
        """Before another attempt. Who can't have what it needs there stays behind."""
        self.note()
        if not await self._move_lead(target, keep):
            return False
        for seat in [one for one in self.seats if one.call is not self.lead]:
            if not await seat.call.pipeline.move(seat.call, target, keep=keep):
                self.seats.remove(seat)
                message = "The provider failed, and this call's own limits have no room for another one now."
                seat.settle(failure(Unavailable(message, retry_after_s=1.0), seat.target))
        if self.seats:
            load(carrier, self.seats)
        return bool(self.seats)

    async def _move_lead(self, target: Target, keep: bool) -> bool:
        if not any(seat.call is self.lead for seat in self.seats):
            return target is self.at  # it holds no more than the slot, and no attempt of its own would take that along
        is_moved = await self.lead.pipeline.move(self.lead, target, keep=keep)
        if is_moved:
            self.at = target
        return is_moved

    def note(self) -> None:
        """Who took part in the attempts that were made since this was asked last."""
        for number in range(self.noted, len(self.attempts)):
            for seat in self.seats:
                seat.rode.append(number)
                seat.call.attempts.append(self.attempts[number])  # until its share is known
        self.noted = len(self.attempts)


def failure(error: GatewayError, target: Target | None) -> Verdict:
    """For members that get no answer of the provider's."""
    return Verdict(Outcome("failed", error.status, Usage(), error=error, target=target), [], error=error)


def load(carrier: Call, seats: Sequence[Seat]) -> None:
    """Puts what they ask into the one call that goes up."""
    lead = seats[0].call
    inputs = [one for seat in seats for one in seat.inputs]
    carrier.json = {**lead.json, "input": inputs}
    carrier.body = orjson.dumps(carrier.json)
    carrier.facts = seats[0].target.provider.kind.facts(lead.route, carrier.json, carrier.body)
    carrier.facts.model = lead.facts.model


class Carrier:
    """Takes calls with a seat upstream."""

    def __init__(
        self,
        ledger: Ledger,
        concluder: Concluder,
        wall: ObjectWall,
        alone: Forwarder,
        clock: Clock,
        routing: Routing,
        metrics: Metrics,
        compression: Compression,
    ) -> None:
        self._compression = compression
        self._ledger = ledger
        self._concluder = concluder
        self._alone = alone
        self._now_ns = clock.now_ns
        self.closing = Closing(wall, clock, self._over)
        relay = Relay(self.closing, lambda call, headers: headers, clock, compression)
        self._forwarder = Forwarder(ledger, self.closing, relay, clock, routing, compression, hedges=False)
        self._batches = metrics.counter("tidegate_batches_total", "Requests that several calls shared.", ("route",))
        self._calls = metrics.counter("tidegate_batched_calls_total", "Calls that went up with others.", ("route",))

    async def run(self, call: Call, seat: Seat, outgoing: Outgoing, down: Downstream) -> None:
        """Answers the call. Raises GatewayError only while nothing has gone out."""
        if seat.batch is not None and seat.batch.leader is not seat:
            await self._follow(seat)
            await self._deliver(seat, down)
            return
        batch = seat.batch or seat.lead()
        seats = await self._fill(batch)
        if seats == [seat]:
            batch.let_go(seat)
            await asyncio.sleep(0)  # where its client left meanwhile, it ends here
            await self._alone.run(call, outgoing, down)
            return
        await self._ascend(batch, list(seats), outgoing)
        if seat in seats:
            await self._deliver(seat, down)
        else:
            await asyncio.sleep(0)  # its client left, and it stayed for the others only: it ends here

    async def _fill(self, batch: Batch) -> list[Seat]:
        """Waits for others, to the end of the window."""
        leader = batch.leader
        left_ns = leader.bounds.window_ns - (self._now_ns() - leader.call.started_ns)
        timer = asyncio.get_running_loop().call_later(max(0, left_ns) / 1e9, batch.close)
        try:
            await batch.ready
        except asyncio.CancelledError:  # nobody is left, or we shut down
            for seat in batch.seal():
                seat.settle(failure(Overloaded(CUT, code="draining", retry_after_s=1.0), seat.target))
                seat.open()
            raise
        finally:
            timer.cancel()
        return batch.seal()

    async def _follow(self, seat: Seat) -> None:
        try:
            await asyncio.shield(seat.verdict)
        except asyncio.CancelledError:
            if seat.batch is not None and not seat.batch.is_sealed:
                seat.leave()
                raise
            while not seat.verdict.done():  # what was sent is billed; the exchange has its time-outs, and ends with us
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(seat.verdict)
            await self._conclude(seat, seat.verdict.result())
            raise

    async def _ascend(self, batch: Batch, seats: list[Seat], outgoing: Outgoing) -> None:
        """All that is sent for these, and a verdict for each of them, however it ends."""
        route, leader = batch.leader.call.route.name, batch.leader
        convoy = Convoy(leader.call, seats)
        self._batches.add((route,))
        self._calls.add((route,), len(seats))
        try:
            await self._send(convoy, seats, outgoing)
        except BaseException as problem:
            self._break_off(convoy, seats, problem)
            self._end(batch, convoy, seats)
            if leader in seats:
                await self._conclude(leader, leader.verdict.result())
            raise
        self._end(batch, convoy, seats)

    def _end(self, batch: Batch, convoy: Convoy, seats: list[Seat]) -> None:
        """Everybody's share is known: all are told, and whose client left ends."""
        self._share(convoy, seats)
        for seat in seats:
            seat.is_late = not seat.is_wanted
            seat.open()
        for seat in {batch.leader, *seats}:
            batch.let_go(seat)

    @staticmethod
    def _break_off(convoy: Convoy, seats: list[Seat], problem: BaseException) -> None:
        """The exchange did not come to its end: everybody left, or we shut down, or failed ourselves."""
        error = convoy.outcome.error if convoy.outcome is not None else None
        if error is None and isinstance(problem, Exception):
            error = Internal()
        for seat in seats:
            gone = Verdict(Outcome("gone", 499, Usage(), target=seat.target), [])
            seat.settle(gone if error is None else failure(error, seat.target))

    async def _send(self, convoy: Convoy, seats: list[Seat], outgoing: Outgoing) -> None:
        """One exchange; where one input may be at fault, each half for itself, so that only the bad one fails. Where
        more is refused than one bad input explains, each goes for itself: halving would ask nearly twice as often."""
        convoy.seats = list(seats)
        kept, error, waited_ns = await self._exchange(convoy, outgoing)
        await VOCABULARY.ready()  # what they share is shared by tokens
        seats = convoy.seats  # without those who stayed behind
        if error is not None or kept.status not in INPUT_FAULTS or len(seats) < 2:
            for seat, verdict in zip(seats, self._verdicts(convoy, kept, error), strict=True):
                verdict.upstream_ns = waited_ns
                seat.settle(verdict)
            return
        convoy.refusals += 1
        size = (len(seats) + 1) // 2 if convoy.refusals <= convoy.most_refusals else 1
        for start in range(0, len(seats), size):
            part = seats[start : start + size]
            for seat in part:
                if not seat.is_wanted:
                    seat.settle(Verdict(Outcome("gone", 499, Usage(), target=seat.target), []))
            rest = [seat for seat in part if seat.is_wanted]
            if rest:
                await self._send(convoy, rest, outgoing)

    async def _exchange(self, convoy: Convoy, outgoing: Outgoing) -> tuple[Kept, GatewayError | None, int]:
        lead, kept = convoy.lead, Kept()
        convoy.outcome = None
        carrier = Call(
            id=lead.id,
            route=lead.route,
            dialect=lead.dialect,
            method=lead.method,
            path=lead.path,
            query=lead.query,
            raw_headers=lead.raw_headers,
            started_ns=lead.started_ns,
            started_wall_ns=lead.started_wall_ns,
            peer=lead.peer,
            headers=lead.headers,
            memo=lead.memo,
        )
        carrier.client, carrier.key, carrier.targets = lead.client, lead.key, list(lead.targets)
        carrier.pipeline = convoy  # type: ignore[assignment]  # all that forwarding asks of it
        carrier.attempts = convoy.attempts
        load(carrier, convoy.seats)
        try:
            if convoy.attempts and not await convoy.move(carrier, lead.targets[0], keep=False):
                raise Unavailable("The provider refused a batch, and its parts can't be sent now.", retry_after_s=1.0)
            await self._forwarder.run(carrier, outgoing, kept)
        except GatewayError as refused:
            return kept, refused, carrier.upstream_ns
        finally:
            convoy.note()
        return kept, convoy.outcome.error if convoy.outcome is not None else None, carrier.upstream_ns

    async def _over(self, carrier: Call, outcome: Outcome) -> None:
        """The exchange is over: its attempt is settled, its members' calls are still to come."""
        carrier.concluded = True
        carrier.pipeline.outcome = outcome  # type: ignore[attr-defined]  # a convoy
        if carrier.attempts:
            self._ledger.settle(carrier.attempts[-1], None)

    def _verdicts(self, convoy: Convoy, kept: Kept, error: GatewayError | None) -> list[Verdict]:
        """What each of those who went gets of the answer."""
        seats, outcome, body = convoy.seats, convoy.outcome, b"".join(kept.parts)
        number = len(seats)
        bodies = [body] * number
        target = outcome.target if outcome is not None else convoy.lead.targets[0]
        if error is None and outcome is not None and outcome.kind == "served" and number > 1:
            try:
                counts = [len(seat.inputs) for seat in seats]
                bodies = split(convoy.lead.route.name, body, counts, [_weight(seat) for seat in seats])
            except ValueError:
                name = target.provider.name if target is not None else ""
                error = BadUpstream(f"Provider '{name}' did not answer each input of a batch.")
        kind = "failed" if error is not None or outcome is None else outcome.kind
        status = kept.status if error is None else error.status
        good = kind == "served" and outcome is not None and outcome.complete
        made = Outcome(kind, status, Usage(), 0, good, error, target, headers=kept.headers)
        return [Verdict(replace(made), kept.headers, one, error, number) for one in bodies]

    @staticmethod
    def _share(convoy: Convoy, seats: list[Seat]) -> None:
        """Puts into each member's call its share of every attempt that it was part of."""
        for number, row in enumerate(convoy.attempts):
            riders = [seat for seat in seats if number in seat.rode]
            weights = [_weight(seat) for seat in riders]
            usages = share_usage(row.usage, weights)
            tokens = [usage.tokens for usage in usages]
            costs = shares(row.cost_pusd, tokens if any(tokens) else weights)
            for seat, usage, cost in zip(riders, usages, costs, strict=True):
                seat.call.attempts[seat.rode.index(number)] = _with(row, usage, cost)

    async def _conclude(self, seat: Seat, verdict: Verdict) -> None:
        call, outcome = seat.call, verdict.outcome
        if seat.is_late:
            outcome.kind, outcome.status = "gone", 499
        if call.attempts:
            row = call.attempts[-1]
            outcome.usage, outcome.cost_pusd, outcome.attempted = row.usage, row.cost_pusd, True
            call.notes["batch"] = {"attempts": [one.id for one in call.attempts], "calls": verdict.members}
            self._note_saving(call, outcome)
        if call.recording is not None and verdict.error is None:
            call.recording.keep(verdict.body)
            outcome.chunks = call.recording.chunks
        call.upstream_ns += verdict.upstream_ns
        call.reply_headers.append((b"x-tidegate-batch", b"%d" % verdict.members))
        await self._concluder.conclude(call, outcome)

    @staticmethod
    def _note_saving(call: Call, outcome: Outcome) -> None:
        """Where a request has a price, those who share one save."""
        if outcome.target is None or outcome.kind != "served" or "saving" in call.notes:
            return
        usage = outcome.usage
        original = outcome.target.quote.cost(replace(usage, units={**usage.units, "requests": 1}))
        if original > outcome.cost_pusd:
            actual = outcome.cost_pusd
            call.notes["saving"] = {"method": "batching", "original_pusd": original, "actual_pusd": actual}

    async def _deliver(self, seat: Seat, down: Downstream) -> None:
        call, verdict = seat.call, seat.verdict.result()
        await self._conclude(seat, verdict)
        if seat.is_late:
            await asyncio.sleep(0)  # it ends here
            return
        if verdict.error is not None:
            raise verdict.error
        status, body = verdict.outcome.status, verdict.body
        headers = self._concluder.decorate(call, [one for one in verdict.headers if one[0] != b"content-length"])
        if len(body) >= self._compression.min_bytes and down.can_encode:
            headers, body = await self._compression.answer(call, status, headers, body)
        headers.append((b"content-length", b"%d" % len(body)))
        await down.whole(status, headers, body)


def _weight(seat: Seat) -> int:
    """Tokens of a member's own inputs."""
    return seat.target.provider.kind.count_input(seat.call)


def _with(row: AttemptRow, usage: Usage, cost_pusd: int) -> AttemptRow:
    """A copy of the row with a share instead of the whole."""
    share = msgspec.structs.replace(row)
    share.cost_pusd = cost_pusd
    for name in Usage.__dataclass_fields__:
        setattr(share, name, getattr(usage, name))
    return share
