"""Puts: many at once as one by one, large ones with their blocks, two waits at once."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.codec.artifacts import TAG_RESULT, Artifact
from tidewarp.codec.bodies import ArtifactBody
from tidewarp.codec.results import Result, Status
from tidewarp.errors import QuotaExceeded
from tidewarp.store import MemoryStore, Settings, SqliteStore, open_store
from tidewarp.store.blocks import block_name
from tidewarp.store.meanwhile import meanwhile

KEY = bytes(range(32))
SMALL = 100
PAYLOADS = st.sampled_from([b"", b"a", b"b" * SMALL, b"c" * (SMALL + 1), b"d" * 5_000])
ITEMS = st.lists(st.tuples(PAYLOADS, st.sampled_from([None, 0, 7])), max_size=6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(ITEMS, st.booleans()), max_size=4))
def test_a_batch_is_what_the_model_makes_of_it(batches: Sequence[tuple[list[tuple[bytes, int | None]], bool]]) -> None:
    """New, known and repeated artifacts in one call, published or not: names, records and bytes are those in memory."""
    with (
        TemporaryDirectory() as folder,
        SqliteStore(f"{folder}/s.tw", create=True, key=KEY, settings=Settings(None, SMALL)) as store,
    ):
        model = MemoryStore(seed=KEY)
        for items, publish in batches:
            refs = store.put_many(iter(items), publish=publish)
            assert refs == model.put_many(items, publish=publish) == [Artifact(*one).reference() for one in items]
            assert [store.get(ref) for ref in refs] == [data for data, _ in items]
        assert store.journal.head == model.journal.head
        assert [record.body for record in store.journal.read()] == [record.body for record in model.journal.read()]
        assert store.state_hash("all") == model.state_hash("all")
        assert store.fsck().problems == ()


def test_a_batch_fills_and_mends(tmp_path: Path) -> None:
    """Beside a new artifact, one of which a record alone has told, and one whose row was changed."""
    named = Result(Status.OK, 0, Artifact(b"s").reference(), Artifact(b"p").reference(), (), None, (), ()).to_bytes()
    with SqliteStore(tmp_path, create=True, settings=Settings(None, SMALL)) as store:
        store.put(named, tag=TAG_RESULT)  # it names two that are not here
        damaged = store.put(b"whole")
        store._db.execute("UPDATE artifact SET bytes = ? WHERE bytes = ?", (b"w_ole", b"whole"))
        refs = store.put_many([(b"p", None), (b"whole", None), (b"new", None), (b"p", None), (bytes(SMALL + 1), None)])
        assert refs[1] == damaged
        assert refs[0] == refs[3]
        assert [store.get(ref) for ref in refs] == [b"p", b"whole", b"new", b"p", bytes(SMALL + 1)]
        assert not store.has([Artifact(b"s").reference()])[0]
        told = [ArtifactBody.from_bytes(record.body).ref for record in store.journal.read()][2:]
        assert told == [refs[0], refs[2], refs[4]]
        assert store.fsck().problems == ()


def test_a_batch_beyond_the_quota_leaves_nothing(tmp_path: Path) -> None:
    """Neither rows nor records, also within a transaction that goes on; what is here already counts once."""
    with SqliteStore(tmp_path, create=True, settings=Settings(100)) as store:
        store.put_many([(bytes(60), None)])
        with store.transaction():
            with pytest.raises(QuotaExceeded, match="41 bytes"):
                store.put_many([(bytes(60), None), (b"x" * 41, None)])
            store.put_many([(bytes(60), None), (b"y" * 40, None)])
        assert store.journal.size == 2
        assert store._handle.select("put", "SELECT count(*) FROM artifact") == [(2,)]
        with pytest.raises(QuotaExceeded):
            store.put(b"z")


@pytest.mark.parametrize("form", ["s.tw", "S"])
def test_pages_are_larger_where_payloads_are_many(tmp_path: Path, form: str) -> None:
    """8 KiB in a directory; the journal of a twin keeps SQLite's own size, and so stays small."""
    if form == "S":
        (tmp_path / form).mkdir()
    open_store(tmp_path / form, create=True).close()
    db = sqlite3.connect(tmp_path / form / "store.db" if form == "S" else tmp_path / form)
    assert db.execute("PRAGMA page_size").fetchone() == (8_192 if form == "S" else 4_096,)
    db.close()


def test_a_block_is_named_as_an_artifact(tmp_path: Path) -> None:
    """By itself and without a tag it is one, hashed once; with a tag, it is the same block under another name."""
    payload = os.urandom(1 << 18)
    with SqliteStore(tmp_path, create=True) as store:
        bare, tagged = store.put(payload), store.put(payload, tag=7)
        assert list(store._blocks.names()) == [bare.digest] == [block_name(payload)]
        assert bare == Artifact(payload).reference()
        assert tagged == Artifact(payload, 7).reference()
        (block,) = [file for file in (tmp_path / "blobs").rglob("*") if file.is_file()]
        block.write_bytes(payload[:1_000])  # as a crash may leave it, before anything refers to it
        assert store.put(payload) == bare
        assert store.get(bare) == store.get(tagged) == block.read_bytes() == payload


def test_threads_that_put_one_payload_make_one_block(tmp_path: Path) -> None:
    """Each of them returns with the whole of it on the disk; none takes the half that another has written for it."""
    payload = os.urandom(1 << 20)
    start = threading.Barrier(4)

    def put(store: SqliteStore) -> bytes:
        start.wait()
        return store.get(store.put(payload))

    with SqliteStore(tmp_path, create=True) as store:
        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(put, [store] * 4)] == [payload] * 4
        assert len(list(store._blocks.names())) == 1
        assert store.journal.size == 1


def test_two_waits_at_once() -> None:
    """Work and block are both done at the end, its thread has gone, and what fails is told: the block's error first."""
    met = threading.Barrier(2)
    before = threading.active_count()
    with meanwhile(met.wait):
        met.wait()  # neither comes past it without the other
    assert threading.active_count() == before

    def fail() -> None:
        raise OSError("work")

    with pytest.raises(OSError, match="work"), meanwhile(fail):
        pass
    with pytest.raises(OSError, match="block"), meanwhile(fail):
        raise OSError("block")
    assert threading.active_count() == before


def test_where_the_system_gives_no_thread_one_wait_follows_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large payload is kept all the same, and its folder fsynced."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SqliteStore(tmp_path, create=True, settings=Settings(None, SMALL)) as store:
        monkeypatch.setattr(threading.Thread, "start", start)
        ref = store.put(bytes(5_000))
        done: list[str] = []
        with meanwhile(lambda: done.append("work")):
            done.append("block")
        monkeypatch.undo()
        assert done == ["block", "work"]
        assert store.get(ref) == bytes(5_000)
        assert store.fsck().problems == ()
