"""${VAR} and ${VAR:-default} in the strings of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from gateway.config.problems import Path, Problem, split
from gateway.config.source import Source

_REFERENCE = re.compile(r"\$(\$?)\{([^}]*)\}")
_OPEN = re.compile(r"(?<!\$)\$\{[^}]*$")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Expansion:
    """Replaces references throughout a parsed file; `expanded` are the paths that had any."""

    source: Source
    env: Mapping[str, str]
    patient: bool = False  # a variable that is not set stays as it is written
    expanded: set[Path] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def of(self, value: Any, path: Path = ()) -> Any:
        """A copy of `value` with every reference replaced."""
        if isinstance(value, dict):
            return {key: self.of(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(value, path)
        return value

    def _text(self, text: str, path: Path) -> str:
        def replaced(found: re.Match[str]) -> str:
            if found[1]:  # $${X} is the text ${X}
                return found[0][1:]
            self.expanded.add(path)
            name, has_default, default = found[2].partition(":-")
            if not _NAME.fullmatch(name):
                self._lacking(
                    path,
                    f"${{{found[2]}}} is not a reference to an environment variable",
                    "write ${NAME} or ${NAME:-default}; $${...} is the text itself",
                )
                return ""
            value = self.env.get(name, "")
            if value:
                return value
            if not has_default and self.patient:
                return found[0]
            if not has_default:
                self._unset(path, name)
            elif "${" in default:
                self._lacking(path, f"${{{found[2]}}} has a reference in its default", "write one reference, or set it")
            return default

        if _OPEN.search(text) is not None:
            self._lacking(path, "a reference ${ without its end }", "write ${NAME}; $${ is the text ${ itself")
            return text
        return _REFERENCE.sub(replaced, text)

    def _unset(self, path: Path, name: str) -> None:
        state = "empty" if name in self.env else "not set"
        near = get_close_matches(name, [other for other in self.env if other != name], n=1, cutoff=0.8)
        hint = f"export {name}=..., or write ${{{name}:-default}} for a value to fall back on"
        if near:
            hint = f"did you mean ${{{near[0]}}}? Otherwise {hint}"
        self._lacking(path, f"environment variable {name} is {state}", hint)

    def _lacking(self, path: Path, message: str, hint: str) -> None:
        table, key = split(path)
        place = self.source.place(path, value=True)
        self.problems.append(Problem(message, table=table, key=key, hint=hint, **place))
