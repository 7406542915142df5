"""OpenAI's API, and everything that imitates it: Azure, Gemini's and Ollama's compatible endpoints, vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import Header
from gateway.jsonbody import insert, splice
from gateway.providers.base import Kind, Meter, Provider, body_headers
from gateway.providers.encoded import plain
from gateway.providers.meters import PassingMeter, count_input, is_lines
from gateway.providers.openai_facts import facts_of
from gateway.providers.openai_streams import ChatStream, EventsMeter, ImageStream, PassedStream
from gateway.providers.openai_whole import (
    EmbeddingsMeter,
    ImagesMeter,
    RequestMeter,
    SpokenMeter,
    TextMeter,
    TranscriptMeter,
)
from gateway.providers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gateway.call import Call, Facts
    from gateway.routes import Route
    from gateway.targets import Target

_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")
_AUDIO_ENDS = ("speech.audio.done", "transcript.text.done")

#: The member that caps the output, by route.
_CAPS = {"chat": "max_completion_tokens", "completions": "max_tokens", "responses": "max_output_tokens"}


class OpenAI(Kind):
    """Stateless but for the vocabulary, which loads itself when an estimate first needs it."""

    name = "openai"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def facts(self, route: Route, body: Any, raw: bytes) -> Facts:
        return facts_of(route, body, raw)

    def body_for(self, call: Call, target: Target) -> bytes:
        body, facts, value = call.body, call.facts, call.json
        if body is None or type(value) is not dict:
            return body if body is not None else b""
        route = call.route.name
        if (call.route.model or facts.is_routed) and facts.model != target.upstream_model:
            body = splice(body, "model", orjson.dumps(target.upstream_model))
        if facts.stream and not facts.asked_usage and route in ("chat", "completions"):
            options = {**(value.get("stream_options") or {}), "include_usage": True}
            put = splice if "stream_options" in value else insert
            body = put(body, "stream_options", orjson.dumps(options))
        if target.enforce_output_cap and facts.max_tokens is None and route in _CAPS:
            put = splice if _CAPS[route] in value else insert
            body = put(body, _CAPS[route], b"%d" % target.default_output_tokens)
        return body

    def path_for(self, provider: Provider, call: Call, target: Target | None) -> bytes:
        path = provider.base_path + call.path.removeprefix(b"/v1")
        return with_query(path, call.query, provider.query)

    def credentials(self, provider: Provider) -> list[Header]:
        return [*credential(provider, b"authorization", b"Bearer "), *provider.headers]

    def count_input(self, call: Call) -> int:
        return min(call.facts.prompt_bytes, count_input(call, self._vocabulary))

    def meter(self, call: Call, target: Target | None, status: int, headers: list[Header]) -> Meter:
        if status >= 400:
            return PassingMeter({}, "error")
        if call.method == "HEAD" or status in (204, 304):
            return PassingMeter({"requests": 1}, "error" if call.route.model and call.method == "POST" else "ok")
        content_type, encoding = body_headers(headers)
        meter = self._meter(call, target, content_type)
        return meter if not encoding else plain(meter, encoding)

    def _meter(self, call: Call, target: Target | None, content_type: bytes) -> Meter:
        route = call.route.name
        if b"event-stream" in content_type or (not content_type and call.facts.stream):
            return self._stream_meter(call, target, route)
        if route == "audio":
            return self._audio_meter(call, content_type)
        if not call.route.model and (b"json" not in content_type or is_lines(content_type)):
            return PassingMeter({"requests": 1})
        if route == "responses" and call.route.template != "/v1/responses/input_tokens":
            meter = TextMeter(call, self._vocabulary)
            meter.pending_tokens = _pending(call, target, is_background=True)
            return meter
        return _WHOLE.get(route, RequestMeter)(call, self._vocabulary)

    def _stream_meter(self, call: Call, target: Target | None, route: str) -> Meter:
        if route in ("chat", "completions"):
            return ChatStream(call, self._vocabulary, hides=not call.facts.asked_usage)
        if route == "responses":
            background = isinstance(call.json, dict) and call.json.get("background") is True
            pending = _pending(call, target, is_background=background)
            return EventsMeter(call, self._vocabulary, _RESPONSE_ENDS, pending_tokens=pending)
        if route == "images":
            return ImageStream(call, self._vocabulary)
        if route == "audio":
            return EventsMeter(call, self._vocabulary, _AUDIO_ENDS, units=call.facts.units)
        return PassedStream(call, self._vocabulary)

    def _audio_meter(self, call: Call, content_type: bytes) -> Meter:
        if b"json" in content_type:
            return TranscriptMeter(call, self._vocabulary)
        if content_type.startswith(b"text/html"):
            return PassingMeter({}, "error")
        if content_type.startswith((b"text/", b"application/x-subrip")):
            return SpokenMeter()
        return PassingMeter(call.facts.units or {"requests": 1}, is_estimate=not call.facts.units)


_WHOLE: dict[str, type[TextMeter]] = {
    "chat": TextMeter,
    "completions": TextMeter,
    "embeddings": EmbeddingsMeter,
    "images": ImagesMeter,
}


def _pending(call: Call, target: Target | None, *, is_background: bool) -> int:
    """What a response may still cost after nobody hears of it any more."""
    if not is_background or target is None:
        return 0
    return target.unbounded_tokens if call.facts.max_tokens is None else call.facts.max_tokens


def credential(provider: Provider, own: bytes, prefix: bytes) -> list[Header]:
    """The header with the provider's key: the kind's own, or the one that its configuration names."""
    if not provider.api_key:
        return []
    key = provider.api_key.encode()
    if provider.auth_header and provider.auth_header != b"authorization":
        return [(provider.auth_header, key)]
    if provider.auth_header:
        return [(b"authorization", b"Bearer " + key)]
    return [(own, prefix + key)]


def with_query(path: bytes, *queries: bytes) -> bytes:
    """A path with the queries that are not empty."""
    query = b"&".join(filter(None, queries))
    return path + b"?" + query if query else path
