"""What a provider says of its own limits in a reply's head: how much is left of what, and when to come again.

https://platform.openai.com/docs/guides/rate-limits and https://docs.anthropic.com/en/api/rate-limits
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Header
from gateway.routing.patience import NEVER_S, retry_after

_LEFT = {
    b"x-ratelimit-remaining-tokens": "tokens",
    b"x-ratelimit-remaining-requests": "requests",
    b"anthropic-ratelimit-tokens-remaining": "tokens",
    b"anthropic-ratelimit-requests-remaining": "requests",
    b"anthropic-ratelimit-input-tokens-remaining": "input_tokens",
    b"anthropic-ratelimit-output-tokens-remaining": "output_tokens",
}
#: No answer keeps us away for longer: who means it says so again.
LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Told:
    """`left` by what is counted: "tokens", "requests", "input_tokens", "output_tokens"."""

    left: dict[str, int]
    pause_s: float = 0.0


def listen(status: int, headers: list[Header], wall_ns: int) -> Told | None:
    """None: it says nothing. What is no number, or none that ends, counts as not said; a pause is only read from a
    429."""
    left: dict[str, int] = {}
    for name, value in headers:
        measure = _LEFT.get(name)
        if measure is not None and value.isdigit() and len(value) <= 15:
            left[measure] = int(value)
    pause_s = retry_after(headers, wall_ns / 1e9) if status == 429 else None
    if pause_s == NEVER_S:
        pause_s = None  # nonsense keeps no pool closed for an hour
    return Told(left, min(pause_s or 0.0, LONGEST_PAUSE_S)) if left or pause_s else None
