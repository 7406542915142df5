"""The hot path: a bare ASGI endpoint from scope to Call, pipeline, upstream and reply; who leaves, and how."""

from __future__ import annotations

from asyncio import CancelledError, sleep, to_thread
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from gateway.arrival import Arrival, Scope
from gateway.attempt import Outgoing
from gateway.bodies import ClientGone, Inbound
from gateway.call import Call, Reply
from gateway.carrier import Carrier
from gateway.clock import Clock
from gateway.closing import CUT
from gateway.compression import Compression
from gateway.conclude import Concluder
from gateway.deadline import check, deadline_of
from gateway.downstream import Directly, Downstream, Send
from gateway.errors import (
    BadRequest,
    Dialect,
    GatewayError,
    Header,
    Internal,
    NotOffered,
    Overloaded,
    TooLarge,
    UnsupportedMedia,
    render,
    stream_event,
)
from gateway.form import Form
from gateway.forward import Forwarder
from gateway.heartbeat import Continued, beat
from gateway.ids import Ids
from gateway.jsonbody import parse
from gateway.leaving import Leaving
from gateway.live import Live
from gateway.models import ModelsPage
from gateway.multipart import without_boundary
from gateway.objects import ObjectWall
from gateway.ownpages import OwnPages
from gateway.providers.base import Provider
from gateway.providers.faults import IDEMPOTENT
from gateway.relay import MEDIA
from gateway.relink import relinked
from gateway.results import id_of
from gateway.routes import UNKNOWN, Match, Router, spelt
from gateway.routing.routing import Routing
from gateway.server.bodies import IDENTITY, decode
from gateway.server.headers import Origin, request_headers
from gateway.server.paths import canonical
from gateway.server.refusal import BadTarget, Refusal, dialect_of
from gateway.stated import hear
from gateway.targets import Target

if TYPE_CHECKING:
    from gateway.server.exchange import Exchange

#: A worker's request that is safe to repeat is kept for that up to this size.
KEPT_BYTES = 1_048_576

#: Characters of a model's name.
LONGEST_NAME = 256

#: What is passed on as it comes can't be decoded on its way.
ENCODED = "Only JSON may come with a content-encoding here. Send this body as it is."
UNENCODED = ((b"accept-encoding", b"identity"),)

Receive = Callable[[], Any]


