"""The states of a pull, one by one: the machine alone, no store is written to and nothing is sent."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import Node, asked_of, pulled

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.records import PUBLISHED, record_hash
from tidewarp.errors import InternalError, PeerError
from tidewarp.federation.exchange import Exchange
from tidewarp.federation.messages import (
    Absent,
    Commit,
    Conflicting,
    Fetched,
    Finish,
    GetArtifact,
    GetConsistency,
    GetHash,
    GetHeads,
    GetMissing,
    GetRecords,
    HttpResponse,
)
from tidewarp.federation.pull import PullMachine
from tidewarp.federation.search import CommonSearch
from tidewarp.federation.verify import Refusal
from tidewarp.store.contract import Entry

OPAQUE = 0x80


@pytest.fixture
def nodes():
    made = [Node("a"), Node("b"), Node("c")]
    yield made
    for one in made:
        one.close()


def kinds_of(instructions):
    return [type(one) for one in instructions]


def test_the_states_of_a_pull_in_their_order(nodes):
    """idle, heads, records, proof (the head lies beyond the batch), commit, records, bytes, commit, done."""
    a, b, _ = nodes
    for n in range(3):
        a.put(b"%d" % n)
    large = a.put(bytes(70_000))
    machine = PullMachine(b, limit=2)
    assert (machine.state, machine.pending) == ("idle", None)
    [heads] = machine.start()
    assert (machine.state, type(heads), heads.target) == ("heads", GetHeads, "/v1/heads")
    [records] = machine.on_heads(heads, asked_of(a, heads))
    assert machine.state == "records"
    assert (records.domain, records.after, records.limit) == (a.domain, 0, 2)
    [proof] = machine.on_records(records, asked_of(a, records))
    assert (machine.state, type(proof), proof.first, proof.second) == ("proof", GetConsistency, 2, 4)
    [commit] = machine.on_proof(proof, asked_of(a, proof))
    assert (machine.state, type(commit), commit.last_seq) == ("commit", Commit, 2)
    assert commit.bridge is not None
    [records] = machine.on_committed(commit)
    assert records is proof.ahead
    assert (machine.state, records.after) == ("records", 2)
    [wanted] = machine.on_records(records, asked_of(a, records))
    assert (machine.state, type(wanted), wanted.wanted.reference) == ("bytes", GetArtifact, large)
    source = io.BytesIO(asked_of(a, wanted).whole)
    [commit] = machine.on_bytes(wanted, Fetched(source, 70_009))
    assert (machine.state, commit.sources, commit.bridge) == ("commit", {large: source}, None)
    [finish] = machine.on_committed(commit)
    assert machine.state == "done"
    assert (finish.records, finish.incomplete) == (4, "")
    assert [one.outcome for one in finish.domains] == ["pulled"]
    assert finish.etag


def test_the_peer_makes_the_next_batch_while_this_one_is_looked_at(nodes):
    """Its question is sent before anything of the batch is kept; where bytes have to be fetched first, behind these."""
    a, b, _ = nodes
    for n in range(4):
        a.put(b"%d" % n)
    a.put(bytes(70_000))
    a.put(b"last")
    told = []

    def note(what, question):
        told.append((what, type(question), getattr(question, "after", None), len(b.logs.get(a.domain, ()))))

    def send(question):
        note("asked", question)
        return asked_of(a, question)

    finish, _ = pulled(b, a, send=send, send_ahead=lambda question: note("ahead", question), limit=2)
    assert finish.records == 6
    proof, records = GetConsistency, GetRecords
    assert told == [
        ("asked", GetHeads, b"", 0),
        ("asked", records, 0, 0),
        ("asked", proof, None, 0),
        ("ahead", records, 2, 0),
        ("asked", records, 2, 2),
        ("asked", proof, None, 2),
        ("ahead", records, 4, 2),
        ("asked", records, 4, 4),
        ("asked", GetArtifact, None, 4),
    ]
    c = nodes[2]
    c_told = []
    pulled(c, a, send_ahead=lambda question: c_told.append((question.after, len(c.logs.get(a.domain, ())))), limit=5)
    assert c_told == [(5, 0)], "its fifth record waits for an artifact of 70,000 bytes"


def test_an_answer_that_nobody_waits_for_is_ignored(nodes):
    """An answer that comes twice, or late, or to another request of the same form, changes nothing."""
    a, b, _ = nodes
    a.put(b"x")
    machine = PullMachine(b)
    [heads] = machine.start()
    answer = asked_of(a, heads)
    assert machine.on_heads(GetHeads(), answer) == []
    [records] = machine.on_heads(heads, answer)
    assert machine.on_heads(heads, answer) == []
    assert machine.on_error(heads, "late") == []
    batch = asked_of(a, records)
    [commit] = machine.on_records(records, batch)
    assert machine.on_records(records, batch) == []
    [finish] = machine.on_committed(commit)
    assert machine.on_committed(commit) == []
    assert machine.on_error(records, "late") == []
    assert finish.records == 1


def test_a_machine_is_started_once(nodes):
    """A second start is a bug of the caller."""
    machine = PullMachine(nodes[0])
    machine.start()
    with pytest.raises(InternalError):
        machine.start()


@pytest.mark.parametrize("limit", [0, 10_001])
def test_a_batch_has_its_bounds(nodes, limit):
    """A limit beyond what a peer answers is a bug of the caller."""
    with pytest.raises(InternalError):
        PullMachine(nodes[0], limit=limit)


@pytest.mark.parametrize("step", range(5))
def test_a_broken_connection_ends_the_pull_and_keeps_its_commits(nodes, step):
    """Wherever it breaks: the pull is incomplete, what was committed is there, and the next pull takes the rest."""
    a, b, _ = nodes
    for n in range(6):
        a.put(b"%d" % n)
    count = 0

    def send(question):
        nonlocal count
        count += 1
        if count > step + 1:
            raise ConnectionError("the line is cut")
        return asked_of(a, question)

    finish, _ = pulled(b, a, send=send, limit=2)
    assert "cut" in finish.incomplete
    assert not finish.etag
    held = len(b.logs.get(a.domain, []))
    assert held == finish.records == [0, 0, 2, 2, 4][step]
    assert b.logs.get(a.domain, []) == a.logs[a.domain][:held]
    again, _ = pulled(b, a, limit=2)
    assert (again.records, again.incomplete) == (6 - held, "")


def test_nothing_to_do_is_one_question(nodes):
    """A pull after a complete one asks for the heads alone, and is answered 304; what comes later is seen again."""
    a, b, _ = nodes
    a.put(b"x")
    pulled(b, a)
    asked = []

    def send(question):
        asked.append(question)
        return asked_of(a, question)

    finish, _ = pulled(b, a, send=send)
    assert (kinds_of(asked), finish.records, finish.bytes) == ([GetHeads], 0, 0)
    a.put(b"y")
    assert pulled(b, a)[0].records == 1


def test_the_question_is_behind_our_own_prefix_whatever_the_cursor_says(nodes):
    """A ledger that claims a later cursor does not make the pull skip a record."""
    a, b, _ = nodes
    for n in range(4):
        a.put(b"%d" % n)
    pulled(b, a, until=2)
    b.tables.execute("UPDATE federation_cursor SET seq = 4")
    finish, _ = pulled(b, a)
    assert finish.records == 2
    assert b.logs[a.domain] == a.logs[a.domain]


def test_bounds_of_a_pull(nodes):
    """`until` cuts a domain, `records_max` the pull; both say that something is left."""
    a, b, c = nodes
    for n in range(9):
        a.put(b"%d" % n)
    finish, _ = pulled(b, a, until=4, limit=3)
    assert (finish.records, finish.domains[0].outcome, finish.etag) == (4, "bounded", "")
    finish, _ = pulled(c, a, records_max=5, limit=3)
    assert (finish.records, finish.domains[0].outcome) == (5, "bounded")
    assert pulled(b, a)[0].records == 5
    assert pulled(c, b)[0].records == 4


def test_only_the_domains_that_were_named(nodes):
    """With `domains`, others are neither asked for nor counted as pulled."""
    a, b, c = nodes
    a.put(b"x")
    c.put(b"y")
    pulled(a, c)
    finish, _ = pulled(b, a, domains=[c.domain])
    assert [one.domain for one in finish.domains] == [c.domain]
    assert (finish.ignored, finish.etag) == (1, "")
    assert a.domain not in b.logs


def test_a_relay_serves_any_origin_it_holds(nodes):
    """B, which never speaks to A, has A's journal from C, byte for byte; and its bytes."""
    a, b, c = nodes
    reference = a.put(b"hello")
    large = a.put(bytes(90_000), tag=7)
    pulled(c, a)
    finish, _ = pulled(b, c)
    assert finish.records == 2
    assert b.logs[a.domain] == a.logs[a.domain]
    assert b.get(reference) == b"hello"
    assert b.artifacts[large] == Artifact(bytes(90_000), 7)


