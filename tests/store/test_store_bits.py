"""Every bit of a small store, flipped: the check of the whole store finds it under the right kind, or opening it does.

The store has a row in every table and every kind of thing in them: artifacts in rows and in blocks, an edge, a receipt,
pins, a domain of somebody else, signed heads. By day each 211th flip is tried, and the first of each column; with
``HYPOTHESIS_PROFILE=nightly`` all of them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tampering import attacker, flipped_at, flips
from tidewarp.codec import INPUT, domain_of, timed_body
from tidewarp.codec.artifacts import TAG_PROGRAM, Artifact
from tidewarp.codec.batches import decode_batch, encode_batch
from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.receipts import Executor
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, Corrupt, OperatorError, PeerError
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore, Settings, SqliteStore
from tidewarp.store.audit import audit
from tidewarp.store.contract import Entry
from tidewarp.testing.contents import Site

pytestmark = pytest.mark.proof("a bit that is flipped anywhere in a store is found, its kind named")

SEED = bytes(range(32))
LARGE = bytes(range(250)) * 5
HASH = Program.of(1, [Node("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])
STEP = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 211
BLOCK_STEP = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 211
Record = Callable[[str, object], None]

FOUND = {
    "domain": {"domain", "record", "head"},
    "log": {"record"},
    "stub": {"record", "stub"},
    "span": {"span"},
    "artifact": {"artifact", "event", "extent"},
    "extent": {"extent", "block", "artifact"},
    "block": {"block"},
    "event": {"event"},
    "edge": {"edge"},
    "node": {"node"},
    "receipt": {"receipt"},
    "link": {"link"},
    "tree": {"tree"},
    "note": {"head"},
    "pin": {"pin"},
    "meta": set(),
}
"""By table the kinds of which one is named."""

MEANINGLESS = {("block", "no"), ("extent", "idx"), ("span", "last"), ("pin", "name")}
"""Numbers of rows and of single pieces, and what nothing in the file repeats: an end of a span, the name of a pin.

So are the threshold for new artifacts in rows, and the policy hash of a pinned snapshot. Whether such a change is found
or not, what the store says of its records and artifacts is the same.
"""


def fill(place: Path) -> None:
    """A row in every table."""
    with SqliteStore(place, create=True, settings=Settings(None, 1_000), key=SEED) as store:
        small, large = store.put(b"small"), store.put(LARGE, tag=7)
        store.tombstone(store.put(b"hidden"))
        store.put_edge(Edge(DERIVES, (small,), (large,)))
        program = store.put(HASH.to_bytes(), tag=TAG_PROGRAM)
        executor = Executor(public_key_of(SEED), "site")
        run(store, program, [small], registry=OperationRegistry.kernel(), executor=executor, seed=SEED)
        store.pin("mine", small)
        store.pin("then", store.snapshot())
        site = Site(bytes([9]) * 32)
        site.put(b"theirs")
        site.write(0x80, b"internal", flags=0)
        site.write(KEYS, KeysBody((public_key_of(bytes([8]) * 32),)).to_bytes())
        site.give(store)
        store.journal.append([Entry(INPUT, timed_body(3, b"x"), 0, 5), Entry(INPUT, timed_body(1, b"y"), 0, 2)])
        store.signed_head()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store that is one file."""
    made = tmp_path_factory.mktemp("filled") / "A.tw"
    fill(made)
    return made


class Flip(NamedTuple):
    """A value of a row that has one bit more or less."""

    table: str
    column: str
    row: tuple[Any, ...]
    value: Any


def all_flips(db: sqlite3.Connection, table: str) -> Iterator[Flip]:
    """Flip each STEP-th bit of a table, and the first of each column; each time say which, and put it back."""
    info = db.execute(f"PRAGMA table_info({table})").fetchall()
    keys = [name for _, name, _, _, _, number in info if number] or ["rowid"]
    rows = db.execute(f"SELECT {', '.join(keys)}, * FROM {table}").fetchall()
    where = " AND ".join(f"{key} = ?" for key in keys)
    number = 0
    for at, (_, column, kind, *_) in enumerate(info):
        place = "CAST(? AS TEXT)" if kind == "TEXT" else "?"
        is_first = True
        for row in rows:
            identity, value = row[: len(keys)], row[len(keys) + at]
            for flipped in flips(value):
                number += 1
                if number % STEP and not is_first:
                    continue
                try:
                    db.execute(f"UPDATE {table} SET {column} = {place} WHERE {where}", (flipped, *identity))
                except sqlite3.IntegrityError:  # the key of another row, or no value of this column
                    continue
                is_first = False
                yield Flip(table, column, identity, flipped)
                forms = [place if key == column else "?" for key in keys]
                now = [flipped if key == column else one for key, one in zip(keys, identity, strict=True)]
                back = " AND ".join(f"{key} = {form}" for key, form in zip(keys, forms, strict=True))
                done = db.execute(f"UPDATE {table} SET {column} = ? WHERE {back}", (value, *now))
                assert done.rowcount == 1


def found(place: Path) -> set[str] | None:
    """The kinds of what is wrong, empty if nothing is; None: it cannot be opened."""
    try:
        with SqliteStore(place, read_only=True) as store:
            return {one.kind for one in store.fsck().problems}
    except (Corrupt, OperatorError):
        return None


