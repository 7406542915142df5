"""Inserts of many rows at once: a hundred or so in one statement, so that SQLite runs without the interpreter's lock.

`executemany` would take and give back that lock for every row, and wait up to 5 ms for a busy event loop each time.
The texts are SQLAlchemy's own, compiled once; they go to the driver directly, since SQLAlchemy's way there costs as
much as inserting a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

# What the driver has no adapter for costs it an exception each time it is bound, 0.2 us.
sqlite3.register_adapter(bool, int)
_NOTHING: dict[None, None] = {}
sqlite3.register_adapter(type(None), _NOTHING.get)

#: Rows in one statement. A prepared statement takes 1.5 KB a row, so there are few of them, and any number of rows is
#: two or three of these.
_SIZES = (96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)


class Bulk:
    """An insert into one table; `add` names the columns that a row with the same primary key is added to;
    `replace` overwrites that row, `keep` leaves it as it is."""

    def __init__(self, table: Table, *, add: Sequence[str] = (), replace: bool = False, keep: bool = False) -> None:
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        if add:
            sums = {name: table.c[name] + statement.excluded[name] for name in add}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=sums)
        elif replace:
            others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
        elif keep:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        text = str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))
        one = "(" + ", ".join("?" * len(table.columns)) + ")"
        before, marks, after = text.partition(one)
        assert marks
        self._texts = {size: before + ", ".join([one] * size) + after for size in _SIZES}

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts all rows; each has a value for every column, in order. Raises SQLAlchemy's errors."""
        if not rows:
            return
        cursor = connection.connection.cursor()
        start = 0
        try:
            for size in _SIZES:
                while len(rows) - start >= size:
                    some = rows[start : start + size]
                    cursor.execute(self._texts[size], tuple(chain.from_iterable(some)))
                    start += size
        except sqlite3.Error as error:
            raise DBAPIError.instance(None, None, error, sqlite3.Error, dialect=connection.dialect) from error
        finally:
            cursor.close()
