"""Anthropic's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Facts
from gateway.errors import Header
from gateway.jsonbody import insert, splice
from gateway.providers import asked
from gateway.providers.anthropic_meters import MessageMeter, MessageStream
from gateway.providers.base import Kind, Meter, Provider, body_headers
from gateway.providers.encoded import plain
from gateway.providers.mentions import IMAGE_TOKENS, mentions
from gateway.providers.meters import PassingMeter, count_input, is_lines
from gateway.providers.openai import credential, with_query
from gateway.providers.openai_streams import PassedStream
from gateway.providers.openai_whole import RequestMeter
from gateway.providers.reported import AnthropicUsage
from gateway.providers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.routes import Route
    from gateway.targets import Target

#: What is spoken to providers when the client does not say.
VERSION: Header = (b"anthropic-version", b"2023-06-01")

#: Tools that run at the client; their types carry a date behind the name.
_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")


class Anthropic(Kind):
    """Stateless but for the vocabulary, which loads itself when an estimate first needs it."""

    name = "anthropic"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def facts(self, route: Route, body: Any, raw: bytes) -> Facts:
        if body is None:
            return Facts(max_tokens=None if route.model else 0, unbounded=route.model)
        if not route.model:
            facts = asked.passed_on(route, body, raw)
            facts.object_ids = tuple(mentions(body).ids) if type(body) is dict else ()
            return facts
        read = asked.read(body, asked.AskedMessage)
        found = mentions(body)
        is_free = route.name == "count_tokens"
        return Facts(
            model=read.model,
            stream=read.stream is True,
            max_tokens=0 if is_free else read.max_tokens,
            prompt_bytes=0 if is_free else len(raw) + found.images * IMAGE_TOKENS,
            asked_usage=True,  # every stream of this dialect states it
            unbounded=not is_free
            and (
                found.is_unbounded
                or bool(found.ids)
                or bool(read.mcp_servers)
                or asked.is_hosted(read.tools, _CLIENT_TOOLS)
            ),
            object_ids=tuple(found.ids),
        )

    def body_for(self, call: Call, target: Target) -> bytes:
        body, facts, value = call.body, call.facts, call.json
        if body is None or type(value) is not dict:
            return body if body is not None else b""
        if (call.route.model or facts.is_routed) and facts.model != target.upstream_model:
            body = splice(body, "model", orjson.dumps(target.upstream_model))
        if target.enforce_output_cap and facts.max_tokens is None and call.route.name == "messages":
            put = splice if "max_tokens" in value else insert
            body = put(body, "max_tokens", b"%d" % target.default_output_tokens)
        return body

    def path_for(self, provider: Provider, call: Call, target: Target | None) -> bytes:
        return with_query(provider.base_path + call.path, call.query, provider.query)

    def credentials(self, provider: Provider) -> list[Header]:
        return [*credential(provider, b"x-api-key", b""), *provider.headers]

    def extra_headers(self, call: Call) -> list[Header]:
        return [] if b"anthropic-version" in call.headers else [VERSION]

    def count_input(self, call: Call) -> int:
        """Claude's vocabulary is not public: a third more than in OpenAI's is on the safe side."""
        counted = count_input(call, self._vocabulary)
        return min(call.facts.prompt_bytes, counted + (counted + 2) // 3)

    def meter(self, call: Call, target: Target | None, status: int, headers: list[Header]) -> Meter:
        if status >= 400:
            return PassingMeter({}, "error")
        if call.method == "HEAD" or status in (204, 304):
            return PassingMeter({"requests": 1}, "error" if call.route.model and call.method == "POST" else "ok")
        content_type, encoding = body_headers(headers)
        return plain(self._meter(call, content_type), encoding)

    def _meter(self, call: Call, content_type: bytes) -> Meter:
        is_stream = b"event-stream" in content_type or (not content_type and call.facts.stream)
        if call.route.name == "messages":
            return (MessageStream if is_stream else MessageMeter)(call, self._vocabulary)
        if is_stream:
            return PassedStream(call, self._vocabulary)
        if not call.route.model and (b"json" not in content_type or is_lines(content_type)):
            return PassingMeter({"requests": 1})
        return RequestMeter(call, self._vocabulary, AnthropicUsage)
