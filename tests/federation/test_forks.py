"""Two journals under one name: found, proved, kept, and nothing of the second branch taken."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import Node, asked_of, pulled

from tidewarp.codec.artifacts import TAG_EVIDENCE
from tidewarp.codec.bodies import EVIDENCE, EvidenceBody
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import CodecError, PeerError
from tidewarp.federation.messages import GetInclusion, GetRecords
from tidewarp.federation.proof import ForkProof, Voucher
from tidewarp.store.contract import Entry
from tidewarp.store.fold import fork_id

OPAQUE = 0x80


def write(node, *words):
    node.journal.append([Entry(OPAQUE, word.encode(), PUBLISHED) for word in words])


def twin_of(node):
    """A copy of the site with the same key: a restored backup that is written to, or a liar."""
    other = Node(node.name)
    other.logs = copy.deepcopy(node.logs)
    return other


@pytest.fixture
def site():
    """A site, its double, and two who pull."""
    a = Node("a")
    write(a, *"12345")
    made = [a, twin_of(a), Node("b"), Node("c")]
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("limit", [1, 2, 5_000])
@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (1, 40), (40, 1), (1, 1)])
def test_a_fork_is_found_and_proved(site, ours, theirs, limit):
    """Whichever branch is longer: the domain is frozen at what both have, with a proof that anybody can check."""
    a, double, b, _ = site
    write(a, *(f"a{n}" for n in range(ours)))
    write(double, *(f"d{n}" for n in range(theirs)))
    pulled(b, a, limit=limit)
    before = b.logs[a.domain][:]
    finish, exchange = pulled(b, double, limit=limit)
    assert [one.outcome for one in finish.domains] == ["forked"]
    assert b.logs[a.domain] == before
    [forked] = exchange.forked
    assert (forked.domain, forked.common) == (a.domain, 5)
    forked.proof.check()
    assert ForkProof.from_bytes(forked.proof.to_bytes()) == forked.proof
    assert forked.proof.conflict == fork_id(a.domain, 6)
    [conflict] = exchange._ledger.conflicts()
    assert (conflict.id, conflict.kind, conflict.domain) == (forked.proof.conflict, "fork", a.domain)
    assert b.artifacts[conflict.evidence].payload == forked.proof.to_bytes()
    assert b.artifacts[conflict.evidence].tag == TAG_EVIDENCE
    last = b.logs[b.domain][-1]
    assert last.header.kind == EVIDENCE
    assert EvidenceBody.from_bytes(last.body) == EvidenceBody(conflict.id, conflict.evidence)


def test_a_frozen_domain_is_left_alone(site):
    """After a fork nothing of that domain is taken, from anybody; other domains go on."""
    a, double, b, c = site
    write(a, "left")
    write(double, "right")
    pulled(b, a)
    pulled(b, double)
    write(a, "more")
    write(c, "x")
    pulled(a, c)
    finish, exchange = pulled(b, a, name="a")
    assert sorted(one.outcome for one in finish.domains) == ["frozen", "pulled"]
    assert len(b.logs[a.domain]) == 6
    assert exchange.conflicts == 0
    assert finish.etag == ""


def test_who_learns_of_a_fork_freezes_it_too(site):
    """The evidence travels as a record: a third site believes the proof, and not who brings it."""
    a, double, b, c = site
    write(a, "left")
    write(double, "right")
    pulled(b, a)
    pulled(b, double)
    finish, exchange = pulled(c, b)
    assert exchange.conflicts == 1
    assert exchange._ledger.frozen() == {a.domain: 5}
    assert [one.id for one in exchange._ledger.conflicts()] == [fork_id(a.domain, 6)]
    finish, _ = pulled(c, double, name="double")
    assert [one.outcome for one in finish.domains] == ["frozen"]


def test_who_hears_of_a_fork_first_gets_what_all_branches_have(site):
    """Frozen is what comes behind the common records; these it still takes, from whoever has them."""
    a, double, b, c = site
    write(a, "left")
    write(double, "right")
    pulled(b, a)
    pulled(b, double)
    pulled(c, b, domains={b.domain})
    finish, exchange = pulled(c, a, domains={a.domain})
    assert exchange._ledger.frozen() == {a.domain: 5}
    assert [one.outcome for one in finish.domains] == ["frozen"]
    assert c.logs[a.domain] == a.logs[a.domain][:5]


def test_a_head_of_what_is_held_is_kept_alone(site):
    """Half of a journal came, and then its site is put back to that half: who has it can relay it all the same."""
    a, double, b, c = site
    write(a, "lost")
    pulled(b, a, until=5)
    assert a.domain not in b.heads
    finish, _ = pulled(b, double)
    assert [one.outcome for one in finish.domains] == ["unchanged"]
    assert b.signed_head(a.domain).size == 5
    pulled(c, b)
    assert len(c.logs[a.domain]) == 5


def test_evidence_that_proves_nothing_freezes_nobody(site):
    """A record of kind EVIDENCE with any artifact is a record, and no fork."""
    a, _, b, c = site
    reference = a.put(b"they are forked, believe me", tag=TAG_EVIDENCE)
    a.journal.append([Entry(EVIDENCE, EvidenceBody(fork_id(c.domain, 1), reference).to_bytes(), PUBLISHED)])
    finish, exchange = pulled(b, a)
    assert (finish.records, exchange.conflicts) == (7, 0)
    assert exchange._ledger.frozen() == {}


def test_a_false_proof_freezes_nobody(site):
    """Of the right form, about a domain that lives, and not true."""
    a, double, b, c = site
    write(a, "left")
    write(double, "right")
    pulled(b, a)
    proof = pulled(b, double)[1].forked[0].proof
    false = proof._replace(one_voucher=proof.one_voucher._replace(head=proof.other_voucher.head))
    reference = c.put(false.to_bytes(), tag=TAG_EVIDENCE)
    c.journal.append([Entry(EVIDENCE, EvidenceBody(proof.conflict, reference).to_bytes(), PUBLISHED)])
    fresh = Node("fresh")
    finish, exchange = pulled(fresh, c)
    assert (finish.records, exchange.conflicts) == (2, 0)
    assert exchange._ledger.frozen() == {}
    fresh.close()


def test_a_fork_behind_a_pull_that_stopped_halfway(site):
    """What vouches for our own branch is the head of then, and the proof that our prefix is in it."""
    a, double, b, _ = site
    write(a, *(f"a{n}" for n in range(10)))
    write(double, *(f"d{n}" for n in range(10)))
    pulled(b, a, until=8)
    assert b.heads == {}
    finish, exchange = pulled(b, double)
    [forked] = exchange.forked
    assert forked.common == 5
    forked.proof.check()
    bridges = sorted(len(one.bridge) for one in (forked.proof.one_voucher, forked.proof.other_voucher))
    assert bridges[0] == 0 < bridges[1]
    for which in ("one_voucher", "other_voucher"):
        voucher = getattr(forked.proof, which)
        twisted = voucher._replace(bridge=(bytes(32),))
        with pytest.raises(PeerError):
            forked.proof._replace(**{which: twisted}).check()
    assert finish.domains[0].outcome == "forked"


def test_a_peer_that_changes_its_mind_within_a_pull(site):
    """What it said first is committed and covered by its head; what it says then cannot be a fork of that."""
    a, double, b, _ = site
    write(a, *(f"a{n}" for n in range(10)))
    write(double, *(f"a{n}" for n in range(5)), *(f"d{n}" for n in range(5)))
    pulled(b, a, until=8)

    def send(question):
        return asked_of(double if getattr(question, "after", 0) == 12 or hasattr(question, "seq") else a, question)

    finish, exchange = pulled(b, a, send=send, limit=2)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert len(b.logs[a.domain]) == 12
    assert exchange._ledger.frozen() == {}
    assert pulled(b, a, name="honest")[0].records == 3


def test_a_journal_that_was_rewritten_from_its_beginning(site):
    """No record in common is a fork at record 1; nothing is begun again at 0."""
    a, double, b, _ = site
    double.logs[a.domain] = []
    write(double, *"678")
    pulled(b, a)
    _, exchange = pulled(b, double)
    assert [one.common for one in exchange.forked] == [0]
    assert len(b.logs[a.domain]) == 5


def test_a_site_that_meets_its_double(site):
    """Of its own domain too: both branches are kept, and the proof is there."""
    a, double, b, _ = site
    write(a, "left")
    write(double, "right", "and more")
    pulled(b, double)
    finish, exchange = pulled(a, b)
    assert [(one.domain, one.outcome) for one in finish.domains] == [(a.domain, "forked")]
    assert [one.common for one in exchange.forked] == [5]
    assert a.logs[a.domain][5].body == b"left"


@pytest.mark.parametrize("twisted", [GetRecords, GetInclusion])
def test_a_fork_that_is_claimed_and_not_shown_freezes_nobody(site, twisted):
    """A peer whose record or whose proof is another is refused, and the domain stays live."""
    a, double, b, _ = site
    write(a, "left", "on")
    write(double, "right", "on")
    pulled(b, a)

    def send(question):
        if isinstance(question, twisted) and getattr(question, "limit", 1) == 1:
            return asked_of(a, question)
        return asked_of(double, question)

    write(a, "further")
    write(double, "further")
    finish, exchange = pulled(b, double, send=send)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert exchange._ledger.frozen() == {}
    assert pulled(b, a, name="a")[0].domains[0].outcome == "pulled"


def proof_of(site):
    a, double, b, _ = site
    write(a, "left")
    write(double, "right", "more")
    pulled(b, a)
    return pulled(b, double)[1].forked[0].proof


def test_proofs_that_prove_nothing(site):
    """Each rule of a proof, broken alone."""
    a, *_, c = site
    proof = proof_of(site)
    one, other = proof.one_voucher, proof.other_voucher
    for bad in (
        proof._replace(key=c.key),
        proof._replace(other=proof.one, other_voucher=one),
        proof._replace(other=a.logs[a.domain][4].header),
        proof._replace(one_voucher=other),
        proof._replace(other=proof.other._replace(prev=bytes(32))),
        proof._replace(one_voucher=one._replace(path=())),
        proof._replace(one_voucher=one._replace(root=bytes(32))),
        proof._replace(one_voucher=one._replace(head=c.signed_head())),
        proof._replace(one_voucher=one._replace(head=one.head._replace(signatures=c.signed_head().signatures))),
    ):
        with pytest.raises(PeerError):
            bad.check()


@given(data=st.data())
def test_a_flipped_bit_of_a_proof_is_refused(data):
    """Any bit: no proof of that form, or not true."""
    a = Node("a")
    write(a, *"12345")
    site = [a, twin_of(a), Node("b"), Node("c")]
    proof = proof_of(site)
    good = proof.to_bytes()
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    for node in site:
        node.close()
    try:
        read = ForkProof.from_bytes(bytes(bad))
    except CodecError:
        return
    assert read.to_bytes() == bytes(bad)
    with pytest.raises(PeerError):
        read.check()


@given(st.binary(max_size=400))
def test_other_bytes_are_no_proof(data):
    """Refused, and nothing else."""
    with pytest.raises(CodecError):
        ForkProof.from_bytes(data)
    with pytest.raises(CodecError):
        ForkProof.from_bytes(b"FP1\1" + data)


def test_a_voucher_has_one_form(site):
    """Written and read again; the two records stand in their order."""
    proof = proof_of(site)
    assert isinstance(proof.one_voucher, Voucher)
    turned = ForkProof(proof.key, proof.other, proof.one, proof.other_voucher, proof.one_voucher)
    turned.check()
    with pytest.raises(CodecError):
        ForkProof.from_bytes(turned.to_bytes())
    with pytest.raises(CodecError):
        ForkProof.from_bytes(proof.to_bytes() + b"\0")
