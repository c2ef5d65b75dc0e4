"""A body that was withheld on the way is taken from whoever shows it later: into the place of its stub, and nothing else changes."""

from __future__ import annotations

import os
import threading

import pytest
from node import Node, pulled

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, ERASED, WITHHELD, decode_batch, encode_batch
from tidewarp.codec.bodies import POINTER, PointerBody
from tidewarp.errors import PeerError
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetMissing, GetRecords, HttpRequest, Reveal
from tidewarp.federation.peer import PeerHandler
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.admission import Role
from tidewarp.store.audit import audit
from tidewarp.store.contract import Entry

LARGE = bytes(90_000)  # does not travel with its record


@pytest.fixture(params=["fake", "memory", "sqlite"])
def stores(request, tmp_path):
    """Makes sites by name."""
    made = []

    def make(name):
        made.append(
            {
                "fake": lambda: Node(name),
                "memory": lambda: MemoryStore(seed=os.urandom(32)),
                "sqlite": lambda: open_store(tmp_path / name, create=True),
            }[request.param]()
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def shown_to_auditor(peer, asked=None):
    """The answers of ``peer`` to one who has the role ``audit``; each question is noted."""

    def send(question):
        if asked is not None:
            asked.append(question)
        body = question.body if isinstance(question, GetMissing) else b""
        method = "POST" if body else "GET"
        return PeerHandler(peer).handle(HttpRequest(method, question.target, {}, body, frozenset({Role.AUDIT})))

    return send


def changed(send, change):
    """The answers that ``send`` gives, with ``change(items)`` in place of the items of a batch, as many as were asked for."""

    def send_changed(question):
        answer = send(question)
        if not isinstance(question, GetRecords):
            return answer
        return answer._replace(body=encode_batch(change(decode_batch(answer.whole))[: question.limit]))

    return send_changed


def states(store, domain):
    return [one.state for one in store.records(domain)]


def test_a_stub_from_a_relay_is_revealed_by_the_origin_and_relayed(a, stores):
    """B may not see it, so C and D, who ask B, get a stub; C may ask A; D may ask C. Each has what A has in the end."""
    b, c, d = stores("b"), stores("c"), stores("d")
    a.put(b"open")
    secrets = [a.put(b"small", tag=7, publish=False), a.put(LARGE, publish=False)]
    a.append([Entry(POINTER, PointerBody("name", (), secrets[0]).to_bytes())])
    a.put(b"open too")
    pulled(b, a, name="a")
    for one in (c, d):
        assert pulled(one, b, name="b")[0].records == 5
        assert states(one, a.domain) == [BODY, WITHHELD, WITHHELD, WITHHELD, BODY]
    for one, peer in ((c, a), (d, c)):
        root = one.root_at(a.domain, 5)
        finish, exchange = pulled(one, None, name="auditor's", send=shown_to_auditor(peer))
        assert (finish.records, finish.incomplete, exchange.conflicts, finish.absent) == (0, "", 0, 0)
        assert [tuple(record) for record in one.records(a.domain)] == [tuple(record) for record in a.records(a.domain)]
        assert [one.get(ref) for ref in secrets] == [b"small", LARGE]
        assert (one.withheld(a.domain, 0, 9), one.root_at(a.domain, 5)) == ([], root)
        assert ledger_of(one).log(1)[0].result == "revealed"
    assert states(b, a.domain) == [BODY, WITHHELD, WITHHELD, WITHHELD, BODY]


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "sqlite"])
def test_a_store_is_the_same_whether_bodies_came_late_or_at_once(a, make, tmp_path):
    """Views, states, fsck and audit do not tell the two apart; a view that was open before follows."""
    opened = (
        [make(seed=bytes([n]) * 32) for n in (1, 2)]
        if make
        else [open_store(tmp_path / f"{n}.tw", create=True, key=bytes([n]) * 32) for n in (1, 2)]
    )
    late, at_once = opened
    try:
        hidden = a.put(b"hidden", publish=False)
        a.put(b"shown")
        pulled(late, a)
        before = late.state_hash("all")
        assert not late.view(scope="all").is_visible(hidden)
        pulled(late, None, send=shown_to_auditor(a))
        pulled(at_once, None, send=shown_to_auditor(a))
        assert late.view(scope="all").is_visible(hidden)
        assert late.state_hash("all") == at_once.state_hash("all") != before
        assert late.state_hash() == at_once.state_hash()
        assert audit(late).findings == ()
        assert late.fsck().problems == ()
    finally:
        for one in opened:
            one.close()


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "sqlite"])
def test_a_view_of_another_thread_before_the_commit_does_not_keep_the_stub(a, make, tmp_path):
    """It does not see the body yet; a view behind the commit does."""
    store = make(seed=bytes(32)) if make else open_store(tmp_path / "s.tw", create=True)
    hidden = a.put(b"hidden", publish=False)
    pulled(store, a)
    item = decode_batch(shown_to_auditor(a)(GetRecords(a.domain, 0, 1)).whole)
    seen = []
    with store.transaction():
        store.reveal(a.domain, item)
        other = threading.Thread(target=lambda: seen.append(store.view(scope="all").is_visible(hidden)))
        other.start()
        other.join()
    assert seen == [False]
    assert store.view(scope="all").is_visible(hidden)
    store.close()


