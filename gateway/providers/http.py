"""Downstream workers: any HTTP service. What it reports as `usage` in a JSON reply is what is counted."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.call import Facts
from gateway.errors import Header
from gateway.providers.base import Kind, Meter, Provider, Verdict, body_headers
from gateway.providers.encoded import plain
from gateway.providers.meters import PassingMeter, StreamMeter, WholeMeter, usage_near_end
from gateway.providers.openai import credential, with_query
from gateway.providers.reported import MOST, UNREADABLE, OpenAIUsage, Said, loosely, whole
from gateway.providers.vocabulary import Vocabulary
from gateway.sse import data_of
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.routes import Route
    from gateway.targets import Target

#: Units that one reply may report, and how long their names may be: they become columns and labels.
MAX_UNITS = 32
MAX_NAME = 64

_TOKEN_NAMES = frozenset(OpenAIUsage.__struct_fields__) - {"seconds"}


class Answer(msgspec.Struct):
    usage: Any = None


_ANSWER = msgspec.json.Decoder(Answer)


class Http(Kind):
    """Stateless."""

    name = "http"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary  # the meters' shape; a worker's tokens are never guessed

    def facts(self, route: Route, body: Any, raw: bytes) -> Facts:
        """A worker's tokens can't be told beforehand."""
        return Facts(max_tokens=0, units={"requests": 1})

    def body_for(self, call: Call, target: Target) -> bytes:
        return call.body if call.body is not None else b""

    def path_for(self, provider: Provider, call: Call, target: Target | None) -> bytes:
        """What follows /workers/NAME, behind the worker's own base path."""
        rest = call.path.split(b"/", 3)[3:]
        path = provider.base_path + (b"/" + rest[0] if rest else b"")
        return with_query(path or b"/", call.query, provider.query)

    def credentials(self, provider: Provider) -> list[Header]:
        return [*credential(provider, b"authorization", b"Bearer "), *provider.headers]

    def count_input(self, call: Call) -> int:
        return 0

    def meter(self, call: Call, target: Target | None, status: int, headers: list[Header]) -> Meter:
        verdict: Verdict = "error" if status >= 400 else "ok"
        content_type, encoding = body_headers(headers)
        if b"event-stream" in content_type:
            return plain(WorkerStream(call, self._vocabulary), encoding)
        if b"json" in content_type:
            return plain(WorkerMeter(call, self._vocabulary, verdict), encoding)
        return PassingMeter({"requests": 1}, verdict)


class WorkerMeter(WholeMeter):
    """A reply in JSON. Not being able to read it is no error: a worker may answer what it likes."""

    def __init__(self, call: Call, vocabulary: Vocabulary, verdict: Verdict) -> None:
        super().__init__(call, vocabulary)
        self._verdict = verdict

    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        return usage_of(_stated(body)), self._verdict

    def _of_part(self, body: bytes) -> Usage:
        return usage_of(None)

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        return usage_of(usage_near_end(tail))


class WorkerStream(StreamMeter):
    """Events of any kind; the last usage that one of them states counts."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        super().__init__(call, vocabulary)
        self._stated: Any = None

    def _read(self, event: bytes) -> None:
        stated = _stated(data_of(event))
        self._stated = self._stated if stated is None else stated

    def _read_long(self, head: bytes, tail: bytes) -> None:
        self._stated = usage_near_end(tail) or self._stated

    def _usage(self) -> tuple[Usage, Said]:
        return usage_of(self._stated), (True, True)

    def _verdict(self, complete: bool) -> Verdict:
        return "ok" if complete else "cut"


def _stated(text: bytes) -> Any:
    try:
        return _ANSWER.decode(text).usage
    except UNREADABLE:
        return None


def usage_of(stated: Any) -> Usage:
    """`{"tokens": {"input": 1, "output": 2}, "emails": 3}`, or OpenAI's names for tokens; other numbers are units,
    fractions rounded up. One request always counts."""
    usage = Usage(units={"requests": 1})
    if not isinstance(stated, dict):
        return usage
    reported = loosely(stated, OpenAIUsage)
    if reported is not None and not _TOKEN_NAMES.isdisjoint(stated):
        reported.seconds = None
        reported.into(usage)
    tokens = stated.get("tokens")
    if isinstance(tokens, dict):
        usage.input_tokens = whole(_number(tokens.get("input")))
        usage.output_tokens = whole(_number(tokens.get("output")))
        usage.cached_tokens = min(usage.input_tokens, whole(_number(tokens.get("cached"))))
    for name, value in stated.items():
        count = _number(value)
        if count is None or count < 0 or name in _TOKEN_NAMES or len(name) > MAX_NAME or len(usage.units) >= MAX_UNITS:
            continue
        usage.units[name] = ceil(min(count, MOST))
    return usage


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
