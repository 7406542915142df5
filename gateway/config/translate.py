"""From pydantic's errors to problems that name file, line, table, key, what was found and what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from gateway.config.layers import Layers, get
from gateway.config.problems import Path, Problem, dotted, sounds_secret, split
from gateway.config.settings import Settings
from gateway.config.source import Source
from gateway.config.values import plain_text

_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "bool_parsing": "true or false",
    "list_type": 'a list, such as ["a", "b"]',
    "sequence_type": 'a list, such as ["a", "b"]',
    "mapping_type": "a table",
    "bool_type": "true or false",
    "tuple_type": 'a list, such as ["a", "b"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Finds where a path was written: in the file, the environment or a flag."""

    source: Source | None
    layers: Layers

    def of(self, path: Path, *, value: bool = True) -> dict[str, Any]:
        """As fields of a Problem."""
        above = self.layers.origin(path)
        if above is not None:
            return {"where": above[0]}
        return {} if self.source is None else self.source.place(path, value=value)

    def problem(self, message: str, path: Path, *, value: bool = True, **fields: Any) -> Problem:
        """A problem of the setting at `path`, with the table and key that it is."""
        table, key = split(path)
        return Problem(message, table=table, key=key, **fields, **self.of(path, value=value))


def translate(error: Mapping[str, Any], data: Any, place: Place) -> Problem:
    """One entry of `ValidationError.errors()` about the merged `data`."""
    kind, context = error["type"], error.get("ctx", {})
    path: Path = tuple(part for part in error["loc"] if part != "[key]")
    if kind == "wrong" and context.get("key"):
        path = (*path, context["key"])
    if kind == "extra_forbidden":
        return _unknown(path, place)
    if kind == "missing":
        table = dotted(path[:-1])
        message = f"[{table}] lacks {path[-1]!r}"
        return place.problem(message, path, expected=_description(path), hint=_hint(path))
    about_name = error["loc"][-1:] == ("[key]",)
    found = "" if about_name else shown(path, data)
    return place.problem(
        f"{'name' if about_name else 'value'} of {dotted(path)} is not right",
        path,
        value=not about_name,
        found=found,
        expected=expected_of(kind, context, error["msg"]),
        hint=nearest_choice(kind, context, path, data),
    )


def _unknown(path: Path, place: Place) -> Problem:
    known = keys_of(path[:-1])
    table = dotted(path[:-1])
    name = str(path[-1])
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else _home_of(name, path[:-1])
    expected = "one of " + ", ".join(known) if known else ""
    where = f"in [{table}]" if table else "at the top level"
    return place.problem(f"unknown key {name!r} {where}", path, value=False, expected=expected, hint=hint)


def _home_of(name: str, table: Path) -> str:
    """Where a key that is unknown here belongs: a table inside this one, or one at the top level."""
    inner = [(*table, child) for child in keys_of(table)]
    listed = [(*path, 0) for path in inner]
    sections: list[Path] = [(section,) for section in Settings.model_fields]
    for path in (*inner, *listed, *sections):
        if name in keys_of(path):
            end = "]]" if isinstance(path[-1], int) else "]"
            named = dotted(part for part in path if not isinstance(part, int))
            return f"{name!r} belongs in {'[[' if end == ']]' else '['}{named}{end}"
    return ""


def expected_of(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What would be right instead, in words that know nothing of Python; the three are pydantic's."""
    if kind == "wrong":
        return str(context["expected"])
    if kind == "literal_error":
        return str(context["expected"]).replace("'", '"')
    bounds = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below",
              "less_than_equal": "at most"}  # fmt: skip
    if kind in bounds:
        limit = next(iter(context.values()))
        return f"a number {bounds[kind]} {limit}"
    if kind == "is_instance_of" and context.get("class") in ("Sequence", "tuple", "list"):
        kind = "tuple_type"
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").replace("'", '"')
    return _EXPECTED.get(kind, text[:1].lower() + text[1:])


def nearest_choice(kind: str, context: Mapping[str, Any], path: Path, data: Any) -> str:
    """A "did you mean" for a value that has to be one of a few."""
    if kind != "literal_error":
        return ""
    choices = [choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
    try:
        near = get_close_matches(str(get(data, path)), choices, n=1, cutoff=0.5)
    except (LookupError, TypeError):
        return ""
    return f'did you mean "{near[0]}"?' if near else ""


def _description(path: Path) -> str:
    if path[-1] == "kind":
        return '"openai", "anthropic" or "http"'
    if path[-1] == "targets":
        return 'a list of targets: targets = ["openai/gpt-4o"]'
    return ""


def _hint(path: Path) -> str:
    return f"add a line {path[-1]} = ..."


#: User and password in a URL.
_USERINFO = re.compile(r"//[^/@\s\"']+@")


def shown(path: Path, data: Any) -> str:
    """The value at a path as TOML, short, and hidden where it may be a credential."""
    try:
        value = get(data, path)
    except (LookupError, TypeError):
        return ""
    if any(isinstance(part, str) and (sounds_secret(part) or part in ("headers", "query")) for part in path[-2:]):
        return f"{_sort(value)} (hidden)"
    text = _USERINFO.sub("//***@", plain_text(value))
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({_sort(value)})"


def _sort(value: Any) -> str:
    for types, name in (
        (bool, "true or false"),
        (str, "text"),
        (int, "whole number"),
        (Decimal, "fraction"),
        (list, "list"),
        (dict, "table"),
        (datetime | date | time, "date"),
    ):
        if isinstance(value, types):
            return name
    return "value"


def keys_of(path: Path) -> list[str]:
    """The keys that the table at this path may hold, as TOML spells them; none where any name will do."""
    annotation: Any = Settings
    for part in path:
        model = _model(annotation)
        if model is not None:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            if part not in fields:
                return []
            annotation = fields[str(part)].annotation
            continue
        arguments = get_args(_plain(annotation))
        if not arguments:
            return []
        annotation = arguments[1] if get_origin(_plain(annotation)) is dict else arguments[0]
    model = _model(annotation)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _plain(annotation: Any) -> Any:
    """Without Annotated and None."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, UnionType):
        return _plain(next(inner for inner in get_args(annotation) if inner is not type(None)))
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    plain = _plain(annotation)
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None