def test_many_stubs_come_in_batches(a, stores):
    """More than one question asks for, with published records between them, in a store that takes 50 records at a time."""
    b = stores("b")
    refs = [a.put(b"%d" % n, publish=n % 3 == 0) for n in range(400)]
    pulled(b, a)
    asked = []
    pulled(b, None, send=shown_to_auditor(a, asked), limit=50)
    assert b.has(refs) == [True] * 400
    assert b.withheld(a.domain, 0, 400) == []
    questions = [one for one in asked if isinstance(one, GetRecords)]
    assert max(one.limit for one in questions[1:]) == 50


def test_who_shows_nothing_is_asked_once(a, stores):
    """One short question, and what is held stays; nothing is refused."""
    b = stores("b")
    for n in range(300):
        a.put(b"%d" % n, publish=False)
    pulled(b, a)
    asked = []
    for send in (None, lambda one: (asked.append(one), PeerHandler(a).handle(HttpRequest("GET", one.target)))[1]):
        finish, exchange = pulled(b, a, send=send)
        assert (finish.domains[0].outcome, exchange.conflicts) == ("unchanged", 0)
    assert [one.limit for one in asked if isinstance(one, GetRecords)] == [100]
    assert states(b, a.domain) == [WITHHELD] * 300


def test_an_erased_body_does_not_hide_those_behind_it(a, stores):
    """It stays a stub; what comes after it is revealed."""
    b = stores("b")
    refs = [a.put(b"%d" % n, publish=False) for n in range(150)]
    pulled(b, a)
    for seq in range(1, 121):
        a.erase(seq)
    pulled(b, None, send=shown_to_auditor(a))
    assert states(b, a.domain) == [WITHHELD] * 120 + [BODY] * 30
    assert b.has(refs) == [False] * 120 + [True] * 30


def test_a_body_erased_before_it_came_is_not_asked_for(a, stores):
    """What a peer said is gone for good, is not looked for."""
    b = stores("b")
    a.put(b"gone", publish=False)
    a.erase(1)
    pulled(b, a)
    asked = []
    pulled(b, None, send=shown_to_auditor(a, asked))
    assert not any(isinstance(one, GetRecords) for one in asked)
    assert states(b, a.domain) == [ERASED]


def other_body(item, a):
    return item._replace(header=item.header._replace(body_len=3), body=b"lie", artifact=None)


def body_of_the_header(item, a):
    return item._replace(body=bytes(len(item.body)), artifact=None)


def other_header(item, a):
    """A true record of the domain, in the wrong place."""
    return item._replace(header=item.header._replace(hlc=1))


def other_artifact(item, a):
    return item._replace(artifact=Artifact(b"another").to_bytes())


@pytest.mark.parametrize("twist", [other_body, body_of_the_header, other_header, other_artifact])
def test_a_lie_about_a_body_is_refused_and_the_truth_taken_afterwards(a, stores, twist):
    """Nothing of the answer is kept; the stub stays, and so do heads and roots."""
    b = stores("b")
    refs = [a.put(b"%d" % n, publish=False) for n in range(3)]
    pulled(b, a)
    true = shown_to_auditor(a)

    def change(items):
        first, second, third = items
        return [first, twist(second, a), third]

    finish, exchange = pulled(b, None, send=changed(true, change))
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert [one.kind for one in ledger_of(b).conflicts()] == ["payload_mismatch"]
    assert (states(b, a.domain), b.has(refs)) == ([WITHHELD] * 3, [False] * 3)
    assert exchange.conflicts == 1
    pulled(b, None, send=true)
    assert (states(b, a.domain), b.has(refs)) == ([BODY] * 3, [True] * 3)


