"""What a slot and a name show: edges that differ in their payload alone, and pointers as multi-value registers."""

from __future__ import annotations

from itertools import permutations

from authors import Author, added, edge, hash_of, name_of
from tidewarp.codec.bodies import ArtifactBody, PointerBody, TombstoneBody
from tidewarp.store.admission import OPEN, Admission, Decision, Role, Standing
from tidewarp.store.fold import Fold

ENDS = (name_of("a"),), (name_of("b"),)
WORKER = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE, Role.EXECUTE}))
LATEST = Admission(others=WORKER, latest=frozenset({1}))


def fold_of(records, admission=OPEN):
    fold = Fold(admission)
    for record in records:
        fold.add(*record)
    return fold


def authors(count):
    """Authors whose domains ascend."""
    return sorted((Author(number) for number in range(count)), key=lambda author: author.domain)


def test_edges_of_a_slot_are_all_kept_in_merge_order():
    """By seq, then domain: the payload is part of an edge's identity and its digest decides nothing."""
    low, high = authors(2)
    for author, payload in [(high, "p1"), (low, "p2"), (low, "p3"), (high, "p4")]:
        author.link("a", "b", payload)
    fold = fold_of(high.records + low.records)
    assert fold.slot(1, *ENDS) == [edge("a", "b", payload) for payload in ("p2", "p1", "p3", "p4")]
    assert fold.slot(2, *ENDS) == []
    assert fold.slot(1, *ENDS[::-1]) == []
    assert all(row[0] != 3 for row in fold.rows())


def test_a_latest_type_shows_the_greatest_visible_edge():
    low, high = authors(2)
    for author, payload in [(low, "p1"), (high, "p2"), (low, "p3")]:
        author.link("a", "b", payload)
    shown = []
    for hidden in ("p3", "p2", "p1", None):
        fold = fold_of(low.records + high.records, LATEST)
        shown.append(fold.slot(1, *ENDS))
        rows = [row for row in fold.rows() if row[0] == 3]
        wanted = [b"\x03" + one.slot_key() + one.reference().encoded() for one in shown[-1]]
        assert rows == wanted
        if hidden is not None:
            (low if hidden != "p2" else high).write(TombstoneBody(edge("a", "b", hidden).reference()))
    assert shown == [[edge("a", "b", "p3")], [edge("a", "b", "p2")], [edge("a", "b", "p1")], []]


def test_an_edge_stands_at_the_greatest_of_its_live_adds():
    """Added again it moves up; the add of a domain that has hidden it does not hold it there."""
    low, high = authors(2)
    low.link("a", "b", "p1")
    low.link("a", "b", "p2")
    low.put("filler")
    high.link("a", "b", "p1")
    high.put("filler")
    high.put("filler")
    high.link("a", "b", "p1")
    fold = fold_of(low.records + high.records, LATEST)
    assert fold.slot(1, *ENDS) == [edge("a", "b", "p1")]
    fold.add(*high.write(TombstoneBody(edge("a", "b", "p1").reference())))
    assert fold.slot(1, *ENDS) == [edge("a", "b", "p2")], "low still shows p1, as its first record"


def test_an_edge_that_another_domain_shows_as_an_artifact():
    """The content is known from any EDGE record; who shows it is a matter of its id."""
    low, high = authors(2)
    ref = low.link("a", "b", "p")
    low.write(TombstoneBody(ref))
    high.write(ArtifactBody(ref, 0x201, len(edge("a", "b", "p").to_bytes())))
    for records in (low.records + high.records, high.records + low.records):
        assert fold_of(records).slot(1, *ENDS) == [edge("a", "b", "p")]


def point(author, name, text, *superseded):
    return author.write(PointerBody(name, tuple(map(hash_of, superseded)), name_of(text)))


def test_a_pointer_has_the_values_that_nobody_superseded():
    """Two sites that did not see each other leave two values; one that saw both leaves one. Any order of telling."""
    ann, bob, cleo = authors(3)
    first = point(ann, "best", "x")
    left, right = point(bob, "best", "y", first), point(cleo, "best", "z", first)
    assert fold_of([first, left, right]).pointer("best") == sorted([name_of("y"), name_of("z")])
    both = point(ann, "best", "w", left, right)
    hashes = set()
    for order in permutations([left, right, "ann"]):
        fold = fold_of([one for part in order for one in ([first, both] if part == "ann" else [part])])
        assert fold.pointer("best") == [name_of("w")]
        assert fold.pointer("other") == []
        hashes.add(fold.state_hash())
    assert len(hashes) == 1


def test_a_value_given_twice_is_one():
    ann, bob = authors(2)
    fold = fold_of([point(ann, "best", "x"), point(bob, "best", "x")])
    assert fold.pointer("best") == [name_of("x")]
    row = b"\x05\x00\x04best\x00\x00\x00\x01" + name_of("x").encoded()
    assert [one for one in fold.rows() if one[0] == 5] == [row]


def test_a_pointer_supersedes_under_its_own_name_only():
    ann, bob = authors(2)
    first = point(ann, "best", "x")
    fold = fold_of([first, point(bob, "worst", "y", first)])
    assert fold.pointer("best") == [name_of("x")]


def test_a_pointer_outlives_what_it_points_to():
    """It is a name for an identity; whether that is visible is another question."""
    ann = Author(0)
    fold = fold_of([ann.write(added("x")), point(ann, "best", "x"), ann.write(TombstoneBody(name_of("x")))])
    assert fold.pointer("best") == fold.hidden() == [name_of("x")]


def test_names_and_slots_of_who_may_not_produce():
    ann, bob = authors(2)
    first = point(ann, "best", "x")
    ann.link("a", "b", "p")
    point(bob, "best", "y", first)
    bob.link("a", "b", "q")
    admission = Admission({ann.domain: WORKER, bob.domain: Standing(Decision.ACCEPTED, frozenset({Role.EXECUTE}))})
    fold = fold_of(ann.records + bob.records, admission)
    assert fold.pointer("best") == [name_of("x")]
    assert fold.slot(1, *ENDS) == [edge("a", "b", "p")]