def test_a_relay_that_stopped_halfway_shows_no_more_than_a_head_covers(nodes):
    """A prefix that ends before a signed size is not offered: nobody could check it."""
    a, b, c = nodes
    for n in range(4):
        a.put(b"%d" % n)
    pulled(c, a, until=2)
    assert [one.domain for one in pulled(b, c)[0].domains] == []
    pulled(c, a)
    assert pulled(b, c)[0].records == 4


def test_what_is_not_published_stays_at_home(nodes):
    """Its header is relayed and checked, its body is withheld, its artifact refused; the chain goes on."""
    a, b, c = nodes
    a.put(b"open")
    secret = a.put(b"secret" * 20_000, publish=False)
    a.put(b"open too")
    pulled(b, a)
    pulled(c, b)
    for node in (b, c):
        assert [one.state for one in node.logs[a.domain]] == [0, 1, 0]
        assert secret not in node.artifacts
        assert node.frontier(a.domain).root() == a.frontier(a.domain).root()


def test_an_erased_body_travels_as_a_stub(nodes):
    """What was erased by law is a header; everything behind it verifies."""
    a, b, _ = nodes
    for n in range(3):
        a.put(b"%d" % n)
    a.erase(2)
    assert pulled(b, a)[0].records == 3
    assert [one.state for one in b.logs[a.domain]] == [0, 2, 0]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_bytes_that_are_not_to_be_had_leave_a_reason(nodes, status):
    """The record is taken, and the ledger says why its artifact is not here."""
    a, b, _ = nodes
    large = a.put(bytes(70_000))

    def send(question):
        return HttpResponse(status) if isinstance(question, GetArtifact) else asked_of(a, question)

    finish, exchange = pulled(b, a, send=send)
    assert finish.records == 1
    assert large not in b.artifacts
    assert exchange._ledger.absent() == {large: status}


