"""Who hides what: tombstones and lifts of the three scopes, one rule at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authors import Author, added, hash_of, name_of
from tidewarp.codec.artifacts import TAG_TRACE
from tidewarp.codec.bodies import (
    ARTIFACT,
    DOMAIN,
    FEDERATION,
    STICKY,
    TOMBSTONE,
    ArtifactBody,
    LiftBody,
    TombstoneBody,
)
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, OperatorError
from tidewarp.store.admission import OPEN, Admission, Decision, Role, Scope, Standing
from tidewarp.store.fold import Fold

HELLO = name_of("hello")
PRODUCER = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE}))
CURATOR = Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE, Role.CURATE}))


class Site:
    """Two producers and a curator; what they write is in the fold at once."""

    def __init__(self, **standings: Standing) -> None:
        self.authors = {name: Author(number) for number, name in enumerate(["ann", "bob", "cleo"])}
        default = {"ann": PRODUCER, "bob": PRODUCER, "cleo": CURATOR}
        self.fold = Fold(
            Admission({self.authors[name].domain: standing for name, standing in {**default, **standings}.items()})
        )

    def say(self, who, body, flags=1):
        record = self.authors[who].write(body, flags)
        self.fold.add(*record)
        return hash_of(record)

    def stone(self, who, scope, **bounds):
        bounds = tuple(sorted((self.authors[name].domain, seq) for name, seq in bounds.items()))
        return self.say(who, TombstoneBody(HELLO, scope, bounds=bounds))

    @property
    def shown(self):
        assert self.fold.is_visible(HELLO) is (HELLO in self.fold.visible())
        assert self.fold.is_hidden(HELLO) is (HELLO in self.fold.hidden())
        return self.fold.is_visible(HELLO)


def test_an_add_shows_and_the_last_word_of_its_domain_decides():
    site = Site()
    for body, shown in [
        (added("hello"), True),
        (TombstoneBody(HELLO), False),
        (TombstoneBody(HELLO), False),
        (LiftBody(HELLO), True),
        (TombstoneBody(HELLO), False),
        (added("hello"), True),
    ]:
        site.say("ann", body)
        assert site.shown is shown
        assert site.fold.is_hidden(HELLO) is not shown


def test_nobody_hides_what_another_domain_shows():
    """A tombstone of scope 0 acts on the writer's own adds; nor does a lift of one domain undo another's tombstone."""
    site = Site()
    site.say("ann", added("hello"))
    site.say("bob", TombstoneBody(HELLO))
    assert site.shown
    site.say("bob", added("hello"))
    site.say("ann", TombstoneBody(HELLO))
    assert site.shown, "bob still shows it"
    site.say("bob", TombstoneBody(HELLO))
    assert not site.shown
    site.say("cleo", LiftBody(HELLO))
    assert not site.shown
    site.say("ann", LiftBody(HELLO))
    assert site.shown


@pytest.mark.parametrize("first", [added("hello"), TombstoneBody(HELLO)])
def test_a_tombstone_that_comes_before_the_artifact(first):
    """On one node it is told first, on the other last: both hide it, or both show it, as the domains' own order says."""
    ann, bob = Author(0), Author(1)
    records = [ann.write(first), bob.write(added("other")), bob.write(TombstoneBody(HELLO))]
    states = set()
    for order in ([0, 1, 2], [1, 2, 0]):
        fold = Fold()
        for place in order:
            fold.add(*records[place])
        assert fold.is_visible(HELLO) is isinstance(first, ArtifactBody)
        states.add(fold.state_hash())
    assert len(states) == 1


def test_a_lift_without_an_add_shows_nothing_and_is_known():
    site = Site()
    site.say("ann", LiftBody(HELLO))
    assert not site.shown
    assert site.fold.hidden() == [HELLO]
    site.say("bob", added("hello"))
    assert site.shown


