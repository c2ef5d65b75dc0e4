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
from tidewarp.codec.bodies import ARTIFACT, ERASE, KEYS, TOMBSTONE, EraseBody, KeysBody, TombstoneBody
from tidewarp.codec.computations import Manifest
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.references import Reference
from tidewarp.errors import Corrupt, Erased, InternalError, OperatorError, Withheld
from tidewarp.store import MemoryStore, Settings, SqliteStore, check_file
from tidewarp.store.audit import audit
from tidewarp.store.contract import Entry
from tidewarp.store.damage import MISSING_BYTES, FsckReport
from tidewarp.store.schema import QUARANTINED
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


@pytest.mark.parametrize(("no", "size"), [(1, 0), (1, 1), (2, 0), (9, 0)])
def test_an_earlier_head_is_about_the_records_that_it_covers(place, no, size):
    """It stands before the last one, under its own size, with its own domain."""
    with SqliteStore(place, read_only=True) as store:
        (note,) = [one.note for one in store.domains() if one.id == store.domain]
    change(place, "INSERT INTO earlier_note VALUES (?, ?, ?)", no, size or SignedHead.parse(note).size, note)
    assert kinds(check(place)) == {"head"}


TOO_MANY = {
    "event": "SELECT artifact, domain, 1000000, kind, flags FROM event LIMIT 1",
    "edge": "SELECT no, 9, x'00' FROM artifact WHERE no NOT IN (SELECT edge FROM edge) LIMIT 1",
    "node": "SELECT node, edge, role, 77 FROM node LIMIT 1",
    "receipt": "SELECT key, domain, 1000000, receipt, outputs_hash FROM receipt LIMIT 1",
}


@pytest.mark.parametrize("table", TOO_MANY)
def test_rows_too_many_and_too_few(place, table):
    """Of a table that follows from the records: one that no record says, beside all those that are right; and none at all."""
    before = dumped(place)
    for statement in (f"INSERT INTO {table} {TOO_MANY[table]}", f"DELETE FROM {table}"):
        db = sqlite3.connect(database(place), isolation_level=None)
        assert db.execute(statement).rowcount
        db.close()
        assert kinds(check(place)) == {table}
        assert repair(place).clean
        assert dumped(place) == before


def test_names_that_nothing_but_records_has(place):
    """Of what never came: they get their numbers again, for events and for the ends of edges."""
    lost = [Artifact(b"never here %d" % n).reference() for n in range(3)]
    with SqliteStore(place) as store:
        store.tombstone(lost[0])
        store.put_edge(Edge(DERIVES, (lost[1],), (lost[2],), lost[2]))
    for name in lost:
        change(place, "DELETE FROM artifact WHERE ref = ?", name.to_bytes())
    assert {"event", "node"} <= kinds(check(place))
    assert repair(place).clean
    assert check(place).clean


def test_an_event_of_a_number_that_no_record_can_have(place):
    """Its low bits are those of a record; a repair knows better too."""
    change(place, "UPDATE event SET seq = seq | (1 << 44) WHERE domain = 1 AND seq = 1")
    assert kinds(check(place)) == {"event"}
    assert repair(place).clean
    assert check(place).problems == ()


def test_an_internal_record_of_no_form_says_nothing(place):
    """It has no event, and a check expects none."""
    with SqliteStore(place) as store:
        store.journal.append([Entry(ARTIFACT, b"no body of an artifact"), Entry(TOMBSTONE, b"")])
    assert check(place).problems == ()
    change(place, "UPDATE event SET flags = 1 - flags WHERE domain = 1 AND seq = 1")
    assert kinds(repair(place)) == {"event"}
    assert check(place).problems == ()


@pytest.mark.parametrize("payload", [b"hidden", bytes(200_000)])
def test_bytes_that_are_said_to_be_in_quarantine_and_are_whole(place, payload):
    """Also of what is hidden, whose damage nobody minds."""
    with SqliteStore(place) as store:
        ref = store.put(payload, tag=5)
        store.tombstone(ref)
    change(place, f"UPDATE artifact SET state = {QUARANTINED} WHERE tag = 5")
    assert kinds(check(place)) == {"artifact"}
    assert kinds(repair(place)) == {"artifact"}
    assert check(place).problems == ()
    with SqliteStore(place) as store:
        assert store.get(ref) == payload


def test_the_size_of_a_domain_that_is_not_that_of_its_log(place):
    change(place, "UPDATE domain SET size = size - 1 WHERE no = 2")
    assert "domain" in kinds(check(place))


