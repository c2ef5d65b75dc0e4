"""A store in memory: the model that the others are tested against, and the journal of runs that keep nothing."""

from __future__ import annotations

import io
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.codec import INPUT, PUBLISHED, Record, RecordHeader, domain_of, genesis, split_timed_body
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT, Artifact
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import (
    ERASE,
    ArtifactBody,
    Body,
    EdgeBody,
    EraseBody,
    PointerBody,
    ReceiptBody,
    TombstoneBody,
    decode_body,
)
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import Edge
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import (
    TILE_LEAVES,
    Frontier,
    Hashes,
    consistency_proof,
    inclusion_proof,
)
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import (
    CodecError,
    Erased,
    InternalError,
    NotFound,
    OperatorError,
    PeerError,
    QuotaExceeded,
    Withheld,
)
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.chain import (
    check_cursors,
    check_entries,
    check_name,
    check_range,
    check_window,
    link,
    no_input,
)
from tidewarp.store.continuation import (
    Incoming,
    check_arrived,
    check_awaited,
    check_head,
    check_stated,
    continuation,
    stated,
)
from tidewarp.store.contract import Adopted, ArtifactInfo, DomainState, Entry, Scope, StoredRecord, Written
from tidewarp.store.damage import MISSING_BYTES, ByteSource, FsckReport, Problem
from tidewarp.store.index import told
from tidewarp.store.links import links
from tidewarp.store.payload import artifact_payload, check_room, opened, reserve_of
from tidewarp.store.query import StoreView
from tidewarp.store.query.catalog import RecordCatalog
from tidewarp.store.retention import (
    GcReport,
    Guard,
    Named,
    Pinned,
    Retention,
    Word,
    check_budget,
    check_held,
)
from tidewarp.store.schema import DOMAINS_MAX, Settings, check_settings
from tidewarp.store.speaking import ADDS, HIDES, Event, entry_of, erasing, hiding, lifting, shows
from tidewarp.store.tables import check_ddl
from tidewarp.store.views import Views

__all__ = ["MemoryJournal", "MemoryStore", "MemoryTables"]

_OUTER = "BEGIN", "COMMIT", "ROLLBACK"
_SCOPES: tuple[Literal["published", "all"], ...] = ("published", "all")


@dataclass
class _Log:
    """One domain: its records, and what is known of its signer."""

    domain: bytes
    key: bytes
    records: list[Incoming] = field(default_factory=list)
    note: SignedHead | None = None

    @property
    def head(self) -> bytes:
        """Hash of the last record."""
        return self.records[-1].hash if self.records else genesis(self.domain)


@dataclass
class _State:
    """All that a transaction may change. What is in the containers is never changed itself, but for logs, which grow."""

    logs: dict[bytes, _Log]
    cursors: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[Reference, Artifact] = field(default_factory=dict)
    events: dict[Reference, list[tuple[Event, Body]]] = field(default_factory=dict)
    edges: dict[Reference, Edge] = field(default_factory=dict)
    extensions: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    pins: dict[str, Pinned] = field(default_factory=dict)
    gone: dict[Reference, tuple[int | None, int]] = field(default_factory=dict)  # tag and size of what was dropped
    last_ticks: dict[int, int] = field(default_factory=dict)  # of the own domain's records, by seq
    quota_bytes: int | None = None

    def copy(self) -> _State:
        """What to go back to."""
        logs = {one.domain: _Log(one.domain, one.key, one.records[:], one.note) for one in self.logs.values()}
        events = {ref: events[:] for ref, events in self.events.items()}
        plain = (dict(self.edges), dict(self.extensions), dict(self.pins), dict(self.gone), dict(self.last_ticks))
        return _State(logs, dict(self.cursors), dict(self.artifacts), events, *plain, self.quota_bytes)

    def let_go(self, refs: Iterable[Reference]) -> None:
        """Drop the bytes of artifacts; tag and size are remembered."""
        for ref in refs:
            if ref in self.artifacts:
                artifact = self.artifacts.pop(ref)
                self.gone[ref] = artifact.tag, len(artifact.payload)

    def extend(self, domain: bytes, incoming: Iterable[Incoming]) -> None:
        """Add records to a log, and what they say of artifacts."""
        log = self.logs[domain]
        for one in incoming:
            log.records.append(one)
            said = told(one.header, one.body)
            if said is not None:
                header, ref, body = said
                event = Event(domain, header.seq, header.kind, header.flags)
                self.events.setdefault(ref, []).append((event, body))
                if isinstance(body, EdgeBody):
                    self.edges[ref] = body.edge
                    self.artifacts[ref] = Artifact(body.edge.to_bytes(), TAG_EDGE)


class MemoryJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over a list and a dict; durable while the process lives."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def domain(self) -> bytes:
        """Identity of the journal, 32 bytes."""
        return self._store.domain

    @property
    def size(self) -> int:
        """Records."""
        return len(self._durable.records)

    @property
    def head(self) -> bytes:
        """Hash of the last record, 32 bytes."""
        return self._durable.head

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says."""
        checked, positions = check_entries(entries), check_cursors(cursors)
        with self._store._writing("append") as state:
            written = self._store._extend(state, checked)
            state.cursors |= positions
            return written

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As append; the future is complete when it is returned."""
        if self._store._in_transaction:
            raise InternalError("submit", "a transaction is written by the thread that opened it", "append there")
        future: Future[Written] = Future()
        future.set_result(self.append(entries, cursors=cursors))
        return future

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says."""
        self._store._check_open("read")
        check_range(after, limit)
        records = self._durable.records[after:]
        found = (Record(one.header, one.body or b"") for one in records if kinds is None or one.header.kind in kinds)
        return islice(found, limit)

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """As the contract says."""
        self._store._check_open("read_time")
        check_window(first_tick, last_tick)
        found = []
        for record in self.read(kinds={INPUT}):
            tick = split_timed_body(record.body)[0]
            last = self._store._durable().last_ticks.get(record.seq)
            if last is None and last_tick_of is not None and tick <= last_tick:
                last = last_tick_of(record)
            if tick <= last_tick and (last is None or last >= first_tick):
                found.append((tick, record))
        return (record for _, record in sorted(found, key=itemgetter(0)))

    def last_tick(self, seq: int) -> int | None:
        """As the contract says."""
        if not 0 < seq <= self.size or self._durable.records[seq - 1].header.kind != INPUT:
            raise no_input(seq)
        return self._store._durable().last_ticks.get(seq)

    def cursor(self, source: str) -> bytes | None:
        """The position of ``source``."""
        return self.cursors().get(source)

    def cursors(self) -> dict[str, bytes]:
        """All positions, by name in byte order."""
        self._store._check_open("cursors")
        return dict(sorted(self._store._seen().cursors.items()))

    def close(self) -> None:
        """Refuse everything from here on."""
        self._store._closed = True

    @property
    def _durable(self) -> _Log:
        return self._store._durable().logs[self._store.domain]


class MemoryStore:
    """A store without files. Equal keys and equal calls give equal records.

    Args:
        root_public_key: 32 bytes, of which the domain is the hash.
        seed: 32 bytes, the private key; then the public key follows from it, and heads are signed.
        quota_bytes: payload bytes that it takes, at most. None: no bound.
        admission: whose records count.
    """

    def __init__(
        self,
        root_public_key: bytes = bytes(32),
        *,
        seed: bytes | None = None,
        quota_bytes: int | None = None,
        admission: Admission = OPEN,
    ) -> None:
        self._seed = seed
        key = root_public_key if seed is None else public_key_of(seed)
        self._domain = domain_of(key)
        self._state = _State({self._domain: _Log(self._domain, key)}, quota_bytes=quota_bytes)
        self._before: _State | None = None  # what others see while a transaction is open
        self._holder: int | None = None  # the thread whose transaction is open
        self._turn = threading.RLock()
        self._closed = False
        self._db: sqlite3.Connection | None = None  # tables of extensions
        self._journal = MemoryJournal(self)
        self._views = Views(
            admission,
            lambda: [(one.domain, len(one.records)) for one in self._seen().logs.values()],
            lambda domain, after: self.records(domain, after),
            RecordCatalog(lambda: list(self._seen().logs), self.records),
        )

    @property
    def journal(self) -> MemoryJournal:
        """The journal."""
        return self._journal

    @property
    def domain(self) -> bytes:
        """The domain that this store writes, 32 bytes."""
        return self._domain

    # --- artifacts ---

    def put(self, source: bytes | Path | BinaryIO, *, tag: int | None = None, publish: bool = True) -> Reference:
        """As the contract says; a file is read whole."""
        self._check_open("put")
        with opened(source, self._room([tag]), None) as payload:
            artifact = Artifact(payload.whole(), tag)
        return self._put("put", [artifact], publish)[0]

    def put_many(self, items: Iterable[tuple[bytes, int | None]], *, publish: bool = True) -> list[Reference]:
        """As the contract says."""
        return self._put("put_many", [Artifact(data, tag) for data, tag in items], publish)

    def put_edge(self, edge: Edge, *, publish: bool = True) -> Reference:
        """As the contract says."""
        body = EdgeBody(edge)
        with self._writing("put_edge") as state:
            if not self._shown(state, body.ref, publish):
                self._extend(state, [entry_of(body, publish=publish)])
        return body.ref

    def put_receipt(
        self, receipt: bytes, key: bytes, outputs: Sequence[Reference], *, publish: bool = True
    ) -> Reference:
        """As the contract says."""
        artifact = Artifact(receipt, TAG_RECEIPT)
        body = ReceiptBody(artifact.reference(), key, tuple(outputs))
        with self._writing("put_receipt") as state:
            self._keep(state, [artifact])
            if not self._shown(state, body.ref, publish):
                self._extend(state, [entry_of(body, publish=publish)])
        return body.ref

    def get(self, ref: Reference, *, offset: int = 0, length: int | None = None) -> bytes:
        """As the contract says."""
        if offset < 0 or (length is not None and length < 0):
            raise OperatorError(f"offset {offset}, length {length}", "both count from 0", "give numbers from 0 on")
        return self._held("get", ref).payload[offset : None if length is None else offset + length]

    def open(self, ref: Reference) -> BinaryIO:
        """As the contract says."""
        return io.BytesIO(self._held("open", ref).payload)

    def info(self, ref: Reference) -> ArtifactInfo:
        """As the contract says."""
        self._check_open("info")
        state = self._seen()
        events = state.events.get(ref, [])
        adds = [event.flags for event, _ in events if event.kind in ADDS]
        artifact = state.artifacts.get(ref)
        published = any(flags & PUBLISHED for flags in adds)
        if artifact is not None:
            return ArtifactInfo(ref, artifact.tag, len(artifact.payload), "here", published)
        if not adds:
            raise _unknown(ref)
        said = next(
            ((body.tag, body.size) for _, body in events if isinstance(body, ArtifactBody)), state.gone.get(ref)
        )
        if said is None:
            raise self._missing(ref)
        is_erased = any(event.kind == ERASE for event, _ in events)
        return ArtifactInfo(ref, *said, "erased" if is_erased else "withheld", published)

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """As the contract says."""
        self._check_open("has")
        return [ref in self._seen().artifacts for ref in refs]

    def edges(
        self, type: int | None = None, source: Reference | None = None, target: Reference | None = None
    ) -> list[tuple[Reference, Edge]]:
        """As the contract says."""
        self._check_open("edges")
        return [
            (ref, edge)
            for ref, edge in sorted(self._seen().edges.items())
            if (type is None or edge.type == type)
            and (source is None or source in edge.sources)
            and (target is None or target in edge.targets)
        ]

    def tombstone(self, ref: Reference, *, scope: Scope = "domain", reason: int = 0, note: str = "") -> Written:
        """As the contract says."""
        with self._writing("tombstone") as state:
            entry = hiding(ref, self._domain, self._events(state, ref), scope, reason, note)
            return self._extend(state, [entry])

    def lift(self, ref: Reference, *, scope: Scope = "domain", tombstone: bytes | None = None) -> Written:
        """As the contract says."""
        with self._writing("lift") as state:
            records = state.logs[self._domain].records
            entry = lifting(
                ref,
                self._domain,
                self._events(state, ref),
                scope,
                tombstone,
                lambda seq: (TombstoneBody.from_bytes(records[seq - 1].body or b""), records[seq - 1].hash),
            )
            return self._extend(state, [entry])

    def point(self, name: str, ref: Reference, supersedes: Sequence[bytes] = ()) -> Written:
        """As the contract says."""
        with self._writing("point") as state:
            return self._extend(state, [entry_of(PointerBody(name, tuple(supersedes), ref), publish=True)])

    def erase(self, ref: Reference, reason: int = 0) -> Written:
        """As the contract says."""
        self.info(ref)
        with self._writing("erase") as state:
            written = self._extend(state, [erasing(ref, self._domain, self._events(state, ref), reason)])
            state.let_go([ref])
            return written

    # --- what is kept ---

    def pin(self, name: str, what: Pinned) -> None:
        """As the contract says."""
        if isinstance(what, Snapshot):
            check_held(what, self.hash_at)
        else:
            self.info(what)
        with self._writing("pin") as state:
            state.pins[check_name(name, "pin")] = what

    def unpin(self, name: str) -> None:
        """As the contract says."""
        with self._writing("unpin") as state:
            if state.pins.pop(name, None) is None:
                raise NotFound(f"pin {name!r:.80}", "there is no such pin", "see the names that there are")

    def pins(self) -> dict[str, Pinned]:
        """As the contract says."""
        self._check_open("pins")
        return dict(sorted(self._seen().pins.items()))

    def gc(
        self, budget_s: float, guards: Sequence[Guard] = (), dry_run: bool = False, *, clock: Clock | None = None
    ) -> GcReport:
        """As the contract says; each collection begins anew."""
        time = clock or WallClock()
        begun = time.now()
        check_budget(budget_s, in_transaction=self._in_transaction)
        kept: Counter[str] = Counter()
        freed: dict[Reference, int] = {}
        with self._writing("gc") as state:
            retention = _retention(self, state, guards)
            hidden = (ref for ref, events in state.events.items() if any(one.kind in HIDES for one, _ in events))
            left = [ref for ref in hidden if ref in state.artifacts]
            while left and time.now() < begun + budget_s:
                ref = left.pop()
                reason = retention.reason(ref)
                if reason is None:
                    freed[ref] = len(state.artifacts[ref].payload)
                else:
                    kept[reason] += 1
            if not dry_run:
                state.let_go(freed)
        seconds = time.now() - begun
        return GcReport(sum(freed.values()), len(freed), dict(kept), len(left), seconds, not left)

    def fsck(
        self, repair: bool = False, sources: Sequence[ByteSource] = (), *, clock: Clock | None = None
    ) -> FsckReport:
        """As the contract says: nothing here was written and read back, so there is nothing to repair."""
        time = clock or WallClock()
        begun = time.now()
        self._check_open("fsck")
        state = self._seen()
        wrong = [ref for ref, artifact in state.artifacts.items() if artifact.reference() != ref]
        problems = tuple(
            Problem("artifact", f"artifact {ref.hex()}", "its bytes do not have its name") for ref in wrong
        )
        shown = self._views.view(None, "published").visible()
        absent = [ref for ref in shown if ref not in state.artifacts and not self._is_erased(state, ref)]
        problems += tuple(Problem(MISSING_BYTES, f"artifact {ref.hex()}", "its bytes have not come") for ref in absent)
        records = sum(len(log.records) for log in state.logs.values())
        checked = {"records": records, "artifacts": len(state.artifacts)}
        return FsckReport(not problems, checked, problems, time.now() - begun)

    def set_quota(self, quota_bytes: int | None) -> None:
        """As the contract says."""
        check_settings(Settings(quota_bytes))
        with self._writing("set_quota") as state:
            state.quota_bytes = quota_bytes

    # --- state ---

    def view(self, snapshot: Snapshot | None = None, *, scope: Literal["published", "all"] = "published") -> StoreView:
        """As the contract says."""
        self._check_open("view")
        return self._views.view(snapshot, scope)

    def snapshot(self) -> Snapshot:
        """As the contract says."""
        self._check_open("snapshot")
        return self._views.snapshot()

    def state_hash(self, scope: Literal["published", "all"] = "published") -> bytes:
        """As the contract says."""
        self._check_open("state_hash")
        return self._views.state_hash(scope)

    def admit(self, admission: Admission, rivals: Iterable[RecordHeader] = ()) -> None:
        """As the contract says."""
        self._check_open("admit")
        self._views.admit(admission, rivals)

    # --- domains ---

    def domains(self) -> list[DomainState]:
        """As the contract says."""
        self._check_open("domains")
        return [
            DomainState(
                one.domain, "live", len(one.records), one.head, None if one.note is None else one.note.note(), one.key
            )
            for one in self._seen().logs.values()
        ]

    def records(self, domain: bytes, after: int = 0, limit: int | None = None) -> Iterator[StoredRecord]:
        """As the contract says."""
        self._check_open("records")
        check_range(after, limit)
        log = self._seen().logs.get(domain)
        records = [] if log is None else log.records[after : None if limit is None else after + limit]
        return (StoredRecord(one.header, one.state, one.body) for one in records)

    def hash_at(self, domain: bytes, seq: int) -> bytes | None:
        """As the contract says."""
        self._check_open("hash_at")
        log = self._seen().logs.get(domain)
        if log is None or not 0 <= seq <= len(log.records):
            return None
        return log.records[seq - 1].hash if seq else genesis(domain)

    def root_at(self, domain: bytes, size: int) -> bytes:
        """As the contract says."""
        return _frontier_over(self._leaves(domain, size)).root()

    def frontier(self, domain: bytes) -> Frontier:
        """As the contract says."""
        return _frontier_over(self._leaves(domain, None))

    def inclusion_proof(self, domain: bytes, seq: int, size: int) -> list[bytes]:
        """As the contract says."""
        return inclusion_proof(seq - 1, size, *_hashes(self._leaves(domain, size)))

    def consistency_proof(self, domain: bytes, first: int, second: int) -> list[bytes]:
        """As the contract says."""
        return consistency_proof(first, second, *_hashes(self._leaves(domain, second)))

    def signed_head(self, domain: bytes | None = None) -> SignedHead | None:
        """As the contract says; without a seed nothing is signed."""
        self._check_open("signed_head")
        log = self._durable().logs.get(self._domain if domain is None else domain)
        may_sign = log is not None and log.domain == self._domain and not self._in_transaction
        if log is not None and may_sign and self._seed is not None:
            size = len(log.records)
            if log.note is None or log.note.size != size:
                root = _frontier_over([one.hash for one in log.records]).root()
                log.note = sign_head(log.domain, size, root, log.head, f"tidewarp/{log.domain.hex()}", self._seed)
        return None if log is None else log.note

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
        with self._writing("adopt") as state:
            log = state.logs.get(domain)
            if log is None and len(state.logs) >= DOMAINS_MAX:
                rule = f"a store takes in {DOMAINS_MAX - 1} domains"
                raise QuotaExceeded(f"domain {domain.hex()[:16]}", rule, "name the domains that count in a policy")
            log = log or _Log(domain, key)
            incoming = continuation(domain, len(log.records), log.head, items)
            size = len(log.records) + len(incoming)
            check_head(domain, key, head, size, incoming[-1].hash if incoming else log.head)
            if domain == self._domain and any(one.state != BODY for one in incoming):
                action = "pull its tail from a peer that has them"
                raise PeerError("a record of the own domain", "a journal has all bodies of its own", action)
            artifacts = self._came(incoming, sources or {})
            root = _frontier_over([one.hash for one in (*log.records, *incoming)]).root()
            if head.size == size and head.root != root:
                action = "do not pull from this peer"
                raise PeerError(f"head of {domain.hex()[:16]} at {size}", f"its root is not {root.hex()}", action)
            self._keep(state, artifacts)
            state.logs[domain] = log
            if head.size == size:
                log.note = head
            state.extend(domain, incoming)
            return Adopted(size - len(incoming) + 1, size)

    def supply(self, ref: Reference, source: BinaryIO) -> None:
        """As the contract says."""
        with self._writing("supply") as state:
            check_awaited(self.info, ref)
            payload, tag = artifact_payload(source, f"artifact {ref.hex()}")
            check_room(payload.size, self._room(), f"artifact {ref.hex()}")
            artifact = Artifact(payload.whole(), tag)
            check_arrived(ref, artifact.reference())
            self._keep(state, [artifact])

    def cut_back(self, domain: bytes, size: int) -> None:
        """As the contract says."""
        with self._writing("cut_back") as state:
            log = state.logs.get(domain)
            if log is None or not 0 <= size <= len(log.records):
                raise NotFound(f"{size} records of {domain.hex()[:16]}", "they are not here", "ask for what is here")
            if domain == self._domain:
                raise InternalError("cut_back", "the own domain is never cut back", "begin a successor")
            state.logs[domain] = _Log(domain, log.key, log.records[:size])
            for ref, events in state.events.items():
                state.events[ref] = [one for one in events if one[0].domain != domain or one[0].seq <= size]
            self._views.forget()

    # --- transactions ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As the contract says."""
        with self._writing("transaction") as state:
            before, outer, nested = state.copy(), self._before, self._in_transaction
            begin, end, undo = ("SAVEPOINT part", "RELEASE part", "ROLLBACK TO part") if nested else _OUTER
            self._before, self._holder = outer or before, threading.get_ident()
            if self._db is not None:
                self._db.execute(begin)
            try:
                yield
            except BaseException:
                self._state = before
                self._views.forget()
                if self._db is not None and self._db.in_transaction:
                    self._db.execute(undo)
                raise
            else:
                if self._db is not None and self._db.in_transaction:
                    self._db.execute(end)
            finally:
                self._before = outer
                if not nested:
                    self._holder = None

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> MemoryTables:
        """As the contract says."""
        check_ddl(name, ddl)
        with self._writing("extension") as state:
            if self._db is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                if self._in_transaction:
                    self._db.execute("BEGIN")
            made = state.extensions.setdefault(name, (version, tuple(ddl)))
            if made != (version, tuple(ddl)):
                rule = f"the tables that are here are of version {made[0]}, or made by other statements"
                raise InternalError(f"extension {name} {version}", rule, "migrate them first")
            names = {row[0] for row in self._db.execute("SELECT sql FROM sqlite_master")}
            for statement in ddl:
                if statement not in names:
                    self._db.execute(statement)
            return MemoryTables(self, self._db)

    def close(self) -> None:
        """Refuse everything from here on; what was written is gone with the object."""
        if self._in_transaction:
            raise InternalError("close", "its transaction is open", "leave the block first")
        self._journal.close()
        if self._db is not None:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- parts ---

    @property
    def _in_transaction(self) -> bool:
        return self._holder is not None and self._holder == threading.get_ident()

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise InternalError(call, "the store is closed", "open it again")

    @contextmanager
    def _writing(self, call: str) -> Iterator[_State]:
        """The state, to be changed by this thread alone; who changes it checks before the first change."""
        with self._turn:
            self._check_open(call)
            yield self._state

    def _seen(self) -> _State:
        """What this thread sees."""
        return self._state if self._in_transaction else self._durable()

    def _durable(self) -> _State:
        return self._state if self._before is None else self._before

    def _extend(self, state: _State, entries: Sequence[Entry]) -> Written:
        log = state.logs[self._domain]
        size = len(log.records)
        linked = link(self._domain, size, log.head, entries)
        state.extend(self._domain, (Incoming(one.record.header, one.hash, BODY, one.record.body) for one in linked))
        state.last_ticks |= {one.record.seq: one.last_tick for one in linked if one.last_tick is not None}
        return Written(size + 1, len(log.records), log.head)

    def _put(self, call: str, artifacts: Sequence[Artifact], publish: bool) -> list[Reference]:
        refs = [one.reference() for one in artifacts]
        with self._writing(call) as state:
            self._keep(state, artifacts)
            news = {ref: one for ref, one in zip(refs, artifacts, strict=True) if not self._shown(state, ref, publish)}
            bodies = [ArtifactBody(ref, one.tag, len(one.payload)) for ref, one in news.items()]
            if bodies:
                self._extend(state, [entry_of(body, publish=publish) for body in bodies])
        return refs

    def _keep(self, state: _State, artifacts: Sequence[Artifact]) -> None:
        news = {ref: one for one in artifacts if (ref := one.reference()) not in state.artifacts}
        room = self._room([one.tag for one in news.values()])
        check_room(sum(len(one.payload) for one in news.values()), room, f"{len(news)} artifacts")
        state.artifacts.update(news)

    def _room(self, tags: Iterable[int | None] = (None,)) -> int | None:
        state = self._seen()
        if state.quota_bytes is None:
            return None
        return state.quota_bytes + reserve_of(tags) - sum(len(one.payload) for one in state.artifacts.values())

    def _events(self, state: _State, ref: Reference) -> list[Event]:
        return [event for event, _ in state.events.get(ref, [])]

    def _shown(self, state: _State, ref: Reference, publish: bool) -> bool:
        own = [(one.kind, one.flags) for one in self._events(state, ref) if one.domain == self._domain]
        return shows(own, publish=publish)

    def _is_erased(self, state: _State, ref: Reference) -> bool:
        return any(one.kind == ERASE for one in self._events(state, ref))

    def _held(self, call: str, ref: Reference) -> Artifact:
        self._check_open(call)
        artifact = self._seen().artifacts.get(ref)
        if artifact is None:
            raise self._missing(ref)
        return artifact

    def _missing(self, ref: Reference) -> NotFound | Withheld | Erased:
        kinds = {event.kind for event in self._events(self._seen(), ref)}
        if ERASE in kinds:
            return Erased(f"artifact {ref.hex()}", "a record says that its bytes were dropped for good", "do without")
        if kinds.isdisjoint(ADDS):
            return _unknown(ref)
        action = "pull again from a peer that may have them"
        return Withheld(f"artifact {ref.hex()}", "a record names it, its bytes have not come", action)

    def _leaves(self, domain: bytes, size: int | None) -> list[bytes]:
        """The first ``size`` record hashes of a domain; None: all."""
        self._check_open("proof")
        log = self._seen().logs.get(domain)
        if log is None:
            raise NotFound(f"domain {domain.hex()[:16]}", "no record of it is here", "pull it first")
        if size is not None and not 0 <= size <= len(log.records):
            rule = f"{len(log.records)} are here"
            raise NotFound(f"{size} records of {domain.hex()[:16]}", rule, "ask for what is here")
        return [one.hash for one in log.records[:size]]

    def _came(self, incoming: Sequence[Incoming], sources: Mapping[Reference, BinaryIO]) -> list[Artifact]:
        said = stated(incoming)
        came = [one.artifact[1] for one in incoming if one.artifact is not None]
        for ref, stream in sources.items():
            if ref not in said:
                raise PeerError(f"artifact {ref.hex()}", "no record that came with it names it", "leave it out")
            payload, tag = artifact_payload(stream, f"artifact {ref.hex()}")
            check_stated(said[ref], tag, payload.size, f"artifact {ref.hex()}")
            check_room(payload.size, self._room(), f"artifact {ref.hex()}")
            artifact = Artifact(payload.whole(), tag)
            check_arrived(ref, artifact.reference())
            came.append(artifact)
        return came


