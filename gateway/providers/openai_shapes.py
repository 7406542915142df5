"""Shapes of OpenAI's replies and events: the few members that a meter needs of them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.providers.reported import UNREADABLE, Number, OpenAIUsage, Said, loosely, read_any

NOTHING: Said = (False, False)
ALL: Said = (True, True)
DONE = b"[DONE]"
MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')
TYPE = re.compile(rb'"type"\s*:\s*"([^"\\]{1,100})"')

#: Members of a chunk of a chat stream that say nothing of their own where there is no choice.
_FRAME = frozenset(
    {"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices", "usage", "obfuscation"}
)


class Item(msgspec.Struct):
    """One item of a response's output."""

    container_id: str | None = None


class Reply(msgspec.Struct, kw_only=True):
    """What is needed of a whole reply, whichever route made it."""

    id: str | None = None
    model: str | None = None
    object: str | None = None
    status: str | None = None
    error: Any = None
    usage: OpenAIUsage | None = None
    output: list[Item] | None = None


class ImagesReply(Reply, kw_only=True):
    data: list[msgspec.Raw] | None = None
    size: str | None = None
    quality: str | None = None
    svg_usage: OpenAIUsage | None = None


class AudioReply(Reply, kw_only=True):
    duration: Number = None  # seconds


class StoredReply(Reply, kw_only=True):
    """A file, a batch, or whatever else a provider stores."""

    output_file_id: str | None = None
    error_file_id: str | None = None


class Event(msgspec.Struct, kw_only=True):
    """What is needed of one event of any stream."""

    type: str | None = None
    model: str | None = None
    size: str | None = None
    quality: str | None = None
    choices: list[msgspec.Raw] | None = None
    response: Reply | None = None
    error: Any = None
    usage: OpenAIUsage | None = None


REPLY = msgspec.json.Decoder(Reply)
IMAGES = msgspec.json.Decoder(ImagesReply)
AUDIO = msgspec.json.Decoder(AudioReply)
STORED = msgspec.json.Decoder(StoredReply)
_EVENT = msgspec.json.Decoder(Event)


def event_of(data: bytes) -> Event:
    """One event's payload; an empty event where it is not JSON."""
    if data[:1] != b"{":
        return Event()
    try:
        return _EVENT.decode(data)
    except msgspec.ValidationError:
        return _loose_event(read_any(data) or {})
    except UNREADABLE:
        return Event()


def _loose_event(value: dict[str, Any]) -> Event:
    choices = value.get("choices")
    response = value.get("response")
    return Event(
        type=_string(value.get("type")),
        model=_string(value.get("model")),
        choices=[msgspec.Raw() for _ in choices] if isinstance(choices, list) else None,
        response=loose_reply(response, Reply) if isinstance(response, dict) else None,
        error=value.get("error"),
        usage=loosely(value.get("usage"), OpenAIUsage),
    )


def loose_reply(value: dict[str, Any], shape: type[Reply]) -> Reply:
    """A reply some of whose members have unexpected types: they count as absent."""
    reply = shape()
    for name in ("id", "model", "object", "status", "size", "quality", "output_file_id", "error_file_id"):
        if hasattr(reply, name):
            setattr(reply, name, _string(value.get(name)))
    reply.error = value.get("error")
    reply.usage = loosely(value.get("usage"), OpenAIUsage)
    return reply


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def text_of(pattern: re.Pattern[bytes], data: bytes) -> str:
    found = pattern.search(data)
    return "" if found is None else found[1].decode("utf-8", "replace")


def is_empty(data: bytes) -> bool:
    """Whether an event without choices says nothing else (Azure's says what its filters found)."""
    value = read_any(data)
    return value is not None and _FRAME.issuperset(value)


def is_overload(error: object) -> bool:
    """An error that came before any content is the provider's refusal to work now, unless it blames the request."""
    kind = error.get("type") if isinstance(error, dict) else None
    return kind != "invalid_request_error"
