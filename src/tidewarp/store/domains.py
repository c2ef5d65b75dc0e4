"""The logs of all domains in one database: reading them, their trees and heads, and taking in what others have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from tidewarp.codec import INPUT, PUBLISHED, RecordHeader, genesis
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import KEYS
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, InternalError, NotFound, PeerError, QuotaExceeded
from tidewarp.store.artifacts import ArtifactTable, Content
from tidewarp.store.connection import bad
from tidewarp.store.continuation import (
    Carried,
    Continuation,
    Incoming,
    check_arrived,
    check_head,
    check_stated,
    continued,
    read_stubs,
    stated,
)
from tidewarp.store.contract import Adopted, DomainState, StoredRecord
from tidewarp.store.fold.state import FOLDED_KINDS
from tidewarp.store.handle import Handle
from tidewarp.store.index import RecordIndex
from tidewarp.store.inserting import insert_rows
from tidewarp.store.journal import OpenTransaction, SqliteJournal
from tidewarp.store.log import LogReader
from tidewarp.store.payload import Payload, artifact_payload, check_room
from tidewarp.store.rows import LOG_COLUMNS, OWN, SEQ_BITS, Row, log_id, stored_row, stored_rows
from tidewarp.store.schema import DOMAINS_MAX, LIVE, NAMING, DomainRow, find_domain, read_domains
from tidewarp.store.sharding import ShardTable
from tidewarp.store.signers import check_bounds, earlier_heads
from tidewarp.store.spans import Spans
from tidewarp.store.subjects import told_by
from tidewarp.store.trees import Trees, check_size

__all__ = ["DomainTable"]


class DomainTable:
    """``domain``, ``log``, ``stub``, ``note`` and ``earlier_note``, over all domains.

    ``key`` is the own root public key (32 bytes).
    """

    def __init__(
        self,
        handle: Handle,
        journal: SqliteJournal,
        spans: Spans,
        artifacts: ArtifactTable,
        index: RecordIndex,
        shards: ShardTable,
        key: bytes,
    ) -> None:
        self.trees = Trees(handle)
        self._shards = shards
        self._handle = handle
        self._journal = journal
        self._spans = spans
        self._artifacts = artifacts
        self._index = index
        self.key = key

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
            key, note = notes.get(row.no, (self.key, None) if row.no == OWN else (None, None))
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

    def withheld(self, domain: bytes, after: int, limit: int) -> list[int]:
        """As the contract of the store says."""
        row = self.row(domain)
        if row is None:
            return []
        statement = (
            f"SELECT stub.id FROM stub JOIN log ON log.id = stub.id WHERE stub.id BETWEEN ? AND ?"
            f" AND body_state = {WITHHELD} ORDER BY stub.id LIMIT ?"
        )
        span = log_id(after + 1, row.no), log_id(row.size, row.no)
        found = self._handle.select("withheld", statement, *span, limit)
        return [number - log_id(0, row.no) for (number,) in found]

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
        return next(reversed(self.stored_heads(no)), None)

    def stored_heads(self, no: int) -> list[SignedHead]:
        """That head as the last, behind those that it leans on."""
        statement = (
            "SELECT note, size FROM earlier_note WHERE no = ?1"
            " UNION ALL SELECT note, NULL FROM note WHERE no = ?1 AND note IS NOT NULL ORDER BY size NULLS LAST"
        )
        try:
            return [SignedHead.parse(note) for note, _ in self._handle.select("signed_heads", statement, no)]
        except CodecError as error:
            raise bad(str(self._handle.path), "table note", str(error)) from error

    def keys_record(self, row: DomainRow, size: int) -> StoredRecord | None:
        """As the contract of the store says."""
        statement = (
            f"SELECT id FROM log WHERE ({NAMING}) AND kind = {KEYS} AND flags = {PUBLISHED}"
            " AND id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        )
        span = log_id(1, row.no), log_id(min(size, row.size), row.no)
        for (number,) in self._handle.select("keys_record", statement, *span):
            (one,) = LogReader(self._handle, row.no, row.id).at([number - log_id(0, row.no)])
            return _stored(row.id, one)
        return None

    def heads_before_next(self, row: DomainRow, key: bytes, head: SignedHead) -> tuple[SignedHead, ...]:
        """What is kept before ``head``, which is new, and of a domain whose root public key is ``key``."""
        return earlier_heads(key, self.stored_heads(row.no), head, lambda size: self.keys_record(row, size))

    def keep_head(self, transaction: OpenTransaction, row: DomainRow, key: bytes, head: SignedHead | None) -> None:
        """Note a domain's key, and its head with those that it leans on. Raises PeerError: these are too many."""
        db, no = transaction.db, row.no
        if head is not None:
            earlier = self.heads_before_next(row, key, head)
            check_bounds(row.id, earlier)
            db.execute("DELETE FROM earlier_note WHERE no = ?", (no,))
            db.executemany("INSERT INTO earlier_note VALUES (?, ?, ?)", ((no, one.size, one.note()) for one in earlier))
        statement = (
            "INSERT INTO note VALUES (?, ?, ?) ON CONFLICT (no) DO UPDATE SET note = coalesce(excluded.note, note)"
        )
        db.execute(statement, (no, key, None if head is None else head.note()))

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
            if not items and head.size < row.size:
                self._keep_former(transaction, row, key, head)
                return Adopted(row.size + 1, row.size)
            incoming = continued(domain, row.size, row.head, items)
            check_head(domain, key, head, incoming.size, incoming.hash)
            if sources or self._artifacts.quota_bytes is not None:  # what all of them say and bring has to be looked at
                carried, others = Carried(), incoming.records
            else:
                carried, others = incoming.carried, incoming.others
            contents = self._contents(others, sources)
            added = self._artifacts.keep_small(transaction, carried.digests, carried.payloads)
            numbers = self._artifacts.keep(transaction, contents, from_others=True)
            self._insert(transaction, row, incoming)
            events = (
                (no, row.no, one.seq, one.kind, one.flags) for no, one in zip(added, carried.headers, strict=True)
            )
            self._index.write_events(transaction.db, events)
            kept = {one.ref: no for one, no in zip(contents, numbers, strict=True)}
            self._write_derived(transaction, row.no, others, kept)
            transaction.undone.append(self.trees.forget)
            frontier = self.trees.extend(transaction.db, row, incoming)
            is_whole = head.size == incoming.size
            if is_whole and frontier.root() != head.root:
                what = f"head of {domain.hex()[:16]} at {head.size}"
                raise PeerError(what, f"its root is not {frontier.root().hex()}", "do not pull from this peer")
            grown = row._replace(size=incoming.size, head=incoming.hash)
            self.keep_head(transaction, grown, key, head if is_whole else None)
            return Adopted(row.size + 1, incoming.size)

    def _keep_former(self, transaction: OpenTransaction, row: DomainRow, key: bytes, head: SignedHead) -> None:
        """Keep a head of fewer records than are here, if none of more is."""
        check_head(row.id, key, head, head.size, self.hash_at(row.id, head.size) or b"")
        if self.root_at(row.id, head.size) != head.root:
            what = f"head of {row.id.hex()[:16]} at {head.size}"
            raise PeerError(what, "its root is not that of the records here", "do not pull from this peer")
        before = self.stored_head(row.no)
        if before is None or before.size < head.size:
            self.keep_head(transaction, row, key, head)

    def reveal(self, domain: bytes, items: Sequence[BatchItem], sources: Mapping[Reference, BinaryIO]) -> int:
        """As the contract of the store says."""
        with self._journal.transaction("reveal") as transaction:
            row = self.held(domain)
            no = row.no
            for item in items:
                check_size(row, item.header.seq)
            held = list(self.records_at(domain, [item.header.seq for item in items]))
            came = read_stubs([one.header for one in held], items)
            news = [one for one, before in zip(came, held, strict=True) if before.state == WITHHELD]
            contents = self._contents(news, sources)
            numbers = self._artifacts.keep(transaction, contents, from_others=True)
            db, ids = transaction.db, [log_id(one.header.seq, no) for one in news]
            for one, row_id in zip(news, ids, strict=True):
                columns = stored_row(no, one.header, one.hash, one.state, one.body)
                db.execute(f"INSERT OR REPLACE INTO log VALUES ({LOG_COLUMNS})", columns)
                db.execute("DELETE FROM stub WHERE id = ?", (row_id,))
                db.execute("DELETE FROM shard WHERE id = ?", (row_id,))
            self._shards.write(db, no, ((one.header, one.body) for one in news))
            self._write_derived(transaction, no, news, dict(zip((one.ref for one in contents), numbers, strict=True)))
            return len(news)

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
            db.execute("DELETE FROM shard WHERE id BETWEEN ? AND ?", span)
            self._index.cut_back(db, row.no, size)
            db.execute("UPDATE domain SET size = ?, head = ? WHERE no = ?", (size, head, row.no))
            db.execute("UPDATE note SET note = NULL WHERE no = ?", (row.no,))
            for table in (
                "tree",
                "tile",
                "earlier_note",
            ):  # the trees are made anew of what is left, when somebody asks
                db.execute(f"DELETE FROM {table} WHERE no = ?", (row.no,))
            transaction.undone.append(self.trees.forget)
            transaction.ended.append(self.trees.forget)
            self.trees.forget()

    def _next_row(self, domain: bytes) -> DomainRow:
        rows = self.rows()
        if len(rows) >= DOMAINS_MAX:
            rule = f"a store takes in {DOMAINS_MAX - 1} domains"
            raise QuotaExceeded(f"domain {domain.hex()[:16]}", rule, "name the domains that count in a policy")
        return DomainRow(rows[-1].no + 1, domain, 0, genesis(domain))

    def _insert(self, transaction: OpenTransaction, row: DomainRow, incoming: Continuation) -> None:
        if not incoming:
            return
        db, no = transaction.db, row.no
        stubs = [one.header for one in incoming.others if one.state != BODY]
        if no == OWN:
            if stubs:
                what = f"record {stubs[0].seq} of the own domain"
                raise PeerError(what, "a journal has all bodies of its own", "pull its tail from a peer that has them")
            transaction.tail = incoming.size, incoming.hash
            inputs = ((one.header.seq, one.body or b"", None) for one in incoming.others if one.header.kind == INPUT)
            self._spans.write(db, inputs)
        else:
            statement = "INSERT OR REPLACE INTO domain VALUES (?, ?, ?, ?, ?)"
            db.execute(statement, (no, row.id, LIVE, incoming.size, incoming.hash))
        insert_rows(db, "log", LOG_COLUMNS, stored_rows(no, incoming.prev, incoming, incoming.hashes))
        db.executemany("INSERT INTO stub VALUES (?, ?)", ((log_id(one.seq, no), one.body_len) for one in stubs))
        self._shards.write(db, no, ((one.header, one.body) for one in incoming))

    def _write_derived(
        self, transaction: OpenTransaction, no: int, records: Sequence[Incoming], kept: Mapping[Reference, int]
    ) -> None:
        """What the indices hold of records that are new in ``log``."""
        found = [one for one in (told_by(header, said) for header, _, _, _, said, _ in records) if one is not None]
        if found:
            self._index.write(transaction, no, found, kept)

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
        room = self._artifacts.room()
        if room is not None:
            sizes = [(ref, len(artifact.payload)) for ref, artifact in came]
            sizes += [(ref, payload.size) for ref, payload, _ in streams]
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
    row_id, kind, flags, hlc, prev, body_len, body_hash, _, state, _, body = row
    header = RecordHeader(domain, row_id & (1 << SEQ_BITS) - 1, kind, flags, hlc, prev, body_len, body_hash)
    return StoredRecord(header, state, body if state == BODY else None)