def refusing(peer, status):
    """The answers of ``peer``, which gives no artifact."""
    return lambda question: HttpResponse(status) if isinstance(question, GetArtifact) else asked_of(peer, question)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_bytes_that_do_not_come_for_now_end_the_pull(nodes, status):
    """A record without its bytes would never be asked about again: it is not taken, and the next pull takes it."""
    a, b, _ = nodes
    a.put(b"before")
    large = a.put(bytes(70_000))
    finish, exchange = pulled(b, a, send=refusing(a, status), limit=1)
    assert (finish.records, finish.absent) == (1, 0)
    assert large.hex() in finish.incomplete
    assert f"answered {status}" in finish.incomplete
    assert [one.outcome for one in finish.domains] == ["incomplete"]
    assert (exchange._ledger.absent(), exchange.conflicts) == ({}, 0)
    assert pulled(b, a)[0].records == 1
    assert large in b.artifacts


@pytest.mark.parametrize("status", [403, 404, 410])
def test_bytes_that_were_not_to_be_had_are_asked_for_by_every_pull(nodes, status):
    """Until somebody has them: also of a peer that has no new record, and without a question for what it lacks."""
    a, b, c = nodes
    large = a.put(bytes(70_000))
    pulled(c, a)
    assert pulled(b, a, send=refusing(a, status))[0].absent == 1
    asked = []

    def send(question):
        asked.append(type(question))
        return asked_of(lacking, question)

    lacking = Node("lacking")
    assert pulled(b, lacking, send=send, name="lacking")[0].absent == 1
    assert asked[-1] is GetMissing
    finish, exchange = pulled(b, c, name="c")
    assert (finish.records, finish.absent, finish.incomplete) == (0, 0, "")
    assert b.artifacts[large].payload == bytes(70_000)
    assert exchange._ledger.absent() == {}
    lacking.close()


