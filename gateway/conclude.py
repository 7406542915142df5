"""How a call ends: settled once, recorded once, counted, logged; and the headers that tell the client about it."""

from __future__ import annotations

from asyncio import CancelledError, sleep

from gateway.call import Call, Outcome, Reply
from gateway.calllog import CallLog
from gateway.clock import Clock
from gateway.errors import GatewayError, Header
from gateway.metrics import Metrics
from gateway.questions import NOTHING, Questions
from gateway.ratelimit import headers as rate_headers
from gateway.rates import charge_of
from gateway.records.ledger import Ledger, LedgerFull
from gateway.records.rows import CallRow
from gateway.state.store import Store
from gateway.usage import Usage


class Concluder:
    """Ends calls. A cancelled call is concluded like any other: nothing here waits, and who gives way comes back."""

    def __init__(
        self, ledger: Ledger, store: Store, metrics: Metrics, log: CallLog, clock: Clock, questions: Questions
    ) -> None:
        self._ledger = ledger
        self._questions = questions
        self._store = store
        self._log = log
        self._now_ns = clock.now_ns
        self._wall_ns = clock.wall_ns
        self._calls = metrics.counter(
            "tidegate_calls_total", "Calls by how they ended.", ("route", "provider", "outcome", "status", "fault")
        )
        self._tokens = metrics.counter(
            "tidegate_tokens_total", "Tokens that were billed.", ("provider", "model", "type")
        )
        self._cost = metrics.counter("tidegate_cost_picodollars_total", "Cost at providers.", ("provider", "model"))
        self._seconds = metrics.histogram(
            "tidegate_call_duration_seconds", "Calls from first to last byte.", ("route",)
        )
        self._first_byte = metrics.histogram(
            "tidegate_upstream_first_byte_seconds", "From sending a request to the head of its reply.", ("provider",)
        )
        self._overhead = metrics.histogram("tidegate_overhead_seconds", "Our own share of a call.", ("route",))

    async def conclude(self, call: Call, outcome: Outcome, refused_by: str = "") -> None:
        """Settles what is held, writes the rows, counts and logs. The first time only."""
        if call.concluded:
            return
        call.concluded = True
        await call.pipeline.settle(call, outcome)
        cancelled = await _give_way() if outcome.attempted and call.pipeline.others_wait else None
        if call.recording is not None:
            call.recording.drop()
        row = self._row(call, outcome, refused_by)
        if call.client.id:  # strangers are counted and logged, but can't fill the database
            self._write(call, row)
        self._count(call, row, outcome)
        self._log.write(row, call.marks)
        if cancelled is not None:
            raise cancelled

    async def gone(self, call: Call) -> None:
        """The client left before anything was sent upstream."""
        await self.conclude(call, Outcome("gone", 499, Usage()))

    async def refused(self, call: Call, error: GatewayError) -> None:
        """A refusal of ours, or of upstream before its attempt was concluded."""
        await self.conclude(call, Outcome("refused", error.status, Usage(), error=error), error.policy)

    async def answered(self, call: Call, reply: Reply) -> None:
        """Answered here, without upstream."""
        outcome = Outcome("answered", reply.status, Usage(), complete=reply.status < 400, headers=reply.headers)
        if isinstance(reply.body, bytes):
            outcome.chunks = (reply.body,)
        elif isinstance(reply.body, tuple):
            outcome.chunks = reply.body
        await self.conclude(call, outcome)

    async def measure(self, call: Call) -> None:
        """Reads the caller's limits for an answer that came before any reservation."""
        limits = call.pipeline.limits(call)
        if limits:
            call.levels = list(zip(limits, await self._store.levels(limits), strict=True))

    def decorate(self, call: Call, headers: list[Header]) -> list[Header]:
        """The answer's headers with ours added."""
        ours = [*headers, (b"x-request-id", call.id.encode())]
        if call.dialect == "anthropic":
            ours.append((b"request-id", call.id.encode()))  # where its SDKs look for it
        if call.levels:
            ours += rate_headers(call.dialect, call.levels, self._wall_ns())
        if call.attempts:
            row = call.attempts[-1]
            ours.append((b"x-tidegate-provider", row.provider.encode("ascii", "replace")))
            if row.model:
                ours.append((b"x-tidegate-model", row.model.encode("ascii", "replace")))
            if call.concluded:
                cost = sum([row.cost_pusd for row in call.attempts]) if call.borne_pusd is None else call.borne_pusd
                ours.append((b"x-tidegate-cost", dollars(cost)))
            elif call.reserved_pusd:
                ours.append((b"x-tidegate-reserved", dollars(call.reserved_pusd)))
            if len(call.attempts) > 1:
                ours.append((b"x-tidegate-attempts", b"%d" % len(call.attempts)))
        queued, waited_ns = call.queued, 0
        if queued is not None:
            waited_ns = queued.waited_ns
            ours += (
                (b"x-tidegate-queue-level", queued.level.encode()),
                (b"x-tidegate-queue-position", b"%d" % queued.position),
                (b"x-tidegate-wait-estimate-ms", b"%d" % queued.estimate_ms),
                (b"x-tidegate-wait-ms", b"%d" % queued.waited_ms),
            )
        overhead_us = (self._now_ns() - call.started_ns - call.upstream_ns - waited_ns) // 1000
        ours.append((b"x-tidegate-overhead-ms", b"%d.%03d" % divmod(max(0, overhead_us), 1000)))
        if call.demo:
            ours.append((b"x-tidegate-demo", b"fake provider; no key of a real one is configured"))
        ours += call.reply_headers
        return ours

    def _row(self, call: Call, outcome: Outcome, refused_by: str) -> CallRow:
        attempts, usage = call.attempts, outcome.usage
        last = attempts[-1] if attempts else None
        duration_us = (self._now_ns() - call.started_ns) // 1000
        elsewhere_us = (call.upstream_ns + (call.queued.waited_ns if call.queued is not None else 0)) // 1000
        cost = sum([row.cost_pusd for row in attempts])
        saving = call.notes.get("saving")
        saved = 0 if saving is None else saving.get("original_pusd", 0) - saving.get("actual_pusd", 0)
        is_asked = bool(call.client.id) and outcome.kind != "refused"  # of those, nobody is advised
        question, traits = self._questions.of(call) if is_asked else NOTHING
        code = outcome.error.code if outcome.error is not None else last.error if last is not None else ""
        return CallRow(
            id=call.id,
            org=call.client.org,
            client=call.client.id,
            key=call.key.id,
            route=call.route.name,
            method=call.method,
            path=call.path.decode("ascii", "replace"),
            dialect=call.dialect,
            model=call.facts.model or "",
            served_model=last.model if last is not None else call.targets[0].model if call.targets else "",
            provider=last.provider if last is not None else "",
            started_wall_ns=call.started_wall_ns,
            outcome=outcome.kind,
            status=outcome.status,
            error=code,
            policy=refused_by,
            stream=call.facts.stream,
            attempts=len(attempts),
            ttfb_us=last.ttfb_us if last is not None else 0,
            duration_us=duration_us,
            overhead_us=max(0, duration_us - elsewhere_us),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_pusd=cost,
            charge_pusd=charge_of(
                cost if call.borne_pusd is None else call.borne_pusd, call.client.tier.discount_percent
            ),
            saved_pusd=saved,
            saving="" if saving is None else saving["method"],
            estimated=usage.estimated,
            unpriced=last.unpriced if last is not None else False,
            notes={**call.notes, "observed": call.marks} if call.marks else call.notes or None,
            question=question,
            traits=traits,
        )

    def _write(self, call: Call, row: CallRow) -> None:
        try:
            if call.attempts:
                self._ledger.settle(call.attempts[-1], row)
            else:
                self._ledger.record(row)
        except LedgerFull:
            # Only a call without attempts can meet this: nothing was spent, and the metric still counts it.
            self._calls.add((row.route, "", "unrecorded", str(row.status), "gateway"))

    def _count(self, call: Call, row: CallRow, outcome: Outcome) -> None:
        fault = "" if outcome.error is None else outcome.error.fault
        if not fault and row.status >= 400:
            fault = "caller" if row.outcome == "gone" or row.status < 500 else "provider"
        self._calls.add((row.route, row.provider, row.outcome, str(row.status), fault))
        self._seconds.observe((row.route,), row.duration_us / 1e6)
        if not call.attempts:
            return
        self._first_byte.observe((row.provider,), row.ttfb_us / 1e6)
        self._overhead.observe((row.route,), row.overhead_us / 1e6)
        provider, model = row.provider, row.served_model
        if row.input_tokens:
            self._tokens.add((provider, model, "input"), row.input_tokens)
        if row.output_tokens:
            self._tokens.add((provider, model, "output"), row.output_tokens)
        if row.cost_pusd:
            self._cost.add((provider, model), row.cost_pusd)


def dollars(pusd: int) -> bytes:
    """Pico-dollars as a decimal string of dollars, exact."""
    whole, rest = divmod(pusd, 1_000_000_000_000)
    if rest == 0:
        return b"%d" % whole
    return b"%d.%s" % (whole, (b"%012d" % rest).rstrip(b"0"))


async def _give_way() -> CancelledError | None:
    """Two turns of the loop, in which the queue grants what was settled and those calls are sent: a slot idles less,
    and calls that end together don't begin, and so end, together again. Gives the cancellation that came meanwhile."""
    try:
        await sleep(0)
        await sleep(0)
    except CancelledError as cancelled:
        return cancelled
    return None
