"""Prices: equal to genai-prices' own decimals on hundreds of models, exact in integers, overridden as the file says."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.prices import PUSD, PriceOverride, Prices, usd
from gateway.usage import Usage

ROOT = Path(__file__).parents[2]
USD = Decimal(PUSD)

USAGES = [
    Usage(),
    Usage(input_tokens=1),
    Usage(input_tokens=1000, output_tokens=500),
    Usage(input_tokens=1000, cached_tokens=900, output_tokens=1),
    Usage(input_tokens=5000, cached_tokens=1000, cache_write_tokens=2000, output_tokens=77),
    Usage(input_tokens=5000, cache_write_tokens=1000, cache_write_1h_tokens=3000, output_tokens=77),
    Usage(input_tokens=300, output_tokens=4000, reasoning_tokens=3500),
    Usage(input_tokens=300, audio_input_tokens=200, output_tokens=90, audio_output_tokens=60),
    Usage(input_tokens=199_999, cached_tokens=100_000, output_tokens=10),
    Usage(input_tokens=200_000, output_tokens=10),
    Usage(input_tokens=200_001, cached_tokens=7, output_tokens=10),
    Usage(input_tokens=1_000_001, output_tokens=65_000),
    Usage(input_tokens=1000, output_tokens=900, units={"image_input_tokens": 300, "image_output_tokens": 500}),
    Usage(input_tokens=1000, output_tokens=900, units={"images": 1}),
]


def theirs(provider: Any, model: Any, usage: Usage) -> Decimal:
    """What the package's own decimals say, in dollars."""
    known = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
        cache_write_5m_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.audio_input_tokens,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        output_audio_tokens=usage.audio_output_tokens,
        input_image_tokens=usage.units.get("image_input_tokens", 0),
        output_image_tokens=usage.units.get("image_output_tokens", usage.output_tokens if usage.units else 0),
        **dict.fromkeys(_ABSENT, 0),
    )
    total: Decimal = model.calc_price(known, provider).total_price
    return total


#: Units that a model may have a price for, and that none of the samples uses.
_ABSENT = (
    "cache_audio_read_tokens", "cache_image_read_tokens", "input_video_tokens", "output_video_tokens",
    "output_citation_tokens", "output_text_tokens", "input_text_tokens", "input_characters", "audio_seconds",
    "input_audio_seconds", "web_searches", "storage_searches", "input_document_pages",
    "input_annotated_document_pages", "input_text_messages",
)  # fmt: skip


