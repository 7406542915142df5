"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


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
