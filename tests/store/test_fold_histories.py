"""What of a domain's history counts: forks and their resolution, erased and missing bodies, cuts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authors import Author, added, hash_of, name_of
from tidewarp.codec.bodies import (
    EraseBody,
    EvidenceBody,
    ResolveBody,
    TombstoneBody,
)
from tidewarp.codec.snapshots import NO_POLICY, Snapshot
from tidewarp.errors import OperatorError, SnapshotIncomplete
from tidewarp.store.admission import OPEN, Decision, Role, Standing
from tidewarp.store.fold import DomainStatus, Fold, Fork, conflict_id, fork_id

ANN, JUDGE, BOB = Author(0).domain, Author(1).domain, Author(2).domain
RESOLVED_BY_JUDGE = replace(OPEN, resolver=JUDGE)


def texts(view):
    return [text for text in "abcdefgh" if view.is_visible(name_of(text))]


def fold_of(*records, admission=RESOLVED_BY_JUDGE):
    fold = Fold(admission)
    for record in records:
        fold.add(*record)
    return fold


def forked():
    """Ann wrote a, b, c; then, restored from a backup behind a, she wrote d, e."""
    ann = Author(0)
    for text in "abc":
        ann.put(text)
    ann.rewind(1)
    for text in "de":
        ann.put(text)
    return ann.records


FORK = Fork(ANN, 2, tuple(sorted(map(hash_of, (forked()[1], forked()[3])))))


def test_a_forked_domain_counts_up_to_its_common_prefix():
    """From the moment when the second branch is seen, whichever was first; what had counted does so no more."""
    trunk, other = forked()[:3], forked()[3:]
    fold = fold_of(*trunk)
    assert texts(fold) == ["a", "b", "c"]
    fold.add(*other[0])
    assert texts(fold) == ["a"]
    assert fold.forks() == (FORK,)
    assert fold.heads()[0].seq == 1
    fold.add(*other[1])
    assert fold.rows() == fold_of(trunk[0], *other, *trunk[1:]).rows() == fold_of(trunk[0]).rows()


def test_a_header_alone_shows_a_fork():
    """Evidence carries headers; the branch may follow, or never come."""
    trunk, other = forked()[:3], forked()[3:]
    fold = fold_of(*trunk)
    fold.add(other[0].header, None)
    assert texts(fold) == ["a"]
    assert fold.forks() == (FORK,)


def test_the_same_record_twice_is_no_fork():
    records = forked()[:3]
    fold = fold_of(*records, *records)
    fold.add(records[1].header, None)
    assert fold.forks() == ()
    assert texts(fold) == ["a", "b", "c"]


def test_a_domain_that_forks_at_its_first_record():
    ann = Author(0)
    ann.put("a")
    ann.rewind(0)
    ann.put("b")
    fold = fold_of(*ann.records)
    assert (fold.rows(), fold.snapshot().vector, fold.status(ANN)) == ([], (), None)
    assert [fork.seq for fork in fold.forks()] == [1]


def test_the_id_of_a_fork_is_its_place():
    assert FORK.conflict == fork_id(ANN, 2) == conflict_id("fork", ANN + (2).to_bytes(8, "big"))
    assert len({fork_id(ANN, 2), fork_id(ANN, 3), fork_id(BOB, 2)}) == 3


@pytest.mark.parametrize(("choice", "shown"), [(1, "abc"), (3, "ade")])
def test_the_resolver_picks_a_branch(choice, shown):
    """Whether his word comes before or behind the branches; then the domain goes on from there."""
    records = forked()
    judge = Author(1)
    word = judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[choice])))
    for order in ([*records, word], [word, *records]):
        fold = fold_of(*order)
        assert texts(fold) == list(shown)
        assert fold.status(ANN) is DomainStatus.RESOLVED
        assert fold.forks() == (FORK,)
    ann = Author(0)
    ann.records, ann.head, ann.size = records, hash_of(records[choice + 1]), 3
    fold.add(*ann.write(added("h")))
    assert texts(fold) == [*shown, "h"]
    assert fold.status(ANN) is DomainStatus.RESOLVED


def test_the_resolvers_last_word_counts():
    records, judge = forked(), Author(1)
    fold = fold_of(*records, judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[1]))))
    assert texts(fold) == ["a", "b", "c"]
    fold.add(*judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[3]))))
    assert texts(fold) == ["a", "d", "e"]
    fold.add(*judge.write(ResolveBody(fork_id(ANN, 2), bytes(32))))
    assert texts(fold) == ["a"], "a choice that is no branch"
    assert fold.status(ANN) is DomainStatus.LIVE


@pytest.mark.parametrize("wrong", ["another domain", "another place", "another admission"])
def test_a_resolution_by_nobody_or_of_nothing(wrong):
    records = forked()
    author = Author(2 if wrong == "another domain" else 1)
    conflict = fork_id(ANN, 3 if wrong == "another place" else 2)
    word = author.write(ResolveBody(conflict, hash_of(records[1])))
    fold = fold_of(*records, word, admission=OPEN if wrong == "another admission" else RESOLVED_BY_JUDGE)
    assert texts(fold) == ["a"]


def handed_on(last, resolver=BOB):
    """The judge had the role up to its record ``last``; now another domain has it."""
    former = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE}), until=((Role.RESOLVE, last),))
    return replace(OPEN, domains={JUDGE: former}, resolver=resolver)


@pytest.mark.parametrize(("last", "shown"), [(0, "a"), (1, "abc"), (2, "ade"), (9, "ade")])
@pytest.mark.parametrize("resolver", [BOB, None])
def test_what_a_former_resolver_chose_stands(last, shown, resolver):
    """Up to the record at which the role was withdrawn, whoever has it now; in whatever order the records come."""
    records, judge = forked(), Author(1)
    for choice in (1, 3):
        judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[choice])))
    for order in ([*records, *judge.records], [*judge.records, *records]):
        fold = fold_of(*order, admission=handed_on(last, resolver))
        assert texts(fold) == list(shown)
        assert fold.status(ANN) is (DomainStatus.RESOLVED if last else DomainStatus.LIVE)


def test_the_resolver_of_now_overrides_a_former_one():
    """On the conflicts that he speaks of; the others stay as they were chosen."""
    records, judge, bob = forked(), Author(1), Author(2)
    former = judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[1])))
    now = bob.write(ResolveBody(fork_id(ANN, 2), hash_of(records[3])))
    for order in ([*records, former, now], [now, former, *records], [*records, now, former]):
        assert texts(fold_of(*order, admission=handed_on(5))) == ["a", "d", "e"]
    fold = fold_of(*records, former, admission=handed_on(5))
    assert texts(fold) == ["a", "b", "c"]
    fold.add(*now)
    assert texts(fold) == ["a", "d", "e"]
    everything = fold.snapshot()
    assert fold.cut(everything).status(ANN) is DomainStatus.RESOLVED
    without_bob = everything._replace(vector=tuple(one for one in everything.vector if one[0] != BOB))
    assert fold.cut(without_bob).status(ANN) is DomainStatus.LIVE, "its head is not on the branch that was chosen"


def test_a_fork_of_a_former_resolver_is_the_resolvers():
    """He does not choose between his own branches, where his words stand; who has the role now does."""
    judge, bob = Author(1), Author(2)
    judge.put("a")
    first = judge.put("b") and judge.records[1]
    judge.write(ResolveBody(fork_id(JUDGE, 2), hash_of(first)))
    judge.rewind(1)
    judge.put("d")
    fold = fold_of(*judge.records, admission=handed_on(9))
    assert texts(fold) == ["a"]
    fold.add(*bob.write(ResolveBody(fork_id(JUDGE, 2), hash_of(first))))
    assert texts(fold) == ["a", "b"]


def test_a_branch_may_fork_again():
    """Each place is a conflict of its own, and is resolved by itself."""
    ann, judge = Author(0), Author(1)
    for text in "abc":
        ann.put(text)
    ann.rewind(1)
    ann.put("d")
    fork = ann.size, ann.head
    ann.put("e")
    ann.size, ann.head = fork
    ann.put("f")
    fold = fold_of(*ann.records)
    assert [one.seq for one in fold.forks()] == [2, 3]
    fold.add(*judge.write(ResolveBody(fork_id(ANN, 2), hash_of(ann.records[3]))))
    assert texts(fold) == ["a", "d"]
    fold.add(*judge.write(ResolveBody(fork_id(ANN, 3), hash_of(ann.records[5]))))
    assert texts(fold) == ["a", "d", "f"]


def test_nobody_resolves_a_fork_of_the_resolver():
    """Neither branch may say which of them counts."""
    judge = Author(1)
    judge.put("a")
    for text in "bc":
        judge.rewind(1)
        first = judge.write(added(text))
        judge.write(ResolveBody(fork_id(JUDGE, 2), hash_of(first)))
    fold = fold_of(*judge.records[:3])
    assert texts(fold) == ["a", "b"]
    for record in judge.records[3:]:
        fold.add(*record)
        assert texts(fold) == ["a"]
    assert fold.status(JUDGE) is DomainStatus.LIVE


def test_frozen_is_what_a_record_says():
    """So the status is a function of the records that count, like all of the state: equal vectors, equal state hash."""
    records, bob = forked(), Author(2)
    evidence = bob.write(EvidenceBody(fork_id(ANN, 2), name_of("both headers")))
    fold = fold_of(*records)
    assert fold.status(ANN) is DomainStatus.LIVE
    assert fold.state_hash() == fold_of(records[0]).state_hash()
    fold.add(*evidence)
    assert fold.status(ANN) is DomainStatus.FROZEN
    assert fold.state_hash() == fold_of(records[0], evidence).state_hash()
    rows = [row for row in fold.rows() if row[:33] == b"\x06" + ANN]
    assert rows == [b"\x06" + ANN + (1).to_bytes(8, "big") + hash_of(records[0]) + b"\x01"]


def test_an_erased_record_has_no_effect_anywhere():
    """Not on the node that had read it, nor on the one that comes later and gets no body."""
    ann = Author(0)
    for text in "abc":
        ann.put(text)
    seen = fold_of(*ann.records)
    assert texts(seen) == ["a", "b", "c"]
    erase = ann.write(EraseBody(None, 2))
    seen.add(*erase)
    late = Fold(RESOLVED_BY_JUDGE)
    for header, body in ann.records:
        late.add(header, None if header.seq == 2 else body)
    assert texts(seen) == texts(late) == ["a", "c"]
    assert seen.rows() == late.rows()
    assert late.missing_bodies() == []


def test_an_erased_tombstone_hides_nothing():
    ann = Author(0)
    ann.put("a")
    ann.write(TombstoneBody(name_of("a")))
    ann.write(EraseBody(None, 2))
    assert texts(fold_of(*ann.records)) == ["a"]


@pytest.mark.parametrize("seq", [3, 4, 9])
def test_an_erasure_reaches_back_only(seq):
    ann = Author(0)
    for text in "ab":
        ann.put(text)
    ann.write(EraseBody(None, seq))
    ann.put("d")
    assert texts(fold_of(*ann.records)) == ["a", "b", "d"]


def test_an_erasure_is_not_erased():
    """Who has a body and not its erasure must not think that he knows the state behind it."""
    ann = Author(0)
    ann.put("a")
    ann.write(EraseBody(None, 1))
    ann.write(EraseBody(None, 2))
    assert texts(fold_of(*ann.records)) == []
    fold = fold_of(ann.records[0])
    fold.add(ann.records[1].header, None)
    fold.add(*ann.records[2])
    assert texts(fold) == ["a"]
    assert fold.missing_bodies() == [(ANN, 2)]


def test_the_bytes_of_an_artifact_may_go_and_it_stays_visible():
    ann = Author(0)
    ann.put("a")
    ann.write(EraseBody(name_of("a"), None))
    assert texts(fold_of(*ann.records)) == ["a"]


def test_a_missing_body_ends_what_counts():
    """Until it comes, or somebody erases it: nobody can say what the records up to there come to."""
    ann = Author(0)
    for text in "abc":
        ann.put(text)
    fold = fold_of(ann.records[0])
    fold.add(ann.records[1].header, None)
    fold.add(*ann.records[2])
    assert texts(fold) == ["a"]
    assert fold.heads()[0].seq == 1
    assert fold.missing_bodies() == [(ANN, 2)]
    fold.add(*ann.records[1])
    assert texts(fold) == ["a", "b", "c"]
    assert fold.missing_bodies() == []
    assert fold.rows() == fold_of(*ann.records).rows()


def test_a_missing_body_hides_the_erasure_behind_it():
    """Record 1 was erased by record 4, which does not count while 3 is missing: then 1 is missing too."""
    ann = Author(0)
    for text in "abc":
        ann.put(text)
    ann.write(EraseBody(None, 1))
    fold = Fold()
    for header, body in ann.records:
        fold.add(header, None if header.seq in (1, 3) else body)
    assert fold.rows() == []
    assert fold.missing_bodies() == [(ANN, 1)]
    fold.add(*ann.records[2])
    assert texts(fold) == ["b", "c"]


def test_an_erasure_that_does_not_count_erases_nothing_yet():
    """It stands behind a missing body, as does a second erasure of what is erased already."""
    ann = Author(0)
    ann.put("a")
    ann.put("b")
    ann.write(EraseBody(None, 2))
    ann.put("d")
    ann.write(EraseBody(None, 1))
    ann.write(EraseBody(None, 2))
    fold = Fold()
    for header, body in ann.records:
        fold.add(header, None if header.seq in (2, 4) else body)
    assert texts(fold) == ["a"]
    assert [head.seq for head in fold.heads()] == [3]
    fold.add(*ann.records[3])
    assert texts(fold) == ["d"]


def test_an_erasure_on_a_branch_that_does_not_count():
    """Who has dropped the body knows less than who has not, until it comes back: their vectors say so."""
    ann = Author(0)
    ann.put("a")
    ann.put("b")
    ann.write(EraseBody(None, 2))
    ann.rewind(2)
    ann.put("c")
    whole, dropped = fold_of(*ann.records), Fold(RESOLVED_BY_JUDGE)
    for header, body in ann.records:
        dropped.add(header, None if header.seq == 2 else body)
    assert texts(whole) == ["a", "b"]
    assert texts(dropped) == ["a"]
    assert dropped.missing_bodies() == [(ANN, 2)]
    assert whole.cut(dropped.snapshot()).rows() == dropped.rows()
    dropped.add(*ann.records[1])
    assert whole.rows() == dropped.rows()


def test_a_withheld_body_is_no_gap():
    """A record that is not published means nothing to others."""
    ann = Author(0)
    ann.put("a")
    hidden = ann.write(added("b"), flags=0)
    ann.put("c")
    fold = fold_of(ann.records[0])
    fold.add(hidden.header, None)
    fold.add(*ann.records[2])
    assert texts(fold) == ["a", "c"]
    assert fold.state_hash() == fold_of(*ann.records).state_hash()


def test_an_internal_body_that_comes_later_is_folded():
    ann = Author(0)
    ann.put("a")
    hidden = ann.write(added("b"), flags=0)
    ann.put("c")
    own = Fold(internal=True)
    for record in (ann.records[0], (hidden.header, None), ann.records[2]):
        own.add(*record)
    assert texts(own) == ["a", "c"]
    own.add(*hidden)
    assert texts(own) == ["a", "b", "c"]


def test_a_cut_does_not_know_what_came_later():
    """A tombstone, a fork, an erasure and a resolution behind the snapshot: the view of then has its hash of then."""
    ann, judge = Author(0), Author(1)
    for text in "abc":
        ann.put(text)
    fold = fold_of(*ann.records)
    then, state = fold.snapshot(), fold.state_hash()
    ann.write(TombstoneBody(name_of("a")))
    ann.write(EraseBody(None, 2))
    ann.rewind(1)
    ann.put("d")
    for record in ann.records[3:]:
        fold.add(*record)
    fold.add(*judge.write(ResolveBody(fork_id(ANN, 2), hash_of(ann.records[-1]))))
    assert texts(fold) == ["a", "d"]
    cut = fold.cut(then)
    assert texts(cut) == ["a", "b", "c"]
    assert cut.state_hash() == state
    assert cut.snapshot() == then
    assert cut.forks() == fold.forks()


def test_a_cut_stays_when_its_fold_grows():
    ann = Author(0)
    ann.put("a")
    fold = fold_of(*ann.records)
    cut = fold.cut(fold.snapshot())
    ann.write(TombstoneBody(name_of("a")))
    fold.add(*ann.records[1])
    assert (texts(cut), texts(fold)) == (["a"], [])


def test_a_cut_on_the_losing_branch():
    """A snapshot of who had seen that branch alone; resolved is what the cut records say."""
    records, judge = forked(), Author(1)
    word = judge.write(ResolveBody(fork_id(ANN, 2), hash_of(records[3])))
    fold = fold_of(*records, word)
    losing = fold.cut(Snapshot(NO_POLICY, ((ANN, 3, hash_of(records[2])),)))
    assert texts(losing) == ["a", "b", "c"]
    assert losing.status(ANN) is DomainStatus.LIVE
    both = sorted([(ANN, 3, hash_of(records[4])), (JUDGE, 1, hash_of(word))])
    assert fold.cut(Snapshot(NO_POLICY, tuple(both))).status(ANN) is DomainStatus.RESOLVED
    assert losing.status(JUDGE) is None


def test_what_a_cut_lacks():
    ann, bob = Author(0), Author(2)
    for text in "abc":
        ann.put(text)
    bob.put("d")
    fold = fold_of(*ann.records[:2], admission=OPEN)
    vector = sorted([(ANN, 3, hash_of(ann.records[2])), (BOB, 1, hash_of(bob.records[0]))])
    with pytest.raises(SnapshotIncomplete, match="of 2 gaps the first is records") as error:
        fold.cut(Snapshot(NO_POLICY, tuple(vector)))
    assert set(error.value.missing) == {(ANN, 3, 3), (BOB, 1, 1)}
    with pytest.raises(SnapshotIncomplete) as error:
        fold.cut(Snapshot(NO_POLICY, ((ANN, 2, bytes(32)),)))
    assert error.value.missing == ((ANN, 2, 2),)


def test_a_cut_without_a_body():
    ann = Author(0)
    for text in "abc":
        ann.put(text)
    fold = Fold()
    for header, body in ann.records:
        fold.add(header, None if header.seq == 2 else body)
    with pytest.raises(SnapshotIncomplete) as error:
        fold.cut(Snapshot(NO_POLICY, ((ANN, 3, hash_of(ann.records[2])),)))
    assert error.value.missing == ((ANN, 2, 2),)
    assert texts(fold.cut(Snapshot(NO_POLICY, ((ANN, 1, hash_of(ann.records[0])),)))) == ["a"]


def test_a_snapshot_of_another_policy_is_refused():
    with pytest.raises(OperatorError, match="made under policy 0101"):
        Fold().cut(Snapshot(bytes([1]) * 32, ()))


def test_the_empty_snapshot():
    assert fold_of(*forked()).cut(Snapshot(NO_POLICY, ())).rows() == []