class MemoryTables:
    """The :class:`~tidewarp.store.contract.Tables` of an extension, in a database in memory."""

    def __init__(self, store: MemoryStore, db: sqlite3.Connection) -> None:
        self._store = store
        self._db = db

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """As the contract says."""
        with self._store._writing("execute"):
            return self._db.execute(statement, values).fetchall()


class _Holdings:
    """What the rule of collections asks, over a state; :class:`~tidewarp.store.retention.Holdings`."""

    def __init__(self, store: MemoryStore, state: _State) -> None:
        self._store = store
        self._state = state
        self._namers: dict[Reference, list[Reference]] = {}
        for source, artifact in state.artifacts.items():
            for ref in links(artifact.tag, artifact.payload):
                self._namers.setdefault(ref, []).append(source)

    def words(self, ref: Reference) -> list[Word]:
        """As the protocol says."""
        logs = self._state.logs
        found = self._state.events.get(ref, [])
        return [
            Word(one.domain, one.seq, one.flags, logs[one.domain].records[one.seq - 1].hash, body)
            for one, body in sorted(found, key=lambda said: said[0][:2])
        ]

    def namers(self, ref: Reference) -> list[Reference]:
        """As the protocol says."""
        return self._namers.get(ref, [])

    def is_visible(self, ref: Reference) -> bool:
        """As the protocol says."""
        return any(self._store.view(scope=scope).is_visible(ref) for scope in _SCOPES)


