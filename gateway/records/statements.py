"""Inserts of many rows at once: up to 64 in one statement, so that SQLite works on without the interpreter's lock.

`executemany` would take and give back that lock for every row, and wait up to 5 ms for a busy event loop each time.
The texts are SQLAlchemy's own, compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

_SIZES = (64, 16, 4, 1)


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
        one = "(" + ", ".join("?" * len(table.columns)) + ")"
        before, marks, after = text.partition(one)
        assert marks
        self._texts = {size: before + ", ".join([one] * size) + after for size in _SIZES}

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts all rows; each has a value for every column, in order."""
        start = 0
        for size in _SIZES:
            text = self._texts[size]
            while len(rows) - start >= size:
                values = tuple(value for row in rows[start : start + size] for value in row)
                connection.exec_driver_sql(text, values)
                start += size
