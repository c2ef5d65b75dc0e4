"""Inserting many rows, several with each statement: what a statement costs beside its rows is paid once for all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice
from typing import Any

__all__ = ["insert_rows"]

_ROWS = 50  # of a statement: more bring little, and SQLite compiles code for each


def insert_rows(db: sqlite3.Connection, table: str, places: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert ``rows`` in their order, each into ``places``, what stands in the brackets behind VALUES.

    For rows of short values, of which it takes half to three quarters of the time of ``executemany``. (Rows with payloads take
    longer so: SQLite carries each value through one more register.)
    """
    left = iter(rows)
    while len(part := list(islice(left, _ROWS))) == _ROWS:
        db.execute(_insert(table, places, _ROWS), list(chain.from_iterable(part)))
    if part:
        db.executemany(_insert(table, places, 1), part)


@cache
def _insert(table: str, places: str, rows: int) -> str:
    return f"INSERT INTO {table} VALUES {','.join([f'({places})'] * rows)}"