def _said(one: Incoming) -> Body | None:
    """What a record says; nothing where its body is not here, or is of no form that its kind has."""
    try:
        return None if one.body is None else decode_body(one.header.kind, one.body)
    except CodecError:
        return None


def _retention(store: MemoryStore, state: _State, guards: Sequence[Guard]) -> Retention:
    admission, rivals = store._views.admission, store._views.rivals
    named = Named(store.domain)
    unsettled = {header.domain for header in rivals}
    for log in state.logs.values():
        for one in log.records:
            body = _said(one)
            is_awaited = one.state != BODY and one.header.flags & PUBLISHED
            if is_awaited or (isinstance(body, EraseBody) and body.ref is None):
                unsettled.add(log.domain)
            elif body is not None and admission.standing(log.domain) is not None:
                word = Word(log.domain, one.header.seq, one.header.flags, one.hash, body)
                named.add(word, settled=log.domain not in unsettled)
    return Retention(_Holdings(store, state), admission, store.domain, unsettled, named, state.pins, guards)


def _frontier_over(leaves: Sequence[bytes]) -> Frontier:
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier


def _hashes(leaves: Sequence[bytes]) -> tuple[Hashes, Hashes]:
    tiles = _frontier_tiles(leaves)
    return (lambda first, last: leaves[first:last]), (lambda first, last: tiles[first:last])


def _frontier_tiles(leaves: Sequence[bytes]) -> list[bytes]:
    full = len(leaves) - len(leaves) % TILE_LEAVES
    return Frontier().extend(leaves[:full])


def _unknown(ref: Reference) -> NotFound:
    return NotFound(f"artifact {ref.hex()}", "no record here adds it", "check the reference, or pull from its site")
