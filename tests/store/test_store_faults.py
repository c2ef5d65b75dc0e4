"""The process ends, the disk is full, the disk fails: at every step, what was acknowledged is there."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import pytest
from own_process import python

from forked import forked
from tidewarp.codec import INPUT, timed_body
from tidewarp.codec.artifacts import Artifact
from tidewarp.errors import Corrupt, StoreFailed, StoreFull, StoreLocked
from tidewarp.store import Entry, SqliteStore, check_file, open_store
from tidewarp.testing import armed, die, hearing, raising


def big(count: int) -> list[Entry]:
    return [Entry(INPUT, timed_body(n, bytes(1000))) for n in range(count)]


def crash(path: Path, stage: str, call: str) -> None:
    """Append three records, and die at a stage of the five behind them."""
    journal = open_store(path, create=True).journal
    for n in range(3):
        journal.append([Entry(INPUT, timed_body(n, b"kept"))], cursors={"s": b"%d" % n})
    new = [Entry(INPUT, timed_body(9, b"new"))] * 5
    with armed(stage, die):
        if call == "append":
            journal.append(new, cursors={"s": b"new"})
        else:
            journal.submit(new, cursors={"s": b"new"}).result()


@pytest.mark.parametrize("call", ["append", "submit"])
@pytest.mark.parametrize(
    ("stage", "there"), [("journal.inside", False), ("journal.commit", False), ("journal.after", True)]
)
def test_a_crash_leaves_a_transaction_whole_or_absent(
    tmp_path: Path, require: Callable[[str], None], stage: str, there: bool, call: str
) -> None:
    """Records and cursors together: before COMMIT none of them, after it all; and the journal goes on."""
    require("fork")
    path = tmp_path / "j.tw"
    assert forked(lambda: crash(path, stage, call)) == -signal.SIGKILL
    assert check_file(path).records == (8 if there else 3)
    with open_store(path) as store:
        assert store.journal.size == (8 if there else 3)
        assert store.journal.cursor("s") == (b"new" if there else b"2")
        store.journal.append(big(1))
    assert check_file(path).records == (9 if there else 4)


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []
    with (
        SqliteStore(tmp_path / "j.tw", create=True) as store,
        hearing(lambda name, _: heard.append((name, store.journal.size))),
    ):
        store.journal.append(big(2))
    assert heard == [("journal.inside", 0), ("journal.commit", 0), ("journal.after", 2)]


@pytest.mark.parametrize(("stage", "records"), [("journal.inside", 1), ("journal.commit", 1), ("journal.after", 3)])
def test_an_interruption_leaves_a_usable_handle(tmp_path: Path, stage: str, records: int) -> None:
    """Ctrl-C around COMMIT: the handle knows what is durable, and goes on from there."""
    with SqliteStore(tmp_path / "j.tw", create=True) as store:
        store.journal.append(big(1))
        with armed(stage, raising(KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
            store.journal.append(big(2))
        assert store.journal.size == records
        assert store.journal.append(big(1)).first_seq == records + 1
    assert check_file(tmp_path / "j.tw").records == records + 1


def test_a_full_disk_rolls_back_and_the_store_stays_usable(tmp_path: Path) -> None:
    """SQLITE_FULL: nothing of the batch is there, what was acknowledged is, and with room it goes on."""
    path = tmp_path / "j.tw"
    with SqliteStore(path, create=True) as store:
        first = store.journal.append(big(3), cursors={"s": b"3"})
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreFull, match="record 4") as caught:
            store.journal.append(big(100), cursors={"s": b"103"})
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert caught.value.__cause__.sqlite_errorcode == sqlite3.SQLITE_FULL
        assert (store.journal.size, store.journal.head, store.journal.cursors()) == (3, first.head, {"s": b"3"})
        assert len(list(store.journal.read())) == 3
        store._db.execute("PRAGMA max_page_count = 1000000")
        assert store.journal.append(big(100)).first_seq == 4
    assert check_file(path).records == 103


def test_behind_a_full_disk_no_submission_is_written(tmp_path: Path) -> None:
    """The batch that does not fit fails, the small ones behind it too although they would fit; then, in order, all of them."""
    path = tmp_path / "j.tw"
    with SqliteStore(path, create=True) as store:
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        futures = [store.journal.submit(big(count)) for count in (100, 1, 1)]
        assert not wait(futures, 60).not_done  # which does not look at the outcomes
        futures.append(store.journal.submit(big(1)))
        with pytest.raises(StoreFull) as caught:
            futures[0].result()
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert caught.value.__cause__.sqlite_errorcode == sqlite3.SQLITE_FULL
        assert [type(one.exception()) for one in futures[1:]] == [StoreFull] * 3
        assert store.journal.size == 0
        store._db.execute("PRAGMA max_page_count = 1000000")
        again = [store.journal.submit(big(count)) for count in (100, 1, 1, 1)]
        assert [one.result().first_seq for one in again] == [1, 101, 102, 103]


IO_ERROR = """
import resource, sqlite3, sys
from tidewarp.codec import INPUT, timed_body
from tidewarp.errors import StoreFailed
from tidewarp.store import Entry, open_store

path, call = sys.argv[1:]
store = open_store(path, create=True)
journal = store.journal
def batch(count): return [Entry(INPUT, timed_body(0, bytes(1000)))] * count
kept = journal.append(batch(3), cursors={"s": b"3"}).last_seq
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for _ in range(1000):
        appended = journal.append(batch(20)) if call == "append" else journal.submit(batch(20)).result()
        kept = appended.last_seq
except StoreFailed as error:
    print(kept, error.__cause__.sqlite_errorname)
