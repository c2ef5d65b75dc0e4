"""A store in SQLite: one file NAME.tw with its key and lock beside it, or a directory. One writer, many readers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT, Artifact
from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody, Body, EdgeBody, PointerBody, ReceiptBody, TombstoneBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import InternalError, NotFound, OperatorError, TidewarpError
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.arrivals import Arrivals
from tidewarp.store.artifacts import INLINE_MAX, ArtifactTable, Content
from tidewarp.store.blocks import BlockFiles, BlockRows, Blocks
from tidewarp.store.chain import check_range
from tidewarp.store.collection import Collector, Pins
from tidewarp.store.connection import (
    DATABASE_ERRORS,
    connect,
    connect_read_only,
    failure,
    is_sealed,
    pragma,
    set_durable,
)
from tidewarp.store.continuation import check_arrived, check_awaited
from tidewarp.store.contract import Adopted, ArtifactInfo, DomainState, Entry, Scope, StoredRecord, Written
from tidewarp.store.damage import ByteSource, FsckReport
from tidewarp.store.domains import DomainTable
from tidewarp.store.files import (
    locate,
    no_journal,
    read_seed,
    refuse_foreign,
    refuse_shell,
    require_key,
    root_seed,
    sync_folder,
    writer_lock,
)
from tidewarp.store.fsck import Fsck
from tidewarp.store.handle import Handle
from tidewarp.store.index import RecordIndex
from tidewarp.store.journal import OpenTransaction, SqliteJournal
from tidewarp.store.payload import artifact_payload, check_room, opened
from tidewarp.store.query import StoreView
from tidewarp.store.query.tables import TableCatalog
from tidewarp.store.retention import GcReport, Guard, Pinned, check_held, check_outside
from tidewarp.store.rows import OWN
from tidewarp.store.schema import (
    JOURNAL_FORMAT,
    UNSET,
    Settings,
    check_format,
    check_schema,
    check_settings,
    create_tables,
    read_key,
    read_settings,
    write_quota,
)
from tidewarp.store.spans import FormerSpans, Spans, SpanTable
from tidewarp.store.speaking import Event, entry_of, erasing, hiding, lifting
from tidewarp.store.tables import SqliteTables, check_ddl, is_made, make_tables
from tidewarp.store.views import Views

__all__ = ["SqliteStore"]


class SqliteStore:
    """The :class:`~tidewarp.store.contract.Store` contract over files.

    Open for writing, it holds the lock; closed, the file stands alone. Open for reading it takes no lock and makes no key;
    it may stand beside a live writer, and whatever a killed one left. In a directory that cannot be written, a
    journal that nobody has open is read as immutable.

    A handle belongs to the process that opened it: after fork() the child is refused before SQLite sees it.

    Args:
        path: a file, or a directory that is there.
        create: make the store if there is none.
        read_only: see above.
        settings: of a store that is made.
        key: Ed25519 seed (32 bytes) of a store that is made; None: a new one.
        admission: whose records count.
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
    ) -> None:
        if create and read_only:
            raise OperatorError(str(path), "a journal cannot be created read-only", "leave one of the two out")
        self._pid = os.getpid()
        self._place = locate(path, create=create, read_only=read_only)
        self._path = self._place.database
        self._admission = admission
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

    # --- artifacts ---

    def put(self, source: bytes | Path | BinaryIO, *, tag: int | None = None, publish: bool = True) -> Reference:
        """As the contract says."""
        self._enter_writer("put")
        with self._arrivals.kept():
            with opened(source, self._artifacts.room([tag]), self._path.parent) as payload:
                content = self._artifacts.content(payload, tag)
            self._put("put", [content], publish)
        return content.ref

    def put_many(self, items: Iterable[tuple[bytes, int | None]], *, publish: bool = True) -> list[Reference]:
        """As the contract says."""
        self._enter_writer("put_many")
        with self._arrivals.kept():
            contents = self._artifacts.contents(items)
            self._put("put_many", contents, publish)
        return [one.ref for one in contents]

    def put_edge(self, edge: Edge, *, publish: bool = True) -> Reference:
        """As the contract says."""
        self._enter_writer("put_edge")
        return self._put_told("put_edge", EdgeBody(edge), Artifact(edge.to_bytes(), TAG_EDGE), publish)

    def put_receipt(
        self, receipt: bytes, key: bytes, outputs: Sequence[Reference], *, publish: bool = True
    ) -> Reference:
        """As the contract says."""
        self._enter_writer("put_receipt")
        artifact = Artifact(receipt, TAG_RECEIPT)
        body = ReceiptBody(artifact.reference(), key, tuple(outputs))
        return self._put_told("put_receipt", body, artifact, publish)

    def get(self, ref: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        """As the contract says."""
        self._enter("get")
        return self._artifacts.get(ref, offset, length)

    def open(self, ref: Reference) -> BinaryIO:
        """As the contract says."""
        self._enter("open")
        return self._artifacts.open(ref)

    def info(self, ref: Reference) -> ArtifactInfo:
        """As the contract says."""
        self._enter("info")
        return self._artifacts.info(ref)

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """As the contract says."""
        self._enter("has")
        return self._artifacts.has(refs)

    def edges(
        self, type: int | None = None, source: Reference | None = None, target: Reference | None = None
    ) -> list[tuple[Reference, Edge]]:
        """As the contract says."""
        self._enter("edges")
        found = self._index.edges(type, source, target)
        return [(ref, Edge.from_bytes(self._artifacts.get(ref, 0, None))) for ref in found]

    def tombstone(self, ref: Reference, *, scope: Scope = "domain", reason: int = 0, note: str = "") -> Written:
        """As the contract says."""
        self._enter_writer("tombstone")
        with self._journal.transaction("tombstone") as transaction:
            entry = hiding(ref, self.domain, self._events(ref), scope, reason, note)
            return self._journal.extend(transaction, [entry])

    def lift(self, ref: Reference, *, scope: Scope = "domain", tombstone: bytes | None = None) -> Written:
        """As the contract says."""
        self._enter_writer("lift")
        with self._journal.transaction("lift") as transaction:
            entry = lifting(ref, self.domain, self._events(ref), scope, tombstone, self._stone_at)
            return self._journal.extend(transaction, [entry])

    def point(self, name: str, ref: Reference, supersedes: Sequence[bytes] = ()) -> Written:
        """As the contract says."""
        self._enter_writer("point")
        with self._journal.transaction("point") as transaction:
            return self._journal.extend(
                transaction, [entry_of(PointerBody(name, tuple(supersedes), ref), publish=True)]
            )

    def erase(self, ref: Reference, reason: int = 0) -> Written:
        """As the contract says. Pages that held small artifacts are overwritten; what a disk keeps of a file is its affair."""
        self._enter_writer("erase")
        self._artifacts.info(ref)
        with self._journal.transaction("erase") as transaction:
            entry = erasing(ref, self.domain, self._events(ref), reason)
            transaction.undone.append(self._artifacts.count_again)
            self._artifacts.erase(transaction.db, ref)
            written = self._journal.extend(transaction, [entry])
        if not self._handle.in_transaction:
            self._collector.drop_orphans()
        return written

    # --- what is kept ---

    def pin(self, name: str, what: Pinned) -> None:
        """As the contract says."""
        self._enter_writer("pin")
        if isinstance(what, Snapshot):
            check_held(what, self._domains.hash_at)
        else:
            self._artifacts.info(what)
        self._pins.put(name, what)

    def unpin(self, name: str) -> None:
        """As the contract says."""
        self._enter_writer("unpin")
        self._pins.remove(name)

    def pins(self) -> dict[str, Pinned]:
        """As the contract says."""
        self._enter("pins")
        return self._pins.all()

    def gc(
        self, budget_s: float, guards: Sequence[Guard] = (), dry_run: bool = False, *, clock: Clock | None = None
    ) -> GcReport:
        """As the contract says."""
        (self._enter if dry_run else self._enter_writer)("gc")
        return self._collector.run(budget_s, guards, dry_run, clock or WallClock())

    def fsck(
        self, repair: bool = False, sources: Sequence[ByteSource] = (), *, clock: Clock | None = None
    ) -> FsckReport:
        """As the contract says. Without ``repair`` it reads the file beside a writer, in one state of it."""
        (self._enter_writer if repair else self._enter)("fsck")
        time, path = clock or WallClock(), self._path
        if repair:
            check_outside("fsck", in_transaction=self._handle.in_transaction)
            with self._journal.transaction("fsck") as transaction:
                transaction.undone.append(self._domains.trees.forget)
                inline_max = self._artifacts.inline_max
                fsck = Fsck(self._handle, self._blocks, transaction, sources, inline_max, time, self._is_shown)
                report = fsck.run()
            self._forget()
            self._collector.drop_orphans()
            for file in fsck.temporary:
                file.unlink(missing_ok=True)
            return report
        with closing(connect_read_only(path, immutable=is_sealed(path))) as db:
            db.execute("BEGIN")
            handle = Handle(path, db, None)
            blocks = BlockRows(handle) if self._place.blocks is None else BlockFiles(self._place.blocks, handle)
            return Fsck(handle, blocks, None, (), self._artifacts.inline_max, time, self._is_shown).run()

    # --- state ---

    def view(self, snapshot: Snapshot | None = None, *, scope: Literal["published", "all"] = "published") -> StoreView:
        """As the contract says."""
        return self._folded("view").view(snapshot, scope)

    def snapshot(self) -> Snapshot:
        """As the contract says."""
        return self._folded("snapshot").snapshot()

    def state_hash(self, scope: Literal["published", "all"] = "published") -> bytes:
        """As the contract says."""
        return self._folded("state_hash").state_hash(scope)

    def admit(self, admission: Admission, rivals: Iterable[RecordHeader] = ()) -> None:
        """As the contract says."""
        self._enter("admit")
        self._views.admit(admission, rivals)

    # --- domains ---

    def domains(self) -> list[DomainState]:
        """As the contract says."""
        self._enter("domains")
        return self._domains.states()

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """As the contract says."""
        self._enter("records")
        check_range(after, limit)
        return self._domains.records(domain, after, limit)

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """As the contract says."""
        self._enter("hash_at")
        return self._domains.hash_at(domain, seq)

    def root_at(self, domain: bytes, size: int) -> bytes:
        """As the contract says."""
        self._enter("root_at")
        return self._domains.root_at(domain, size)

    def frontier(self, domain: bytes) -> Frontier:
        """As the contract says."""
        self._enter("frontier")
        return self._domains.frontier(domain)

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> list[bytes]:
        """As the contract says."""
        self._enter("inclusion_proof")
        return self._domains.trees.inclusion_proof(self._domains.held(domain), seq, size)

    def consistency_proof(self, domain: bytes, first: int, second: int) -> list[bytes]:
        """As the contract says."""
        self._enter("consistency_proof")
        return self._domains.trees.consistency_proof(self._domains.held(domain), first, second)

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        """As the contract says. Nothing is signed within a transaction: what is in it may not come to be."""
        self._enter("signed_head")
        row = self._domains.row(self.domain if domain is None else domain)
        if row is None:
            return None
        head = self._domains.stored_head(row.no)
        may_sign = row.no == OWN and self._handle.writer is not None and not self._handle.in_transaction
        if not may_sign or (head is not None and head.size == row.size):
            return head
        with self._journal.transaction("signed_head") as transaction:
            row = self._domains.held(self.domain)
            transaction.undone.append(self._domains.trees.forget)
            root = self._domains.trees.extend(transaction.db, row, []).root()
            seed = read_seed(self._place)
            head = sign_head(row.id, row.size, root, row.head, f"tidewarp/{row.id.hex()}", seed)
            self._domains.keep_head(transaction, OWN, public_key_of(seed), head)
        return head

    def adopt(
        self,
        domain: bytes,
        items: Sequence[BatchItem],
        head: SignedHead,
        *,
        key: bytes,
        sources: Mapping[Reference, BinaryIO] | None = None,
    ) -> Adopted:
        """As the contract says."""
        self._enter_writer("adopt")
        return self._domains.adopt(domain, items, head, key, sources or {})

    def supply(self, ref: Reference, source: BinaryIO) -> None:
        """As the contract says."""
        self._enter_writer("supply")
        check_awaited(self._artifacts.info, ref)
        payload, tag = artifact_payload(source, f"artifact {ref.hex()}")
        check_room(payload.size, self._artifacts.room(), f"artifact {ref.hex()}")
        with self._arrivals.kept():
            content = self._artifacts.content(payload, tag)
            check_arrived(ref, content.ref)
            with self._journal.transaction("supply") as transaction:
                self._artifacts.keep(transaction, [content])

    def cut_back(self, domain: bytes, size: int) -> None:
        """As the contract says."""
        self._enter_writer("cut_back")
        self._domains.cut_back(domain, size)
        self._views.forget()

    # --- transactions ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As the contract says."""
        self._enter_writer("transaction")
        with self._journal.transaction():
            yield

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> SqliteTables:
        """As the contract says."""
        self._enter("extension")
        check_ddl(name, ddl)
        if not is_made(self._handle, name, version, ddl):
            if self._handle.writer is None:
                raise NotFound(f"tables of {name}", "nothing has been written to them", "open the store for writing")
            with self._journal.transaction("extension") as transaction:
                make_tables(transaction.db, name, version, ddl)
        return SqliteTables(self._handle, self._journal.transaction)

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

    # --- settings ---

    def set_quota(self, quota_bytes: int | None) -> None:
        """As the contract says."""
        self._enter_writer("set_quota")
        check_settings(Settings(quota_bytes))
        with self._journal.transaction("set_quota") as transaction:
            transaction.undone.append(partial(self._artifacts.set_quota, self._artifacts.quota_bytes))
            write_quota(transaction.db, quota_bytes)
            self._artifacts.set_quota(quota_bytes)

    # --- writing ---

    def _put(self, call: str, contents: Sequence[Content], publish: bool) -> None:
        with self._journal.transaction(call) as transaction:
            first_new = self._artifacts.next_number(transaction.db)
            numbers = self._artifacts.keep(transaction, contents)
            known = [no for no in numbers if no < first_new]
            shown = self._index.shown(transaction.db, known, publish=publish)
            news = {no: one for no, one in zip(numbers, contents, strict=True) if no not in shown}
            if not news:
                return
            flags = PUBLISHED if publish else 0
            entries = [
                Entry(ARTIFACT, ArtifactBody(ref, tag, size).to_bytes(), flags) for ref, tag, size, *_ in news.values()
            ]
            first, *_ = self._journal.extend(transaction, entries, index=False)
            events = ((no, OWN, seq, ARTIFACT, flags) for seq, no in enumerate(news, first))
            self._index.write_events(transaction.db, events)

    def _put_told(self, call: str, body: Body, artifact: Artifact, publish: bool) -> Reference:
        ref = artifact.reference()
        with self._journal.transaction(call) as transaction:
            content = Content(ref, artifact.tag, len(artifact.payload), artifact.payload)
            (no,) = self._artifacts.keep(transaction, [content])
            if no not in self._index.shown(transaction.db, [no], publish=publish):
                self._journal.extend(transaction, [entry_of(body, publish=publish)])
        return ref

    def _is_shown(self, ref: Reference) -> bool:
        return self._views.view(None, "published").is_visible(ref)

    def _events(self, ref: Reference) -> list[Event]:
        domains = {row.no: row.id for row in self._domains.rows()}
        return [Event(domains[no], *rest) for no, *rest in self._index.events(ref)]

    def _stone_at(self, seq: int) -> tuple[TombstoneBody, bytes]:
        (record,) = self._domains.records(self.domain, seq - 1, 1)
        return TombstoneBody.from_bytes(record.body or b""), record_hash(record.header.to_bytes())

    def _folded(self, call: str) -> Views:
        self._enter(call)
        transaction = self._journal.open_transaction
        if transaction is not None:
            transaction.undone.append(self._views.forget)
        return self._views

    # --- opening ---

    def _enter(self, call: str) -> None:
        self._handle.enter(call)
        if self._format == JOURNAL_FORMAT:
            raise OperatorError(
                f"{call}: {self._path}", "a file of format 1 is a journal and nothing else", "begin a new store for it"
            )

    def _enter_writer(self, call: str) -> None:
        self._enter(call)
        self._handle.enter_writer(call)

    def _unopened(self, error: Exception) -> TidewarpError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
            return failure(error, self._path, "opening it")
        return no_journal(self._path, error)

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
            set_durable(self._db, self._path)
            create_tables(self._db, public_key_of(root_seed(self._place)), settings)
            sync_folder(self._path)
        self._check()
        set_durable(self._db, self._path)
        reader = opened_parts.enter_context(closing(connect_read_only(self._path)))
        self._bind(Handle(self._path, reader, self._db))
        require_key(self._place, self._journal.domain)
        if self._place.blocks is not None:
            BlockFiles(self._place.blocks, self._handle).prepare()
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
        self._journal = SqliteJournal(handle, spans, None if is_former else self._index.write_own)
        key = read_key(handle.reader, str(self._path))
        self._domains = DomainTable(handle, self._journal, spans, self._artifacts, self._index, key)
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
            TableCatalog(self._handle, self._domains),
        )
        views.admit(admission, rivals)
        return views

    def _forget(self) -> None:
        """What was derived from rows that were made anew."""
        self._domains.trees.forget()
        self._artifacts.count_again()
        self._views.forget()

    def _transaction(self, call: str) -> AbstractContextManager[OpenTransaction]:
        return self._journal.transaction(call)

    def _leave(self) -> None:
        self._journal.close()
        if self._handle.failed is None:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
