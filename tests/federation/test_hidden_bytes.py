"""Bytes that are not here, of artifacts that are hidden: asked for once, then nobody misses them, until they are shown again."""

from __future__ import annotations

import pytest
from node import asked_of, pulled

from tidewarp.codec.bodies import LIFT, LiftBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetArtifact, GetHeads, GetMissing, HttpResponse
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.contract import Entry

LARGE = bytes(70_000)  # does not travel in a batch


@pytest.fixture(params=["memory", "file"])
def sites(request, tmp_path):
    """Who serves, and who pulls."""

    def made(name):
        if request.param == "memory":
            return MemoryStore(seed=name.encode().ljust(32))
        return open_store(tmp_path / name, create=True, key=name.encode().ljust(32))

    with made("a") as a, made("b") as b:
        yield a, b


def asked(a, b) -> tuple[list[type], int]:
    """The questions of one pull, and of how many artifacts it says that their bytes are not here."""
    questions = []
    a.signed_head()
    finish, _ = pulled(b, None, send=lambda question: (questions.append(type(question)), asked_of(a, question))[1])
    assert not finish.incomplete
    return questions, finish.absent


def test_what_is_hidden_and_collected_is_not_asked_for_again(sites):
    """Nothing is said to be missing, and a pull with nothing to do is one request."""
    a, b = sites
    ref = a.put(LARGE)
    a.tombstone(ref)
    assert a.gc(10.0).freed_artifacts == 1
    questions, absent = asked(a, b)
    assert GetArtifact in questions
    assert absent == 0
    assert ledger_of(b).absent() == {ref: 404}
    assert asked(a, b) == ([GetHeads], 0)
    a.put(LARGE)
    assert asked(a, b)[1] == 0
    assert (b.get(ref), ledger_of(b).absent()) == (LARGE, {})


def test_what_is_lifted_is_missed_again(sites):
    """By the lift alone: no add comes with it."""
    a, b = sites
    ref = a.put(LARGE)
    a.tombstone(ref)
    a.gc(10.0)
    asked(a, b)
    assert asked(a, b) == ([GetHeads], 0)
    a.journal.append([Entry(LIFT, LiftBody(ref, 0, bytes(32)).to_bytes(), PUBLISHED)])
    asked(a, b)
    for _ in range(2):  # as long as it is shown
        questions, absent = asked(a, b)
        assert GetMissing in questions
        assert absent == 1


def test_what_one_of_two_domains_still_shows_is_missed(sites):
    """A tombstone hides what its own domain has added, and nothing else."""
    a, b = sites
    ref = a.put(LARGE)
    with MemoryStore(seed=b"c" * 32) as c:
        c.put(LARGE)
        asked(c, a)
    a.tombstone(ref)
    a.signed_head()
    gone = HttpResponse(404)
    finish, _ = pulled(b, None, send=lambda one: gone if isinstance(one, GetArtifact) else asked_of(a, one))
    assert finish.absent == 1
    assert GetMissing in asked(a, b)[0]
    assert b.get(ref) == LARGE


def test_a_branch_that_is_not_chosen_hides_nothing(sites):
    """What hid an artifact may have been on it."""
    a, b = sites
    ref = a.put(LARGE)
    a.tombstone(ref)
    a.gc(10.0)
    asked(a, b)
    ledger = ledger_of(b)
    assert ledger.lacking(10) == {}
    with b.transaction():
        ledger.keep_branch(list(b.records(a.domain, 1)))
    assert ledger.lacking(10) == {ref: a.domain}
