"""Chat completions (OpenAI): https://platform.openai.com/docs/api-reference/chat-streaming."""

from __future__ import annotations

from typing import Any

from gateway.reshape.events import DONE, data, only, pieces_of, text
from gateway.reshape.told import openai_usage
from gateway.usage import Usage

_HEAD = ("id", "created", "model", "service_tier", "system_fingerprint")
_TOP = (*_HEAD, "object", "choices", "usage")
_CHOICE = ("index", "finish_reason")
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_MESSAGE = ("role", *_TEXTS, "tool_calls")


def events_of(body: dict[str, Any], usage: bool) -> list[bytes]:
    """Role, texts and calls of tools piece by piece, the end, and the usage where it is wanted."""
    only(body, _TOP)
    head = {name: body[name] for name in _HEAD if name in body}
    head["object"] = "chat.completion.chunk"
    if usage:
        head["usage"] = None
    found = []
    for choice in body["choices"]:
        only(choice, (*_CHOICE, "message"))
        for delta in _deltas(only(choice["message"], _MESSAGE)):
            found.append(_chunk(head, choice["index"], delta, None))
        found.append(_chunk(head, choice["index"], {}, text(choice["finish_reason"])))
    if usage:
        if not isinstance(body["usage"], dict):
            raise ValueError("no usage is known")
        found.append(data({**head, "choices": [], "usage": body["usage"]}))
    return [*found, DONE]


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], reason: str | None) -> bytes:
    return data({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]})


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    begun = {name: None if message.get(name) is None else "" for name in ("content", "refusal")}
    found: list[dict[str, Any]] = [{"role": message["role"], **begun}]
    for name in reversed(_TEXTS):  # reasoning before what came of it
        if message.get(name) is not None:
            found += [{name: piece} for piece in pieces_of(text(message[name]))]
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = only(only(call, ("id", "type", "function"))["function"], ("name", "arguments"))
        begun = {"name": text(function["name"]), "arguments": ""}
        found.append({"tool_calls": [{"index": index, "id": call["id"], "type": call["type"], "function": begun}]})
        for piece in pieces_of(text(function["arguments"])):
            found.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    return found


def whole_of(events: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    """The pieces of each choice together."""
    found: dict[int, dict[str, Any]] = {}
    told: dict[str, Any] | None = None
    for event in events:
        only(event, (*_TOP, "obfuscation"))
        told = event.get("usage") or told
        for choice in event["choices"]:
            only(choice, (*_CHOICE, "delta"))
            made = found.setdefault(choice["index"], {"message": {"role": "assistant", "content": None}})
            _add(made["message"], only(choice.get("delta") or {}, _MESSAGE))
            made["finish_reason"] = choice.get("finish_reason") or made.get("finish_reason")
    if not found or any(made["finish_reason"] is None for made in found.values()):
        raise ValueError("a stream without an end")
    head = {name: events[0][name] for name in _HEAD if name in events[0]}
    choices = [
        {
            "index": index,
            "message": _finished(one["message"]),
            "logprobs": None,
            "finish_reason": one["finish_reason"],
        }
        for index, one in sorted(found.items())
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": told or openai_usage(usage)}


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in _TEXTS:
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + text(delta[name])
    if delta.get("role"):
        message["role"] = delta["role"]
    for piece in delta.get("tool_calls") or ():
        only(piece, ("index", "id", "type", "function"))
        calls = message.setdefault("tool_calls", {})
        call = calls.setdefault(piece["index"], {"function": {"name": "", "arguments": ""}})
        call.update({name: piece[name] for name in ("id", "type") if piece.get(name)})
        for name, value in only(piece.get("function") or {}, ("name", "arguments")).items():
            call["function"][name] += value or ""


def _finished(message: dict[str, Any]) -> dict[str, Any]:
    message.setdefault("refusal", None)
    if "tool_calls" in message:
        message["tool_calls"] = [
            {"id": call["id"], "type": call["type"], "function": call["function"]}
            for _, call in sorted(message["tool_calls"].items())
        ]
    return message
