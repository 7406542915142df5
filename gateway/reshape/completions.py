"""Text completions (OpenAI): https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from typing import Any

from gateway.reshape.events import DONE, data, only, pieces_of, text
from gateway.reshape.told import openai_usage
from gateway.usage import Usage

_HEAD = ("id", "object", "created", "model", "system_fingerprint")
_TOP = (*_HEAD, "choices", "usage")
_CHOICE = ("index", "text", "finish_reason")


def events_of(body: dict[str, Any], usage: bool) -> list[bytes]:
    """Texts piece by piece, each choice with its end, and the usage where it is wanted."""
    only(body, _TOP)
    head = {name: body[name] for name in _HEAD if name in body}
    if usage:
        head["usage"] = None
    found = []
    for choice in body["choices"]:
        only(choice, _CHOICE)
        for piece in pieces_of(text(choice["text"])):
            found.append(_chunk(head, choice["index"], piece, None))
        found.append(_chunk(head, choice["index"], "", text(choice["finish_reason"])))
    if usage:
        if not isinstance(body["usage"], dict):
            raise ValueError("no usage is known")
        found.append(data({**head, "choices": [], "usage": body["usage"]}))
    return [*found, DONE]


def _chunk(head: dict[str, Any], index: int, piece: str, reason: str | None) -> bytes:
    return data({**head, "choices": [{"text": piece, "index": index, "logprobs": None, "finish_reason": reason}]})


def whole_of(events: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    """The pieces of each choice together."""
    found: dict[int, dict[str, Any]] = {}
    told: dict[str, Any] | None = None
    for event in events:
        only(event, (*_TOP, "obfuscation"))
        told = event.get("usage") or told
        for choice in event["choices"]:
            only(choice, _CHOICE)
            made = found.setdefault(choice["index"], {"text": "", "finish_reason": None})
            made["text"] += text(choice.get("text") or "")
            made["finish_reason"] = choice.get("finish_reason") or made["finish_reason"]
    if not found or any(made["finish_reason"] is None for made in found.values()):
        raise ValueError("a stream without an end")
    head = {name: events[0][name] for name in _HEAD if name in events[0]}
    choices = [
        {"text": made["text"], "index": index, "logprobs": None, "finish_reason": made["finish_reason"]}
        for index, made in sorted(found.items())
    ]
    return {**head, "choices": choices, "usage": told or openai_usage(usage)}
