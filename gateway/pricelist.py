"""What genai-prices knows of a model: its rates at a moment, as exact fractions, and until when they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

_MILLION = 1_000_000
_NS = 1_000_000_000

#: Rates of genai-prices by ours: the first that a model has counts; the last resort of each is the whole it is part of.
TOKEN_RATES = {
    "input": ("input_mtok", "input_text_mtok"),
    "cached_input": ("cache_read_mtok", "cache_text_read_mtok"),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok", "cache_text_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "cache_text_write_mtok"),
    "audio_input": ("input_audio_mtok",),
    "output": ("output_mtok", "output_text_mtok"),
    "reasoning": ("output_reasoning_mtok",),
    "audio_output": ("output_audio_mtok",),
    "image_input": ("input_image_mtok",),
    "image_output": ("output_image_mtok",),
}

#: Other units by their names in Usage: what genai-prices calls them, and how many one price is for.
_UNIT_RATES = {
    "characters": (("input_mchars",), 1_000_000),
    "audio_ms": (("audio_hours", "input_audio_hours"), 3_600_000),
    "web_search_requests": (("web_searches_kcount",), 1000),
    "pages": (("input_document_kpages",), 1000),
    "requests": (("requests_kcount",), 1000),
}


@dataclass(slots=True)
class Rates:
    """Exact prices in USD: a token by part, a piece by unit."""

    tokens: dict[str, Fraction] = field(default_factory=dict)
    units: dict[str, Fraction] = field(default_factory=dict)


#: Rates by the number of input tokens above which they hold (the first holds from 0), and the moment until which.
Listed = tuple[list[tuple[int, Rates]], int]
NEVER_NS = 1 << 63


def warm() -> None:
    """Loads the package, so that the first call that needs it does not wait for that. For a thread."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def find(provider_kind: str, provider_name: str, model: str) -> ModelInfo | None:
    """The package's entry: by the provider's name where it is one that the package knows, else by its kind."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot  # 70-100 ms, so not before it is needed

    providers = get_snapshot().providers
    for name in (provider_name, provider_kind):
        provider = find_provider_by_id(providers, name)
        if provider is not None:
            return provider.find_model(model, all_providers=providers)
    return None


def listed(model: ModelInfo, wall_ns: int) -> Listed:
    """The rates of this moment, by tier, and when to look again."""
    now = datetime.fromtimestamp(wall_ns // _NS, UTC)
    prices = model.get_prices(now).__dict__
    starts = {tier.start for price in prices.values() for tier in getattr(price, "tiers", ())}
    tiers = [(above, _rates(prices, above)) for above in sorted({0, *starts})]
    return tiers, _next_change_ns(model, now)


def _rates(prices: Mapping[str, Any], above: int) -> Rates:
    tokens = {}
    for name, known_as in TOKEN_RATES.items():
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
        return NEVER_NS
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
    return min((int(change.timestamp()) * _NS for change in changes), default=NEVER_NS)
