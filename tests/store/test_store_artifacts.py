"""Artifacts in files: bytes that are damaged, too large, killed half-way, read beside a writer."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from own_process import python

from forked import forked
from tampering import attacker, flip_all, make_former
from tidewarp.codec import INPUT, PUBLISHED, record_hash, timed_body
from tidewarp.codec.artifacts import TAG_EVIDENCE, TAG_POLICY, Artifact
from tidewarp.codec.bodies import ARTIFACT, ArtifactBody, EdgeBody
from tidewarp.codec.edges import DERIVES, Edge
from tidewarp.codec.references import Reference
from tidewarp.errors import (
    Corrupt,
    OperatorError,
    PeerError,
    QuotaExceeded,
    StoreFailed,
    StoreFull,
    StoreLocked,
    TidewarpError,
    Withheld,
)
from tidewarp.observe import BLOCK_STAGES
from tidewarp.store import Admission, Entry, MemoryStore, Settings, SqliteStore, Store, check_file, open_store
from tidewarp.store.admission import OPEN
from tidewarp.store.audit import audit
from tidewarp.store.blocks import BLOCK_BYTES, block_name
from tidewarp.store.upgrading import upgrade
from tidewarp.testing import armed, die, hearing
from tidewarp.testing.contents import Site

GOLDEN = Path(__file__).parents[1] / "golden"
LARGE = b"".join(bytes([n]) * 1_000 for n in range(20))
SMALL_ROWS = Settings(inline_max=1_000)
KEY = bytes(range(32))


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A name for a store in one file, and one in a directory."""
    if request.param == "file":
        return tmp_path / "s.tw"
    (tmp_path / "S").mkdir()
    return tmp_path / "S"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8,000 bytes, so that a test need not write megabytes."""
    monkeypatch.setattr("tidewarp.store.artifacts.BLOCK_BYTES", 8_000)


def database(path: Path) -> Path:
    return path / "store.db" if path.is_dir() else path


def create(path: Path, **options: object) -> SqliteStore:
    return SqliteStore(path, create=True, settings=SMALL_ROWS, **options)  # type: ignore[arg-type]


def blocks_of(path: Path) -> list[Path]:
    return sorted(one for one in (path / "blobs").rglob("*") if one.is_file())


# ---------------------------------------------------------------------- the worked history of the specification


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_the_worked_history_has_its_bytes(kind: str, tmp_path: Path) -> None:
    """Put, put, edge, put, receipt, tombstone: records, root, head, snapshot and state hash of the golden file."""
    golden = {
        name: bytes.fromhex(value) for name, value in json.loads((GOLDEN / "store_vectors.json").read_text()).items()
    }
    admission = Admission(others=OPEN.others, latest=frozenset({1}))
    store: Store
    if kind == "memory":
        store = MemoryStore(seed=KEY, admission=admission)
    else:
        (tmp_path / "s.tw.key").write_bytes(KEY)
        store = SqliteStore(tmp_path / "s.tw", create=True, admission=admission)
    with store:
        hello, world = store.put(b"hello"), store.put(b" world")
        store.put_edge(Edge(DERIVES, (hello,), (world,)))
        output = store.put(b"hello world")
        store.put_receipt(golden["receipt"], golden["computation_key"], [output])
        store.tombstone(world)
        assert store.domain == golden["domain_id"]
        for seq, record in enumerate(store.records(store.domain), 1):
            assert record.header.to_bytes() == golden[f"record{seq}_header"]
            assert record.body == golden[f"record{seq}_body"]
        assert seq == 6
        assert store.root_at(store.domain, 6) == golden["merkle_root"]
        head = store.signed_head()
        assert head is not None
        assert head.text() == golden["signed_head"].decode().split("\n\n")[0] + "\n"
        assert head.verify([golden["public_key"]])
        assert store.snapshot().id() == golden["snapshot_id"]
        assert store.state_hash() == golden["state_hash"]


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from([b"", b"a", b"b" * 2_000]), st.sampled_from([None, 7]), st.booleans()),
    st.tuples(st.just("edge"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("tombstone"), st.integers(0, 5), st.sampled_from(["domain", "federation", "sticky"])),
    st.tuples(st.just("lift"), st.integers(0, 5)),
    st.tuples(st.just("point"), st.sampled_from(["x", "y"]), st.integers(0, 5)),
    st.tuples(st.just("raw"), st.sampled_from([0x02, 0x10, 0x80]), st.binary(max_size=9)),
    st.tuples(st.just("undo"), st.integers(0, 5)),
    st.tuples(st.just("adopt"), st.integers(1, 3)),
    st.tuples(st.just("head")),
)


class Undone(Exception):
    """What a transaction is left with."""


def take(store: Store, site: Site, step: tuple[Any, ...]) -> None:
    """One step, on whatever is there."""
    refs = [Artifact(data, tag).reference() for data in (b"", b"a", b"b" * 2_000) for tag in (None, 7)]
    match step:
        case "put", data, tag, publish:
            store.put(data, tag=tag, publish=publish)
        case "edge", kind, publish:
            store.put_edge(Edge(kind, tuple(refs[:kind]), tuple(refs[kind:])), publish=publish)
        case "tombstone", n, scope:
            store.tombstone(refs[n], scope=scope)
        case "lift", n:
            store.lift(refs[n])
        case "point", name, n:
            store.point(name, refs[n])
        case "raw", kind, body:
            store.journal.append([Entry(kind, body)], cursors={"s": body})
        case "undo", n:
            with contextlib.suppress(Undone), store.transaction():
                store.put(b"%d" % n)
                store.tombstone(refs[n])
                raise Undone
        case "adopt", count:
            held = next((one.size for one in store.domains() if one.id == site.domain), 0)
            site.give(store, held, held + count)
        case _:
            store.signed_head()


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(STEPS, max_size=25))
def test_a_file_and_memory_are_one_store(steps: list[tuple[Any, ...]]) -> None:
    """Equal keys and equal calls: equal records, heads, states, edges and artifacts, in a later life too."""
    site = Site(bytes(32))
    for n in range(9):
        site.put(b"%d" % n) if n % 4 else site.write(0x80, b"stub", flags=0)
    with tempfile.TemporaryDirectory() as folder, MemoryStore(seed=KEY) as memory:
        path = Path(folder) / "s.tw"
        (Path(folder) / "s.tw.key").write_bytes(KEY)
        with create(path) as store:
            for step in steps:
                take(memory, site, step)
                take(store, site, step)
            found = [told(one) for one in (memory, store)]
            assert found[0] == found[1]
        with open_store(path, read_only=True) as store:
            assert told(store) == found[0]
        check_file(path)


def told(store: Store) -> list[object]:
    """All that a store says of itself."""
    refs = [Artifact(b"%d" % n).reference() for n in range(9)]
    said: list[object] = [store.domains(), store.snapshot(), store.edges(), store.has(refs), store.journal.cursors()]
    said += [store.state_hash(), store.state_hash("all")]
    for one in store.domains():
        said += [list(store.records(one.id)), store.root_at(one.id, one.size), store.frontier(one.id).to_bytes()]
        said += [store.hash_at(one.id, one.size)]
    return said


# ---------------------------------------------------------------------- damage


def test_what_is_damaged_is_not_given_and_the_next_put_mends_it(path: Path, small_blocks: None) -> None:
    """Each block, and a payload in a row: told when it is read, and whole after the same artifact was put again."""
    with create(path) as store:
        refs = [store.put(LARGE), store.put(b"in a row", tag=3)]
    damages: list[tuple[Reference, Callable[[], object]]] = [(refs[1], lambda: spoil(path, "artifact", "bytes", 2))]
    if path.is_dir():
        first, second, third = blocks_of(path)
        damages += [
            (refs[0], lambda: first.write_bytes(first.read_bytes()[:-1] + b"x")),
            (refs[0], second.unlink),
            (refs[0], lambda: third.write_bytes(bytes(3 * BLOCK_BYTES))),
            (refs[0], lambda: first.write_bytes(b"")),
        ]
    else:
        damages += [(refs[0], lambda no=no: spoil(path, "block", "bytes", no)) for no in (1, 2, 3)]  # type: ignore[misc]
    for damaged, damage in damages:
        damage()
        with pytest.raises(Corrupt, match=f"artifact {damaged.hex()}"):
            check_file(path)
        with open_store(path) as store:
            with pytest.raises(Corrupt, match=f"artifact {damaged.hex()}.*put the same artifact again"):
                store.get(damaged)
            with pytest.raises(Corrupt), store.open(damaged) as stream:
                stream.read()
            size = store.journal.size
            again = store.put(b"in a row", tag=3) if damaged == refs[1] else store.put(LARGE)
            assert (again, store.journal.size) == (damaged, size)
            assert [store.get(ref) for ref in refs] == [LARGE, b"in a row"]
        check_file(path)


def spoil(path: Path, table: str, column: str, no: int) -> None:
    with attacker(database(path)) as db:
        (data,) = db.execute(f"SELECT {column} FROM {table} WHERE no = ?", (no,)).fetchone()
        db.execute(f"UPDATE {table} SET {column} = ? WHERE no = ?", (data[:-1] + bytes([data[-1] ^ 1]), no))


def test_a_part_is_read_without_the_blocks_beside_it(path: Path, small_blocks: None) -> None:
    """Ranges over the ends of blocks; a damaged block elsewhere is no matter of theirs."""
    with create(path) as store:
        ref = store.put(LARGE)
        for offset in (0, 7_999, 8_000, 15_999, 19_999, 20_000, 30_000):
            for length in (None, 0, 1, 2, 8_001, 100_000):
                end = None if length is None else offset + length
                assert store.get(ref, offset=offset, length=length) == LARGE[offset:end]
        with store.open(ref) as stream:
            assert stream.seekable()
            assert (stream.seek(-3, io.SEEK_END), stream.read(10)) == (19_997, LARGE[-3:])
            assert (stream.seek(7_998), stream.read(4), stream.tell()) == (7_998, LARGE[7_998:8_002], 8_002)
            assert (stream.seek(50_000), stream.read()) == (50_000, b"")
        if path.is_dir():
            name = Artifact(LARGE[8_000:16_000]).reference().digest.hex()
            (path / "blobs" / name[:2] / name[2:]).unlink()
        else:
            store._db.execute("DELETE FROM block WHERE name = ?", (block_name(LARGE[8_000:16_000]),))
        assert store.get(ref, offset=0, length=8_000) == LARGE[:8_000]
        with pytest.raises(Corrupt, match="missing"):
            store.get(ref, offset=7_999, length=2)


EXTENTS = [
    "DELETE FROM extent WHERE idx = 1",
    "DELETE FROM extent",
    "UPDATE extent SET length = 1 << 40 WHERE idx = 0",
    "UPDATE extent SET offset = 8001 WHERE idx = 1",
    "UPDATE extent SET block = (SELECT block FROM extent WHERE idx = 0) WHERE idx = 1",
    "UPDATE artifact SET size = 1 << 40 WHERE no = 1",
    "UPDATE artifact SET size = -1 WHERE no = 1",
    "UPDATE artifact SET tag = 1 << 40 WHERE no = 1",
    "UPDATE artifact SET tag = 0 WHERE no = 1",
    "UPDATE artifact SET bytes = x'00' WHERE no = 1",
]


@pytest.mark.parametrize("statement", EXTENTS)
def test_extents_that_lie_are_refused_before_they_are_believed(path: Path, small_blocks: None, statement: str) -> None:
    """Gaps, other blocks, sizes of a terabyte: Corrupt, and mended by the next put."""
    with create(path) as store:
        ref = store.put(LARGE)
    with attacker(database(path)) as db:
        db.execute(statement)
    with open_store(path) as store:
        with pytest.raises(Corrupt):
            store.get(ref)
        store.put(LARGE)
        assert store.get(ref) == LARGE


def test_a_lost_page_is_told_whatever_is_asked(tmp_path: Path, small_blocks: None) -> None:
    """Each page in turn reads as zeros: every call gives what it gave, or an error of ours; never a bare one of SQLite."""
    path, copy, site = tmp_path / "s.tw", tmp_path / "c.tw", Site()
    theirs = site.put(b"theirs")
    with create(path) as store:
        refs = [store.put(LARGE), store.put(b"small"), theirs]
        site.give(store)
        store.put_edge(Edge(DERIVES, (theirs,), (refs[1],)))
        tables = store.extension("test", 1, ["CREATE TABLE test_t (n INTEGER PRIMARY KEY) STRICT"])
        assert tables.execute("SELECT * FROM test_t") == []
    whole = path.read_bytes()
    calls: list[Callable[[Store], object]] = [
        lambda store: [store.get(ref) for ref in refs],
        lambda store: [store.info(ref) for ref in refs],
        lambda store: store.has(refs),
        lambda store: store.edges(source=theirs),
        lambda store: store.domains(),
        lambda store: [list(store.records(domain)) for domain in (store.domain, site.domain)],
        lambda store: store.hash_at(site.domain, 1),
        lambda store: store.root_at(site.domain, 1),
        lambda store: store.frontier(site.domain).root(),
        lambda store: store.inclusion_proof(store.domain, 1, 2),
        lambda store: store.signed_head(site.domain),
        lambda store: [store.state_hash(), store.snapshot()],
    ]
    with open_store(path, read_only=True) as store:
        expected = [call(store) for call in calls]
    met = 0
    for at in range(4096, len(whole), 4096):
        copy.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
        for call, wanted in zip(calls, expected, strict=True):
            try:
                with open_store(copy, read_only=True) as store:
                    assert call(store) == wanted, at
            except TidewarpError:
                met += 1
    assert met > 20


@pytest.mark.parametrize("table", ["artifact", "extent", "block"])
def test_every_bit_of_an_artifact_is_covered(tmp_path: Path, small_blocks: None, table: str) -> None:
    """A payload in a row and one in blocks: what is flipped is found, or the artifact is what it was."""
    path = tmp_path / "s.tw"
    (tmp_path / "s.tw.key").write_bytes(KEY)
    with create(path) as store:
        refs = [store.put(b"in a row", tag=3), store.put(LARGE)]
    key = "rowid" if table != "extent" else "idx"
    found = 0
    with attacker(path) as db:
        keys = [row for (row,) in db.execute(f"SELECT {key} FROM {table}")]
        for row in keys:
            for column in flip_all(db, table, "no" if table != "extent" else "idx", row, 61):
                if column == "no" and table == "block":
                    continue  # which row it is means nothing
                try:
                    check_file(path)
                except Corrupt:
                    found += 1
                    continue
                with open_store(path, read_only=True) as reader:
                    assert reader.has(refs) != [True, True] or [reader.get(ref) for ref in refs] == [b"in a row", LARGE]
    assert found > 20
    check_file(path)


# ---------------------------------------------------------------------- bounds


@pytest.mark.parametrize("place", ["s.tw", ":memory:"])
def test_a_full_store_can_be_governed(place: str, tmp_path: Path) -> None:
    """Policies and evidence have 1 MiB beyond the quota, together; nothing else has."""
    where = place if place == ":memory:" else tmp_path / place
    with open_store(where, create=True, quota_bytes=10) as store:
        store.put(bytes(10))
        with pytest.raises(QuotaExceeded):
            store.put(b"x")
        store.put(bytes(1 << 19), tag=TAG_POLICY)
        with pytest.raises(QuotaExceeded):
            store.put_many([(b"evidence", TAG_EVIDENCE), (b"x", None)])
        store.put(bytes(1 << 19), tag=TAG_EVIDENCE)
        with pytest.raises(QuotaExceeded):
            store.put(b"p", tag=TAG_POLICY)
        store.set_quota(11 + (1 << 20))
        store.put(b"x")


@pytest.mark.parametrize("place", ["s.tw", ":memory:"])
def test_a_quota_that_did_not_come_to_be(place: str, tmp_path: Path) -> None:
    """It is part of its transaction; and it is a number that fits."""
    where = place if place == ":memory:" else tmp_path / place
    with open_store(where, create=True, quota_bytes=10) as store:
        with contextlib.suppress(QuotaExceeded), store.transaction():
            store.set_quota(20)
            store.put(bytes(20))
            store.put(b"one too many")
        with pytest.raises(QuotaExceeded, match="room for 10"):
            store.put(bytes(20))
        for wrong in (-1, 1 << 64):
            with pytest.raises(OperatorError, match="a number of bytes"):
                store.set_quota(wrong)
        store.set_quota(None)
        store.put(bytes(20))
    if place != ":memory:":
        with open_store(where) as store:
            store.put(bytes(30))


def test_a_quota_is_asked_before_a_byte_is_written(path: Path, tmp_path: Path) -> None:
    """By the declared size: a sparse file of 4 GiB is refused at once; a stream as soon as it is too long; then it goes on."""
    huge = tmp_path / "huge"
    with open(huge, "wb") as stream:
        stream.truncate(4 << 30)
    with open_store(path, create=True, quota_bytes=200_000, inline_max=1_000) as store:
        kept = store.put(bytes(100_000))
        reading: list[int] = []
        endless = io.RawIOBase()

        def read(size: int) -> bytes:
            reading.append(size)
            return bytes(size)

        endless.read = read  # type: ignore[method-assign, assignment]
        for source in (huge, endless, b"x" * 100_001):
            with pytest.raises(QuotaExceeded) as caught:
                store.put(source)  # type: ignore[arg-type]
            assert isinstance(caught.value, StoreFull)
        assert len(reading) == 1
        with pytest.raises(QuotaExceeded):
            store.put_many([(b"y" * 60_000, None), (b"z" * 60_000, None)])
        assert store.journal.size == 1
        if path.is_dir():
            assert len(blocks_of(path)) == 1
        with pytest.raises(QuotaExceeded):
            put_both(store, b"1" * 90_000, b"2" * 90_000)
        more = store.put(b"x" * 100_000)
        assert store.put(bytes(1)[:0]) == Artifact(b"").reference()
        assert store.has([kept, more]) == [True, True]
    with open_store(path) as store, pytest.raises(QuotaExceeded):
        store.put(b"one byte more, which the next life knows too")


@pytest.mark.parametrize("size", [3_000, 30_000])
def test_a_file_that_changes_while_it_is_read_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Longer or shorter than it was when it was opened: what was read is nobody's file."""
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    hashing = sha256

    def change(data: bytes) -> object:
        os.truncate(source, size)
        return hashing(data)

    with create(path) as store:
        monkeypatch.setattr("tidewarp.store.artifacts.BLOCK_BYTES", 8_000)
        monkeypatch.setattr("tidewarp.store.artifacts.sha256", change)
        with pytest.raises(OperatorError, match=r"it has (fewer|more) bytes than the 20000"):
            store.put(source)
        monkeypatch.undo()
        assert store.journal.size == 0


