"""What the exchange needs of a store: plain protocols, which the stores of :mod:`tidewarp.store` fit as they are.

The exchange reads through :class:`Holdings` and writes through two calls: :meth:`ExchangeStore.adopt` with what
it has verified, and the ledger's tables in the same :meth:`ExchangeStore.transaction`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from tidewarp.codec.batches import BatchItem
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import RecordHeader
from tidewarp.codec.references import Reference
from tidewarp.store.contract import Journal

__all__ = [
    "PRESENT",
    "ArtifactInfo",
    "DomainState",
    "ExchangeStore",
    "Holdings",
    "StoredRecord",
    "Tables",
]

PRESENT = 0
"""State of a record whose body is here; 1 is withheld, 2 is erased, as in a batch."""


class DomainState(Protocol):
    """What a store holds of one domain: a contiguous, verified prefix."""

    @property
    def id(self) -> bytes:
        """The domain, 32 bytes."""

    @property
    def key(self) -> bytes:
        """Its Ed25519 root public key, 32 bytes, of which ``id`` is the hash."""

    @property
    def status(self) -> str:
        """``live``, or why nothing is added to it: ``frozen``, ``resolved``, ``behind``, ``retired``."""

    @property
    def size(self) -> int:
        """Records held."""

    @property
    def head(self) -> bytes:
        """Record hash of the last one, 32 bytes; the domain's genesis if there is none."""

    @property
    def note(self) -> str | None:
        """The last signed head that is kept of it, as text; None: none is."""


class StoredRecord(Protocol):
    """One record as it is held: its header always, its body where ``state`` is :data:`PRESENT`."""

    @property
    def header(self) -> RecordHeader:
        """The header, checked when it came."""

    @property
    def state(self) -> int:
        """0 the body is here, 1 it is withheld, 2 it is erased."""

    @property
    def body(self) -> bytes | None:
        """The bytes that ``header.body_hash`` names."""


class ArtifactInfo(Protocol):
    """What a store knows of one artifact."""

    @property
    def tag(self) -> int | None:
        """What its payload is."""

    @property
    def size(self) -> int:
        """Bytes of its payload."""

    @property
    def state(self) -> str:
        """``here``, ``withheld`` or ``erased``: its bytes."""

    @property
    def published(self) -> bool:
        """Does a published record name it? Nothing else leaves the store."""

    @property
    def shown(self) -> bool:
        """Has a domain that adds it not hidden it again, by a tombstone of its own?"""


class Holdings(Protocol):
    """What is read of a store, by the puller of its own and by the handler for others. Domains are 32 bytes."""

    @property
    def domain(self) -> bytes:
        """The domain that this store writes."""

    def domains(self) -> Sequence[DomainState]:
        """Every domain of which a record is held, and the own one."""

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """The records behind ``after``, in order; none for a domain that is not held."""

    def withheld(self, domain: bytes, after: int, limit: int) -> Sequence[int]:
        """The numbers of the first ``limit`` records behind ``after`` whose bodies are withheld here."""

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """The record hash at ``seq``; None beyond what is held."""

    def root_at(self, domain: bytes, size: int) -> bytes:
        """The Merkle root over the first ``size`` records, which are held."""

    def frontier(self, domain: bytes) -> Frontier:
        """The Merkle frontier of all records held, of which the caller may append to a copy only."""

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> Sequence[bytes]:
        """The path of record ``seq`` in the tree of the first ``size`` records, which are held."""

    def consistency_proof(self, domain: bytes, first: int, second: int) -> Sequence[bytes]:
        """That the tree of ``first`` records is a prefix of that of ``second``; both are held, ``first`` is above 0."""

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        """The last head of ``domain`` whose size is held; of the own domain (None), signed at its size of now."""

    def signed_heads(self, domain: bytes | None = None) -> Sequence[SignedHead]:
        """That head as the last, behind those that it leans on, ascending; none where there is no head."""

    def keys_record(self, domain: bytes, size: int) -> StoredRecord | None:
        """The last published KEYS record among the first ``size`` records, as far as they are held; None: there is none."""

    def has(self, references: Sequence[Reference]) -> Sequence[bool]:
        """Which artifacts' bytes are here."""

    def small(self, references: Sequence[Reference], bytes_max: int) -> Mapping[Reference, bytes]:
        """ArtifactBytes, of at most ``bytes_max``, of those of these artifacts whose bytes are here and whole."""

    def info(self, reference: Reference) -> ArtifactInfo:
        """What is known of an artifact. Raises NotFound, or Erased."""

    def get(self, reference: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        """Payload bytes, hashed as they are read. Raises NotFound, Erased, Corrupt."""


class Tables(Protocol):
    """The tables of an upper layer in the store's database, so that both are durable together."""

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement, in the open transaction if there is one; its rows."""


class ExchangeStore(Holdings, Protocol):
    """A store that takes in what others have written."""

    @property
    def journal(self) -> Journal:
        """The journal of the own domain."""

    def transaction(self) -> AbstractContextManager[object]:
        """All writes in it become durable together, or none does."""

    def adopt(
        self,
        domain: bytes,
        items: Sequence[BatchItem],
        head: SignedHead,
        *,
        key: bytes,
        sources: Mapping[Reference, BinaryIO],
    ) -> object:
        """Take ``items``, which continue what is held of ``domain``, with the artifact bytes that came in them and in ``sources``.

        The caller has verified them against ``head``, which is kept from the moment on when all of its records are held.
        Without ``items`` the head may be one of fewer records than are held.
        ``sources`` are ArtifactBytes from their beginning. The own domain may be given too: its own lost tail.
        """

    def reveal(self, domain: bytes, items: Sequence[BatchItem], *, sources: Mapping[Reference, BinaryIO]) -> int:
        """Keep the bodies of records that are held as stubs, with the artifacts that came in them and in ``sources``.

        Headers do not change. How many bodies are new.
        """

    def supply(self, reference: Reference, source: BinaryIO) -> None:
        """Keep the bytes of an artifact that a record names and that have not come: ArtifactBytes from their beginning."""

    def room(self) -> int | None:
        """Payload bytes that its quota leaves; None: it has none. What is adopted, revealed or supplied is held against it."""

    def cut_back(self, domain: bytes, size: int) -> None:
        """Let go of the records of a foreign ``domain`` behind the first ``size``."""

    def put(self, source: bytes, *, tag: int | None = None, publish: bool = True) -> Reference:
        """Keep an artifact: evidence."""

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> Tables:
        """Tables of an upper layer, made at the first call."""
