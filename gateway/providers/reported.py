"""What providers report as consumed, in the shapes they report it in, and what that is in our own `Usage`.

`None` is what a provider did not say; zero is what it said. Each `into` fills a Usage and tells which of input and
output tokens were said. docs/metering.md has the rules, tests/providers/golden has the cases.
"""

from __future__ import annotations

from math import ceil
from typing import Any, TypeVar

import msgspec

from gateway.usage import Usage

Number = int | float | None
Said = tuple[bool, bool]

#: No honest reply has more tokens, and the ledger's columns hold it.
MOST = 1 << 40


class CacheWrites(msgspec.Struct):
    """OpenAI's split of written cache tokens by how long they last."""

    ttl_12h_tokens: Number = None


class Details(msgspec.Struct):
    """Parts of input or output tokens."""

    cached_tokens: Number = None
    cache_write_tokens: Number = None
    cache_write_tokens_details: CacheWrites | None = None
    audio_tokens: Number = None
    image_tokens: Number = None
    reasoning_tokens: Number = None


class OpenAIUsage(msgspec.Struct, kw_only=True):
    """`usage` of chat and text completions, embeddings, responses, images and audio, and of what imitates them."""

    prompt_tokens: Number = None
    completion_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    total_tokens: Number = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None
    input_token_details: Details | None = None  # audio's spelling
    prompt_cache_hit_tokens: Number = None  # DeepSeek's
    seconds: Number = None  # of audio, where it is not billed by tokens

    def into(self, usage: Usage) -> Said:
        given = self.prompt_tokens if self.input_tokens is None else self.input_tokens
        made = self.completion_tokens if self.output_tokens is None else self.output_tokens
        total = self.total_tokens
        if total is not None and (given is None or made is None or total > given + made):
            given, made = _completed(given, made, total)
        usage.input_tokens = whole(given)
        usage.output_tokens = whole(made)
        read = self.prompt_tokens_details or self.input_tokens_details or self.input_token_details
        if read is not None:
            _read_parts(read, usage)
        elif self.prompt_cache_hit_tokens is not None:
            usage.cached_tokens = whole(self.prompt_cache_hit_tokens)
        written = self.completion_tokens_details or self.output_tokens_details
        if written is not None:
            if written.reasoning_tokens:
                usage.reasoning_tokens = whole(written.reasoning_tokens)
            if written.audio_tokens:
                usage.audio_output_tokens = whole(written.audio_tokens)
            if written.image_tokens:
                usage.units["image_output_tokens"] = whole(written.image_tokens)
        if self.seconds is not None:
            usage.units["audio_ms"] = milliseconds(self.seconds)
        return given is not None, made is not None

    def images_into(self, usage: Usage) -> Said:
        """As `into`, of a reply of images: that none of its output was drawn is said by a zero, and else unknown."""
        said = self.into(usage)
        written = self.output_tokens_details
        if written is not None and written.image_tokens is not None:
            usage.units["image_output_tokens"] = whole(written.image_tokens)
        return said


def _completed(given: Number, made: Number, total: int | float) -> tuple[Number, Number]:
    """What is not listed follows from the total: embeddings have no output, and some list thinking nowhere else."""
    if given is None:
        return (None if made is None else total - made), made
    return given, total - given


def _read_parts(read: Details, usage: Usage) -> None:
    """Most parts are zero most of the time, and the Usage is zero where it is not filled in."""
    if read.cached_tokens:
        usage.cached_tokens = whole(read.cached_tokens)
    if read.audio_tokens:
        usage.audio_input_tokens = whole(read.audio_tokens)
    if read.image_tokens:
        usage.units["image_input_tokens"] = whole(read.image_tokens)
    if read.cache_write_tokens:
        usage.cache_write_tokens = whole(read.cache_write_tokens)
    if read.cache_write_tokens_details is not None:
        usage.cache_write_1h_tokens = min(
            usage.cache_write_tokens, whole(read.cache_write_tokens_details.ttl_12h_tokens)
        )
        usage.cache_write_tokens -= usage.cache_write_1h_tokens


class CacheCreation(msgspec.Struct):
    """Anthropic's split of written cache tokens by how long they last."""

    ephemeral_5m_input_tokens: Number = None
    ephemeral_1h_input_tokens: Number = None


class Thinking(msgspec.Struct):
    thinking_tokens: Number = None


class AnthropicUsage(msgspec.Struct, kw_only=True):
    """`usage` of a message. Its `input_tokens` are those neither read from a cache nor written to one."""

    input_tokens: Number = None
    output_tokens: Number = None
    cache_read_input_tokens: Number = None
    cache_creation_input_tokens: Number = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: Thinking | None = None
    server_tool_use: dict[str, Any] | None = None

    def update(self, later: AnthropicUsage) -> None:
        """Takes over what a later event of the same stream says: its figures are cumulative, so nothing is added."""
        for name in self.__struct_fields__:
            said = getattr(later, name)
            if said is not None:
                setattr(self, name, said)

    def into(self, usage: Usage) -> Said:
        cached, written = whole(self.cache_read_input_tokens), whole(self.cache_creation_input_tokens)
        if self.cache_creation is not None:
            short = whole(self.cache_creation.ephemeral_5m_input_tokens)
            usage.cache_write_1h_tokens = whole(self.cache_creation.ephemeral_1h_input_tokens)
            written = max(written, short + usage.cache_write_1h_tokens)
        usage.cached_tokens = cached
        usage.cache_write_tokens = written - usage.cache_write_1h_tokens
        usage.input_tokens = whole(self.input_tokens) + cached + written
        usage.output_tokens = whole(self.output_tokens)
        if self.output_tokens_details is not None:
            usage.reasoning_tokens = whole(self.output_tokens_details.thinking_tokens)
        for name, count in (self.server_tool_use or {}).items():
            if isinstance(count, int | float) and count > 0:
                usage.units[name] = whole(count)
        return self.input_tokens is not None, self.output_tokens is not None


#: What reading a provider's JSON may raise besides `msgspec.ValidationError`, which is one of the first.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Shape = TypeVar("Shape", OpenAIUsage, AnthropicUsage)


def read_any(text: bytes) -> dict[str, Any] | None:
    """A JSON object of whatever shape; None where it is not one."""
    try:
        value = msgspec.json.decode(text)
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def loosely(value: object, shape: type[Shape]) -> Shape | None:
    """The numbers of a usage object that is not quite of its shape; None where it is no object at all."""
    if not isinstance(value, dict):
        return None
    try:
        return msgspec.convert(_numbers(value), shape)
    except msgspec.ValidationError:
        return shape()


def _numbers(value: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            kept[name] = _numbers(inner)
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            kept[name] = inner
    return kept


def whole(number: Number) -> int:
    """A count as an integer from 0 to MOST; what is missing, negative or no number counts nothing."""
    if type(number) is int and 0 <= number <= MOST:
        return number
    if number is None or not number > 0:
        return 0
    return int(min(number, MOST))


def milliseconds(seconds: int | float) -> int:
    """Seconds as whole milliseconds, rounded up."""
    return ceil(min(seconds, MOST) * 1000) if seconds > 0 else 0
