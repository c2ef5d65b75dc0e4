"""Reads of small artifacts: what a row says beside its bytes is believed as little as these."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tidewarp.errors import Corrupt, NotFound, Withheld
from tidewarp.store import open_store

PAYLOAD = b"5"  # has the length of the number 5 written out

DAMAGES = [
    "size = 2",
    "size = 0",
    "size = NULL",
    "tag = NULL",
    "tag = 4",
    "tag = -1",
    "bytes = x'36'",
    "bytes = x'3535'",
    "bytes = x'3535', size = 2",
    "bytes = x'', size = 0",
    "bytes = NULL",
    "bytes = '5'",
    "bytes = 5",
    "bytes = 5.5, size = 3",
    "tag = 'three'",
    "size = 'one'",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_row_that_is_not_of_its_name_is_not_given(tmp_path: Path, damage: str) -> None:
    """Each column alone, and two that agree; values of other types, as a damaged page may hold them."""
    path = tmp_path / "s.tw"
    with open_store(path, create=True) as store:
        ref, other = store.put_many([(PAYLOAD, 3), (b"other", None)])
        assert store.get(ref) == PAYLOAD
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA writable_schema = ON")
            strict = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'artifact'"
            db.execute(strict, (" STRICT", " "))
            db.execute("PRAGMA writable_schema = RESET")
            db.execute(f"UPDATE artifact SET {damage} WHERE no = 1")
        with pytest.raises(Corrupt, match=f"artifact {ref.hex()}"):
            store.get(ref)
        with pytest.raises(Corrupt, match=f"artifact {ref.hex()}"):
            store.get(ref, offset=0, length=1)
        assert store.get(other) == b"other"


@pytest.mark.parametrize(("state", "error"), [(1, Withheld), (2, Corrupt)])
def test_bytes_that_are_put_aside_are_not_given(tmp_path: Path, state: int, error: type[Exception]) -> None:
    """Its row says that they are not here, or damaged: whatever stands in it, and right as it may be."""
    path = tmp_path / "s.tw"
    with open_store(path, create=True) as store:
        ref = store.put(PAYLOAD)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE artifact SET state = ?", (state,))
        with pytest.raises(error, match=f"artifact {ref.hex()}"):
            store.get(ref)


def test_parts_of_a_small_artifact(tmp_path: Path) -> None:
    """A range is cut from bytes that were checked whole; behind their end there is nothing."""
    with open_store(tmp_path / "s.tw", create=True) as store:
        ref, empty = store.put_many([(b"abcdef", None), (b"", None)])
        for offset in range(8):
            assert store.get(ref, offset=offset) == b"abcdef"[offset:]
            for length in range(8):
                assert store.get(ref, offset=offset, length=length) == b"abcdef"[offset : offset + length]
        assert store.get(empty) == store.get(empty, offset=1, length=1) == b""
        with pytest.raises(NotFound):
            store.get(ref._replace(digest=bytes(32)))
        with pytest.raises(NotFound):
            store.get(ref._replace(hash_id=2))
