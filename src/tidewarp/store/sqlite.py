"""A store in SQLite: one file NAME.tw with its key and lock beside it, or a directory. One writer, many readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import BinaryIO, Literal

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import PUBLISHED, RecordHeader, record_hash
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT, Artifact
from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import (
    ARTIFACT,
    Body,
    EdgeBody,
    PointerBody,
    ReceiptBody,
    SnapshotBody,
    TombstoneBody,
    artifact_body,
)
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.collector import collector_paused
from tidewarp.errors import NotFound, OperatorError
from tidewarp.store.admission import Admission
from tidewarp.store.artifacts import Content
from tidewarp.store.blocks import BlockFiles, BlockRows
from tidewarp.store.chain import check_name, check_range
from tidewarp.store.connection import connect_read_only, is_sealed
from tidewarp.store.continuation import check_arrived, check_awaited
from tidewarp.store.contract import Adopted, ArtifactInfo, DomainState, Scope, StoredRecord, Written
from tidewarp.store.damage import ByteSource, FsckReport
from tidewarp.store.files import keep_signing_seed, require_key
from tidewarp.store.fsck import Fsck
from tidewarp.store.handle import Handle
from tidewarp.store.opening import OpenedStore
from tidewarp.store.payload import artifact_payload, check_room, opened
from tidewarp.store.query import StoreView
from tidewarp.store.retention import GcReport, Guard, Pinned, check_held, check_outside
from tidewarp.store.rows import OWN
from tidewarp.store.schema import JOURNAL_FORMAT, Settings, check_settings, write_quota
from tidewarp.store.shards import ShardMap
from tidewarp.store.signers import keys_of
from tidewarp.store.snapshots import Item, snapshot_items
from tidewarp.store.speaking import Event, entry_of, erasing, hiding, lifting
from tidewarp.store.tables import SqliteTables, check_ddl, is_made, make_tables

__all__ = ["SqliteStore"]


class SqliteStore(OpenedStore):
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
        clock: stamps the records that are written; None: they have no stamp.
    """

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
        items = list(items)
        with collector_paused(), self._arrivals.kept():
            return self._put_all(items, publish)

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
        if self._format == JOURNAL_FORMAT:  # the rest of _enter() is done where it reads
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

    def small(self, refs: Sequence[Reference], bytes_max: int) -> dict[Reference, bytes]:
        """As the contract says."""
        self._enter("small")
        return self._artifacts.small(refs, bytes_max)

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
                checks = Fsck(self._handle, self._blocks, transaction, sources, inline_max, time, self._is_shown)
                report = checks.run()
            self._forget()
            self._collector.drop_orphans()
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

    def snapshot(self, name: str | None = None) -> Snapshot:
        """As the contract says."""
        if name is None:
            return self._folded("snapshot").snapshot()
        check_name(name, "snapshot")
        self._enter_writer("snapshot")
        with self._journal.transaction("snapshot") as transaction:
            found = self._folded("snapshot").snapshot()
            self._journal.extend(transaction, [entry_of(SnapshotBody(found, name), publish=True)])
        return found

    def snapshot_items(self, snapshot_id: bytes) -> Iterator[Item]:
        """As the contract says."""
        self._enter("snapshot_items")
        return snapshot_items(self, snapshot_id)

    def state_hash(self, scope: Literal["published", "all"] = "published") -> bytes:
        """As the contract says."""
        return self._folded("state_hash").state_hash(scope)

    @property
    def admission(self) -> Admission:
        """As the contract says."""
        self._enter("admission")
        return self._views.admission

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

    def withheld(self, domain: bytes, after: int, limit: int) -> list[int]:
        """As the contract says."""
        self._enter("withheld")
        check_range(after, limit)
        return self._domains.withheld(domain, after, limit)

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
            root = self._domains.trees.extend(transaction.db, row).root()
            head = self._signed(row, root)
            self._domains.keep_head(transaction, row, self._domains.key, head)
        return head

    def signed_heads(self, domain: bytes | None = None) -> list[SignedHead]:
        """As the contract says."""
        self._enter("signed_heads")
        if domain in (None, self.domain):
            self.signed_head()
        row = self._domains.row(domain or self.domain)
        return [] if row is None else self._domains.stored_heads(row.no)

    def keys_record(self, domain: bytes, size: int) -> StoredRecord | None:
        """As the contract says."""
        self._enter("keys_record")
        row = self._domains.row(domain)
        return None if row is None else self._domains.keys_record(row, size)

    @property
    def signer(self) -> bytes:
        """The public key (32 bytes) that signs the own heads: the root key, or one that the domain has named."""
        self._enter("signer")
        seed = self._declared_seed()
        return self._domains.key if seed is None else public_key_of(seed)

    def sign_with(self, seed: bytes | None) -> None:
        """Sign the own heads with the key of ``seed`` (32 bytes) from now on; None: with the root key again.

        The seed is kept beside the root key, mode 0600. A last head is signed now, by who was allowed to until now.

        Raises:
            OperatorError: the last KEYS record that a signed head covers does not name it, the root key is not here to take
                over, or a file cannot be written.
        """
        self._enter_writer("sign_with")
        check_outside("sign_with", in_transaction=self._handle.in_transaction)
        head = self.signed_head()
        if seed is None:
            require_key(self._place, self.domain)
        elif public_key_of(seed) not in keys_of(self.keys_record(self.domain, 0 if head is None else head.size)):
            raise OperatorError(
                f"key {public_key_of(seed).hex()}",
                "the last KEYS record of the domain does not name it",
                "declare it: tidewarp store keys DIR --add HEX",
            )
        keep_signing_seed(self._place, seed)

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

    def reveal(
        self, domain: bytes, items: Sequence[BatchItem], *, sources: Mapping[Reference, BinaryIO] | None = None
    ) -> int:
        """As the contract says."""
        self._enter_writer("reveal")
        with self._journal.transaction("reveal") as transaction:
            transaction.ended.append(self._views.forget)
            revealed = self._domains.reveal(domain, items, sources or {})
            self._views.forget()
        return revealed

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
        with self._journal.transaction("cut_back") as transaction:
            transaction.ended.append(self._views.forget)
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

    # --- settings ---

    def set_quota(self, quota_bytes: int | None) -> None:
        """As the contract says."""
        self._enter_writer("set_quota")
        check_settings(Settings(quota_bytes))
        with self._journal.transaction("set_quota") as transaction:
            transaction.undone.append(partial(self._artifacts.set_quota, self._artifacts.quota_bytes))
            write_quota(transaction.db, quota_bytes)
            self._artifacts.set_quota(quota_bytes)

    def room(self) -> int | None:
        """As the contract says."""
        self._enter("room")
        return self._artifacts.room()

    @property
    def shard_map(self) -> ShardMap:
        """As the contract says."""
        self._enter("shard_map")
        return self._shards.map()

    def reshard(self, shard_map: ShardMap) -> None:
        """As the contract says. One transaction: whoever reads meanwhile, and a store that dies in it, has the map before."""
        self._enter_writer("reshard")
        with self._journal.transaction("reshard") as transaction:
            if shard_map != self._shards.map():
                self._shards.replace(transaction.db, shard_map)

    # --- writing ---

    def _put_all(self, items: Sequence[tuple[bytes, int | None]], publish: bool) -> list[Reference]:
        contents = self._artifacts.contents(items)
        self._put("put_many", contents, publish)
        return [one.ref for one in contents]  # all else is gone when the collector looks again

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
            bodies = [artifact_body(ref, tag, size) for ref, tag, size, *_ in news.values()]
            entries = zip(repeat(ARTIFACT), bodies, repeat(flags), repeat(None))
            first, *_ = self._journal.extend(transaction, entries, index=False)
            events = zip(news, repeat(OWN), count(first), repeat(ARTIFACT), repeat(flags))
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