class Proxy:
    """Answers every data-plane path. `live()` gives the configuration in force."""

    def __init__(
        self,
        live: Callable[[], Live],
        forwarder: Forwarder,
        concluder: Concluder,
        wall: ObjectWall,
        clock: Clock,
        ids: Ids,
        routing: Routing,
        carrier: Carrier,
        compression: Compression,
        router: Router | None = None,
    ) -> None:
        self._live = live
        self._forwarder = forwarder
        self._concluder = concluder
        self._wall = wall
        self._clock = clock
        self._ids = ids
        self._routing = routing
        self._carrier = carrier
        self._compression = compression
        self._router = router or Router()
        self._models = ModelsPage()
        self.under_way = 0  # calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer_to(Arrival.by_asgi(scope, receive), Downstream(send))

    def direct(self, exchange: Exchange) -> Awaitable[None]:
        """The same for our own protocol, without messages in between."""
        return self._answer_to(Arrival.direct(exchange), Directly(exchange))

    async def _answer_to(self, arrival: Arrival, down: Downstream) -> None:
        live = self._live()
        live.enter()
        self.under_way += 1
        call = self._call(arrival, live)
        leaving = Leaving(arrival, call)
        try:
            await self._serve(call, arrival, live, leaving, down)
        except GatewayError as error:
            await self._refuse(call, error, down)
        except ClientGone:
            await self._concluder.gone(call)
        except CancelledError:
            if leaving.gone:
                await self._concluder.gone(call)
                return
            await self._refuse(call, Overloaded(CUT, code="draining", retry_after_s=1.0), down)
            raise
        except Exception:
            structlog.get_logger().exception("call failed", call=call.id)
            await self._refuse(call, Internal(), down)
        finally:
            leaving.stop()
            call.beat = call.first_bytes = None  # they lead back to the call
            live.leave()
            self.under_way -= 1

    def _call(self, arrival: Arrival, live: Live) -> Call:
        wall_ns = self._clock.wall_ns()
        call = Call(
            id=self._ids.new(wall_ns),
            route=UNKNOWN,
            dialect="openai",
            method=arrival.method,
            path=b"",
            query=arrival.query,
            raw_headers=arrival.headers,
            started_ns=self._clock.now_ns(),
            started_wall_ns=wall_ns,
            peer=arrival.peer,
            headers=arrival.fields,
            memo=arrival.memo,
        )
        call.pipeline = live.pipeline
        call.demo = live.demo
        return call

    def _match(self, call: Call, arrival: Arrival) -> Match:
        known: tuple[Dialect, bytes, Match] | None = call.memo.get("match")
        if known is None:
            match = self._find(call, arrival)
            call.memo["match"] = call.dialect, call.path, match
            return match
        call.dialect, call.path, match = known
        call.route = match.route
        return match

    def _find(self, call: Call, arrival: Arrival) -> Match:
        raw_path = arrival.raw_path
        try:
            call.path = path = spelt(raw_path if arrival.is_direct else canonical(raw_path))
            if path.startswith(b"/workers"):
                call.dialect = "plain"
            elif path.startswith(b"/v1/messages") or b"anthropic-version" in call.headers:
                call.dialect = "anthropic"
        except BadTarget as error:
            call.dialect = dialect_of(raw_path)
            raise BadRequest(f"The path of this request is not acceptable: {error}.") from None
        match = self._router.match(call.method, call.path)
        call.route = match.route
        if not match.route.shared:
            call.dialect = match.route.dialect  # the header selects only where both have the path (TERMS 13)
        if call.headers.get(b"upgrade", b"").lower() == b"websocket":
            raise NotOffered("WebSocket and Realtime are not offered; use the HTTP and SSE routes.")
        return match

    async def _serve(self, call: Call, arrival: Arrival, live: Live, leaving: Leaving, down: Downstream) -> None:
        match = self._match(call, arrival)
        await live.pipeline.greet(call)
        if b"x-tidegate-deadline" in call.headers:
            call.deadline_ns = deadline_of(call)
            check(call, self._clock.now_ns())
        length = call.headers.get(b"content-length")
        inbound = Inbound(arrival.receive, length, live.body_limit, arrival.exchange if arrival.is_direct else None)
        form = await self._read(call, match, inbound, live)
        if not inbound.ended:
            await inbound.look_ahead()
        if inbound.ended:
            leaving.watch()
        kind = live.resolver.kind(call.dialect)
        if form is None:
            call.facts = kind.facts(match.route, call.json, call.body or b"")
        else:
            call.facts = kind.form_facts(match.route, form.fields, form.model)
        if call.facts.model:
            _check_name(call)
        holder = await self._wall.check(call, match, () if form is None else form.take_suspects())
        if match.route.name != "models":
            call.targets = self._routing.rank(live.resolver.targets(call, match, holder))
            _check_size(call, inbound.length)
            if match.route.dialect == "plain" and call.targets[0].provider.stated_pools:
                await hear(call, inbound.length)
        if call.facts.stream:
            call.beat = partial(beat, down, partial(self._concluder.decorate, call))
        await live.pipeline.admit(call)
        if down.started:
            down = Continued(down, call)
        if call.reply is None and match.route.name == "models":
            call.answer(await self._models.reply(call, match, live))
        if call.reply is not None:
            await self._answer(call, call.reply, down)
            return
        if inbound.unread and match.route.dialect == "plain":
            await self._gather(call, inbound, leaving)
        outgoing = self._outgoing(call, match, live, inbound, form)
        if call.seat is None:
            await self._forwarder.run(call, outgoing, down)
        else:
            await self._carrier.run(call, call.seat, outgoing, down)

    async def _read(self, call: Call, match: Match, inbound: Inbound, live: Live) -> Form | None:
        """The body: parsed where it is JSON, its fields read where it is a form, passed on unread only where it can
        name nothing."""
        route, headers = match.route, call.headers
        if not inbound.length and b"transfer-encoding" not in headers:
            inbound.ended = True
            call.body = b"" if route.body == "json" and call.method == "POST" else None
        if route.dialect == "plain":
            if not inbound.ended and _is_kept(call, inbound):
                call.body = await inbound.whole()
            call.first_bytes = partial(_first_bytes, call, inbound)
            return None
        content_type = headers.get(b"content-type", b"").lower()
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() in IDENTITY:
            encoding = None
        is_json = not content_type or (b"json" in content_type and not content_type.startswith(b"multipart/"))
        if not is_json and not (inbound.ended and call.body is None):
            return await self._unlike_json(call, match, inbound, content_type, encoding)
        if not inbound.ended:
            call.body = await inbound.whole()
        if encoding is not None and call.body:
            call.body = await _decoded(encoding, call.body, live.body_limit)
        if call.body or (route.body == "json" and call.method == "POST"):
            call.json = parse(call.body or b"")
        return None

    async def _unlike_json(
        self, call: Call, match: Match, inbound: Inbound, content_type: bytes, encoding: bytes | None
    ) -> Form | None:
        route = match.route
        call.first_bytes = partial(_first_bytes, call, inbound)
        if route.body == "auto":
            if encoding is not None:
                raise UnsupportedMedia(ENCODED, code="unsupported_content_encoding", headers=UNENCODED)
            if content_type.startswith(b"multipart/form-data"):
                header = call.header(b"x-tidegate-model")
                form = Form(inbound.chunks(), call.headers[b"content-type"], header, reads_files=not route.model)
                await form.peek(patient=route.model)
                return form
            if route.name == "other" and content_type.startswith(MEDIA):
                return None
        takes = "application/json" if route.body != "auto" else "application/json or multipart/form-data"
        shown = content_type[:80].decode("latin-1")
        raise UnsupportedMedia(f"{call.path.decode()} takes content-type {takes}, not {shown}.")

    async def _gather(self, call: Call, inbound: Inbound, leaving: Leaving) -> None:
        """A worker's request is read as a whole where it can be sent shorter then."""
        accepts = call.targets[0].provider.accepts
        if accepts and self._compression.gathers(accepts, call.raw_headers, inbound.length):
            call.body = b"".join([chunk async for chunk in inbound.chunks()])
            leaving.watch()

    def _outgoing(self, call: Call, match: Match, live: Live, inbound: Inbound, form: Form | None) -> Outgoing:
        target = call.targets[0]
        raw = _with_own_key(call) if b"idempotency-key" in call.headers else call.raw_headers

        def headers(provider: Provider) -> list[Header]:
            rules = provider.request_rules
            origin = Origin(call.peer.encode(), b"http", live.trusted(call.peer))
            identity = () if rules.kind != "http" else _identity(call)
            return request_headers(raw, rules, origin, identity)

        outgoing = Outgoing(headers, content_length=inbound.length)
        if form is not None:
            outgoing.chunks = form.chunks(partial(self._wall.check_more, call))
            outgoing.aim = partial(_aim, call, form, inbound.length)
        elif inbound.unread:
            outgoing.chunks = inbound.chunks() if match.route.dialect == "plain" else _media(inbound.chunks())
        if match.route.objects and call.method == "GET" and not call.object_id:
            outgoing.rewrite = OwnPages(self._wall, call, target.provider, headers(target.provider)).filter
        if match.route.name == "message_batches" and match.rest != "results":
            outgoing.rewrite = partial(_own_links, call, live, outgoing.rewrite)
        return outgoing

    async def _answer(self, call: Call, reply: Reply, down: Downstream) -> None:
        """An answer made here."""
        await self._concluder.answered(call, reply)
        headers = self._concluder.decorate(call, reply.headers)
        if isinstance(reply.body, bytes):
            body = reply.body
            if len(body) >= self._compression.min_bytes and down.can_encode:
                headers, body = await self._compression.answer(call, reply.status, headers, body)
            headers.append((b"content-length", b"%d" % len(body)))
            await down.whole(reply.status, headers, b"" if call.method == "HEAD" else body)
            return
        headers, down, _ = await self._compression.stream(call, reply.status, headers, down)
        await down.start(reply.status, headers)
        if isinstance(reply.body, tuple):
            for number, chunk in enumerate(reply.body):
                if number and reply.pause_s:
                    await sleep(reply.pause_s)
                await down.chunk(chunk)
        else:
            async for chunk in reply.body:
                await down.chunk(chunk)
        await down.end()

    async def _refuse(self, call: Call, error: GatewayError, down: Downstream) -> None:
        """The one place where an error becomes an answer."""
        await self._concluder.refused(call, error)
        if down.started:
            if not down.finished and call.facts.stream:
                await down.end(stream_event(error, call.dialect, call.id))
            return
        if not call.levels and call.client.id:
            await self._concluder.measure(call)
        status, headers, body = render(error, call.dialect, call.id)
        headers = self._concluder.decorate(call, headers)
        headers.append((b"content-length", b"%d" % len(body)))
        await down.whole(status, headers, b"" if call.method == "HEAD" else body)


