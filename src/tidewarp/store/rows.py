"""Rows of ``log``: what a record is in the table, and the check of what comes back from there."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from tidewarp.codec import BODY_BYTES_MAX, PUBLISHED, TIMED_KINDS, RecordHeader, record_hash
from tidewarp.codec.batches import BODY, ERASED, WITHHELD, BatchItem
from tidewarp.codec.records import HEADER_REST, HLC_MAX, leaf_before_rest
from tidewarp.errors import CodecError
from tidewarp.store.chain import Linked, tick_of
from tidewarp.store.connection import NO_VALUE, SHORT_BYTES, Blob, bad, blob

__all__ = [
    "LOG_COLUMNS",
    "OWN",
    "ROW",
    "SEQ_BITS",
    "STUB_ROW",
    "Row",
    "RowCheck",
    "header_of",
    "log_id",
    "rows_of",
    "stored_row",
    "stored_rows",
]

OWN = 1
"""Number of the store's own domain."""

SEQ_BITS = 44

_OWN_ROWS = OWN << SEQ_BITS
_PRESENT = BODY
_STUBS = frozenset({WITHHELD, ERASED})

ROW = "id, kind, flags, hlc, prev, length(body), body_hash, hash, body_state, time"
"""Columns of a :class:`Row`, but for the body, which a reader may leave out."""

STUB_ROW = ROW.replace(
    "length(body)",
    "CASE body_state WHEN 0 THEN length(body) ELSE (SELECT body_len FROM stub WHERE stub.id = log.id) END",
)
"""The same of rows that may be stubs."""

LOG_COLUMNS = "?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, '')"
"""Places of :func:`rows_of` in an INSERT."""


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


def log_id(seq: int, no: int = OWN) -> int:
    """The row of a sequence number of domain ``no``."""
    return no << SEQ_BITS | seq


def rows_of(linked: Iterable[Linked]) -> Iterator[tuple[object, ...]]:
    """The columns of ``log`` for records of the own domain, in the order of the table."""
    return (
        (
            _OWN_ROWS | seq,
            kind,
            flags,
            hlc,
            Blob(prev),
            Blob(body) if len(body) <= SHORT_BYTES else body,
            Blob(body_hash),
            Blob(row_hash),
            _PRESENT,
            tick_of(kind, body) if kind in TIMED_KINDS else NO_VALUE,
        )
        for _, seq, kind, flags, hlc, prev, body, body_hash, row_hash, _ in linked
    )


def stored_row(no: int, header: RecordHeader, hash: bytes, state: int, body: bytes | None) -> tuple[object, ...]:
    """The columns of ``log`` for a record of domain ``no``, which may be a stub: then ``body`` is None."""
    _, seq, kind, flags, hlc, prev, _, body_hash = header
    tick = tick_of(kind, body) if kind in TIMED_KINDS and body is not None else NO_VALUE
    return log_id(seq, no), kind, flags, hlc, Blob(prev), blob(body or b""), Blob(body_hash), Blob(hash), state, tick


def stored_rows(
    no: int, prev: bytes, items: Iterable[BatchItem], hashes: Sequence[bytes]
) -> Iterator[tuple[object, ...]]:
    """The same of the records behind the one with the hash ``prev``, each of which has its hash in ``hashes``."""
    before, first = Blob(prev), log_id(0, no)
    for (header, state, body, _), hash_ in zip(items, hashes, strict=True):
        _, seq, kind, flags, hlc, _, _, body_hash = header
        tick = tick_of(kind, body) if kind in TIMED_KINDS and body is not None else NO_VALUE
        after = Blob(hash_)
        yield first | seq, kind, flags, hlc, before, blob(body or b""), Blob(body_hash), after, state, tick
        before = after


def header_of(domain: bytes, row: Row) -> RecordHeader:
    """The header of a checked row."""
    seq = row.id & (1 << SEQ_BITS) - 1
    return RecordHeader(domain, seq, row.kind, row.flags, row.hlc, row.prev, row.body_len, row.body_hash)


Columns = TypeVar("Columns", bound=Sequence[Any])  # of a Row


class RowCheck:
    """Checks the rows of one journal in their order.

    ``seq`` is the number of the row that comes next, ``prev`` the hash before it (None: not known), ``path`` names the
    journal in errors. What is right is recognised by its hashes, in a fraction of the time that a look at each rule
    takes; what is not is looked at, rule by rule, which decides and says what is wrong. Only of other domains than
    the own one may a row be a stub.
    """

    def __init__(self, path: str, domain: bytes, seq: int, prev: bytes | None, no: int = OWN) -> None:
        self.seq, self.prev = seq, prev
        self._path, self._domain, self._no = path, domain, no
        self._before = leaf_before_rest(domain)

    def walk(self, rows: Iterable[Columns]) -> Iterator[Columns]:
        """``rows`` (the columns of a :class:`Row`; a body may have been left out), each once it is checked.

        Raises:
            Corrupt: names the first bad record.
        """
        before, pack, sha256, number = self._before, HEADER_REST.pack, hashlib.sha256, log_id(0, self._no)
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
                    and hlc <= HLC_MAX
                    and body_len <= BODY_BYTES_MAX
                    and (len(body_hash) == 32 if body is None else sha256(body).digest() == body_hash)
                    and (body is None or _has_tick(kind, time, body))
                )
            except (struct.error, TypeError):
                is_right = False
            if not is_right:
                _verify(self._path, self._domain, seq, last, Row(*row), self._no)
            self.seq = seq = seq + 1
            self.prev = last = row_hash
            yield row


def _has_tick(kind: int, time: object, body: object) -> bool:
    """Is ``time`` the tick of this body, or None where it has none?"""
    if type(body) is not bytes:
        return False
    if kind not in TIMED_KINDS:
        return time is None
    return type(time) is int and len(body) >= 8 and int.from_bytes(body[:8], "big", signed=True) == time


def _verify(path: str, domain: bytes, seq: int, prev: bytes | None, row: Row, no: int = OWN) -> None:
    if row.id != log_id(seq, no):
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
    if no != OWN and row.body_state in _STUBS:
        if row.body not in (None, b"") or row.time is not None:
            raise bad(path, f"record {seq}", "its body is marked as not here, and there is one", seq)
        return
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
