"""One call's way upstream: attempts as routing plans them until a first byte goes out, then the relay.

Each attempt is intended in the ledger before a byte of it is sent, and closed exactly once however it ends.
"""

from __future__ import annotations

from asyncio import CancelledError, Task, get_running_loop, sleep, timeout
from collections.abc import AsyncIterator
from contextlib import suppress

from gateway.attempt import Attempt, Outgoing, Spoilt, value_of
from gateway.bodies import ClientGone
from gateway.call import Call, Outcome
from gateway.clock import Clock
from gateway.closing import Closing
from gateway.compression import Compression
from gateway.deadline import check, told
from gateway.downstream import Downstream
from gateway.errors import BadUpstream, GatewayError, Header, Internal, Overloaded
from gateway.failures import cut_short, overloaded
from gateway.hedge import Sending, race
from gateway.needs import of_attempt
from gateway.providers.base import Provider
from gateway.providers.faults import FAULTS, of_error, of_status
from gateway.providers.preamble import MOST_BYTES, Beginning, beginning_of, gave_up
from gateway.records.ledger import Ledger, LedgerFull
from gateway.records.rows import AttemptRow
from gateway.relay import WHOLE_BYTES, Relay
from gateway.routing.attempts import Attempts, Choice, Failed
from gateway.routing.keyring import Credential
from gateway.routing.routing import Routing
from gateway.routing.told import listen
from gateway.server.headers import response_headers
from gateway.targets import Target
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.usage import Usage

#: Target, headers, and what the client made of them beforehand.
Prepared = tuple[bytes, list[Header], bytes]


