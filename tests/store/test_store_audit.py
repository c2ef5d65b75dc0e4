"""The audit of a store finds what is not what it says, and nothing else."""

from __future__ import annotations

import io
import sqlite3

import pytest

from tampering import attacker, flipped_at
from tidewarp.codec import INPUT, timed_body
from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_RECEIPT, Artifact
from tidewarp.codec.bodies import ARTIFACT, ERASE, POLICY, TOMBSTONE, ArtifactBody, EraseBody, PolicyBody, TombstoneBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.merkle import verify_inclusion
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor, Receipt, Signature
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, PeerError
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore, open_store
from tidewarp.store.audit import audit
from tidewarp.store.contract import Entry
from tidewarp.testing.contents import Site

SEED = bytes(range(32))
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])


def executed(store, data=b"hello"):
    """A run in ``store``."""
    program, ref = store.put(HASH.to_bytes(), tag=TAG_PROGRAM), store.put(data)
    return run(
        store,
        program,
        [ref],
        registry=OperationRegistry.kernel(),
        executor=Executor(public_key_of(SEED), "site"),
        seed=SEED,
    )


def rules(store):
    return [finding.rule for finding in audit(store).findings]


@pytest.fixture
def store():
    return MemoryStore(SEED)


def test_a_sound_store_has_no_findings(store):
    """Of artifacts, edges, tombstones, receipts and a signed head."""
    one, two = store.put(b"one"), store.put(b"two", tag=7)
    store.put_edge(Edge(DERIVES, (one,), (two,)))
    store.tombstone(two)
    store.put(b"internal", publish=False)
    executed(store)
    store.signed_head()
    found = audit(store)
    assert found.findings == ()
    assert (found.records, found.receipts) == (store.journal.size, 1)
    assert found.artifacts == len(store.view(scope="all").visible()) + 1


def test_published_bytes_that_never_came(store):
    """They are named with the command that helps, until they are here; what is hidden is not missed."""
    site = Site(bytes([9]) * 32)
    ref, hidden, erased = (site.put(data, carry=False) for data in (b"absent", b"hidden", b"erased"))
    site.write(TOMBSTONE, TombstoneBody(hidden).to_bytes())
    site.write(ERASE, EraseBody(erased, None, 0).to_bytes())
    site.give(store)
    (finding,) = audit(store).findings
    assert finding.where == f"artifact {ref.hex()}"
    assert "missing bytes" in finding.rule
    assert "tidewarp store fsck DIR --repair --from URL" in finding.action
    with pytest.raises(PeerError):
        store.supply(ref, io.BytesIO(Artifact(b"other").to_bytes()))
    store.supply(ref, io.BytesIO(Artifact(b"absent").to_bytes()))
    assert audit(store).findings == ()
    with pytest.raises(Erased):
        store.supply(erased, io.BytesIO(Artifact(b"erased").to_bytes()))
    with pytest.raises(NotFound):
        store.supply(Artifact(b"nobody").reference(), io.BytesIO(Artifact(b"nobody").to_bytes()))


def test_a_receipt_under_another_computation(store):
    """The key is made anew from what the receipt names, and never taken from its record."""
    done = executed(store)
    store.put_receipt(store.get(done.receipt), bytes(32), done.outputs)
    assert rules(store) == []  # the same receipt: its first record stands
    timed = Receipt.from_bytes(store.get(done.receipt))._replace(started=1, completed=1, signature=None)
    store.put_receipt(timed.to_bytes(), bytes(32), done.outputs)
    (rule,) = rules(store)
    assert done.key.hex() in rule


def test_a_receipt_with_other_outputs_than_its_record(store):
    """Neither an output that it does not name, nor an order of two that is not that of its result."""
    done = executed(store)
    timed = Receipt.from_bytes(store.get(done.receipt))._replace(started=1, completed=1, signature=None)
    wrong = store.put(b"wrong")
    store.put_receipt(timed.to_bytes(), done.key, [wrong])
    assert "its outputs are not those of its record" in rules(store)