def test_costs_equal_the_packages_own_on_every_model() -> None:
    compared = 0
    prices = Prices()
    for provider in get_snapshot().providers:
        for model in provider.models:
            found = provider.find_model(model.id)
            if found is not model:
                continue  # shadowed by an earlier entry: nobody can ask for it
            quote = prices.quote("openai", provider.id, model.id, model.id)
            current = model.get_prices(datetime.now(UTC))
            fee = getattr(current, "requests_kcount", None) or Decimal(0)
            for usage in USAGES:
                expected = theirs(provider, model, usage) * USD
                if usage == Usage():
                    expected -= fee * USD / 1000  # ours: nothing used costs nothing
                rounded = int((expected + Decimal("0.5")) // 1)
                assert quote.cost(usage) == rounded, (provider.id, model.id, usage)
                compared += 1
            assert not quote.unpriced or not current.__dict__
    assert compared > 10_000


@pytest.mark.parametrize(
    ("model", "usage", "cost_usd"),
    [
        ("gpt-4o-mini", Usage(input_tokens=1), "0.00000015"),
        ("gpt-4o", Usage(input_tokens=1000, cached_tokens=600, output_tokens=100), "0.00275"),
        ("gpt-4o", Usage(), "0"),
    ],
)
def test_golden_costs(model: str, usage: Usage, cost_usd: str) -> None:
    assert usd(Prices().quote("openai", "openai", model, model).cost(usage)) == cost_usd


def test_cached_and_cache_writes_at_anthropic() -> None:
    """Read 0.1, written for 5 minutes 1.25, for an hour 2 times the input's price; each token once."""
    quote = Prices().quote("anthropic", "anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5")
    usage = Usage(input_tokens=10_000, cached_tokens=4000, cache_write_tokens=3000, cache_write_1h_tokens=2000)
    expected = Decimal(1000 * 3) + 4000 * Decimal("0.3") + 3000 * Decimal("3.75") + 2000 * 6
    assert quote.cost(usage) == int(expected * USD / 1_000_000)


def test_a_provider_of_any_name_is_priced_by_its_kind_and_a_worker_not_at_all() -> None:
    prices = Prices()
    named = prices.quote("openai", "my-gateway", "public", "gpt-4o")
    assert named.cost(Usage(input_tokens=1_000_000)) == 2_500_000_000_000
    assert named.version == f"genai-prices/{genai_prices.__version__}"
    azure = prices.quote("openai", "azure", "public", "gpt-4o")
    assert not azure.unpriced
    unknown = prices.quote("openai", "my-gateway", "public", "no-such-model-here")
    assert (unknown.unpriced, unknown.cost(USAGES[2]), unknown.worst(1000, 1000, {"x": 1})) == (True, 0, 0)
    assert unknown.version == ""
    assert prices.quote("http", "resizer", "", "").unpriced
    assert prices.quote("openai", "azure", "public", "gpt-4o") is azure


def test_the_fake_providers_models_have_prices() -> None:
    quote = Prices().quote("openai", "demo", "demo-small", "demo-small")
    assert (quote.cost(Usage(input_tokens=1_000_000)), quote.version) == (150_000_000_000, "demo/1")
    large = Prices().quote("anthropic", "demo", "demo-large", "demo-large")
    assert large.cost(Usage(output_tokens=1_000_000)) == 10 * PUSD


def test_overrides_in_dollars_per_million() -> None:
    override = PriceOverride(input=Decimal("2"), output=Decimal("8"), reasoning=Decimal("12"))
    quote = Prices({"gpt-4o": override}).quote("openai", "openai", "gpt-4o", "gpt-4o")
    # A part that the package knows a price for goes with the whole that the file prices anew.
    assert quote.cost(Usage(input_tokens=10, cached_tokens=5)) == 20_000_000
    assert quote.cost(Usage(output_tokens=10, reasoning_tokens=4)) == 6 * 8_000_000 + 4 * 12_000_000
    assert quote.version == f"genai-prices/{genai_prices.__version__}+{override.version}"
    only_cached = Prices({"gpt-4o": PriceOverride(cached_input=Decimal("0.5"))}).quote("openai", "openai", "", "gpt-4o")
    assert only_cached.cost(Usage(input_tokens=10, cached_tokens=4)) == 6 * 2_500_000 + 4 * 500_000
    free = Prices({"local": PriceOverride(input=Decimal(0), output=Decimal(0))}).quote("openai", "x", "local", "llama")
    assert (free.unpriced, free.cost(USAGES[2])) == (False, 0)


def test_the_nearest_override_counts() -> None:
    def of(price: int) -> PriceOverride:
        return PriceOverride(input=Decimal(price))

    overrides = {"azure/up": of(1), "azure/public": of(2), "public": of(3), "up": of(4)}
    expected = []
    while overrides:
        quote = Prices(overrides).quote("openai", "azure", "public", "up")
        expected.append(quote.cost(Usage(input_tokens=1)) // 1_000_000)
        overrides.pop(next(iter(overrides)))
    assert expected == [1, 2, 3, 4]


def test_images_requests_and_any_unit() -> None:
    override = PriceOverride(
        image={"1024x1024:hd": Decimal("0.08"), "1024x1024": Decimal("0.04"), "*": Decimal("0.02")},
        request=Decimal("0.001"),
        units={"emails": Decimal("0.0001"), "audio_ms": Decimal("0.0000001")},
    )
    quote = Prices({"painter": override}).quote("http", "painter", "", "")
    assert quote.version == f"override/{override.version}"
    cents = PUSD // 100

    def cost(**units: int) -> int:
        return quote.cost(Usage(units={name.replace("_x_", ":"): count for name, count in units.items()}))

    assert cost(**{"image:1024x1024:hd": 2}) == 16 * cents + cents // 10
    assert cost(**{"image:1024x1024:standard": 1}) == 4 * cents + cents // 10
    assert cost(**{"image:512x512:standard": 1}) == 2 * cents + cents // 10
    assert cost(emails=3, unknown=99) == 3 * cents // 100 + cents // 10
    assert cost(requests=5) == 5 * cents // 10
    assert cost(audio_ms=60_000) == 6 * cents // 10 + cents // 10
    assert cost() == 0
    assert quote.worst(0, 0, {"image:1024x1024:hd": 2}) == 16 * cents + cents // 10


@given(
    st.lists(st.integers(0, 10**7), min_size=8, max_size=8),
    st.sampled_from(["gpt-4o", "gpt-4o-audio-preview", "o3", "gemini-2.5-pro", "claude-sonnet-4-5", "deepseek-chat"]),
)
def test_the_worst_case_is_never_less_than_the_cost(parts: list[int], model: str) -> None:
    kind = {"g": "google", "c": "anthropic", "d": "deepseek"}.get(model[0], "openai")
    provider = "openai" if model.startswith("gpt") else kind
    quote = Prices().quote("openai", provider, model, model)
    assert not quote.unpriced
    cached, write, write_1h, audio, plain, reasoning, spoken, text = parts
    usage = Usage(
        input_tokens=cached + write + write_1h + audio + plain, cached_tokens=cached, cache_write_tokens=write,
        cache_write_1h_tokens=write_1h, audio_input_tokens=audio, output_tokens=reasoning + spoken + text,
        reasoning_tokens=reasoning, audio_output_tokens=spoken,
    )  # fmt: skip
    assert 0 <= quote.cost(usage) <= quote.worst(usage.input_tokens, usage.output_tokens, {})


def test_parts_that_exceed_their_whole_never_make_a_cost_negative() -> None:
    quote = Prices().quote("openai", "openai", "gpt-4o", "gpt-4o")
    assert quote.cost(Usage(input_tokens=1, cached_tokens=10, output_tokens=1, reasoning_tokens=10)) > 0


def test_a_figure_that_no_row_holds_is_cut_to_one_that_it_does() -> None:
    quote = Prices().quote("openai", "openai", "gpt-4o", "gpt-4o")
    assert quote.cost(Usage(output_tokens=10**30)) == 2**60
    assert quote.worst(10, 10**30, {}) == 2**60


def test_tiers_by_the_size_of_the_input() -> None:
    quote = Prices().quote("openai", "google", "gemini-2.5-pro", "gemini-2.5-pro")
    below, above = quote.cost(Usage(input_tokens=200_000)), quote.cost(Usage(input_tokens=200_001))
    assert above > 1.9 * below


def test_prices_by_date_and_hour_follow_the_clock() -> None:
    """DeepSeek's off-peak hours, and a price that begins on a date: one quote, held for days."""
    providers = {provider.id: provider for provider in get_snapshot().providers}
    checked = 0
    for provider in providers.values():
        for model in provider.models:
            constraints = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
            if not any(hasattr(constraint, "start_time") for constraint in constraints):
                continue
            if provider.find_model(model.id) is not model:
                continue
            clock = ManualClock(wall_ns=int(datetime(2025, 5, 1, tzinfo=UTC).timestamp()) * 10**9)
            quote = Prices(clock=clock).quote("openai", provider.id, model.id, model.id)
            for _ in range(3 * 48):
                now = datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC)
                usage = genai_prices.Usage(input_tokens=1000, output_tokens=0, cache_read_tokens=0)
                expected = model.calc_price(usage, provider, genai_request_timestamp=now).total_price * USD
                assert quote.cost(Usage(input_tokens=1000)) == int(expected), (provider.id, model.id, now)
                clock.advance(1800)
            checked += 1
    assert checked >= 2


def test_money_is_never_a_float() -> None:
    """No float literal and no true division in what computes or stores money."""
    for name in MONEY:
        tree = ast.parse((ROOT / "gateway" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), (name, node.lineno)
            assert not (isinstance(node, ast.Name) and node.id == "float"), (name, node.lineno)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                assert ast.unparse(node) in ALLOWED, (name, ast.unparse(node))


MONEY = ("prices", "pricelist", *(f"records/{name}" for name in ("rollups", "posting", "queries", "verbs", "rows")))

#: Divisions of exact fractions.
ALLOWED = {"Fraction(price) / _MILLION", "price / _MILLION", "price / per", "Fraction(usd) / _MILLION"}


def test_dollars_are_written_exactly() -> None:
    assert [usd(amount) for amount in (0, 1, 150_000, PUSD, -5 * PUSD // 2, 10**30 + 1)] == [
        "0", "0.000000000001", "0.00000015", "1", "-2.5", "1000000000000000000.000000000001",
    ]  # fmt: skip
    assert all(Decimal(usd(amount)) * PUSD == amount for amount in (3, 10**11, 123_456_789_012_345))


def test_the_packages_data_is_not_loaded_before_it_is_needed() -> None:
    script = (
        "import sys, time, pydantic, gateway.prices as p; assert 'genai_prices' not in sys.modules;"
        "p.Prices().quote('http', 'worker', '', ''); assert 'genai_prices' not in sys.modules;"
        "p.Prices().quote('openai', 'demo', 'demo-small', 'demo-small'); assert 'genai_prices' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_quotes_cost_is_quick() -> None:
    quote = Prices().quote("openai", "openai", "gpt-4o", "gpt-4o")
    usage = Usage(input_tokens=1000, cached_tokens=600, output_tokens=100)
    best = float("inf")
    for _ in range(20):
        began = time.thread_time()
        for _ in range(500):
            quote.cost(usage)
        best = min(best, (time.thread_time() - began) / 500)
    assert best < 10e-6
