"""The part of the suite for stores that is about artifacts, edges and other domains' records: see :mod:`.stores`."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from tidewarp.codec import INPUT, PUBLISHED, RecordHeader, genesis, record_hash, timed_body
from tidewarp.codec.artifacts import TAG_EDGE, Artifact
from tidewarp.codec.batches import BODY, WITHHELD, BatchItem
from tidewarp.codec.bodies import ARTIFACT, ERASE, ArtifactBody, EraseBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, DESCRIBES, Edge
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.merkle import Frontier, verify_consistency, verify_inclusion
from tidewarp.codec.records import domain_of
from tidewarp.codec.references import Reference
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
from tidewarp.store.contract import Entry, Store
from tidewarp.store.query import SegmentScan, ShardDispatch
from tidewarp.store.shards import ShardMap
from tidewarp.store.snapshots import find_snapshot
from tidewarp.testing.suites import hypothesis, pytest, stateful, strategies

__all__ = ["ArtifactMachine", "ContentConformance", "Site"]

_PAYLOADS = strategies.sampled_from([b"", b"a", b"b" * 300, b"c" * 5_000])
_TAGS = strategies.sampled_from([None, 0, 7, TAG_EDGE + 1])
_UNKNOWN = Artifact(b"nobody has put this").reference()
_DDL = ("CREATE TABLE test_note (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",)


class Site:
    """Another domain, as records and heads that a store may adopt. ``seed`` is its private key (32 bytes)."""

    def __init__(self, seed: bytes = bytes(range(32))) -> None:
        self.key = public_key_of(seed)
        self.domain = domain_of(self.key)
        self.items: list[BatchItem] = []
        self._seed = seed

    def write(self, kind: int, body: bytes, *, flags: int = PUBLISHED, artifact: Artifact | None = None) -> BatchItem:
        """The next record; its body is withheld if it is not published."""
        prev = record_hash(self.items[-1].header.to_bytes()) if self.items else genesis(self.domain)
        entry = Entry(kind, body, flags)
        header = _header(self.domain, len(self.items) + 1, entry, prev)
        data = None if artifact is None else artifact.to_bytes()
        item = BatchItem(header, BODY, body, data) if flags else BatchItem(header, WITHHELD, None, None)
        self.items.append(item)
        return item

    def put(self, payload: bytes, tag: int | None = None, *, carry: bool = True) -> Reference:
        """A record that adds an artifact, whose bytes come with it, or do not."""
        artifact = Artifact(payload, tag)
        ref = artifact.reference()
        body = ArtifactBody(ref, tag, len(payload)).to_bytes()
        self.write(ARTIFACT, body, artifact=artifact if carry else None)
        return ref

    def head(self, size: int | None = None) -> SignedHead:
        """The signed head of the first ``size`` records; None: of all."""
        items = self.items[:size]
        frontier = Frontier()
        frontier.extend([record_hash(one.header.to_bytes()) for one in items])
        last = record_hash(items[-1].header.to_bytes()) if items else genesis(self.domain)
        return sign_head(self.domain, len(items), frontier.root(), last, "site", self._seed)

    def give(self, store: Store, first: int = 0, last: int | None = None, **options: Any) -> object:
        """Let ``store`` adopt the items from ``first`` (from 0) on, under the head of all."""
        return store.adopt(self.domain, self.items[first:last], self.head(), key=self.key, **options)


class ArtifactMachine(stateful.RuleBasedStateMachine):
    """Artifacts, edges, tombstones, lifts and transactions in any order, against two dicts."""

    def __init__(self, create: Callable[[Path], Store], reopen: Callable[[Path], Store] | None) -> None:
        super().__init__()
        self._reopen = reopen
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.store = create(self.folder)
        self.payloads: dict[Reference, Artifact] = {}
        self.shown: dict[Reference, bool] = {}  # to others
        self.internal: set[Reference] = set()  # known to nobody else
        self.edges: dict[Reference, Edge] = {}

    @stateful.rule(payload=_PAYLOADS, tag=_TAGS, publish=strategies.booleans())
    def put(self, payload: bytes, tag: int | None, publish: bool) -> None:
        """What the domain shows already appends nothing."""
        self._put([Artifact(payload, tag)], publish, lambda: [self.store.put(payload, tag=tag, publish=publish)])

    @stateful.rule(items=strategies.lists(strategies.tuples(_PAYLOADS, _TAGS), max_size=4))
    def put_many(self, items: list[tuple[bytes, int | None]]) -> None:
        """One transaction, references in the order given."""
        self._put([Artifact(*item) for item in items], True, lambda: self.store.put_many(items))

    @stateful.rule(payload=_PAYLOADS, tag=_TAGS)
    def put_stream(self, payload: bytes, tag: int | None) -> None:
        """A file and a stream are the artifact that their bytes are."""
        file = self.folder.parent / f"{self.folder.name}.payload"
        file.write_bytes(payload)
        try:
            sources = iter([file, io.BytesIO(payload)])
            for source in sources:
                one = Artifact(payload, tag)
                self._put([one], True, lambda source=source: [self.store.put(source, tag=tag)])  # type: ignore[misc]
        finally:
            file.unlink()

    @stateful.precondition(lambda self: len(self.payloads) > 1)
    @stateful.rule(data=strategies.data(), kind=strategies.sampled_from([DERIVES, DESCRIBES]))
    def put_edge(self, data: strategies.DataObject, kind: int) -> None:
        """An edge is an artifact under its own tag."""
        ends = strategies.lists(strategies.sampled_from(sorted(self.payloads)), max_size=3)
        edge = Edge(kind, tuple(data.draw(ends)), tuple(data.draw(ends)))
        one = Artifact(edge.to_bytes(), TAG_EDGE)
        self._put([one], True, lambda: [self.store.put_edge(edge)])
        self.edges[one.reference()] = edge

    @stateful.precondition(lambda self: self.payloads)
    @stateful.rule(data=strategies.data())
    def tombstone(self, data: strategies.DataObject) -> None:
        """It is hidden, and its bytes stay."""
        ref = data.draw(strategies.sampled_from(sorted(self.payloads)))
        before = self.store.journal.size
        assert self.store.tombstone(ref, reason=3, note="for a test")[:2] == (before + 1, before + 1)
        self.shown[ref] = False

    @stateful.precondition(lambda self: self.payloads)
    @stateful.rule(data=strategies.data())
    def lift(self, data: strategies.DataObject) -> None:
        """It is shown again."""
        ref = data.draw(strategies.sampled_from(sorted(self.payloads)))
        self.store.lift(ref)
        self.shown[ref] = ref not in self.internal

    @stateful.rule(payload=_PAYLOADS, tag=_TAGS)
    def undo(self, payload: bytes, tag: int | None) -> None:
        """A transaction that raises leaves nothing, of whatever it did."""
        journal = self.store.journal
        before = journal.size, journal.head, journal.cursors(), self.store.state_hash(), self.store.snapshot()
        with pytest.raises(_Undone), self.store.transaction():
            ref = self.store.put(payload, tag=tag)
            assert self.store.get(ref) == payload, "a transaction sees what it has written"
            self.store.put(b"only here", tag=1)
            journal.append([Entry(INPUT, timed_body(1, b""))], cursors={"s": b"1"})
            self.store.tombstone(ref)
            self.store.state_hash()
            raise _Undone
        assert (
            journal.size,
            journal.head,
            journal.cursors(),
            self.store.state_hash(),
            self.store.snapshot(),
        ) == before
        assert self.store.has([Artifact(b"only here", 1).reference()]) == [False]

    @stateful.rule(count=strategies.sampled_from([1, 2, 7, 64]))
    def reshard(self, count: int) -> None:
        """No answer hangs on how the records are divided."""
        before = self._answers()
        self.store.reshard(ShardMap.even(count))
        assert self.store.shard_map == ShardMap.even(count)
        assert self._answers() == before

    @stateful.precondition(lambda self: self._reopen is not None)
    @stateful.rule()
    def reopen(self) -> None:
        """The next life has all of it."""
        before = self._answers(), self.store.shard_map
        self.store.close()
        assert self._reopen is not None  # the precondition
        self.store = self._reopen(self.folder)
        assert (self._answers(), self.store.shard_map) == before

    @stateful.invariant()
    def agree(self) -> None:
        """Bytes, sizes, tags, visibility and edges are those of the dicts."""
        view = self.store.view()
        for ref, one in self.payloads.items():
            assert self.store.get(ref) == one.payload
            assert self.store.get(ref, offset=2, length=100) == one.payload[2:102]
            with self.store.open(ref) as stream:
                assert stream.read() == one.payload
            published = ref not in self.internal
            assert self.store.info(ref) == (ref, one.tag, len(one.payload), "here", published)
            assert view.is_visible(ref) == self.shown[ref]
        assert self.store.has([*self.payloads, _UNKNOWN]) == [True] * len(self.payloads) + [False]
        assert self.store.edges() == sorted(self.edges.items())
        for kind, end in ((DERIVES, min(self.payloads, default=_UNKNOWN)), (DESCRIBES, _UNKNOWN)):
            ends = [(ref, edge) for ref, edge in sorted(self.edges.items()) if edge.type == kind]
            assert self.store.edges(kind) == ends
            assert self.store.edges(source=end) == [
                (ref, edge) for ref, edge in sorted(self.edges.items()) if end in edge.sources
            ]
            assert self.store.edges(kind, target=end) == [(ref, edge) for ref, edge in ends if end in edge.targets]

    def _put(self, artifacts: list[Artifact], publish: bool, call: Callable[[], list[Reference]]) -> None:
        refs = [one.reference() for one in artifacts]
        news = {
            ref
            for ref in refs
            if not (self.shown.get(ref) if publish else self.shown.get(ref) or self._is_internally_shown(ref))
        }
        before = self.store.journal.size
        assert call() == refs
        assert self.store.journal.size == before + len(news), "one record for each artifact that was not shown"
        for ref, one in zip(refs, artifacts, strict=True):
            self.payloads[ref] = one
            if publish:
                self.internal.discard(ref)
                self.shown[ref] = True
            elif ref in news and ref not in self.shown:
                self.internal.add(ref)
                self.shown[ref] = False

    def _answers(self) -> list[object]:
        """Hashes, and the rows of a scan, read shard by shard and as one."""
        view = self.store.view(scope="all")
        rows = list(view.run(SegmentScan()))
        assert list(view.run(ShardDispatch(SegmentScan()))) == rows, "merged, the shards are all records in their order"
        return [self.store.state_hash(), self.store.state_hash("all"), self.store.snapshot(), rows]

    def _is_internally_shown(self, ref: Reference) -> bool:
        return self.store.view(scope="all").is_visible(ref)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.store.close()
        self._temporary.cleanup()


class _Undone(Exception):
    """What the machine leaves a transaction with."""


class ContentConformance:
    """Tests of what a store holds beside its journal. Give ``create``: see :class:`~tidewarp.testing.stores.StoreConformance`."""

    artifact_machine: type[ArtifactMachine] = ArtifactMachine
    """The state machine over artifacts; replace it to add rules of your own."""

    content_settings = hypothesis.settings(
        max_examples=25, stateful_step_count=20, deadline=None, report_multiple_bugs=False
    )
    """Of that machine."""

    def create(self, folder: Path) -> Store:
        """A new, empty store in ``folder``, which is empty and the store's own."""
        raise NotImplementedError("a suite for a store needs create(folder)")

    def _reopening(self) -> Callable[[Path], Store] | None:
        return None

    def test_any_sequence_of_puts_gives_what_dicts_give(self) -> None:
        """Puts, edges, tombstones, lifts, undone transactions and lives in any order."""
        machine = partial(self.artifact_machine, self.create, self._reopening())
        stateful.run_state_machine_as_test(cast("Any", machine), settings=self.content_settings)

    def test_a_snapshot_is_found_by_name_and_by_id(self, tmp_path: Path) -> None:
        """A record keeps it: the last of a name counts, a pin before it; what was visible at it is listed."""
        with self.create(tmp_path) as store:
            one = store.put(b"one")
            first = store.snapshot("stock")
            two = store.put(b"two")
            store.tombstone(one)
            second = store.snapshot("stock")
            assert [find_snapshot(store, which) for which in ("stock", first.id())] == [second, first]
            assert list(store.snapshot_items(first.id())) == [(ARTIFACT, one, store.domain, 1)]
            assert [item.ref for item in store.snapshot_items(second.id())] == [two]
            assert store.snapshot() not in (first, second), "the record that names it came behind it"
            assert list(store.snapshot_items(store.snapshot().id())) == list(store.snapshot_items(second.id()))
            with contextlib.suppress(_Undone), store.transaction():
                store.snapshot("undone")
                raise _Undone
            store.pin("stock", first)
            assert find_snapshot(store, "stock") == first
            for which in ("undone", "", bytes(32)):
                with pytest.raises(NotFound):
                    find_snapshot(store, which)
            for name in ("", "a\0b", "x" * 1_025):
                with pytest.raises(CodecError):
                    store.snapshot(name)

    def test_shards_are_where_the_reference_says(self, tmp_path: Path) -> None:
        """A record is in the shard of the artifact that it is about, or else of its own hash; also one that comes later."""
        site = Site()
        site.put(b"theirs")
        site.write(INPUT, timed_body(5, b"secret"), flags=0)
        with self.create(tmp_path) as store:
            store.put_many([(b"%d" % n, None) for n in range(20)])
            store.reshard(ShardMap((0x55, 0xAA)))
            site.give(store)
            store.tombstone(store.put(b"later"))
            store.journal.append([Entry(INPUT, timed_body(1, b""))])
            view = store.view(scope="all")
            for row in view.run(SegmentScan()):
                digest = row["hash"] if row["ref"] is None else row["ref"].digest
                shard = (digest[0] >= 0x55) + (digest[0] >= 0xAA)
                found = [row in list(view.run(SegmentScan(shard=one))) for one in range(3)]
                assert found == [one == shard for one in range(3)]
            with pytest.raises(OperatorError):
                list(view.run(SegmentScan(shard=3)))

    def test_what_is_not_here_is_told_apart(self, tmp_path: Path) -> None:
        """Never heard of, hidden without an add, named without its bytes, dropped for good."""
        site = Site()
        withheld, erased = site.put(b"large", carry=False), site.put(b"gone", carry=False)
        site.write(ERASE, EraseBody(erased, None, 1).to_bytes())
        with self.create(tmp_path) as store:
            site.give(store)
            stone = Artifact(b"a tombstone alone").reference()
            store.tombstone(stone)
            for ref, wanted in ((_UNKNOWN, NotFound), (stone, NotFound), (withheld, Withheld), (erased, Erased)):
                for call in (store.get, store.open):
                    with pytest.raises(wanted):
                        call(ref)
                assert store.has([ref]) == [False]
            assert store.info(withheld) == (withheld, None, 5, "withheld", True)
            assert store.info(erased).state == "erased"
            for ref in (_UNKNOWN, stone):
                with pytest.raises(NotFound):
                    store.info(ref)
            store.put(b"large")
            assert store.get(withheld) == b"large"
            assert store.info(withheld).state == "here"

    def test_what_was_erased_does_not_come_back_with_the_records_of_others(self, tmp_path: Path) -> None:
        """Small or large; the records do come, and what was not erased."""
        site = Site()
        payloads = [b"small", bytes(300_000)]
        with self.create(tmp_path) as store:
            refs = [store.put(payload) for payload in payloads]
            for ref in refs:
                store.erase(ref)
            assert [site.put(payload) for payload in payloads] == refs
            other = site.put(b"another")
            site.give(store)
            assert store.has([*refs, other]) == [False, False, True]
            for ref in refs:
                assert store.info(ref).state == "erased"
                with pytest.raises(Erased):
                    store.get(ref)
            assert len(list(store.records(site.domain))) == 3
            store.gc(60.0)
            report = store.fsck()
            assert report.problems == ()

    def test_another_domain_is_adopted(self, tmp_path: Path) -> None:
        """Records, stubs, artifacts and heads of another domain, in two parts; what is visible follows."""
        site = Site()
        refs = [site.put(b"one"), site.put(b"two", 7)]
        site.write(INPUT, timed_body(5, b"secret"), flags=0)
        refs.append(site.put(b"three"))
        with self.create(tmp_path) as store:
            own = store.put(b"own")
            assert site.give(store, 0, 2) == (1, 2)
            assert store.signed_head(site.domain) is None, "the head is about more than what is here"
            assert site.give(store, 2) == (3, 4)
            assert [store.get(ref) for ref in refs] == [b"one", b"two", b"three"]
            assert all(map(store.view().is_visible, [own, *refs]))
            assert [(one.state, one.body) for one in store.records(site.domain)] == [
                (one.state, one.body) for one in site.items
            ]
            assert [one.header for one in store.records(site.domain, 1, 2)] == [one.header for one in site.items[1:3]]
            head = site.head()
            assert store.signed_head(site.domain) == head
            mine, other = store.domains()
            assert (mine.id, mine.size) == (store.domain, 1)
            assert other == (site.domain, "live", 4, head.head, head.note(), site.key)
            assert store.hash_at(site.domain, 0) == genesis(site.domain)
            assert store.hash_at(site.domain, 2) == site.items[2].header.prev
            assert store.hash_at(site.domain, 5) is None
            assert store.hash_at(bytes(32), 0) is None
            assert list(store.records(bytes(32))) == []
            snapshot = {domain: (seq, last) for domain, seq, last in store.snapshot().vector}
            assert snapshot == {store.domain: (1, store.journal.head), site.domain: (4, head.head)}

    def test_a_body_takes_the_place_of_its_stub(self, tmp_path: Path) -> None:
        """Withheld first, it comes later, with its artifact; another body, another header and what is unknown are refused."""
        site, artifact = Site(), Artifact(b"secret", 7)
        ref = artifact.reference()
        site.put(b"open")
        for kind, body in ((ARTIFACT, ArtifactBody(ref, 7, 6).to_bytes()), (INPUT, timed_body(5, b"secret"))):
            site.write(kind, body, flags=0)
        stubs = site.items[1:]
        first = BatchItem(stubs[0].header, BODY, ArtifactBody(ref, 7, 6).to_bytes(), artifact.to_bytes())
        second = BatchItem(stubs[1].header, BODY, timed_body(5, b"secret"))
        with self.create(tmp_path) as store:
            store.reshard(ShardMap((0x80,)))
            site.give(store)
            root, head = store.root_at(site.domain, 3), store.signed_head(site.domain)
            assert (store.withheld(site.domain, 0, 9), store.withheld(site.domain, 2, 9)) == ([2, 3], [3])
            assert (store.withheld(site.domain, 0, 1), store.withheld(bytes(32), 0, 9)) == ([2], [])
            for wrong in (
                first._replace(body=first.body[:-1] + b"\7" if first.body else None),
                first._replace(artifact=Artifact(b"secret").to_bytes()),
                first._replace(header=second.header._replace(seq=2)),
                stubs[0],
            ):
                with pytest.raises(PeerError):
                    store.reveal(site.domain, [second, wrong])
                assert store.withheld(site.domain, 0, 9) == [2, 3]
            for domain, item in (
                (bytes(32), first),
                (site.domain, first._replace(header=first.header._replace(seq=9))),
            ):
                with pytest.raises(NotFound):
                    store.reveal(domain, [item])
            with pytest.raises(QuotaExceeded):
                store.set_quota(8)
                store.reveal(site.domain, [first])
            store.set_quota(None)
            assert not store.view(scope="all").is_visible(ref)
            assert store.reveal(site.domain, [first, second]) == 2
            assert store.reveal(site.domain, [first, second]) == 0
            assert (store.withheld(site.domain, 0, 9), store.get(ref)) == ([], b"secret")
            assert [one.body for one in store.records(site.domain, 1)] == [first.body, second.body]
            assert (store.root_at(site.domain, 3), store.signed_head(site.domain)) == (root, head)
            assert store.view(scope="all").is_visible(ref)
            assert not store.view().is_visible(ref)
            assert store.fsck().problems == ()
            rows = [row["seq"] for n in (0, 1) for row in store.view(scope="all").run(SegmentScan(shard=n))]
            assert sorted(rows) == [1, 2, 3]

    def test_trees_prove_what_is_here(self, tmp_path: Path) -> None:
        """Roots, frontiers and proofs over both domains, also beyond a tile."""
        site = Site()
        for n in range(1_100):
            site.write(0x80, n.to_bytes(2, "big"))
        with self.create(tmp_path) as store:
            site.give(store, 0, 700)
            site.give(store, 700)
            store.put_many([(b"%d" % n, None) for n in range(1_030)])
            for domain, size in ((site.domain, 1_100), (store.domain, 1_030)):
                hashes = [store.hash_at(domain, seq) or b"" for seq in range(1, size + 1)]
                frontier = Frontier()
                for n, leaf in enumerate(hashes):
                    if n in (0, 1, 1_023, 1_024, 1_025):
                        assert store.root_at(domain, n) == frontier.root()
                    frontier.append(leaf)
                root = frontier.root()
                assert store.root_at(domain, size) == store.frontier(domain).root() == root
                for seq in (1, 700, 1_024, 1_025, size):
                    verify_inclusion(hashes[seq - 1], seq - 1, size, store.inclusion_proof(domain, seq, size), root)
                for first in (1, 700, 1_024, size):
                    proof = store.consistency_proof(domain, first, size)
                    verify_consistency(first, size, proof, store.root_at(domain, first), root)
                with pytest.raises(NotFound):
                    store.root_at(domain, size + 1)

    def test_what_does_not_continue_a_domain_is_refused_whole(self, tmp_path: Path) -> None:
        """A gap, a repetition, another chain, body, artifact, key or head: PeerError, and nothing of it is here."""
        site, other = Site(), Site(bytes(32))
        for n in range(4):
            site.put(b"%d" % n)
            other.put(b"%d" % n)
        first, second, third, _ = site.items
        swapped = second._replace(artifact=third.artifact)
        forged = second._replace(body=third.body)
        bare = second._replace(body=None)
        lying = second._replace(artifact=Artifact(b"1", 9).to_bytes())
        bad_items = [
            [second],
            [first, third],
            [first, first],
            [first, other.items[1]],
            [first, swapped],
            [first, forged],
            [first, bare],
            [first, lying],
        ]
        with self.create(tmp_path) as store:
            before = store.state_hash()

            def refuse(items: list[BatchItem], head: SignedHead, key: bytes, **options: Any) -> None:
                with pytest.raises(PeerError):
                    store.adopt(site.domain, items, head, key=key, **options)
                assert [one.id for one in store.domains()] == [store.domain]
                assert store.has([Artifact(b"%d" % n).reference() for n in range(4)]) == [False] * 4

            for items in bad_items:
                refuse(items, site.head(), site.key)
            whole = site.items
            refuse(whole, site.head(), other.key)
            refuse(whole, other.head(), site.key)
            refuse(whole, site.head(3), site.key)
            refuse(whole, site.head()._replace(root=bytes(32)), site.key)
            refuse(whole, site.head()._replace(head=bytes(32)), site.key)
            strange = io.BytesIO(Artifact(b"strange").to_bytes())
            refuse(whole, site.head(), site.key, sources={_UNKNOWN: strange})
            assert store.state_hash() == before
            site.give(store)
            assert store.domains()[1].size == 4

    def test_large_artifacts_come_as_streams(self, tmp_path: Path) -> None:
        """Checked against the size and tag that the record says, before and after they are read."""
        site = Site()
        payload = bytes(range(256)) * 4_000
        ref = site.put(payload, 7, carry=False)
        whole = Artifact(payload, 7).to_bytes()
        with self.create(tmp_path) as store:
            for bad in (
                whole[:-1],
                whole + b"\0",
                whole[:-1] + b"\0",
                Artifact(payload).to_bytes(),
                b"\1" + bytes(4) + (1 << 32).to_bytes(8, "big"),
                b"",
                b"\2",
            ):
                with pytest.raises((PeerError, OperatorError)):
                    site.give(store, sources={ref: io.BytesIO(bad)})
                assert store.has([ref]) == [False]
            site.give(store, sources={ref: io.BytesIO(whole)})
            assert store.get(ref, offset=999_999, length=3) == payload[999_999:1_000_002]

    def test_all_of_a_transaction_is_there_or_nothing(self, tmp_path: Path) -> None:
        """Puts, appends, cursors, adopted records and tables of an upper layer; a step that fails alone is undone alone."""
        site = Site()
        ref = site.put(b"theirs")
        with self.create(tmp_path) as store:
            tables = store.extension("test", 1, _DDL)
            with pytest.raises(_Undone), store.transaction():
                store.put(b"mine")
                site.give(store)
                tables.execute("INSERT INTO test_note VALUES (1, 'one')")
                store.journal.append([Entry(0x80, b"")], cursors={"s": b"1"})
                raise _Undone
            assert store.journal.size == 0
            assert (len(store.domains()), store.journal.cursors(), store.has([ref])) == (1, {}, [False])
            assert tables.execute("SELECT * FROM test_note") == []
            with store.transaction():
                mine = store.put(b"mine")
                with pytest.raises(_Undone), store.transaction():
                    store.put(b"undone")
                    tables.execute("INSERT INTO test_note VALUES (1, 'one')")
                    raise _Undone
                tables.execute("INSERT INTO test_note VALUES (2, 'two')")
                site.give(store)
                written = store.journal.append([Entry(0x80, b"")], cursors={"s": b"2"})
                assert (written.first_seq, store.journal.size) == (2, 0), "not durable yet"
                with pytest.raises(InternalError):
                    store.journal.submit([Entry(0x80, b"")])
            assert store.journal.size == 2
            assert store.has([mine, ref, Artifact(b"undone").reference()]) == [True, True, False]
            assert tables.execute("SELECT n, text FROM test_note WHERE n > ?", 1) == [(2, "two")]
            assert store.journal.cursor("s") == b"2"

    def test_tables_of_an_upper_layer_are_its_own(self, tmp_path: Path) -> None:
        """Their names begin with its name, they hold data and nothing that runs, and they have one version."""
        with self.create(tmp_path) as store:
            store.extension("test", 1, _DDL)
            store.extension("test", 1, _DDL)
            for name, version, ddl in (
                ("test", 1, ("CREATE TABLE test_note (n INTEGER)",)),
                ("other", 1, ("CREATE TABLE test_more (n INTEGER)",)),
                ("other", 1, ("CREATE TRIGGER other_t AFTER INSERT ON log BEGIN DELETE FROM log; END",)),
                ("other", 1, ("CREATE TABLE other_t (n INTEGER); DROP TABLE log",)),
                ("other", 1, ("DROP TABLE log",)),
                ("Other x", 1, ()),
            ):
                with pytest.raises((InternalError, OperatorError)):
                    store.extension(name, version, ddl)

    def test_a_put_that_breaks_a_rule_writes_nothing(self, tmp_path: Path) -> None:
        """A tag that is no U32, a name that is none, ranges below 0, a scope that nobody knows."""
        with self.create(tmp_path) as store:
            ref = store.put(b"here")
            for bad in (-1, 1 << 32):
                with pytest.raises(CodecError):
                    store.put(b"", tag=bad)
                with pytest.raises(CodecError):
                    store.put_many([(b"x", None), (b"y", bad)])
            with pytest.raises(OperatorError):
                store.put(tmp_path / "missing")
            with pytest.raises(OperatorError):
                store.put(Path("/dev/zero"))
            os.mkfifo(tmp_path / "pipe")
            with pytest.raises(OperatorError):
                store.put(tmp_path / "pipe")
            for options in ({"offset": -1}, {"length": -1}):
                with pytest.raises(OperatorError):
                    store.get(ref, **options)
            with pytest.raises(OperatorError):
                store.tombstone(ref, scope=cast("Any", "galaxy"))
            with pytest.raises(CodecError):
                store.point("x" * 2_000, ref)
            with pytest.raises(NotFound):
                store.lift(ref, scope="sticky")
            with pytest.raises(CodecError):
                store.journal.append([Entry(ARTIFACT, b"no artifact body", PUBLISHED)])
            assert store.journal.size == 1

    def test_names_point(self, tmp_path: Path) -> None:
        """A name has what it was given and what nobody has superseded."""
        with self.create(tmp_path) as store:
            one, two = store.put(b"1"), store.put(b"2")
            first = store.point("best", one)
            second = store.point("best", two)
            assert store.view().pointer("best") == sorted([one, two])
            store.point("best", two, [first.head, second.head])
            assert store.view().pointer("best") == [two]

    def test_curators_tombstones_name_what_was_seen(self, tmp_path: Path) -> None:
        """Scope federation bounds the adds of each domain; a lift without a name is of the last one."""
        site = Site()
        site.write(0x80, b"")
        ref = site.put(b"shared")
        with self.create(tmp_path) as store:
            site.give(store)
            store.put(b"shared")
            stone = store.tombstone(ref, scope="federation")
            assert store.view().is_visible(ref), "without the role it is recorded without effect"
            (record,) = store.records(store.domain, stone.last_seq - 1)
            bounds = sorted([(store.domain, 1), (site.domain, 2)])
            assert (record.body or b"").endswith(b"".join(domain + seq.to_bytes(8, "big") for domain, seq in bounds))
            lift = store.lift(ref, scope="federation")
            (record,) = store.records(store.domain, lift.last_seq - 1)
            assert (record.body or b"").endswith(stone.head)

    def test_bytes_go_when_nothing_keeps_them(self, tmp_path: Path) -> None:
        """A collection drops what is hidden, not what is visible, pinned or the end of a visible edge; records stay."""
        with self.create(tmp_path) as store:
            gone, pinned, end, shown = (store.put(bytes([n]) * 300) for n in range(4))
            for ref in (gone, pinned, end):
                store.tombstone(ref)
            store.pin("mine", pinned)
            edge = store.put_edge(Edge(DERIVES, (end,), (shown,)))
            state, size = store.state_hash(), store.journal.size
            dry = store.gc(60.0, dry_run=True)
            report = store.gc(60.0)
            assert report[:5] == (*dry[:4], report.seconds)
            assert report.complete
            assert (report.freed_bytes, report.freed_artifacts, report.kept) == (300, 1, {"pinned": 1, "linked": 1})
            assert store.has([gone, pinned, end, shown, edge]) == [False, True, True, True, True]
            assert (store.state_hash(), store.journal.size) == (state, size)
            assert store.pins() == {"mine": pinned}
            store.unpin("mine")
            assert store.gc(60.0).freed_artifacts == 1
            store.erase(shown)
            with pytest.raises(Erased):
                store.get(shown)
            assert store.fsck().clean

    def test_the_admission_in_force(self, tmp_path: Path) -> None:
        """The store says which one its views follow, from the moment that it was given."""
        with self.create(tmp_path) as store:
            assert store.admission == OPEN
            nobody = Admission(policy_hash=bytes(range(32)))
            store.admit(nobody)
            assert store.admission == store.view().admission == nobody

    def test_views_are_cut_at_snapshots(self, tmp_path: Path) -> None:
        """A snapshot's view stays what it was."""
        with self.create(tmp_path) as store:
            ref = store.put(b"1")
            early = store.snapshot()
            view = store.view(early)
            digest = view.state_hash()
            store.tombstone(ref)
            assert store.view(early).is_visible(ref)
            assert view.state_hash() == digest == store.view(early).state_hash() != store.state_hash()
            assert not store.view().is_visible(ref)


def _header(domain: bytes, seq: int, entry: Entry, prev: bytes) -> RecordHeader:
    body = entry.body
    return RecordHeader(domain, seq, entry.kind, entry.flags, 0, prev, len(body), sha256(body).digest())
