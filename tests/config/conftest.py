"""A configuration written for one test, and what is wrong with it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.config import ConfigError, Loaded, Problem, load

Load = Callable[..., Loaded]
Problems = Callable[..., list[Problem]]

#: The shortest list of policies, so that these tests do not depend on the settings of others.
BRIEF = 'policies = ["identity", "access"]\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: no gateway.toml of anybody's is found by chance."""
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str, name: str = "gateway.toml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return written


@pytest.fixture
def loaded(write: Callable[[str], Path]) -> Load:
    """Loads a text, with the brief list of policies unless it has its own."""

    def of(text: str, env: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> Loaded:
        text = textwrap.dedent(text)
        return load(write(text if "policies =" in text else BRIEF + text), flags, env or {})

    return of


@pytest.fixture
def problems(loaded: Load) -> Problems:
    """What is wrong with a text. Fails where nothing is."""

    def of(text: str, env: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            loaded(text, env, flags)
        return list(caught.value.problems)

    return of