class Broken(io.RawIOBase):
    """A stream that ends with an error."""

    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError("gone")


def test_a_stream_that_breaks_off_is_refused(path: Path) -> None:
    with create(path) as store:
        with pytest.raises(OperatorError, match="gone"):
            store.put(Broken())  # type: ignore[arg-type]
        assert store.journal.size == 0


def test_an_edge_that_is_appended_counts_too(tmp_path: Path) -> None:
    """Whatever way its record takes into the journal, an edge is an artifact, and its bytes are counted."""
    body = EdgeBody(Edge(DERIVES, (Artifact(b"1").reference(),), ()))
    with open_store(tmp_path / "s.tw", create=True, quota_bytes=200) as store:
        store.journal.append([Entry(body.kind, body.to_bytes(), 1)])
        assert store.get(body.ref) == body.edge.to_bytes()
        assert store.edges() == [(body.ref, body.edge)]
        with pytest.raises(QuotaExceeded):
            store.put(bytes(200 - len(body.edge.to_bytes()) + 1))
        store.put(bytes(200 - len(body.edge.to_bytes())))
        other = EdgeBody(Edge(DERIVES, (), ()))
        with pytest.raises(QuotaExceeded):
            store.journal.append([Entry(other.kind, other.to_bytes(), 1)])
        assert store.journal.size == 2