def test_bytes_that_came_by_another_way_are_not_asked_for(nodes):
    """The ledger forgets them."""
    a, b, _ = nodes
    a.put(bytes(70_000))
    pulled(b, a, send=refusing(a, 404))
    b.put(bytes(70_000))
    finish, exchange = pulled(b, a, send=refusing(a, 500))
    assert (finish.absent, finish.incomplete, exchange._ledger.absent()) == (0, "", {})


@pytest.mark.parametrize(
    ("answer", "conflicts", "incomplete"),
    [
        (HttpResponse(404), 0, False),
        (HttpResponse(503), 0, True),
        (HttpResponse(200, {}, b"nonsense"), 1, False),
    ],
)
def test_a_peer_that_does_not_say_what_it_lacks(nodes, answer, conflicts, incomplete):
    """What it has besides is taken; the bytes stay on record as lacking."""
    a, b, _ = nodes
    large = a.put(bytes(70_000))
    pulled(b, a, send=refusing(a, 404))
    a.put(b"more")
    finish, exchange = pulled(
        b, a, send=lambda question: answer if isinstance(question, GetMissing) else asked_of(a, question)
    )
    assert (finish.records, finish.absent, bool(finish.incomplete)) == (1, 1, incomplete)
    assert (exchange.conflicts, exchange._ledger.absent()) == (conflicts, {large: 404})


def test_other_bytes_for_those_that_were_lacking_are_refused(nodes):
    """They are a conflict, and nothing of them is kept."""
    a, b, _ = nodes
    large = a.put(bytes(70_000))
    pulled(b, a, send=refusing(a, 404))
    lie = HttpResponse(200, {}, bytes(70_009))
    finish, exchange = pulled(
        b, a, send=lambda question: lie if isinstance(question, GetArtifact) else asked_of(a, question)
    )
    assert (finish.absent, exchange.conflicts, large in b.artifacts) == (1, 1, False)
    assert pulled(b, a)[0].absent == 0


@pytest.mark.parametrize("status", [400, 403, 404, 410])
@pytest.mark.parametrize("dry", [False, True])
def test_a_server_that_knows_no_heads_is_no_peer(nodes, status, dry):
    """The pull ends, and says what to look at."""
    a, b, _ = nodes
    finish, exchange = pulled(b, a, send=lambda question: HttpResponse(status), dry=dry)
    assert (finish.records, finish.domains, exchange.conflicts) == (0, (), 0)
    assert f"answered {status}" in finish.incomplete
    assert "check the address" in finish.incomplete


def test_an_artifact_larger_than_we_take_is_left(nodes):
    """Of a record that declares too many bytes, they are not asked for."""
    a, b, _ = nodes
    large = a.put(bytes(70_000))
    finish, exchange = pulled(b, a, artifact_bytes_max=69_999)
    assert finish.records == 1
    assert exchange._ledger.absent() == {large: 413}


def test_a_commit_holds_no_more_bytes_than_it_may(nodes, monkeypatch):
    """Before the artifact that would be too many, the batch is cut; the rest is asked for again."""
    a, b, _ = nodes
    for n in range(5):
        a.put(bytes([n]) * 70_000)
    monkeypatch.setattr("tidewarp.federation.pull.artifacts._FETCHED_BYTES_MAX", 150_000)
    sizes = []
    adopt = b.adopt
    b.adopt = lambda domain, items, *rest, **named: (sizes.append(len(items)), adopt(domain, items, *rest, **named))
    assert pulled(b, a)[0].records == 5
    assert sizes == [2, 2, 1]
    assert b.logs[a.domain] == a.logs[a.domain]


