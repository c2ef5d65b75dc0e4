"""Recognising whole rows by their hashes is as strict as looking at each rule."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import product
from typing import Any

import pytest

from tidewarp.codec import BODY_BYTES_MAX, INPUT, genesis, timed_body
from tidewarp.errors import Corrupt
from tidewarp.store import Entry, MemoryStore
from tidewarp.store.chain import link
from tidewarp.store.rows import LOG_COLUMNS, ROW, Row, RowCheck, _verify, header_of, rows_of

DOMAIN = MemoryStore().journal.domain
ENTRIES = [Entry(INPUT, timed_body(-5, b"one")), Entry(1, b"", 1), Entry(INPUT, timed_body(7, b"")), Entry(2, b"four")]
HEADERS = [one.record.header for one in link(DOMAIN, 0, genesis(DOMAIN), ENTRIES)]


def rows() -> list[Row]:
    """What comes back of new records."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE log (id, kind, flags, hlc, prev, body, body_hash, hash, body_state, time)")
        linked = link(DOMAIN, 0, genesis(DOMAIN), ENTRIES)
        db.executemany(f"INSERT INTO log VALUES ({LOG_COLUMNS})", rows_of(linked))
        return [Row(*row) for row in db.execute(f"SELECT {ROW}, body FROM log ORDER BY id")]


def variants(value: Any) -> Iterator[Any]:
    """Values of a column that a damaged or a forged file may hold."""
    yield from (None, -1, 0, 1, 2, 255, 256, 7.0, 2**63, BODY_BYTES_MAX + 1, "", "x", b"", bytes(32), True)
    if isinstance(value, bytes):
        yield from (value[:-1], value + b"\0", value.decode("latin-1"), bytes([*value[:-1], (value or b"x")[-1] ^ 1]))
    elif isinstance(value, int):
        yield from (value + 1, -value, float(value), str(value))


def forms(seq: int, row: Row) -> Iterator[Row]:
    """As it is, without its body, and both with the hashes that a forger would give them."""
    forged = row
    if isinstance(row.body, bytes):
        forged = row._replace(body_len=len(row.body), body_hash=hashlib.sha256(row.body).digest())
    for one in (row, row._replace(body=None), forged):
        yield one
        with suppress(struct.error):
            rest = struct.pack(">QBBQ32sI32s", seq, *one[1:5], *one[5:7])
            yield one._replace(hash=hashlib.sha256(b"\0FR1\x01" + DOMAIN + rest).digest())


def refused(check: Any) -> bool:
    try:
        check()
    except Corrupt:
        return True
    return False


@pytest.mark.parametrize("column", Row._fields)
def test_a_row_is_refused_by_one_exactly_if_by_the_other(column: str) -> None:
    """Every column of every row in every form; with the hash of the row before it known, and unknown."""
    prev: bytes | None = genesis(DOMAIN)
    for seq, row in enumerate(rows(), 1):
        for value in variants(getattr(row, column)):
            for changed, before in product(forms(seq, row._replace(**{column: value})), (prev, None)):
                fast = refused(lambda: list(RowCheck("j", DOMAIN, seq, before).walk([changed])))  # noqa: B023 - called here
                slow = refused(lambda: _verify("j", DOMAIN, seq, before, changed))  # noqa: B023 - called here
                assert fast == slow, (seq, changed, before)
        prev = row.hash


def test_whole_rows_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it were right and of no use."""
    monkeypatch.setattr("tidewarp.store.rows._verify", lambda *_: pytest.fail("looked at"))
    check = RowCheck("j", DOMAIN, 1, genesis(DOMAIN))
    assert [header_of(DOMAIN, row) for row in check.walk(rows())] == HEADERS
    headers_only = RowCheck("j", DOMAIN, 1, genesis(DOMAIN))
    assert len(list(headers_only.walk(row._replace(body=None) for row in rows()))) == headers_only.seq - 1 == 4


def test_a_body_without_room_for_its_tick_is_refused() -> None:
    """Though its hashes are right, and though its few bytes, read as a number, are what the time column says."""
    *_, forged = forms(1, rows()[0]._replace(body=b"\5", time=5))
    assert refused(lambda: list(RowCheck("j", DOMAIN, 1, genesis(DOMAIN)).walk([forged])))
