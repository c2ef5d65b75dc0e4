"""Federated replay over a bag of records: its order means nothing, its gaps are named, its contradictions are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authors import Author, added, hash_of, name_of
from histories import FORKING, MEMBERS, Node, World, operations, series
from tidewarp.codec import Record, RecordHeader, genesis
from tidewarp.codec.bodies import TombstoneBody
from tidewarp.codec.snapshots import NO_POLICY, Snapshot
from tidewarp.errors import CodecError, SnapshotIncomplete
from tidewarp.federation import FederationReplay, SnapshotRange, fork_evidence
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.fold import Fold

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
WORKED = [
    Record(RecordHeader.from_bytes(VECTORS[f"record{seq}_header"]), VECTORS[f"record{seq}_body"]) for seq in range(1, 7)
]
EVERYTHING = SnapshotRange(2**64 - 1)
steps = series(st.tuples(st.integers(0, 4), operations(FORKING)), 25)


def written(steps):
    world = World(5)
    for number, operation in steps:
        world.do(number, operation)
    return world.records


def ann_of(texts):
    ann = Author(0)
    for text in texts:
        ann.put(text)
    return ann


def shown(view, texts="abcdef"):
    return [text for text in texts if view.is_visible(name_of(text))]


def test_the_worked_history_backwards():
    view = FederationReplay(
        WORKED[::-1], Snapshot.from_bytes(VECTORS["snapshot"]), admission=replace(OPEN, latest=frozenset({1}))
    )
    assert view.state_hash() == VECTORS["state_hash"]
    assert view.snapshot().id() == VECTORS["snapshot_id"]


@given(steps, st.randoms(use_true_random=False))
def test_the_order_of_the_log_has_no_influence(steps, random):
    """With repetitions, too. What a node has that took the records one by one is what a replay makes of them."""
    records = written(steps)
    node = Node()
    node.receive(records)
    log = records + records[::2]
    random.shuffle(log)
    for target in (node.fold.snapshot(), EVERYTHING):
        view = FederationReplay(log, target, admission=MEMBERS)
        assert view.rows() == node.fold.rows()
        assert view.forks() == node.fold.forks()
    by_place = sorted((one.domain, one.seq, one.headers[0].prev) for one in fork_evidence(log))
    assert by_place == [(one.domain, one.seq, one.headers[0].prev) for one in fork_evidence(records)]


@given(steps, st.sets(st.integers(0, 24), max_size=3))
def test_a_replay_either_lacks_records_or_agrees(steps, lost):
    """Whatever is missing, the view of a snapshot is the whole one, or it is refused and the gaps are among the lost."""
    records = written(steps)
    node = Node()
    node.receive(records)
    log = [record for place, record in enumerate(records) if place not in lost]
    target = node.fold.snapshot()
    try:
        view = FederationReplay(log, target, admission=MEMBERS)
    except SnapshotIncomplete as error:
        places = {(record.header.domain, record.seq) for record in records} - {
            (record.header.domain, record.seq) for record in log
        }
        for domain, first, last in error.missing:
            rivals = [one for one in records if (one.header.domain, one.seq) == (domain, first)]
            assert len(rivals) > 1 or {(domain, seq) for seq in range(first, last + 1)} <= places
    else:
        assert view.state_hash() == node.fold.state_hash()


def test_records_beyond_the_target_wait():
    """They are checked and ignored, and nothing is lost by it: a later target has them."""
    ann = ann_of("ab")
    early = Fold()
    early.add(*ann.records[0])
    early.add(*ann.records[1])
    target = early.snapshot()
    ann.write(TombstoneBody(name_of("a")))
    ann.put("c")
    assert shown(FederationReplay(ann.records, target)) == ["a", "b"]
    assert shown(FederationReplay(ann.records, SnapshotRange(2))) == ["a", "b"]
    assert shown(FederationReplay(ann.records, SnapshotRange(3))) == ["b"]
    assert shown(FederationReplay(ann.records, SnapshotRange(9))) == ["b", "c"]
    assert shown(FederationReplay(ann.records, SnapshotRange(0))) == []


def test_a_range_cuts_every_domain_at_one_number():
    ann, bob = ann_of("abc"), Author(1)
    for text in "def":
        bob.put(text)
    assert shown(FederationReplay(ann.records + bob.records, SnapshotRange(2))) == ["a", "b", "d", "e"]


@pytest.mark.parametrize(
    ("left", "gaps"),
    [([2, 3, 4, 5], [(1, 1)]), ([1, 2, 5], [(3, 4)]), ([1, 3, 5], [(2, 2), (4, 4)]), ([1, 2, 3], [(4, 5)])],
)
def test_gaps_are_named(left, gaps):
    ann = ann_of("abcde")
    target = Snapshot(NO_POLICY, ((ann.domain, 5, ann.head),))
    log = [ann.records[seq - 1] for seq in left]
    with pytest.raises(SnapshotIncomplete) as error:
        FederationReplay(log, target)
    assert error.value.missing == tuple((ann.domain, *gap) for gap in gaps)
    if gaps != [(4, 5)]:  # nobody knows of records 4 and 5
        with pytest.raises(SnapshotIncomplete) as error:
            FederationReplay(log, EVERYTHING)
        assert error.value.missing == tuple((ann.domain, *gap) for gap in gaps)


def test_a_domain_that_is_not_in_the_log():
    target = Snapshot(NO_POLICY, ((bytes(32), 2**63, bytes(32)),))
    with pytest.raises(SnapshotIncomplete) as error:
        FederationReplay([], target)
    assert error.value.missing == ((bytes(32), 1, 2**63),)


def test_another_head_is_not_the_snapshot():
    ann = ann_of("ab")
    with pytest.raises(SnapshotIncomplete):
        FederationReplay(ann.records, Snapshot(NO_POLICY, ((ann.domain, 2, bytes(32)),)))


def test_a_predecessor_that_is_not_in_the_log():
    """Of two branches, one lacks its first record: its second has a number that is there, and follows nothing."""
    ann = ann_of("abc")
    ann.rewind(1)
    ann.put("d")
    lost = ann.put("e")
    assert lost == name_of("e")
    log = [*ann.records[:3], ann.records[4]]
    with pytest.raises(SnapshotIncomplete) as error:
        FederationReplay(log, EVERYTHING)
    assert error.value.missing == ((ann.domain, 2, 2),)


def test_a_record_that_skips_a_number_follows_nothing():
    ann = ann_of("ab")
    ann.rewind(1)
    ann.size += 1
    ann.put("c")
    log = [ann.records[0], ann.records[2]]
    for target in (EVERYTHING, Snapshot(NO_POLICY, ((ann.domain, 3, ann.head),))):
        for more in ([], [ann.records[1]]):
            with pytest.raises(SnapshotIncomplete):
                FederationReplay(log + more, target)


def test_missing_bodies_are_gaps():
    ann = ann_of("abc")
    log = [(header, None if header.seq == 2 else body) for header, body in ann.records]
    for target in (EVERYTHING, Snapshot(NO_POLICY, ((ann.domain, 3, ann.head),))):
        with pytest.raises(SnapshotIncomplete) as error:
            FederationReplay(log, target)
        assert error.value.missing == ((ann.domain, 2, 2),)
    whole = [*log, ann.records[1], log[1]]
    for order in (whole, whole[::-1]):
        assert shown(FederationReplay(order, EVERYTHING)) == ["a", "b", "c"]


@pytest.mark.parametrize("body", [b"", b"\0" * 47, added("b").to_bytes() + b"\0"])
def test_a_body_that_the_header_does_not_name_is_refused(body):
    ann = ann_of("ab")
    with pytest.raises(CodecError, match="the body is not the one that the header names"):
        FederationReplay([ann.records[0], (ann.records[1].header, body)], EVERYTHING)


def test_a_first_record_of_another_domain_is_refused():
    """A log is not replayed as another's: the genesis holds the domain."""
    header, body = ann_of("a").records[0]
    with pytest.raises(CodecError, match="genesis"):
        FederationReplay([(header._replace(domain=bytes(32)), body)], EVERYTHING)
    assert header.prev == genesis(header.domain)


def test_domains_that_do_not_count_are_left_out():
    ann, bob = ann_of("ac"), Author(1)
    bob.put("b")
    admission = Admission({bob.domain: OPEN.others})
    view = FederationReplay([ann.records[1], *bob.records], EVERYTHING, admission=admission)
    assert shown(view) == ["b"]


def test_a_fork_is_evidence():
    """Both headers at the first place that differs; what follows them proves no more."""
    ann = ann_of("abc")
    ann.rewind(1)
    for text in "def":
        ann.put(text)
    (evidence,) = fork_evidence(ann.records[::-1])
    rivals = sorted([ann.records[1], ann.records[3]], key=hash_of)
    assert evidence.headers == tuple(record.header for record in rivals)
    assert (evidence.domain, evidence.seq) == (ann.domain, 2)
    view = FederationReplay(ann.records, EVERYTHING)
    assert [fork.conflict for fork in view.forks()] == [evidence.conflict]
    assert shown(view) == ["a"]
    assert fork_evidence(ann.records[:3] + ann.records[:3]) == []
