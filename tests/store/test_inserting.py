"""Rows that are inserted many with a statement are those that were given, in their order."""

import sqlite3
from contextlib import closing

import pytest

from tidewarp.store.inserting import insert_rows

NUMBERS = [0, 1, 49, 50, 51, 99, 100, 149]  # fewer than go with one statement, as many, and more


@pytest.mark.parametrize("number", NUMBERS)
def test_all_rows_are_inserted_in_their_order(number: int) -> None:
    """Places may hold expressions."""
    rows = [(no % 7, "" if no % 3 else f"{no}") for no in range(number)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("CREATE TABLE one (no INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
        insert_rows(db, "one", "NULL, ?, nullif(?, '')", iter(rows))
        found = db.execute("SELECT * FROM one ORDER BY no").fetchall()
    assert found == [(no, a, b or None) for no, (a, b) in enumerate(rows, 1)]


@pytest.mark.parametrize("number", NUMBERS[1:])
def test_a_row_that_is_refused_raises(number: int) -> None:
    """What was there stays, and of the statement that met it nothing is there."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("CREATE TABLE one (no INTEGER PRIMARY KEY, a INTEGER NOT NULL) STRICT")
        insert_rows(db, "one", "?, ?", [(0, 7)])
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            insert_rows(db, "one", "?, ?", [(no, 8) for no in range(number - 1, -1, -1)])
        with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
            insert_rows(db, "one", "?, ?", [(-no, 9 if no < number else None) for no in range(1, number + 1)])
        whole = number // 50 * 50
        kept = db.execute("SELECT count(*) FROM one WHERE a = 9").fetchone()[0]
        assert db.execute("SELECT a FROM one WHERE no = 0").fetchone() == (7,)
        assert kept == (number - 1 if number % 50 else whole - 50)
