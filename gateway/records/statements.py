"""Inserts of many rows at once: a hundred or so in one statement, so that SQLite runs without the interpreter's lock.

`executemany` would take and give back that lock for every row, and wait up to 5 ms for a busy event loop each time.
The texts are SQLAlchemy's own, compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

_MOST_VALUES = 4000  # of one statement; SQLite takes 32,766


class Bulk:
    """An insert into one table; `add` names the columns that a row with the same primary key is added to."""

    def __init__(self, table: Table, *, add: Sequence[str] = (), replace: bool = False) -> None:
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        if add:
            sums = {name: table.c[name] + statement.excluded[name] for name in add}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=sums)
        elif replace:
            others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
        text = str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))
        self._one = "(" + ", ".join("?" * len(table.columns)) + ")"
        self._before, marks, self._after = text.partition(self._one)
        assert marks
        self._most_rows = _MOST_VALUES // len(table.columns)
        self._texts: dict[int, str] = {}

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts all rows; each has a value for every column, in order."""
        for start in range(0, len(rows), self._most_rows):
            some = rows[start : start + self._most_rows]
            values = tuple(chain.from_iterable(some))
            connection.exec_driver_sql(self._text(len(some)), values)

    def _text(self, rows: int) -> str:
        text = self._texts.get(rows)
        if text is None:
            text = self._texts[rows] = self._before + ", ".join([self._one] * rows) + self._after
        return text
