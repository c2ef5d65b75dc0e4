"""Half of a batch came, under a head of the whole: who holds it shows it, and why that head covers it.

So the half is relayed, and its own site gets it back if it was put back to an older copy.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node import Node, pulled, seed_of
from receiving import asker, handler_of, pushed
from simulated import Disks, Federation

from tidewarp.cli import main
from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.heads import sign_head
from tidewarp.codec.records import PUBLISHED
from tidewarp.federation import shell
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import GetChanges, GetHeads, HttpRequest
from tidewarp.federation.shell import pull, serve, serve_site
from tidewarp.federation.shell.site import open_site
from tidewarp.store import open_store
from tidewarp.store.contract import Entry

OPAQUE = 0x80


def write(node, *words):
    node.journal.append([Entry(OPAQUE, word.encode(), PUBLISHED) for word in words])


def older(node, size):
    """The same site, put back to its first ``size`` records."""
    other = Node(node.name)
    other.logs = {node.domain: node.logs[node.domain][:size]}
    return other


@pytest.fixture
def sites():
    """One that has written nine records, and three that hold none of them."""
    made = [Node(name) for name in "abcd"]
    write(made[0], *"123456789")
    yield made
    for one in made:
        one.close()


def bridged(into, peer, **options):
    """A pull from a peer that shows what is bridged."""
    return pulled(into, peer, send=asker(peer), **options)


def heads(peer, headers):
    return json.loads(handler_of(peer).handle(HttpRequest("GET", "/v1/heads", headers)).whole)


# --- the truth


@pytest.mark.parametrize("limit", [1, 2, 5_000])
@pytest.mark.parametrize(("first", "held"), [(0, 1), (0, 8), (3, 4), (4, 6), (8, 9)])
def test_half_a_batch_is_relayed_and_comes_back(sites, first, held, limit):
    """From one to the next, in batches of any size; then to its own site, which goes on behind it. Nothing has forked."""
    a, b, c, d = sites
    if first:
        pulled(b, older(a, first))
    pulled(b, a, until=held)
    for site, peer in ((c, b), (d, c)):
        finish, exchange = bridged(site, peer, limit=limit)
        assert (finish.records, exchange.conflicts, [one.outcome for one in finish.domains]) == (held, 0, ["pulled"])
        assert site.logs[a.domain] == a.logs[a.domain][:held]
        assert finish.acked[a.domain] == held
    restored = older(a, first)
    finish, exchange = bridged(restored, d, limit=limit)
    assert (finish.records, exchange.conflicts) == (held - first, 0)
    assert restored.logs[a.domain] == a.logs[a.domain][:held]
    assert ledger_of(restored).own_size() == 0
    write(restored, "another life")
    for site in (b, c, d):
        finish, exchange = bridged(site, restored)
        assert (finish.records, exchange.conflicts) == (1, 0)
        assert ledger_of(site).bridges() == {}
        assert ledger_of(site).frozen() == {}
    restored.close()


def test_a_site_that_was_put_back_is_told_how_far_it_was(sites):
    """Not how far it has signed: what nobody has any more, nobody can give."""
    a, b, *_ = sites
    pulled(b, a, until=6)
    restored = older(a, 2)
    told = []

    def send(question):
        told.append(ledger_of(restored).own_size())
        return asker(b)(question)

    pulled(restored, b, send=send, limit=3)
    assert max(told) == 6
    restored.close()


def test_each_part_of_it_is_bridged_in_its_turn(sites):
    """A pull of it that stops anywhere leaves a bridge of its own, to the same head."""
    a, b, c, _ = sites
    pulled(b, a, until=7)
    for size in range(1, 8):
        bridged(c, b, until=size)
        bridge = ledger_of(c).bridges()[a.domain]
        assert (bridge.size, bridge.head) == (size, a.signed_head())
        assert list(bridge.hashes) == a.consistency_proof(a.domain, size, 9)
    finish, exchange = bridged(c, b, name="again")
    assert (finish.records, exchange.conflicts, [one.outcome for one in finish.domains]) == (0, 0, ["unchanged"])


def test_a_bridge_that_shows_nothing_more(sites):
    """Of records that a head ends with by now, that are not here any more, or that the site wrote itself."""
    a, b, c, d = sites
    now = GetHeads().headers
    pulled(b, a, until=5)
    shorter = older(a, 5)
    pulled(b, shorter, name="shorter")
    assert ledger_of(b).bridges()[a.domain].size == 5
    (row,) = heads(b, now)
    assert (row["size"], "bridge" in row) == (5, False)
    pulled(c, a, until=5)
    c.logs[a.domain] = c.logs[a.domain][:3]
    assert heads(c, now) == []
    assert pushed(c, d).records == 0
    pulled(d, a)
    restored = older(a, 0)
    bridged(restored, d, until=5)
    assert ledger_of(restored).bridges()[a.domain].size == 5
    restored.signed_heads = lambda domain=None: []  # nobody has signed yet
    assert heads(restored, now) == []
    for site in (shorter, restored):
        site.close()


@pytest.mark.parametrize("limit", [1, 2, 5_000])
@pytest.mark.parametrize("first", [0, 3])
def test_half_a_batch_is_pushed_on(sites, first, limit):
    """In parcels of any size, whose form is as ever: the proof in each leads to the head of the whole."""
    a, b, c, d = sites
    if first:
        pulled(b, older(a, first))
    pulled(b, a, until=7)
    for site, peer in ((b, c), (c, d)):
        told = pushed(site, peer, limit=limit)
        assert (told.records, told.conflicts, told.incomplete) == (7, 0, "")
        assert peer.logs[a.domain] == a.logs[a.domain][:7]
        assert ledger_of(peer).bridges() == ledger_of(b).bridges()
        assert pushed(site, peer, limit=limit).records == 0
    restored = older(a, first)
    assert pushed(d, restored, limit=limit).records == 7 - first
    restored.close()


def test_who_does_not_know_of_bridges_is_shown_what_is_signed(sites):
    """As before there were any: the last head of what is held, or nothing; and no document has a field that it lacks."""
    a, b, c, _ = sites
    fields = {"domain", "size", "head", "note", "status", "key", "origin", "notes"}
    pulled(b, older(a, 3))
    pulled(b, a, until=6)
    pulled(c, a, until=6)
    now, before = GetHeads().headers, {}
    assert [(one["size"], one.keys() - fields) for one in heads(b, before)] == [(3, set())]
    assert heads(c, before) == []
    for site in (b, c):
        (row,) = heads(site, now)
        assert (row["size"], row["head"]) == (6, a.hash_at(a.domain, 6).hex())
        assert row.keys() - fields == {"bridge"}
    assert [one.keys() for one in heads(a, now)] == [fields]
    assert [one.keys() for one in heads(b, {"tidewarp-accept": "anything"})] == [fields]


def test_who_follows_changes_learns_of_it(sites):
    """As of anything else that has come."""
    a, b, *_ = sites
    ask = asker(b)
    token = json.loads(ask(GetChanges()).whole)["token"]
    pulled(b, a, until=4)
    changed = json.loads(ask(GetChanges(token, 0)).whole)
    assert changed["domains"] == [a.domain.hex()]
    pulled(b, a, until=5)
    assert json.loads(ask(GetChanges(changed["token"], 0)).whole)["domains"] == [a.domain.hex()]


def test_a_fork_is_proved_against_who_holds_half(sites):
    """What vouches for the record of the peer is the head of then, and the proof that what the peer holds is in it."""
    a, b, c, _ = sites
    double = older(a, 5)
    write(double, *"xyz")
    pulled(b, a, until=7)
    pulled(c, double)
    finish, exchange = bridged(c, b)
    assert [one.outcome for one in finish.domains] == ["forked"]
    (forked,) = exchange.forked
    assert (forked.common, exchange._ledger.frozen()) == (5, {a.domain: 5})
    forked.proof.check()
    assert sorted(one.size for one in (forked.proof.one_voucher, forked.proof.other_voucher)) == [7, 8]
    double.close()


def test_heads_that_a_bridged_one_leans_on(sites):
    """The head is signed by a key that an earlier one makes known: that comes first, also through relays."""
    a, b, c, d = sites
    seed = seed_of("signer")
    a.journal.append([Entry(KEYS, KeysBody((public_key_of(seed),)).to_bytes(), PUBLISHED)])
    pulled(b, a)
    write(a, *"123456789")
    head = sign_head(a.domain, 19, a.root_at(a.domain, 19), a.hash_at(a.domain, 19), "signer", seed)
    a.heads[a.domain] = (*a.heads[a.domain], head)
    a.signed_heads = lambda domain=None: list(a.heads[a.domain])
    pulled(b, a, until=14)
    for site, peer in ((c, b), (d, c)):
        finish, exchange = bridged(site, peer, limit=3)
        assert (finish.records, exchange.conflicts) == (14, 0)
        assert [one.size for one in site.signed_heads(a.domain)] == [10]


def test_a_head_whose_signer_was_withdrawn_is_not_shown(sites):
    """A newer list does not name who signed what the bridge leads to: nobody would believe it."""
    a, b, *_ = sites
    first, second = seed_of("first"), seed_of("second")
    a.journal.append([Entry(KEYS, KeysBody((public_key_of(first),)).to_bytes(), PUBLISHED)])
    pulled(b, a)
    a.journal.append([Entry(KEYS, KeysBody((public_key_of(second),)).to_bytes(), PUBLISHED)])
    listed = a.signed_head()
    write(a, *"123")
    head = sign_head(a.domain, 14, a.root_at(a.domain, 14), a.hash_at(a.domain, 14), "first", first)
    a.signed_heads = lambda domain=None: [*b.heads[a.domain], head]
    pulled(b, a, until=12)
    assert heads(b, GetHeads().headers)[0]["size"] == 12
    b.adopt(a.domain, (), listed, key=a.key, sources={})
    assert heads(b, GetHeads().headers)[0]["size"] == 11


# --- lies


def note_of(node, size, **changes):
    """A note that the domain of ``node`` has signed, or somebody."""
    fields = {"domain": node.domain, "root": node.root_at(node.domain, size), "head": node.hash_at(node.domain, size)}
    fields |= changes
    seed = fields.pop("seed", node.seed)
    return sign_head(fields["domain"], size, fields["root"], fields["head"], node.name, seed).note()


def flipped(row, place):
    """One bit of a hash of the bridge is another."""
    hashes = [bytearray(base64.b64decode(one)) for one in row["bridge"]]
    hashes[place % len(hashes)][place % 32] ^= 1
    return [base64.b64encode(one).decode() for one in hashes]


HASH = base64.b64encode(bytes(32)).decode()
REFUSED, UNREADABLE = "refused", "none"
LIES = {
    "a bit of the first hash": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": flipped(row, 0)}),
    "a bit of the last hash": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": flipped(row, -1)}),
    "no hashes": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": []}),
    "a hash more": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": [*row["bridge"], HASH]}),
    "a hash less": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": row["bridge"][:-1]}),
    "65 hashes": (REFUSED, "payload_mismatch", lambda a, row: {"bridge": [HASH] * 65}),
    "66 hashes": (UNREADABLE, "payload_mismatch", lambda a, row: {"bridge": [HASH] * 66}),
    "an endless proof": (UNREADABLE, "payload_mismatch", lambda a, row: {"bridge": [HASH] * 80_000}),
    "hashes of another length": (UNREADABLE, "payload_mismatch", lambda a, row: {"bridge": ["AAAA"]}),
    "no list": (UNREADABLE, "payload_mismatch", lambda a, row: {"bridge": None}),
    "a head of another tree": (
        REFUSED,
        "payload_mismatch",
        lambda a, row: {"note": note_of(a, 9, root=bytes(32))},
    ),
    "a head of as many records": (REFUSED, "bad_signature", lambda a, row: {"note": note_of(a, 6)}),
    "a head of fewer records": (REFUSED, "bad_signature", lambda a, row: {"note": note_of(a, 5)}),
    "more records than the head has": (REFUSED, "bad_signature", lambda a, row: {"size": 10}),
    "a head of a stranger": (REFUSED, "bad_signature", lambda a, row: {"note": note_of(a, 9, seed=seed_of("x"))}),
    "a head of another domain": (
        REFUSED,
        "bad_signature",
        lambda a, row: {"note": note_of(a, 9, domain=bytes(32))},
    ),
    "no head": (REFUSED, "bad_signature", lambda a, row: {"note": "nobody"}),
    "a bridge of another size": (REFUSED, "payload_mismatch", lambda a, row: {"size": 5}),
    "another key": (REFUSED, "bad_signature", lambda a, row: {"key": public_key_of(seed_of("x")).hex()}),
}


def lied_to(into, a, peer, change, **options):
    ask = asker(peer)

    def send(question):
        answer = ask(question)
        if not isinstance(question, GetHeads):
            return answer
        rows = json.loads(answer.whole)
        for row in rows:
            if row["domain"] == a.domain.hex():
                row.update(change(a, row))
        return answer._replace(body=json.dumps(rows).encode())

    return pulled(into, peer, send=send, **options)


@pytest.mark.parametrize("limit", [2, 5_000])
@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_and_the_truth_taken_afterwards(sites, name, limit):
    """Nothing is committed under it, nothing acknowledged by it, and the next peer is asked as if nothing had been."""
    a, b, c, _ = sites
    outcome, kind, change = LIES[name]
    pulled(b, a, until=6)
    finish, exchange = lied_to(c, a, b, change, limit=limit)
    assert [one.outcome for one in finish.domains] == ([] if outcome == UNREADABLE else [outcome])
    assert (a.domain in c.logs, ledger_of(c).bridges(), finish.acked.get(a.domain, 0)) == (False, {}, 0)
    assert [one.kind for one in exchange._ledger.conflicts()] == [kind]
    assert bridged(c, b, limit=limit)[0].records == 6


@pytest.mark.parametrize(
    "name", [one for one in LIES if LIES[one][0] == REFUSED and one != "more records than the head has"]
)
def test_a_lie_about_what_is_here_acknowledges_nothing(sites, name):
    """Also where nothing would be taken: what a peer holds is believed if the head that it shows covers that."""
    a, b, c, _ = sites
    pulled(b, a, until=6)
    pulled(c, a, name="a")
    finish, exchange = lied_to(c, a, b, LIES[name][2])
    assert a.domain not in exchange._ledger.acked("peer")
    assert exchange.conflicts == 1
    assert finish.records == 0


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 10_000), st.integers(0, 255), st.sampled_from([1, 3, 5_000]))
def test_any_flipped_bit_of_a_bridge(size, held, bit, limit):
    """Whatever half, of however many records."""
    a, b, c = (Node(name) for name in "abc")
    write(a, *map(str, range(size)))
    pulled(b, a, until=1 + held % (size - 1))

    def change(a, row):
        hashes = [bytearray(base64.b64decode(one)) for one in row["bridge"]]
        hashes[held % len(hashes)][bit // 8] ^= 1 << bit % 8
        return {"bridge": [base64.b64encode(one).decode() for one in hashes]}

    finish, exchange = lied_to(c, a, b, change, limit=limit)
    assert exchange.conflicts == 1
    for bridge in ledger_of(c).bridges().values():  # of a first part, whose proof has no use for that bit
        assert (finish.records, list(bridge.hashes)) == (bridge.size, a.consistency_proof(a.domain, bridge.size, size))
    assert finish.records + bridged(c, b, limit=limit)[0].records == 1 + held % (size - 1)
    for one in (a, b, c):
        one.close()


# --- real stores


def test_half_a_batch_goes_on_by_a_command(sites, tmp_path, monkeypatch, capsys):
    """``tidewarp peer push`` knows of it too."""
    a, _, c, _ = sites
    with open_store(tmp_path / "B.tw", create=True) as half:
        pulled(half, a, until=6)

    wire = SimpleNamespace(refusal=None, has_answered=True, ask=asker(c))
    monkeypatch.setattr(shell, "PeerClient", lambda *_, **__: contextlib.nullcontext(wire))
    assert main(["peer", "push", str(tmp_path / "B.tw"), "http://127.0.0.1:9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 6
    assert c.logs[a.domain] == a.logs[a.domain][:6]


def test_half_a_batch_over_http(tmp_path):
    """A site that is served shows what it holds of it, at once, and no site needs to begin anew."""
    place = tmp_path / "B"
    place.mkdir()
    with open_store(tmp_path / "A.tw", create=True) as origin, open_store(place, create=True) as half:
        origin.signed_head()
        for n in range(9):
            origin.put(b"%d" % n)
        with serve(origin) as server:
            assert pull(half, server.url, until=6).records == 6
        domain = origin.domain
    with (
        open_site(place) as site,
        open_store(tmp_path / "C.tw", create=True) as relay,
        serve_site(site, place) as server,
    ):
        assert pull(relay, server.url).records == 6
        assert ledger_of(relay).bridges() == ledger_of(site.store).bridges()
        assert {one.id: one.size for one in relay.domains()}[domain] == 6
        assert pull(relay, server.url).records == 0


@pytest.mark.parametrize("are_files", [(False,) * 4, (True,) * 4], ids=["memory", "files"])
@pytest.mark.parametrize("limit", [1, 5_000])
def test_a_backup_that_is_put_back_after_a_cut_batch(tmp_path, are_files, limit):
    """It was taken before the batch, of which two records came through; a relay has them, and the domain does not fork."""
    with Disks(tmp_path) as disks:
        sites = Federation(disks.take(are_files))
        origin, first, relay, _ = sites.nodes
        sites.exchange(first, origin)
        sites.back_up(origin, 0, 0, 0)
        for n in range(4):
            sites.act("put", origin, n, 0, 0, 0)
        before = first.store.journal.size
        sites.exchange(first, origin, limit=2, network=19)  # the fourth question is lost
        held = {one.id: one.size for one in first.store.domains()}[origin.domain]
        assert 1 < held < len(origin.known)
        assert first.store.journal.size == before
        sites.exchange(relay, first, limit=limit)
        lost = origin.known[:held]
        sites.restore(origin, 0, 0, 0)
        assert len(origin.known) < held
        sites.exchange(origin, relay, limit=limit)
        sites.note(origin)
        assert origin.known == lost
        sites.forks.clear()  # it has not
        for n, node in itertools.product(range(3), sites.nodes):
            sites.act("put", node, n, 1, 0, 0)
        sites.check_agreement()
        assert [node.site.ledger.frozen() for node in sites.nodes] == [{}] * 4