def test_a_curator_covers_the_adds_that_it_had_seen():
    """Up to its bound for each domain; a later add of one of them shows it again, and no other domain is touched."""
    site = Site()
    site.say("ann", added("hello"))
    site.say("bob", added("other"))
    site.say("bob", added("hello"))
    stone = site.stone("cleo", FEDERATION, ann=1, bob=1)
    assert site.shown, "bob's add is his second record"
    site.say("bob", TombstoneBody(HELLO))
    assert not site.shown
    site.say("ann", LiftBody(HELLO))
    assert not site.shown, "the add is still covered"
    site.say("ann", added("hello"))
    assert site.shown, "a later add is not"
    site.say("ann", TombstoneBody(HELLO))
    site.say("bob", LiftBody(HELLO))
    assert site.shown
    site.say("cleo", LiftBody(HELLO, FEDERATION, stone))
    assert site.shown


def test_a_bound_is_inclusive_and_of_its_domain_alone():
    site = Site()
    site.say("ann", added("other"))
    site.say("ann", added("hello"))
    site.stone("cleo", FEDERATION, ann=1, bob=9)
    assert site.shown
    site.stone("cleo", FEDERATION, ann=2)
    assert not site.shown


def test_sticky_covers_all_adds_until_it_is_lifted():
    site = Site()
    stone = site.stone("cleo", STICKY)
    assert not site.fold.is_hidden(HELLO), "nobody has it yet, so nobody knows it"
    for who in ("ann", "bob", "cleo", "ann"):
        site.say(who, added("hello"))
        assert not site.shown
    assert site.fold.is_hidden(HELLO)
    site.say("cleo", LiftBody(HELLO, STICKY, stone))
    assert site.shown


def test_a_lift_names_its_tombstone():
    """Hash, id and scope have to fit; a second tombstone stands until it is lifted too; any curator may do it."""
    site = Site(bob=CURATOR)
    site.say("ann", added("hello"))
    first = site.stone("cleo", STICKY)
    for body in [
        LiftBody(HELLO, STICKY, bytes(32)),
        LiftBody(HELLO, FEDERATION, first),
        LiftBody(name_of("other"), STICKY, first),
        LiftBody(HELLO),
    ]:
        site.say("cleo", body)
        assert not site.shown
    second = site.stone("cleo", STICKY)
    site.say("cleo", LiftBody(HELLO, STICKY, first))
    assert not site.shown
    site.say("bob", LiftBody(HELLO, STICKY, second))
    assert site.shown


def test_a_lift_may_be_told_before_its_tombstone():
    ann, bob, cleo = Author(0), Author(1), Author(2)
    admission = Admission({ann.domain: PRODUCER, bob.domain: CURATOR, cleo.domain: CURATOR})
    add, stone = ann.write(added("hello")), cleo.write(TombstoneBody(HELLO, STICKY))
    lift = bob.write(LiftBody(HELLO, STICKY, hash_of(stone)))
    fold = Fold(admission)
    for record in (lift, add, stone):
        fold.add(*record)
        assert HELLO not in fold.hidden()
    assert fold.is_visible(HELLO)


def test_without_the_role_a_tombstone_is_recorded_without_effect():
    site = Site()
    site.say("ann", added("hello"))
    before = [row for row in site.fold.rows() if row[0] != 6]
    site.stone("bob", STICKY)
    site.stone("bob", FEDERATION, ann=1)
    stone = site.stone("cleo", STICKY)
    site.say("bob", LiftBody(HELLO, STICKY, stone))
    assert not site.shown
    site.say("cleo", LiftBody(HELLO, STICKY, stone))
    assert [row for row in site.fold.rows() if row[0] != 6] == before != []


def test_an_open_store_has_no_curators():
    fold = Fold(OPEN)
    ann, bob = Author(0), Author(1)
    for record in (ann.write(added("hello")), bob.write(TombstoneBody(HELLO, STICKY))):
        fold.add(*record)
    assert fold.visible() == [HELLO]