def flip_name(place: Path, payload: bytes, where: str) -> bytes:
    """Flip a bit in the name of an artifact, in its row or in the index of the table alone; the name."""
    file, name = database(place), Artifact(payload).reference().to_bytes()
    data, at = bytearray(file.read_bytes()), -1
    db = sqlite3.connect(file)
    ((no,),) = db.execute("SELECT no FROM artifact WHERE ref = ?", (name,)).fetchall()
    records = "SELECT count(*) FROM log WHERE instr(body, ?)"
    count = db.execute(records, (name,)).fetchone()
    db.close()
    while (at := data.find(name, at + 1)) >= 0:
        data[at + 20] ^= 4
        file.write_bytes(data)
        db = sqlite3.connect(file)
        in_row = db.execute("SELECT ref FROM artifact WHERE no = ?", (no,)).fetchone() == (name,)
        in_index = db.execute("SELECT no FROM artifact WHERE ref = ?", (name,)).fetchone() == (no,)
        is_met = (in_row, in_index) == (where == "index", where == "row") and db.execute(
            records, (name,)
        ).fetchone() == count
        db.close()
        if is_met:
            return name
        data[at + 20] ^= 4
    raise AssertionError("its name was not met there")


def is_read(place: Path, payload: bytes) -> bool:
    with SqliteStore(place, read_only=True) as store:
        return store.get(Artifact(payload).reference()) == payload


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["row", "blocks"])
@pytest.mark.parametrize("where", ["row", "index"])
def test_a_flipped_bit_in_a_name_puts_nothing_aside(place, payload, where):
    """Neither ends the check halfway; a repair gives the bytes back their name, and asks nobody."""
    flip_name(place, payload, where)
    report = check(place)
    assert not report.clean
    assert "page" in kinds(report)
    if where == "row":
        assert is_read(place, payload), "its name in the index is whole"
        assert f"artifact {Artifact(payload).reference().hex()}" in [one.where for one in report.problems]
    assert repair(place).clean
    assert is_read(place, payload)
    assert check(place).problems == ()


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["row", "blocks"])
def test_a_name_is_given_back_also_while_a_record_is_bad(place, payload):
    """No table is made anew from the records then, and what could be read before a repair can be after it."""
    flip_name(place, payload, "row")
    change(place, "UPDATE log SET body_hash = zeroblob(32) WHERE id = (1 << 44 | 900)")
    assert not repair(place).clean
    assert is_read(place, payload)
    assert {one.kind for one in check(place).problems} == {"record"}


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["row", "blocks"])
@pytest.mark.parametrize("since", ["repair", "put"])
def test_bytes_whose_name_went_to_another_row_come_back(place, payload, since):
    """As a repair left them that followed the damaged name, and after a put of the same."""
    ref = Artifact(payload).reference()
    change(place, "UPDATE artifact SET ref = ?, state = 2 WHERE ref = ?", flipped(ref.to_bytes()), ref.to_bytes())
    change(place, "INSERT INTO artifact SELECT max(no) + 1, ?, NULL, NULL, 1, NULL FROM artifact", ref.to_bytes())
    if since == "put":
        with SqliteStore(place) as store:
            assert store.put(payload) == ref
    assert not check(place).clean
    assert repair(place).clean
    assert is_read(place, payload)
    report = check(place)
    assert report.problems == ()
    assert "quarantined" not in report.checked


def test_a_damaged_name_that_no_record_can_replace(place):
    """Where the bytes are damaged too, they are put aside as any."""
    ref = Artifact(b"small").reference()
    change(
        place, "UPDATE artifact SET ref = ?, bytes = ? WHERE ref = ?", flipped(ref.to_bytes()), b"smalm", ref.to_bytes()
    )
    assert not repair(place).clean
    assert repair(place, PEER).clean
    assert is_read(place, b"small")


@pytest.mark.parametrize("source", [PEER, None], ids=["source", "nobody"])
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
    report = repair(place, Peer(), PEER)
    assert kinds(report) == {"block"}
    assert report.clean
    with SqliteStore(place, read_only=True) as store:
        assert store.get(Artifact(LARGE).reference()) == LARGE
    assert check(place).problems == ()


def broken(place: Path, what: str) -> bytes:
    """Damage the small artifact, or a block of the large one; its payload."""
    if what == "small":
        change(place, "UPDATE artifact SET bytes = ? WHERE bytes = ?", b"smalm", b"small")
        return b"small"
    break_block(place, "flipped")
    return LARGE


