"""The same question gets the same answer, without asking anybody: an exact cache, and one call for many callers.

Which calls may share an answer, and what is part of the question: ../docs/cache.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gateway.answers import Answer, Flight
from gateway.call import Call, Outcome, Reply
from gateway.errors import Header
from gateway.heartbeat import beating
from gateway.interest import Interest
from gateway.policy import Gate, Policy
from gateway.prices import usd
from gateway.question import ROUTES, answer_of, digest_of, stands_alone, wish_of
from gateway.rates import charge_of
from gateway.recording import Room
from gateway.reshape import ROUTES as RESHAPED
from gateway.reshape import stream_of, whole_of
from gateway.scopes import ScopeNames

_MIB = 1_048_576
_NS = 1_000_000_000

#: Forms of one answer: whole, a stream, an OpenAI stream that ends with its usage.
_WHOLE, _STREAM, _STREAM_USAGE = _FORMS = (b"w", b"s", b"u")
_TOLD_APART = frozenset(("chat", "completions"))
#: A longer answer is not given in another form than it came in: reshaping happens on the loop.
_RESHAPED_BYTES = 262_144

#: Whoever waited for so many that came to nothing waits for no other: a failing provider is not asked by one after
#: another for as long as many want the same of it.
_MOST_LEADERS = 3

#: A share is reserved and settled at once.
_CHARGE_TTL_S = 60

Seconds = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[int, Field(ge=0, le=10_000)]
Positive = Annotated[int, Field(ge=1)]


@dataclass
class Cache(Policy):
    """Only complete answers of success are kept, for the same client (or org, where `share` says so)."""

    ttl_s: Seconds = 3_600
    #: By route, instead of ttl_s; 0 switches the cache off there.
    routes: Mapping[str, Seconds] = field(default_factory=dict)
    #: By the name in header x-tidegate-template, instead of both.
    templates: Mapping[str, Seconds] = field(
        default_factory=lambda: {
            "market_research": 86_400,
            "competitor_analysis": 43_200,
            "trend_detection": 7_200,
            "content_monitoring": 3_600,
            "news_aggregation": 1_800,
        }
    )
    max_mib: Positive = 256
    answer_mib: Positive = 4  # a longer answer is not kept
    sampled: bool = False  # also calls whose temperature is above 0, or not said
    share: Literal["client", "org"] = "client"
    single_flight: bool = True  # identical calls in the air together make one upstream call
    followers: Literal["free", "share"] = "free"  # share: they and the leader bear its cost in equal parts
    pace_ms: Milliseconds = 0  # between two chunks of a stream that is given again

    fail_open: ClassVar[bool] = True
    after: ClassVar[tuple[str, ...]] = ("identity", "access", "idempotency", "quota")

    def remarks(self, names: ScopeNames) -> Iterator[str]:
        for route in self.routes:
            if route not in ROUTES:
                yield f"routes: {route!r} is no route whose answers are kept; these are: {', '.join(sorted(ROUTES))}"

    def provide(self, gate: Gate) -> None:
        self._gate = gate
        self._answers = gate.answers
        self._answers.max_bytes = self.max_mib * _MIB
        self._now = gate.clock.now_ns
        self._flies = self.single_flight and self.mode == "enforce"
        self._room = Room(self.max_mib * _MIB)
        counter = gate.metrics.counter
        self._lookups = counter("tidegate_cache_lookups_total", "Look-ups in the cache.", ("route", "result"))
        self._saved = counter("tidegate_cache_saved_picodollars_total", "Cost that hits saved.", ("route",))

    def concerns(self, call: Call) -> bool:
        if call.route.name not in ROUTES or call.method != "POST" or not isinstance(call.json, dict):
            return False
        return self._ttl_s(call) > 0

    def again(self, call: Call) -> None:
        call.reply_headers = [header for header in call.reply_headers if header[0] != b"x-tidegate-cache"]

    async def apply(self, call: Call) -> AsyncGenerator[None, Outcome]:
        ttl_s = self._ttl_s(call)
        wish = wish_of(call)
        if not stands_alone(call, sampled=self.sampled) or not (wish.look or wish.keep):
            self._say(call, b"bypass")
            return
        body = _asked(call.json) if call.route.name in RESHAPED else call.json
        base, form = digest_of(call, self.share, body), _form_of(call)
        key, lane, purges = base + form, self._lane(call, base, form), self._answers.purges
        if wish.look:
            # The age that counts is that of who asks, not of who asked first.
            age_s = ttl_s if wish.max_age_s is None else min(ttl_s, wish.max_age_s)
            answer = self._look(call, base, form, age_s)
            if answer is None and self._flies and self._answers.flight(lane) is not None:
                answer = await self._wait(call, base, form, lane, age_s)
            if answer is not None:
                call.answer(self._replay(call, answer))
                return
        self._say(call, b"miss" if wish.look else b"bypass")
        if not wish.keep:
            return
        leads = wish.look and self._flies and self._answers.flight(lane) is None
        interest = call.interest or Interest()  # a policy before this one may have others waiting already
        if leads:
            call.interest = interest
            call.loans = self._answers.take_off(lane, interest, call.id, form).loans
        targets, answer = call.targets, None
        try:
            call.tap(self.answer_mib * _MIB, self._room)
            outcome = yield
            answer = answer_of(call, base, outcome, targets, self._now(), ttl_s)
            if answer is not None:
                self._answers.put(key, answer, purges)
        finally:
            if leads:
                if answer is not None and self.followers == "share":
                    self._split(call, lane, interest, answer)
                self._answers.land(lane, interest, answer)

    def _look(self, call: Call, base: bytes, form: bytes, age_s: int) -> Answer | None:
        """What was kept, in whichever form it came."""
        answer = self._answers.get(base + form)
        if answer is not None and self._is_fresh(answer, age_s):
            return answer
        return self._reshaped(call.route.name, base, form, age_s) if call.route.name in RESHAPED else None

    async def _wait(self, call: Call, base: bytes, form: bytes, lane: bytes, age_s: int) -> Answer | None:
        """What another call is about to bring."""
        for _ in range(_MOST_LEADERS):
            flight = self._answers.flight(lane)
            if flight is None:
                return None
            answer = await self._follow(call, flight)
            if answer is not None and flight.form == form:
                call.notes["shared_flight"] = True
                return answer
            answer = self._look(call, base, form, age_s)
            if answer is not None:
                return answer
        return None

    async def _follow(self, call: Call, flight: Flight) -> Answer | None:
        """Waits for the leader, and lends it the place in the queue that this call would have."""
        placement, scheduler = call.pipeline.place(call), self._gate.scheduler
        if placement is not None:
            flight.loans.lend(placement)
            scheduler.reconsider(flight.call)
        waiting = self._answers.wait(call, flight)
        if call.beat is not None and placement is not None and placement.heartbeat_s:
            waiting = beating(waiting, call, call.beat, scheduler, placement.heartbeat_s, flight.call)
        try:
            return await waiting
        finally:
            call.borne_pusd = flight.share_pusd
            if placement is not None:
                flight.loans.take_back(placement)
                scheduler.reconsider(flight.call)
            if call.borne_pusd:  # also of one who leaves just now: it was counted
                await self._charge(call, call.borne_pusd)

    def _split(self, call: Call, lane: bytes, interest: Interest, answer: Answer) -> None:
        """The leader and all who wait now bear its cost, whatever becomes of them afterwards."""
        flight = self._answers.flight(lane)
        if flight is None or flight.interest is not interest or not flight.followers:
            return
        flight.share_pusd, call.borne_pusd = split(answer.cost_pusd, flight.followers)
        saving = _saving("single_flight", answer, call.borne_pusd)
        # What a downgrade saved comes on top, and the row stays named by it.
        call.notes["saving"] = {**saving, **call.notes.get("saving", {}), "actual_pusd": call.borne_pusd}

    async def _charge(self, call: Call, share_pusd: int) -> None:
        """Takes a follower's share from its budgets. It was spent already, so nothing is refused for it."""
        limits = call.pipeline.spending(call)
        if limits:
            hold = f"{call.id}:share"
            charge_pusd = charge_of(share_pusd, call.client.tier.discount_percent)
            await self._gate.store.reserve(hold, [(limit, 0) for limit in limits], _CHARGE_TTL_S)
            await self._gate.store.settle(hold, [charge_pusd] * len(limits))

    def _lane(self, call: Call, base: bytes, form: bytes) -> bytes:
        """Who follows whom: a form follows the other one, but not where the cost is shared when the answer comes, since
        only then it is known whether it can be given in both."""
        return base if self.followers == "free" and call.route.name in RESHAPED else base + form

    def _is_fresh(self, answer: Answer, age_s: int) -> bool:
        return self._now() - answer.made_ns <= age_s * _NS

    def _reshaped(self, route: str, base: bytes, form: bytes, age_s: int) -> Answer | None:
        """An answer that came in another form, in this one; kept in it, too."""
        for other in _FORMS:
            found = self._answers.get(base + other) if other != form else None
            if found is None or not self._is_fresh(found, age_s) or found.size > _RESHAPED_BYTES:
                continue
            chunks: tuple[bytes, ...] | None = found.chunks
            if found.is_stream:
                body = whole_of(route, b"".join(found.chunks), found.usage)
                chunks = None if body is None else (body,)
            if chunks is not None and form != _WHOLE:
                chunks = stream_of(route, chunks[0], usage=form == _STREAM_USAGE)
            if chunks is not None:
                answer = replace(found, headers=_retyped(found.headers, form), is_stream=form != _WHOLE, chunks=chunks)
                self._answers.put(base + form, answer)
                return answer
        return None

    def _ttl_s(self, call: Call) -> int:
        template = call.headers.get(b"x-tidegate-template")
        if template is not None and (age_s := self.templates.get(template.decode("latin-1"))) is not None:
            return age_s
        return self.routes.get(call.route.name, self.ttl_s) if self.routes else self.ttl_s

    def _replay(self, call: Call, answer: Answer) -> Reply:
        borne_pusd = call.borne_pusd or 0
        saved_pusd = answer.cost_pusd - borne_pusd
        call.source = answer
        self._lookups.add((call.route.name, "hit"))
        if self.mode == "enforce":  # observed, the call is made and paid for
            self._saved.add((call.route.name,), saved_pusd)
        call.notes["saving"] = _saving("cache" if call.borne_pusd is None else "single_flight", answer, borne_pusd)
        age_s = (self._now() - answer.made_ns) // _NS
        headers: list[Header] = [
            *answer.headers,
            (b"age", b"%d" % age_s),
            (b"x-tidegate-cache", b"hit"),
            (b"x-tidegate-cache-key", answer.key.encode()),
            (b"x-tidegate-saved", usd(saved_pusd).encode()),
            (b"x-tidegate-cost", usd(borne_pusd).encode() if borne_pusd else b"0"),
        ]
        chunks = answer.chunks if answer.is_stream else answer.chunks[0]
        return Reply(answer.status, headers, chunks, self.pace_ms / 1000)

    def _say(self, call: Call, result: bytes) -> None:
        call.reply_headers.append((b"x-tidegate-cache", result))
        self._lookups.add((call.route.name, result.decode()))


