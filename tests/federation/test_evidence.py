"""Forks that a peer knows: whoever pulls from it learns of them by proof, and of a lie about them by nothing."""

from __future__ import annotations

import json

import pytest
from node import Node, pulled
from receiving import Taking, handler_of
from test_forks import twin_of, write

from tidewarp.codec.artifacts import TAG_EVIDENCE, Artifact
from tidewarp.codec.heads import sign_head
from tidewarp.codec.references import Reference
from tidewarp.federation import peer as peer_module
from tidewarp.federation.documents import decode_evidence
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetArtifact, GetEvidence, GetHeads, GetMissing, HttpRequest, HttpResponse
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.proof import ForkProof
from tidewarp.store.fold import fork_id


def asked_of(node, question):
    """The answer of a node that says what forks it knows."""
    headers = getattr(question, "headers", {})
    body = question.body if isinstance(question, GetMissing) else b""
    return handler_of(node).handle(HttpRequest("POST" if body else "GET", question.target, headers, body))


@pytest.fixture
def site():
    """A site and its double, who met both, and who has met the site alone."""
    a = Node("a")
    write(a, *"12345")
    double, witness, other = twin_of(a), Node("b"), Node("c")
    write(a, "left")
    write(double, "right", "right again")
    pulled(witness, a)
    pulled(witness, double)
    pulled(other, a)
    yield a, double, witness, other
    for one in (a, double, witness, other):
        one.close()


def learn(into, witness, twist=None, **options):
    """Pull from who knows; what was asked. ``twist`` changes answers."""
    asked = []

    def send(question):
        asked.append(question)
        answer = asked_of(witness, question)
        return answer if twist is None else twist(question, answer)

    finish, exchange = pulled(into, witness, send=send, **options)
    return finish, exchange, [type(one) for one in asked]


def without_records_of_the_witness(question, answer):
    """The heads of others alone: evidence does not come as a record then."""
    if not isinstance(question, GetHeads):
        return answer
    rows = [one for one in json.loads(answer.whole) if one["domain"] != Node("b").domain.hex()]
    return answer._replace(body=json.dumps(rows).encode())


def test_a_page_of_evidence(site):
    """By id, with whose journal it is about and the artifact; the heads say that it is frozen."""
    a, _, witness, _ = site
    [row] = decode_evidence(asked_of(witness, GetEvidence()).whole)
    assert (row.conflict, row.domain) == (fork_id(a.domain, 6).hex(), a.domain.hex())
    assert witness.artifacts[Reference.parse(row.evidence)].tag == TAG_EVIDENCE
    assert decode_evidence(asked_of(witness, GetEvidence(bytes.fromhex(row.conflict))).whole) == []
    [head] = [one for one in json.loads(asked_of(witness, GetHeads()).whole) if one["domain"] == a.domain.hex()]
    assert head["status"] == "frozen"
    assert PeerHandler(witness).handle(HttpRequest("GET", "/v1/evidence")).whole == b"[]"
    assert PeerHandler(witness).handle(HttpRequest("GET", "/v1/evidence?after=00")).status == 400


def test_pages(site, monkeypatch):
    """A page is bounded, and says when there is another."""
    _, _, witness, _ = site
    ledger = ledger_of(witness)
    [known] = ledger.conflicts()
    taking = Taking(witness)
    forks = [known._replace(id=bytes([n]) * 32) for n in range(5)]
    taking.forks = lambda: forks
    monkeypatch.setattr(peer_module, "EVIDENCE_PER_PAGE", 2)
    handler, after, seen = PeerHandler(witness, taking), b"", []
    while True:
        answer = handler.handle(HttpRequest("GET", GetEvidence(after).target))
        page = decode_evidence(answer.whole)
        seen += [bytes.fromhex(one.conflict) for one in page]
        if "tidewarp-next" not in answer.headers:
            break
        after = bytes.fromhex(answer.headers["tidewarp-next"])
        assert after == seen[-1]
    assert seen == [one.id for one in forks]


def test_who_learns_of_a_fork_freezes_the_domain(site):
    """By evidence alone; it keeps the proof, shows it in turn, and asks nobody for it again."""
    a, double, witness, other = site
    before = other.logs[a.domain][:]
    _, exchange, _ = learn(other, witness, without_records_of_the_witness)
    assert [(one.domain, one.common) for one in exchange.forked] == [(a.domain, 5)]
    assert exchange.conflicts == 1
    [conflict] = ledger_of(other).conflicts()
    assert (conflict.kind, conflict.domain, conflict.state) == ("fork", a.domain, "open")
    assert other.artifacts[conflict.evidence].tag == TAG_EVIDENCE
    assert set(ledger_of(other).frozen()) == {a.domain}
    write(a, "more")
    assert pulled(other, a)[0].domains[0].outcome == "frozen"
    assert other.logs[a.domain] == before
    third = Node("third")
    learn(third, other, without_records_of_the_witness)
    assert set(ledger_of(third).frozen()) == {a.domain}
    assert GetEvidence not in learn(other, witness, without_records_of_the_witness)[2]
    assert set(ledger_of(double).frozen()) == set()
    third.close()


def test_nothing_is_asked_where_nothing_is_frozen(site):
    """No round trip more than before; and none with a peer that has not changed."""
    a, _, _, other = site
    write(a, "more")
    assert GetEvidence not in learn(other, a)[2]
    assert learn(other, a)[2] == [GetHeads]