class Forwarder:
    """Sends calls upstream."""

    def __init__(
        self,
        ledger: Ledger,
        closing: Closing,
        relay: Relay,
        clock: Clock,
        routing: Routing,
        compression: Compression,
        *,
        hedges: bool = True,
    ) -> None:
        self._compression = compression
        self._hedges = hedges
        self._routing = routing
        self._ledger = ledger
        self._closing = closing
        self._relay = relay
        self._now_ns = clock.now_ns
        self._wall_ns = clock.wall_ns

    async def run(self, call: Call, outgoing: Outgoing, down: Downstream) -> None:
        """Answers the call from upstream. Raises GatewayError only while nothing has gone out."""
        plan = self._routing.attempts(call, outgoing.chunks is not None)
        try:
            first = plan.first()
            while first.is_moved and not await self._move(call, plan, first, keep=False):
                first = plan.first()
            choice: Choice | None = first
            while choice is not None:
                choice = await self._try(call, plan, choice, outgoing, down)
        except (CancelledError, ClientGone):
            await self._abandon(call, self._closing.left(call))
            raise
        except GatewayError as error:
            await self._abandon(call, Outcome("failed", error.status, Usage(), error=error))
            raise

    async def _try(
        self, call: Call, plan: Attempts, choice: Choice, outgoing: Outgoing, down: Downstream
    ) -> Choice | None:
        """One attempt; gives the next one to make, where this one failed before a byte of an answer went out."""
        attempt: Attempt | None = None
        response: UpstreamResponse | None = None
        plan.begin(choice)
        try:
            if choice.pause_s:
                await sleep(choice.pause_s)
                choice.began_ns = self._now_ns()
            attempt = self._intend(call, plan, choice)
            await self._ledger.durable()
            hedge = plan.hedge(choice) if self._routing.rules.hedge.enabled and self._hedges else None
            if hedge is None:
                response = await self._send(call, attempt, outgoing)
            else:
                attempt, sent = await self._hedged(call, attempt, outgoing, *hedge)
                choice = attempt.choice
                response = sent.result()
            held = await self._beginning(call, attempt, response)
            await self._relay.relay(call, attempt, response, held, outgoing, down)
            return None
        except UpstreamError as error:
            assert attempt is not None, "nothing was sent without one"
            return await self._failed(call, attempt, self._closing.spoilt(call, attempt, error))
        except Spoilt as spoilt:
            assert attempt is not None, "nothing was sent without one"
            return await self._failed(call, attempt, spoilt)
        except GatewayError as error:  # the body broke a rule while it was being passed on
            if attempt is not None and attempt.is_open:
                await self._closing.end(call, attempt, "failed", Usage(), error)
            raise
        except Exception:  # a defect of ours: what the upstream did meanwhile counts
            if attempt is not None and attempt.is_open:
                await self._closing.end(call, attempt, "failed", self._closing.guess(call, attempt), Internal())
            raise
        finally:
            plan.end(choice)
            is_open = attempt is not None and attempt.is_open
            try:
                if response is not None:
                    await response.aclose()  # first of all: what nobody reads any more costs money
                if is_open:
                    await sleep(0)  # sockets close in the loop's next round, and estimating may take a moment
            finally:
                if attempt is not None and is_open:
                    await self._closing.end(call, attempt, "gone", self._closing.guess(call, attempt))

    async def _hedged(
        self, call: Call, attempt: Attempt, outgoing: Outgoing, delay_ns: int, other: Choice
    ) -> tuple[Attempt, Task[UpstreamResponse]]:
        """The attempt that answered first, of this one and of one beside it; the other one is closed, and billed."""
        both = [attempt]
        errors: dict[int, UpstreamError] = {}

        async def beside() -> Sending | None:
            second = await self._beside(call, attempt.plan, other)
            if second is None:
                return None
            both.append(second)
            return self._send(call, second, outgoing)

        def failed(index: int, error: UpstreamError) -> None:
            one, errors[index] = both[index], error
            one.plan.failed(one.choice, of_error(one.target.provider.kind.name, error))

        winner = 0
        try:
            winner, sent = await race(self._send(call, attempt, outgoing), delay_ns / 1e9, beside, failed)
            return both[winner], sent
        finally:
            if len(both) > 1:
                self._lose(call, both[1 - winner], both[winner], errors.get(1 - winner))

    async def _beside(self, call: Call, plan: Attempts, other: Choice) -> Attempt | None:
        """A hedge, its limits held besides; None where the retry budget or a limit has no room for it."""
        if not other.standing.place.repeats.take():
            plan.skip(other)
            return None
        other.is_paid = True
        if not await self._move(call, plan, other, keep=True):
            return None
        try:
            attempt = self._intend(call, plan, other)
        except GatewayError:
            plan.skip(other)
            return None
        plan.begin(other)
        return attempt

    def _lose(self, call: Call, loser: Attempt, winner: Attempt, error: UpstreamError | None) -> None:
        """Closes the attempt that was not needed in the end, and makes the other one the call's last. `error`: what it
        failed by, if it did."""
        plan, row = loser.plan, loser.row
        outcome, code = "failed", f"upstream_{row.status}"
        if error is not None:
            spoilt = self._closing.spoilt(call, loser, error)
            usage, code = spoilt.usage, spoilt.error.code
        else:
            usage = self._closing.guess(call, loser)
            if row.status >= 400:
                plan.failed(loser.choice, of_status(loser.target.provider.kind.name, row.status), loser.headers)
            else:
                plan.outrun(loser.choice)
                outcome, code = "gone", "hedge_lost"
        plan.end(loser.choice)
        self._closing.charge(row, loser.target, usage)
        self._closing.close(loser, outcome, code)
        self._ledger.settle(row, None)
        if call.attempts[-1] is not winner.row:
            one, other = len(call.attempts) - 2, len(call.attempts) - 1
            call.attempts[one], call.attempts[other] = call.attempts[other], call.attempts[one]
            turned = {one: other, other: one}
            call.held = [(*held[:3], turned.get(held[3], held[3])) for held in call.held]

    async def _failed(self, call: Call, attempt: Attempt, spoilt: Spoilt) -> Choice | None:
        """Nothing went out: the next attempt, or else the call ends with this one's error."""
        following = spoilt.following
        if spoilt.fault is not None:
            following = await self._next(call, attempt.plan, attempt.plan.failed(attempt.choice, spoilt.fault))
        if following is None:
            await self._closing.end(call, attempt, "failed", spoilt.usage, spoilt.error)
            raise spoilt.error from None
        self._closing.charge(attempt.row, attempt.target, spoilt.usage)
        self._closing.close(attempt, "failed", spoilt.error.code)
        self._ledger.settle(attempt.row, None)
        return following

    async def _next(self, call: Call, plan: Attempts, failed: Failed) -> Choice | None:
        """What to try after that, its limits held; TERMS 5."""
        while (choice := plan.next(failed)) is not None:
            if await self._move(call, plan, choice, keep=failed.fault.work == "paid"):
                return choice
        return None

    async def _move(self, call: Call, plan: Attempts, choice: Choice, *, keep: bool) -> bool:
        """Whether what the attempt needs is held now."""
        is_held = False
        try:
            is_held = await call.pipeline.move(call, choice.target, keep=keep)
        finally:
            if not is_held:
                plan.skip(choice)
        return is_held

    async def _abandon(self, call: Call, outcome: Outcome) -> None:
        """The call ended between two attempts: those that were made count all the same."""
        if call.attempts and not call.concluded:
            last = of_attempt(call, len(call.attempts) - 1, outcome)
            outcome.usage, outcome.cost_pusd, outcome.target = last.usage, last.cost_pusd, last.target
            outcome.attempted = True
            await self._closing.conclude(call, outcome)

    async def _beginning(self, call: Call, attempt: Attempt, response: UpstreamResponse) -> bytes:
        """The reply's first bytes, as far as they had to be read to know whether this attempt is the one to pass on.
        Raises Spoilt where another one will do better."""
        content_type = value_of(response.headers, b"content-type")
        attempt.is_stream = content_type.startswith(b"text/event-stream")
        attempt.is_encoded = value_of(response.headers, b"content-encoding") not in (b"", b"identity")
        attempt.is_whole = not attempt.is_stream and (
            (response.content_length is not None or call.route.body == "json" or response.status >= 400)
            and (b"json" in content_type or call.route.dialect != "plain")
        )
        if response.status >= 400:
            return await self._refused(call, attempt, response)
        if attempt.is_stream and not attempt.is_encoded and attempt.target.provider.kind.name != "http":
            return await self._preamble(call, attempt, response)
        return b""

    async def _refused(self, call: Call, attempt: Attempt, response: UpstreamResponse) -> bytes:
        """An answer from 400 on: passed on as it came, unless there is another attempt to make."""
        fault = of_status(attempt.target.provider.kind.name, response.status)
        body = b""
        if attempt.is_whole:
            body, attempt.is_whole = await self._relay.read(attempt, response, WHOLE_BYTES)
            if response.status == 429 and b'"insufficient_quota"' in body:
                fault = FAULTS[attempt.target.provider.kind.name].get("quota", fault)
        following = await self._next(call, attempt.plan, attempt.plan.failed(attempt.choice, fault, response.headers))
        if following is None:
            return body
        error = BadUpstream(f"Answered {response.status}.", code=f"upstream_{response.status}")
        raise Spoilt(None, error, Usage(), following)

    async def _preamble(self, call: Call, attempt: Attempt, response: UpstreamResponse) -> bytes:
        """Holds back the events before any content, for a moment: a provider that gives up among them has not begun."""
        route, target = call.route.name, attempt.target
        began_ns = self._now_ns()
        data = attempt.held = await response.read()
        found = beginning_of(route, data)
        if found == "nothing" and response.read_can_be_cancelled:
            found = await self._more(route, attempt, response)
            data = attempt.held
            call.upstream_ns += self._now_ns() - began_ns
        if found == "error" and gave_up(call, target, response.headers, data):
            fault = FAULTS[target.provider.kind.name]["overloaded"]
            raise Spoilt(fault, overloaded(target.provider), Usage())
        if found == "nothing" and not data.strip():
            raise Spoilt(FAULTS[target.provider.kind.name]["cut_stream"], cut_short(target.provider.name), Usage())
        attempt.plan.succeeded(attempt.choice, response.headers)
        attempt.held = b""
        return data

    async def _more(self, route: str, attempt: Attempt, response: UpstreamResponse) -> Beginning:
        """Reads on until something is in it, the stream ends, or the time is up."""
        found: Beginning = "nothing"
        with suppress(TimeoutError):
            async with timeout(self._routing.rules.retry.preamble_s):
                while found == "nothing" and len(attempt.held) < MOST_BYTES and (chunk := await response.read()):
                    attempt.held += chunk
                    found = beginning_of(route, attempt.held)
        return found

    async def _hear(self, call: Call, target: Target, response: UpstreamResponse) -> None:
        """What the provider says of its limits; with several keys each has its own (see Keyring)."""
        said = listen(response.status, response.headers, self._wall_ns())
        if said is not None:
            await call.pipeline.heard(call, target, said, self._now_ns())

    def _intend(self, call: Call, plan: Attempts, choice: Choice) -> Attempt:
        target = choice.target
        if call.deadline_ns is not None:
            check(call, self._now_ns())
        estimate = call.estimate(target)
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
        return Attempt(row, target, plan, choice, sent_ns=self._now_ns())

    @staticmethod
    def _prepare(call: Call, attempt: Attempt, outgoing: Outgoing) -> Prepared:
        """Target and headers; with a lead, to be remembered with the request's head, where nothing of the call is in
        them. Such headers are shared: never change the list."""
        provider, credential = attempt.target.provider, attempt.choice.credential
        sent_headers = provider.sent_headers if credential is None else credential.headers
        headers = outgoing.headers(provider) + sent_headers + provider.kind.extra_headers(call)
        target = provider.kind.path_for(provider, call, attempt.target)
        if provider.attempt_header:
            headers.append((provider.attempt_header, attempt.row.id.encode()))
        elif provider.request_rules.kind != "http":  # a worker is told who calls
            return target, headers, provider.client.lead(call.method, target, headers)
        return target, headers, b""

    async def _send(self, call: Call, attempt: Attempt, outgoing: Outgoing) -> UpstreamResponse:
        provider = attempt.target.provider
        kind = provider.kind
        body: bytes | AsyncIterator[bytes] | None = outgoing.chunks
        if outgoing.aim is not None:
            outgoing.content_length = outgoing.aim(attempt.target)
        if body is None and call.body is not None:
            body = kind.body_for(call, attempt.target)
        sender: Provider | Credential = attempt.choice.credential or provider
        prepared: Prepared | None = call.memo.get(sender)
        if prepared is None:
            prepared = self._prepare(call, attempt, outgoing)
            if prepared[2]:
                call.memo[sender] = prepared
        path, headers, lead = prepared
        if provider.accepts and isinstance(body, bytes):
            headers, body = await self._compression.request(provider.accepts, headers, body)
            lead = lead if headers is prepared[1] else b""
        request = UpstreamRequest(call.method, path, headers, body, outgoing.content_length, lead=lead)
        if call.deadline_ns is not None:
            self._bound(call, request, kind.name)
        attempt.sent_ns = self._now_ns()
        response = await provider.client.send(request)
        if attempt.target.pools is not None and attempt.choice.credential is None:
            await self._hear(call, attempt.target, response)
        waited_ns = self._now_ns() - attempt.sent_ns
        attempt.row.ttfb_us = waited_ns // 1000
        call.upstream_ns += waited_ns
        attempt.row.status = response.status
        attempt.headers = response_headers(response.headers, provider.response_rules)
        attempt.row.upstream_request_id = value_of(attempt.headers, b"x-upstream-request-id").decode("ascii", "replace")
        attempt.meter = kind.meter(call, attempt.target, response.status, response.headers)
        return response

    def _bound(self, call: Call, request: UpstreamRequest, kind: str) -> None:
        """The client's own deadline: for our clock, and told to workers."""
        assert call.deadline_ns is not None, "asked only then"
        left_ns = call.deadline_ns - self._now_ns()
        request.total_deadline = get_running_loop().time() + left_ns / 1e9
        if kind == "http":
            request.headers = [*request.headers, *told(self._wall_ns() + left_ns, left_ns)]
            request.lead = b""  # made for every call of this head, and each has its own time left
