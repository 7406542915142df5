"""Tables and single records as people read them: plain columns, nothing broken in the middle of a word."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import typer

_INSTANTS = ("created", "expires", "revoked", "started")
_GAP = 2


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Prints rows under their columns; those in `numbers` stand to the right. A column without any value is left out;
    on a terminal that is too narrow so are those in `spare`, in that order, and it says which."""
    filled = [index for index in range(len(columns)) if any(row[index] for row in rows)] or [0]
    left_out = _narrowed(columns, rows, filled, spare)
    widths = {index: _width(columns, rows, index) for index in filled}
    right = {index for index in filled if columns[index] in numbers}
    typer.echo(_bold(_line([_title(name) for name in columns], widths, right)))
    for row in rows:
        typer.echo(_line(row, widths, right))
    if left_out:
        typer.echo(f"({title.lower()}: not shown for want of room: {', '.join(left_out)}; --json has everything)")


def show(rows: list[dict[str, Any]], as_json: bool, title: str, columns: Sequence[str]) -> None:
    """Rows as JSON, or their named columns as a table; instants to the minute."""
    if as_json:
        typer.echo(json.dumps(rows))
    elif not rows:
        typer.echo(f"{title}: none")
    else:
        table(title, columns, [[cell(row, name) for name in columns] for row in rows], spare=("source", "created"))


def cell(row: Mapping[str, Any], name: str) -> str:
    """A value in words; "" where there is none."""
    value = row.get(name)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    text = "" if value is None else str(value)
    return f"{text[:10]} {text[11:16]}Z" if name in _INSTANTS and text else text


def record(title: str, row: Mapping[str, Any]) -> None:
    """Prints one record, a line each for what has a value."""
    typer.echo(_bold(title))
    shown: list[tuple[str, Any]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            shown += [(f"{_title(name)}: {key}", inner) for key, inner in value.items()]
        elif value not in (None, "", 0, "0", False):
            shown.append((_title(name), value))
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        typer.echo(f"  {name:<{width}}  {value}")


def _narrowed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], filled: list[int], spare: Sequence[str]
) -> list[str]:
    """Takes out of `filled` what does not fit on the terminal; gives the names."""
    if not sys.stdout.isatty():
        return []
    room, left_out = shutil.get_terminal_size().columns, []
    for name in spare:
        if sum(_width(columns, rows, index) + _GAP for index in filled) - _GAP <= room:
            break
        if name in columns and columns.index(name) in filled:
            filled.remove(columns.index(name))
            left_out.append(_title(name))
    return left_out


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], index: int) -> int:
    return max(len(columns[index]), *(len(row[index]) for row in rows), 1)


def _line(cells: Sequence[str], widths: Mapping[int, int], right: Collection[int]) -> str:
    parts = [
        cells[index].rjust(width) if index in right else cells[index].ljust(width) for index, width in widths.items()
    ]
    return (" " * _GAP).join(parts).rstrip()


def _title(name: str) -> str:
    return name.replace("_", " ")


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