def test_a_signature_that_is_not_over_the_receipt(store):
    """One bit of it is enough."""
    done = executed(store)
    receipt = Receipt.from_bytes(store.get(done.receipt))
    key, value = receipt.signature
    forged = receipt._replace(signature=Signature(key, bytes([value[0] ^ 1]) + value[1:]))
    store.put_receipt(forged.to_bytes(), done.key, done.outputs)
    (rule,) = rules(store)
    assert "signature" in rule


def test_what_a_receipt_names_and_is_not_here_is_not_judged(store):
    """It was not pulled yet, or is withheld: that is no fault of who holds the receipt."""
    done = executed(store)
    other = MemoryStore(bytes(32))
    other.put_receipt(store.get(done.receipt), done.key, done.outputs)
    found = audit(other)
    assert (found.receipts, found.findings) == (1, ())


def test_an_artifact_that_is_no_receipt(store):
    """The record says that it is one."""
    store.put(b"no receipt", tag=TAG_RECEIPT)
    assert rules(store) == []
    store.put_receipt(b"no receipt either", bytes(32), [])
    assert len(rules(store)) == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE artifact SET bytes = zeroblob(5) WHERE size = 5", ""),
        ("UPDATE artifact SET bytes = x'68656c6c70' WHERE size = 5", ""),
        ("UPDATE artifact SET tag = 9 WHERE size = 5", ""),
        ("UPDATE log SET body = zeroblob(length(body)) WHERE id = (SELECT max(id) FROM log) - 1", ""),
        ("UPDATE log SET kind = 3 WHERE id = (SELECT max(id) FROM log) - 1", ""),
        ("DELETE FROM log WHERE id = (SELECT max(id) FROM log) - 1", "missing"),
        ("UPDATE note SET note = replace(note, 'head ', 'head')", ""),
        ("UPDATE note SET note = replace(note, '— tidewarp', '— nobody')", ""),
    ],
)
def test_a_change_in_the_tables_is_found(tmp_path, statement, said):
    """Whichever it is, the audit has a finding, or the store does not even open; it never passes."""
    path = tmp_path / "a.tw"
    with open_store(path, create=True) as store:
        for data in (b"hello", b"longer", b"longest"):
            store.put(data)
        store.signed_head()
        assert audit(store).findings == ()
    db = sqlite3.connect(path, isolation_level=None)
    assert db.execute(statement).rowcount == 1
    db.close()
    try:
        with open_store(path, read_only=True) as store:
            found = rules(store)
    except (Corrupt, CodecError, PeerError) as error:
        found = [error.rule]
    assert found
    assert said in found[0]


def every_sort_of_artifact(path):
    """References by what became of the artifact, in a store at ``path``, where each is a row whose name can be damaged."""
    with open_store(path, create=True, inline_max=1_000, key=SEED) as store:
        made = {
            "published": store.put(b"published"),
            "large": store.put(bytes(2_000), tag=7),
            "own": store.put(b"own", publish=False),
            "hidden": store.put(b"hidden"),
            "erased": store.put(b"erased"),
        }
        made["edge"] = store.put_edge(Edge(DERIVES, (made["published"],), (made["large"],)))
        made["receipt"] = executed(store).receipt
        store.tombstone(made["hidden"])
        store.erase(made["erased"])
        site = Site(bytes([9]) * 32)
        made["others'"] = site.put(b"theirs")
        site.give(store)
        assert audit(store).findings == ()
    return made