def put_both(store: Store, one: bytes, other: bytes) -> None:
    with store.transaction():
        store.put(one)
        store.put(other)


def test_what_a_peer_declares_is_bounded_too(path: Path) -> None:
    """Records that name 4 GiB and 2^64 - 1 bytes; streams that declare them."""
    site = Site()
    refs = [Artifact(b"%d" % n).reference() for n in range(3)]
    sizes = [4 << 30, (1 << 63) - 1, (1 << 64) - 1]
    for ref, size in zip(refs, sizes, strict=True):
        site.write(ARTIFACT, ArtifactBody(ref, None, size).to_bytes())
    with open_store(path, create=True, quota_bytes=1 << 20) as store:
        for ref, size in zip(refs, sizes, strict=True):
            head = b"\0" + size.to_bytes(8, "big")
            for tail in (b"", b"short"):
                with pytest.raises((QuotaExceeded, PeerError)):
                    site.give(store, sources={ref: io.BytesIO(head + tail)})
        assert len(store.domains()) == 1
        site.give(store)
        assert store.info(refs[0]).size == 4 << 30
        for ref in refs:
            with pytest.raises(Withheld):
                store.get(ref)


def test_memory_is_bounded_for_a_file_of_any_size(tmp_path: Path) -> None:
    """160 MiB, put and read as a stream, in both forms: no more than 64 MiB of it is ever in memory."""
    size, huge = 160 << 20, tmp_path / "huge"
    with open(huge, "wb") as stream:
        stream.truncate(size)
    (tmp_path / "S").mkdir()
    script = """
import resource, sys
from pathlib import Path
from tidewarp.store import open_store
with open_store(sys.argv[1], create=True) as store:
    store.put(b"x" * 300_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ref = store.put(Path(sys.argv[2]))
    size = 0
    with store.open(ref) as stream:
        while part := stream.read(1 << 20): size += len(part)
    print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10)
"""
    for path in (tmp_path / "S", tmp_path / "s.tw"):
        process = python(script, path, huge)
        assert (process.stdout, process.stderr) == (f"{size} True\n", "")


