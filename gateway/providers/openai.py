"""OpenAI's API, and everything that imitates it: Azure, Gemini's and Ollama's compatible endpoints, vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Facts
from gateway.errors import Header
from gateway.jsonbody import insert, splice
from gateway.providers import asked
from gateway.providers.base import Kind, Meter, Provider, content_type_of
from gateway.providers.mentions import IMAGE_TOKENS, Mentions, mentions
from gateway.providers.meters import PassingMeter, count_input
from gateway.providers.openai_meters import (
    ChatStream,
    EmbeddingsMeter,
    EventsMeter,
    ImagesMeter,
    ImageStream,
    RequestMeter,
    TextMeter,
    TranscriptMeter,
)
from gateway.providers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.routes import Route
    from gateway.targets import Target

#: Tools that run at the client, and cost nothing but the tokens of their calls. A name with more behind it is a
#: later version of the same tool.
_CLIENT_TOOLS = ("function", "custom", "namespace", "local_shell", "apply_patch", "computer")

#: Output tokens of the largest image in the highest quality (platform.openai.com/docs/guides/image-generation).
_IMAGE_OUTPUT_TOKENS = 6_240

_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")
_AUDIO_ENDS = ("speech.audio.done", "transcript.text.done")

#: The member that caps the output, by route.
_CAPS = {"chat": "max_completion_tokens", "completions": "max_tokens", "responses": "max_output_tokens"}

#: Routes whose request can't name a stored object: their bodies are not walked.
_PLAIN = frozenset({"completions", "embeddings", "moderations"})


class OpenAI(Kind):
    """Stateless but for the vocabulary, which loads itself when an estimate first needs it."""

    name = "openai"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def facts(self, route: Route, body: Any, raw: bytes) -> Facts:
        if body is None:  # not JSON: multipart, or nothing
            return Facts(prompt_bytes=len(raw), unbounded=route.model)
        found = Mentions() if route.name in _PLAIN else mentions(body) if type(body) is dict else Mentions()
        read = _READERS.get(route.name, _read_other)
        if route.template == "/v1/responses/input_tokens":
            read = _read_free
        facts = read(body)
        facts.object_ids = tuple(found.ids)
        if route.name in ("chat", "responses"):
            facts.prompt_bytes = len(raw) + found.images * IMAGE_TOKENS
            facts.unbounded = facts.unbounded or found.is_unbounded or bool(found.ids)
        elif read is not _read_free:
            facts.prompt_bytes = len(raw)
        return facts

    def body_for(self, call: Call, target: Target) -> bytes:
        body, facts, value = call.body, call.facts, call.json
        if body is None or type(value) is not dict:
            return body if body is not None else b""
        if facts.model is not None and facts.model != target.upstream_model and "model" in value:
            body = splice(body, "model", orjson.dumps(target.upstream_model))
        route = call.route.name
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
        content_type = content_type_of(headers)
        route = call.route.name
        if b"event-stream" in content_type or (not content_type and call.facts.stream):
            return self._stream_meter(call, target, route)
        if route == "audio":
            return self._audio_meter(call, content_type)
        if not call.route.model and b"json" not in content_type:
            return PassingMeter({"requests": 1})
        if route == "responses" and call.route.template != "/v1/responses/input_tokens":
            return TextMeter(call, self._vocabulary, _pending(call, target, is_background=True))
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
        return EventsMeter(call, self._vocabulary, (), bills=False, units={"requests": 1})

    def _audio_meter(self, call: Call, content_type: bytes) -> Meter:
        if b"json" in content_type:
            return TranscriptMeter(call, self._vocabulary)
        if content_type.startswith(b"text/html"):
            return PassingMeter({}, "error")
        return PassingMeter(call.facts.units or {"requests": 1})


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


def _read_chat(body: Any) -> Facts:
    read = asked.read(body, asked.AskedChat)
    caps = [cap for cap in (read.max_completion_tokens, read.max_tokens) if cap is not None]
    options = read.stream_options
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=max(caps) if caps else None,
        n=1 if read.n is None else read.n,
        asked_usage=options is not None and options.include_usage is True,
        unbounded=read.web_search_options is not None
        or (read.modalities is not None and "audio" in read.modalities)
        or asked.is_hosted(read.tools, _CLIENT_TOOLS),
    )


def _read_completion(body: Any) -> Facts:
    """Several prompts in one call, and several tries of each, are as many outputs."""
    read = asked.read(body, asked.AskedChat)
    options, prompt = read.stream_options, body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=read.max_tokens,
        n=prompts * max(1 if read.n is None else read.n, 1 if read.best_of is None else read.best_of),
        asked_usage=options is not None and options.include_usage is True,
    )


def _read_response(body: Any) -> Facts:
    read = asked.read(body, asked.AskedResponse)
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=read.max_output_tokens,
        unbounded=read.background is True
        or any(one is not None for one in (read.previous_response_id, read.conversation, read.prompt))
        or asked.is_hosted(read.tools, _CLIENT_TOOLS),
    )


def _read_embeddings(body: Any) -> Facts:
    read = asked.read(body, asked.Asked)
    inputs = body.get("input")
    count = len(inputs) if isinstance(inputs, list) and inputs and not isinstance(inputs[0], int) else 1
    return Facts(model=read.model, max_tokens=0, units={"inputs": count})


def _read_images(body: Any) -> Facts:
    read = asked.read(body, asked.AskedImages)
    n = 1 if read.n is None else read.n
    by_tokens = read.model is not None and not read.model.startswith("dall-e")
    size, quality = (read.size or "1024x1024")[:32], (read.quality or "standard")[:32]
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=_IMAGE_OUTPUT_TOKENS if by_tokens else 0,
        n=n,
        units={"images": n, f"image:{size}:{quality}": n},
    )


def _read_audio(body: Any) -> Facts:
    read = asked.read(body, asked.AskedSpeech)
    by_characters = read.model is not None and read.model.startswith("tts-1")
    return Facts(
        model=read.model,
        stream=read.stream is True or read.stream_format == "sse",
        max_tokens=0 if by_characters else None,
        unbounded=not by_characters,
        units={} if read.input is None else {"characters": len(read.input)},
    )


def _read_moderation(body: Any) -> Facts:
    return Facts(model=asked.read(body, asked.Asked).model, max_tokens=0, units={"requests": 1})


def _read_free(body: Any) -> Facts:
    """Counting tokens costs none."""
    return Facts(model=asked.read(body, asked.Asked).model, max_tokens=0)


def _read_other(body: Any) -> Facts:
    """Paths that we pass on: nothing there has to be of a certain type."""
    if type(body) is not dict:
        return Facts()
    model, stream = body.get("model"), body.get("stream")
    return Facts(model=model if isinstance(model, str) else None, stream=stream is True)


_READERS = {
    "chat": _read_chat,
    "completions": _read_completion,
    "responses": _read_response,
    "embeddings": _read_embeddings,
    "images": _read_images,
    "audio": _read_audio,
    "moderations": _read_moderation,
}


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
