"""ConfigError: everything that is wrong with a configuration, each with its place and what would be right."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_WORD = re.compile(r"key|secret|token|passw|pepper|hash|auth|cookie|credential", re.IGNORECASE)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_BARE_VALUE = re.compile(r"(\s*[^=#]+?\s*=\s*)([^\s\"'\[{#][^#]*?)(\s*(?:#.*)?)")
_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]+)?")
_TOKENS_OF_OURS = re.compile(r"tokens", re.IGNORECASE)  # counts of tokens are no secrets


def dotted(path: Iterable[str | int]) -> str:
    """A path as TOML writes it: models."gpt-4.1".targets[0]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text += f".{name}" if text else name
    return text


def split(path: Path) -> tuple[str, str]:
    """Table and key of a path; entries of a list belong to their key."""
    cut = len(path)
    while cut > 1 and isinstance(path[cut - 1], int):
        cut -= 1
    cut = max(cut - 1, 0)
    return dotted(path[:cut]), dotted(path[cut:])


def sounds_secret(name: str) -> bool:
    """Whether a key of this name may hold a credential, so that its value must not be shown."""
    return _SECRET_WORD.search(_TOKENS_OF_OURS.sub("", name)) is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. Lines and columns count from 1, 0 where there is none.

    `where` is the file's name, "env:NAME" or "flag:--x"; `found` and `expected` may be empty.
    """

    message: str
    where: str = ""
    line: int = 0
    column: int = 0
    width: int = 1
    table: str = ""
    key: str = ""
    found: str = ""
    expected: str = ""
    hint: str = ""
    source: str = ""  # the line itself, credentials blacked out

    @property
    def place(self) -> str:
        """FILE:LINE:COLUMN, as far as they are known."""
        return ":".join([self.where, *(str(n) for n in (self.line, self.column) if n)]) if self.where else ""

    def as_json(self) -> Mapping[str, Any]:
        """For --json."""
        return asdict(self)


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds all that was found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line == 0, problem.line, problem.column)))
        super().__init__(self.render())

    def render(self, color: bool = False) -> str:
        """All problems for people, like a compiler's; `color` with ANSI codes for a terminal."""
        blocks = [_block(problem, color) for problem in self.problems]
        count = len(blocks)
        blocks.append(
            f"{count} problem{'s' if count > 1 else ''} in the configuration; nothing was started or changed."
        )
        return "\n\n".join(blocks)

    def as_json(self) -> list[Mapping[str, Any]]:
        """For --json."""
        return [problem.as_json() for problem in self.problems]


def _block(problem: Problem, color: bool) -> str:
    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if color else text

    gutter = " " * max(len(str(problem.line)), 1)
    lines = [paint("1;31", "error") + paint("1", f": {problem.message}")]
    if problem.place:
        lines.append(f"{gutter}{paint('1;34', '-->')} {problem.place}")
    bar = paint("1;34", "|")
    if problem.source:
        shown = problem.source.replace("\t", " ")
        marker = " " * (problem.column - 1) + paint("1;31", "^" * max(1, problem.width))
        lines += [f"{gutter} {bar}", f"{paint('1;34', str(problem.line))} {bar} {shown}", f"{gutter} {bar} {marker}"]
    notes = [("in", problem.table and f"[{problem.table}]"), ("found", problem.found), ("expected", problem.expected)]
    notes.append(("help", problem.hint))
    lines += [f"{gutter} {paint('1;34', '=')} {paint('1', word)}: {text}" for word, text in notes if text]
    return "\n".join(lines)


def blacked_out(line: str) -> str:
    """A source line that may be shown: where it speaks of a credential, its strings are hidden (but not ${NAME})."""
    if not sounds_secret(line) and "sk-" not in line:
        return line

    def hide(found: re.Match[str]) -> str:
        text = found[0]
        if re.fullmatch(r"[\"']\$\{\w+\}[\"']", text) or len(text) < 3:
            return text
        return text[0] + "*" * (len(text) - 2) + text[-1]

    bare = _BARE_VALUE.fullmatch(line)
    if bare is not None and bare[2] not in ("true", "false") and not _NUMBER.fullmatch(bare[2]):
        return bare[1] + "*" * len(bare[2]) + bare[3]  # a credential whose quotes were forgotten
    return _QUOTED.sub(hide, line)


def show_problems(error: ConfigError, as_json: bool = False) -> None:
    """On standard error, coloured on a terminal (unless NO_COLOR is set); as JSON on standard output."""
    if as_json:
        print(json.dumps({"ok": False, "problems": error.as_json()}, indent=2))
        return
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(error.render(color), file=sys.stderr)