def test_the_own_domain(site):
    """A site that is shown the proof that it was copied believes it."""
    a, _, witness, _ = site
    _, exchange, _ = learn(a, witness, without_records_of_the_witness)
    assert [one.domain for one in exchange.forked] == [a.domain]
    assert set(ledger_of(a).frozen()) == {a.domain}


def rows(change):
    """A lie about each line."""

    def twist(question, answer):
        answer = without_records_of_the_witness(question, answer)
        if not isinstance(question, GetEvidence):
            return answer
        return answer._replace(body=json.dumps([{**one, **change(one)} for one in json.loads(answer.whole)]).encode())

    return twist


def body(form, change):
    """A lie of bytes."""

    def twist(question, answer):
        answer = without_records_of_the_witness(question, answer)
        return answer._replace(body=change(answer.whole)) if isinstance(question, form) else answer

    return twist


LIES = {
    "another conflict": rows(lambda row: {"conflict": fork_id(bytes.fromhex(row["domain"]), 5).hex()}),
    "a reference that is none": rows(lambda row: {"evidence": "../../etc/passwd"}),
    "a reference under hash id 0": rows(lambda row: {"evidence": "0000" + "00" * 32}),
    "a flipped bit of the proof": body(GetArtifact, lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:]),
    "a shorter proof": body(GetArtifact, lambda data: data[:-1]),
    "no JSON": body(GetEvidence, lambda data: data[:-1]),
    "nested without end": body(GetEvidence, lambda data: b"[" * 100_000),
    "the line twice": body(GetEvidence, lambda data: b"[" + data[1:-1] + b"," + data[1:-1] + b"]"),
    "a field too many": body(GetEvidence, lambda data: data.replace(b'"domain"', b'"x":1,"domain"')),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_fork(site, name):
    """Refused and kept as evidence of its own kind; nothing is frozen by it, and the truth is believed afterwards."""
    a, _, witness, other = site
    _, exchange, asked = learn(other, witness, LIES[name])
    assert exchange.forked == []
    assert exchange.conflicts == 1
    assert set(ledger_of(other).frozen()) == set()
    assert [one.kind for one in ledger_of(other).conflicts()] == ["payload_mismatch"]
    assert len(ledger_of(other).quarantined()) == 1
    assert asked.count(GetEvidence) == 1
    write(witness, "another record, so that the heads are new")
    learn(other, witness, without_records_of_the_witness)
    assert set(ledger_of(other).frozen()) == {a.domain}


@pytest.mark.parametrize("forged", ["another record", "a record for itself", "an unsigned head"])
def test_a_proof_that_proves_nothing(site, forged):
    """It has the form of a proof, its own name and the right conflict, and is not true: refused, and nothing is frozen."""
    _, _, witness, other = site
    [known] = ledger_of(witness).conflicts()
    truth = ForkProof.from_bytes(witness.artifacts[known.evidence].payload)
    head = truth.other_voucher.head
    lie = {
        "another record": truth._replace(other_voucher=truth.one_voucher),
        "a record for itself": ForkProof.of(truth.key, (truth.one, truth.one_voucher), (truth.one, truth.one_voucher)),
        "an unsigned head": truth._replace(
            other_voucher=truth.other_voucher._replace(head=unsigned(head, witness)),
        ),
    }[forged]
    artifact = Artifact(lie.to_bytes(), TAG_EVIDENCE)

    def twist(question, answer):
        answer = without_records_of_the_witness(question, answer)
        if isinstance(question, GetEvidence):
            named = artifact.reference().hex().encode()
            return answer._replace(body=answer.whole.replace(known.evidence.hex().encode(), named))
        if isinstance(question, GetArtifact):
            return HttpResponse(200, body=artifact.to_bytes())
        return answer

    _, exchange, _ = learn(other, witness, twist)
    assert (exchange.forked, exchange.conflicts) == ([], 1)
    assert set(ledger_of(other).frozen()) == set()


def unsigned(head, stranger):
    """The same head, signed by somebody else."""
    return sign_head(head.domain, head.size, head.root, head.head, "tidewarp", stranger.seed)


def test_a_proof_of_another_fork(site):
    """A true proof, shown for another domain: refused, and only the domain that it proves could be frozen by it."""
    a, _, witness, other = site
    c = Node("d")
    write(c, "x")
    pulled(other, c)
    pulled(witness, c)

    def twist(question, answer):
        answer = without_records_of_the_witness(question, answer)
        if isinstance(question, GetHeads):
            lines = json.loads(answer.whole)
            for one in lines:
                one["status"] = "frozen" if one["domain"] == c.domain.hex() else "live"
            return answer._replace(body=json.dumps(lines).encode())
        if isinstance(question, GetEvidence):
            return answer._replace(body=answer.whole.replace(a.domain.hex().encode(), c.domain.hex().encode()))
        return answer

    _, exchange, _ = learn(other, witness, twist)
    assert (exchange.forked, exchange.conflicts) == ([], 1)
    assert set(ledger_of(other).frozen()) == set()
    c.close()


def test_a_page_that_leads_back(site):
    """A peer that shows the same page for ever is asked for it twice at most."""
    _, _, witness, other = site

    def twist(question, answer):
        answer = without_records_of_the_witness(question, answer)
        if isinstance(question, GetEvidence):
            return answer._replace(
                body=b'[{"conflict":"%s","domain":"%s","evidence":"00"}]' % (b"11" * 32, b"22" * 32),
                headers={"tidewarp-next": "11" * 32},
            )
        return answer

    assert learn(other, witness, twist)[2].count(GetEvidence) <= 2
