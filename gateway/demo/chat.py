"""Knows OpenAI's chat completions, plain and streamed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.exchange import EVENTS, Exchange, Reply
from gateway.demo.generation import Generation, generate, generate_json, sample
from gateway.demo.refusal import ProviderError

DONE = b"data: [DONE]\n\n"
PADDED_TO = 16  # characters; what `obfuscation` fills a delta up to, so that lengths tell nothing


@dataclass(slots=True)
class Tool:
    """The function a call must name, and the arguments made up for it. `named` is True where the caller chose it."""

    name: str
    arguments: Any
    named: bool


def chat(exchange: Exchange) -> Reply:
    """POST /v1/chat/completions."""
    body = exchange.body
    exchange.take_model()
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ProviderError(400, "Invalid 'messages': expected a non-empty array.", param="messages")
    n = exchange.whole("n", 1)
    tool = forced_tool(body)
    generation = _generation(exchange, body, tool)
    tokens = exchange.provider.tokens
    usage = exchange.bill(
        tokens.messages(messages) + tokens.tools(body.get("tools")), n * generation.tokens, n * generation.reasoning
    )
    if body.get("stream"):
        exchange.streams = True
        return Reply(content_type=EVENTS, events=_events(exchange, generation, tool, n, usage), lead=n, usage=usage)
    return Reply(_plain(exchange, generation, tool, n, usage), usage=usage)


def forced_tool(body: dict[str, Any]) -> Tool | None:
    """The function that `tool_choice` forces; None where the model is free, for then it answers with text."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not isinstance(tools, list) or not tools or choice in (None, "none", "auto"):
        return None
    wanted = None
    if isinstance(choice, dict):
        wanted = choice.get("function", choice).get("name")
    functions = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
    for function in functions:
        if wanted is None or function.get("name") == wanted:
            return Tool(str(function.get("name")), sample(function.get("parameters")), wanted is not None)
    raise ProviderError(400, f"Tool choice {wanted!r} not found in 'tools' parameter.", param="tool_choice")


def wants_json(form: Any) -> Any:
    """The value that a JSON answer holds, by `response_format`; None where text was asked for."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        return {"answer": "tide", "level": 1}
    if kind == "json_schema":
        return sample(form.get("json_schema", form).get("schema"))
    return None


def cap_of(exchange: Exchange, *names: str) -> int | None:
    """The first output limit that the body sets, in tokens."""
    for name in names:
        if exchange.body.get(name) is not None:
            return exchange.whole(name, 0)
    return None


def _generation(exchange: Exchange, body: dict[str, Any], tool: Tool | None) -> Generation:
    cap = cap_of(exchange, "max_completion_tokens", "max_tokens")
    if tool is not None:
        return generate_json(exchange, tool.arguments, cap)
    value = wants_json(body.get("response_format"))
    return generate(exchange, cap) if value is None else generate_json(exchange, value, cap)


def _finish(generation: Generation, tool: Tool | None) -> bytes:
    if generation.cut:
        return b"length"
    return b"stop" if tool is None or tool.named else b"tool_calls"


def _plain(exchange: Exchange, generation: Generation, tool: Tool | None, n: int, usage: bills.Usage) -> bytes:
    finish = _finish(generation, tool)
    choices = b",".join(
        b'{"index":%d,"message":%b,"logprobs":null,"finish_reason":"%b"}'
        % (index, _message(exchange, generation, tool, index), finish)
        for index in range(n)
    )
    mode = exchange.script.usage
    return b'{"id":"%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b]%b%b}' % (
        exchange.make_id("chatcmpl-").encode(),
        int(time.time()),
        orjson.dumps(exchange.model),
        choices,
        bills.member(mode, bills.openai_chat(bills.said(mode, usage))),
        b',"service_tier":"default","system_fingerprint":"fp_demo"',
    )


def _message(exchange: Exchange, generation: Generation, tool: Tool | None, index: int) -> bytes:
    text = generation.joined()
    if tool is None:
        return b'{"role":"assistant","content":"%b","refusal":null,"annotations":[]}' % text
    return (
        b'{"role":"assistant","content":null,"refusal":null,"annotations":[],"tool_calls":'
        b'[{"id":"%b","type":"function","function":{"name":%b,"arguments":"%b"}}]}'
    ) % (_call_id(exchange, index), orjson.dumps(tool.name), text)


def _call_id(exchange: Exchange, index: int) -> bytes:
    return exchange.make_id(f"call_{index}").encode()


def _events(
    exchange: Exchange, generation: Generation, tool: Tool | None, n: int, usage: bills.Usage
) -> Iterator[bytes]:
    options = exchange.body.get("stream_options") or {}
    included = bool(options.get("include_usage")) and exchange.script.usage != "no"
    head = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,%b' % (
        exchange.make_id("chatcmpl-").encode(),
        int(time.time()),
        orjson.dumps(exchange.model),
        b'"service_tier":"default","system_fingerprint":"fp_demo","choices":[',
    )
    tail = b',"usage":null' if included else b""
    padded = options.get("include_obfuscation") is not False
    yield from _choices(exchange, generation, tool, n, head, tail, padded)
    if included:
        mode = exchange.script.usage
        yield head + b"]" + bills.member(mode, bills.openai_chat(bills.said(mode, usage))) + b"}\n\n"
    yield DONE


def _choices(
    exchange: Exchange, generation: Generation, tool: Tool | None, n: int, head: bytes, tail: bytes, padded: bool
) -> Iterator[bytes]:
    indexes = range(n)
    openings = [head + b'{"index":%d,"delta":' % index for index in indexes]
    middle = b',"logprobs":null,"finish_reason":null}]' + tail
    for index in indexes:
        yield openings[index] + _first_delta(exchange, tool, index) + middle + _padding(b"", padded)
    if tool is None:
        before, after = b'{"content":"', b'"}' + middle
    else:
        before, after = b'{"tool_calls":[{"index":0,"function":{"arguments":"', b'"}}]}' + middle
    openings = [opening + before for opening in openings]
    for piece in generation.pieces():
        for opening in openings:
            yield opening + piece + after + _padding(piece, padded)
    finish = b'{},"logprobs":null,"finish_reason":"%b"}]%b' % (_finish(generation, tool), tail)
    for index in indexes:
        yield head + b'{"index":%d,"delta":' % index + finish + _padding(b"", padded)


def _first_delta(exchange: Exchange, tool: Tool | None, index: int) -> bytes:
    if tool is None:
        return b'{"role":"assistant","content":"","refusal":null}'
    return (
        b'{"role":"assistant","content":null,"refusal":null,"tool_calls":'
        b'[{"index":0,"id":"%b","type":"function","function":{"name":%b,"arguments":""}}]}'
    ) % (_call_id(exchange, index), orjson.dumps(tool.name))


def _padding(piece: bytes, padded: bool) -> bytes:
    if not padded:
        return b"}\n\n"
    return b',"obfuscation":"' + b"tidegatedemotide"[len(piece) % PADDED_TO :] + b'"}\n\n'
