"""What a node remembers of its peers: bounded, durable with what it is about, and the same on every store."""

from __future__ import annotations

import os

import pytest
from node import Node, pulled

from tidewarp.codec.records import PUBLISHED
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.ledger import DDL, EXTENSION, VERSION
from tidewarp.federation.messages import Bridge, Conflicting, Finish
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.contract import Entry
from tidewarp.store.fold import conflict_id

OPAQUE = 0x80


@pytest.fixture(params=["fake", "memory", "sqlite"])
def store(request, tmp_path):
    made = {
        "fake": lambda: Node("b"),
        "memory": lambda: MemoryStore(seed=os.urandom(32)),
        "sqlite": lambda: open_store(tmp_path / "b.tw", create=True),
    }[request.param]()
    yield made
    made.close()


@pytest.fixture
def a():
    node = Node("a")
    node.journal.append([Entry(OPAQUE, b"%d" % n, PUBLISHED) for n in range(9)])
    yield node
    node.close()


def refusal(n, data=b"bytes"):
    return Conflicting(bytes(32), "payload_mismatch", b"%d" % n, "a rule", data)


def test_an_empty_ledger(store):
    """Nothing is known of anybody."""
    ledger = ledger_of(store)
    assert (ledger.etag("peer"), ledger.cursors("peer"), ledger.bridges(), ledger.frozen()) == ("", {}, {}, {})
    assert (ledger.conflicts(), ledger.quarantined(), ledger.dropped(), ledger.absent()) == ([], [], 0, {})


def test_the_bridge_of_a_pull_that_stopped_halfway(store, a):
    """It is there as long as the prefix ends before a signed size, and holds what shows that it belongs to the head."""
    pulled(store, a, until=4)
    head = a.signed_head()
    bridge = Bridge(4, tuple(a.consistency_proof(a.domain, 4, 9)), head)
    assert ledger_of(store).bridges() == {a.domain: bridge}
    assert store.signed_head(a.domain) is None
    pulled(store, a)
    assert ledger_of(store).bridges() == {}
    assert store.signed_head(a.domain) == head


def test_the_cursor_is_the_last_record_that_a_peer_gave(store, a):
    """By peer and origin, with the hash."""
    pulled(store, a, name="first", until=4)
    pulled(store, a, name="second", until=6)
    assert ledger_of(store).cursors("first") == {a.domain: (4, a.hash_at(a.domain, 4))}
    assert ledger_of(store).cursors("second") == {a.domain: (6, a.hash_at(a.domain, 6))}


def test_a_conflict_is_one_row_however_often_it_is_met(store):
    """Its id is that of all nodes; the first time and the number of times are kept."""
    ledger = ledger_of(store)
    for at_ms in (7, 8, 9):
        ledger.refused("peer", refusal(1), at_ms)
    [row] = ledger.conflicts()
    assert (row.id, row.first_seen, row.times) == (conflict_id("payload_mismatch", b"1"), 7, 3)
    assert (row.kind, row.rule, row.state, row.evidence) == ("payload_mismatch", "a rule", "open", None)
    assert [(one.peer, one.data) for one in ledger.quarantined()] == [("peer", b"bytes")] * 3


def test_what_a_peer_can_make_us_remember_has_bounds(store, monkeypatch):
    """Conflicts, the log and the quarantine: a liar fills none of them for ever."""
    monkeypatch.setattr("tidewarp.federation.ledger._CONFLICTS_MAX", 3)
    monkeypatch.setattr("tidewarp.federation.ledger._LOG_ROWS_MAX", 4)
    monkeypatch.setattr("tidewarp.federation.ledger.QUARANTINE_BYTES_MAX", 25)
    ledger = ledger_of(store)
    for n in range(8):
        ledger.refused("peer", refusal(n, bytes([n]) * 10), 0)
    ledger.refused("peer", refusal(9, bytes(100)), 0)
    tables = store.extension(EXTENSION, VERSION, DDL)
    assert len(ledger.conflicts()) == 3
    assert tables.execute("SELECT count(*) FROM federation_log") == [(4,)]
    assert [len(one.data) for one in ledger.quarantined()] == [25]
    assert ledger.dropped() == 80


def test_what_went_wrong_last_is_kept(store):
    """The reason, as far as there is room; the ETag only where nothing is left."""
    ledger = ledger_of(store)
    ledger.finished("peer", Finish((), 0, 0, "x" * 5_000, ""))
    ledger.finished("other", Finish((), 0, 0, "", '"tag"'))
    tables = store.extension(EXTENSION, VERSION, DDL)
    rows = tables.execute("SELECT peer, etag, last_error FROM federation_peer ORDER BY peer")
    assert [(peer, etag, len(str(error))) for peer, etag, error in rows] == [("other", '"tag"', 0), ("peer", "", 1_024)]
    assert (ledger.etag("peer"), ledger.etag("other")) == ("", '"tag"')
