"""Source: a TOML text with the place of every key and value in it, which tomllib does not tell."""

from __future__ import annotations

import re
import tomllib
from ast import literal_eval
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from gateway.config.problems import ConfigError, Path, Problem, blacked_out, dotted, sounds_secret

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)  # a multi-line string may end in up to two quotes more
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_AT = re.compile(r"\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TUPLE = re.compile(r"\((?:'[^']*'(?:, )?|\"[^\"]*\"(?:, )?)+,?\)")
_UNQUOTED = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=\s*([^\s\"'\[{#][^\"'#]*?)\s*(?:#.*)?")


@dataclass(frozen=True, slots=True)
class Mark:
    """Offsets in the text: where a key stands and where its value begins and ends."""

    key: int
    key_end: int
    value: int
    value_end: int


class Source:
    """One configuration file. `name` is what messages call it."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    def parse(self) -> dict[str, Any]:
        """The tables as tomllib reads them, fractions as exact decimals. Raises ConfigError."""
        try:
            return tomllib.loads(self.text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([self._syntax(str(error))]) from None
        except RecursionError:
            raise ConfigError([Problem("the file is nested too deeply to read", self.name)]) from None

    @cached_property
    def marks(self) -> dict[Path, Mark]:
        """Of a text that parses: path of every table, key and list entry to its place."""
        return _Scanner(self.text).scan()

    @cached_property
    def _starts(self) -> list[int]:
        """Offset of the first character of each line."""
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def line_of(self, path: Path) -> int:
        """Line of a key, or of the nearest table around it; 0 where none is in this file."""
        mark = self._nearest(path)
        return 0 if mark is None else bisect_right(self._starts, mark.key)

    def place(self, path: Path, *, value: bool) -> dict[str, Any]:
        """Line, column, width and source line of a key (or of its value), as fields of a Problem."""
        mark = self.marks.get(path)
        if mark is None:
            mark, value = self._nearest(path), False
        if mark is None:
            return {"where": self.name}
        start, end = (mark.value, mark.value_end) if value else (mark.key, mark.key_end)
        return self._spot(start, end)

    def _nearest(self, path: Path) -> Mark | None:
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path)

    def _spot(self, start: int, end: int) -> dict[str, Any]:
        line = bisect_right(self._starts, start)
        begin = self._starts[line - 1]
        stop = self.text.find("\n", begin)
        stop = len(self.text) if stop < 0 else stop
        return {
            "where": self.name,
            "line": line,
            "column": start - begin + 1,
            "width": max(1, min(end, stop) - start),
            "source": blacked_out(self.text[begin:stop].rstrip("\r")),
        }

    def _syntax(self, message: str) -> Problem:
        found = _AT.search(message)
        text = _in_toml(message[: found.start()].strip() if found else message)
        hint = _syntax_hint(text)
        if found is None or found[1] is None:
            last = len(self.text.rstrip())
            return Problem(f"not valid TOML: {text} (the file ends too early)", hint=hint, **self._spot(last, last + 1))
        start = self._starts[int(found[1]) - 1] + int(found[2]) - 1
        line = self.text[self._starts[int(found[1]) - 1] :].partition("\n")[0]
        unquoted = _UNQUOTED.fullmatch(line)
        if unquoted is not None and ("newline" in text or text.startswith("Invalid value")):
            value = "..." if sounds_secret(line) else unquoted[2]
            hint = f'text needs quotes: {unquoted[1]} = "{value}"'
        return Problem(f"not valid TOML: {text}", hint=hint, **self._spot(start, start + 1))


def _in_toml(message: str) -> str:
    """Tables as TOML writes them, not as Python does: [server], not ('server',)."""
    return _TUPLE.sub(lambda found: f"[{dotted(literal_eval(found[0]))}]", message)


def _syntax_hint(message: str) -> str:
    if message.startswith(("Cannot declare", "Cannot overwrite", "Cannot mutate", "Duplicate")):
        return "a table or key may stand only once: put both parts together, or give the second another name"
    if message.startswith("Invalid value"):
        return 'text needs quotes: key = "value"'
    if "Expected '='" in message or message.startswith("Invalid statement"):
        return "a line is either [table] or key = value; a name with other characters than A-Z a-z 0-9 _ - needs quotes"
    return ""


def read(path: FilePath) -> Source:
    """The file's text. Raises ConfigError where it can't be read."""
    try:
        return Source(path.read_text(encoding="utf-8-sig").replace("\r\n", "\n"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"not UTF-8 text: {error.reason} at byte {error.start}", str(path))]) from None
    except OSError as error:
        raise ConfigError([Problem(f"can't be read: {error.strerror}", str(path))]) from None


class _Scanner:
    """Walks over a valid TOML text once and notes where things are."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._marks: dict[Path, Mark] = {}
        self._lists: dict[Path, int] = {}  # arrays of tables: entries so far

    def scan(self) -> dict[Path, Mark]:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._marks

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        self._at = self._at if found is None else found.end()

    def _header(self) -> Path:
        start = self._at
        listed = self._text.startswith("[[", start)
        self._at += 2 if listed else 1
        path: Path = ()
        *outer, last = self._key()
        for name in outer:
            path = self._entry((*path, name))
        path = (*path, last)
        self._skip(_SPACE)
        self._at += 2 if listed else 1
        if listed:
            self._note(path, start, self._at, start, self._at)
            self._lists[path] = self._lists.get(path, -1) + 1
            path = (*path, self._lists[path])
        self._note(path, start, self._at, start, self._at)
        return path

    def _entry(self, path: Path) -> Path:
        return (*path, self._lists[path]) if path in self._lists else path

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            found = _BARE.match(self._text, self._at) or _STRING.match(self._text, self._at)
            if found is None:
                raise ValueError(f"no key at offset {self._at}")  # never for a text that tomllib accepted
            self._at = found.end()
            quoted = found[0][0] in "\"'"
            parts.append(next(iter(tomllib.loads(found[0] + "=0"))) if quoted else found[0])
            end = self._at
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                self._at = end
                return parts
            self._at += 1

    def _pair(self, table: Path) -> None:
        start = self._at
        names = self._key()
        end = self._at
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        path = (*table, *names)
        value, value_end = self._value(path)
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], start, end, value, value_end)

    def _note(self, path: Path, start: int, end: int, value: int, value_end: int) -> None:
        self._marks.setdefault(path, Mark(start, end, value, value_end))

    def _value(self, path: Path) -> tuple[int, int]:
        start = self._at
        opening = self._text[start]
        if opening in "[{":
            self._at += 1
            self._inside(path, "]" if opening == "[" else "}")
            return start, self._at
        found = _STRING.match(self._text, start) or _SCALAR.match(self._text, start)
        if found is None:
            raise ValueError(f"no value at offset {start}")  # never for a text that tomllib accepted
        self._at = start + len(found[0].rstrip())
        return start, self._at

    def _inside(self, path: Path, closing: str) -> None:
        index = 0
        while True:
            self._skip(_BLANK)
            if self._text[self._at] == closing:
                self._at += 1
                return
            if closing == "]":
                value, end = self._value((*path, index))
                self._note((*path, index), value, end, value, end)
                index += 1
            else:
                self._pair(path)
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
