"""load: finds the configuration, reads it, and gives settings or a ConfigError, never half of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from gateway.config.check import cross_check
from gateway.config.display import leaves
from gateway.config.effective import effective
from gateway.config.expand import Expansion
from gateway.config.files import resolved, with_secrets
from gateway.config.layers import Layers, get, has, put
from gateway.config.policies import check_policies, policy_remarks
from gateway.config.problems import ConfigError, Path, Problem, dotted
from gateway.config.remarks import remarks
from gateway.config.settings import Settings
from gateway.config.source import read
from gateway.config.translate import Place, translate

FILE_NAME = "gateway.toml"
PATH_VARIABLE = "TIDEGATE_CONFIG"
_NAMED = ("providers", "models", "workers", "tiers", "pools")


@dataclass(frozen=True)
class Loaded:
    """A configuration that passed every check.

    `path` is None where there is no file. `warnings` are sentences for people: what was read otherwise than written,
    what looks unintended. `flags` are those given to `load`. `expanded` are dotted keys whose text came from ${...}.
    """

    settings: Settings
    path: FilePath | None
    source_text: str
    flags: Mapping[str, str]
    warnings: tuple[str, ...]
    expanded: frozenset[str]
    place: Place

    @cached_property
    def origins(self) -> Mapping[str, str]:
        """Dotted key of every setting to "default", "file:LINE", "env:NAME" or "flag:--x"."""
        dumped = self.settings.model_dump(by_alias=True)
        return {dotted(path): self._origin(path) for path, _ in leaves(dumped)}

    def _origin(self, path: Path) -> str:
        above = self.place.layers.origin(path)
        if above is not None:
            return above[0]
        source = self.place.source
        while source is not None and path:
            if path in source.marks and (isinstance(path[-1], int) or has(self.place.layers.data, path)):
                return f"file:{source.line_of(path)}" if not _is_table(self.place.layers.data, path) else "default"
            path = path[:-1]
        return "default"


def load(
    path: FilePath | None = None,
    flags: Mapping[str, str] | None = None,
    env: Mapping[str, str] = os.environ,
    *,
    patient: bool = False,
) -> Loaded:
    """Settings from the file at `path`, else at $TIDEGATE_CONFIG, else ./gateway.toml, else of no file at all.

    A flag ({"server.listen": "0.0.0.0:80"}) counts over the environment (TIDEGATE__SERVER__LISTEN), that over the
    file, that over the default. Raises ConfigError with everything that is wrong. `patient`: for who uses no provider,
    so references to variables that only the server's environment has stay as they are written.
    """
    found = find(path, env)
    source = None if found is None else read(found)
    layers = Layers({} if source is None else source.parse())
    problems: list[Problem] = []
    expanded: set[Path] = set()
    if source is not None:
        expansion = Expansion(source, env, patient)
        layers.data = expansion.of(layers.data)
        problems, expanded = expansion.problems, expansion.expanded
    layers.add_environment(env)
    layers.add_flags(flags or {})
    place = Place(source, layers)
    problems += layers.problems
    settings = _validated(layers, place, problems, env)
    folder = FilePath.cwd() if found is None else found.absolute().parent
    settings = resolved(settings, layers, folder)
    settings, warnings = with_secrets(settings, place, problems)
    live = effective(settings, env)
    problems += cross_check(settings, live, place)
    problems += check_policies(settings, layers.data, place)
    if problems:
        raise ConfigError(problems)
    return Loaded(
        settings,
        found,
        "" if source is None else source.text,
        dict(flags or {}),
        (*warnings, *remarks(settings, live, layers.data), *policy_remarks(settings, live)),
        frozenset(dotted(where) for where in expanded),
        place,
    )


def find(path: FilePath | None, env: Mapping[str, str]) -> FilePath | None:
    """The configuration file to use, None for none. Raises ConfigError where one is named and not there."""
    named = path if path is not None else FilePath(env[PATH_VARIABLE]) if env.get(PATH_VARIABLE) else None
    if named is None:
        return FilePath(FILE_NAME) if FilePath(FILE_NAME).is_file() else None
    if not named.is_file():
        origin = "--config" if path is not None else PATH_VARIABLE
        hint = "tidegate init writes a commented one" if not named.exists() else "name the file itself"
        raise ConfigError([Problem(f"there is no file {str(named)!r}, which {origin} names", origin, hint=hint)])
    return named


def _validated(layers: Layers, place: Place, problems: list[Problem], env: Mapping[str, str]) -> Settings:
    """Raises ConfigError, together with the problems found so far."""
    for _ in range(2):
        try:
            return Settings.model_validate(layers.data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            retry = [where for where in _texts(errors, layers) if get(layers.data, where) != layers.texts[where]]
            if not retry:
                break
            for where in retry:  # a number or date given for text, as in TIDEGATE__..._API_KEY=123
                put(layers.data, where, layers.texts[where])
    unset = {(problem.table, problem.key) for problem in problems}
    found = [translate(error, layers.data, place) for error in errors]
    found = [problem for problem in found if (problem.table, problem.key) not in unset]
    more = [*_policy_problems(layers.data, errors, place), *_between(layers, errors, place, env)]
    raise ConfigError([*problems, *found, *more])


def _between(layers: Layers, errors: list[Any], place: Place, env: Mapping[str, str]) -> list[Problem]:
    """What is wrong between tables, where single settings are wrong as well: looked at without those. None where whole
    tables would have to go, since others may name them."""
    data = deepcopy(layers.data)
    for error in errors:
        path = _without_entries(tuple(part for part in error["loc"] if part != "[key]"))
        if error["type"] == "missing" or len(path) < 2 or (len(path) == 2 and path[0] in _NAMED):
            return []
        if has(data, path):
            del get(data, path[:-1])[path[-1]]
    try:
        settings = Settings.model_validate(data)
    except ValidationError:
        return []
    return cross_check(settings, effective(settings, env), place)


def _without_entries(path: Path) -> Path:
    """Up to the first list: its other entries would move up."""
    numbers = [index for index, part in enumerate(path) if isinstance(part, int)]
    return path[: numbers[0]] if numbers else path


def _policy_problems(data: dict[str, Any], errors: list[Any], place: Place) -> list[Problem]:
    """What is wrong with the policies, where the rest is wrong as well: better told at once than at the next try."""
    parts = ("policies", "policy")
    if any(error["loc"][:1] in [(part,) for part in parts] for error in errors):
        return []
    return check_policies(Settings.model_validate({part: data[part] for part in parts if part in data}), data, place)


def _texts(errors: list[Any], layers: Layers) -> Iterator[Path]:
    for error in errors:
        if error["type"] == "string_type" and error["loc"] in layers.texts:
            yield error["loc"]


def _is_table(data: Any, path: Path) -> bool:
    return isinstance(get(data, path), dict)