def split(cost_pusd: int, followers: int) -> tuple[int, int]:
    """What each follower and what the leader bears: equal parts, and the leader the rest, so nothing is lost."""
    share = cost_pusd // (followers + 1)
    return share, cost_pusd - share * followers


def _saving(method: str, answer: Answer, actual_pusd: int) -> dict[str, Any]:
    return {"method": method, "original_pusd": answer.cost_pusd, "actual_pusd": actual_pusd, "of": answer.call}


def _form_of(call: Call) -> bytes:
    """The form in which the answer is wanted."""
    if not call.facts.stream or call.route.name not in RESHAPED:
        return _WHOLE
    return _STREAM_USAGE if call.facts.asked_usage and call.route.name in _TOLD_APART else _STREAM


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    """The body without what says in which form the answer is wanted. What no provider would take stays."""
    if "stream" not in body and "stream_options" not in body:
        return body
    asked = dict(body)
    if isinstance(asked.get("stream", False), bool):
        asked.pop("stream", None)
    options = asked.get("stream_options")
    if isinstance(options, dict) and isinstance(options.get("include_usage", False), bool):
        rest = {name: value for name, value in options.items() if name != "include_usage"}
        asked["stream_options"] = rest
        if not rest:
            del asked["stream_options"]
    return asked


def _retyped(headers: tuple[Header, ...], form: bytes) -> tuple[Header, ...]:
    said = b"application/json" if form == _WHOLE else b"text/event-stream; charset=utf-8"
    return (*[header for header in headers if header[0] != b"content-type"], (b"content-type", said))
