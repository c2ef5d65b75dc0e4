"""Checking a whole store: every changed value is found under the right kind, and mended where something is whole."""

from __future__ import annotations

import io
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tidewarp.codec import INPUT, timed_body
from tidewarp.codec.artifacts import EMPTY, TAG_MANIFEST, Artifact
from tidewarp.codec.bodies import ERASE, KEYS, TOMBSTONE, EraseBody, KeysBody, TombstoneBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.receipts import Manifest, Receipt
from tidewarp.codec.references import Reference
from tidewarp.errors import Corrupt, InternalError, OperatorError
from tidewarp.store import MemoryStore, Settings, SqliteStore, check_file
from tidewarp.store.contract import Entry
from tidewarp.store.damage import MISSING_BYTES, FsckReport
from tidewarp.testing.contents import Site

SEED = bytes(range(32))
FLIPS = 12  # bits, one by one, all over the file
LARGE = bytes(range(250)) * 20


class Peer:
    """Has artifacts, and gives what it is asked for; or other bytes."""

    def __init__(self, *artifacts: Artifact, lie: bytes | None = None) -> None:
        self.held = {one.reference(): one.to_bytes() for one in artifacts}
        self.lie = lie

    def fetch(self, ref: Reference, size: int) -> io.BytesIO | None:
        if self.lie is not None:
            return io.BytesIO(self.lie)
        data = self.held.get(ref)
        return None if data is None else io.BytesIO(data)


PEER = Peer(Artifact(b"small"), Artifact(LARGE), Artifact(b"theirs"))


def place_of(kind: str, folder: Path) -> Path:
    return folder / ("A.tw" if kind == "file" else "A")


def fill(kind: str, folder: Path) -> None:
    """A store that has a row in every table."""
    place = place_of(kind, folder)
    if kind == "directory":
        place.mkdir()
    with SqliteStore(place, create=True, settings=Settings(None, 1_000), key=SEED) as store:
        small, large = store.put(b"small"), store.put(LARGE)
        store.tombstone(store.put(b"hidden"))
        edge = store.put_edge(Edge(DERIVES, (small,), (large,)))
        manifest = store.put(Manifest((small, large)).to_bytes(), tag=TAG_MANIFEST)
        receipt = Receipt(small, manifest, small, b"tidewarp-pel/1", large, (small,))
        store.put_receipt(receipt.to_bytes(), bytes(32), [large])
        store.point("latest", large)
        store.pin("mine", small)
        store.pin("then", store.snapshot())
        site = Site(bytes([9]) * 32)
        site.put(b"theirs")
        site.write(0x80, b"internal", flags=0)
        keys = KeysBody((public_key_of(bytes([8]) * 32),))
        site.write(KEYS, keys.to_bytes())
        site.give(store)
        inputs = [Entry(INPUT, timed_body(n, b"x"), 0, n + n % 5) for n in range(1_100)]
        store.journal.append(inputs, cursors={"source": b"7"})
        store.signed_head()
        assert edge != EMPTY


@pytest.fixture(scope="module", params=["file", "directory"])
def filled(request, tmp_path_factory):
    """The kind of a store that is whole, and its folder."""
    folder = tmp_path_factory.mktemp("filled")
    fill(request.param, folder)
    return request.param, folder


@pytest.fixture
def place(filled, tmp_path):
    """A copy of it."""
    kind, folder = filled
    shutil.copytree(folder, tmp_path / "copy")
    return place_of(kind, tmp_path / "copy")


def check(place: Path) -> FsckReport:
    with SqliteStore(place, read_only=True) as store:
        return store.fsck()


def repair(place: Path, *sources: Peer) -> FsckReport:
    with SqliteStore(place) as store:
        return store.fsck(True, sources)


def database(place: Path) -> Path:
    return place / "store.db" if place.is_dir() else place


def change(place: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(database(place), isolation_level=None)
    db.execute("PRAGMA cell_size_check = ON")
    try:
        assert db.execute(statement, values).rowcount == 1
    finally:
        db.close()


def kinds(report: FsckReport) -> set[str]:
    return {one.kind for one in report.problems}


def flipped(value: Any) -> Any:
    """The same value with one bit changed."""
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, str):
        return flipped(value.encode()).decode("latin-1")
    return bytes([value[0] ^ 1, *value[1:]]) if value else b"\1"


