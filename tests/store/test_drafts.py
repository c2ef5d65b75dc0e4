"""Drafts of blocks: what a crash leaves of them, who removes them, and a disk that fails while one is written."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forked import forked
from tidewarp.errors import OperatorError, StoreFailed, StoreFull
from tidewarp.store import SqliteStore
from tidewarp.testing import armed, die, hearing, raising

KEY = bytes(range(32))
FIRST, SECOND = os.urandom(200_000), os.urandom(200_000)


def files(folder: Path) -> list[Path]:
    """Blocks and drafts."""
    return sorted(one for one in (folder / "blobs").rglob("*") if one.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """With one large artifact."""
    with SqliteStore(tmp_path, create=True, key=KEY) as opened:
        opened.put(FIRST)
        yield opened


def collected(store: SqliteStore) -> None:
    report = store.gc(60.0)
    assert (report.freed_bytes, report.complete) == (100_000, True)


def repaired(store: SqliteStore) -> None:
    (problem,) = store.fsck(repair=True).problems
    assert (problem.kind, problem.repaired) == ("orphan", True)


def put_again(store: SqliteStore) -> None:
    assert store.get(store.put(SECOND)) == SECOND


@pytest.mark.parametrize("remove", [collected, repaired, put_again])
def test_a_draft_that_a_crash_has_left_goes(
    tmp_path: Path, require: Callable[[str], None], remove: Callable[[SqliteStore], None]
) -> None:
    """Half of one: it is told, is no damage, and the next collection, repair or put removes it."""
    require("fork")
    with SqliteStore(tmp_path, create=True, key=KEY) as store:
        first = store.put(FIRST)

    def put() -> None:
        with SqliteStore(tmp_path) as store, armed("block.inside", die):
            store.put(SECOND)

    assert forked(put) == -signal.SIGKILL
    draft = tmp_path / "blobs" / "new-0"
    assert draft.stat().st_size == 100_000
    with SqliteStore(tmp_path, read_only=True) as store:
        report = store.fsck()
        assert [(one.kind, one.where) for one in report.problems] == [("orphan", str(draft))]
        assert report.clean
    with SqliteStore(tmp_path) as store:
        assert store.gc(60.0, dry_run=True).freed_bytes == 0
        assert draft.exists()
        remove(store)
        assert not draft.exists()
        assert store.get(first) == FIRST
        assert store.fsck().problems == ()


def test_what_is_no_draft_is_left_alone(tmp_path: Path, store: SqliteStore) -> None:
    """A name that is almost one, and a folder: somebody's, told and kept."""
    (tmp_path / "blobs" / "new-plan").write_bytes(b"somebody's")
    (tmp_path / "blobs" / "new-7").mkdir()
    (tmp_path / "blobs" / "new-7" / "more").write_bytes(b"somebody's")
    store.gc(60.0)
    problems = store.fsck(repair=True).problems
    assert [(Path(one.where).name, one.repaired) for one in problems] == [("more", False), ("new-plan", False)]
    assert (tmp_path / "blobs" / "new-plan").read_bytes() == b"somebody's"


def test_a_draft_that_is_being_written_stays(tmp_path: Path, store: SqliteStore) -> None:
    """A collection and a repair come by while one thread writes half a block; another put takes another draft."""
    found: list[list[str]] = []

    def come_by(stage: str, arrival: int) -> None:
        if (stage, arrival) == ("block.inside", 1):
            for act in (lambda: store.gc(60.0), lambda: store.fsck(repair=True), lambda: store.put(bytes(300_000))):
                thread = threading.Thread(target=act)
                thread.start()
                thread.join()
                found.append([one.name for one in files(tmp_path) if one.name.startswith("new-")])

    with hearing(come_by) as arrivals:
        assert store.get(store.put(SECOND)) == SECOND
    assert found == [["new-0"]] * 3
    assert arrivals["block.after"] == 2
    assert len(files(tmp_path)) == 3
    assert store.fsck().problems == ()


@pytest.mark.parametrize(
    ("code", "expected", "usable"),
    [
        (errno.ENOSPC, StoreFull, True),
        (errno.EROFS, OperatorError, True),
        (errno.EIO, StoreFailed, False),
    ],
)
@pytest.mark.parametrize("stage", ["block.inside", "block.named"])
def test_a_disk_that_fails_leaves_nothing_of_a_block(
    tmp_path: Path, store: SqliteStore, stage: str, code: int, expected: type[Exception], usable: bool
) -> None:
    """While it is written, and when it has its name already; the handle goes on, or refuses everything."""
    before = files(tmp_path)
    with armed(stage, raising(OSError(code, os.strerror(code)))), pytest.raises(expected):
        store.put(SECOND)
    assert files(tmp_path) == before
    assert threading.active_count() == 1
    if usable:
        assert store.get(store.put(SECOND)) == SECOND
    else:
        with pytest.raises(StoreFailed):
            store.put(SECOND)


def test_a_block_that_is_there_needs_no_room(tmp_path: Path, store: SqliteStore) -> None:
    """The disk is full; what is on it already can be put all the same, and nothing is written."""
    before = files(tmp_path)
    with armed("block.inside", raising(OSError(errno.ENOSPC, "full"))) as arrivals:
        assert store.get(store.put(FIRST)) == FIRST
    assert arrivals["block.inside"] == 1
    assert files(tmp_path) == before
    assert store.journal.size == 1


def test_an_interruption_leaves_nothing_of_a_block(tmp_path: Path, store: SqliteStore) -> None:
    """Ctrl-C while it is hashed, or behind that: no draft, no thread, and the same put goes well afterwards."""
    before = files(tmp_path)
    for stage in ("block.inside", "block.named", "block.durable"):
        with armed(stage, raising(KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
            store.put(SECOND)
        assert files(tmp_path) == before
        assert threading.active_count() == 1
    assert store.get(store.put(SECOND)) == SECOND


def test_the_first_put_of_a_life_makes_the_folders_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that it finds: the life that made them may have ended before the disk knew of them."""
    told: list[Path] = []
    fsync = os.fsync

    def tell_fsync(descriptor: int) -> None:
        fsync(descriptor)
        told.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", tell_fsync)
    blobs = tmp_path / "blobs"
    with SqliteStore(tmp_path, create=True, key=KEY) as store:
        with monkeypatch.context() as patch:
            patch.setattr("tidewarp.store.blocks.sync_folder", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.put(FIRST)  # the folders are there now, as a crash would leave them
        assert len(list(blobs.iterdir())) == 256
        assert blobs not in told
    (blobs / "7f").rmdir()
    for data in (FIRST, SECOND):
        with SqliteStore(tmp_path) as store:
            told.clear()
            store.put(data)
            assert told[:2] == [blobs, tmp_path]
            assert len(told) == 4, "then the block and its name"
            told.clear()
            store.put(data + b"more")
            assert not {blobs, tmp_path} & {*told}
    assert len(list(blobs.iterdir())) == 256
