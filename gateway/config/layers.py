"""Layers: the file's values, under those of the environment, under those of flags; and where each came from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.config.problems import Path, Problem

PREFIX = "TIDEGATE__"
#: Settings that have a flag of their own; all others are given by --set.
FLAGS = {
    f"server.{name}": f"--{name.replace('_', '-')}"
    for name in ("listen", "data_dir", "protocol", "log_format", "log_level", "watch")
}


@dataclass(slots=True)
class Layers:
    """`data` is the merged tables; `origins` says of each path set above the file which variable or flag set it."""

    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)  # as written, for settings that turn out to be strings
    problems: list[Problem] = field(default_factory=list)

    def add_environment(self, env: Mapping[str, str]) -> None:
        """TIDEGATE__SECTION__KEY=value, deeper with more parts; values as in TOML, or plain text."""
        for name in sorted(env):
            if name.startswith(PREFIX):
                parts = name.removeprefix(PREFIX).split("__")
                self._set(tuple(parts), env[name], f"env:{name}", fold=True)

    def add_flags(self, flags: Mapping[str, str]) -> None:
        """Dotted key to value, as the command line has it: {"server.listen": "0.0.0.0:80"}."""
        for key, value in flags.items():
            try:
                path = _split(key)
            except tomllib.TOMLDecodeError:
                self.problems.append(Problem(f"{key!r} names no setting", "flag:--set", expected="SECTION.KEY"))
                continue
            self._set(path, value, f"flag:{FLAGS.get(key, f'--set {key}')}", fold=False)

    def _set(self, path: tuple[str, ...], text: str, origin: str, *, fold: bool) -> None:
        if not all(path):
            self.problems.append(Problem("names no setting", origin, expected=f"{PREFIX}SECTION__KEY"))
            return
        table = self.data
        known: list[str] = []
        for part in path[:-1]:
            name = _matching(table, part) if fold else part
            known.append(name)
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                self.problems.append(
                    Problem(f"{'.'.join(known)} is not a table, so nothing can be set in it", origin, found=repr(inner))
                )
                return
            table = inner
        last = _matching(table, path[-1]) if fold else path[-1]
        table[last] = _typed(text)
        full: Path = (*known, last)
        self.origins[full] = origin
        self.texts[full] = text

    def origin(self, path: Path) -> tuple[str, Path] | None:
        """What set this path or a table around it, above the file; with the path that was set."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]], path[:length]
        return None


def _matching(table: dict[str, Any], part: str) -> str:
    """The key that an upper-case name with underscores stands for: GPT_4O is "gpt-4o" where that is in the table."""
    wanted = part.lower()
    for name in table:
        if name.lower().replace("-", "_").replace(".", "_") == wanted:
            return name
    return wanted


def _typed(text: str) -> Any:
    if "\n" in text:
        return text
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"]


def _split(key: str) -> tuple[str, ...]:
    """Parts of a dotted key, quotes as in TOML."""
    if '"' not in key and "'" not in key:
        return tuple(key.split("."))
    value: Any = tomllib.loads(f"{key} = 0")
    parts: list[str] = []
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        parts.append(name)
    return tuple(parts)


def put(data: dict[str, Any], path: Path, value: Any) -> None:
    """Replaces one value in nested tables and lists."""
    inner: Any = data
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value


def get(data: Any, path: Path) -> Any:
    """One value of nested tables and lists. Raises LookupError."""
    for part in path:
        if not isinstance(data, dict | list):
            raise LookupError(path)
        data = data[part]  # type: ignore[index]  # a str for tables, an int for lists; else LookupError or TypeError
    return data


def has(data: Any, path: Path) -> bool:
    """Whether there is a value at this path."""
    try:
        get(data, path)
    except (LookupError, TypeError):
        return False
    return True