def test_an_artifact_that_is_named_again_hides_no_other_from_that_bound(nodes, monkeypatch):
    """It counts where it is named first."""
    a, b, _ = nodes
    payloads = [bytes([n]) * 70_000 for n in range(4)]
    for payload in [*payloads, *reversed(payloads)]:
        a.put(payload)
    monkeypatch.setattr("tidewarp.federation.pull.artifacts._FETCHED_BYTES_MAX", 150_000)
    sizes = []
    adopt = b.adopt
    b.adopt = lambda *args, **named: (sizes.append(len(named["sources"])), adopt(*args, **named))
    assert pulled(b, a)[0].records == 8
    assert sizes == [2, 2]
    assert b.logs[a.domain] == a.logs[a.domain]


def test_what_is_held_is_not_fetched_again(nodes):
    """Bytes that came with another domain are not asked for."""
    a, b, _ = nodes
    a.put(bytes(70_000))
    b.put(bytes(70_000))
    machine = PullMachine(b)
    [heads] = machine.start()
    [records] = machine.on_heads(heads, asked_of(a, heads))
    assert kinds_of(machine.on_records(records, asked_of(a, records))) == [Commit]


def test_an_artifact_named_twice_is_fetched_once(nodes):
    """Two records, one name, one question."""
    a, b, _ = nodes
    large = a.put(bytes(70_000))
    a.put(bytes(70_000))
    machine = PullMachine(b)
    [heads] = machine.start()
    [records] = machine.on_heads(heads, asked_of(a, heads))
    [wanted] = machine.on_records(records, asked_of(a, records))
    assert wanted.wanted.reference == large
    [commit] = machine.on_bytes(wanted, Absent(404))
    assert isinstance(commit, Commit)


@pytest.mark.parametrize(
    ("status", "whole_pull"), [(429, True), (503, True), (500, True), (301, True), (404, False), (416, False)]
)
def test_an_answer_that_is_none(nodes, status, whole_pull):
    """A peer that is busy or broken ends the pull, one that does not know a domain only that domain; nothing is quarantined."""
    a, b, c = nodes
    a.put(b"x")
    c.put(b"y")
    pulled(a, c)
    first = min(a.domain, c.domain)

    def send(question):
        if isinstance(question, GetRecords) and question.domain == first:
            return HttpResponse(status)
        return asked_of(a, question)

    finish, exchange = pulled(b, a, send=send)
    assert bool(finish.incomplete) == whole_pull
    assert finish.records == (0 if whole_pull else 1)
    assert (finish.etag, exchange.conflicts) == ("", 0)


def test_a_refusal_ends_its_domain_and_the_next_goes_on(nodes):
    """One bad domain: counted, in quarantine with its bytes; the other one is pulled."""
    a, b, c = nodes
    a.put(b"x")
    c.put(b"y")
    pulled(a, c)

    def send(question):
        answer = asked_of(a, question)
        if isinstance(question, GetRecords) and question.domain == min(a.domain, c.domain):
            return answer._replace(body=answer.whole + b"\0")
        return answer

    finish, exchange = pulled(b, a, send=send)
    assert sorted(one.outcome for one in finish.domains) == ["pulled", "refused"]
    [kept] = exchange._ledger.quarantined()
    assert (kept.peer, kept.domain) == ("peer", min(a.domain, c.domain))
    assert kept.data.startswith(b"FB1\1")
    [conflict] = exchange._ledger.conflicts()
    assert (conflict.kind, conflict.times, conflict.state) == ("payload_mismatch", 1, "open")
    pulled(b, a, send=send)
    assert [one.times for one in exchange._ledger.conflicts()] == [2]


