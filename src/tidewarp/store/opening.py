"""Opening a store in SQLite: the lock, the connections, and its parts put together."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, closing
from types import TracebackType
from typing import Self

from tidewarp.clocks.pacing import Clock
from tidewarp.codec import RecordHeader
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.errors import InternalError, OperatorError, StoreFull, TidewarpError
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.arrivals import Arrivals
from tidewarp.store.artifacts import INLINE_MAX, ArtifactTable
from tidewarp.store.blocks import BlockFiles, BlockRows, Blocks
from tidewarp.store.collection import Collector
from tidewarp.store.connection import (
    DATABASE_ERRORS,
    connect,
    connect_read_only,
    failure,
    is_sealed,
    pragma,
    set_durable,
    widen_cache,
)
from tidewarp.store.domains import DomainTable
from tidewarp.store.files import (
    locate,
    no_journal,
    read_seed,
    refuse_foreign,
    refuse_shell,
    require_key,
    root_seed,
    signing_seed,
    sync_folder,
    writer_lock,
)
from tidewarp.store.handle import Handle
from tidewarp.store.index import RecordIndex
from tidewarp.store.journal import OpenTransaction, SqliteJournal
from tidewarp.store.pins import Pins
from tidewarp.store.query.tables import TableCatalog
from tidewarp.store.rows import OWN
from tidewarp.store.schema import (
    JOURNAL_FORMAT,
    PAGE_BYTES,
    UNSET,
    DomainRow,
    Settings,
    check_format,
    check_schema,
    create_tables,
    read_key,
    read_settings,
)
from tidewarp.store.sharding import ShardTable
from tidewarp.store.signers import EARLIER_HEADS_MAX, keys_of
from tidewarp.store.spans import FormerSpans, Spans, SpanTable
from tidewarp.store.views import Views

__all__ = ["OpenedStore"]


class OpenedStore:
    """The parts of a store over files, from its opening to its end.

    Args:
        path: a file, or a directory that is there.
        create: make the store if there is none.
        read_only: take no lock, write nothing.
        settings: of a store that is made.
        key: Ed25519 seed (32 bytes) of a store that is made; None: a new one.
        admission: whose records count.
        clock: stamps the records that are written; None: they have no stamp.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        read_only: bool = False,
        settings: Settings = UNSET,
        key: bytes | None = None,
        admission: Admission = OPEN,
        clock: Clock | None = None,
    ) -> None:
        if create and read_only:
            raise OperatorError(str(path), "a journal cannot be created read-only", "leave one of the two out")
        self._pid = os.getpid()
        self._place = locate(path, create=create, read_only=read_only)
        self._path = self._place.database
        self._admission = admission
        self._clock = clock
        with ExitStack() as opened_parts:
            try:
                if read_only:
                    self._open_reader(opened_parts)
                else:
                    self._open_writer(opened_parts, create, settings, key)
            except DATABASE_ERRORS as error:
                raise self._unopened(error) from error
            self._opened = opened_parts.pop_all()

    @property
    def journal(self) -> SqliteJournal:
        """The journal of the store's own domain."""
        return self._journal

    @property
    def domain(self) -> bytes:
        """The domain that this store writes, 32 bytes."""
        return self._journal.domain

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
            raise self._unclosed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it. Where the block has failed, its error is raised, with what more went wrong as a note."""
        try:
            self.close()
        except TidewarpError as unclosed:
            if error is None:
                raise
            error.add_note(str(unclosed))

    def _enter(self, call: str) -> None:
        self._handle.enter(call)
        if self._format == JOURNAL_FORMAT:
            raise OperatorError(
                str(self._path),
                f"a file of format 1 is a journal and nothing else: it has no {call}",
                "copy it: tidewarp store upgrade OLD.tw NEW",
            )

    def _enter_writer(self, call: str) -> None:
        self._enter(call)
        self._handle.enter_writer(call)

    def _unopened(self, error: Exception) -> TidewarpError:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
            rule = f"no room for {self._path.name}-shm, which all who have it open share (SQLITE_IOERR_SHMSIZE)"
            return StoreFull(f"{self._path}: opening it", rule, "make room; nothing was written, and nothing is lost")
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
            return failure(error, self._path, "opening it")
        return no_journal(self._path, error)

    def _unclosed(self, error: Exception) -> TidewarpError:
        found = failure(error, self._path, "closing it")
        if not isinstance(found, StoreFull):
            return found
        action = f"make room; nothing is lost: {self._path.name}-wal has what did not fit, keep it beside the file"
        return StoreFull(found.value, found.rule, action)

    def _open_reader(self, opened_parts: ExitStack) -> None:
        # Immutable only if nobody has it open: of a live or killed writer, newer records are in the -wal file.
        self._db = opened_parts.enter_context(closing(connect_read_only(self._path, immutable=is_sealed(self._path))))
        self._check()
        self._bind(Handle(self._path, self._db, None))
        opened_parts.callback(self._journal.close)

    def _open_writer(self, opened_parts: ExitStack, create: bool, settings: Settings, key: bytes | None) -> None:
        refuse_foreign(self._place)
        opened_parts.enter_context(writer_lock(self._place))
        if create and not self._path.exists():
            root_seed(self._place, key)  # before the database: no journal may lose its identity by a crash
        self._db = opened_parts.enter_context(closing(connect(self._path)))
        if create and not pragma(self._db, "application_id") and not pragma(self._db, "schema_version"):
            refuse_shell(self._place)
            if self._place.blocks is not None:
                self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            set_durable(self._db, self._path)
            create_tables(self._db, public_key_of(root_seed(self._place)), settings)
            sync_folder(self._path)
        self._check()
        set_durable(self._db, self._path)
        if self._place.blocks is not None:  # a journal alone changes few pages at a time
            widen_cache(self._db)
        reader = opened_parts.enter_context(closing(connect_read_only(self._path)))
        self._bind(Handle(self._path, reader, self._db))
        if self._declared_seed() is None or self._place.key.exists():
            require_key(self._place, self._journal.domain)
        opened_parts.callback(self._leave)

    def _check(self) -> None:
        self._format = check_format(self._db, str(self._path))
        check_schema(self._db, str(self._path))

    def _bind(self, handle: Handle) -> None:
        """Put the parts together; those of format 2 wait unused in a file of format 1."""
        self._handle = handle
        self._arrivals = Arrivals()
        settings = read_settings(handle.reader, str(self._path))
        blocks: Blocks
        if self._place.blocks is None:
            blocks = BlockRows(handle, self._transaction, self._arrivals)
        else:
            blocks = BlockFiles(self._place.blocks, handle, self._arrivals)
        self._blocks = blocks
        inline_max = INLINE_MAX if settings.inline_max is None else settings.inline_max
        self._artifacts = ArtifactTable(handle, blocks, inline_max, settings.quota_bytes)
        self._index = RecordIndex(handle, self._artifacts)
        is_former = self._format == JOURNAL_FORMAT
        spans: Spans = FormerSpans(handle) if is_former else SpanTable(handle)
        self._shards = ShardTable(handle)
        self._journal = (
            SqliteJournal(handle, spans, clock=self._clock)
            if is_former
            else SqliteJournal(handle, spans, self._index.write_own, self._shards, self._clock)
        )
        key = read_key(handle.reader, str(self._path))
        self._domains = DomainTable(handle, self._journal, spans, self._artifacts, self._index, self._shards, key)
        self._views = self._made_views(self._admission, ())
        self._pins = Pins(handle, self._journal)
        self._collector = Collector(
            handle,
            self._journal,
            self._artifacts,
            blocks,
            self._arrivals,
            self._domains,
            self._pins,
            self._views,
            lambda: self._made_views(self._views.admission, self._views.rivals),
        )

    def _made_views(self, admission: Admission, rivals: Iterable[RecordHeader]) -> Views:
        """Views of what this thread sees."""
        views = Views(
            admission,
            lambda: [(row.id, row.size) for row in self._domains.rows()],
            self._domains.folded,
            TableCatalog(self._handle, self._domains, self._shards),
        )
        views.admit(admission, rivals)
        return views

    def _folded(self, call: str) -> Views:
        self._enter(call)
        transaction = self._journal.open_transaction
        if transaction is not None:
            transaction.undone.append(self._views.forget)
        return self._views

    def _forget(self) -> None:
        """What was derived from rows that were made anew."""
        self._domains.trees.forget()
        self._artifacts.count_again()
        self._views.forget()

    def _transaction(self, call: str) -> AbstractContextManager[OpenTransaction]:
        return self._journal.transaction(call)

    def _declared_seed(self) -> bytes | None:
        """The seed (32 bytes) beside the root key, if the last head that was signed covers the KEYS record that names its key."""
        seed = None if self._format == JOURNAL_FORMAT else signing_seed(self._place)
        head = None if seed is None else self._domains.stored_head(OWN)
        if seed is None or head is None:
            return None
        row = self._domains.held(self._journal.domain)
        return seed if public_key_of(seed) in keys_of(self._domains.keys_record(row, head.size)) else None

    def _signed(self, row: DomainRow, root: bytes) -> SignedHead:
        """A new head of the own domain. Raises OperatorError: the root key has to sign it, and is not here."""
        seed, name = self._declared_seed(), f"tidewarp/{row.id.hex()}"
        if seed is not None:
            head = sign_head(row.id, row.size, root, row.head, name, seed)
            if len(self._domains.heads_before_next(row, self._domains.key, head)) <= EARLIER_HEADS_MAX:
                return head
        return sign_head(row.id, row.size, root, row.head, name, read_seed(self._place))

    def _leave(self) -> None:
        self._journal.close()
        if self._handle.failed is None:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