@pytest.mark.parametrize("order", [[0, 0], [1, 0], [1, 1]])
def test_bodies_that_come_twice_or_in_another_order_are_refused(a, stores, order):
    """Each alone is true. The store goes on: that a peer repeats itself is no fault of the disk."""
    b = stores("b")
    refs = [a.put(b"%d" % n, publish=False) for n in range(2)]
    pulled(b, a)
    true = shown_to_auditor(a)
    finish, _ = pulled(b, None, send=changed(true, lambda items: [items[n] for n in order]))
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert states(b, a.domain) == [WITHHELD] * 2
    if not isinstance(b, Node):
        with pytest.raises(PeerError):
            b.reveal(a.domain, [decode_batch(true(GetRecords(a.domain, 0, 2)).whole)[n] for n in order])
    pulled(b, None, send=true)
    assert b.has(refs) == [True] * 2


def test_large_bytes_that_a_peer_shows_and_lacks_are_noted(a, stores):
    """The body is kept, and its artifact is asked for by the next pull from anybody who may show it."""
    b = stores("b")
    ref = a.put(LARGE, publish=False)
    pulled(b, a)
    artifact = a.artifacts.pop(ref)
    finish, _ = pulled(b, None, send=shown_to_auditor(a))
    assert (finish.absent, states(b, a.domain), ledger_of(b).absent()) == (1, [BODY], {ref: 404})
    a.artifacts[ref] = artifact
    assert pulled(b, a)[0].absent == 1  # to who is no auditor it is not offered
    assert pulled(b, None, send=shown_to_auditor(a))[0].absent == 0
    assert (b.get(ref), ledger_of(b).absent()) == (LARGE, {})


def test_a_reveal_holds_no_more_bytes_than_a_commit_may(a, stores, monkeypatch):
    """Bodies with large artifacts come some at a time; those between them that are small go along."""
    b = stores("b")
    refs = [a.put(bytes([n]) * (100 if n % 2 else 70_000), publish=False) for n in range(10)]
    pulled(b, a)
    monkeypatch.setattr("tidewarp.federation.pull.artifacts._FETCHED_BYTES_MAX", 150_000)
    parts = []
    reveal = b.reveal
    b.reveal = lambda domain, items, **rest: (parts.append(len(items)), reveal(domain, items, **rest))[1]
    finish, exchange = pulled(b, None, send=shown_to_auditor(a))
    assert (parts, exchange.conflicts, finish.incomplete) == ([4, 4, 2], 0, "")
    assert b.has(refs) == [True] * 10
    assert states(b, a.domain) == [BODY] * 10


class Killed(BaseException):
    """The process is gone."""


def test_killed_at_any_write_the_stubs_are_there_or_their_bodies(a):
    """After each death the next pull brings the rest."""
    for n in range(5):
        a.put(b"%d" % n, publish=False)
    deaths = 0
    while True:
        b = Node("b")
        pulled(b, a)
        left = [deaths]

        def before_write(left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        b.before_write = before_write
        try:
            pulled(b, None, send=shown_to_auditor(a))
            break
        except Killed:
            assert len(set(states(b, a.domain))) == 1
        finally:
            b.before_write = lambda: None
            pulled(b, None, send=shown_to_auditor(a))
            assert states(b, a.domain) == [BODY] * 5
            b.close()
        deaths += 1
    assert deaths > 10


def test_a_revealed_body_counts_against_the_quota_of_its_domain(a, stores):
    """Where it has no room the pull ends in order, and the stub stays."""
    b = stores("b")
    a.put(bytes(1_000), publish=False)
    pulled(b, a)
    finish, _ = pulled(b, None, send=shown_to_auditor(a), quotas={a.domain: 100})
    assert [one.outcome for one in finish.domains] == ["full"]
    assert states(b, a.domain) == [WITHHELD]


def test_the_machine_asks_the_store_for_no_more_than_came(a):
    """A reveal holds the records that were stubs here, and no others."""
    a.put(b"open")
    a.put(b"hidden", publish=False)
    b = Node("b")
    pulled(b, a)
    seen = []
    reveal = b.reveal
    b.reveal = lambda domain, items, **options: (seen.append(items), reveal(domain, items, **options))[1]
    pulled(b, None, send=shown_to_auditor(a))
    b.close()
    assert [[item.header.seq for item in items] for items in seen] == [[2]]
    assert Reveal(a.domain, seen[0]).items == seen[0]
