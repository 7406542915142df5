"""What a model costs: genai-prices with overrides, as exact integers; money in pico-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from gateway.usage import Usage


@dataclass(frozen=True, kw_only=True)
class PriceOverride:
    """[prices.MODEL] of gateway.toml: USD per million tokens; per piece for images, requests and units."""

    input: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image: Mapping[str, Decimal] = field(default_factory=dict)  # by "size:quality", "size", or "*"
    request: Decimal | None = None
    units: Mapping[str, Decimal] = field(default_factory=dict)  # by the unit's name


class Quote:
    """The price of one model at one provider, now."""

    version: str  # of the package, and the override's hash: "genai-prices/0.2.3", "override/1f3a9c"
    unpriced: bool

    def cost(self, usage: Usage) -> int:
        """Pico-dollars, exact inside and rounded once."""
        raise NotImplementedError

    def worst(self, prompt_bytes: int, output_tokens: int, units: Mapping[str, int]) -> int:
        """The most a call can cost: a token a byte, at the dearest input and output rate."""
        raise NotImplementedError


class Prices:
    """Quotes by provider and model; overrides go by "provider/model", public or upstream name."""

    def __init__(self, overrides: Mapping[str, PriceOverride] | None = None) -> None:
        self._overrides = dict(overrides or {})

    def quote(self, provider_kind: str, provider_name: str, model: str, upstream_model: str) -> Quote:
        """Cached; an unknown model gets an unpriced quote that costs nothing."""
        raise NotImplementedError
