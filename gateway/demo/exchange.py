"""Knows one call to the fake provider: the request as it came, what its script says, and the reply to be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from gateway.demo.refusal import ProviderError
from gateway.demo.script import PLAIN, Script
from gateway.demo.usage import Usage

if TYPE_CHECKING:
    from gateway.demo.provider import Provider

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


@dataclass(slots=True)
class Request:
    """One HTTP request, whole. Header names are in lower case, in the order they came."""

    method: str
    target: str  # as on the request line, percent-encoding included
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keep_alive: bool = True
    http11: bool = True
    fields: dict[bytes, bytes] = field(init=False)  # the last header of each name
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        self.fields = dict(self.headers)
        self.path, _, self.query = self.target.partition("?")

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return parse_qs(self.query).get(name, [None])[0] if self.query else None


@dataclass(slots=True)
class Reply:
    """One answer, before the script's faults.

    body: a plain body; events: the parts of a stream, each sent as it is.
    lead: events before the first that carries a token, for telling how many tokens a cut stream had sent.
    """

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    events: Iterable[bytes] | None = None
    lead: int = 0
    usage: Usage = field(default_factory=Usage)
    headers: list[bytes] = field(default_factory=list)  # whole lines, CRLF included


@dataclass(slots=True)
class Exchange:
    """One call, from its request to its reply."""

    provider: Provider
    request: Request
    number: int
    id: str
    anthropic: bool
    script: Script = PLAIN
    nonce: bytes = b""
    route: str = "other"
    model: str = ""
    streams: bool = False
    attempt: str = ""  # the caller's own id of this attempt
    fault: str = ""  # the script as it was written
    started: float = 0.0  # on the loop's clock
    sent: int = 0  # events written, or bytes of a plain body
    waits: bool = False  # for a slot
    parsed: dict[str, Any] | None = None  # the body, once somebody asked for it

    @property
    def body(self) -> dict[str, Any]:
        """The request's body as a JSON object, parsed once. Raises ProviderError 400."""
        if self.parsed is None:
            try:
                parsed = orjson.loads(self.request.body)
            except ValueError:
                raise ProviderError(400, "We could not parse the JSON body of your request.") from None
            if not isinstance(parsed, dict):
                raise ProviderError(400, "The body of your request must be a JSON object.")
            self.parsed = parsed
        return self.parsed

    def take_model(self) -> str:
        """The model asked for; any name is known here. Raises ProviderError 400 where there is none."""
        model = self.body.get("model")
        if not isinstance(model, str) or not model:
            raise ProviderError(400, "you must provide a model parameter", param="model")
        self.model = model
        return model

    def whole(self, name: str, default: int, least: int = 1) -> int:
        """An integer of the body. Raises ProviderError 400 where it is another type or too small."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ProviderError(400, f"Invalid value for '{name}': expected an integer >= {least}.", param=name)
        return value

    def bill(self, counted: int, output: int = 0, reasoning: int = 0, **units: float | int | str) -> Usage:
        """The usage of this call: what was counted, unless its script says otherwise."""
        total = counted if self.script.input is None else self.script.input
        cached = min(self.script.cached, total)
        written = min(self.script.cache_write, total - cached)
        return Usage(total, output, cached, written, reasoning, units)

    def make_id(self, prefix: str) -> str:
        """An id of an object made by this call, unique to it and its prefix."""
        return f"{prefix}{self.provider.seed:08x}{self.number:016x}"


def as_json(value: Any, usage: Usage | None = None, status: int = 200) -> Reply:
    """A plain JSON reply."""
    return Reply(orjson.dumps(value), status, usage=Usage() if usage is None else usage)