def test_what_came_of_a_domain_that_is_refused_is_let_go_at_once(nodes):
    """Temporary files do not pile up, domain by domain, until the pull ends."""
    a, b, c = nodes
    first = {one.domain: one.put(bytes(90_000) + one.key) for one in (a, c)}
    for one in (a, c):
        one.put(bytes(100_000) + one.key)
    pulled(a, c)
    spools, open_then = [], []

    def spool():
        spools.append(io.BytesIO())
        return spools[-1]

    def send(question):
        answer = asked_of(a, question)
        if isinstance(question, GetRecords):
            open_then.append(sum(not one.closed for one in spools))
        if isinstance(question, GetArtifact) and question.wanted.reference not in first.values():
            return answer._replace(body=b"another", size=None)
        return answer

    exchange = Exchange(b, "peer", send, spool, lambda: 0)
    assert [one.outcome for one in exchange.run().domains] == ["refused", "refused"]
    assert (open_then, len(spools)) == ([0, 0], 4)


def test_a_head_that_the_own_store_does_not_keep_ends_no_pull(nodes):
    """It is refused, and the other domains go on."""
    a, b, c = nodes
    a.put(b"first")
    pulled(c, a)
    c.put(b"of another domain")
    a.put(b"second")
    pulled(b, a, until=1)
    adopt = b.adopt

    def refusing(domain, items, *rest, **named):
        if not items:
            raise PeerError("65 heads", "at most 64", "let the root key sign")
        adopt(domain, items, *rest, **named)

    b.adopt = refusing
    finish, exchange = pulled(b, c)
    assert (exchange.conflicts, finish.incomplete) == (1, "")
    assert [one.kind for one in exchange._ledger.conflicts()] == ["bad_signature"]
    assert b.logs[c.domain] == c.logs[c.domain]


def test_what_the_own_store_refuses_is_a_refusal(nodes):
    """A store that does not believe the puller ends the domain, with nothing of the commit left."""
    a, b, _ = nodes
    a.put(b"x")
    machine = PullMachine(b)
    [heads] = machine.start()
    [records] = machine.on_heads(heads, asked_of(a, heads))
    [commit] = machine.on_records(records, asked_of(a, records))
    conflicting, finish = machine.on_refused(commit, Refusal("payload_mismatch", b"", "record 1", "no"))
    assert isinstance(conflicting, Conflicting)
    assert isinstance(finish, Finish)
    assert [one.outcome for one in finish.domains] == ["refused"]


def test_a_dry_pull_says_what_there_is_and_takes_nothing(nodes):
    """Sizes as shown; no record is asked for."""
    a, b, _ = nodes
    for n in range(3):
        a.put(b"%d" % n)
    finish, _ = pulled(b, a, dry=True)
    assert [(one.before, one.after, one.outcome) for one in finish.domains] == [(0, 3, "to pull")]
    assert a.domain not in b.logs
    pulled(b, a)
    finish, _ = pulled(b, a, dry=True)
    assert [one.outcome for one in finish.domains] == ["unchanged"]


def test_the_own_lost_tail_comes_first(nodes):
    """A node that was set back to an old copy takes its own tail back, before anything else."""
    a, b, c = nodes
    for n in range(5):
        a.put(b"%d" % n)
    c.put(b"z")
    pulled(b, a)
    pulled(b, c)
    whole = a.logs[a.domain]
    a.logs[a.domain] = whole[:2]
    a.artifacts.clear()
    finish, exchange = pulled(a, b)
    assert finish.domains[0].domain == a.domain
    assert a.logs[a.domain] == whole
    assert exchange.conflicts == 0


def test_a_key_of_a_keys_record_may_sign_later_heads(nodes):
    """A head that the second key alone signed is taken once an earlier head covers the record that names it."""
    a, b, c = nodes
    a.append([Entry(KEYS, KeysBody((c.key,)).to_bytes(), PUBLISHED)])
    pulled(b, a)
    a.put(b"x")
    a.seed, a.name = c.seed, c.name
    finish, exchange = pulled(b, a)
    assert (finish.records, exchange.conflicts) == (1, 0)
    fresh = Node("fresh")
    finish, exchange = pulled(fresh, a)
    assert (finish.records, exchange.conflicts) == (2, 0)
    fresh.close()


