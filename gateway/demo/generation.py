"""Knows what a model makes: how many tokens, of which text, and whether a limit cut it off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gateway.demo.text import Text, escape

if TYPE_CHECKING:
    from gateway.demo.exchange import Exchange

FRAGMENT = 4  # characters of JSON that count as one token, sent in one chunk


@dataclass(slots=True)
class Generation:
    """One choice.

    length: visible tokens; reasoning: hidden ones before them; cut: True where a limit ended it.
    fragments: the pieces, where they are not those of the fixed text.
    """

    text: Text
    length: int
    reasoning: int = 0
    cut: bool = False
    fragments: list[bytes] | None = None

    @property
    def tokens(self) -> int:
        """All that is billed as output."""
        return self.length + self.reasoning

    def pieces(self) -> Iterable[bytes]:
        """One piece a token, each as the inside of a JSON string."""
        if self.fragments is not None:
            return self.fragments
        escaped = self.text.escaped
        return (escaped(index) for index in range(self.length))

    def joined(self) -> bytes:
        """The whole, as the inside of a JSON string."""
        return self.text.joined(self.length) if self.fragments is None else b"".join(self.fragments)

    def plain(self) -> str:
        """The whole, as text."""
        decoded: str = orjson.loads(b'"' + self.joined() + b'"')
        return decoded


def generate(exchange: Exchange, cap: int | None, reasoning: int = 0) -> Generation:
    """The text a model answers: as long as the script or the settings say, but never above `cap` tokens."""
    script, settings = exchange.script, exchange.provider.settings
    natural = settings.output_tokens if script.chunks is None else script.chunks
    reasoning = max(reasoning, script.reasoning)
    cut = cap is not None and natural + reasoning > cap
    if cap is not None and cut:
        reasoning = min(reasoning, cap)
        natural = cap - reasoning
    generation = Generation(exchange.provider.text, natural, reasoning, cut)
    if script.u2028 and natural:
        generation.fragments = exchange.provider.text.pieces(natural)
        generation.fragments[0] += escape("\u2028")
    return generation


def generate_json(exchange: Exchange, value: Any, cap: int | None) -> Generation:
    """A JSON value as text, `FRAGMENT` characters a token, cut at `cap`."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    parts = [text[start : start + FRAGMENT] for start in range(0, len(text), FRAGMENT)]
    reasoning = exchange.script.reasoning
    cut = cap is not None and len(parts) + reasoning > cap
    if cap is not None and cut:
        reasoning = min(reasoning, cap)
        parts = parts[: cap - reasoning]
    return Generation(exchange.provider.text, len(parts), reasoning, cut, [escape(part) for part in parts])


def sample(schema: Any, depth: int = 0) -> Any:
    """A value that fits a JSON schema: the first of an enumeration, otherwise a fixed one of the type."""
    if not isinstance(schema, dict) or depth > 16:
        return {}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return sample(schema[choice][0], depth + 1)
    kind = schema.get("type", "object")
    if kind == "object" or "properties" in schema:
        return {name: sample(inner, depth + 1) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}), depth + 1)]
    return {"string": "tide", "integer": 1, "number": 1.5, "boolean": True}.get(kind)
