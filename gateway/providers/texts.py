"""Which texts of a request, a reply or a stream are counted as tokens where nobody reports how many they were.

Source of the fixed figures: OpenAI's cookbook, "How to count tokens with tiktoken" (three a message, one for its role,
three for the reply) and its guide to images (85 for one in low detail, 765 for a square one in high detail).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.providers.reported import read_any
from gateway.sse import data_of, events_of

PER_MESSAGE = 4
PER_REPLY = 3
PER_NAME = 1
PER_IMAGE = 765
PER_IMAGE_LOW = 85
PER_AUDIO = 100

#: Routes whose texts are messages; on others a text is just a text.
CONVERSATIONS = frozenset({"chat", "responses", "messages", "count_tokens"})

_PART_KEYS = (
    "text",
    "content",
    "refusal",
    "thinking",
    "reasoning_content",
    "reasoning",
    "arguments",
    "output",
    "summary",
)
_DEFINITIONS = ("tools", "functions", "response_format")
_TEXT_MEMBER = re.compile(
    rb'"(?:content|text|thinking|refusal|arguments)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)', re.DOTALL
)


@dataclass(slots=True)
class Texts:
    """Texts to be counted, and tokens that are known without counting."""

    found: list[str] = field(default_factory=list)
    fixed: int = 0

    def add(self, value: Any) -> None:
        """A content in any of the dialects' forms: a text, a part, a list of either, or tokens themselves."""
        if isinstance(value, str):
            self.found.append(value)
        elif isinstance(value, list):
            for part in value:
                self.add(part)
        elif isinstance(value, dict):
            self._add_part(value)
        elif isinstance(value, int):
            self.fixed += 1  # a token of a prompt that is given in tokens

    def _add_part(self, part: dict[str, Any]) -> None:
        kind = part.get("type")
        if isinstance(kind, str) and "image" in kind:
            self.fixed += PER_IMAGE_LOW if _is_low(part) else PER_IMAGE
            return
        if isinstance(kind, str) and "audio" in kind:
            self.fixed += PER_AUDIO
            return
        for key in _PART_KEYS:
            inner = part.get(key)
            if inner is not None and not isinstance(inner, int | float):
                self.add(inner)
        if isinstance(part.get("name"), str):
            self.found.append(part["name"])
            self.fixed += PER_NAME
        source = part.get("source")
        if isinstance(source, dict) and source.get("type") == "text":
            self.add(source.get("data"))
        if isinstance(part.get("input"), dict):
            self.found.append(orjson.dumps(part["input"]).decode())
        for call in part.get("tool_calls") or ():
            if isinstance(call, dict):
                self.add(call.get("function"))


def _is_low(part: dict[str, Any]) -> bool:
    image = part.get("image_url")
    return part.get("detail") == "low" or (isinstance(image, dict) and image.get("detail") == "low")


def of_request(route: str, body: Any) -> Texts:
    """Everything of a request's body that a provider counts as input."""
    texts = Texts()
    if not isinstance(body, dict):
        return texts
    frame = PER_MESSAGE if route in CONVERSATIONS else 0
    for key in ("messages", "input"):
        items = body.get(key)
        if isinstance(items, list):
            texts.fixed += frame * len(items)
        elif items is not None:
            texts.fixed += frame
        texts.add(items)
    for key in ("system", "instructions", "prompt", "suffix"):
        texts.add(body.get(key))
    for key in _DEFINITIONS:
        if body.get(key):
            texts.found.append(orjson.dumps(body[key]).decode())
    texts.fixed += PER_REPLY if frame else 0
    return texts


def of_reply(reply: Any) -> Texts:
    """Everything of a whole reply that a provider counts as output."""
    texts = Texts()
    if not isinstance(reply, dict):
        return texts
    for choice in _dicts(reply.get("choices")):
        texts.add(choice.get("message"))
        texts.add(choice.get("text"))
    for key in ("output", "content", "text"):
        if not isinstance(reply.get(key), dict):
            texts.add(reply.get(key))
    return texts


def of_part(body: bytes) -> Texts:
    """What came of a whole reply before it broke off: its texts, the last one perhaps unfinished."""
    texts = Texts()
    for found in _TEXT_MEMBER.finditer(body):
        spelt = found[1]
        try:
            texts.add(orjson.loads(b'"' + spelt + b'"'))
        except orjson.JSONDecodeError:  # broken off within a character
            texts.add(spelt.decode("utf-8", "replace"))
    return texts


def of_stream(events: Iterable[bytes]) -> list[str]:
    """What the deltas of a stream's events add up to, one text for each choice or block."""
    parts: dict[Any, list[str]] = {}
    for data in events:
        for event in events_of(data):
            _read_event(data_of(event), parts)
    return ["".join(pieces) for pieces in parts.values()]


def _read_event(data: bytes, parts: dict[Any, list[str]]) -> None:
    event = read_any(data)
    if event is None:
        return
    for choice in _dicts(event.get("choices")):
        found = Texts()
        found.add(choice.get("delta"))
        found.add(choice.get("text"))
        parts.setdefault(str(choice.get("index")), []).extend(found.found)
    kind, delta = event.get("type"), event.get("delta")
    if not isinstance(kind, str):
        return
    if kind == "content_block_delta" and isinstance(delta, dict):
        pieces = [delta.get(name) for name in ("text", "thinking", "partial_json")]
        parts.setdefault(f"block {event.get('index')}", []).extend(p for p in pieces if isinstance(p, str))
    elif kind.endswith(".delta") and "audio.delta" not in kind and isinstance(delta, str):
        where = f"{event.get('output_index')} {event.get('content_index')} {kind}"
        parts.setdefault(where, []).append(delta)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