# ---------------------------------------------------------------------- crashes and disks


@pytest.mark.parametrize("stage", [*BLOCK_STAGES, "journal.inside", "journal.commit", "journal.after"])
def test_a_kill_at_any_stage_leaves_an_artifact_whole_or_absent(
    path: Path, tmp_path: Path, stage: str, require: Callable[[str], None]
) -> None:
    """The process's death in the middle of the second block, or around a commit: never a record without its bytes."""
    require("fork")
    if stage in BLOCK_STAGES and not path.is_dir():
        stage, arrival = "journal.inside", 2  # a block is a row of its own there, committed before what names it
    else:
        arrival = 2 if stage in BLOCK_STAGES or not path.is_dir() else 1
    payload = os.urandom(BLOCK_BYTES) + b"and a second block"
    (tmp_path / "payload").write_bytes(payload)
    ref = Artifact(payload).reference()
    with open_store(path, create=True) as store:
        before = store.put(b"before")

    def put() -> None:
        with open_store(path) as store, armed(stage, die, arrival=arrival):
            store.put(tmp_path / "payload")

    assert forked(put) == -signal.SIGKILL
    check_file(path)
    with open_store(path) as store:
        is_whole = stage == "journal.after" and path.is_dir()
        assert store.has([before, ref]) == [True, is_whole]
        assert store.journal.size == 1 + is_whole
        assert store.put(tmp_path / "payload") == ref
        assert store.get(ref) == payload
        assert store.journal.size == 2
    check_file(path)


