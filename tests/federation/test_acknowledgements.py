"""What peers have shown to hold, and that hidden bytes wait for it."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import asked_of, pulled, seed_of

from tidewarp.codec.bodies import ArtifactBody, EraseBody, TombstoneBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import Erased
from tidewarp.federation.acknowledgements import AwaitedPeers
from tidewarp.federation.documents import HeadDocument, encode_json
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetHeads
from tidewarp.federation.peers import Peer
from tidewarp.federation.policy import NEWCOMER_ROLES, Member, Policy
from tidewarp.federation.shell.site import open_site
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.admission import OPEN, Decision, Standing
from tidewarp.store.retention import Word

REF = Reference(SHA256, bytes(32))
SITES = [bytes([n]) * 32 for n in range(4)]
KEY = bytes(32)


@pytest.fixture(params=["memory", "sqlite"])
def made(request, tmp_path):
    """``made("a")``: the store of that name, with a key of its own."""
    with contextlib.ExitStack() as opened:

        def call(name):
            if request.param == "memory":
                return MemoryStore(seed=seed_of(name))
            return opened.enter_context(open_store(tmp_path / f"{name}.tw", create=True, key=seed_of(name)))

        yield call


def policy_of(*stores, decision=Decision.ACCEPTED):
    standing = Standing(decision, NEWCOMER_ROLES)
    return Policy({one.domain: Member(f"s{n}", standing) for n, one in enumerate(stores)})


def guard_of(store, policy, *peers):
    """Of ``store``, whose peers are (name, store) each; the name is also where it answers."""
    known = [Peer(name, one.domain, KEY, f"http://{name}") for name, one in peers]
    acked = {one.url: ledger_of(store).acked(one.name) for one in known}
    return AwaitedPeers(known, acked, policy.admission())


def collected(store, *guards, dry_run=False):
    report = store.gc(10.0, guards, dry_run)
    return report.freed_artifacts, dict(report.kept)


# --- what is acknowledged


def test_a_peer_holds_what_its_heads_say(made):
    """Of what is here: by origin, the own domain too; what it lacks, it has not shown."""
    a, b = made("a"), made("b")
    for n in range(3):
        a.put(b"%d" % n)
        b.put(b"b%d" % n)
    pulled(b, a, name="a")
    assert ledger_of(b).acked("a") == {a.domain: 3}
    pulled(a, b, name="b")
    assert ledger_of(a).acked("b") == {a.domain: 3, b.domain: 3}
    a.put(b"more")
    pulled(a, b, name="b")
    assert ledger_of(a).acked("b")[a.domain] == 3
    pulled(b, a, name="a")
    assert ledger_of(b).acked("a") == {a.domain: 4, b.domain: 3}
    pulled(a, b, name="b")
    assert ledger_of(a).acked("b") == {a.domain: 4, b.domain: 3}


def test_a_pull_that_ends_halfway_acknowledges_nothing_new(made):
    """What the peer has beyond it is not compared with anything here."""
    a, b = made("a"), made("b")
    for n in range(5):
        a.put(b"%d" % n)
    pulled(b, a, name="a", until=2)
    assert ledger_of(b).acked("a") == {}
    pulled(b, a, name="a")
    assert ledger_of(b).acked("a") == {a.domain: 5}


def test_a_peer_that_is_set_back_holds_less(made):
    """An older copy of it, or a new store in its place."""
    a, b, empty = made("a"), made("b"), made("c")
    a.put(b"one")
    pulled(b, a, name="a")
    a.put(b"two")
    pulled(a, b, name="b")
    assert ledger_of(a).acked("b") == {a.domain: 1}
    pulled(a, empty, name="b")
    assert ledger_of(a).acked("b") == {}


def test_heads_that_have_not_changed_change_nothing(made):
    """304: what was acknowledged stays."""
    a, b = made("a"), made("b")
    a.put(b"one")
    pulled(b, a, name="a")
    finish, _ = pulled(b, a, name="a")
    finish, _ = pulled(b, a, name="a")
    assert finish.domains == ()
    assert ledger_of(b).acked("a") == {a.domain: 1}


def test_a_head_that_nobody_signed_is_no_acknowledgement(made):
    """Who shows our own records under a note with a wrong signature has shown nothing, and is refused."""
    a, b = made("a"), made("b")
    a.put(b"one")
    pulled(b, a, name="a")
    head = a.signed_head()
    line = head.signatures[0]
    forged = head._replace(signatures=(line._replace(signature=bytes(64)),))
    (key,) = [one.key.hex() for one in a.domains()]
    shown = HeadDocument(a.domain.hex(), 1, head.head.hex(), forged.note(), "live", key)

    def send(question):
        answer = asked_of(b, question)
        return answer._replace(body=encode_json([shown])) if isinstance(question, GetHeads) else answer

    finish, exchange = pulled(a, b, name="b", send=send)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert exchange.conflicts == 1
    assert ledger_of(a).acked("b") == {}


# --- what waits for it


def test_hidden_bytes_wait_for_every_peer(made):
    """Each of them has to hold the tombstone; then they go."""
    a, b, c = made("a"), made("b"), made("c")
    policy = policy_of(a, b, c)
    peers = ("b", b), ("c", c)
    a.admit(policy.admission())
    ref = a.put(b"gone")
    for one, name in ((b, "b"), (c, "c")):
        pulled(one, a)
        pulled(a, one, name=name)
    a.tombstone(ref)
    assert collected(a, guard_of(a, policy, *peers)) == (0, {"unacknowledged": 1})
    pulled(b, a)
    pulled(a, b, name="b")
    assert collected(a, guard_of(a, policy, *peers)) == (0, {"unacknowledged": 1})
    pulled(c, b)  # by way of another
    assert collected(a, guard_of(a, policy, *peers), dry_run=True) == (0, {"unacknowledged": 1})
    pulled(a, c, name="c")
    assert a.get(ref) == b"gone"
    assert collected(a, guard_of(a, policy, *peers)) == (1, {})
    assert not a.has([ref])[0]


def test_who_comes_to_an_address_has_not_shown_what_another_showed_there(tmp_path):
    """B answered there and moves on, C comes: the bytes wait for C. His heads are asked for whole."""
    for name in "abc":
        open_store(tmp_path / f"{name}.tw", create=True, key=seed_of(name)).close()
    first, second = "http://127.0.0.1:7001", "http://127.0.0.1:7002"
    with open_site(tmp_path / "a.tw") as site, open_store(tmp_path / "b.tw") as b:
        site.store.tombstone(site.store.put(b"hidden"))
        site.trust("b", public_key_of(seed_of("b")), first, None)
        pulled(b, site.store)
        pulled(site.store, b, name=first)
        assert collected(site.store, site.awaited(), dry_run=True) == (1, {})
        site.noted()
        site.trust("b", public_key_of(seed_of("b")), second, None)
        pulled(site.store, b, name=second)
        assert collected(site.store, site.awaited(), dry_run=True) == (1, {})
        site.trust("c", public_key_of(seed_of("c")), first, None)
        assert collected(site.store, site.awaited()) == (0, {"unacknowledged": 1})
        assert site.ledger.etag(first) == ""
        site.trust("b", public_key_of(seed_of("b")), second, None)
        assert site.ledger.acked(second)


def test_who_is_no_peer_any_more_is_not_waited_for(made):
    """Taken out of peers.toml, or out of the policy, or counting no more there."""
    a, b = made("a"), made("b")
    ref = a.put(b"gone")
    a.tombstone(ref)
    policy = policy_of(a, b)
    a.admit(policy.admission())
    waiting = guard_of(a, policy, ("b", b))
    assert collected(a, waiting, dry_run=True) == (0, {"unacknowledged": 1})
    deferred = policy.members[b.domain].standing._replace(decision=Decision.DEFERRED)
    for others, known in (
        (policy, ()),
        (policy_of(a), [("b", b)]),
        (Policy({**policy.members, b.domain: Member("b", deferred)}), [("b", b)]),
    ):
        assert collected(a, guard_of(a, others, *known), dry_run=True) == (1, {})


def test_an_erasure_waits_for_nobody(made):
    """What a law forbids to keep goes at once."""
    a, b = made("a"), made("b")
    policy = policy_of(a, b)
    a.admit(policy.admission())
    ref = a.put(b"gone")
    a.tombstone(ref)
    a.erase(ref)
    collected(a, guard_of(a, policy, ("b", b)))
    with pytest.raises(Erased):
        a.get(ref)


def word(domain, seq, body, flags=PUBLISHED):
    return Word(domain, seq, flags, os.urandom(32), body)


def test_what_no_peer_was_told_of_goes_at_once():
    """An internal artifact: no peer has ever asked for it."""
    guard = AwaitedPeers([Peer("b", SITES[1], KEY, "b")], {}, OPEN)
    add = ArtifactBody(REF, None, 1)
    internal = [word(SITES[0], 1, add, 0), word(SITES[0], 2, TombstoneBody(REF))]
    assert not guard.objects(REF, internal)
    assert guard.objects(REF, [word(SITES[0], 1, add), word(SITES[0], 2, TombstoneBody(REF))])


def test_a_peer_holds_what_it_wrote():
    """Its own tombstone does not wait for its own word."""
    guard = AwaitedPeers([Peer("b", SITES[1], KEY, "b")], {}, OPEN)
    words = [word(SITES[1], 1, ArtifactBody(REF, None, 1)), word(SITES[1], 2, TombstoneBody(REF))]
    assert not guard.objects(REF, words)


def test_a_peer_without_an_address_is_waited_for():
    """Nobody can ask it. Two of them are not one."""
    peers = [Peer("b", SITES[1], KEY), Peer("c", SITES[2], KEY)]
    words = [word(SITES[0], 1, ArtifactBody(REF, None, 1)), word(SITES[0], 2, TombstoneBody(REF))]
    assert AwaitedPeers(peers, {"": {SITES[0]: 9}}, OPEN).objects(REF, words)


@given(
    st.dictionaries(st.sampled_from(SITES[:2]), st.integers(1, 9), min_size=1),
    st.lists(st.dictionaries(st.sampled_from(SITES[:2]), st.integers(0, 12)), max_size=2),
)
def test_bytes_wait_until_all_have_all(stones, held):
    """The law: for each peer and each domain that hides it, the last tombstone is within what the peer holds."""
    peers = [Peer(f"p{n}", SITES[2 + n], KEY, f"p{n}") for n in range(len(held))]
    words = [word(SITES[0], 0, ArtifactBody(REF, None, 1))]
    for domain, last in sorted(stones.items()):
        words += [word(domain, seq, TombstoneBody(REF)) for seq in range(1, last + 1)]
    words.append(word(SITES[0], 20, EraseBody(None, 3, 0)))
    guard = AwaitedPeers(peers, {f"p{n}": one for n, one in enumerate(held)}, OPEN)
    waits = any(one.get(domain, 0) < last for one in held for domain, last in stones.items())
    assert guard.objects(REF, words) == waits