def _is_kept(call: Call, inbound: Inbound) -> bool:
    """Whether a worker's request may have to be sent again, so that its body has to be here as a whole."""
    may = call.method in IDEMPOTENT or b"idempotency-key" in call.headers
    return may and inbound.length is not None and inbound.length <= KEPT_BYTES


async def _own_links(call: Call, live: Live, rewrite: Callable[[bytes], Awaitable[bytes]] | None, body: bytes) -> bytes:
    body = body if rewrite is None else await rewrite(body)
    return relinked(call, body, is_trusted=live.trusted(call.peer), prefix=live.prefix)


def _check_size(call: Call, length: int | None) -> None:
    """A provider or worker may take less than the server does."""
    provider = call.targets[0].provider
    size = len(call.body) if call.body is not None else length or 0
    if provider.body_limit and size > provider.body_limit:
        raise TooLarge(f"'{provider.name}' takes request bodies up to {provider.body_limit:,} bytes (its body_limit).")


async def _first_bytes(call: Call, inbound: Inbound) -> bytes:
    """What two sendings of the same body have in common, of a body that is not read."""
    body = call.body if call.body is not None else await inbound.first_bytes()
    return without_boundary(body, call.headers.get(b"content-type", b""))


def _with_own_key(call: Call) -> list[Header]:
    """The call's headers with an idempotency key that is this client's alone: upstream all share one credential."""
    key = id_of(call.client.org, call.client.id, call.headers[b"idempotency-key"]).encode()
    return [(name, key if name == b"idempotency-key" else value) for name, value in call.raw_headers]