def work(store: Store, done: Callable[[], None] = lambda: None, first: int = 0) -> None:
    """Four transactions of several statements, from number ``first`` on; ``done`` is called behind each."""
    site = Site(bytes(32))
    refs = [site.put(b"theirs %d" % n) for n in range(3)]
    site.write(INPUT, timed_body(1, b"withheld"), flags=0)
    steps: list[Callable[[], object]] = [
        lambda: store.put_many([(b"one", None), (b"two" * 1_000, 7)]),
        lambda: site.give(store),
        lambda: store.put_edge(Edge(DERIVES, tuple(refs), (Artifact(b"one").reference(),))),
        lambda: mixed(store),
    ]
    for step in steps[first:]:
        step()
        done()


def mixed(store: Store) -> None:
    with store.transaction():
        store.tombstone(store.put(b"three" * 1_000))
        store.journal.append([Entry(INPUT, timed_body(2, b""))], cursors={"s": b"1"})
        store.extension("test", 1, ["CREATE TABLE test_t (n INTEGER PRIMARY KEY) STRICT"])


def test_a_kill_at_any_statement_leaves_whole_transactions(tmp_path: Path, require: Callable[[str], None]) -> None:
    """Before each statement of four transactions the process ends: a prefix of them is there, and then the rest comes."""
    require("fork")
    expected: list[list[object]] = []
    with MemoryStore(seed=KEY) as model:
        expected.append(told(model))
        work(model, lambda: expected.append(told(model)))
    path, kept = tmp_path / "s.tw", tmp_path / "kept"
    Path(f"{path}.key").write_bytes(KEY)
    create(path).close()
    shutil.copy(path, kept)
    statement, reached, code = 0, set(), 9
    while code == 9:
        statement += 1
        shutil.copy(kept, path)
        process = os.fork()
        if not process:
            end_before(path, statement)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        check_file(path)
        with open_store(path) as store:
            found = expected.index(told(store))
            reached.add(found)
            work(store, first=found)
            assert told(store) == expected[-1]
    assert code == 0
    assert statement > 30
    assert reached == {0, 1, 2, 3, 4}


