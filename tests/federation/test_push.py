"""A push brings what a pull would: same verifier, same state; what may not be, and what is no continuation, is refused."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lies import LIES, World
from node import Node, pulled
from receiving import FEDERATE, Taking, asker, handler_of, pushed

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import encode_batch
from tidewarp.codec.frames import count, counted
from tidewarp.codec.records import PUBLISHED
from tidewarp.codec.references import Reference, encode_references
from tidewarp.errors import CodecError
from tidewarp.federation.documents import HeadDocument, decode_json, encode_json
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import (
    GetArtifact,
    GetConsistency,
    GetHeads,
    GetLacking,
    GetRecords,
    HttpRequest,
    HttpResponse,
    PushArtifact,
    PushRecords,
)
from tidewarp.federation.parcel import Parcel
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.policy import Member, Policy
from tidewarp.federation.push import Push
from tidewarp.federation.receive import NotTaken, _told
from tidewarp.federation.verify import Wanted
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.admission import Decision, Role, Standing
from tidewarp.store.contract import Entry

LARGE = bytes(range(256)) * 300


def parcel_of(node, after: int = 0, limit: int = 5_000) -> bytes:
    """What a push sends first to who has ``after`` records."""
    sent = []

    def ask(question):
        if isinstance(question, PushRecords):
            sent.append(question.body)
        shown = node.logs[node.domain][:after]
        if isinstance(question, GetHeads) and shown:
            part = Node(node.name)
            part.logs[node.domain] = shown
            return PeerHandler(part).handle(HttpRequest("GET", "/v1/heads"))
        return HttpResponse(200, body=b"[]") if isinstance(question, GetHeads) else HttpResponse(500)

    Push(node, ask, [node.domain], limit).run()
    return sent[0]


def post(store, data: bytes, roles=FEDERATE, **options) -> HttpResponse:
    return handler_of(store, **options).handle(HttpRequest("POST", "/v1/records", {}, data, roles))


def said(answer: HttpResponse) -> dict[str, str]:
    document = json.loads(answer.whole)
    assert set(document) == {"error", "rule", "next"}
    assert all(document.values())
    return document


# --- what it brings


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "tagged", "internal", "large", "tombstone", "opaque"]), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 4),
)
def test_pull_push_and_relay_are_one(steps, limit):
    """Whichever way records come: equal records, equal bytes, equal state; a second push brings nothing."""
    with ExitStack() as left:
        made = [left.enter_context(MemoryStore(seed=bytes([n]) * 32)) for n in range(4)]
        origin, first, second, third = made
        refs: list[Reference] = []
        for what, n in steps:
            data = LARGE + bytes([n]) if what == "large" else b"%d" % n
            if what == "opaque":
                origin.journal.append([Entry(0x80, data, PUBLISHED)])
            elif what == "tombstone" and refs:
                origin.tombstone(refs[n % len(refs)])
            else:
                refs.append(origin.put(data, tag=n if what == "tagged" else None, publish=what != "internal"))
        assert pulled(first, origin)[0].records == origin.journal.size
        told = pushed(origin, second, limit=limit)
        assert (told.records, told.conflicts, told.incomplete, told.lacking) == (origin.journal.size, 0, "", 0)
        relayed = pushed(second, third, limit=limit)
        assert (relayed.records, relayed.conflicts, relayed.lacking) == (origin.journal.size, 0, 0)
        for store in (second, third):
            assert list(store.records(origin.domain)) == list(first.records(origin.domain))
            assert store.state_hash() == first.state_hash()
            assert store.has(refs) == first.has(refs)
        assert pushed(origin, second).records == 0


def test_large_artifacts_come_behind_their_records(a, b):
    """Until then the record says why they are absent; they are asked for by name, and nothing else is taken."""
    large = a.put(LARGE)
    a.put(b"small")
    ask = asker(b)
    answer = post(b, parcel_of(a))
    assert json.loads(answer.whole) == {"domain": a.domain.hex(), "before": 0, "after": 2, "conflicts": 0}
    assert ledger_of(b).absent() == {large: 413}
    assert ask(GetLacking()).whole == encode_references([large])
    stranger = Artifact(b"nobody asked for it").to_bytes()
    answer = ask(PushArtifact(Artifact(b"nobody asked for it").reference(), lambda: [stranger], len(stranger)))
    assert answer.status == 409
    with pytest.raises(NotTaken) as caught:
        Taking(b).take_artifact(b"", Artifact(b"nobody asked for it").reference(), io.BytesIO(stranger))
    assert caught.value.status == 409
    told = pushed(a, b)
    assert (told.records, told.lacking) == (0, 0)
    assert b.artifacts[large].payload == LARGE
    assert ledger_of(b).absent() == {}


@pytest.mark.parametrize(
    "twist",
    [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:-1] + b"\1", lambda data: b""],
)
def test_bytes_that_are_not_those_of_their_name(a, b, twist):
    """400, kept as evidence, and waited for still."""
    large = a.put(LARGE)
    post(b, parcel_of(a))
    data = twist(a.artifacts[large].to_bytes())
    answer = asker(b)(PushArtifact(large, lambda: [data], len(data)))
    assert answer.status == 400
    assert large not in b.artifacts
    assert ledger_of(b).awaits(large) == a.domain
    assert [one.kind for one in ledger_of(b).conflicts()] == ["payload_mismatch"]
    assert pushed(a, b).lacking == 0


def test_what_follows_an_interruption(a, b):
    """What was committed stays; the next push goes on behind it, however the parcels lie over it."""
    for n in range(7):
        a.put(b"%d" % n)
    answers = []

    def breaking(question):
        answer = asker(b)(question)
        answers.append(question)
        if sum(isinstance(one, PushRecords) for one in answers) == 2:
            raise ConnectionError("gone")
        return answer

    told = Push(a, breaking, None, 2)
    told.run()
    assert told.incomplete == "gone"
    assert len(b.logs[a.domain]) == 4
    assert post(b, parcel_of(a, 1, 5)).status == 200
    assert len(b.logs[a.domain]) == 6
    assert pushed(a, b).records >= 1
    assert b.logs[a.domain] == a.logs[a.domain]


def test_only_the_domains_that_were_named(a, b):
    """Others are not sent."""
    a.put(b"x")
    other = Node("other")
    other.put(b"y")
    pulled(a, other)
    assert pushed(a, b, domains=[other.domain]).records == 1
    assert a.domain not in b.logs
    other.close()


# --- what is refused


@pytest.mark.parametrize("name", [name for name, lie in LIES.items() if "large" not in name])
def test_a_lie_that_is_pushed(name):
    """Every lie of a peer that is pulled from, pushed: refused, nothing of it kept but the evidence; then the truth is taken."""
    world = World(Node("a"), Node("b"), Node("c"))
    a, b, c = world
    a.put(b"one")
    a.put(b"two", tag=9)
    a.put(bytes(70_000))
    a.journal.append([Entry(0x80, b"four", PUBLISHED)])
    c.put(b"elsewhere")
    parcel = Parcel.from_bytes(parcel_of(a))
    heads = LIES[name].tell(world, GetHeads(), HttpResponse(200, body=encode_json([parcel.head]))).whole
    if heads.startswith(b"[{") and heads.endswith(b"}]") and heads.count(b'"domain"') == 1:
        heads = heads[1:-1]
    batch = LIES[name].tell(world, GetRecords(a.domain, 0, 9), HttpResponse(200, body=encode_batch(parcel.items))).whole
    answer = post(b, counted(heads) + count(0) + batch)
    assert answer.status in (400, 409), name
    said(answer)
    assert a.domain not in b.logs
    assert b.logs[b.domain] == []
    assert b.artifacts == {}
    if answer.status == 400:
        assert [one.kind for one in ledger_of(b).conflicts()] == [LIES[name].kind]
        assert len(ledger_of(b).quarantined()) == 1
    assert pushed(a, b).records == 4
    assert b.logs[a.domain] == a.logs[a.domain]
    for one in world:
        one.close()


def test_a_proof_that_does_not_lead_to_the_head(a, b):
    """Half a journal without the consistency proof between its tree and the head's is not taken."""
    for n in range(5):
        a.put(b"%d" % n)
    parcel = Parcel.from_bytes(parcel_of(a, 0, 3))
    assert parcel.bridge
    for bridge in ((), parcel.bridge[::-1], (*parcel.bridge, bytes(32))):
        assert post(b, parcel._replace(bridge=bridge).to_bytes()).status == 400
    assert a.domain not in b.logs
    assert post(b, parcel.to_bytes()).status == 200