def _identity(call: Call) -> tuple[Header, ...]:
    """What a worker is told about the caller, whatever the caller said of itself."""
    return ((b"x-request-id", call.id.encode()), (b"x-client-id", call.client.id.encode("ascii", "replace")))


def _aim(call: Call, form: Form, length: int | None, target: Target) -> int | None:
    """Has the form name the model as this target knows it. Its length in bytes, if that is known."""
    is_named = form.model is not None or target.upstream_model != (call.facts.model or "")
    return form.send_model(target.upstream_model, length) if is_named and target.upstream_model else length


async def _media(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body, unless it is JSON by another name: that has to be read before it is sent."""
    begun = False
    async for chunk in chunks:
        begins = chunk.lstrip(b"\x00\t\n\r \xef\xbb\xbf\xfe\xff")[:1]
        if not begun and begins in (b"{", b"["):
            raise UnsupportedMedia("The body is JSON, but its content-type says something else. Send application/json.")
        begun = begun or bool(begins)
        yield chunk


def _check_name(call: Call) -> None:
    """A model's name goes into headers, log lines and tables: what could not be one goes no further."""
    name = call.facts.model or ""
    if len(name) > LONGEST_NAME or not name.isprintable():
        call.facts.model = None
        message = f"'model' is no model's name: it has control characters, or more than {LONGEST_NAME} characters."
        raise BadRequest(message, param="model")


async def _decoded(encoding: bytes, body: bytes, limit: int) -> bytes:
    """Beside the loop: a few bytes may become as many as the limit lets them."""
    try:
        return await to_thread(decode, encoding, [body], limit)
    except Refusal as refused:
        kind = {413: TooLarge, 415: UnsupportedMedia}.get(refused.status, BadRequest)
        raise kind(str(refused), code=refused.code, headers=refused.headers) from None
