"""A handle: the two connections of one open store, and what ends their use: a fork, a close, an I/O error."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tidewarp.errors import InternalError, OperatorError, StoreFailed
from tidewarp.store.connection import DATABASE_ERRORS, failure

__all__ = ["Handle"]


class Handle:
    """One connection that writes (None: open read-only) and one that reads, guarded.

    Each call of the store begins with :meth:`enter` or :meth:`enter_writer`. Reads go through :meth:`reading`: in the
    thread whose transaction is open they see what it has written, everywhere else what is durable.
    """

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection | None) -> None:
        self.path = path
        self.reader = reader
        self.writer = writer
        self.failed: StoreFailed | None = None
        """The I/O error that ended the use of this handle."""
        self.holder: int | None = None
        """The thread whose transaction is open."""
        self._pid = os.getpid()
        self._file = _file_of(path)
        self._lock = threading.RLock()
        self._closed = False

    @property
    def db(self) -> sqlite3.Connection:
        """The connection that writes, or the one that there is."""
        return self.reader if self.writer is None else self.writer

    @property
    def in_transaction(self) -> bool:
        """Is the open transaction, if there is one, this thread's?"""
        return self.holder is not None and self.holder == threading.get_ident()

    def enter(self, call: str) -> None:
        """Refuse ``call`` in another process, after a close and after an I/O error."""
        if self._closed or self.failed is not None or os.getpid() != self._pid:
            self._refuse(call)

    def enter_process(self, call: str) -> None:
        """Refuse ``call`` in a process that did not open the store."""
        if os.getpid() != self._pid:
            raise InternalError(
                call, f"the store was opened by process {self._pid}, and SQLite does not survive fork()", "open it here"
            )

    def enter_writer(self, call: str) -> None:
        """As :meth:`enter`; a store that is open read-only refuses too."""
        self.enter(call)
        if self.writer is None:
            raise OperatorError(f"{self.path}: {call}", "it is open read-only", "open it for writing")

    @contextmanager
    def reading_table(self, call: str, table: str) -> Iterator[sqlite3.Connection]:
        """As :meth:`reading`, with what SQLite's errors mean about that table. Raises as :meth:`fail`."""
        try:
            with self.reading(call) as db:
                yield db
        except DATABASE_ERRORS as error:
            self.fail(error, f"table {table}")

    @contextmanager
    def reading(self, call: str) -> Iterator[sqlite3.Connection]:
        """The connection to read from, for a moment: others wait. Raises DATABASE_ERRORS."""
        if self.in_transaction:
            self.enter(call)
            yield self.db
            return
        with self._lock:
            self.enter(call)  # under the lock, because another thread may close the store
            yield self.reader

    def select(self, call: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a SELECT.

        Raises:
            Corrupt, StoreFailed, …: as :meth:`fail`, with the table's name.
        """
        try:
            if self.holder is not None and self.in_transaction:
                self.enter(call)
                return self.db.execute(statement, values).fetchall()
            with self._lock:
                self.enter(call)  # under the lock, because another thread may close the store
                return self.reader.execute(statement, values).fetchall()
        except DATABASE_ERRORS as error:
            self.fail(error, f"table {statement.split(' FROM ')[1].split()[0]}")

    def fail(self, error: Exception, where: str, seq: int | None = None) -> NoReturn:
        """Raise what ``error`` of SQLite means; an I/O error ends the use of the handle."""
        met = failure(error, self.path, where, seq)
        if isinstance(met, StoreFailed):
            self.failed = met
        raise met from error

    def check_file(self) -> None:
        """Raise StoreFailed if the file has gone from its name: what SQLite writes then, nobody will find."""
        if _file_of(self.path) != self._file:
            rule = "the journal was removed or replaced while this run writes it"
            self.failed = StoreFailed(str(self.path), rule, "bring the file back, then --resume")
            raise self.failed

    def _refuse(self, call: str) -> NoReturn:
        self.enter_process(call)
        if self.failed is None or self._closed:
            raise InternalError(call, "the store is closed", "open it again")
        raise StoreFailed(*self.failed.args) from self.failed

    def close(self) -> None:
        """Refuse everything from here on."""
        with self._lock:
            self._closed = True


def _file_of(path: Path) -> tuple[int, int] | None:
    """Which file has this name: device and number; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