def end_before(path: Path, statement: int) -> None:
    """Do the work, and end this process before its statement of this number; 0 where there are fewer."""
    code = 1
    try:
        left = statement

        def count(_: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                os._exit(9)

        store = open_store(path)
        store._db.set_trace_callback(count)  # type: ignore[attr-defined]
        work(store)
        code = 0
    finally:
        os._exit(code)


def test_the_stages_of_a_block_are_told_in_order(tmp_path: Path, small_blocks: None) -> None:
    """Each block is durable under its name before the transaction that refers to it begins."""
    heard: list[str] = []
    with create(tmp_path) as store, hearing(lambda name, _: heard.append(name)):
        store.put(LARGE)
    assert heard == [*BLOCK_STAGES * 3, "journal.inside", "journal.commit", "journal.after"]


@pytest.mark.parametrize(
    ("code", "expected", "usable"),
    [
        (errno.ENOSPC, StoreFull, True),
        (errno.EMFILE, StoreFull, True),
        (errno.EACCES, OperatorError, True),
        (errno.EIO, StoreFailed, False),
    ],
)
def test_a_disk_that_fails_under_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception], usable: bool
) -> None:
    """No room: nothing is left of it and the store goes on. An fsync that fails: the handle refuses everything."""

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with create(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr("tidewarp.store.blocks.os.fsync", fail)
            with pytest.raises(expected):
                store.put(LARGE)
        assert blocks_of(tmp_path) == []
        if usable:
            assert store.get(store.put(LARGE)) == LARGE
        else:
            for call in (lambda: store.put(b""), lambda: store.journal.append([]), lambda: store.domains()):
                with pytest.raises(StoreFailed):
                    call()


def test_a_disk_that_is_full_within_a_transaction(tmp_path: Path) -> None:
    """StoreFull where it happens; who goes on regardless gets all of the rest or nothing; then, with room, it goes on."""
    path = tmp_path / "s.tw"
    with SqliteStore(path, create=True) as store:
        before = store.put(b"before")
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages + 4}")
        small = Artifact(b"small").reference()
        with contextlib.suppress(StoreFull):
            stubborn(store)
        found = store.has([small])
        assert store.journal.size == 1 + sum(found)
        assert store.has([before]) == [True]
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.put(bytes(100_000))
        assert store.journal.size == 2 + sum(found)
    check_file(path)


def stubborn(store: Store) -> None:
    with store.transaction():
        with pytest.raises(StoreFull):
            store.put(bytes(100_000))
        store.put(b"small")


def test_a_put_in_a_batch_is_one_commit(tmp_path: Path) -> None:
    """A thousand artifacts, their records and indices: one fsync; the same again: none."""
    items = [(b"%d" % n, None) for n in range(1_000)]
    with SqliteStore(tmp_path / "s.tw", create=True) as store:
        with hearing(lambda *_: None) as stages:
            refs = store.put_many(items * 2)
        assert stages["journal.commit"] == 1
        assert store.journal.size == 1_000
        assert refs == [Artifact(*item).reference() for item in items] * 2
        with hearing(lambda *_: None) as stages:
            assert store.put_many(items) == refs[:1_000]
            assert store.put(b"0") == refs[0]
        assert stages["journal.commit"] == 0


# ---------------------------------------------------------------------- handles


def test_a_reader_beside_a_writer_sees_what_is_durable(path: Path, small_blocks: None) -> None:
    """Each call what is there by then; within a transaction nothing of it; a begun stream goes on."""
    site = Site()
    theirs = site.put(b"theirs")
    with create(path) as store, open_store(path, read_only=True) as reader:
        ref = store.put(LARGE)
        assert reader.get(ref) == LARGE
        with reader.open(ref) as stream:
            assert stream.read(10) == LARGE[:10]
            with store.transaction():
                more = store.put(b"more")
                site.give(store)
                assert store.get(more) == b"more"
                assert reader.has([more, theirs]) == [False, False]
                assert len(reader.domains()) == 1
            assert stream.read() == LARGE[10:]
        assert reader.has([more, theirs]) == [True, True]
        assert reader.state_hash() == store.state_hash()
        assert reader.signed_head() is None
        head = store.signed_head()
        assert reader.signed_head() == head
        for call in (lambda: reader.put(b""), lambda: reader.tombstone(ref), lambda: site.give(reader)):
            with pytest.raises(OperatorError, match="read-only"):
                call()


def test_a_child_is_refused(path: Path, require: Callable[[str], None]) -> None:
    """After fork() every call raises InternalError with its name before SQLite sees it, and the parent goes on."""
    require("fork")
    script = """
import os, sys
from tidewarp.errors import InternalError
from tidewarp.store import open_store
store = open_store(sys.argv[1], create=True)
ref = store.put(b"here")
stream = store.open(ref)
domain = store.domain
calls = {"put": lambda: store.put(b""), "put_many": lambda: store.put_many([]), "get": lambda: store.get(ref),
    "open": lambda: store.open(ref), "info": lambda: store.info(ref), "has": lambda: store.has([ref]),
    "tombstone": lambda: store.tombstone(ref), "lift": lambda: store.lift(ref), "view": lambda: store.view(),
    "snapshot": lambda: store.snapshot(), "state_hash": lambda: store.state_hash(), "domains": lambda: store.domains(),
    "records": lambda: list(store.records(domain)), "root_at": lambda: store.root_at(domain, 1),
    "signed_head": lambda: store.signed_head(), "transaction": lambda: store.transaction().__enter__(),
    "extension": lambda: store.extension("test", 1, ()), "edges": lambda: store.edges()}
pid = os.fork()
if pid == 0:
    for name, call in calls.items():
        try: call()
        except InternalError as error: print(error.value == name or (name, error.value))
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert store.get(store.put(b"goes on")) == b"goes on"
store.close()
"""
    process = python(script, path)
    assert process.stderr == ""
    assert process.stdout.split() == ["True"] * 18
    assert check_file(path).records == 2


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    """Made where there is nothing else; its key is the owner's alone; one writer; a copy is the store."""
    folder = tmp_path / "S"
    for options in ({}, {"read_only": True}, {"create": True}):
        with pytest.raises(OperatorError):
            open_store(folder / "missing" / "S", **options)  # type: ignore[arg-type]
    folder.mkdir()
    with pytest.raises(OperatorError, match=r"there is no store\.db in it"):
        open_store(folder)
    assert list(folder.iterdir()) == []
    (folder / "photo.jpg").touch()
    with pytest.raises(OperatorError, match=r"photo\.jpg"):
        open_store(folder, create=True)
    assert [one.name for one in folder.iterdir()] == ["photo.jpg"]
    (folder / "photo.jpg").unlink()
    with create(folder) as store:
        ref = store.put(LARGE)
        assert stat.S_IMODE((folder / "keys" / "root.key").stat().st_mode) == 0o600
        link = tmp_path / "link"
        link.symlink_to(folder)
        with pytest.raises(StoreLocked, match=f"process {os.getpid()} "):
            open_store(link)
        domain = store.domain
    assert sorted(one.name for one in folder.iterdir()) == ["blobs", "keys", "lock", "store.db"]
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert check_file(copy) == check_file(folder)
    with open_store(copy) as store:
        assert (store.domain, store.get(ref)) == (domain, LARGE)
    (folder / "keys" / "root.key").unlink()
    with pytest.raises(OperatorError, match=r"root\.key: it is missing"):
        open_store(folder)
    with open_store(folder, read_only=True) as store:
        assert store.get(ref) == LARGE


