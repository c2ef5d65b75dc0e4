"""A peer, or an origin, that lies: each lie is refused, counted with its evidence, and costs a bounded number of questions."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lies import LIES, Lie, World, batch, octets, other_header
from node import Node, asked_of, pulled

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, BatchItem, decode_batch, encode_batch
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody
from tidewarp.codec.records import PUBLISHED, RecordHeader, genesis, record_hash
from tidewarp.codec.references import Reference
from tidewarp.federation.messages import (
    GetArtifact,
    GetConsistency,
    GetHeads,
    GetRecords,
    HttpResponse,
)
from tidewarp.federation.verify import ByteCheck, Refusal, Wanted
from tidewarp.store.contract import Entry

OPAQUE = 0x80
QUESTIONS_MAX = 40


@pytest.fixture
def world():
    made = World(Node("a"), Node("b"), Node("c"))
    a = made.a
    a.put(b"one")
    a.put(b"two", tag=9)
    a.put(bytes(70_000))
    a.journal.append([Entry(OPAQUE, b"four", PUBLISHED)])
    made.c.put(b"elsewhere")
    yield made
    for one in made:
        one.close()


def lied_to(world, lie, **options):
    """Pull from a liar; at most so many questions."""
    asked = []

    def send(question):
        asked.append(question)
        assert len(asked) <= QUESTIONS_MAX
        return lie.tell(world, question, asked_of(world.a, question))

    return pulled(world.b, world.a, send=send, **options)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_and_the_truth_taken_afterwards(world, name):
    """Nothing of the batch is kept; conflict and quarantine say what and why; an honest peer is believed at once."""
    lie = LIES[name]
    finish, exchange = lied_to(world, lie)
    assert finish.records == 0
    assert [one.outcome for one in finish.domains] == ([] if lie.outcome == "none" else [lie.outcome])
    assert world.a.domain not in world.b.logs
    assert world.b.logs[world.b.domain] == []
    assert world.b.artifacts == {}
    assert [one.kind for one in exchange._ledger.conflicts()] == [lie.kind]
    [kept] = exchange._ledger.quarantined()
    assert kept.reason.startswith(lie.kind)
    assert exchange.conflicts == 1
    assert finish.etag == ""
    assert pulled(world.b, world.a, name="honest")[0].records == 4
    assert world.b.logs[world.a.domain] == world.a.logs[world.a.domain]


def test_a_lie_behind_a_commit_leaves_the_commit(world):
    """Two records are true and kept, the third is not and is asked of another peer."""
    lie = Lie(batch(lambda world, items: [other_header(one, hlc=7) if one.header.seq == 3 else one for one in items]))
    finish, _ = lied_to(world, lie, limit=1)
    assert (finish.records, [one.outcome for one in finish.domains]) == (2, ["refused"])
    assert world.b.logs[world.a.domain] == world.a.logs[world.a.domain][:2]
    assert pulled(world.b, world.a, name="honest", limit=1)[0].records == 2


def test_a_chain_that_the_head_does_not_cover_is_never_committed(world):
    """Records that a relay made up, correctly chained on ours: refused before the first commit, however long they are."""
    a, b, _ = world
    a_log, forged = a.logs[a.domain], []
    prev = genesis(a.domain)
    for seq in range(1, 5):
        body = b"forged %d" % seq
        header = RecordHeader(a.domain, seq, OPAQUE, PUBLISHED, 0, prev, len(body), hashlib.sha256(body).digest())
        prev = record_hash(header.to_bytes())
        forged.append(BatchItem(header, BODY, body))
    for limit in (1, 2, 4):
        lie = Lie(batch(lambda world, items: [forged[one.header.seq - 1] for one in items]))
        finish, _ = lied_to(world, lie, limit=limit)
        assert finish.records == 0
        assert a.domain not in b.logs
    assert pulled(b, a, name="honest")[0].records == len(a_log)


@pytest.mark.parametrize(
    "twist",
    [
        lambda data: b'{"hashes":[]}',
        lambda data: data + b" x",
        lambda data: json.dumps({"hashes": json.loads(data)["hashes"][::-1]}).encode(),
        lambda data: json.dumps({"hashes": json.loads(data)["hashes"] * 20}).encode(),
    ],
)
def test_a_proof_that_does_not_lead_to_the_head(world, twist):
    """Half a journal without its consistency proof is not taken."""
    finish, exchange = lied_to(world, Lie(octets(GetConsistency, twist)), limit=3)
    assert (finish.records, exchange.conflicts) == (0, 1)


def test_a_lie_counts_also_where_the_proof_does_not_come(world):
    """The proof is asked for before the records are looked at, and it is the lie in these that is told and kept."""
    lies = batch(lambda world, items: [other_header(one, hlc=7) for one in items])

    def twisted(world, question, answer):
        missing = isinstance(question, GetConsistency)
        return answer._replace(status=404) if missing else lies(world, question, answer)

    finish, exchange = lied_to(world, Lie(twisted), limit=2)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert [one.kind for one in exchange._ledger.conflicts()] == ["payload_mismatch"]
    lies = batch(lambda world, items: items)
    finish, exchange = lied_to(world, Lie(twisted), limit=2)
    assert ([one.outcome for one in finish.domains], exchange.conflicts) == (["incomplete"], 0), "no lie, and no proof"


def signed_log(world, *entries):
    """Replace what the origin has: an origin may sign whatever it likes."""
    a = world.a
    a.logs[a.domain] = []
    a.artifacts.clear()
    a.journal.append([Entry(*one) for one in entries])


@pytest.mark.parametrize(
    "changes", [{"domain": bytes(32)}, {"seq": 3}, {"seq": 1}, {"prev": bytes(32)}], ids=lambda one: next(iter(one))
)
def test_an_origin_that_signs_a_journal_that_is_none(world, changes):
    """Another domain, a gap, a repetition, a broken chain: a signature over it makes it no better."""
    log = world.a.logs[world.a.domain]
    log[1:] = [log[1]._replace(header=log[1].header._replace(**changes))]
    world.b.adopt = None  # it is not asked
    finish, exchange = pulled(world.b, world.a)
    assert (finish.records, [one.kind for one in exchange._ledger.conflicts()]) == (0, ["payload_mismatch"])


HELLO = Artifact(b"hello").reference()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ARTIFACT, b""),
        (ARTIFACT, ArtifactBody(HELLO, None, 5).to_bytes() + b"\0"),
        (ARTIFACT, b"\0\0\0\x22\0\0" + bytes(32) + bytes(9)),
        (ARTIFACT, b"\xff\xff\xff\xff" + bytes(50)),
        (0x03, bytes(100)),
        (0x04, bytes(100)),
        (0x10, ArtifactBody(HELLO, None, 5).to_bytes()),
        (0x41, b"\xff\xff\xff\xff"),
        (0x20, bytes(7)),
    ],
)
def test_an_origin_that_signs_a_body_of_no_form(world, kind, body):
    """metadata_mismatch: everywhere the same, so all nodes stop at the same record."""
    signed_log(world, (kind, body, PUBLISHED))
    finish, exchange = pulled(world.b, world.a)
    assert (finish.records, [one.kind for one in exchange._ledger.conflicts()]) == (0, ["metadata_mismatch"])


@pytest.mark.parametrize("size", [4, 6, 0, 1 << 63])
def test_an_origin_that_lies_about_an_artifact(world, size):
    """Another size, or another tag, than the artifact has: metadata_mismatch, before and after the bytes."""
    for stated in (ArtifactBody(HELLO, None, size), ArtifactBody(HELLO, 3, 5)):
        signed_log(world, (ARTIFACT, stated.to_bytes(), PUBLISHED))

        def send(question, stated=stated):
            answer = asked_of(world.a, question)
            if isinstance(question, GetRecords):
                [item] = decode_batch(answer.whole)
                return answer._replace(body=encode_batch([item._replace(artifact=Artifact(b"hello").to_bytes())]))
            return answer

        finish, exchange = pulled(world.b, world.a, send=send)
        assert finish.records == 0
        assert {one.kind for one in exchange._ledger.conflicts()} == {"metadata_mismatch"}


def test_an_artifact_under_a_hash_that_nobody_can_compute(world):
    """The record is taken, its bytes are not asked for."""
    signed_log(world, (ARTIFACT, ArtifactBody(Reference(2, bytes(32)), None, 5).to_bytes(), PUBLISHED))
    asked = []
    finish, _ = pulled(world.b, world.a, send=lambda one: (asked.append(one), asked_of(world.a, one))[1])
    assert finish.records == 1
    assert not any(isinstance(one, GetArtifact) for one in asked)


def test_an_artifact_of_2_to_the_63_bytes_is_not_waited_for(world):
    """What is too large for us is left, with the reason; nothing is allocated."""
    signed_log(world, (ARTIFACT, ArtifactBody(HELLO, None, 1 << 63).to_bytes(), PUBLISHED))
    finish, exchange = pulled(world.b, world.a)
    assert finish.records == 1
    assert exchange._ledger.absent() == {HELLO: 413}


def test_an_endless_stream_is_cut_at_the_size_that_was_declared(world):
    """Of an artifact of 100,000 bytes no more than that is read, whatever comes."""
    a, b, _ = world
    a.put(bytes([1]) * 100_000)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 4_096
            assert read < 1 << 20, "it reads on and on"
            yield bytes(4_096)

    def send(question):
        if isinstance(question, GetArtifact):
            return HttpResponse(200, {}, endless())
        return asked_of(a, question)

    finish, exchange = pulled(b, a, send=send)
    assert (finish.records, exchange.conflicts) == (0, 1)
    assert read <= 70_000 + 13 + 4_096


@pytest.mark.parametrize(
    "name", ["huge count", "body of 4 GiB", "heads nested without end", "large artifact too long", "a record twice"]
)
def test_a_lie_costs_no_memory(world, name):
    """What is declared is not allocated: at most a few times what came."""
    tracemalloc.start()
    try:
        lied_to(world, LIES[name])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_million_domains(world, monkeypatch):
    """An open store takes the first 1,000 that it is shown and looks no further; the rest is counted as far as it was seen."""
    a, b, _ = world
    [row] = json.loads(asked_of(a, GetHeads()).whole)
    pages = 0

    def send(question):
        nonlocal pages
        if not isinstance(question, GetHeads):
            return HttpResponse(404)
        pages += 1
        first = int.from_bytes(question.after, "big") + 1 if question.after else 1
        rows = [{**row, "domain": f"{n:064x}"} for n in range(first, first + 1_000)]
        return HttpResponse(200, {"tidewarp-next": rows[-1]["domain"]}, json.dumps(rows).encode())

    finish, exchange = pulled(b, a, send=send)
    assert pages <= 2  # the second begins right before the own domain, which is always looked for
    assert len(finish.domains) == 1_001
    assert {one.outcome for one in finish.domains} == {"refused"}
    assert exchange.conflicts == 1_001
    pages = 0
    finish, _ = pulled(b, a, send=send, domains=[(1 << 40).to_bytes(32, "big")])
    assert pages == 2
    assert len(finish.domains) == 1
    assert finish.ignored > 1_000


def test_a_page_that_leads_back_is_refused(world):
    """A peer cannot let us read the same page for ever."""
    a, b, _ = world

    def send(question):
        return asked_of(a, GetHeads())._replace(headers={"tidewarp-next": "00" * 32})

    finish, exchange = pulled(b, a, send=send)
    assert (finish.records, exchange.conflicts) == (0, 1)
    assert finish.incomplete


def test_the_quarantine_is_bounded(world, monkeypatch):
    """The oldest makes room, and is counted."""
    monkeypatch.setattr("tidewarp.federation.ledger.QUARANTINE_BYTES_MAX", 1_000)
    ledger = None
    for n in range(5):
        lie = Lie(octets(GetRecords, lambda data, n=n: data[:390] + bytes([n])))
        _, exchange = lied_to(world, lie)
        ledger = exchange._ledger
    kept = ledger.quarantined()
    assert sum(len(one.data) for one in kept) <= 1_000
    assert [one.data[-1] for one in kept] == [3, 4]
    assert ledger.dropped() == 3 * 391


@given(st.binary(max_size=300))
def test_other_bytes_as_heads_or_records(data):
    """Whatever comes, the machine refuses it and ends."""
    a, b = Node("a"), Node("b")
    a.put(b"x")
    for form in (GetHeads, GetRecords):
        finish, _ = lied_to(World(a, b, a), Lie(octets(form, lambda whole: data)))
        assert finish.records == 0
    a.close()
    b.close()


@given(st.data())
def test_a_flipped_bit_on_the_way(data):
    """Any bit of any answer: what is committed is the truth, or nothing is."""
    a, b = Node("a"), Node("b")
    a.put(b"one")
    a.put(bytes(66_000))
    a.put(b"three")
    form = data.draw(st.sampled_from([GetHeads, GetRecords, GetConsistency, GetArtifact]))
    place = data.draw(st.floats(0, 1, exclude_max=True))

    def flip(whole):
        bad = bytearray(whole)
        at = int(place * 8 * len(bad))
        bad[at // 8] ^= 1 << at % 8
        return bytes(bad)

    lied_to(World(a, b, a), Lie(octets(form, flip)), limit=2)
    held = b.logs.get(a.domain, [])
    assert held == a.logs[a.domain][: len(held)]
    assert all(reference in a.artifacts for reference in b.artifacts)
    a.close()
    b.close()


def checked(wanted, data, step):
    check = ByteCheck(bytes(32), wanted)
    for at in range(0, len(data), step):
        check.feed(data[at : at + step])
    check.end()


@given(st.binary(max_size=200), st.integers(1, 50))
def test_pieces_of_any_size_are_one_check(payload, step):
    """An artifact in pieces is what it is whole; a byte more, less or other is not."""
    artifact = Artifact(payload, 5)
    whole = artifact.to_bytes()
    for wanted in (
        Wanted(1, artifact.reference(), ArtifactBody(artifact.reference(), 5, len(payload))),
        Wanted(1, artifact.reference(), None),
    ):
        checked(wanted, whole, step)
        for bad in (whole[:-1], whole + b"\0", b"\0" + whole[1:]):
            with pytest.raises(Refusal):
                checked(wanted, bad, step)


def test_bytes_that_have_their_name_and_are_no_artifact():
    """An origin may name the hash of anything: without the form of an artifact it is refused."""
    for bad in (b"", b"\2", b"\0" + bytes(7), b"\0" + bytes(7) + b"\5hell", b"\1" + bytes(3)):
        with pytest.raises(Refusal):
            checked(Wanted(1, Reference(1, hashlib.sha256(bad).digest()), None), bad, 100)