def test_a_whole_store_is_clean(place):
    report = check(place)
    assert report.clean
    assert report.problems == ()
    assert report.checked["records"] == 1_100 + 8 + 3
    assert report.checked["heads"] == 2
    assert {"event", "edge", "node", "receipt", "link", "span", "artifacts", "blocks", "pins"} <= report.checked.keys()
    assert min(report.checked.values()) > 0
    before = database(place).read_bytes()
    assert repair(place).problems == ()
    check_file(place)
    assert len(database(place).read_bytes()) == len(before)


CASES = [
    *[
        ("log", column, kinds)
        for column, kinds in {
            "kind": {"record"},
            "flags": {"record"},
            "hlc": {"record"},
            "prev": {"record"},
            "body": {"record"},
            "body_hash": {"record"},
            "hash": {"record"},
            "body_state": {"record"},
            "time": {"record"},
        }.items()
    ],
    ("domain", "head", {"domain"}),
    ("stub", "id", {"record", "stub"}),
    ("stub", "body_len", {"record"}),
    ("span", "level", {"span"}),
    ("span", "tick", {"span"}),
    ("span", "seq", {"span"}),
    ("artifact", "ref", {"artifact", "event"}),
    ("artifact", "tag", {"artifact"}),
    ("artifact", "size", {"artifact", "extent"}),
    ("artifact", "state", {"artifact"}),
    ("artifact", "bytes", {"artifact"}),
    ("extent", "block", {"block"}),
    ("extent", "offset", {"extent"}),
    ("extent", "length", {"extent"}),
    ("extent", "idx", {"none"}),
    ("extent", "artifact", {"artifact", "extent"}),
    *[("event", column, {"event"}) for column in ("artifact", "domain", "seq", "kind", "flags")],
    *[("edge", column, {"edge"}) for column in ("edge", "type", "slot")],
    *[("node", column, {"node"}) for column in ("node", "edge", "role", "position")],
    *[("receipt", column, {"receipt"}) for column in ("key", "domain", "seq", "receipt", "outputs_hash")],
    *[("link", column, {"link"}) for column in ("artifact", "source")],
    ("tree", "frontier", {"tree"}),
    ("tile", "root", {"tree"}),
    ("note", "key", {"head"}),
    ("note", "note", {"head"}),
    ("pin", "kind", {"pin"}),
    ("pin", "value", {"pin"}),
]