# ---------------------------------------------------------------------- formats and other domains in the file


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A file of format 1, as a release before this one made it, with its key."""
    path = tmp_path / "f.tw"
    with open_store(path, create=True) as store:
        store.journal.append([Entry(INPUT, timed_body(n, b"%d" % n)) for n in range(3)], cursors={"s": b"3"})
    make_former(path)
    return path


def test_a_file_of_format_1_stays_a_journal(former: Path) -> None:
    """Read, checked and written on, as format 1; what is more than a journal is refused, and nothing is changed by it."""
    assert check_file(former).records == 3
    with open_store(former) as store:
        assert store.journal.append([Entry(INPUT, timed_body(3, b"3"))], cursors={"s": b"4"}).last_seq == 4
        for call in (
            lambda: store.put(b""),
            lambda: store.get(Artifact(b"").reference()),
            lambda: store.state_hash(),
            lambda: store.signed_head(),
            lambda: store.transaction().__enter__(),
            lambda: store.extension("test", 1, ()),
        ):
            with pytest.raises(OperatorError, match="format 1"):
                call()
    assert check_file(former).records == 4
    with sqlite3.connect(former) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} == {
            "domain",
            "log",
            "source_cursor",
            "meta",
        }
    db.close()


def test_a_journal_that_release_0_1_0_wrote_is_read(tmp_path: Path) -> None:
    """Its records, and none of its bytes changes."""
    path = tmp_path / "golden.tw"
    path.write_bytes(gzip.decompress((GOLDEN / "live-0.1.0.tw.gz").read_bytes()))
    before = path.read_bytes()
    checked = check_file(path)
    with open_store(path, read_only=True) as store:
        assert len(list(store.journal.read())) == store.journal.size == checked.records
        with pytest.raises(OperatorError, match="format 1"):
            store.domains()
    assert path.read_bytes() == before


def test_a_journal_of_format_1_is_copied_into_a_store(former: Path, tmp_path: Path) -> None:
    """With its hashes, its identity, its positions and the ticks of its inputs; the file itself keeps every byte."""
    with open_store(former) as store:
        store.journal.append([Entry(0x90, b"%d" % n) for n in range(2_000)])
        store.journal.append([Entry(INPUT, timed_body(9, b"9"), PUBLISHED)], cursors={"s": b"9", "t": b""})
    before = former.read_bytes()
    with open_store(former, read_only=True) as store:
        records, head = list(store.journal.read()), store.journal.head
    (tmp_path / "taken").mkdir()
    for name in ("n.tw", "folder"):
        with upgrade(former, tmp_path / name, last_tick_of=lambda record: 7 + record.seq) as store:
            assert (store.journal.head, list(store.journal.read())) == (head, records)
            assert store.journal.cursors() == {"s": b"9", "t": b""}
            assert [store.journal.last_tick(seq) for seq in (1, 3, 2_004)] == [8, 10, 2_011]
            assert [one.seq for one in store.journal.read_time(10, 10)] == [3, 2_004]
            store.put(b"more")
            assert audit(store).findings == ()
        with pytest.raises(OperatorError, match="it is a store already"):
            upgrade(tmp_path / name, tmp_path / "other.tw", last_tick_of=lambda record: 0)
    with pytest.raises(OperatorError, match="nothing is overwritten"):
        upgrade(former, tmp_path / "taken", last_tick_of=lambda record: 0)
    assert former.read_bytes() == before
    (tmp_path / "f.tw.key").unlink()
    with pytest.raises(OperatorError, match=r"f.tw.key"):
        upgrade(former, tmp_path / "keyless.tw", last_tick_of=lambda record: 0)
    assert not (tmp_path / "keyless.tw").exists()


def test_an_interrupted_copy_of_a_journal_has_no_records(former: Path, tmp_path: Path) -> None:
    """All of them are there, or none."""

    def fail(record: Any) -> int:
        if record.seq == 3:
            raise KeyboardInterrupt
        return 9

    with pytest.raises(KeyboardInterrupt):
        upgrade(former, tmp_path / "n.tw", last_tick_of=fail)
    with open_store(tmp_path / "n.tw") as store:
        assert store.journal.size == 0
        assert store.journal.cursors() == {}


@pytest.fixture
def adopted(tmp_path: Path) -> tuple[Path, Site]:
    """A closed store with an own record and another domain's: two bodies and a stub."""
    site = Site()
    path = tmp_path / "s.tw"
    site.put(b"one")
    site.write(INPUT, timed_body(5, b"secret"), flags=0)
    site.put(b"two", 7)
    with open_store(path, create=True) as store:
        store.put(b"own")
        site.give(store)
        store.extension("test", 1, ["CREATE TABLE test_t (n INTEGER PRIMARY KEY) STRICT"])
    return path, site


