"""[pools] and who takes of them: the built-in figures, exact rates, parts that fit, names that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

POOL = '[pools.x]\nunit = "tokens"\ncapacity = 100\nrefill_per_s = 10\n'
CLIENT = '[[pools.x.dedicated]]\nclient = "a"\ncapacity = 9\nrefill_per_s = 1\n'
MODEL = '[models.m]\ntargets = ["o/m"]\n'
PROVIDER = '[providers.o]\nkind = "openai"\n'


def test_the_figures_of_the_system_replaced_are_built_in(loaded: Callable[..., Any]) -> None:
    pools = loaded("").settings.pools
    figures = {name: (pool.unit, pool.capacity, pool.refill_milli // 1000) for name, pool in pools.items()}
    assert figures == {
        "openai-gpt4": ("tokens", 10_000, 166),
        "openai-gpt35": ("tokens", 90_000, 1_500),
        "anthropic-claude": ("tokens", 20_000, 333),
        "email": ("emails", 1_000, 16),
        "sms": ("messages", 500, 8),
        "database": ("queries", 50_000, 833),
        "storage-kv": ("reads", 100_000, 1_666),
        "storage-r2": ("bytes", 1_000_000, 10_000),
    }
    assert {name: pool.windows for name, pool in pools.items() if pool.windows} == {
        "openai-gpt4": ("1000000/day",),
        "openai-gpt35": ("1000000/day",),
        "email": ("100000/day",),
        "storage-r2": (f"{10 * 2**30}/30 days",),
    }
    assert all(pool.reserved_percent == 10 for pool in pools.values())


def test_single_fields_of_a_built_in_pool_may_be_changed(loaded: Callable[..., Any]) -> None:
    pool = loaded("[pools.email]\ncapacity = 5").settings.pools["email"]
    assert (pool.capacity, pool.refill_milli, pool.unit) == (5, 16_000, "emails")


def test_rates_are_exact_to_three_decimals(loaded: Callable[..., Any]) -> None:
    assert loaded(POOL.replace("= 10\n", "= 0.028\n")).settings.pools["x"].refill_milli == 28


def test_parts_may_follow_each_other(loaded: Callable[..., Any]) -> None:
    part = '[[pools.x.dedicated]]\nclient = "a"\ncapacity = 90\nrefill_per_s = 9\n'
    text = POOL + part + "until = 2026-06-30\n" + part + "from = 2026-07-01\n"
    assert [len(parts) for _, parts in loaded(text).settings.pools["x"].eras()] == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        (POOL.replace("100", "0"), "a number at least 1", ""),
        (POOL.replace("= 10\n", "= 0.0001\n"), "at most 3 decimals", ""),
        (POOL + "reserved_percent = 91\n", "at most 90", ""),
        (POOL + 'windows = ["1000 a day"]\n', "600/minute", ""),
        (POOL + "lend = true\n", "lend_idle", "did you mean"),
        (POOL + '[[pools.x.dedicated]]\nclient = "a"\ncapacity = 91\nrefill_per_s = 1\n', "10 reserved included", ""),
        (POOL + '[[pools.x.dedicated]]\nclient = "a"\ncapacity = 9\nrefill_per_s = 9.1\n', "refill fits", ""),
        (
            POOL + CLIENT * 2,
            "one part at a time for each client",
            "",
        ),
        (POOL + CLIENT + 'from = "2026"\n', "no quotes", ""),
        (POOL + CLIENT + "from = 2026-05-01\nuntil = 2026-04-01\n", "ends after it begins", ""),
        (PROVIDER + MODEL + 'pools = { openai-gtp4 = "tokens" }\n', "one of openai-gpt4", "'openai-gpt4'"),
        (PROVIDER + '[models.m]\ntargets = [{ to = "o/m", pools = { y = 1 } }]\n', "one of openai-gpt4", "[pools.y]"),
        (PROVIDER + MODEL + 'pools = { email = "token" }\n', '"tokens"', ""),
        (PROVIDER + MODEL + 'pools = { email = 0 }\n', "a whole number of units a call", ""),
        ('[workers.w]\nbase_url = "http://h"\npools = { emial = 1 }\n', "one of openai-gpt4", "'email'"),
        ('[workers.w]\nbase_url = "http://h"\nstated_pools = ["mail"]\n', "one of openai-gpt4", "'email'"),
    ],
)  # fmt: skip
def test_mistakes_say_what_would_be_right(problems: Callable[..., Any], text: str, expected: str, hint: str) -> None:
    (problem,) = problems(text)
    assert expected in problem.expected
    assert hint in problem.hint
    assert problem.line


def test_a_route_that_is_not_there_and_a_pool_that_is_not_stop_start_up(problems: Callable[..., Any]) -> None:
    policies = 'policies = ["identity", "access", "pool"]\n'
    (problem,) = problems(policies + "[policy.pool]\nroutes = { chta = { email = 1 } }\n")
    assert "chta" in str(problem)
    (problem,) = problems(policies + "[policy.pool]\nroutes = { chat = { emial = 1 } }\n")
    assert "'email'" in problem.hint
