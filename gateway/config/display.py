"""Settings for people and editors: every value with its origin, credentials masked; and the JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from gateway.config.effective import KEY_VARIABLES, NO_ADDRESS, effective
from gateway.config.problems import Path, dotted, sounds_secret
from gateway.config.settings import Settings
from gateway.config.values import plain_text

if TYPE_CHECKING:
    from gateway.config.load import Loaded

MASK = "********"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` is fit for JSON, `toml` for people."""

    key: str
    value: Any
    toml: str
    origin: str


def rows(loaded: Loaded, env: Mapping[str, str]) -> list[Row]:
    """Every setting of what the configuration comes to, in the order of the sections."""
    live = effective(loaded.settings, env)
    found = []
    for path, value in leaves(live.model_dump(by_alias=True)):
        key = dotted(path)
        shown = _masked(path, value, key in loaded.expanded)
        found.append(Row(key, _json(shown), _toml(shown), loaded.origins.get(key) or _implied(path, live)))
    return found


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Paths and values of all settings; a list is one, unless it holds tables. An empty table has none."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        for index, one in enumerate(value):
            yield from leaves(one, (*path, index))
    else:
        yield path, value


def _implied(path: Path, live: Settings) -> str:
    """Origin of what `effective` added."""
    if live.demo:
        return "no provider is configured"
    if path[0] == "providers" and path[-1] == "api_key" and path[1] in KEY_VARIABLES:
        return f"env:{KEY_VARIABLES[str(path[1])]}"
    return "implied" if path[0] in ("providers", "models", "workers") else "default"


def _masked(path: Path, value: Any, expanded: bool) -> Any:
    if not isinstance(value, SecretStr):
        return value.replace(NO_ADDRESS, "(fake provider)") if isinstance(value, str) else value
    # A fixed header or query is text like any other, unless its name or its source says that it is a credential.
    harmless = len(path) > 1 and path[-2] in ("headers", "query") and not sounds_secret(str(path[-1]))
    return value.get_secret_value() if harmless and not expanded else MASK


def _json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _toml(value: Any) -> str:
    return "(not set)" if value is None else plain_text(value)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of gateway.toml."""
    schema = Settings.model_json_schema(by_alias=True, mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "gateway.toml of Tidegate"
    return schema