def test_an_origin_that_shows_less_than_it_signed_is_noted(nodes):
    """stale_head, and nothing is undone."""
    a, b, _ = nodes
    for n in range(3):
        a.put(b"%d" % n)
    pulled(b, a)
    del a.logs[a.domain][1:]
    finish, exchange = pulled(b, a)
    assert [one.kind for one in exchange._ledger.conflicts()] == ["stale_head"]
    assert len(b.logs[a.domain]) == 3
    assert finish.records == 0


def test_heads_come_in_pages_and_only_what_is_wanted_is_looked_at(nodes, monkeypatch):
    """A page at a time; a domain that is named is found behind any number of others, without reading these."""
    _, b, _ = nodes
    monkeypatch.setattr("tidewarp.federation.peer.DOMAINS_PER_PAGE", 2)
    hub, others = Node("hub"), [Node(f"n{n}") for n in range(7)]
    for one in others:
        one.put(one.name.encode())
        pulled(hub, one)
    asked = []

    def send(question):
        asked.append(question)
        return asked_of(hub, question)

    last = max(one.domain for one in others)
    pulled(b, hub, send=send, domains=[last])
    assert len([one for one in asked if isinstance(one, GetHeads)]) == 2
    assert set(b.logs) == {b.domain, last}
    asked.clear()
    finish, _ = pulled(b, hub, send=send)
    assert len([one for one in asked if isinstance(one, GetHeads)]) == 4
    assert finish.records == 6
    monkeypatch.setattr("tidewarp.federation.pull.heads.DOMAINS_MAX", 3)
    fresh = Node("fresh")
    finish, _ = pulled(fresh, hub, name="hub")
    assert (finish.records, finish.ignored) == (3, 1)  # of the second page one is taken, one passed by
    for one in (hub, fresh, *others):
        one.close()


@given(st.integers(0, 4000), st.integers(1, 4000))
def test_the_search_finds_the_last_common_record(common, beyond):
    """Wherever two journals part, in about 2 log2 of the distance."""
    search = CommonSearch(common + beyond)
    questions = 0
    while (probe := search.probe) is not None:
        assert 1 <= probe < common + beyond
        questions += 1
        search.tell(probe <= common)
    assert search.common == common
    assert questions <= 2 * beyond.bit_length() + 1


def test_the_search_ends_on_any_answers(nodes):
    """A peer that answers at random is asked a bounded number of times."""
    a, b, _ = nodes
    for n in range(50):
        a.append([Entry(OPAQUE, b"%d" % n, PUBLISHED)])
    pulled(b, a)
    a.logs[a.domain] = []
    for n in range(60):
        a.append([Entry(OPAQUE, b"other %d" % n, PUBLISHED)])
    asked = []

    def send(question):
        asked.append(question)
        answer = asked_of(a, question)
        if isinstance(question, GetHash) and len(asked) % 2:
            ours = b.hash_at(a.domain, question.seq) or b""
            return answer._replace(body=b'{"hash":"%s"}' % ours.hex().encode())
        return answer

    finish, exchange = pulled(b, a, send=send)
    assert len(asked) < 20
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert exchange.forked == []
    assert a.domain not in exchange._ledger.frozen()


def test_items_beyond_what_was_asked_for_are_refused(nodes):
    """A peer that sends more than the limit, or more than its head covers, is not believed."""
    a, b, _ = nodes
    for n in range(4):
        a.put(b"%d" % n)
    asked = GetRecords(a.domain, 0, 4)

    def send(question):
        return asked_of(a, asked if isinstance(question, GetRecords) else question)

    finish, _ = pulled(b, a, send=send, limit=2)
    assert [one.outcome for one in finish.domains] == ["refused"]


def test_batches_of_any_size_give_the_same(nodes):
    """One record at a time, or all at once."""
    a, b, c = nodes
    for n in range(7):
        a.put(b"%d" % n)
    pulled(b, a, limit=1)
    pulled(c, a, limit=10_000)
    assert b.logs[a.domain] == c.logs[a.domain] == a.logs[a.domain]
    assert b.heads == c.heads
    hashes = [record_hash(one.header.to_bytes()) for one in b.logs[a.domain]]
    assert b.extension("", 1, ()).execute("SELECT seq, hash FROM federation_cursor") == [(7, hashes[-1])]
