"""What a model costs: genai-prices with overrides, as exact integers; money in pico-dollars.

Inside a quote every rate is an integer count of 1/`scale` pico-dollars a unit, so that sums are exact whatever decimals
a price has; a row's cost is rounded once, half up. Parts (cached, reasoning, ...) are never charged with their whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from gateway.clock import Clock
from gateway.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

PUSD: Final = 1_000_000_000_000  # pico-dollars a dollar
_MILLION = 1_000_000
_NS = 1_000_000_000
_NEVER_NS = 1 << 63

#: Rates of genai-prices by ours: the first that a model has counts; the last resort of each is the whole it is part of.
_TOKEN_RATES = {
    "input": ("input_mtok", "input_text_mtok"),
    "cached_input": ("cache_read_mtok", "cache_text_read_mtok"),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok", "cache_text_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "cache_text_write_mtok"),
    "audio_input": ("input_audio_mtok",),
    "output": ("output_mtok", "output_text_mtok"),
    "reasoning": ("output_reasoning_mtok",),
    "audio_output": ("output_audio_mtok",),
}

#: Other units by their names in Usage: what genai-prices calls them, and how many one price is for.
_UNIT_RATES = {
    "characters": (("input_mchars",), 1_000_000),
    "audio_ms": (("audio_hours", "input_audio_hours"), 3_600_000),
    "image_input_tokens": (("input_image_mtok",), 1_000_000),
    "image_output_tokens": (("output_image_mtok",), 1_000_000),
    "web_searches": (("web_searches_kcount",), 1000),
    "pages": (("input_document_kpages",), 1000),
    "requests": (("requests_kcount",), 1000),
}

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

    @property
    def version(self) -> str:
        """A short hash of what it says."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        text = repr([(name, sorted(v.items()) if isinstance(v, Mapping) else v) for name, v in sorted(said.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(slots=True)
class Rates:
    """Exact prices in USD: a token by part, a piece by unit."""

    tokens: dict[str, Fraction] = field(default_factory=dict)
    units: dict[str, Fraction] = field(default_factory=dict)

    def over(self, override: PriceOverride) -> Rates:
        """These with the override's instead where it has any. A part whose whole is overridden goes with it, unless it
        has a price of its own there."""
        tokens, units = dict(self.tokens), dict(self.units)
        for whole, parts in _PARTS.items():
            if getattr(override, whole) is not None:
                for part in parts:
                    tokens.pop(part, None)
        for name in _TOKEN_RATES:
            price = getattr(override, name)
            if price is not None:
                tokens[name] = Fraction(price) / _MILLION
        units.update((f"image:{name}", Fraction(price)) for name, price in override.image.items())
        units.update((name, Fraction(price)) for name, price in override.units.items())
        if override.request is not None:
            units["requests"] = Fraction(override.request)
        return Rates(tokens, units)


_PARTS = {
    "input": ("cached_input", "cache_write", "cache_write_1h", "audio_input"),
    "output": ("reasoning", "audio_output"),
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

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cached, self.cache_write, self.cache_write_1h, self.audio_input)

    @property
    def dearest_output(self) -> int:
        return max(self.output, self.reasoning, self.audio_output)