def test_every_bit_of_another_domains_records_is_covered(adopted: tuple[Path, Site]) -> None:
    """As of the own ones: found, the record named; the stub's length too."""
    path, _ = adopted
    assert check_file(path).records == 1
    found = 0
    with attacker(path) as db:
        rows = db.execute("SELECT id FROM log WHERE id > 2 << 44 ORDER BY id").fetchall()
        assert len(rows) == 3
        for (row,) in rows:
            for column in flip_all(db, "log", "id", row, 13):
                with pytest.raises(Corrupt) as caught:
                    check_file(path)
                assert "record" in str(caught.value), column
                found += 1
        for table, key in (("stub", "id"), ("domain", "no")):
            for (row,) in db.execute(f"SELECT {key} FROM {table} WHERE {key} > 1").fetchall():
                for _ in flip_all(db, table, key, row, 13):
                    with pytest.raises(Corrupt):
                        check_file(path)
                    found += 1
    assert found > 500
    check_file(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log WHERE id = (2 << 44) + 3",
        "DELETE FROM log WHERE id = (2 << 44) + 1",
        "DELETE FROM domain WHERE no = 2",
        "UPDATE domain SET size = 2 WHERE no = 2",
        "UPDATE domain SET status = 1 WHERE no = 2",
        "INSERT INTO domain SELECT 4, zeroblob(32), 0, 0, head FROM domain WHERE no = 2",
        "INSERT INTO domain SELECT 3, id, 0, 3, head FROM domain WHERE no = 2",
        "DELETE FROM stub",
        "UPDATE log SET body = x'00' WHERE id = (2 << 44) + 2",
        "UPDATE log SET body_state = 1 WHERE id = (2 << 44) + 1",
        "UPDATE log SET body_state = 1, body = x'' WHERE id = (1 << 44) + 1",
        "CREATE TRIGGER test_x AFTER INSERT ON log BEGIN DELETE FROM log; END",
        "CREATE VIEW test_v AS SELECT 1",
        "CREATE TABLE other_t (n INTEGER)",
        "CREATE INDEX other_i ON log (kind)",
    ],
)
def test_rows_of_another_domain_more_or_less(adopted: tuple[Path, Site], statement: str) -> None:
    path, _ = adopted
    with attacker(path) as db:
        db.execute(statement)
    with pytest.raises(Corrupt):
        check_file(path)


def test_a_thousand_domains_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, the others go on."""
    monkeypatch.setattr("tidewarp.store.domains.DOMAINS_MAX", 4)
    sites = [Site(bytes([n]) * 32) for n in range(1, 5)]
    with SqliteStore(tmp_path / "s.tw", create=True) as store:
        for site in sites:
            site.put(b"x")
        for site in sites[:3]:
            site.give(store)
        with pytest.raises(QuotaExceeded, match="takes in"):
            sites[3].give(store)
        sites[0].put(b"y")
        sites[0].give(store, 1)
        assert [one.size for one in store.domains()] == [0, 2, 1, 1]


def test_the_own_lost_tail_is_taken_back(tmp_path: Path) -> None:
    """A store that was restored from an old copy goes on behind the tail that a peer kept for it."""
    (tmp_path / "s.tw.key").write_bytes(KEY)
    site = Site(KEY)
    site.put(b"one")
    site.put(b"two")
    with SqliteStore(tmp_path / "s.tw", create=True) as store:
        assert store.domain == site.domain
        store.put(b"one")
        assert site.give(store, 1) == (2, 2)
        assert store.journal.size == 2
        assert store.put(b"two") == Artifact(b"two").reference()
        assert store.journal.size == 2, "it is shown already"
        store.journal.append([Entry(0x80, b"goes on")])
        head = store.signed_head()
        assert head is not None
        assert head.verify([site.key])
        site.write(INPUT, timed_body(0, b""), flags=0)
    assert check_file(tmp_path / "s.tw").records == 3


def test_heads_are_signed_once_for_a_size(path: Path) -> None:
    """The same note until there are more records, in the next life too."""
    with create(path) as store:
        empty = store.signed_head()
        store.put(b"one")
        one = store.signed_head()
        assert store.signed_head() == one != empty
        with store.transaction():
            store.put(b"two")
            assert store.signed_head() == one, "what is in a transaction may not come to be"
    with open_store(path) as store:
        two = store.signed_head()
        assert two is not None
        assert two.size == 2
        last = [record_hash(record.header.to_bytes()) for record in store.records(store.domain)][-1]
        assert (two.head, two.root) == (last, store.root_at(store.domain, 2))


def test_format_2_costs_little(tmp_path: Path) -> None:
    """An empty store is smaller than 150 KB."""
    open_store(tmp_path / "s.tw", create=True).close()
    assert (tmp_path / "s.tw").stat().st_size < 150_000
