"""What may be written, and what the gateway counts with."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from gateway.config.values import normal_url, parse_size, parse_usd, plain_text, split_listen, write_scaled, write_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("32 MiB", 33554432), ("1.5KB", 1500), ("10", 10), (10, 10), ("0", 0), ("2gib", 2**31), ("7 B", 7)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5 B", "1,5 MB", "32 mebi", True, -1, 1.5, None, [], "1e3"])
def test_what_is_no_size(text):
    with pytest.raises(PydanticCustomError):
        parse_size(text)


@given(st.integers(0, 2**50))
def test_a_size_is_written_as_it_is_read(size):
    assert parse_size(write_size(size)) == size


@given(st.integers(0, 10**20))
def test_money_is_exact_both_ways(pusd):
    written = write_scaled(pusd, 10**12)
    assert isinstance(written, int | Decimal)
    assert parse_usd(written) == pusd


@pytest.mark.parametrize("value", [0.1, -1, True, "1", Decimal("NaN"), Decimal("Infinity"), Decimal("1e-13"), None])
def test_what_is_no_money(value):
    with pytest.raises(PydanticCustomError):
        parse_usd(value)


def test_money_never_goes_through_a_float(loaded):
    budget = loaded("[clients.a]\nbudget = { day_usd = 0.1, month_usd = 12345678.123456789012 }").settings
    assert budget.clients["a"].budget.day_pusd == 100_000_000_000
    assert budget.clients["a"].budget.month_pusd == 12_345_678_123_456_789_012


def test_prices_stay_exact_decimals(loaded):
    price = loaded("[prices.m]\ninput = 0.15\nimage = 0.04\nunits = { pages = 0.002 }\n").settings.prices["m"]
    override = price.override()
    assert override.input == Decimal("0.15")
    assert override.image == {"*": Decimal("0.04")}
    assert override.units == {"pages": Decimal("0.002")}
    assert override.output is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/v1/", "https://api.openai.com/v1"),
        ("https://h/v1/v1/v1/x", "https://h/v1/x"),
        ("https://h//openai//v1", "https://h/openai/v1"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://h/v1/v1beta", "https://h/v1/v1beta"),
    ],
)
def test_base_urls_are_normalised(written, read):
    assert normal_url(written) == read


def test_a_base_url_read_otherwise_than_written_is_told(loaded):
    loaded = loaded('[providers.a]\nkind = "anthropic"\nbase_url = "https://h/v1"\n')
    assert loaded.settings.providers["a"].base_url == "https://h"
    assert loaded.warnings == ("providers.a.base_url: https://h/v1 is read as https://h",)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:8080", "::1", 8080), (":80", "0.0.0.0", 80), ("host-a:1", "host-a", 1)],
)
def test_listen_addresses(text, host, port):
    assert split_listen(text) == (host, port)


def test_a_price_file_of_rates_of_every_spelling(loaded):
    rates = ["600/minute", "5 per 2 hour", "100000/day", "1/second", "7 / 30 day"]
    quota = loaded(f"[clients.a]\nquota = {{ requests = {rates!r}, tokens = [] }}".replace("'", '"')).settings
    rules = quota.clients["a"].quota.rules()
    assert rules.requests == tuple(rates)
    assert rules.tokens == ()
    assert rules.concurrent is None


def test_values_are_shown_as_toml_writes_them():
    assert plain_text({"a": [True, 'x"y', 1], "b": {}}) == '{ a = [true, "x\\"y", 1], b = {} }'


def test_expiry_is_an_instant(loaded):
    keys = (
        loaded(
            """
        [[clients.a.keys]]
        secret = "0123456789abcdef"
        expires = 2027-01-01
        [[clients.a.keys]]
        secret = "0123456789abcdeg"
        expires = 2027-01-01T02:00:00.000001+02:00
        """
        )
        .settings.clients["a"]
        .keys
    )
    assert keys[0].expires_wall_ns == 1_798_761_600 * 10**9
    assert keys[1].expires_wall_ns == 1_798_761_600 * 10**9 + 1000


def test_tiers_keep_the_figures_of_the_old_system_unless_told(loaded):
    tiers = loaded(
        """
        [tiers.standard]
        budget = { day_usd = 1.5 }
        [tiers.trial]
        concurrent = 1
        """
    ).settings.tiers
    made = {name: tier.tier(name) for name, tier in tiers.items()}
    usd = 10**12
    figures = {
        name: (t.priority, t.concurrent, t.budget.month_pusd, t.rate_multiplier_milli, t.discount_percent)
        for name, t in made.items()
    }
    assert figures == {
        "enterprise": (40, 100, 5000 * usd, 3000, 20),
        "premium": (30, 50, 1000 * usd, 2000, 10),
        "standard": (20, 20, 500 * usd, 1500, 5),
        "basic": (10, 5, 100 * usd, 1000, 0),
        "trial": (10, 1, None, 1000, 0),
    }
    assert made["standard"].budget.day_pusd == 3 * usd // 2


def test_clients_become_what_admission_knows(loaded):
    settings = loaded(
        """
        [clients.acme]
        org = "holding"
        tier = "premium"
        models = ["gpt-*"]
        quota = { requests = ["1/minute"], concurrent = 0 }
        budget = { month_usd = 1, hard = false }
        [clients.solo]
        """
    ).settings
    tiers = {name: tier.tier(name) for name, tier in settings.tiers.items()}
    acme = settings.clients["acme"].client("acme", tiers)
    assert (acme.org, acme.tier.name, acme.scope.models, acme.scope.routes) == ("holding", "premium", ("gpt-*",), None)
    assert (acme.quota.requests, acme.quota.tokens, acme.quota.concurrent) == (("1/minute",), None, 0)
    assert (acme.budget.month_pusd, acme.budget.hard, acme.source) == (10**12, False, "file")
    solo = settings.clients["solo"].client("solo", tiers)
    assert (solo.org, solo.tier.name) == ("solo", "basic")