@pytest.mark.parametrize(
    ("standing", "shown"),
    [
        (Standing(Decision.ACCEPTED, frozenset()), False),
        (Standing(Decision.DEFERRED, PRODUCER.roles), False),
        (Standing(Decision.REJECTED, PRODUCER.roles), False),
        (Standing(Decision.LIMITED, PRODUCER.roles), True),
        (Standing(Decision.LIMITED, PRODUCER.roles, Scope(kinds=frozenset({ARTIFACT}))), True),
        (Standing(Decision.LIMITED, PRODUCER.roles, Scope(kinds=frozenset({TOMBSTONE}))), False),
        (Standing(Decision.LIMITED, PRODUCER.roles, Scope(tags=frozenset({None}))), True),
        (Standing(Decision.LIMITED, PRODUCER.roles, Scope(tags=frozenset({TAG_TRACE}))), False),
        (Standing(Decision.ACCEPTED, PRODUCER.roles, Scope(tags=frozenset())), True),
    ],
)
def test_decision_role_and_scope_say_whether_an_add_counts(standing, shown):
    """The scope is read of limited domains only; heads are those of domains that count."""
    site = Site(ann=standing)
    site.say("ann", added("hello"))
    assert site.shown is shown
    assert [head.domain for head in site.fold.heads()] == ([site.authors["ann"].domain] if standing.counts else [])
    assert len(site.fold.snapshot().vector) == standing.counts


def test_tags_in_scope():
    site = Site(ann=Standing(Decision.LIMITED, PRODUCER.roles, Scope(tags=frozenset({TAG_TRACE}))))
    site.say("ann", added("a trace", TAG_TRACE))
    site.say("ann", added("a trace"))
    assert site.fold.visible() == [added("a trace", TAG_TRACE).ref]


def test_a_closed_store_counts_nobody_whom_it_does_not_name():
    fold = Fold(Admission())
    fold.add(*Author(0).write(added("hello")))
    assert fold.rows() == []


def test_an_admission_does_not_change_behind_our_back():
    domains = {bytes(32): PRODUCER}
    admission = Admission(domains)
    domains[bytes([1]) * 32] = PRODUCER
    assert list(admission.domains) == [bytes(32)]
    with pytest.raises(TypeError):
        admission.domains[bytes(32)] = CURATOR


@pytest.mark.parametrize("wrong", [{"domains": {b"short": PRODUCER}}, {"policy_hash": b""}, {"resolver": bytes(31)}])
def test_an_admission_of_short_names_is_refused(wrong):
    with pytest.raises(OperatorError, match="have 32"):
        replace(OPEN, **wrong)


def test_what_is_not_published_is_folded_only_for_oneself():
    ann = Author(0)
    records = [ann.write(added("hello"), flags=0), ann.write(added("other"))]
    public, own = Fold(), Fold(internal=True)
    for record in records:
        public.add(*record)
        own.add(*record)
    assert public.visible() == [name_of("other")]
    assert set(own.visible()) == {HELLO, name_of("other")}
    assert public.snapshot() == own.snapshot()


def test_an_artifact_under_a_hash_that_nobody_can_compute_is_never_admitted():
    """Nor does a tombstone make one known."""
    strange = Reference(9, bytes(20))
    ann, fold = Author(0), Fold()
    for body in (ArtifactBody(strange, None, 1), TombstoneBody(strange), LiftBody(strange)):
        fold.add(*ann.write(body))
    assert (fold.visible(), fold.hidden()) == ([], [])


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x05, 0x20, 0x23, 0x30 + 15, 0x7F, 0x80, 0xFF])
def test_unknown_and_timed_kinds_are_counted_and_skipped(kind):
    """An old node keeps the chain of a newer one: whatever such a body holds, and if it is not here."""
    ann, fold = Author(0), Fold()
    records = [ann.write_bytes(kind, b"\xffanything"), ann.write(added("hello")), ann.write_bytes(kind, b"")]
    for header, body in records:
        fold.add(header, body if header.seq == 1 else None if header.kind == kind else body)
    assert fold.visible() == [HELLO]
    assert [head.seq for head in fold.heads()] == [3]
    assert fold.missing_bodies() == []


def test_a_body_that_is_none_of_its_kind_changes_nothing():
    ann, fold = Author(0), Fold()
    fold.add(*ann.write(added("hello")))
    before = fold.rows()
    for kind in (ARTIFACT, TOMBSTONE):
        with pytest.raises(CodecError):
            fold.add(*ann.write_bytes(kind, b"\0"))
        ann.rewind(1)
    assert fold.rows() == before
    assert fold.forks() == ()
    fold.add(*ann.write(TombstoneBody(HELLO, DOMAIN)))
    assert fold.hidden() == [HELLO]
