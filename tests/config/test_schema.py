"""The JSON Schema for editors says of every shipped file what loading says: right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.config.display import json_schema

ROOT = Path(__file__).parents[2]
TYPES = {"string": str | date, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}

CHECKED = {"$ref", "anyOf", "type", "enum", "minimum", "properties", "required", "additionalProperties", "items"}
PASSED_OVER = {"$defs", "$schema", "title", "description", "default", "examples", "format", "writeOnly", "maximum",
               "exclusiveMinimum", "propertyNames"}  # fmt: skip
KEYWORDS = CHECKED | PASSED_OVER


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a value breaks of the keywords that our schema uses; anything else in it is an error of this test."""
    assert set(schema) <= KEYWORDS, set(schema) - KEYWORDS
    if "$ref" in schema:
        yield from faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    if "anyOf" in schema and all(list(faults(value, one, root, path)) for one in schema["anyOf"]):
        yield f"{path}: fits none"
    kind = schema.get("type", "null" if value is None else None)
    if kind in TYPES and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: not of type {kind}"
        return
    if kind == "null" and value is not None:
        yield f"{path}: not null"
    if ("enum" in schema and value not in schema["enum"]) or ("minimum" in schema and value < schema["minimum"]):
        yield f"{path}: {value!r} is not allowed"
    yield from _inside(value, schema, root, path)


def _inside(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list) and "items" in schema:
        for one in value:
            yield from faults(one, schema["items"], root, f"{path}[]")
    if not isinstance(value, dict) or schema.get("type") != "object":
        return
    yield from (f"{path}: lacks {name}" for name in schema.get("required", []) if name not in value)
    more = schema.get("additionalProperties", True)
    for name, one in value.items():
        below = schema.get("properties", {}).get(name, more)
        if below is False:
            yield f"{path}.{name}: unknown"
        elif isinstance(below, dict):
            yield from faults(one, below, root, f"{path}.{name}")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


@pytest.mark.parametrize(
    "path", [ROOT / "gateway.toml", *sorted((ROOT / "examples").glob("*.toml"))], ids=lambda path: path.stem
)
def test_the_schema_takes_what_loads(schema, path):
    text = re.sub(r"^##(?=\S)", "# ", path.read_text(), flags=re.MULTILINE)
    everything = tomllib.loads(re.sub(r"^#(?=[^ #\n])", "", text, flags=re.MULTILINE))
    assert list(faults(everything, schema, schema)) == []


@pytest.mark.parametrize(
    "text",
    [
        "sever = {}",
        "server = { listn = 1 }",
        "server = { watch = 1 }",
        "server = { max_headers = 0 }",
        "server = { protocol = 'x' }",
        "providers = { a = {} }",
        "models = { a = { targets = [1] } }",
        "models = { a = { targets = [{ to = 'a/b', wait = 1 }] } }",
        "prices = { a = { input = '1' } }",
    ],
)
def test_the_schema_refuses_what_does_not_load(schema, text):
    assert list(faults(tomllib.loads(text), schema, schema))