#: Rates by the number of input tokens above which they hold (the first 0... holds from the start), and until when.
Listed = tuple[list[tuple[int, Rates]], int]


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
        )

    def cost(self, usage: Usage) -> int:
        """Pico-dollars, exact inside and rounded once. Nothing used costs nothing, also where requests have a price."""
        if self._until_ns != _NEVER_NS and self._wall_ns() >= self._until_ns:
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
            total += self._cost_of_units(usage.units)
        if self._request and (usage.input_tokens or usage.output_tokens or usage.units):
            total += usage.units.get("requests", 1) * self._request
        return (2 * total + self._scale) // (2 * self._scale)

    def worst(self, prompt_bytes: int, output_tokens: int, units: Mapping[str, int]) -> int:
        """The most a call can cost: a token a byte, at the dearest input and output rate. Rounded up."""
        if self._until_ns != _NEVER_NS and self._wall_ns() >= self._until_ns:
            self._renew()
        total = prompt_bytes * self._dearest_input + output_tokens * self._dearest_output
        if units:
            total += self._cost_of_units(units)
        if self._request:
            total += units.get("requests", 1) * self._request
        return -(-total // self._scale)

    def _cost_of_units(self, units: Mapping[str, int]) -> int:
        known = self._units
        return sum(known[name] * amount for unit, amount in units.items() if (name := _priced(unit, known)) is not None)


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
        base_version, listed = self._base(provider_kind, provider_name, upstream_model)
        if override is None:
            return Quote(base_version, listed, self._clock)
        own = override

        def overridden() -> Listed:
            tiers, until_ns = listed()
            return [(above, rates.over(own)) for above, rates in tiers], until_ns

        version = f"{base_version}+{own.version}" if base_version else f"override/{own.version}"
        return Quote(version, overridden, self._clock)

    def _override(self, provider_name: str, model: str, upstream_model: str) -> PriceOverride | None:
        names = (f"{provider_name}/{upstream_model}", f"{provider_name}/{model}", model, upstream_model, provider_name)
        return next((self._overrides[name] for name in names if name and name in self._overrides), None)

    def _base(self, provider_kind: str, provider_name: str, upstream_model: str) -> tuple[str, Callable[[], Listed]]:
        if upstream_model in _DEMO:
            rates = Rates({name: Fraction(usd) / _MILLION for name, usd in _DEMO[upstream_model].items()})
            return _DEMO_VERSION, lambda: ([(0, rates)], _NEVER_NS)
        found = None if provider_kind == "http" else _find(provider_kind, provider_name, upstream_model)
        if found is None:
            return "", lambda: ([(0, Rates())], _NEVER_NS)
        from genai_prices import __version__

        return f"genai-prices/{__version__}", lambda: _listed(found, self._clock.wall_ns())


def _find(provider_kind: str, provider_name: str, model: str) -> ModelInfo | None:
    """The package's entry: by the provider's name where it is one that the package knows, else by its kind."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot  # 70-100 ms, so not before it is needed

    providers = get_snapshot().providers
    for name in (provider_name, provider_kind):
        provider = find_provider_by_id(providers, name)
        if provider is not None:
            return provider.find_model(model, all_providers=providers)
    return None


def _listed(model: ModelInfo, wall_ns: int) -> Listed:
    """The rates of this moment, by tier, and when to look again."""
    now = datetime.fromtimestamp(wall_ns // _NS, UTC)
    prices = model.get_prices(now).__dict__
    starts = {tier.start for price in prices.values() for tier in getattr(price, "tiers", ())}
    tiers = [(above, _rates(prices, above)) for above in sorted({0, *starts})]
    return tiers, _next_change_ns(model, now)


def _rates(prices: Mapping[str, Any], above: int) -> Rates:
    tokens = {}
    for name, known_as in _TOKEN_RATES.items():
        price = _first(prices, known_as, above)
        if price is not None:
            tokens[name] = price / _MILLION
    units = {}
    for name, (keys, per) in _UNIT_RATES.items():
        price = _first(prices, keys, above)
        if price is not None:
            units[name] = price / per
    return Rates(tokens, units)


def _first(prices: Mapping[str, Any], keys: tuple[str, ...], above: int) -> Fraction | None:
    """The price of the first key that has one, in the tier of more than `above` input tokens."""
    for key in keys:
        price = prices.get(key)
        if price is None:
            continue
        reached = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= above]
        return Fraction(reached[-1] if reached else getattr(price, "base", price))
    return None


def _next_change_ns(model: ModelInfo, now: datetime) -> int:
    """When a price that depends on the date or the time of day may be another; never for most."""
    if not isinstance(model.prices, list):
        return _NEVER_NS
    changes = []
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for conditional in model.prices:
        constraint = conditional.constraint
        start_date = getattr(constraint, "start_date", None)
        if start_date is not None:
            starts = datetime(start_date.year, start_date.month, start_date.day, tzinfo=UTC)
            changes += [starts] if starts > now else []
        for time_of_day in (getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)):
            if time_of_day is not None:
                offset = time_of_day.utcoffset() or timedelta()
                at = midnight + timedelta(hours=time_of_day.hour, minutes=time_of_day.minute) - offset
                changes.append(next(moment for days in range(-1, 3) if (moment := at + timedelta(days=days)) > now))
    return min((int(change.timestamp()) * _NS for change in changes), default=_NEVER_NS)


def usd(pusd: int) -> str:
    """Pico-dollars as a decimal string of dollars, exact: "0.00015"."""
    sign, (whole, rest) = ("-" if pusd < 0 else ""), divmod(abs(pusd), PUSD)
    return f"{sign}{whole}" if rest == 0 else f"{sign}{whole}.{rest:012d}".rstrip("0")
