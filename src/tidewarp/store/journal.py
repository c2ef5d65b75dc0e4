"""The journal of one SQLite file: records and cursors in one transaction, fsynced before it is acknowledged."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from tidewarp import observe
from tidewarp.codec import Record, genesis
from tidewarp.errors import InternalError, OperatorError, StoreFailed
from tidewarp.store.chain import Linked, check_cursors, check_entries, check_range, link
from tidewarp.store.connection import DATABASE_ERRORS, failure
from tidewarp.store.contract import Entry, Written
from tidewarp.store.groupcommit import GroupCommit, Submission
from tidewarp.store.schema import LOG_COLUMNS, ROW, Row, RowCheck, bad, log_id, read_domain, row_of

__all__ = ["SqliteJournal"]

_PAGE_RECORDS = 1_000  # of one read transaction
_PAGE_BYTES = 4 << 20  # of bodies in one, about: memory of a reader is bounded


class SqliteJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over a connection that writes and one that reads."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection | None) -> None:
        self._path = path
        self._pid = os.getpid()
        self._file = _file_of(path)
        self._writer = writer
        self._reader = reader
        self._reading = threading.Lock()
        self._failed: StoreFailed | None = None
        self._closed = False
        self._domain, size, head = read_domain(reader, str(path))
        self._tail = size, head  # of the writer: what is durable
        self._commits = GroupCommit(self._write)
        if writer is not None:
            self._check_tail(size)

    @property
    def domain(self) -> bytes:
        """Identity of the journal, 32 bytes."""
        return self._domain

    @property
    def size(self) -> int:
        """Durable records; a reader asks the file each time."""
        return self._bounds("size")[0]

    @property
    def head(self) -> bytes:
        """Hash of the last durable record, 32 bytes; a reader asks the file each time."""
        return self._bounds("head")[1]

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says; commits in the calling thread."""
        self._enter_writer("append")
        return self._commits.append(check_entries(entries), check_cursors(cursors))

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As the contract says; the first call begins the committer thread."""
        self._enter_writer("submit")
        return self._commits.submit(check_entries(entries), check_cursors(cursors))

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says."""
        size, head = self._bounds("read")
        check_range(after, limit)
        return self._scan(after, size if limit is None else limit, kinds, size, head)

    def cursor(self, source: str) -> bytes | None:
        """The durable position of ``source``."""
        rows = self._select("cursor", "SELECT source, cursor FROM source_cursor WHERE source = ?", source)
        return self._positions(rows).get(source)

    def cursors(self) -> dict[str, bytes]:
        """All durable positions, by name in byte order."""
        return self._positions(self._select("cursors", "SELECT source, cursor FROM source_cursor ORDER BY source"))

    def close(self) -> None:
        """Commit what is queued; refuse everything from here on."""
        self._enter_process("close")
        self._commits.close()
        with self._reading:
            self._closed = True

    @property
    def failed(self) -> bool:
        """Has an I/O error ended the use of this handle?"""
        return self._failed is not None

    # --- reading ---

    def _bounds(self, call: str) -> tuple[int, bytes]:
        self._enter(call)
        if self._writer is not None:
            return self._tail
        rows = self._select(call, "SELECT size, head FROM domain WHERE no = 1")
        if len(rows) != 1 or not isinstance(rows[0][0], int) or not isinstance(rows[0][1], bytes):
            raise bad(str(self._path), "table domain", "it has one row with size and head")
        return rows[0][0], rows[0][1]

    def _scan(self, after: int, limit: int, kinds: Collection[int] | None, size: int, head: bytes) -> Iterator[Record]:
        # The record before the first is read too: its hash is what the first has to name.
        rows = RowCheck(str(self._path), self._domain, *((after, None) if after else (1, genesis(self._domain))))
        while limit and max(rows.seq, after + 1) <= size:
            seq = rows.seq
            page = self._page(seq, min(size, seq + min(limit, _PAGE_RECORDS)), kinds)
            if not page:
                raise bad(str(self._path), f"record {seq}", "it is missing", seq)
            for row in rows.walk(page):
                if rows.seq > size and rows.prev != head:
                    raise bad(str(self._path), f"record {size}", "it is not the head that its domain names", size)
                if rows.seq > after + 1 and row.body is not None:
                    limit -= 1
                    yield rows.record(row)
                    if not limit:
                        return

    def _page(self, first: int, last: int, kinds: Collection[int] | None) -> list[Row]:
        """Rows from ``first`` on, in one short transaction; bodies only of ``kinds``."""
        self._enter("read")
        body = "body" if kinds is None else f"CASE WHEN kind IN ({','.join(str(int(k)) for k in kinds)}) THEN body END"
        rows: list[Row] = []
        bytes_read = 0
        try:
            with self._reading, closing(self._open_reader("read").cursor()) as cursor:
                cursor.execute(
                    f"SELECT {ROW}, {body} FROM log WHERE id BETWEEN ? AND ? ORDER BY id", _span(first, last)
                )
                for values in cursor:
                    rows.append(Row(*values))
                    bytes_read += len(rows[-1].body or b"")
                    if bytes_read >= _PAGE_BYTES:
                        break
        except DATABASE_ERRORS as error:
            if not rows:
                self._fail(error, f"record {first}", first)
            # The rows before the bad one are good: return them; the next page begins with it.
        return rows

    def _select(self, call: str, statement: str, *values: object) -> list[tuple[object, ...]]:
        self._enter(call)
        try:
            with self._reading:
                return self._open_reader(call).execute(statement, values).fetchall()
        except DATABASE_ERRORS as error:
            self._fail(error, f"table {statement.split(' FROM ')[1].split()[0]}", None)

    def _open_reader(self, call: str) -> sqlite3.Connection:
        """The reading connection; asked for under its lock, because another thread may close the store."""
        self._enter(call)
        return self._reader

    def _positions(self, rows: list[tuple[object, ...]]) -> dict[str, bytes]:
        positions = {}
        for source, cursor in rows:
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                raise bad(str(self._path), "table source_cursor", "a row is not a name and its bytes")
            positions[source] = cursor
        return positions

    # --- writing ---

    def _write(self, group: Sequence[Submission]) -> list[Written]:
        """The transaction of a group commit."""
        self._enter_writer("append")
        size, head = self._tail
        linked: list[Linked] = []
        cursors: dict[str, bytes] = {}
        outcomes = []
        for submission in group:
            new = link(self._domain, size, head, submission.entries)
            first_seq, size, head = size + 1, size + len(new), new[-1].hash if new else head
            outcomes.append(Written(first_seq, size, head))
            linked += new
            cursors |= submission.cursors
        try:
            self._transact(self._db, linked, cursors, (size, head))
        except BaseException as error:
            self._roll_back(error)
            if isinstance(error, DATABASE_ERRORS):
                self._fail(error, f"record {self._tail[0] + 1}", self._tail[0] + 1)
            raise
        if _file_of(self._path) != self._file:  # what SQLite writes then, nobody will find
            rule = "the journal was removed or replaced while this run writes it"
            self._failed = StoreFailed(str(self._path), rule, "bring the file back, then --resume")
            raise self._failed
        return outcomes

    def _transact(
        self, db: sqlite3.Connection, linked: Sequence[Linked], cursors: Mapping[str, bytes], tail: tuple[int, bytes]
    ) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(f"INSERT INTO log VALUES ({LOG_COLUMNS})", map(row_of, linked))
        moved = db.execute("UPDATE domain SET size = ?, head = ? WHERE size = ? AND head = ?", (*tail, *self._tail))
        if moved.rowcount != 1:
            raise bad(str(self._path), "table domain", "another program has written this journal")
        db.executemany("INSERT OR REPLACE INTO source_cursor VALUES (?, ?)", cursors.items())
        observe.stage("journal.inside")
        observe.stage("journal.commit")
        db.execute("COMMIT")
        self._tail = tail
        observe.stage("journal.after")

    def _roll_back(self, error: BaseException) -> None:
        """End the transaction. Where no I/O error did it, an interruption may have come after the commit: ask."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, DATABASE_ERRORS):
                self._tail = self._db.execute("SELECT size, head FROM domain").fetchone()
        except DATABASE_ERRORS as second:
            self._failed = StoreFailed(
                str(self._path), f"after {error!r}, ROLLBACK failed: {second}", "open the journal again and verify it"
            )

    def _check_tail(self, size: int) -> None:
        """What a writer continues has to be whole: the last record, its hash, and nothing behind it."""
        last = self._select("open", "SELECT max(id) FROM log")[0][0]
        if last != (log_id(size) if size else None):
            raise bad(str(self._path), "table domain", f"its size is {size}, the log's last row is {last}")
        for _ in self._scan(max(size - 1, 0), 1, None, *self._tail):
            pass

    # --- refusals ---

    def _enter(self, call: str) -> None:
        self._enter_process(call)
        if self._closed:
            raise InternalError(call, "the store is closed", "open it again")
        if self._failed is not None:
            raise StoreFailed(*self._failed.args) from self._failed

    def _enter_process(self, call: str) -> None:
        if os.getpid() != self._pid:
            raise InternalError(
                call, f"the store was opened by process {self._pid}, and SQLite does not survive fork()", "open it here"
            )

    def _enter_writer(self, call: str) -> None:
        self._enter(call)
        if self._writer is None:
            raise OperatorError(call, f"{self._path} is open read-only", "open it for writing")

    @property
    def _db(self) -> sqlite3.Connection:
        return self._writer if self._writer is not None else self._reader

    def _fail(self, error: Exception, where: str, seq: int | None) -> NoReturn:
        met = failure(error, self._path, where, seq)
        if isinstance(met, StoreFailed):
            self._failed = met
        raise met from error


def _file_of(path: Path) -> tuple[int, int] | None:
    """Which file has this name: device and number; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _span(first: int, last: int) -> tuple[int, int]:
    return log_id(first), log_id(last)
