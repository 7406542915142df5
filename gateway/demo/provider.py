"""Knows one fake provider: its settings, what it keeps, and how a request becomes an answer."""

from __future__ import annotations

import logging
import re
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.demo.exchange import Exchange, Reply, Request
from gateway.demo.faults import shape, sign
from gateway.demo.journal import Journal
from gateway.demo.objects import Objects
from gateway.demo.plan import Plan
from gateway.demo.refusal import ProviderError
from gateway.demo.routes import POSTS, Handler
from gateway.demo.routes import answer as route
from gateway.demo.script import PLAIN, Script, parse_text
from gateway.demo.settings import DemoSettings
from gateway.demo.slots import Slots
from gateway.demo.stats import Stats
from gateway.demo.text import Text
from gateway.demo.tokens import TokenCounter
from gateway.demo.wire import Heads, extra_headers

if TYPE_CHECKING:
    from gateway.demo.connection import Connection

RECENT = 64  # requests kept for GET /fake/requests
KEPT_SCRIPTS = 256
UNSLOTTED = ("/v1/files", "/v1/batches")
NONCE = re.compile(r"[\w.:-]{1,128}", re.ASCII)
logger = logging.getLogger(__name__)


class Provider:
    """Everything that outlives a connection."""

    def __init__(self, settings: DemoSettings, tokens: TokenCounter, now: float) -> None:
        self.settings = settings
        self.tokens = tokens
        self.text = Text()
        self.heads = Heads()
        self.objects = Objects()
        self.stats = Stats()
        self.plan = Plan.read(settings.plan, now)
        self.journal = Journal(settings.log)
        self.slots = None if settings.slots is None else Slots(settings.slots, settings.over == "queue")
        self.seed = secrets.randbits(32) if settings.seed is None else settings.seed
        self.recent: deque[Request] = deque(maxlen=RECENT)
        self.connections: set[Connection] = set()
        # True where an answer takes time though its script says nothing.
        self.is_slow = bool(settings.latency_ms or settings.service_time_ms or settings.chunk_ms) or (
            self.slots is not None and self.slots.queues
        )
        self._count = 0
        self._scripts: dict[bytes, Script] = {}

    def answer(self, request: Request, connection: Connection, now: float) -> tuple[Exchange, Reply]:
        """Decides the answer to one request, counts it and records it; nothing has been sent yet."""
        exchange = self._exchange(request, now)
        try:
            self._authenticate(exchange)
            self._take_script(exchange, now)
            if exchange.script.early is not None:
                raise ProviderError(early_status(exchange.script.early))
            self._take_slot(exchange, connection)
            reply = route(exchange)
        except ProviderError as error:
            reply = Reply(error.render(exchange.anthropic, exchange.id), error.status)
        except Exception:
            logger.exception("the fake provider failed")
            self.stats.failures += 1
            reply = Reply(ProviderError(500, "the fake provider failed").render(exchange.anthropic, exchange.id), 500)
        exchange.nonce = exchange.nonce or metadata_nonce(exchange)
        if exchange.nonce:
            sign(reply, exchange.nonce)
        if exchange.script is not PLAIN:
            reply = self._faulty(exchange, reply)
        self.stats.begin(exchange, reply)
        self.journal.attempt(exchange, reply)
        return exchange, reply

    def handler_of(self, endpoint: str) -> Handler:
        """The route that answers POST on `endpoint`, as lines of batches need it. Raises ProviderError 400."""
        found = POSTS.get(endpoint)
        if found is None:
            raise ProviderError(400, f"Invalid endpoint: {endpoint}", param="endpoint")
        return found[1]

    def set_plan(self, rules: Iterable[Mapping[str, Any]], now: float) -> None:
        """Replaces the plan. Raises ValueError, the old plan then staying."""
        self.plan = Plan.read(rules, now)

    def reset(self, now: float) -> None:
        """Back to how it started: counters at zero, nothing kept, the settings' plan."""
        self.stats.clear()
        self.objects.clear()
        self.recent.clear()
        self.set_plan(self.settings.plan, now)

    def _exchange(self, request: Request, now: float) -> Exchange:
        self._count += 1
        fields = request.fields
        self.recent.append(request)
        return Exchange(
            self,
            request,
            self._count,
            f"req_{self.seed:08x}{self._count:024x}",
            b"anthropic-version" in fields or request.path.startswith("/v1/messages"),
            nonce=fields.get(b"x-nonce", b""),
            attempt=fields.get(b"x-tidegate-attempt", b"").decode("latin-1"),
            started=now,
        )

    def _authenticate(self, exchange: Exchange) -> None:
        wanted = self.settings.key
        if wanted is not None and credential(exchange.request) != wanted:
            raise ProviderError(401)

    def _take_script(self, exchange: Exchange, now: float) -> None:
        header = exchange.request.fields.get(b"x-fake")
        if header is not None:
            exchange.fault = header.decode("latin-1")
            exchange.script = self._script(header, exchange.fault)
        elif self.plan.rules:
            request = exchange.request
            found = self.plan.script_for(peek_model(exchange), request.path, credential(request), now)
            if found is not None:
                exchange.script, exchange.fault = found

    def _script(self, header: bytes, text: str) -> Script:
        found = self._scripts.get(header)
        if found is None:
            try:
                found = parse_text(text)
            except ValueError as error:
                raise ProviderError(400, str(error)) from None
            if len(self._scripts) >= KEPT_SCRIPTS:
                self._scripts.clear()
            self._scripts[header] = found
        return found

    def _take_slot(self, exchange: Exchange, connection: Connection) -> None:
        slots, request = self.slots, exchange.request
        if slots is None or request.method != "POST" or request.path.startswith(UNSLOTTED):
            return
        if not slots.has_room():
            self.stats.over_admissions += 1
            if slots.queues:
                exchange.waits = True
                return
            if self.settings.over == "refuse":
                raise ProviderError(429)
        slots.take(connection)

    def _faulty(self, exchange: Exchange, reply: Reply) -> Reply:
        script = exchange.script
        if script.shapes:
            reply = shape(exchange, reply)
        reply.headers += extra_headers(script)
        return reply


def credential(request: Request) -> str:
    """The key a request carries, by either dialect's header; empty where it carries none."""
    given = request.fields.get(b"authorization", request.fields.get(b"x-api-key", b"")).decode("latin-1")
    return given.removeprefix("Bearer ").strip()


def early_status(value: str) -> int:
    """The status of an answer sent before the request's body was read: the script's, else 400."""
    return int(value) if value.isdigit() and value != "1" else 400


def peek_model(exchange: Exchange) -> str:
    """The model (a worker's action) that a body names, for the plan; empty where it is not JSON or names none."""
    if not exchange.request.body.startswith(b"{"):
        return ""
    try:
        body = exchange.body
    except ProviderError:
        return ""
    found = body.get("model", body.get("action"))
    return found if isinstance(found, str) else ""


def metadata_nonce(exchange: Exchange) -> bytes:
    """The nonce of a caller who can't set a header: `x-nonce` in the body's metadata."""
    metadata = exchange.parsed.get("metadata") if exchange.parsed else None
    found = metadata.get("x-nonce") if isinstance(metadata, dict) else None
    return found.encode() if isinstance(found, str) and NONCE.fullmatch(found) else b""
