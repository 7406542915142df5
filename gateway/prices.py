"""What a model costs: genai-prices with overrides, as exact integers; money in pico-dollars.

Inside a quote every rate is an integer count of 1/`scale` pico-dollars a unit, so that sums are exact whatever decimals
a price has; a row's cost is rounded once, half up. Parts (cached, reasoning, ...) are never charged with their whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from gateway.clock import Clock
from gateway.pricelist import NEVER_NS, TOKEN_RATES, Listed, Rates, find, listed
from gateway.usage import Usage

PUSD: Final = 1_000_000_000_000  # pico-dollars a dollar
#: The most that one call is said to cost, a million dollars and some: what no row can hold is a wrong figure.
MOST_PUSD: Final = 1 << 60
_MILLION = 1_000_000

#: Prices of the fake provider's models: those of gpt-4o-mini and gpt-4o in 2026.
_DEMO = {
    "demo-small": {"input": "0.15", "cached_input": "0.075", "output": "0.6"},
    "demo-large": {"input": "2.5", "cached_input": "1.25", "output": "10"},
}
_DEMO_VERSION = "demo/1"


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

    def over(self, rates: Rates) -> Rates:
        """Those rates with these instead where there are any. A part whose whole is given here goes with it, unless it
        has a price of its own here."""
        tokens, units = dict(rates.tokens), dict(rates.units)
        for whole, parts in _PARTS.items():
            if getattr(self, whole) is not None:
                for part in parts:
                    tokens.pop(part, None)
        for name in TOKEN_RATES:
            price = getattr(self, name, None)
            if price is not None:
                tokens[name] = Fraction(price) / _MILLION
        units.update((f"image:{name}", Fraction(price)) for name, price in self.image.items())
        units.update((name, Fraction(price)) for name, price in self.units.items())
        if self.request is not None:
            units["requests"] = Fraction(self.request)
        return Rates(tokens, units)

    @property
    def version(self) -> str:
        """A short hash of what it says."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        text = repr([(name, sorted(v.items()) if isinstance(v, Mapping) else v) for name, v in sorted(said.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


_PARTS = {
    "input": ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input"),
    "output": ("reasoning", "audio_output", "image_output"),
}


@dataclass(slots=True)
class _Table:
    """Rates in whole 1/scale pico-dollars, for calls with more than `above` input tokens."""

    above: int
    input: int
    cached: int
    cache_write: int
    cache_write_1h: int
    audio_input: int
    output: int
    reasoning: int
    audio_output: int
    image_input: int
    image_output: int

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cached, self.cache_write, self.cache_write_1h, self.audio_input, self.image_input)

    @property
    def dearest_output(self) -> int:
        return max(self.output, self.reasoning, self.audio_output, self.image_output)


