"""The tables of a journal file, their identity, and the check of one row. Format 1.

    domain         no, id, status (0 live), size, head
    log            id = no << 44 | seq, the header's fields, body, hash, body_state (0 present), time
    source_cursor  position of each source, in the transaction of what was read from it
    meta           format version (U32), root public key

``time`` repeats the tick at the start of a timed body, for its index.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from tidewarp.codec import (
    BODY_BYTES_MAX,
    PUBLISHED,
    TIMED_KINDS,
    Record,
    RecordHeader,
    domain_of,
    genesis,
    record_hash,
)
from tidewarp.errors import CodecError, Corrupt, OperatorError
from tidewarp.store.chain import Linked, tick_of

__all__ = [
    "APPLICATION_ID",
    "FORMAT",
    "LOG_COLUMNS",
    "ROW",
    "Row",
    "RowCheck",
    "bad",
    "check_format",
    "check_schema",
    "create_tables",
    "log_id",
    "pragma",
    "read_domain",
    "row_of",
]

APPLICATION_ID = 0x5457_4A01  # "TWJ", 1
FORMAT = 1

_LIVE = 0
_PRESENT = 0
_OWN = 1  # number of the store's own domain
_SEQ_BITS = 44
_HEADER_REST = struct.Struct(">QBBQ32sI32s")  # of a RecordHeader's bytes: what stands behind its domain

_TABLES = (
    (
        "CREATE TABLE domain (no INTEGER PRIMARY KEY, id BLOB NOT NULL, status INTEGER NOT NULL, size INTEGER NOT NULL,"
        " head BLOB NOT NULL) STRICT"
    ),
    (
        "CREATE TABLE log (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, flags INTEGER NOT NULL, hlc INTEGER NOT NULL,"
        " prev BLOB NOT NULL, body BLOB NOT NULL, body_hash BLOB NOT NULL, hash BLOB NOT NULL,"
        " body_state INTEGER NOT NULL, time INTEGER) STRICT"
    ),
    "CREATE INDEX log_time ON log (time) WHERE kind BETWEEN 32 AND 35",
    "CREATE TABLE source_cursor (source TEXT PRIMARY KEY NOT NULL, cursor BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
)

ROW = "id, kind, flags, hlc, prev, length(body), body_hash, hash, body_state, time"
"""Columns of a :class:`Row`, but for the body, which a reader may leave out."""

LOG_COLUMNS = ", ".join("?" * 10)
"""Places of :func:`row_of` in an INSERT."""


class Row(NamedTuple):
    """A row of ``log`` as it came: nothing believed. ``body`` None: not read."""

    id: Any
    kind: Any
    flags: Any
    hlc: Any
    prev: Any
    body_len: Any
    body_hash: Any
    hash: Any
    body_state: Any
    time: Any
    body: Any


def create_tables(db: sqlite3.Connection, root_public_key: bytes) -> None:
    """Make an empty database a journal of this key. All or nothing; raises DATABASE_ERRORS of ``connection``."""
    domain = domain_of(root_public_key)
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        db.execute(statement)
    db.execute("INSERT INTO domain VALUES (?, ?, ?, 0, ?)", (_OWN, domain, _LIVE, genesis(domain)))
    db.executemany("INSERT INTO meta VALUES (?, ?)", _meta(root_public_key).items())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")


def check_format(db: sqlite3.Connection, path: str) -> None:
    """Raise OperatorError unless the file says that it is a journal of this format."""
    if pragma(db, "application_id") != APPLICATION_ID:
        raise OperatorError(path, "this database is not a tidewarp journal", "give the path of a .tw file")
    version = pragma(db, "user_version")
    if version != FORMAT:
        raise OperatorError(
            path,
            f"its format is {version}, this release reads {FORMAT}",
            "use the release that wrote it, or a newer one",
        )


def check_schema(db: sqlite3.Connection, path: str) -> None:
    """Raise Corrupt unless the tables are exactly ours: a trigger or a view of somebody else would run unseen."""
    if db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall() != _expected_schema():
        raise bad(path, "table sqlite_master", "its tables are not those of a journal")


def read_domain(db: sqlite3.Connection, path: str) -> tuple[bytes, int, bytes]:
    """The id, size and head of the one domain, which belongs to the key in ``meta``. Raises Corrupt."""
    meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    key = meta.get("root_public_key")
    if not isinstance(key, bytes) or len(key) != 32 or meta != _meta(key):
        raise bad(path, "table meta", "it holds the format version and the root public key, nothing else")
    rows = db.execute("SELECT no, id, status, size, head FROM domain").fetchall()
    if len(rows) != 1 or rows[0][:3] != (_OWN, domain_of(key), _LIVE):
        raise bad(path, "tables meta and domain", "the one domain is that of the root public key")
    size, head = rows[0][3:]
    if not isinstance(size, int) or not 0 <= size < 1 << _SEQ_BITS or not isinstance(head, bytes):
        raise bad(path, "table domain", "size or head is out of range")
    if not size and head != genesis(domain_of(key)):
        raise bad(path, "table domain", "the head of an empty journal is the genesis hash of its domain")
    return domain_of(key), size, head


def log_id(seq: int) -> int:
    """The row of a sequence number."""
    return _OWN << _SEQ_BITS | seq


def row_of(linked: Linked) -> tuple[object, ...]:
    """The columns of ``log`` for a record, in the order of the table."""
    (_, seq, kind, flags, hlc, prev, _, body_hash), body = linked.record
    return log_id(seq), kind, flags, hlc, prev, body, body_hash, linked.hash, _PRESENT, tick_of(kind, body)


Columns = TypeVar("Columns", bound=Sequence[Any])  # of a Row


class RowCheck:
    """Checks the rows of one journal in their order.

    ``seq`` is the number of the row that comes next, ``prev`` the hash before it (None: not known), ``path`` names the
    journal in errors. What is right is recognised by its hashes, in a fraction of the time that a look at each rule
    takes; what is not is looked at, rule by rule, which decides and says what is wrong.
    """

    def __init__(self, path: str, domain: bytes, seq: int, prev: bytes | None) -> None:
        self.seq, self.prev = seq, prev
        self._path, self._domain = path, domain
        header = RecordHeader(domain, 1, 0, 0, 0, bytes(32), 0, bytes(32)).to_bytes()
        self._before = b"\0" + header[: -_HEADER_REST.size]  # what record_hash hashes, up to the sequence number

    def walk(self, rows: Iterable[Columns]) -> Iterator[Columns]:
        """``rows`` (the columns of a :class:`Row`; a body may have been left out), each once it is checked.

        Raises:
            Corrupt: names the first bad record.
        """
        before, pack, sha256, number = self._before, _HEADER_REST.pack, hashlib.sha256, log_id(0)
        seq, last = self.seq, self.prev
        for row in rows:
            row_id, kind, flags, hlc, prev, body_len, body_hash, row_hash, body_state, time, body = row
            try:
                header = before + pack(seq, kind, flags, hlc, prev, body_len, body_hash)
                is_right = (
                    sha256(header).digest() == row_hash
                    and prev == last
                    and row_id == number | seq
                    and body_state == _PRESENT
                    and not flags & ~PUBLISHED
                    and body_len <= BODY_BYTES_MAX
                    and (len(body_hash) == 32 if body is None else sha256(body).digest() == body_hash)
                    and (body is None or _has_tick(kind, time, body))
                )
            except (struct.error, TypeError):
                is_right = False
            if not is_right:
                _verify(self._path, self._domain, seq, last, Row(*row))
            self.seq = seq = seq + 1
            self.prev = last = row_hash
            yield row

    def record(self, row: Row) -> Record:
        """The record of a checked row."""
        seq = row.id - log_id(0)
        header = RecordHeader(self._domain, seq, row.kind, row.flags, row.hlc, row.prev, row.body_len, row.body_hash)
        return Record(header, row.body)


def _has_tick(kind: int, time: object, body: object) -> bool:
    """Is ``time`` the tick of this body, or None where it has none?"""
    if type(body) is not bytes:
        return False
    if kind not in TIMED_KINDS:
        return time is None
    return type(time) is int and len(body) >= 8 and int.from_bytes(body[:8], "big", signed=True) == time


def _verify(path: str, domain: bytes, seq: int, prev: bytes | None, row: Row) -> None:
    if row.id != log_id(seq):
        raise bad(path, f"record {seq}", "it is missing", seq)
    try:
        header = RecordHeader(domain, seq, row.kind, row.flags, row.hlc, row.prev, row.body_len, row.body_hash)
        digest = record_hash(header.to_bytes())
    except (CodecError, TypeError) as error:
        raise bad(path, f"record {seq}", f"its columns are no header ({error})", seq) from None
    if digest != row.hash:
        raise bad(path, f"record {seq}", "its columns do not have its hash", seq)
    if prev is not None and header.prev != prev:
        raise bad(path, f"record {seq}", "it does not follow the record before it", seq)
    if row.body_state != _PRESENT:
        raise bad(path, f"record {seq}", "its body is not marked as present", seq)
    if row.body is not None:
        _verify_body(path, seq, row)


def _verify_body(path: str, seq: int, row: Row) -> None:
    if not isinstance(row.body, bytes) or hashlib.sha256(row.body).digest() != row.body_hash:
        raise bad(path, f"record {seq}", "its body does not have its hash", seq)
    try:
        tick = tick_of(row.kind, row.body)
    except CodecError:
        raise bad(path, f"record {seq}", "its body is too short for its kind", seq) from None
    if row.time != tick or type(row.time) is not type(tick):
        raise bad(path, f"record {seq}", "its time column is not the tick of its body", seq)


def bad(path: str, where: str, rule: str, seq: int | None = None) -> Corrupt:
    """The error for bytes that are not what was written."""
    return Corrupt(f"{path}: {where}", rule, "restore the file from a copy", seq)


def pragma(db: sqlite3.Connection, name: str) -> Any:
    """The value of a pragma."""
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _meta(root_public_key: bytes) -> dict[str, bytes]:
    return {"format": FORMAT.to_bytes(4, "big"), "root_public_key": root_public_key}


@cache
def _expected_schema() -> list[tuple[str | None, ...]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in _TABLES:
            db.execute(statement)
        return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    finally:
        db.close()
