"""The state machine over the artifacts of a store: what it is asked to do, and two dicts that say what must come of it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidewarp.codec import INPUT, timed_body
from tidewarp.codec.artifacts import TAG_EDGE, Artifact
from tidewarp.codec.edges import DERIVES, DESCRIBES, Edge
from tidewarp.codec.references import Reference
from tidewarp.store.contract import Entry, Store
from tidewarp.store.query import SegmentScan, ShardDispatch
from tidewarp.store.shards import ShardMap
from tidewarp.testing.suites import pytest, stateful, strategies

__all__ = ["UNKNOWN", "ArtifactMachine", "Undone"]

UNKNOWN = Artifact(b"nobody has put this").reference()
"""A name that is in no store."""

_PAYLOADS = strategies.sampled_from([b"", b"a", b"b" * 300, b"c" * 5_000])
_TAGS = strategies.sampled_from([None, 0, 7, TAG_EDGE + 1])


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
        with pytest.raises(Undone), self.store.transaction():
            ref = self.store.put(payload, tag=tag)
            assert self.store.get(ref) == payload, "a transaction sees what it has written"
            self.store.put(b"only here", tag=1)
            journal.append([Entry(INPUT, timed_body(1, b""))], cursors={"s": b"1"})
            self.store.tombstone(ref)
            self.store.state_hash()
            raise Undone
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
        view, whole = self.store.view(), self.store.view(scope="all")
        for ref, one in self.payloads.items():
            assert self.store.get(ref) == one.payload
            assert self.store.get(ref, offset=2, length=100) == one.payload[2:102]
            with self.store.open(ref) as stream:
                assert stream.read() == one.payload
            published = ref not in self.internal
            info = self.store.info(ref)
            assert info[:5] == (ref, one.tag, len(one.payload), "here", published)
            assert info.shown == whole.is_visible(ref)
            assert view.is_visible(ref) == self.shown[ref]
        assert self.store.has([*self.payloads, UNKNOWN]) == [True] * len(self.payloads) + [False]
        assert self.store.edges() == sorted(self.edges.items())
        for kind, end in ((DERIVES, min(self.payloads, default=UNKNOWN)), (DESCRIBES, UNKNOWN)):
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


class Undone(Exception):
    """What the machine leaves a transaction with."""
