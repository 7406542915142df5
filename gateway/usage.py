"""What one exchange consumed, in the units that are billed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Usage:
    """Tokens and other units of one attempt. `input_tokens` includes cached, cache-write and audio input;
    `output_tokens` includes reasoning and audio output: parts are never added to their whole.

    `units` counts everything else by name: "requests", "images", "image:1024x1024:hd", "audio_ms", "characters", or
    whatever a worker reports ("emails", "bytes", ...).
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0  # Anthropic, 5 minutes' cache
    cache_write_1h_tokens: int = 0  # Anthropic, 1 hour's cache
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    units: dict[str, int] = field(default_factory=dict)
    estimated: bool = False  # our estimate from what came, not the provider's report

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Estimate:
    """The worst case of a call on one target (TERMS 4), and the likely figure that is only shown.

    `input_tokens` is reserved at one token a byte, `output_tokens` at n x max_tokens; `label_tokens` is bytes/4 plus
    output, for waits and headers. `cost_pusd` is the worst cost in pico-dollars (0 where there is no price).
    """

    input_tokens: int
    output_tokens: int
    label_tokens: int
    cost_pusd: int

    @property
    def tokens(self) -> int:
        """Input and output together, worst case."""
        return self.input_tokens + self.output_tokens
