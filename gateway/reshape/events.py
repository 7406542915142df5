"""Events of a stream as JSON, pieces of a text, and what must hold of a field before it is reshaped."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import orjson

from gateway.sse import data_of, events_of

DONE = b"data: [DONE]\n\n"

#: A text comes in words, as models give it; a long one in so many pieces at most.
_WORD = re.compile(r"\s*\S+\s*|\s+")
_MOST_PIECES = 500


def events_in(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, without OpenAI's end mark. Raises ValueError where one is no object."""
    found = []
    for event in events_of(stream):
        data = data_of(event)
        if not data or data == b"[DONE]":
            continue
        value = orjson.loads(data)
        if not isinstance(value, dict):
            raise ValueError("an event that is no object")
        found.append(value)
    return found


def pieces_of(text: str) -> list[str]:
    """The text in order; nothing is lost or added."""
    words = _WORD.findall(text)
    if len(words) <= _MOST_PIECES:
        return words
    size = -(-len(words) // _MOST_PIECES)
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


def data(value: dict[str, Any]) -> bytes:
    """An event without a name."""
    return b"data: %b\n\n" % orjson.dumps(value)


def named(value: dict[str, Any]) -> bytes:
    """An event named by its type."""
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), orjson.dumps(value))


def only(value: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The same; raises ValueError where it says something under another name."""
    for name, said in value.items():
        if name not in known and said not in (None, [], {}):
            raise ValueError(f"{name!r} is not known")
    return value


def text(value: Any) -> str:
    """The same; raises ValueError where it is none."""
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value