class Quote:
    """The price of one model at one provider, now. Prices that change by date or time of day follow the clock."""

    def __init__(self, version: str, listed: Callable[[], Listed], clock: Clock) -> None:
        self.version = version
        self._listed = listed
        self._wall_ns = clock.wall_ns
        self._renew()

    def _renew(self) -> None:
        tiers, self._until_ns = self._listed()
        every = [rate for _, rates in tiers for rate in (*rates.tokens.values(), *rates.units.values())]
        self._scale = math.lcm(1, *((rate * PUSD).denominator for rate in every))
        self._tables = [self._table(above, rates) for above, rates in tiers]
        self._base = self._tables[0]
        self._higher = self._tables[:0:-1]  # the highest first
        self._units = {name: self._whole(rate) for name, rate in tiers[0][1].units.items()}
        self._request = self._units.pop("requests", 0)
        self._dearest_input = max(table.dearest_input for table in self._tables)
        self._dearest_output = max(table.dearest_output for table in self._tables)
        self.unpriced = not every

    def _whole(self, usd: Fraction) -> int:
        return int(usd * PUSD * self._scale)

    def _table(self, above: int, rates: Rates) -> _Table:
        tokens = {name: self._whole(rate) for name, rate in rates.tokens.items()}
        whole_in, whole_out = tokens.get("input", 0), tokens.get("output", 0)
        write = tokens.get("cache_write", whole_in)
        return _Table(
            above,
            whole_in,
            tokens.get("cached_input", whole_in),
            write,
            tokens.get("cache_write_1h", write),
            tokens.get("audio_input", whole_in),
            whole_out,
            tokens.get("reasoning", whole_out),
            tokens.get("audio_output", whole_out),
            tokens.get("image_input", whole_in),
            tokens.get("image_output", whole_out),
        )

    def cost(self, usage: Usage) -> int:
        """Pico-dollars, exact inside and rounded once. Nothing used costs nothing, also where requests have a price."""
        if self._until_ns != NEVER_NS and self._wall_ns() >= self._until_ns:
            self._renew()
        table = self._base
        for higher in self._higher:
            if usage.input_tokens > higher.above:
                table = higher
                break
        cached, write, write_1h = usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
        audio, reasoning, spoken = usage.audio_input_tokens, usage.reasoning_tokens, usage.audio_output_tokens
        plain_in = usage.input_tokens - cached - write - write_1h - audio
        plain_out = usage.output_tokens - reasoning - spoken
        total = (plain_in if plain_in > 0 else 0) * table.input + (plain_out if plain_out > 0 else 0) * table.output
        if cached or write or write_1h or audio:
            total += cached * table.cached + write * table.cache_write
            total += write_1h * table.cache_write_1h + audio * table.audio_input
        if reasoning or spoken:
            total += reasoning * table.reasoning + spoken * table.audio_output
        if usage.units:
            total += self._cost_of_units(usage.units) + _of_images(table, usage.units, max(0, plain_out))
        if self._request and (usage.input_tokens or usage.output_tokens or usage.units):
            total += usage.units.get("requests", 1) * self._request
        return min((2 * total + self._scale) // (2 * self._scale), MOST_PUSD)

    def worst(self, prompt_bytes: int, output_tokens: int, units: Mapping[str, int]) -> int:
        """The most a call can cost: a token a byte, at the dearest input and output rate. Rounded up."""
        if self._until_ns != NEVER_NS and self._wall_ns() >= self._until_ns:
            self._renew()
        total = prompt_bytes * self._dearest_input + output_tokens * self._dearest_output
        if units:
            total += self._cost_of_units(units)
        if self._request:
            total += units.get("requests", 1) * self._request
        return min(-(-total // self._scale), MOST_PUSD)

    def _cost_of_units(self, units: Mapping[str, int]) -> int:
        known = self._units
        return sum(known[name] * amount for unit, amount in units.items() if (name := _priced(unit, known)) is not None)


def _of_images(table: _Table, units: Mapping[str, int], plain_out: int) -> int:
    """What tokens of images cost above the price at which they are in their wholes already. Where a reply of images
    does not tell its tokens apart, all that it put out were images'."""
    seen = units.get("image_input_tokens", 0)
    drawn = units.get("image_output_tokens", plain_out if "images" in units else 0)
    return seen * (table.image_input - table.input) + drawn * (table.image_output - table.output)


def _priced(unit: str, known: Mapping[str, int]) -> str | None:
    """The name under which a unit has a price: its own, or for "image:SIZE:QUALITY" that of the size, or of any."""
    if unit in known:
        return unit
    if not unit.startswith("image:"):
        return None
    of_size = unit.rpartition(":")[0]
    return of_size if of_size in known else "image:*" if "image:*" in known else None


class Prices:
    """Quotes by provider and model; overrides go by "provider/model", public or upstream name."""

    def __init__(self, overrides: Mapping[str, PriceOverride] | None = None, clock: Clock | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._clock = clock or Clock()
        self._quotes: dict[tuple[str, str, str, str], Quote] = {}

    def quote(self, provider_kind: str, provider_name: str, model: str, upstream_model: str) -> Quote:
        """Cached; an unknown model gets an unpriced quote that costs nothing."""
        asked = (provider_kind, provider_name, model, upstream_model)
        found = self._quotes.get(asked)
        if found is None:
            found = self._quotes[asked] = self._make(*asked)
        return found

    def _make(self, provider_kind: str, provider_name: str, model: str, upstream_model: str) -> Quote:
        override = self._override(provider_name, model, upstream_model)
        base_version, base = self._base(provider_kind, provider_name, upstream_model)
        if override is None:
            return Quote(base_version, base, self._clock)
        own = override

        def overridden() -> Listed:
            tiers, until_ns = base()
            return [(above, own.over(rates)) for above, rates in tiers], until_ns

        version = f"{base_version}+{own.version}" if base_version else f"override/{own.version}"
        return Quote(version, overridden, self._clock)

    def _override(self, provider_name: str, model: str, upstream_model: str) -> PriceOverride | None:
        names = (f"{provider_name}/{upstream_model}", f"{provider_name}/{model}", model, upstream_model, provider_name)
        return next((self._overrides[name] for name in names if name and name in self._overrides), None)

    def _base(self, provider_kind: str, provider_name: str, upstream_model: str) -> tuple[str, Callable[[], Listed]]:
        if upstream_model in _DEMO:
            rates = Rates({name: Fraction(usd) / _MILLION for name, usd in _DEMO[upstream_model].items()})
            return _DEMO_VERSION, lambda: ([(0, rates)], NEVER_NS)
        found = None if provider_kind == "http" else find(provider_kind, provider_name, upstream_model)
        if found is None:
            return "", lambda: ([(0, Rates())], NEVER_NS)
        from genai_prices import __version__

        return f"genai-prices/{__version__}", lambda: listed(found, self._clock.wall_ns())


@lru_cache(maxsize=4096)
def usd(pusd: int) -> str:
    """Pico-dollars as a decimal string of dollars, exact: "0.00015"."""
    sign, (whole, rest) = ("-" if pusd < 0 else ""), divmod(abs(pusd), PUSD)
    return f"{sign}{whole}" if rest == 0 else f"{sign}{whole}.{rest:012d}".rstrip("0")
