"""A store in one SQLite file NAME.tw, with NAME.tw.key and NAME.tw.lock beside it. One writer, many readers."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from tidewarp.errors import InternalError, OperatorError, TidewarpError
from tidewarp.store.connection import DATABASE_ERRORS, connect, connect_read_only, failure, set_durable
from tidewarp.store.files import public_key_of, refuse_shell, require_key, resolve, root_seed, sync_folder, writer_lock
from tidewarp.store.journal import SqliteJournal
from tidewarp.store.schema import check_format, check_schema, create_tables, pragma

__all__ = ["SqliteStore"]


class SqliteStore:
    """The :class:`~tidewarp.store.contract.Store` contract over a file.

    Open for writing, it holds the lock; closed, the file stands alone. Open for reading it takes no lock and makes no key;
    it may stand beside a live writer, and whatever a killed one left. In a directory that cannot be written, a
    journal that nobody has open is read as immutable.

    A handle belongs to the process that opened it: after fork() the child is refused before SQLite sees it.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False, read_only: bool = False) -> None:
        if create and read_only:
            raise OperatorError(str(path), "a journal cannot be created read-only", "leave one of the two out")
        self._pid = os.getpid()
        self._path = resolve(path, create=create, read_only=read_only)
        with ExitStack() as opened:
            try:
                self._journal = self._open_reader(opened) if read_only else self._open_writer(opened, create)
            except DATABASE_ERRORS as error:
                raise self._unopened(error) from error
            self._opened = opened.pop_all()

    @property
    def journal(self) -> SqliteJournal:
        """The journal of the store's own domain."""
        return self._journal

    def close(self) -> None:
        """Commit what is queued, move everything into the file itself, release the lock. Safe to call twice.

        Raises:
            StoreFull, StoreFailed: the file could not take over the -wal file beside it; keep both, nothing is lost.
        """
        if os.getpid() != self._pid:
            raise InternalError("close", f"the store was opened by process {self._pid}", "let that process close it")
        try:
            self._opened.close()
        except DATABASE_ERRORS as error:
            raise failure(error, self._path, "closing it") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unopened(self, error: Exception) -> TidewarpError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
            return failure(error, self._path, "opening it")
        action = "give the path of a .tw file; if it was one, restore it from a copy"
        return OperatorError(f"{self._path}: page 1", f"this is not a tidewarp journal: {error}", action)

    def _open_reader(self, opened: ExitStack) -> SqliteJournal:
        # Immutable only if nobody has it open: of a live or killed writer, newer records are in the -wal file.
        alone = not os.path.exists(f"{self._path}-wal") and not os.access(self._path.parent, os.W_OK)
        self._db = opened.enter_context(closing(connect_read_only(self._path, immutable=alone)))
        self._check()
        journal = SqliteJournal(self._path, self._db, None)
        opened.callback(journal.close)
        return journal

    def _open_writer(self, opened: ExitStack, create: bool) -> SqliteJournal:
        opened.enter_context(writer_lock(self._path))
        if create and not self._path.exists():
            root_seed(self._path)  # before the database: no journal may lose its identity by a crash
        self._db = opened.enter_context(closing(connect(self._path)))
        if create and not pragma(self._db, "application_id") and not pragma(self._db, "schema_version"):
            refuse_shell(self._path)
            set_durable(self._db, self._path)
            create_tables(self._db, public_key_of(root_seed(self._path)))
            sync_folder(self._path)
        self._check()
        set_durable(self._db, self._path)
        reader = opened.enter_context(closing(connect_read_only(self._path)))
        journal = SqliteJournal(self._path, reader, self._db)
        require_key(self._path, journal.domain)
        opened.callback(self._leave, journal)
        return journal

    def _check(self) -> None:
        check_format(self._db, str(self._path))
        check_schema(self._db, str(self._path))

    def _leave(self, journal: SqliteJournal) -> None:
        journal.close()
        if not journal.failed:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
