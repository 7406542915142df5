"""Responses (OpenAI): https://platform.openai.com/docs/api-reference/responses-streaming."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.reshape.events import named, only, pieces_of, text
from gateway.usage import Usage

_ENDS = ("response.completed", "response.incomplete")
_MESSAGE = ("id", "type", "status", "role", "content")
_CALL = ("id", "type", "status", "arguments", "call_id", "name")


def events_of(body: dict[str, Any], usage: bool) -> list[bytes]:
    """Its beginning, each item piece by piece, and the whole of it at the end."""
    if body["object"] != "response" or body["status"] not in ("completed", "incomplete"):
        raise ValueError("not at its end")
    opening = {**body, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    if "completed_at" in opening:
        opening["completed_at"] = None
    told: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": opening} for name in ("created", "in_progress")
    ]
    for index, item in enumerate(body["output"]):
        made = _message(index, item) if item["type"] == "message" else _call(index, item)
        begun = {**item, "status": "in_progress"}
        begun["content" if item["type"] == "message" else "arguments"] = [] if item["type"] == "message" else ""
        told.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        told += made
        told.append({"type": "response.output_item.done", "output_index": index, "item": item})
    told.append({"type": f"response.{body['status']}", "response": body})
    return [named({**event, "sequence_number": number}) for number, event in enumerate(told)]


def _message(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(only(item, _MESSAGE)["content"]):
        if only(part, ("type", "text"))["type"] != "output_text":
            raise ValueError("a part of another type")
        where = {"item_id": item["id"], "output_index": index, "content_index": number}
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        for piece in pieces_of(text(part["text"])):
            yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}


def _call(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if only(item, _CALL)["type"] != "function_call":
        raise ValueError("an item of another type")
    where = {"item_id": item["id"], "output_index": index}
    for piece in pieces_of(text(item["arguments"])):
        yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **where, "arguments": item["arguments"]}


def whole_of(events: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    """The last event has all of it."""
    last = events[-1]
    if last["type"] not in _ENDS or last["response"]["object"] != "response":
        raise ValueError("a stream without an end")
    found: dict[str, Any] = last["response"]
    return found
