"""Knows what one answer costs: tokens in, cached, out and reasoned, other units, and how each dialect writes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.demo.script import UsageMode


@dataclass(slots=True)
class Usage:
    """What a call is billed for.

    input counts everything read, cached and cache_write within it; output everything made, reasoning within it.
    units: what is not tokens, such as images, characters or seconds.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    units: dict[str, float | int | str] = field(default_factory=dict)


ZERO = Usage()


def openai_chat(usage: Usage) -> bytes:
    """`usage` of chat completions and completions."""
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
    ) % (usage.input, usage.output, usage.input + usage.output, usage.cached, usage.reasoning)


def openai_responses(usage: Usage) -> bytes:
    """`usage` of the Responses API."""
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning, usage.input + usage.output)


def openai_embeddings(usage: Usage) -> bytes:
    """`usage` of embeddings: there is no output."""
    return b'{"prompt_tokens":%d,"total_tokens":%d}' % (usage.input, usage.input)


def anthropic(usage: Usage, output: int | None = None) -> bytes:
    """`usage` of an Anthropic message. Its `input_tokens` are those neither read from a cache nor written to one."""
    return (
        b'{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,'
        b'"cache_creation":{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":0},'
        b'"output_tokens":%d,"output_tokens_details":{"thinking_tokens":%d},"service_tier":"standard"}'
    ) % (
        usage.input - usage.cached - usage.cache_write,
        usage.cache_write,
        usage.cached,
        usage.cache_write,
        usage.output if output is None else output,
        usage.reasoning if output is None else 0,
    )


def anthropic_delta(usage: Usage) -> bytes:
    """`usage` of `message_delta`: cumulative, so the same figures as the whole message's."""
    return (
        b'{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,'
        b'"output_tokens":%d,"output_tokens_details":{"thinking_tokens":%d}}'
    ) % (
        usage.input - usage.cached - usage.cache_write,
        usage.cache_write,
        usage.cached,
        usage.output,
        usage.reasoning,
    )


def said(mode: UsageMode, usage: Usage) -> Usage:
    """The figures an answer states: the true ones, or zero where the script says so."""
    return ZERO if mode == "zero" else usage


def member(mode: UsageMode, rendered: bytes) -> bytes:
    """`,"usage":...` for the end of a JSON object; nothing where the script leaves it out."""
    if mode == "no":
        return b""
    return b',"usage":null' if mode == "null" else b',"usage":' + rendered
