"""gateway.toml names every setting with its default, and what is shipped as an example loads."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from gateway.config import Settings, effective, load
from gateway.config.policies import builtin_policies
from gateway.config.settings import DEFAULT_POLICIES
from gateway.policy import policy_class

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "gateway.toml").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
ENV = {
    "OPENAI_KEY_2": "sk-two",
    "GRANULATOR_KEY_2": "granulator-two",
    "ANTHROPIC_API_KEY": "sk-a",
    "AZURE_OPENAI_API_KEY": "az",
    "AZURE_OPENAI_ENDPOINT": "https://name.openai.azure.com/",
    "GEMINI_API_KEY": "g",
    "GRANULATOR_KEY": "w",
    "NEWSROOM_KEY": "newsroom-0123456789",
    "OPENAI_API_KEY": "sk-o",
    "SEARCH_KEY": "search-0123456789",
    "WEB_KEY": "web-0123456789-abc",
}


def switched_on(text: str, alternatives: bool = False) -> str:
    """The text with every setting that is switched off ("#" and no space) switched on."""
    text = re.sub(r"^##(?=\S)", "" if alternatives else "# ", text, flags=re.MULTILINE)
    return re.sub(r"^#(?=[^ #\n])", "", text, flags=re.MULTILINE)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's value, list or table holds."""
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, tuple, UnionType):
        found = [model_of(inner) for inner in get_args(annotation)]
        return next((model for model in found if model is not None), None)
    return None


def every_field(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    for name, field in model.model_fields.items():
        yield model, field.alias or name
        inner = model_of(field.annotation)
        if inner is not None:
            yield from every_field(inner)


def written(model: type[BaseModel], table: dict[str, Any]) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Every setting of a parsed file with the model that it belongs to."""
    known = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in table.items():
        yield model, key, value
        inner = model_of(known[key].annotation)
        if inner is None:
            continue
        is_table_of = get_origin(known[key].annotation) is dict
        parts = value.values() if is_table_of else value if isinstance(value, list) else [value]
        for part in parts:
            yield from written(inner, part if isinstance(part, dict) else {"to": part})


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return tomllib.loads(switched_on(TEXT, alternatives=True), parse_float=Decimal)


def test_every_setting_is_in_gateway_toml(everything):
    missing = set(every_field(Settings)) - {(model, key) for model, key, _ in written(Settings, everything)}
    assert not {f"{model.__name__}.{key}" for model, key in missing}


def test_what_is_switched_off_shows_the_default_where_there_is_one(everything):
    """Where the default is none or empty, an example stands instead; tiers and pools are built in and compared by
    loading."""
    wrong = []
    for model, key, value in written(Settings, {k: v for k, v in everything.items() if k not in ("tiers", "pools")}):
        field = next(field for name, field in model.model_fields.items() if (field.alias or name) == key)
        if field.is_required() or field.default_factory is not None or model_of(field.annotation) is not None:
            continue
        default = model.model_construct().model_dump(by_alias=True)[key]
        if default not in (None, (), "") and default != (tuple(value) if isinstance(value, list) else value):
            wrong.append(f"{model.__name__}.{key} = {value!r}, default {default!r}")
    assert not wrong


def test_gateway_toml_as_it_stands_changes_nothing(tmp_path):
    for name, text in (("shipped", TEXT), ("empty", "")):
        (tmp_path / f"{name}.toml").write_text(text)
    shipped, empty = (load(tmp_path / f"{name}.toml", env={}) for name in ("shipped", "empty"))
    assert {**dict(shipped.settings), "policy": {}} == dict(empty.settings)
    assert effective(shipped.settings, {}).demo


def test_gateway_toml_with_everything_switched_on_loads(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(switched_on(TEXT))
    loaded = load(path, env=ENV)
    examples = ("policy.downgrade.", "policy.batch.models")  # name models of yours
    assert not [warning for warning in loaded.warnings if not warning.startswith(examples)]
    assert set(loaded.settings.clients["search"].keys[0].model_fields_set) >= {"secret", "expires", "quota"}


def test_every_policy_stands_in_gateway_toml_with_all_its_settings(everything):
    for name in builtin_policies():
        cls = policy_class(name)
        defaults = {field.name: field.default for field in fields(cls) if field.init}
        table = everything["policy"][name]
        assert set(table) == set(defaults), name
        for key, value in table.items():
            given = tuple(value) if isinstance(value, list) else value
            if defaults[key] not in (None, MISSING):
                assert given == defaults[key], f"{name}.{key}"


def test_every_policy_of_the_list_has_its_reason_beside_it():
    block = re.search(r"^policies = \[\n(.*?)^\]", TEXT, re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = re.findall(r'^  "(\w+)",\s+# .{10,}$', block[1], re.MULTILINE)
    assert tuple(lines) == DEFAULT_POLICIES
    assert len(lines) == len(block[1].splitlines())


def test_every_setting_of_gateway_toml_is_explained():
    """Beside one of its appearances; tables that repeat others' settings need no second explanation."""
    explained, bare = {"policies"}, set()
    for line in TEXT.splitlines():
        found = re.match(r"#{0,2}([a-z_0-9]+) = (?:[^#\"]|\"[^\"]*\")*(#.*)?$", line)
        if found is not None:
            (explained if found[2] else bare).add(found[1])
    assert not bare - explained


def test_the_file_that_init_starts_from_is_this_one():
    assert files("gateway.config").joinpath("gateway.toml").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(path):
    loaded = load(path, env=ENV)
    live = effective(loaded.settings, ENV)
    assert loaded.warnings == ()
    assert live.providers or live.workers


def test_the_examples_that_were_asked_for_are_there():
    assert {path.stem for path in EXAMPLES} >= {
        "azure-openai", "gemini", "ollama", "vllm", "openai-and-anthropic", "workers",
    }  # fmt: skip


def test_examples_reach_what_they_say():
    azure = load(ROOT / "examples/azure-openai.toml", env=ENV).settings.providers["azure"]
    assert azure.base_url == "https://name.openai.azure.com/openai/v1"
    assert azure.auth_header == "api-key"
    ollama = load(ROOT / "examples/ollama.toml", env={}).settings
    assert ollama.providers["ollama"].base_url == "http://127.0.0.1:11434/v1"
    assert ollama.providers["ollama"].key == ""
    vllm = load(ROOT / "examples/vllm.toml", env={}).settings.models["qwen3-8b"].targets
    assert [(target.provider, target.upstream_model, target.weight) for target in vllm] == [
        ("vllm-a", "Qwen/Qwen3-8B", 2),
        ("vllm-b", "Qwen/Qwen3-8B", 1),
    ]