def rows_of(place: Path, table: str, column: str) -> list[tuple[Any, ...]]:
    """The primary keys of a table and the values of a column, of a few rows."""
    db = sqlite3.connect(database(place))
    try:
        names = [(row[1], row[5]) for row in db.execute(f"PRAGMA table_info({table})")]
        keys = [name for name, place_in_key in names if place_in_key] or ["rowid"]
        found = db.execute(f"SELECT {column}, {', '.join(keys)} FROM {table}").fetchall()
    finally:
        db.close()
    assert found
    chosen = found if len(found) < 8 else [*found[:2], found[len(found) // 2], *found[-2:]]
    return [(keys, row) for row in chosen]


@pytest.mark.parametrize(("table", "column", "expected"), CASES)
def test_every_changed_value_is_found(filled, tmp_path, table, column, expected):
    kind, folder = filled
    if (kind, table) == ("directory", "block"):
        pytest.skip("its blocks are files: test_store_bits flips those")
    for number, (keys, (value, *identity)) in enumerate(rows_of(place_of(kind, folder), table, column)):
        shutil.copytree(folder, tmp_path / str(number))
        place = place_of(kind, tmp_path / str(number))
        where = " AND ".join(f"{key} = ?" for key in keys)
        try:
            change(place, f"UPDATE {table} SET {column} = ? WHERE {where}", flipped(value), *identity)
        except sqlite3.IntegrityError:
            continue  # another row has that value, or the column takes no such one: SQLite itself refuses it
        try:
            report = check(place)
        except Corrupt:
            assert table in ("domain", "log", "meta"), "the file cannot even be opened"
            continue
        found = kinds(report)
        if table == "extent" and column == "idx":
            assert report.clean, "one piece is in order whatever its number"
            continue
        assert not report.clean, (table, column, identity)
        assert found & expected, (found, column, identity)
        if table not in ("log", "domain", "note", "pin", "artifact"):
            mended = repair(place, PEER)
            assert mended.clean or "record" in found or kinds(mended) & {"artifact"}, mended.problems
            if mended.clean:
                assert check(place).problems == ()


def dumped(place: Path) -> list[str]:
    db = sqlite3.connect(f"file:{database(place)}?mode=ro", uri=True)
    try:
        return [line for line in db.iterdump() if "ANALYZE" not in line]
    finally:
        db.close()


@pytest.mark.parametrize("part", range(FLIPS))
def test_a_bit_anywhere_in_the_file_is_found_or_means_nothing(filled, tmp_path, part):
    """Whatever bit it is, a check ends and says something; it says that all is well only where no row has changed."""
    kind, folder = filled
    shutil.copytree(folder, tmp_path / "copy")
    place = place_of(kind, tmp_path / "copy")
    data = bytearray(database(place).read_bytes())
    where = len(data) * part // FLIPS + 37 * part % 4_096
    before = dumped(place)
    data[where % len(data)] ^= 1 << part % 8
    database(place).write_bytes(data)
    try:
        report = check(place)
    except OperatorError:
        return  # it is not opened
    if report.clean:
        assert dumped(place) == before
        return
    try:
        mended = repair(place, PEER)
    except OperatorError:
        return  # a writer looks closer
    if mended.clean:
        assert check(place).clean


def test_the_size_of_a_domain_that_is_not_that_of_its_log(place):
    change(place, "UPDATE domain SET size = size - 1 WHERE no = 2")
    assert "domain" in kinds(check(place))


@pytest.mark.parametrize("source", [PEER, None])
def test_damaged_bytes_are_fetched(place, source):
    change(place, "UPDATE artifact SET bytes = ? WHERE bytes = ?", b"smalm", b"small")
    ref = Artifact(b"small").reference()
    with SqliteStore(place) as store:
        report = store.fsck(True, [source] if source else [])
        assert kinds(report) == {"artifact"}
        assert report.clean is (source is not None)
        if source is None:
            with pytest.raises(Corrupt):
                store.get(ref)
        else:
            assert store.get(ref) == b"small"
    assert check(place).clean is (source is not None)


def block_of(place: Path) -> Path:
    (block,) = [one for one in (place / "blobs").glob("??/*") if one.stat().st_size == len(LARGE)]
    return block


def break_block(place: Path, how: str) -> None:
    if place.is_dir():
        block = block_of(place)
        if how == "missing":
            block.unlink()
        else:
            block.write_bytes(LARGE[:-1] if how == "short" else flipped(LARGE))
    elif how == "missing":
        change(place, "DELETE FROM block WHERE bytes = ?", LARGE)
    else:
        change(
            place, "UPDATE block SET bytes = ? WHERE bytes = ?", LARGE[:-1] if how == "short" else flipped(LARGE), LARGE
        )


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_damaged_blocks_are_fetched(place, how):
    break_block(place, how)
    assert kinds(check(place)) == {"block"}
    assert not repair(place).clean
    report = repair(place, Peer(), PEER)
    assert kinds(report) == {"block"}
    assert report.clean
    with SqliteStore(place, read_only=True) as store:
        assert store.get(Artifact(LARGE).reference()) == LARGE
    assert check(place).problems == ()


@pytest.mark.parametrize("lie", [b"", b"\0", Artifact(b"other").to_bytes(), b"\0" + bytes([0xFF]) * 8, b"\2"])
def test_a_source_that_lies_is_not_believed(place, lie):
    break_block(place, "flipped")
    assert not repair(place, Peer(lie=lie)).clean
    assert repair(place, Peer(lie=lie), PEER).clean


def test_bytes_that_never_came_are_fetched_too(place):
    """They are a problem while a published record that counts shows them, and the rule names the command that helps."""
    ref = lack(place)
    (problem,) = check(place).problems
    assert (problem.kind, problem.where, problem.repaired) == (MISSING_BYTES, f"artifact {ref.hex()}", False)
    assert "fsck DIR --repair --from URL" in problem.rule
    assert repair(place, Peer(Artifact(b"hidden"))).problems == (problem,)
    report = repair(place, Peer(Artifact(b"absent"), Artifact(b"hidden")))
    assert report.problems == (problem._replace(repaired=True),)
    assert (report.clean, report.checked["fetched"]) == (True, 1)
    assert check(place).problems == ()
    with SqliteStore(place, read_only=True) as store:
        assert store.get(ref) == b"absent"


@pytest.mark.parametrize("kind", [TOMBSTONE, ERASE])
def test_bytes_that_are_hidden_or_erased_are_not_missing(place, kind):
    """Nobody waits for them."""
    ref = Artifact(b"absent").reference()
    body = TombstoneBody(ref) if kind == TOMBSTONE else EraseBody(ref, None, 0)
    lack(place, (kind, body.to_bytes()))
    assert check(place).problems == ()


def lack(place: Path, *more: tuple[int, bytes]) -> Reference:
    """Let the store at ``place`` take a record whose artifact does not come, and more records of its domain."""
    site = Site(bytes([7]) * 32)
    ref = site.put(b"absent", carry=False)
    for kind, body in more:
        site.write(kind, body)
    with SqliteStore(place) as store:
        site.give(store)
    return ref


def test_a_missing_index_entry_is_made_anew(place):
    db = sqlite3.connect(database(place), isolation_level=None)
    db.execute("PRAGMA writable_schema = ON")
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'edge_type'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    data = bytearray(database(place).read_bytes())
    start = (root - 1) * size
    assert data[start] == 10, "a leaf of an index"
    data[start + 3 : start + 5] = b"\0\0"  # no cells
    database(place).write_bytes(data)
    report = check(place)
    assert "page" in kinds(report)
    assert repair(place).clean
    assert check(place).problems == ()


def test_everything_that_follows_is_made_anew_at_once(place):
    db = sqlite3.connect(database(place), isolation_level=None)
    for table in ("event", "edge", "node", "receipt", "link", "span", "tree", "tile"):
        db.execute(f"DELETE FROM {table}")
    db.close()
    with SqliteStore(place, read_only=True) as store:
        state = store.state_hash()
    report = repair(place)
    assert kinds(report) == {"event", "edge", "node", "receipt", "link", "span"}
    assert report.clean
    assert check(place).problems == ()
    check_file(place)
    with SqliteStore(place) as store:
        assert store.state_hash() == state
        assert len(list(store.journal.read_time(500, 500))) > 0
        assert store.signed_head() is not None
        assert len(store.edges()) == 1


def test_records_are_never_changed(place):
    change(place, "UPDATE log SET body = x'00' WHERE id = (1 << 44 | 3)")
    db = sqlite3.connect(database(place), isolation_level=None)
    db.execute("DELETE FROM edge")
    before = db.execute("SELECT * FROM log").fetchall()
    db.close()
    report = repair(place, PEER)
    assert "record" in kinds(report)
    assert not report.clean
    db = sqlite3.connect(database(place))
    assert db.execute("SELECT * FROM log").fetchall() == before
    assert db.execute("SELECT * FROM edge").fetchall() == [], "not from records that may be wrong"
    db.close()


def test_each_bad_record_is_named(place):
    for seq in (2, 3, 700):
        change(place, f"UPDATE log SET body_hash = zeroblob(32) WHERE id = (1 << 44 | {seq})")
    change(place, "DELETE FROM log WHERE id = (1 << 44 | 900)")
    found = [one.where.split()[1] for one in check(place).problems if one.kind == "record"]
    assert found[:4] == ["2", "3", "700", "900"]


def test_what_nothing_names_is_removed(place):
    with SqliteStore(place) as store:
        name = store._blocks.write(b"a block of nobody")
    if place.is_dir():
        (place / "blobs" / "incoming" / "tmp1").write_bytes(b"half")
        (place / "blobs" / "notes").write_bytes(b"somebody's")
    report = check(place)
    assert kinds(report) == {"orphan"}
    assert len(report.problems) == (3 if place.is_dir() else 1)
    mended = repair(place)
    assert mended.clean is not place.is_dir(), "a file that is no block is for its owner to remove"
    with SqliteStore(place, read_only=True) as store:
        assert name not in store._blocks.names()
    if place.is_dir():
        assert (place / "blobs" / "notes").exists()
        assert list((place / "blobs" / "incoming").iterdir()) == []


def test_a_check_is_no_part_of_a_transaction_and_a_reader_repairs_nothing(place):
    with SqliteStore(place) as store, store.transaction(), pytest.raises(InternalError):
        store.fsck(True)
    with SqliteStore(place, read_only=True) as store, pytest.raises(OperatorError):
        store.fsck(True)


def test_a_repair_is_seen_by_the_open_store(place):
    with SqliteStore(place) as store:
        assert len(store.edges()) == 1
        db = sqlite3.connect(database(place), isolation_level=None)
        db.execute("DELETE FROM edge")
        db.close()
        assert store.edges() == []
        assert store.fsck(True).clean
        assert len(store.edges()) == 1


def test_a_store_in_memory_has_what_it_has():
    with MemoryStore() as store:
        store.put(b"a")
        assert store.fsck().clean
        assert store.fsck(True, [PEER]).checked == {"records": 1, "artifacts": 1}
