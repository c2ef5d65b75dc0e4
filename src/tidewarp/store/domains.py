"""The logs of all domains in one database: reading them, their trees and heads, and taking in what others have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from tidewarp.codec import Record, genesis
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, InternalError, NotFound, PeerError, QuotaExceeded
from tidewarp.store.artifacts import ArtifactTable, Content
from tidewarp.store.chain import Linked
from tidewarp.store.connection import bad
from tidewarp.store.continuation import Incoming, check_arrived, check_head, check_stated, continuation, stated
from tidewarp.store.contract import Adopted, DomainState, StoredRecord
from tidewarp.store.fold.state import FOLDED_KINDS
from tidewarp.store.handle import Handle
from tidewarp.store.index import RecordIndex, told_by
from tidewarp.store.journal import OpenTransaction, SqliteJournal
from tidewarp.store.log import LogReader
from tidewarp.store.payload import Payload, artifact_payload, check_room
from tidewarp.store.rows import LOG_COLUMNS, OWN, Row, header_of, log_id, stored_row
from tidewarp.store.schema import DOMAINS_MAX, LIVE, DomainRow, find_domain, read_domains
from tidewarp.store.spans import Spans
from tidewarp.store.trees import Trees, check_size

__all__ = ["DomainTable"]


class DomainTable:
    """``domain``, ``log``, ``stub`` and ``note``, over all domains. ``key`` is the own root public key (32 bytes)."""

    def __init__(
        self,
        handle: Handle,
        journal: SqliteJournal,
        spans: Spans,
        artifacts: ArtifactTable,
        index: RecordIndex,
        key: bytes,
    ) -> None:
        self.trees = Trees(handle)
        self._handle = handle
        self._journal = journal
        self._spans = spans
        self._artifacts = artifacts
        self._index = index
        self._key = key

    # --- reading ---

    def rows(self) -> list[DomainRow]:
        """All domains, the own one first, as this thread sees them."""
        with self._handle.reading_table("domains", "domain") as db:
            own, *others = read_domains(db, str(self._handle.path))
        return [own._replace(size=size, head=head) for size, head in [self._journal.reach]] + others

    def row(self, domain: bytes) -> DomainRow | None:
        """One of them; None if nothing of it is here."""
        if domain == self._journal.domain:
            return DomainRow(OWN, domain, *self._journal.reach)
        with self._handle.reading_table("domains", "domain") as db:
            return find_domain(db, str(self._handle.path), domain)

    def states(self) -> list[DomainState]:
        """As the contract of the store says."""
        notes = {no: (key, note) for no, key, note in self._handle.select("domains", "SELECT no, key, note FROM note")}
        states = []
        for row in self.rows():
            key, note = notes.get(row.no, (self._key, None) if row.no == OWN else (None, None))
            if not isinstance(key, bytes):
                raise bad(str(self._handle.path), "table note", f"it has no key of domain {row.no}")
            states.append(DomainState(row.id, "live", row.size, row.head, note, key))
        return states

    def records(self, domain: bytes, after: int, limit: int | None) -> Iterator[StoredRecord]:
        """As the contract of the store says."""
        row = self.row(domain)
        if row is None:
            return iter(())
        reader = LogReader(self._handle, row.no, domain)
        rows = reader.scan(after, row.size if limit is None else limit, None, row.size, row.head)
        return (_stored(domain, one) for one in rows)

    def records_at(self, domain: bytes, seqs: Iterable[int]) -> Iterator[StoredRecord]:
        """The records of a domain with these numbers, in the order given. Raises Corrupt, NotFound."""
        reader = LogReader(self._handle, self.held(domain).no, domain)
        return (_stored(domain, one) for one in reader.at(seqs))

    def folded(self, domain: bytes, after: int) -> Iterator[StoredRecord]:
        """The records behind ``after``; of kinds that no view depends on, without their bodies."""
        row = self.held(domain)
        reader = LogReader(self._handle, row.no, domain)
        rows = reader.scan(after, row.size, FOLDED_KINDS, row.size, row.head, headers=True)
        return (_stored(domain, one) for one in rows)

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """As the contract of the store says."""
        row = self.row(domain)
        if row is None or not 0 <= seq <= row.size:
            return None
        return LogReader(self._handle, row.no, domain).hash_at(seq) if seq else genesis(domain)

    def held(self, domain: bytes) -> DomainRow:
        """One of the domains. Raises NotFound."""
        row = self.row(domain)
        if row is None:
            raise NotFound(f"domain {domain.hex()[:16]}", "no record of it is here", "pull it first")
        return row

    def root_at(self, domain: bytes, size: int) -> bytes:
        """As the contract of the store says."""
        return self.trees.root_at(self.held(domain), size)

    def frontier(self, domain: bytes) -> Frontier:
        """As the contract of the store says."""
        return self.trees.frontier(self.held(domain))

    def stored_head(self, no: int) -> SignedHead | None:
        """The last signed head that was kept."""
        rows = self._handle.select("signed_head", "SELECT note FROM note WHERE no = ?", no)
        if not rows or rows[0][0] is None:
            return None
        try:
            return SignedHead.parse(rows[0][0])
        except CodecError as error:
            raise bad(str(self._handle.path), "table note", str(error)) from error

    def keep_head(self, transaction: OpenTransaction, no: int, key: bytes, head: SignedHead | None) -> None:
        """Note a domain's key, and its head."""
        statement = (
            "INSERT INTO note VALUES (?, ?, ?) ON CONFLICT (no) DO UPDATE SET note = coalesce(excluded.note, note)"
        )
        transaction.db.execute(statement, (no, key, None if head is None else head.note()))

    # --- taking in ---

    def adopt(
        self,
        domain: bytes,
        items: Sequence[BatchItem],
        head: SignedHead,
        key: bytes,
        sources: Mapping[Reference, BinaryIO],
    ) -> Adopted:
        """As the contract of the store says."""
        with self._journal.transaction("adopt") as transaction:
            row = self.row(domain) or self._next_row(domain)
            incoming = continuation(domain, row.size, row.head, items)
            size, last = (incoming[-1].header.seq, incoming[-1].hash) if incoming else (row.size, row.head)
            check_head(domain, key, head, size, last)
            contents = self._contents(incoming, sources)
            numbers = self._artifacts.keep(transaction, contents)
            kept = {one.ref: no for one, no in zip(contents, numbers, strict=True)}
            self._insert(transaction, row, incoming, kept)
            transaction.undone.append(self.trees.forget)
            frontier = self.trees.extend(transaction.db, row, [one.hash for one in incoming])
            is_whole = head.size == size
            if is_whole and frontier.root() != head.root:
                what = f"head of {domain.hex()[:16]} at {size}"
                raise PeerError(what, f"its root is not {frontier.root().hex()}", "do not pull from this peer")
            self.keep_head(transaction, row.no, key, head if is_whole else None)
            return Adopted(row.size + 1, size)

    def cut_back(self, domain: bytes, size: int) -> None:
        """As the contract of the store says."""
        with self._journal.transaction("cut_back") as transaction:
            row, head = self.held(domain), self.hash_at(domain, size)
            check_size(row, size)
            if row.no == OWN or head is None:
                raise InternalError("cut_back", "the own domain is never cut back", "begin a successor")
            db, span = transaction.db, (log_id(size + 1, row.no), log_id(row.size, row.no))
            db.execute("DELETE FROM log WHERE id BETWEEN ? AND ?", span)
            db.execute("DELETE FROM stub WHERE id BETWEEN ? AND ?", span)
            for table in ("event", "receipt"):
                db.execute(f"DELETE FROM {table} WHERE domain = ? AND seq > ?", (row.no, size))
            db.execute("UPDATE domain SET size = ?, head = ? WHERE no = ?", (size, head, row.no))
            db.execute("UPDATE note SET note = NULL WHERE no = ?", (row.no,))
            for table in ("tree", "tile"):  # made anew of what is left, when somebody asks
                db.execute(f"DELETE FROM {table} WHERE no = ?", (row.no,))
            transaction.undone.append(self.trees.forget)
            self.trees.forget()

    def _next_row(self, domain: bytes) -> DomainRow:
        rows = self.rows()
        if len(rows) >= DOMAINS_MAX:
            rule = f"a store takes in {DOMAINS_MAX - 1} domains"
            raise QuotaExceeded(f"domain {domain.hex()[:16]}", rule, "name the domains that count in a policy")
        return DomainRow(rows[-1].no + 1, domain, 0, genesis(domain))

    def _insert(
        self,
        transaction: OpenTransaction,
        row: DomainRow,
        incoming: Sequence[Incoming],
        kept: Mapping[Reference, int],
    ) -> None:
        if not incoming:
            return
        db = transaction.db
        size, head = incoming[-1].header.seq, incoming[-1].hash
        if row.no == OWN:
            lacking = next((one for one in incoming if one.state != BODY), None)
            if lacking is not None:
                what = f"record {lacking.header.seq} of the own domain"
                raise PeerError(what, "a journal has all bodies of its own", "pull its tail from a peer that has them")
            transaction.tail = size, head
            self._spans.write(db, [Linked(Record(one.header, one.body or b""), one.hash) for one in incoming])
        else:
            statement = "INSERT OR REPLACE INTO domain VALUES (?, ?, ?, ?, ?)"
            db.execute(statement, (row.no, row.id, LIVE, size, head))
        rows = (stored_row(row.no, one.header, one.hash, one.state, one.body) for one in incoming)
        db.executemany(f"INSERT INTO log VALUES ({LOG_COLUMNS})", rows)
        stubs = [one.header for one in incoming if one.state != BODY]
        lengths = ((log_id(header.seq, row.no), header.body_len) for header in stubs)
        db.executemany("INSERT INTO stub VALUES (?, ?)", lengths)
        found = [one for one in (told_by(one.header, one.said) for one in incoming) if one is not None]
        if found:
            self._index.write(transaction, row.no, found, kept)

    def _contents(self, incoming: Sequence[Incoming], sources: Mapping[Reference, BinaryIO]) -> list[Content]:
        """The artifacts that came with the records; the large ones of them are in blocks when this returns."""
        said = stated(incoming) if sources else {}
        streams: list[tuple[Reference, Payload, int | None]] = []
        for ref, stream in sources.items():
            if ref not in said:
                raise PeerError(f"artifact {ref.hex()}", "no record that came with it names it", "leave it out")
            payload, tag = artifact_payload(stream, f"artifact {ref.hex()}")
            check_stated(said[ref], tag, payload.size, f"artifact {ref.hex()}")
            streams.append((ref, payload, tag))
        came = [one.artifact for one in incoming if one.artifact is not None]
        sizes = [(ref, len(artifact.payload)) for ref, artifact in came]
        sizes += [(ref, payload.size) for ref, payload, _ in streams]
        room = self._artifacts.room()
        if room is not None:
            held = self._artifacts.has([ref for ref, _ in sizes])
            declared = sum(size for (_, size), is_here in zip(sizes, held, strict=True) if not is_here)
            check_room(declared, room, f"{len(sizes)} artifacts")
        contents = [self._artifacts.hashed(ref, artifact) for ref, artifact in came]
        for ref, payload, tag in streams:
            content = self._artifacts.content(payload, tag)
            check_arrived(ref, content.ref)
            contents.append(content)
        return contents


def _stored(domain: bytes, row: Row) -> StoredRecord:
    return StoredRecord(header_of(domain, row), row.body_state, row.body if row.body_state == BODY else None)