@pytest.mark.parametrize("what", ["small", "large"])
@pytest.mark.parametrize("way", ["source", "put"])
def test_what_nobody_can_mend_is_put_aside(place, what, way):
    """It is kept, counted and told each time; nobody is given it, or told that it is here, until it comes back."""
    payload = broken(place, what)
    ref = Artifact(payload).reference()
    before = dumped(place)
    first = repair(place, Peer())
    assert not first.clean
    assert "in quarantine now" in first.problems[0].rule
    changed = set(before) ^ set(dumped(place))
    assert {line.split()[2] for line in changed} == {'"artifact"'}, "no record, no block, no extent has changed"
    for report in (check(place), repair(place)):
        (problem,) = report.problems
        assert (problem.kind, problem.where, report.clean) == ("artifact", f"artifact {ref.hex()}", False)
        assert "fsck DIR --repair --from URL" in problem.rule
        assert report.checked["quarantined"] == 1
    with SqliteStore(place) as store:
        assert audit(store).findings[0].where == f"artifact {ref.hex()}"
        assert store.has([ref]) == [False]
        for read in (store.get, store.open):
            with pytest.raises(Corrupt, match="in quarantine"):
                read(ref)
        if way == "put":
            assert store.put(payload) == ref
        else:
            assert store.fsck(True, [PEER]).clean
        assert store.get(ref) == payload
    assert check(place).problems == ()


def test_what_was_put_aside_and_hidden_is_collected(place):
    """Nobody misses it then, and a collection frees it."""
    ref = Artifact(broken(place, "small")).reference()
    repair(place)
    with SqliteStore(place) as store:
        for name in store.pins():
            store.unpin(name)
        for one in store.view(scope="all").visible():
            store.tombstone(one)
        assert store.fsck().problems == ()
        assert store.gc(1e9).freed_artifacts > 0
        assert "quarantined" not in store.fsck().checked
        with pytest.raises(Withheld):
            store.get(ref)


def test_what_was_put_aside_is_erased_like_anything(place):
    """What a law forbids to keep is not kept in quarantine either."""
    ref = Artifact(broken(place, "large")).reference()
    repair(place)
    with SqliteStore(place) as store:
        store.erase(ref)
        assert store.fsck().problems == ()
        with pytest.raises(Erased):
            store.get(ref)
        assert not list(store._blocks.names())


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
        (place / "blobs" / "notes").write_bytes(b"somebody's")
    report = check(place)
    assert kinds(report) == {"orphan"}
    assert len(report.problems) == (2 if place.is_dir() else 1)
    assert report.clean, "what a crash has left is no damage"
    mended = repair(place)
    left = [one.where for one in mended.problems if not one.repaired]
    assert left == ([str(place / "blobs" / "notes")] if place.is_dir() else []), "its owner may remove it"
    with SqliteStore(place, read_only=True) as store:
        assert name not in store._blocks.names()
    if place.is_dir():
        assert (place / "blobs" / "notes").exists()


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


EXTENSION = (
    "test",
    1,
    ["CREATE TABLE test_t (n INTEGER PRIMARY KEY CHECK (n = 1)) STRICT", "CREATE INDEX test_i ON test_t (n)"],
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE extension SET ddl = replace(ddl, 'n = 1', 'n = 3')",
        "UPDATE extension SET ddl = replace(ddl, ';', '{')",
        "UPDATE extension SET name = 'tesu'",
        "UPDATE extension SET version = 0",
        "UPDATE sqlite_master SET sql = replace(sql, 'n = 1', 'n = 3') WHERE name = 'test_t'",
        "DELETE FROM sqlite_master WHERE name = 'test_i'",
    ],
)
def test_the_tables_of_an_extension_are_those_of_its_statements(tmp_path, statement):
    """They are said twice, and no store is opened in which the two differ."""
    place = tmp_path / "A.tw"
    with SqliteStore(place, create=True) as store:
        store.extension(*EXTENSION)
    with SqliteStore(place) as store:
        store.extension(*EXTENSION).execute("INSERT INTO test_t VALUES (1)")
    db = sqlite3.connect(place, isolation_level=None)
    db.execute("PRAGMA writable_schema = ON")
    assert db.execute(statement).rowcount == 1
    db.close()
    for read_only in (True, False):
        with pytest.raises(Corrupt, match=r"extension|nobody's"):
            SqliteStore(place, read_only=read_only)
    with pytest.raises(Corrupt, match=r"extension|nobody's"):
        check_file(place)