for refused in (lambda: journal.append(batch(1)), lambda: journal.submit(batch(1)), lambda: journal.read(),
                lambda: journal.size, lambda: journal.cursors()):
    try: refused()
    except StoreFailed: print("refused")
store.close()
"""


@pytest.mark.parametrize("call", ["append", "submit"])
def test_a_write_error_ends_the_handle_and_loses_nothing(tmp_path: Path, call: str) -> None:
    """SQLITE_IOERR_WRITE, really met: the handle refuses all; acknowledged records are read by the next."""
    path = tmp_path / "j.tw"
    process = python(IO_ERROR, path, call)
    assert process.stderr == ""
    first, *rest = process.stdout.splitlines()
    kept, code = first.split()
    assert code == "SQLITE_IOERR_WRITE"
    assert rest == ["refused"] * 5
    with open_store(path) as store:
        assert store.journal.size >= int(kept) > 3
        assert len(list(store.journal.read())) == store.journal.size
        assert store.journal.cursor("s") == b"3"
    check_file(path)


def test_a_block_and_its_name_are_durable_before_what_refers_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file and the folder of its file are fsynced, then the transaction commits; also of a block that is there."""
    told: list[str] = []
    fsync = os.fsync

    def tell_fsync(descriptor: int) -> None:
        fsync(descriptor)
        told.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    (tmp_path / "A").mkdir()
    with SqliteStore(tmp_path / "A", create=True) as store:
        store.put(bytes(200_000))  # makes the folders
        monkeypatch.setattr(os, "fsync", tell_fsync)
        for tag in (None, 7):  # the second artifact has the same block
            told.clear()
            with hearing(lambda name, _: told.append(name)):
                ref = store.put(bytes(1 << 20), tag=tag)
            digits = Artifact(bytes(1 << 20)).reference().digest.hex()
            block = tmp_path / "A" / "blobs" / digits[:2] / digits[2:]
            assert tag is not None or ref.digest.hex() == digits
            written = ["block.inside", *(["block.named"] if tag is None else [])]  # the second draft is not needed
            end = told.index("block.after")
            assert told[: len(written)] == written
            assert {*told[len(written) : end]} == {str(block), "block.durable", str(block.parent)}
            assert told[end:] == ["block.after", "journal.inside", "journal.commit", "journal.after"]
            assert len([one for one in (tmp_path / "A" / "blobs").rglob("*") if one.is_file()]) == 2


class Broken:
    """A connection whose statements of one kind end with an error of SQLite."""

    def __init__(self, db: sqlite3.Connection, word: str, code: int) -> None:
        self._db, self._word, self._code = db, word, code

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement.startswith(self._word):
            error = sqlite3.OperationalError("planted")
            error.sqlite_errorcode, error.sqlite_errorname = self._code, "PLANTED"
            raise error
        return self._db.execute(statement, *values)


@pytest.mark.parametrize(
    ("code", "expected", "usable"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, StoreFailed, False),
        (sqlite3.SQLITE_IOERR, StoreFailed, False),
        (sqlite3.SQLITE_FULL, StoreFull, True),
        (sqlite3.SQLITE_BUSY, StoreLocked, True),
        (sqlite3.SQLITE_CORRUPT, Corrupt, True),
        (sqlite3.SQLITE_NOMEM, StoreFailed, False),
    ],
)
def test_errors_at_commit(tmp_path: Path, code: int, expected: type[Exception], usable: bool) -> None:
    """An error of COMMIT itself: no acknowledgement, never a bare error of SQLite, and the right class."""
    with SqliteStore(tmp_path / "j.tw", create=True) as store:
        journal = store.journal
        store._handle.writer = Broken(store._db, "COMMIT", code)  # type: ignore[assignment]
        with pytest.raises(expected):
            journal.append(big(1), cursors={"s": b""})
        store._handle.writer = store._db
        if usable:
            assert (journal.size, journal.cursors()) == (0, {})
            assert journal.append(big(1)).last_seq == 1
        else:
            with pytest.raises(StoreFailed):
                journal.append(big(1))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_is_removed_is_not_written_on(tmp_path: Path, replaced: bool) -> None:
    """What would be acknowledged then, nobody would ever find: the append that comes next fails, and all others."""
    path = tmp_path / "a.tw"
    with open_store(path, create=True) as store:
        store.journal.append(big(1))
        if replaced:
            (tmp_path / "b").write_bytes(path.read_bytes())
            (tmp_path / "b").replace(path)
        else:
            path.unlink()
        for _ in range(2):
            with pytest.raises(StoreFailed, match="removed or replaced"):
                store.journal.append(big(1))


def test_another_holder_of_the_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "j.tw"
    with SqliteStore(path, create=True) as store:
        store._db.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match="another program"):
            store.journal.append(big(1))
        other.execute("ROLLBACK")
        other.close()
        assert store.journal.append(big(1)).last_seq == 1


def test_what_failed_first_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a store can often not be closed either, which says "nothing is lost": not of what was to be written."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"

    def at_the_end(store: SqliteStore, act: Callable[[], None]) -> None:
        store._opened.close()
        monkeypatch.setattr(store._opened, "close", raising(full))
        act()

    with pytest.raises(StoreFull, match="nothing is lost"), SqliteStore(tmp_path / "j.tw", create=True) as store:
        at_the_end(store, lambda: None)
    first = StoreFull("j.tw: record 7", "database or disk is full", "make room; nothing of this was written")
    with pytest.raises(StoreFull, match="record 7") as raised, SqliteStore(tmp_path / "j.tw") as store:
        at_the_end(store, raising(first))
    (note,) = raised.value.__notes__
    assert "nothing is lost" in note