@pytest.mark.parametrize("roles", [frozenset(), frozenset(Role) - FEDERATE])
def test_who_may_not_push(a, b, roles):
    """403 before anything is looked at, and no body is read."""
    a.put(LARGE)
    for request in (
        HttpRequest("POST", "/v1/records", {}, b"", roles),
        HttpRequest("PUT", f"/v1/artifacts/{'0001' + '00' * 32}", {}, b"", roles),
    ):
        refused = handler_of(b).body_max(request)
        assert isinstance(refused, HttpResponse)
        assert refused.status == 403
        said(refused)
    assert post(b, parcel_of(a), roles).status == 403
    assert asker(b, roles)(GetLacking()).status == 403
    told = pushed(a, b, roles=roles)
    assert (told.records, [one.outcome for one in told.domains_told]) == (0, ["refused"])
    assert PeerHandler(b).handle(HttpRequest("POST", "/v1/records", {}, parcel_of(a), FEDERATE)).status == 403
    assert list(b.logs) == [b.domain]


def test_a_domain_that_the_policy_does_not_take(a, b):
    """403, as a pull that names it would be refused."""
    a.put(b"x")
    policy = Policy({b.domain: Member("b", Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE})))})
    assert said(post(b, parcel_of(a), policy=policy))["rule"].startswith("the policy in force")
    assert a.domain not in b.logs


