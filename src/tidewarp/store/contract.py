"""What the layers above see of a store: plain values and protocols. Backends: ``sqlite`` and ``memory``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol, TypeAlias

from tidewarp.clocks.pacing import Clock
from tidewarp.codec import RecordHeader
from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import DOMAIN, FEDERATION, STICKY
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.store.admission import Admission
from tidewarp.store.damage import ByteSource, FsckReport
from tidewarp.store.journal_contract import CURSOR_BYTES_MAX, NAME_BYTES_MAX, Entry, Journal, JournalHolder, Written
from tidewarp.store.query import StoreView
from tidewarp.store.retention import GcReport, Guard, Pinned
from tidewarp.store.shards import ShardMap
from tidewarp.store.snapshots import Item

__all__ = [
    "CURSOR_BYTES_MAX",
    "NAME_BYTES_MAX",
    "SCOPES",
    "Adopted",
    "ArtifactInfo",
    "ByteState",
    "DomainState",
    "Entry",
    "Journal",
    "JournalHolder",
    "Scope",
    "Store",
    "StoredRecord",
    "Tables",
    "Written",
]

Scope: TypeAlias = Literal["domain", "federation", "sticky"]
SCOPES: Mapping[str, int] = {"domain": DOMAIN, "federation": FEDERATION, "sticky": STICKY}
"""What a tombstone acts on: the own adds; those of all domains that are here; also those that come later."""


ByteState: TypeAlias = Literal["here", "withheld", "erased"]


class ArtifactInfo(NamedTuple):
    """What a store knows of an artifact: its tag, the bytes of its payload, and

    ``state``: "here", "withheld" (a record names it, its bytes have not come) or "erased" (they never will).
    ``published``: a published record adds it, so peers may have it.
    ``shown``: a domain that adds it has not hidden it again by a tombstone of its own.
    """

    ref: Reference
    tag: int | None
    size: int
    state: ByteState
    published: bool
    shown: bool


class DomainState(NamedTuple):
    """A contiguous prefix of a domain (32 bytes): how many records are here, the hash of the last.

    ``note`` is the last signed head of what is here, ``key`` the Ed25519 root public key (32 bytes), where known.
    """

    id: bytes
    status: str
    size: int
    head: bytes
    note: str | None
    key: bytes


class StoredRecord(NamedTuple):
    """A record as it is held. ``state``: 0 the body is here, 1 it is withheld, 2 it is erased."""

    header: RecordHeader
    state: int
    body: bytes | None


class Adopted(NamedTuple):
    """Which records a store has taken in. Of none, ``last_seq`` is the size and ``first_seq`` one more."""

    first_seq: int
    last_seq: int


class Tables(Protocol):
    """The tables of an upper layer in the store's database, so that both are durable together."""

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement, in the open transaction if there is one; its rows."""


class Store(JournalHolder, Protocol):
    """A journal, artifacts, and what other domains have written. A context manager that closes.

    Domains, hashes and keys have 32 bytes. Methods may be called from any thread of the process that opened it. Every
    one that writes raises StoreFull, StoreFailed and OperatorError as :meth:`Journal.append` does; a store of format 1,
    which is a journal alone, refuses with OperatorError what is not about its journal.
    """

    @property
    def domain(self) -> bytes:
        """The domain that this store writes."""

    # --- artifacts ---

    def put(self, source: bytes | Path | BinaryIO, *, tag: int | None = None, publish: bool = True) -> Reference:
        """Keep an artifact, durable on return. What the own domain shows already appends no record.

        A file is streamed; a stream of unknown length is written to a temporary file first. Where the same artifact is
        here and damaged, it is written anew.

        Raises:
            QuotaExceeded: by the size declared, before a byte is written.
            OperatorError: the file cannot be read, or changes meanwhile.
            CodecError: the tag is no U32.
        """

    def put_many(self, items: Iterable[tuple[bytes, int | None]], *, publish: bool = True) -> list[Reference]:
        """Keep many artifacts (payload, tag) in one transaction: the fast way. References in the order given."""

    def put_edge(self, edge: Edge, *, publish: bool = True) -> Reference:
        """Keep an edge."""

    def put_receipt(
        self, receipt: bytes, key: bytes, outputs: Sequence[Reference], *, publish: bool = True
    ) -> Reference:
        """Keep the bytes of a receipt, with the computation key and the outputs that its record names."""

    def get(self, ref: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        """Payload bytes, as a file would give them: none beyond its end. Hashed on every read.

        A part of a large artifact is checked by the blocks that it lies in, all of it by its name.

        Raises:
            NotFound: no record names it.
            Withheld, Erased: a record does, and the bytes are not here.
            Corrupt: what is here does not have its name.
        """

    def open(self, ref: Reference) -> BinaryIO:
        """A stream over the payload, which can seek; each block is hashed when it is read. Raises as :meth:`get`."""

    def info(self, ref: Reference) -> ArtifactInfo:
        """What is known of an artifact; its bytes are not read.

        Raises:
            NotFound: no record adds it.
        """

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """Of which of them the bytes are here."""

    def small(self, refs: Sequence[Reference], bytes_max: int) -> dict[Reference, bytes]:
        """ArtifactBytes, those of at most ``bytes_max``, of these artifacts, hashed as they are read: many at once.

        What is larger, not here or damaged is not among them; :meth:`get` says why.
        """

    def edges(
        self, type: int | None = None, source: Reference | None = None, target: Reference | None = None
    ) -> list[tuple[Reference, Edge]]:
        """The edges that records add, of this type and with these ends, ascending by reference.

        Whether one is visible says the :meth:`view`.
        """

    def tombstone(self, ref: Reference, *, scope: Scope = "domain", reason: int = 0, note: str = "") -> Written:
        """Hide an artifact. With scope "federation" that covers all adds that are here."""

    def erase(self, ref: Reference, reason: int = 0) -> Written:
        """Drop the bytes of an artifact for good, and say so in a record: from then on :meth:`get` raises Erased.

        Its name and every record stay. It is for what a law forbids to keep: pins, snapshots and peers are not asked, and
        the bytes do not come back with records of others that name them.
        ``reason`` is a U16.

        Raises:
            NotFound: no record names it.
        """

    def lift(self, ref: Reference, *, scope: Scope = "domain", tombstone: bytes | None = None) -> Written:
        """Take a tombstone back: the own last one of this scope, or the one with that record hash.

        Raises:
            NotFound: there is none.
        """

    def point(self, name: str, ref: Reference, supersedes: Sequence[bytes] = ()) -> Written:
        """Let a name have a value, in place of those that the records with these hashes gave it."""

    # --- what is kept ---

    def pin(self, name: str, what: Pinned) -> None:
        """Keep the bytes of an artifact, or of all that is visible at a snapshot, whatever tombstones come.

        A name that has a pin gets another.

        Raises:
            NotFound: the artifact, or a head of the snapshot, is not here.
            CodecError: the name has not 1 to 1,024 bytes of UTF-8 without NUL.
        """

    def unpin(self, name: str) -> None:
        """Take a pin away. Raises NotFound."""

    def pins(self) -> dict[str, Pinned]:
        """What is pinned, by name in byte order."""

    def gc(
        self, budget_s: float, guards: Sequence[Guard] = (), dry_run: bool = False, *, clock: Clock | None = None
    ) -> GcReport:
        """Drop the bytes of artifacts that nobody needs: see :mod:`~tidewarp.store.retention`. Records stay.

        Other threads may write meanwhile. A collection that does not come to the end is gone on with by the next.

        Args:
            budget_s: wall seconds, after which it stops within 100 ms.
            guards: of upper layers; each may object.
            dry_run: say what would go.
            clock: wall time.
        """

    def fsck(
        self, repair: bool = False, sources: Sequence[ByteSource] = (), *, clock: Clock | None = None
    ) -> FsckReport:
        """Read everything, and compare it with what it should be.

        Args:
            repair: make anew what follows from something that is whole, and remove what nothing names; no record is
                changed or deleted. Writers wait.
            sources: who is asked, when it is repaired, for bytes that are damaged here, or that a record adds and have not come.
            clock: wall time.
        """

    def set_quota(self, quota_bytes: int | None) -> None:
        """Take payloads of so many bytes together, at most; None: no bound. Durable on return.

        What is here stays, even if it is more. Policies and evidence of forks may be put up to 1 MiB beyond the bound.

        Raises:
            OperatorError: a number that is negative, or above 2^64 - 1.
        """

    def room(self) -> int | None:
        """Payload bytes that the quota leaves now; below 0 where more are here; None: there is no quota."""

    @property
    def shard_map(self) -> ShardMap:
        """How the records are divided into shards."""

    def reshard(self, shard_map: ShardMap) -> None:
        """Divide the records anew. Durable on return; nothing that is asked of the store has another answer by it.

        Views and rows that were begun before go on as they are.
        """

    # --- state ---

    def view(self, snapshot: Snapshot | None = None, *, scope: Literal["published", "all"] = "published") -> StoreView:
        """What is visible at ``snapshot``: a value.

        Without one, the view of now. That one is the store's own: it grows with each call of this method and of
        :meth:`state_hash`, and is to be used by one thread.

        Raises:
            SnapshotIncomplete: not all of its records are here.
            OperatorError: it was made under another policy.
        """

    def snapshot(self, name: str | None = None) -> Snapshot:
        """The vector of heads of all domains that count. With a name, a record says it, and peers learn of it.

        Raises:
            CodecError: the name has not 1 to 1,024 bytes of UTF-8 without NUL.
        """

    def snapshot_items(self, snapshot_id: bytes) -> Iterator[Item]:
        """All that is visible at a snapshot, in merge order of the records that it came from.

        Args:
            snapshot_id: 32 bytes, of a snapshot that :func:`~tidewarp.store.snapshots.find_snapshot` finds.

        Raises:
            NotFound: it finds none.
            SnapshotIncomplete, OperatorError: as :meth:`view`.
        """

    def state_hash(self, scope: Literal["published", "all"] = "published") -> bytes:
        """32 bytes that are equal where the same records are, under one policy."""

    @property
    def admission(self) -> Admission:
        """Whose records count, and for what: that of the last :meth:`admit`, or the one given when the store was opened."""

    def admit(self, admission: Admission, rivals: Iterable[RecordHeader] = ()) -> None:
        """From now on make views of the records that ``admission`` says count.

        Args:
            admission: of the policy in force, in place of that given when the store was opened.
            rivals: headers that were shown to be rivals of records here, and follow one that is here: their domain counts
                up to that one, until the resolver has chosen.
        """

    # --- domains ---

    def domains(self) -> list[DomainState]:
        """All domains, the own one first."""

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """The records behind ``after``, up to the size of now, checked as ``Journal.read`` does; none of an unknown domain."""

    def withheld(self, domain: bytes, after: int, limit: int) -> list[int]:
        """The numbers of the first ``limit`` records behind ``after`` whose bodies are withheld here; of none of an unknown domain."""

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """The record hash at ``seq``; at 0 the domain's genesis; None beyond what is here."""

    def root_at(self, domain: bytes, size: int) -> bytes:
        """The Merkle root over the first ``size`` records.

        Raises:
            NotFound: that many are not here, as for the two proofs.
        """

    def frontier(self, domain: bytes) -> Frontier:
        """The Merkle frontier over all records that are here: a copy."""

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> list[bytes]:
        """The path of record ``seq`` in the tree over the first ``size`` records."""

    def consistency_proof(self, domain: bytes, first: int, second: int) -> list[bytes]:
        """That the tree over ``first`` records is a prefix of that over ``second``."""

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        """The last signed head of what is here of ``domain``; of the own domain (None) signed now, if the key is here."""

    def signed_heads(self, domain: bytes | None = None) -> list[SignedHead]:
        """That head as the last, behind those that it leans on, ascending; none where there is no head.

        A head that not the domain's root key has signed leans on an earlier one, which covers the KEYS record that names its
        signer: see :mod:`tidewarp.store.signers`.
        """

    def keys_record(self, domain: bytes, size: int) -> StoredRecord | None:
        """The last published KEYS record among the first ``size`` records that are here of ``domain``; None: there is none."""

    def adopt(
        self,
        domain: bytes,
        items: Sequence[BatchItem],
        head: SignedHead,
        *,
        key: bytes,
        sources: Mapping[Reference, BinaryIO] | None = None,
    ) -> Adopted:
        """Take in records that continue what is here of ``domain``, and the artifact bytes that came with them.

        All in one transaction. The caller has verified the head's signature; contiguity, bodies, artifacts and, where the
        records reach the head's size, its root are checked here; what is a :class:`~tidewarp.store.continuation.Continuation`
        of what is here, was checked when it was made. The head is kept from then on, with those that it leans on. Without
        ``items`` it may be one of fewer records than are here, and is kept if none of more is. The own domain may be
        given: its own lost tail. ``key`` is the domain's root public key; ``sources`` are ArtifactBytes of artifacts too
        large to come in ``items``, each at its beginning.

        Raises:
            PeerError: a rule is broken; nothing was written.
            QuotaExceeded: by the sizes declared, or one domain more than a store takes.
        """

    def reveal(
        self, domain: bytes, items: Sequence[BatchItem], *, sources: Mapping[Reference, BinaryIO] | None = None
    ) -> int:
        """Keep bodies that have come for records whose bodies are withheld here, and the artifacts that came with them.

        All in one transaction. Headers do not change, so heads, roots and proofs stay what they are. What is here already, or
        erased, stays as it is. ``sources`` as of :meth:`adopt`. Returns how many bodies are new.

        Raises:
            NotFound: there is no such record here.
            PeerError: they do not ascend, one has another header here, or its body or artifact is not what it says;
                nothing was written.
            QuotaExceeded: by the sizes declared.
        """

    def supply(self, ref: Reference, source: BinaryIO) -> None:
        """Keep the bytes of an artifact that a record here adds, and that have not come with it. No record is written.

        ``source`` are its ArtifactBytes, at their beginning.

        Raises:
            NotFound: no record here adds it.
            Erased: a record says that its bytes were dropped for good.
            PeerError: the bytes do not have its name.
            QuotaExceeded: it is more than there is room for.
        """

    def cut_back(self, domain: bytes, size: int) -> None:
        """Let go of the records of a foreign ``domain`` behind the first ``size``, which its chosen branch does not have.

        Who calls keeps them, if they are to be kept. Artifacts that came with them stay. All in one transaction.

        Raises:
            NotFound: that many are not here.
            InternalError: the own domain, whose records are never taken back.
        """

    # --- transactions ---

    def transaction(self) -> AbstractContextManager[object]:
        """Whatever this thread writes in the block, is durable when it ends, or, when it raises, not there.

        Puts, appends and cursors, adopted records and the tables of extensions. Reads of this thread see it, ``size`` and
        ``head`` of the journal do not. Other writers wait.
        """

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> Tables:
        """The tables of an upper layer, made at the first call.

        Args:
            name: 1 to 32 lower-case letters; the names of its tables and indices begin with it and an underline.
            version: of ``ddl``.
            ddl: CREATE TABLE and CREATE INDEX statements.

        Raises:
            NotFound: they are not here, and the store is open read-only.
            InternalError: another statement, another name, or the store has another version of them.
        """