def is_meaningless(flip: Flip) -> bool:
    """Whether nothing in the file can tell, and nothing follows from it."""
    if (flip.table, flip.column) == ("meta", "value"):
        return flip.row == ("inline_max",)
    if (flip.table, flip.column, flip.row) == ("pin", "value", ("then",)):
        try:
            Snapshot.from_bytes(flip.value)
        except CodecError:
            return False
        return True
    return (flip.table, flip.column) in MEANINGLESS


def said(place: Path) -> tuple[bytes, tuple[object, ...]]:
    """The state of a store, and what a reading of all of it finds wrong."""
    with SqliteStore(place, read_only=True) as store:
        return store.state_hash("all"), audit(store).findings


@pytest.mark.parametrize("table", FOUND)
def test_every_bit_of_every_value_is_covered(filled: Path, tmp_path: Path, table: str, record_property: Record) -> None:
    """The check names the right kind; what it leaves means nothing."""
    place = Path(shutil.copy(filled, tmp_path / "A.tw"))
    shutil.copy(f"{filled}.key", f"{place}.key")
    truth = said(place)
    assert truth[1] == ()
    tried: Counter[str] = Counter()
    with attacker(place) as db:
        for flip in all_flips(db, table):
            kinds = found(place)
            tried[flip.column] += 1
            if kinds == set() and is_meaningless(flip):
                assert said(place) == truth, flip
            else:
                assert kinds is None or kinds & FOUND[table], (flip, kinds)
        columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
    assert tried.keys() == columns
    assert found(place) == set()
    record_property("trials", tried.total())


def test_no_table_is_left_out(filled: Path) -> None:
    """Those that are empty here, and the positions of sources, which nothing in the file repeats."""
    db = sqlite3.connect(filled)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        full = {name for name in tables if db.execute(f"SELECT count(*) FROM {name}").fetchone() != (0,)}
    finally:
        db.close()
    assert full == FOUND.keys()
    assert tables - full == {"earlier_note", "source_cursor", "gc_state", "orphan", "shard", "tile", "extension"}


def test_every_bit_of_a_block_is_covered(tmp_path: Path, record_property: Record) -> None:
    """In a directory blocks are files: the check finds it, and the artifact is not given; also one byte more or less."""
    place = tmp_path / "A"
    place.mkdir()
    fill(place)
    (block,) = (place / "blobs").glob("??/*")
    whole = block.read_bytes()
    assert whole == LARGE
    large = Artifact(LARGE, 7).reference()
    damaged = [flipped_at(whole, bit) for bit in range(0, 8 * len(whole), BLOCK_STEP)]
    for data in (*damaged, whole + b"\0", whole[:-1], b""):
        block.write_bytes(data)
        assert found(place) == {"block"}
        with SqliteStore(place, read_only=True) as store, pytest.raises(Corrupt, match=r"block [0-9a-f]{64}"):
            store.get(large)
    record_property("trials", len(damaged) + 3)
    block.write_bytes(whole)
    assert found(place) == set()


def test_every_bit_of_a_batch_and_its_head_is_refused(record_property: Record) -> None:
    """What is no batch is the codec's, what is another batch or head is the peer's; a store takes nothing of either."""
    site = Site(bytes([9]) * 32)
    site.put(b"theirs", 7)
    site.write(0x80, b"anything")
    site.put(b"", carry=False)
    batch, note, head = encode_batch(site.items), site.head().to_bytes(), site.head()
    refused: Counter[str] = Counter()
    with MemoryStore(SEED) as store:
        for form, whole in (("batch", batch), ("head", note)):
            for bit in range(8 * len(whole)):
                data = flipped_at(whole, bit)
                try:
                    items = decode_batch(data) if form == "batch" else site.items
                    other = head if form == "batch" else SignedHead.from_bytes(data)
                    other.verify([site.key])
                    store.adopt(site.domain, items, other, key=site.key)
                except (CodecError, PeerError) as error:
                    refused[f"{form} {'codec' if isinstance(error, CodecError) else 'peer'}"] += 1
                else:
                    pytest.fail(f"bit {bit} of the {form} was taken")
        assert len(store.domains()) == 1
        store.adopt(site.domain, decode_batch(batch), SignedHead.from_bytes(note), key=site.key)
    assert refused.keys() == {"batch codec", "batch peer", "head codec", "head peer"}
    assert refused.total() == 8 * len(batch + note)
    record_property("trials", refused.total())


FAR = Snapshot(bytes(32), ((domain_of(public_key_of(SEED)), (1 << 64) - 1, bytes(32)),))


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE pin SET kind = 2 WHERE name = 'mine'", "pin"),
        (f"UPDATE pin SET value = x'{FAR.to_bytes().hex()}' WHERE name = 'then'", "pin"),
        ("UPDATE tree SET no = 9 WHERE no = 1", "tree"),
        ("INSERT INTO note SELECT 9, key, note FROM note WHERE no = 1", "head"),
    ],
)
def test_what_only_some_bits_show(filled: Path, tmp_path: Path, statement: str, kind: str) -> None:
    """A kind that there is not; a place beyond 2^63; rows of a domain that there is not."""
    place = Path(shutil.copy(filled, tmp_path / "A.tw"))
    with attacker(place) as db:
        assert db.execute(statement).rowcount == 1
        assert found(place) == {kind}
