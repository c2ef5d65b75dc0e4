"""The journal of one SQLite file: records and cursors in one transaction, fsynced before it is acknowledged."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import tee
from typing import TypeAlias

from tidewarp import observe
from tidewarp.clocks.pacing import Clock
from tidewarp.codec import INPUT, Record
from tidewarp.errors import InternalError, StoreFailed, StoreFull
from tidewarp.store.branches import BranchJournal, Cut
from tidewarp.store.chain import (
    Linked,
    check_cursors,
    check_entries,
    check_range,
    check_window,
    link,
    no_input,
)
from tidewarp.store.connection import DATABASE_ERRORS, bad
from tidewarp.store.contract import Entry, Written
from tidewarp.store.groupcommit import GroupCommit, Submission
from tidewarp.store.handle import Handle
from tidewarp.store.inserting import insert_rows
from tidewarp.store.log import LogReader
from tidewarp.store.rows import LOG_COLUMNS, OWN, header_of, log_id, rows_of
from tidewarp.store.schema import read_domain
from tidewarp.store.sharding import ShardTable
from tidewarp.store.spans import Spans
from tidewarp.store.stamps import stamps

__all__ = ["Indexing", "OpenTransaction", "SqliteJournal"]


class OpenTransaction:
    """A transaction that its thread writes step by step, through ``db``."""

    def __init__(self, db: sqlite3.Connection, tail: tuple[int, bytes]) -> None:
        self.db = db
        self.tail = tail
        """Size and head of the own domain with all that was appended here."""
        self.undone: list[Callable[[], None]] = []
        """What to call if it, or the step of it that is being written, does not come to be: to forget what was derived."""
        self.ended: list[Callable[[], None]] = []
        """What to call once others see what it has changed: to forget what they have derived of what was there before."""

    @contextmanager
    def part(self) -> Iterator[None]:
        """A step of it: all of the step is in it, or, when it raises, nothing."""
        tail, kept = self.tail, len(self.undone)
        self.db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self.db.in_transaction:  # an I/O error has ended it already
                self.db.execute("ROLLBACK TO part")
                self.db.execute("RELEASE part")
            self.tail = tail
            self.undo(kept)
            raise
        self.db.execute("RELEASE part")

    def undo(self, kept: int = 0) -> None:
        """Call what is in ``undone`` behind the first ``kept``."""
        while len(self.undone) > kept:
            self.undone.pop()()


Indexing: TypeAlias = Callable[[OpenTransaction, Sequence[Linked]], None]
"""What is written of new records of the own domain beside their rows of ``log``, in their transaction."""


class SqliteJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over a connection that writes and one that reads.

    It is also where every other transaction of the store goes through, since there is one writer and one order.
    """

    def __init__(
        self,
        handle: Handle,
        spans: Spans,
        index: Indexing | None = None,
        shards: ShardTable | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._handle = handle
        self._spans = spans
        self._index = index
        self._shards = shards
        self._clock = clock
        _, self._domain, size, head = read_domain(handle.reader, str(handle.path))
        self._tail = size, head  # of the writer: what is durable
        self._log = LogReader(handle, OWN, self._domain)
        self._commits = GroupCommit(self._write)
        self._open: OpenTransaction | None = None
        if handle.writer is not None:
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

    @property
    def reach(self) -> tuple[int, bytes]:
        """Size and head as this thread sees them: with what it has appended in its open transaction."""
        if self._open is not None and self._handle.in_transaction:
            return self._open.tail
        return self._bounds("reach")

    @property
    def open_transaction(self) -> OpenTransaction | None:
        """The open transaction, if it is this thread's."""
        return self._open if self._handle.in_transaction else None

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says; commits in the calling thread. Within its transaction: when that ends."""
        self._handle.enter_writer("append")
        checked, positions = check_entries(entries), check_cursors(cursors)
        if self._open is not None and self._handle.in_transaction:
            with self.transaction("append") as transaction:
                return self.extend(transaction, checked, positions)
        return self._commits.append(checked, positions)

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As the contract says; the first call begins the committer thread."""
        self._handle.enter_writer("submit")
        if self._handle.in_transaction:
            raise InternalError("submit", "a transaction is written by the thread that opened it", "append there")
        return self._commits.submit(check_entries(entries), check_cursors(cursors))

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says."""
        size, head = self._bounds("read")
        check_range(after, limit)
        return self.read_to(size, head, after, limit, kinds)

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """As the contract says."""
        size, _ = self._bounds("read_time")
        check_window(first_tick, last_tick)
        return self.read_time_to(size, first_tick, last_tick, last_tick_of)

    def last_tick(self, seq: int) -> int | None:
        """As the contract says."""
        rows = self._handle.select("last_tick", "SELECT kind, time FROM log WHERE id = ?", log_id(seq))
        if not rows or rows[0][0] != INPUT:
            raise no_input(seq)
        return self._spans.last_tick(rows[0][1], seq)

    def cursor(self, source: str) -> bytes | None:
        """The durable position of ``source``."""
        rows = self._handle.select("cursor", "SELECT source, cursor FROM source_cursor WHERE source = ?", source)
        return self._positions(rows).get(source)

    def cursors(self) -> dict[str, bytes]:
        """All durable positions, by name in byte order."""
        rows = self._handle.select("cursors", "SELECT source, cursor FROM source_cursor ORDER BY source")
        return self._positions(rows)

    def branch(self, name: str) -> BranchJournal:
        """As the contract says. One statement, so that records and positions are those of one moment."""
        if self._handle.in_transaction:
            raise InternalError(
                "branch", "this thread's transaction is open, and not durable yet", "leave the block first"
            )
        statement = "SELECT size, head, source, cursor FROM domain LEFT JOIN source_cursor WHERE no = 1"
        rows = self._handle.select("branch", statement)
        size, head = self._tail_of([row[:2] for row in rows[:1]])
        positions = self._positions([row[2:] for row in rows if row[2:] != (None, None)])
        return BranchJournal(self, Cut(size, head, positions), name)

    def close(self) -> None:
        """Commit what is queued; refuse everything from here on."""
        self._handle.enter_process("close")
        if self._handle.in_transaction:
            raise InternalError("close", "its transaction is open", "leave the block first")
        self._commits.close()
        self._handle.close()

    # --- transactions ---

    @contextmanager
    def transaction(self, call: str = "transaction") -> Iterator[OpenTransaction]:
        """What is written in the block is durable when it ends, or, when it raises, not there.

        It comes after all that was submitted before; appends and submissions of other threads wait. Within a
        transaction of the same thread it is a part of that.

        Raises:
            StoreFull, StoreFailed, …: as ``append``.
        """
        self._handle.enter_writer(call)
        if self._open is not None and self._handle.in_transaction:
            self._check_open(self._open)
            try:
                with self._open.part():
                    yield self._open
            except DATABASE_ERRORS as error:
                self._handle.fail(error, f"record {self._open.tail[0] + 1}", self._open.tail[0] + 1)
            return
        with self._commits.exclusive():
            self._handle.enter_writer(call)  # what was queued may have ended the handle
            self._open = opened = OpenTransaction(self._db, self._tail)
            self._handle.holder = threading.get_ident()
            try:
                opened.db.execute("BEGIN IMMEDIATE")
                before = opened.db.total_changes
                yield opened
                self._check_open(opened)
                if opened.db.total_changes == before:
                    opened.db.execute("ROLLBACK")  # nothing was written, so nothing need be waited for
                else:
                    self._commit(opened.db, opened.tail)
            except BaseException as error:
                self._settle(opened, error)
                raise
            finally:
                self._open = self._handle.holder = None
                for call_behind in opened.ended:
                    call_behind()
            self._handle.check_file()

    def extend(
        self,
        transaction: OpenTransaction,
        entries: Iterable[tuple[int, bytes, int, int | None]],
        cursors: Mapping[str, bytes] | None = None,
        *,
        index: bool = True,
    ) -> Written:
        """Append ``entries`` (fields of an Entry) to the open transaction. Without ``index`` the caller writes what indices have to know."""
        size, head = transaction.tail
        linked = link(self._domain, size, head, entries, *self._stamps(size))
        self._insert(transaction.db, linked, cursors or {}, index=index)
        if linked:
            transaction.tail = size + len(linked), linked[-1].hash
        return Written(size + 1, *transaction.tail)

    # --- reading ---

    def _bounds(self, call: str) -> tuple[int, bytes]:
        self._handle.enter(call)
        if self._handle.writer is not None:
            return self._tail
        return self._tail_of(self._handle.select(call, "SELECT size, head FROM domain WHERE no = 1"))

    def _tail_of(self, rows: list[tuple[object, ...]]) -> tuple[int, bytes]:
        if len(rows) != 1 or not isinstance(rows[0][0], int) or not isinstance(rows[0][1], bytes):
            raise bad(str(self._handle.path), "table domain", "it has one row with size and head")
        return rows[0][0], rows[0][1]

    def check_open(self, call: str) -> None:
        """As :class:`~tidewarp.store.branches.Parent` says, and the two below."""
        self._handle.enter(call)

    def read_to(
        self, size: int, head: bytes, after: int, limit: int | None, kinds: Collection[int] | None
    ) -> Iterator[Record]:
        """The records of a read that began at ``size``, when ``head`` was the hash of the last."""
        rows = self._log.scan(after, size if limit is None else limit, kinds, size, head)
        domain = self._domain
        return (Record(header_of(domain, row), row.body) for row in rows)

    def read_time_to(
        self, size: int, first_tick: int, last_tick: int, last_tick_of: Callable[[Record], int] | None
    ) -> Iterator[Record]:
        """The records of a read that began at ``size``."""
        found, numbers = tee(self._spans.overlapping(first_tick, last_tick, size))
        for span, row in zip(found, self._log.at(one.seq for one in numbers), strict=True):
            if row.kind != INPUT or row.time != span.tick:
                rule = "its row there is not about an input of that tick"
                raise bad(str(self._handle.path), f"table span, record {span.seq}", rule, span.seq)
            record = Record(header_of(self._domain, row), row.body)
            if span.last is None and last_tick_of is not None and last_tick_of(record) < first_tick:
                continue
            yield record

    def _positions(self, rows: list[tuple[object, ...]]) -> dict[str, bytes]:
        positions = {}
        for source, cursor in rows:
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                raise bad(str(self._handle.path), "table source_cursor", "a row is not a name and its bytes")
            positions[source] = cursor
        return positions

    # --- writing ---

    def _write(self, group: Sequence[Submission]) -> list[Written]:
        """The transaction of a group commit."""
        self._handle.enter_writer("append")
        size, head = self._tail
        hlcs = self._stamps(size)
        linked: list[Linked] = []
        cursors: dict[str, bytes] = {}
        outcomes = []
        for submission in group:
            new = link(self._domain, size, head, submission.entries, *hlcs)
            first_seq, size, head = size + 1, size + len(new), new[-1].hash if new else head
            outcomes.append(Written(first_seq, size, head))
            linked += new
            cursors |= submission.cursors
        self._open = opened = OpenTransaction(self._db, self._tail)  # nobody's: its thread calls nothing in it
        try:
            self._transact(opened.db, linked, cursors, (size, head))
        except BaseException as error:
            self._settle(opened, error)
            raise
        finally:
            self._open = None
        self._handle.check_file()
        return outcomes

    def _transact(
        self, db: sqlite3.Connection, linked: Sequence[Linked], cursors: Mapping[str, bytes], tail: tuple[int, bytes]
    ) -> None:
        db.execute("BEGIN IMMEDIATE")
        self._insert(db, linked, cursors)
        self._commit(db, tail)

    def _insert(
        self, db: sqlite3.Connection, linked: Sequence[Linked], cursors: Mapping[str, bytes], *, index: bool = True
    ) -> None:
        insert_rows(db, "log", LOG_COLUMNS, rows_of(linked))
        self._spans.write(db, ((one.seq, one.body, one.last_tick) for one in linked if one.kind == INPUT))
        if self._shards is not None:
            self._shards.write(db, OWN, (one.record for one in linked))
        if index and self._index is not None and self._open is not None:
            self._index(self._open, linked)
        db.executemany("INSERT OR REPLACE INTO source_cursor VALUES (?, ?)", cursors.items())

    def _stamps(self, size: int) -> tuple[Iterator[int], ...]:
        """The stamps of what is written behind the first ``size`` records, if there is a clock."""
        if self._clock is None:
            return ()
        last = self._handle.select("append", "SELECT hlc FROM log WHERE id = ?", log_id(size))
        return (stamps(self._clock, last[0][0] if last else 0),)

    def _commit(self, db: sqlite3.Connection, tail: tuple[int, bytes]) -> None:
        moved = db.execute(
            "UPDATE domain SET size = ?, head = ? WHERE no = 1 AND size = ? AND head = ?", (*tail, *self._tail)
        )
        if moved.rowcount != 1:
            raise bad(str(self._handle.path), "table domain", "another program has written this journal")
        observe.stage("journal.inside")
        observe.stage("journal.commit")
        db.execute("COMMIT")
        self._tail = tail
        observe.stage("journal.after")

    def _check_open(self, opened: OpenTransaction) -> None:
        """A full disk may end a transaction; what was written behind that would be durable at once, and by itself."""
        if not opened.db.in_transaction:
            rule = "the database has ended this transaction after an error, and nothing of it is there"
            raise StoreFull(str(self._handle.path), rule, "leave the block, make room, and begin it again")

    def _settle(self, opened: OpenTransaction, error: BaseException) -> None:
        """After ``error``: nothing of the transaction is there, or the handle knows that it is. Raises what SQLite's mean."""
        opened.undo()
        self._roll_back(error)
        if isinstance(error, DATABASE_ERRORS):
            self._handle.fail(error, f"record {self._tail[0] + 1}", self._tail[0] + 1)

    def _roll_back(self, error: BaseException) -> None:
        """End the transaction. Where no I/O error did it, an interruption may have come after the commit: ask."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, DATABASE_ERRORS):
                self._tail = self._db.execute("SELECT size, head FROM domain WHERE no = 1").fetchone()
        except DATABASE_ERRORS as second:
            self._handle.failed = StoreFailed(
                str(self._handle.path),
                f"after {error!r}, ROLLBACK failed: {second}",
                "open the journal again and verify it",
            )

    def _check_tail(self, size: int) -> None:
        """What a writer continues has to be whole: the last record, its hash, and nothing behind it."""
        last = self._handle.select("open", "SELECT max(id) FROM log WHERE id < ?", log_id(0, OWN + 1))[0][0]
        if last != (log_id(size) if size else None):
            raise bad(str(self._handle.path), "table domain", f"its size is {size}, the log's last row is {last}")
        for _ in self._log.scan(max(size - 1, 0), 1, None, *self._tail):
            pass

    @property
    def _db(self) -> sqlite3.Connection:
        return self._handle.db
