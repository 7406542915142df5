"""Whatever stands in a file or in the environment: settings, or a ConfigError with places; never another error."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.config import ConfigError, Loaded, Settings, load
from gateway.config.display import rows
from gateway.config.values import plain_text

WORDS = ("openai", "http", "a", "a/x", "*", "", "${X}", "${X:-y}", "${", "600/minute", "32 MiB", "http://h/v1", "../x",
         "127.0.0.1:1", "0.1", "identity", "access", "sk-hush", "observe", "standard", "é\n\"'#")  # fmt: skip


def names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


INNER = sorted(
    {
        "kind", "base_url", "api_key", "api_key_file", "headers", "query", "timeouts", "connect_s", "targets", "to",
        "weight", "aliases", "keys", "secret", "hash", "expires", "quota", "requests", "budget", "day_usd", "hard",
        "tier", "org", "models", "listen", "workers", "body_limit", "data_dir", "input", "image", "units", "mode", "a",
        "b c", "priority", "rate_multiplier", "time_zone", "trusted_proxies", "pass_headers", "trust_env",
    }
)  # fmt: skip
SECTIONS = [*names(Settings), "sever"]

scalars = (
    st.sampled_from(WORDS)
    | st.integers(-3, 10**10)
    | st.booleans()
    | st.sampled_from([Decimal("0.5"), Decimal("-1"), Decimal("1e-13"), Decimal("nan"), Decimal("inf")])
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
    max_leaves=10,
)
documents = st.dictionaries(
    st.sampled_from(SECTIONS), values | st.dictionaries(st.sampled_from(INNER), values, max_size=3), max_size=4
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain_text(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, Decimal):
        text = str(value).lower().replace("infinity", "inf")
        return text if text in ("nan", "inf") or any(c in text for c in ".e") else f"{text}.0"
    return plain_text(value)


def settled(path: Path, env: dict[str, str]) -> Loaded | ConfigError:
    try:
        return load(path, env=env)
    except ConfigError as error:
        return error


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "gateway.toml"


@settings(max_examples=150, deadline=None)
@given(documents, st.dictionaries(st.sampled_from(["X", "TIDEGATE__SERVER__LISTEN", "TIDEGATE__CLIENTS__A__TIER",
                                                   "TIDEGATE__PROVIDERS", "TIDEGATE__", "TIDEGATE__SERVER__WATCH"]),
                                  st.sampled_from(WORDS), max_size=2))  # fmt: skip
def test_every_file_gives_settings_or_problems_with_places(place, document, env):
    document = {"policies": ["identity", "access"], **document}
    text = "\n".join(f"{key} = {toml(value)}" for key, value in document.items())
    place.write_text(text, encoding="utf-8")
    result = settled(place, env)
    event("settings" if isinstance(result, Loaded) else "problems")
    if isinstance(result, Loaded):
        assert len(result.origins) > 30
        assert rows(result, env)
        return
    assert result.problems
    assert "problem" in result.render(color=True)
    for problem in result.as_json():
        assert problem["message"]
        assert problem["where"], problem
