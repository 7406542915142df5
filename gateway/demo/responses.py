"""Knows OpenAI's Responses API: made, streamed with named events, stored, read and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.chat import Tool, cap_of, forced_tool, wants_json
from gateway.demo.exchange import EVENTS, Exchange, Reply, as_json
from gateway.demo.generation import Generation, generate, generate_json
from gateway.demo.refusal import ProviderError
from gateway.demo.script import UsageMode

ECHOED = ("instructions", "metadata", "previous_response_id", "max_output_tokens", "user", "safety_identifier")


def responses(exchange: Exchange) -> Reply:
    """POST /v1/responses."""
    body = exchange.body
    exchange.take_model()
    tool = forced_tool(body)
    cap = cap_of(exchange, "max_output_tokens")
    generation = _generation(exchange, body, tool, cap)
    usage = exchange.bill(count_input(exchange) + _earlier(exchange), generation.tokens, generation.reasoning)
    answer = _response(exchange, body, generation, tool, usage)
    if body.get("store") is not False:
        exchange.provider.objects.put("response", answer["id"], answer)
    told = _told(answer, exchange.script.usage)
    if body.get("stream"):
        exchange.streams = True
        return Reply(content_type=EVENTS, events=_events(told, generation), lead=4, usage=usage)
    return as_json(told, usage)


def input_tokens(exchange: Exchange) -> Reply:
    """POST /v1/responses/input_tokens."""
    exchange.take_model()
    return as_json({"object": "response.input_tokens", "input_tokens": count_input(exchange)})


def stored(exchange: Exchange, response_id: str, rest: str) -> Reply:
    """GET and DELETE /v1/responses/{id}, GET .../input_items, POST .../cancel."""
    objects, method = exchange.provider.objects, exchange.request.method
    answer = objects.get("response", response_id)
    if answer is None:
        raise ProviderError(404, f"Response with id '{response_id}' not found.", code="response_not_found")
    if method == "DELETE" and not rest:
        objects.drop("response", response_id)
        return as_json({"id": response_id, "object": "response", "deleted": True})
    if rest == "input_items":
        return as_json({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})
    return as_json(answer)


def count_input(exchange: Exchange) -> int:
    """Tokens of a request's input, instructions and tools."""
    body, tokens = exchange.body, exchange.provider.tokens
    source = body.get("input")
    if source is None and not body.get("prompt"):
        raise ProviderError(400, "Missing required parameter: 'input'.", code="missing_required_parameter")
    items = source if isinstance(source, list) else [{"content": source}]
    return tokens.messages(items) + tokens.content(body.get("instructions")) + tokens.tools(body.get("tools"))


def _earlier(exchange: Exchange) -> int:
    earlier = exchange.body.get("previous_response_id")
    if earlier is None:
        return 0
    found = exchange.provider.objects.get("response", earlier)
    if found is None:
        raise ProviderError(
            400,
            f"Previous response with id '{earlier}' not found.",
            "previous_response_not_found",
            "previous_response_id",
        )
    return int(found["usage"]["total_tokens"])


def _generation(exchange: Exchange, body: dict[str, Any], tool: Tool | None, cap: int | None) -> Generation:
    if tool is not None:
        return generate_json(exchange, tool.arguments, cap)
    text = body.get("text")
    value = wants_json(text.get("format")) if isinstance(text, dict) else None
    return generate(exchange, cap) if value is None else generate_json(exchange, value, cap)


def _told(answer: dict[str, Any], mode: UsageMode) -> dict[str, Any]:
    """`answer` with the usage that the script lets it state."""
    if mode == "full":
        return answer
    if mode == "no":
        return {key: value for key, value in answer.items() if key != "usage"}
    return {**answer, "usage": None if mode == "null" else orjson.loads(bills.openai_responses(bills.ZERO))}


def _response(
    exchange: Exchange, body: dict[str, Any], generation: Generation, tool: Tool | None, usage: bills.Usage
) -> dict[str, Any]:
    status = "incomplete" if generation.cut else "completed"
    now = int(time.time())
    return {
        "id": exchange.make_id("resp_"),
        "object": "response",
        "created_at": now,
        "completed_at": None if generation.cut else now,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if generation.cut else None,
        "model": exchange.model,
        "output": [_item(exchange, generation, tool, status)],
        "parallel_tool_calls": True,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        **{name: body.get(name) for name in ECHOED},
        "usage": orjson.loads(bills.openai_responses(usage)),
    }


def _item(exchange: Exchange, generation: Generation, tool: Tool | None, status: str) -> dict[str, Any]:
    if tool is not None:
        return {
            "id": exchange.make_id("fc_"),
            "type": "function_call",
            "status": status,
            "arguments": generation.plain(),
            "call_id": exchange.make_id("call_"),
            "name": tool.name,
        }
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": generation.plain()}
    return {
        "id": exchange.make_id("msg_"),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }


def _events(answer: dict[str, Any], generation: Generation) -> Iterator[bytes]:
    numbers = count()
    opening = {**answer, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    opening["incomplete_details"] = None
    for name in ("response.created", "response.in_progress"):
        yield _event(name, numbers, response=opening)
    item = answer["output"][0]
    yield from _call(item, generation, numbers) if item["type"] == "function_call" else _text(item, generation, numbers)
    yield _event("response.output_item.done", numbers, output_index=0, item=item)
    yield _event("response.incomplete" if generation.cut else "response.completed", numbers, response=answer)


def _text(item: dict[str, Any], generation: Generation, numbers: Iterator[int]) -> Iterator[bytes]:
    part = item["content"][0]
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    opening = {**item, "status": "in_progress", "content": []}
    yield _event("response.output_item.added", numbers, output_index=0, item=opening)
    yield _event("response.content_part.added", numbers, **where, part={**part, "text": ""})
    place = orjson.dumps({**where, "logprobs": []})
    yield from _deltas(b"response.output_text.delta", place, generation, numbers)
    yield _event("response.output_text.done", numbers, **where, text=part["text"], logprobs=[])
    yield _event("response.content_part.done", numbers, **where, part=part)


def _call(item: dict[str, Any], generation: Generation, numbers: Iterator[int]) -> Iterator[bytes]:
    where = {"item_id": item["id"], "output_index": 0}
    opening = {**item, "status": "in_progress", "arguments": ""}
    yield _event("response.output_item.added", numbers, output_index=0, item=opening)
    yield from _deltas(b"response.function_call_arguments.delta", orjson.dumps(where), generation, numbers)
    yield _event("response.function_call_arguments.done", numbers, **where, arguments=item["arguments"])


def _deltas(name: bytes, place: bytes, generation: Generation, numbers: Iterator[int]) -> Iterator[bytes]:
    head = b'event: %b\ndata: {"type":"%b",%b,"sequence_number":' % (name, name, place[1:-1])
    for piece in generation.pieces():
        yield head + b'%d,"delta":"%b"}\n\n' % (next(numbers), piece)


def _event(name: str, numbers: Iterator[int], **rest: Any) -> bytes:
    told = {"type": name, "sequence_number": next(numbers), **rest}
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(told))
