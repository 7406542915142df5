"""A usage as OpenAI states it, from what a call was billed by: for streams whose client did not ask for it."""

from __future__ import annotations

from typing import Any

from gateway.usage import Usage


def openai_usage(usage: Usage | None) -> dict[str, Any]:
    """Raises ValueError where it is not known exactly."""
    if usage is None or usage.estimated or usage.units:
        raise ValueError("no usage is known")
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