def test_a_gap(a, b):
    """409, which says where to begin."""
    for n in range(3):
        a.put(b"%d" % n)
    answer = post(b, parcel_of(a, 2))
    assert answer.status == 409
    assert said(answer)["next"] == "push from record 1 on"
    assert a.domain not in b.logs


def test_two_histories(a, b):
    """409 and no record, whether the other one is longer or shorter; a pull then shows the proof."""
    double = Node("a")
    a.put(b"both")
    double.put(b"both")
    a.put(b"left")
    for n in range(3):
        double.put(b"right %d" % n)
    assert pushed(a, b).records == 2
    before = b.logs[a.domain][:]
    for after in (0, 1, 2):
        answer = post(b, parcel_of(double, after))
        assert (answer.status, said(answer)["next"]) == (409, "pull from here: that shows the proof")
    told = pushed(double, b)
    assert [one.outcome for one in told.domains_told if one.domain == a.domain] == ["forked"]
    assert b.logs[a.domain] == before
    _, exchange = pulled(b, double)
    assert [one.domain for one in exchange.forked] == [a.domain]
    assert post(b, parcel_of(a)).status == 409  # frozen
    double.close()


def test_a_quota(a, b):
    """507, with nothing of the parcel; what came before stays."""
    a.put(b"x" * 100)
    assert post(b, parcel_of(a), quotas={a.domain: 200}).status == 200
    a.put(b"y" * 100)
    answer = post(b, parcel_of(a, 1), quotas={a.domain: 200})
    assert answer.status == 507
    said(answer)
    assert len(b.logs[a.domain]) == 1
    told = pushed(a, b, quotas={a.domain: 200})
    assert [one.outcome for one in told.domains_told] == ["full"]


def test_a_store_without_room(a, tmp_path: Path):
    """507 by the quota of the store itself."""
    a.put(b"x" * 1_000)
    with open_store(tmp_path / "B", create=True) as store:
        store.set_quota(500)
        assert post(store, parcel_of(a)).status == 507
        assert [one.id for one in store.domains()] == [store.domain]


@given(st.binary(max_size=400))
def test_other_bytes_as_a_parcel(data):
    """400, kept as evidence."""
    b = Node("b")
    assert post(b, data).status == 400
    assert [one.data for one in ledger_of(b).quarantined()] == [data]
    b.close()


@given(st.data())
def test_a_flipped_bit_of_a_parcel(data):
    """What is committed then is the truth, or nothing is."""
    a, b = Node("a"), Node("b")
    for n in range(4):
        a.put(b"%d" % n)
    whole = bytearray(parcel_of(a, 0, data.draw(st.sampled_from([3, 4]))))
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    post(b, bytes(whole))
    held = b.logs.get(a.domain, [])
    assert held == a.logs[a.domain][: len(held)]
    assert set(b.logs) <= {a.domain, b.domain}
    a.close()
    b.close()


# --- a peer that answers a push with lies


@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(200, body=b""),
        HttpResponse(200, body=b"[]"),
        HttpResponse(200, body=b"[" * 100_000),
        HttpResponse(200, body=b'{"domain":"' + b"00" * 32 + b'","before":0,"after":9999,"conflicts":0}'),
        HttpResponse(200, body=b'{"domain":"' + b"00" * 32 + b'","before":0,"after":0,"conflicts":0}'),
        HttpResponse(201),
        HttpResponse(404),
        HttpResponse(500, body=b"x"),
        HttpResponse(503),
    ],
    ids=lambda one: f"{one.status} {one.whole[:8]!r}",
)
def test_answers_to_a_push_that_are_none(a, answer):
    """It ends, says so, and counts nothing as taken."""
    a.put(b"x")
    asked = []

    def ask(question):
        asked.append(question)
        assert len(asked) < 10
        return HttpResponse(200, body=b"[]") if isinstance(question, GetHeads) else answer

    told = Push(a, ask)
    told.run()
    assert told.records == 0
    assert told.incomplete or told.domains_told[0].outcome in ("incomplete", "refused")


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_parcels_have_one_form(data, body):
    """Decoded and encoded again it is the same bytes, or it is refused."""
    node = Node("a")
    node.put(body)
    whole = parcel_of(node)
    assert Parcel.from_bytes(whole).to_bytes() == whole
    for bad in (data, whole + b"\0", whole[:-1]):
        with pytest.raises(CodecError):
            Parcel.from_bytes(bad)
    node.close()
    assert decode_json(whole[4 : 4 + int.from_bytes(whole[:4], "big")], HeadDocument)


def test_what_a_parcel_does_not_know_it_does_not_say(a, b):
    """The machine that takes it gets no answer to what it is not made of: it asks nobody else."""
    a.put(LARGE)
    parcel = Parcel.from_bytes(parcel_of(a))
    for question in (GetArtifact(a.domain, Wanted(1, Reference(1, bytes(32)), None)), GetConsistency(a.domain, 7, 9)):
        assert _told(parcel, question).status == 404
