"""Tables on a terminal."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import typer

_INSTANTS = ("created", "expires", "revoked")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> None:
    """Prints rows under their columns; those in `numbers` stand to the right. Wide where the output is no terminal."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column.replace("_", " "), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(shown)


def show(rows: list[dict[str, Any]], as_json: bool, title: str, columns: Sequence[str]) -> None:
    """Rows as JSON, or their named columns as a table; instants to the minute."""
    if as_json:
        typer.echo(json.dumps(rows))
    elif not rows:
        typer.echo(f"{title}: none")
    else:
        table(title, columns, [[_cell(row, name) for name in columns] for row in rows])


def _cell(row: dict[str, Any], name: str) -> str:
    value = str(row.get(name) or "")
    return f"{value[:10]} {value[11:16]}Z" if name in _INSTANTS and value else value
