"""Laws of the fold, for any history: order has no influence, growing is folding from nothing, a cut is a shorter journal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authors import Author, hash_of
from histories import FORKING, MEMBERS, Node, Operation, World, operations, series
from tidewarp.codec import PUBLISHED, Record, RecordHeader
from tidewarp.codec.bodies import (
    DOMAIN,
    STICKY,
    ArtifactBody,
    EdgeBody,
    LiftBody,
    ReceiptBody,
    TombstoneBody,
    decode_body,
)
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import InternalError
from tidewarp.store.admission import OPEN, Role
from tidewarp.store.fold import Fold, merge_order

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
WORKED = [
    Record(RecordHeader.from_bytes(VECTORS[f"record{seq}_header"]), VECTORS[f"record{seq}_body"]) for seq in range(1, 7)
]

histories = series(st.tuples(st.integers(0, 4), operations()), 40)
forking = series(st.tuples(st.integers(0, 4), operations(FORKING)), 40)


def written(steps: Sequence[tuple[int, Operation]]) -> World:
    world = World(5)
    for number, operation in steps:
        world.do(number, operation)
    return world


def folded(records: Sequence[Record]) -> Fold:
    node = Node()
    node.receive(records)
    return node.fold


def test_the_worked_history() -> None:
    """State hash and snapshot id are those of the committed vectors, however often they are asked for on the way."""
    fold = Fold(replace(OPEN, latest=frozenset({1})))
    for record in WORKED:
        fold.add(*record)
        fold.state_hash()
    assert fold.state_hash() == VECTORS["state_hash"]
    assert fold.snapshot().to_bytes() == VECTORS["snapshot"]
    assert fold.snapshot().id() == VECTORS["snapshot_id"]
    assert fold.cut(fold.snapshot()).state_hash() == VECTORS["state_hash"]


def test_a_fold_of_nothing() -> None:
    fold = Fold()
    assert (fold.rows(), fold.visible(), fold.heads(), fold.forks(), fold.snapshot().vector) == ([], [], [], (), ())


def test_a_record_without_its_predecessor_is_the_callers_mistake() -> None:
    fold = Fold()
    with pytest.raises(InternalError, match="predecessor is not here"):
        fold.add(*WORKED[1])
    fold.add(*WORKED[0])
    with pytest.raises(InternalError, match="predecessor is not here"):
        fold.add(*WORKED[2])
    assert [head.seq for head in fold.heads()] == [1]


@given(forking, st.randoms(use_true_random=False), st.lists(st.integers(0, 40), max_size=5))
def test_order_has_no_influence(steps, random, asked) -> None:
    """Any interleaving, with repetitions, and with questions between: the rows of a fold from nothing."""
    records = written(steps).records
    shuffled = records + records[::3]
    random.shuffle(shuffled)
    node = Node()
    for place, record in enumerate(shuffled):
        node.receive([record])
        if place in asked:
            node.fold.rows()
    whole = folded(records)
    assert node.fold.rows() == whole.rows()
    assert node.fold.snapshot() == whole.snapshot()
    assert node.fold.forks() == whole.forks()


@given(forking)
def test_growing_is_folding_from_nothing(steps) -> None:
    """After each record the fold has the rows of a new one over the same records, and its own snapshot cuts to itself."""
    fold = Fold(MEMBERS)
    records = written(steps).records
    for size, record in enumerate(records, 1):
        fold.add(*record)
        assert fold.rows() == folded(records[:size]).rows()
        assert fold.cut(fold.snapshot()).rows() == fold.rows(), "equal snapshots, equal state"


@given(forking, st.lists(st.integers(0, 30), min_size=5, max_size=5))
def test_a_cut_is_the_view_of_the_cut_journals(steps, places) -> None:
    """Cut at any record of each domain, on any branch: the view of that record and all before it, and of nothing else."""
    records = written(steps).records
    by_name = {hash_of(record): record for record in records}
    heads, journals = [], []
    for domain, place in zip(sorted(MEMBERS.domains), places, strict=True):
        own = [record for record in records if record.header.domain == domain]
        if place >= len(own):
            continue
        heads.append((domain, own[place].seq, hash_of(own[place])))
        journal = [own[place]]
        while journal[-1].header.prev in by_name:
            journal.append(by_name[journal[-1].header.prev])
        journals += journal[::-1]
    cut = folded(records).cut(Snapshot(MEMBERS.policy_hash, tuple(heads)))
    assert cut.rows() == folded(journals).rows()
    assert cut.snapshot().vector == tuple(heads)


@given(histories)
def test_visibility_is_as_defined(steps) -> None:
    """Against the definition, word for word, over the records of each domain; nothing here forks or is erased."""
    records = [record for record in written(steps).records if record.kind != 0x12]
    relinked = [Author(number) for number in range(5)]
    by_domain = {author.domain: author for author in relinked}
    for record in records:
        by_domain[record.header.domain].write_bytes(record.kind, record.body, record.header.flags)
    records = [record for author in relinked for record in author.records]
    fold = folded(records)
    visible, known = defined(records)
    assert fold.visible() == sorted(visible)
    assert fold.hidden() == sorted(known - visible)
    assert all(fold.is_visible(ref) and not fold.is_hidden(ref) for ref in visible)


def defined(records: Sequence[Record]) -> tuple[set[Reference], set[Reference]]:
    """What is visible, and what is known, by the definition of the specification and nothing cleverer."""
    adds, events, stones, lifts = defaultdict(list), defaultdict(list), [], set()
    for record in records:
        domain, body = record.header.domain, decode_body(record.kind, record.body)
        roles = MEMBERS.domains[domain].roles
        if not record.header.flags & PUBLISHED:
            continue
        if isinstance(body, ArtifactBody | EdgeBody | ReceiptBody):
            if (Role.EXECUTE if isinstance(body, ReceiptBody) else Role.PRODUCE) in roles:
                adds[body.ref, domain].append(record.seq)
                events[body.ref, domain].append((record.seq, "add"))
        elif isinstance(body, TombstoneBody | LiftBody):
            if body.scope == DOMAIN:
                events[body.ref, domain].append((record.seq, "hide" if isinstance(body, TombstoneBody) else "lift"))
            elif Role.CURATE in roles and isinstance(body, TombstoneBody):
                stones.append((hash_of(record), body))
            elif Role.CURATE in roles:
                lifts.add((body.tombstone, body.ref, body.scope))
    standing = [stone for name, stone in stones if (name, stone.ref, stone.scope) not in lifts]
    visible = set()
    for (ref, domain), seqs in adds.items():
        covered = any(
            stone.scope == STICKY or max(seqs) <= dict(stone.bounds).get(domain, 0)
            for stone in standing
            if stone.ref == ref
        )
        if max(events[ref, domain])[1] != "hide" and not covered:
            visible.add(ref)
    return visible, {ref for ref, _ in events}


@given(histories)
def test_the_merge_order_is_total(steps) -> None:
    """No two records stand at one place, and those of a domain stand in its own order."""
    records = written(steps).records
    places = [merge_order(record) for record in records]
    assert len(set(places)) == len(places)
    for place, record in zip(places, records, strict=True):
        assert (place[0], place[2], place[4]) == (record.seq, record.header.domain, hash_of(record))


def test_ranks_of_the_merge_order() -> None:
    """Among records of one number an add comes before a lift, a lift before a tombstone, and all else behind."""
    world = World(5)
    for number, verb in enumerate(["hide", "opaque", "lift", "add", "claim"]):
        world.do(number, (verb, 0, 0))
    order = [hex(record.kind) for record in sorted(world.records, key=merge_order)]
    assert order[2:] == ["0x11", "0x10", "0x80"]
    assert set(order[:2]) == {"0x2", "0x4"}