def test_a_bit_of_a_name_is_found_whatever_the_artifact_is(tmp_path):
    """Also of one that nobody sees: its record says that there is a row of this name, and there is none."""
    path = tmp_path / "a.tw"
    with attacker(path) as db:
        for sort, ref in every_sort_of_artifact(path).items():
            for bit in (0, 100, 271):
                name = flipped_at(ref.to_bytes(), bit)
                renamed = db.execute("UPDATE artifact SET ref = ? WHERE ref = ?", (name, ref.to_bytes()))
                assert renamed.rowcount == 1
                with open_store(path, read_only=True) as store:
                    found = {one.where: one for one in audit(store).findings}
                told = found[f"artifact {ref.hex()}"]
                assert "a record adds it, and no table here leads to it" in told.rule, (sort, bit)
                assert "tidewarp store fsck DIR --repair" in told.action
                db.execute("UPDATE artifact SET ref = ? WHERE ref = ?", (ref.to_bytes(), name))
    with open_store(path, read_only=True) as store:
        assert audit(store).findings == ()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_no_record_adds_is_not_missed(tmp_path, kind):
    """A policy that was named and never put; a name that is no SHA-256, under which nothing is taken."""
    other = Reference(SHA256 + 1, b"another hash")
    site = Site(bytes([9]) * 32)
    site.write(POLICY, PolicyBody(Artifact(b"nobody put it").reference()).to_bytes())
    site.write(ARTIFACT, ArtifactBody(other, None, 5).to_bytes())
    with MemoryStore(SEED) if kind == "memory" else open_store(tmp_path / "a.tw", create=True) as store:
        site.give(store)
        assert audit(store).findings == ()


def test_blocks_that_are_whole_in_an_artifact_that_is_not(tmp_path):
    """Each block has its name; that they are this artifact's, its own name tells."""
    path = tmp_path / "a.tw"
    with open_store(path, create=True, inline_max=4) as store:
        refs = [store.put(data) for data in (b"hello", b"world")]
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE extent SET artifact = artifact + 10")
    assert db.execute("UPDATE extent SET artifact = 13 - artifact").rowcount == 2
    db.close()
    with open_store(path, read_only=True) as store:
        assert sorted(finding.where for finding in audit(store).findings) == sorted(
            f"artifact {ref.hex()}" for ref in refs
        )


def test_a_signed_head_about_other_records(tmp_path):
    """Of the right size and with a good signature: its root is made anew from the records."""
    path = tmp_path / "a.tw"
    key = tmp_path / "a.tw.key"
    with open_store(path, create=True, key=SEED) as store:
        store.put(b"hello")
        domain = store.domain
        store.signed_head()
    with open_store(tmp_path / "b.tw", create=True, key=SEED) as other:
        other.put(b"HELLO")
        note = other.signed_head().note()
    assert key.read_bytes() == SEED
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE note SET note = ?", (note,))
    db.close()
    with open_store(path, read_only=True) as store:
        (finding,) = audit(store).findings
    assert "other records" in finding.rule
    assert domain.hex() in finding.where


def test_a_history_has_no_limit(tmp_path):
    """More records than others allow a history to have are appended, read from any place, proved and audited."""
    size = 60_000
    with open_store(tmp_path / "a.tw", create=True, key=SEED) as store:
        for first in range(0, size, 10_000):
            store.journal.append(
                [Entry(INPUT, timed_body(tick, b""), last_tick=tick) for tick in range(first, first + 10_000)]
            )
        assert [one.header.seq for one in store.journal.read(size - 2)] == [size - 1, size]
        (last,) = store.journal.read_time(size - 1, size - 1)
        head = store.signed_head()
        proof = store.inclusion_proof(store.domain, size, size)
        verify_inclusion(head.head, size - 1, size, proof, head.root)
        assert (last.header.seq, head.size) == (size, size)
        assert audit(store) == (size, 0, 0, ())


@pytest.mark.parametrize("kind", [ARTIFACT, POLICY, TOMBSTONE])
def test_an_internal_record_of_no_form_says_nothing_to_an_audit(kind, tmp_path):
    """As to a check: what its writer told nobody means nothing to anybody."""
    with open_store(tmp_path / "a", create=True) as store:
        store.journal.append([Entry(kind, b"no body of its kind")])
        store.put(b"more")
        found = audit(store)
    assert (found.records, found.findings) == (2, ())
