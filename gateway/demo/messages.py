"""Knows Anthropic's messages, plain and streamed, and the counting of their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.chat import Tool
from gateway.demo.exchange import EVENTS, Exchange, Reply, as_json
from gateway.demo.generation import Generation, generate, generate_json, sample
from gateway.demo.refusal import ProviderError

THOUGHT = 8  # tokens of thinking, when it is asked for and nothing else says
SIGNATURE = b"ZmFrZS1wcm92aWRlci1zaWduYXR1cmU="
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def messages(exchange: Exchange) -> Reply:
    """POST /v1/messages."""
    body = exchange.body
    exchange.take_model()
    if body.get("max_tokens") is None:
        raise ProviderError(400, "max_tokens: Field required")
    cap = exchange.whole("max_tokens", 0)
    tool = _forced_tool(body)
    if tool is None:
        generation = generate(exchange, cap, _thought(body))
    else:
        generation = generate_json(exchange, tool.arguments, cap)
    usage = exchange.bill(count_input(exchange), generation.tokens, generation.reasoning)
    if body.get("stream"):
        exchange.streams = True
        thinking = generation.reasoning if tool is None else 0
        lead = 3 if thinking else 2
        return Reply(content_type=EVENTS, events=_events(exchange, generation, tool, usage), lead=lead, usage=usage)
    return Reply(_plain(exchange, generation, tool, usage), usage=usage)


def count_tokens(exchange: Exchange) -> Reply:
    """POST /v1/messages/count_tokens: what `messages` would bill as input."""
    exchange.take_model()
    return as_json({"input_tokens": count_input(exchange)})


def count_input(exchange: Exchange) -> int:
    """Tokens of a request's messages, system prompt and tools."""
    body, tokens = exchange.body, exchange.provider.tokens
    conversation = body.get("messages")
    if not isinstance(conversation, list) or not conversation:
        raise ProviderError(400, "messages: Field required")
    return tokens.messages(conversation) + tokens.content(body.get("system")) + tokens.tools(body.get("tools"))


def _thought(body: dict[str, Any]) -> int:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") not in ("enabled", "adaptive"):
        return 0
    budget = thinking.get("budget_tokens", THOUGHT)
    return min(THOUGHT, budget) if isinstance(budget, int) else THOUGHT


def _forced_tool(body: dict[str, Any]) -> Tool | None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not isinstance(tools, list) or not tools or not isinstance(choice, dict):
        return None
    kind, wanted = choice.get("type"), choice.get("name")
    if kind not in ("any", "tool"):
        return None
    for tool in tools:
        if isinstance(tool, dict) and (kind == "any" or tool.get("name") == wanted):
            return Tool(str(tool.get("name")), sample(tool.get("input_schema")), kind == "tool")
    raise ProviderError(400, f"tool_choice: tool {wanted!r} not found in 'tools'")


def _stop_reason(generation: Generation, tool: Tool | None) -> bytes:
    if generation.cut:
        return b"max_tokens"
    return b"end_turn" if tool is None else b"tool_use"


def _message(exchange: Exchange, content: bytes, stop: bytes, usage: bytes) -> bytes:
    return (
        b'{"id":"%b","type":"message","role":"assistant","model":%b,"content":[%b],'
        b'"stop_reason":%b,"stop_sequence":null%b}'
    ) % (exchange.make_id("msg_").encode(), orjson.dumps(exchange.model), content, stop, usage)


def _plain(exchange: Exchange, generation: Generation, tool: Tool | None, usage: bills.Usage) -> bytes:
    mode = exchange.script.usage
    blocks = []
    if generation.reasoning and tool is None:
        thinking = exchange.provider.text.joined(generation.reasoning)
        blocks.append(b'{"type":"thinking","thinking":"%b","signature":"%b"}' % (thinking, SIGNATURE))
    if tool is None:
        blocks.append(b'{"type":"text","text":"%b"}' % generation.joined())
    else:
        value = b"{}" if generation.cut else orjson.dumps(tool.arguments)
        blocks.append(
            b'{"type":"tool_use","id":"%b","name":%b,"input":%b}'
            % (exchange.make_id("toolu_").encode(), orjson.dumps(tool.name), value)
        )
    stated = bills.member(mode, bills.anthropic(bills.said(mode, usage)))
    return _message(exchange, b",".join(blocks), b'"%b"' % _stop_reason(generation, tool), stated)


def _events(exchange: Exchange, generation: Generation, tool: Tool | None, usage: bills.Usage) -> Iterator[bytes]:
    mode = exchange.script.usage
    stated = bills.said(mode, usage)
    opening = bills.member(mode, bills.anthropic(stated, min(1, stated.output)))
    message = _message(exchange, b"", b"null", opening)
    yield b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % message
    index = 0
    if generation.reasoning and tool is None:
        yield from _thinking(exchange, generation.reasoning)
        index = 1
    yield from _block(exchange, index, generation, tool, ping=index == 0)
    yield (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"%b","stop_sequence":null}%b}\n\n'
    ) % (_stop_reason(generation, tool), bills.member(mode, bills.anthropic_delta(stated)))
    yield b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def _start(index: int, block: bytes) -> bytes:
    return (b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n') % (
        index,
        block,
    )


def _delta(index: int, delta: bytes) -> bytes:
    return (b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n') % (
        index,
        delta,
    )


def _stop(index: int) -> bytes:
    return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % index


def _thinking(exchange: Exchange, tokens: int) -> Iterator[bytes]:
    yield _start(0, b'{"type":"thinking","thinking":"","signature":""}')
    yield PING
    for piece in exchange.provider.text.pieces(tokens):
        yield _delta(0, b'{"type":"thinking_delta","thinking":"%b"}' % piece)
    yield _delta(0, b'{"type":"signature_delta","signature":"%b"}' % SIGNATURE)
    yield _stop(0)


def _block(exchange: Exchange, index: int, generation: Generation, tool: Tool | None, ping: bool) -> Iterator[bytes]:
    if tool is None:
        yield _start(index, b'{"type":"text","text":""}')
        before = b'{"type":"text_delta","text":"'
    else:
        made = exchange.make_id("toolu_").encode()
        yield _start(index, b'{"type":"tool_use","id":"%b","name":%b,"input":{}}' % (made, orjson.dumps(tool.name)))
        before = b'{"type":"input_json_delta","partial_json":"'
    if ping:
        yield PING
    head, tail = _delta(index, b"\x00").split(b"\x00")
    head, tail = head + before, b'"}' + tail
    for piece in generation.pieces():
        yield head + piece + tail
    yield _stop(index)
