"""Files, handles and what stands beside a journal: opening, locking, reading, sizes, fork."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import tidewarp.errors
from tidewarp.codec import INPUT, domain_of, genesis, timed_body
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import Corrupt, InternalError, OperatorError, StoreLocked
from tidewarp.store import Entry, MemoryStore, SqliteStore, Store, check_file, open_store
from tidewarp.store.connection import is_sealed
from tidewarp.store.described import describe

SOURCES = str(Path(tidewarp.errors.__file__).parents[1])


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCES, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def entries(count: int) -> list[Entry]:
    return [Entry(INPUT, timed_body(n, b"%d" % n)) for n in range(count)]


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


AS_NOBODY = """
import os
def become_nobody():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A directory that other users reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed journal of three records and one cursor."""
    path = tmp_path / "j.tw"
    with open_store(path, create=True) as store:
        store.journal.append(entries(3), cursors={"s": b"3"})
    return path


KILLED = """
import os, sys
from tidewarp.codec import INPUT, timed_body
from tidewarp.store import Entry, open_store
store = open_store(sys.argv[1], create=True)
for n in range(int(sys.argv[2])):
    store.journal.append([Entry(INPUT, timed_body(n, b"killed"))])
os._exit(9)
"""


def test_memory_is_a_name() -> None:
    with open_store(":memory:") as store:
        assert isinstance(store, MemoryStore)
        assert store.journal.append(entries(2)).last_seq == 2


def test_an_empty_journal_is_whole(tmp_path: Path) -> None:
    with open_store(tmp_path / "j.tw", create=True) as store:
        domain = store.journal.domain
    assert check_file(tmp_path / "j.tw") == (0, genesis(domain), domain)


def test_the_domain_is_that_of_the_key(path: Path) -> None:
    """32 raw bytes of an Ed25519 seed, readable by the owner alone."""
    key = Path(f"{path}.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with open_store(path) as store:
        assert store.journal.domain == domain_of(public_key_of(key.read_bytes()))


def test_a_closed_file_stands_alone(path: Path, tmp_path: Path) -> None:
    """No -wal, no -shm; the file alone, elsewhere, is the journal."""
    assert names(path.parent) == {"j.tw", "j.tw.key", "j.tw.lock"}
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    shutil.copy(path, copy / "c.tw")
    assert check_file(copy / "c.tw") == check_file(path)
    assert names(copy) == {"c.tw"}


def test_a_file_closed_beside_a_reader_stands_alone_too(path: Path, tmp_path: Path) -> None:
    """The writer is not the last to close, so SQLite would leave its records in the -wal file."""
    with open_store(path, read_only=True) as reader:
        assert reader.journal.size == 3
        with open_store(path) as store:
            store.journal.append(entries(2))
        alone = Path(shutil.copy(path, tmp_path / "alone.tw"))
        assert check_file(alone).records == 5
        assert reader.journal.size == 5


def test_identity_is_written_before_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation that ends before the database begins leaves a key, and the next one uses it."""

    def end(_: Path) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "j.tw"
    with monkeypatch.context() as patch:
        patch.setattr("tidewarp.store.opening.connect", end)
        with pytest.raises(KeyboardInterrupt):
            open_store(path, create=True)
    seed = Path(f"{path}.key").read_bytes()
    assert not path.exists()
    with open_store(path, create=True) as store:
        assert store.journal.domain == domain_of(public_key_of(seed))


def test_half_a_key_is_made_anew_and_a_strange_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "j.tw"
    Path(f"{path}.key").write_bytes(b"half")
    with open_store(path, create=True):
        assert len(Path(f"{path}.key").read_bytes()) == 32
    other = tmp_path / "k.tw"
    Path(f"{other}.key").write_bytes(bytes(64))
    with pytest.raises(OperatorError, match="32 bytes, this file has more"):
        open_store(other, create=True)


@pytest.mark.parametrize("statement", ["PRAGMA journal_mode = WAL", "CREATE TABLE log", "INSERT INTO meta", "COMMIT"])
def test_an_interrupted_creation_is_finished_by_the_next(tmp_path: Path, statement: str) -> None:
    """The process ends before a statement of the creation: no journal, the same key, and then a whole journal."""
    path = tmp_path / "j.tw"
    script = """
import os, sqlite3, sys
import tidewarp.store.opening as module
from tidewarp.store import SqliteStore
connect = module.connect
def traced(path):
    db = connect(path)
    db.set_trace_callback(lambda text: text.startswith(sys.argv[2]) and os._exit(9))
    return db
module.connect = traced
SqliteStore(sys.argv[1], create=True)
"""
    assert python(script, path, statement).returncode == 9
    with pytest.raises(OperatorError, match="not a tidewarp journal"):
        open_store(path)
    seed = Path(f"{path}.key").read_bytes()
    with open_store(path, create=True) as store:
        assert store.journal.domain == domain_of(public_key_of(seed))
        store.journal.append(entries(1))
    assert check_file(path).records == 1


def test_create_opens_what_is_there(path: Path) -> None:
    key = Path(f"{path}.key").read_bytes()
    with open_store(path, create=True) as store:
        assert store.journal.size == 3
    assert Path(f"{path}.key").read_bytes() == key


def test_a_second_writer_is_told_the_pid(path: Path) -> None:
    """In this process and in another; the first one is not disturbed, and afterwards the lock is free."""
    with open_store(path) as store:
        with pytest.raises(StoreLocked, match=f"process {os.getpid()} "):
            open_store(path)
        link = path.parent / "link.tw"
        link.symlink_to(path)
        with pytest.raises(StoreLocked):
            open_store(link)
        script = "import sys; from tidewarp.store import open_store\ntry: open_store(sys.argv[1])\nexcept Exception as e: print(type(e).__name__, e)"
        said = python(script, path).stdout
        assert said.startswith("StoreLocked")
        assert f"process {os.getpid()} " in said
        store.journal.append(entries(1))
    open_store(path).close()


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    """Its records are in the -wal file; the next writer has them."""
    path = tmp_path / "j.tw"
    assert python(KILLED, path, 4).returncode == 9
    assert Path(f"{path}-wal").stat().st_size
    with open_store(path) as store:
        assert store.journal.append(entries(1)).first_seq == 5
    assert check_file(path).records == 5


def test_a_fork_does_not_keep_the_lock(path: Path, require: Callable[[str], None]) -> None:
    """A child that outlives its parent holds the open lock file; it must not hold the lock."""
    require("fork")
    script = """
import os, sys
from tidewarp.store import open_store
store = open_store(sys.argv[1])
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent: pass  # the end of a pipe may be seen before the parent's files are all closed
    try: open_store(sys.argv[1]).close()
    except Exception as error: os.write(2, repr(error).encode())
    else: os.write(1, b"free")
    os._exit(0)
os._exit(0)
"""
    process = python(script, path)  # returns when the child, too, has closed its standard output
    assert (process.stdout, process.stderr) == ("free", "")


def test_a_child_is_refused_before_sqlite_sees_it(path: Path, require: Callable[[str], None]) -> None:
    """After fork() each call raises InternalError with its name, and the parent goes on."""
    require("fork")
    script = """
import os, sys
from tidewarp.codec import INPUT, timed_body
from tidewarp.errors import InternalError
from tidewarp.store import Entry, open_store
one = [Entry(INPUT, timed_body(0, b""))]
store = open_store(sys.argv[1])
journal = store.journal
begun = journal.read()
calls = {"append": lambda: journal.append(one), "submit": lambda: journal.submit(one), "read": lambda: journal.read(),
    "size": lambda: journal.size, "head": lambda: journal.head, "cursor": lambda: journal.cursor("s"),
    "cursors": lambda: journal.cursors(), "close": store.close}
pid = os.fork()
if pid == 0:
    for name, call in [*calls.items(), ("read", lambda: next(begun))]:
        try: call()
        except InternalError as error: print(error.value)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
journal.append(one)
store.close()
"""
    process = python(script, path)
    assert process.stderr == ""
    assert process.stdout.split() == ["append", "submit", "read", "size", "head", "cursor", "cursors", "close", "read"]
    assert check_file(path).records == 4


def test_a_closed_reader_refuses_everything(path: Path) -> None:
    store = open_store(path, read_only=True)
    journal = store.journal
    store.close()
    store.close()
    for call in (lambda: journal.append([]), journal.read, journal.cursors, lambda: journal.cursor("s")):
        with pytest.raises(InternalError, match="closed"):
            call()


def test_what_cannot_be_opened_is_the_operators(path: Path, tmp_path: Path) -> None:
    """Missing, a directory, no place for it, another database, another format: exit 2, and nothing is made."""
    (tmp_path / "empty.tw").touch()
    other = tmp_path / "other.tw"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    newer = tmp_path / "newer.tw"
    shutil.copy(path, newer)
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    before = names(tmp_path)
    for bad in ("missing.tw", "", "no/such/folder.tw", "nul\0.tw"):
        for options in ({}, {"read_only": True}):
            with pytest.raises(OperatorError) as caught:
                open_store(tmp_path / bad, **options)
            assert caught.value.exit_code == 2
    assert names(tmp_path) == before
    with pytest.raises(OperatorError, match="mkdir -p"):
        open_store(tmp_path / "no" / "folder.tw", create=True)
    for read_only in (False, True):
        for bad, rule in (
            (other, "not a tidewarp journal"),
            (tmp_path / "empty.tw", "not a tidewarp journal"),
            (newer, "its format is 3"),
        ):
            with pytest.raises(OperatorError, match=rule) as caught:
                open_store(bad, read_only=read_only)
            assert caught.value.exit_code == 2
    with pytest.raises(OperatorError):
        open_store(path, create=True, read_only=True)
    with pytest.raises(OperatorError, match="not a tidewarp journal"):
        open_store(other, create=True)


def test_the_database_of_a_directory_is_no_store_of_its_own(tmp_path: Path) -> None:
    """It would have another key, another lock and no blocks there: whatever opens it names the folder, and makes nothing."""
    folder, link = tmp_path / "S", tmp_path / "S.tw"
    folder.mkdir()
    open_store(folder, create=True).close()
    shutil.copy(folder / "keys" / "root.key", folder / "store.db.key")
    link.symlink_to(folder / "store.db")
    before = names(folder)
    openings: list[Callable[[Path], object]] = [
        check_file,
        describe,
        open_store,
        lambda path: open_store(path, read_only=True),
        lambda path: open_store(path, create=True),
    ]
    for path in (folder / "store.db", link):
        for opening in openings:
            with pytest.raises(OperatorError) as caught:
                opening(path)
            assert (caught.value.value, caught.value.action) == (str(path), f"name the folder: {folder}")
    with pytest.raises(OperatorError, match="name the folder"):
        open_store(tmp_path / "store.db", create=True)
    assert names(folder) == before
    assert names(tmp_path) == {"S", "S.tw"}


def test_a_file_that_is_no_database_is_not_opened(tmp_path: Path) -> None:
    """Who opens it has given the wrong name (exit 2); who checks it, is told that it is no journal (exit 1)."""
    path = tmp_path / "j.tw"
    path.write_bytes(b"not a database " * 1000)
    for read_only in (False, True):
        with pytest.raises(OperatorError, match=r"page 1: .*not a tidewarp journal") as caught:
            open_store(path, read_only=read_only)
        assert caught.value.exit_code == 2
    with pytest.raises(Corrupt, match="page 1"):
        check_file(path)


def test_without_permission(public_folder: Path, require: Callable[[str], None]) -> None:
    """Another user may neither read a private journal nor write one that everybody may read."""
    require("otheruid")
    path = public_folder / "j.tw"
    open_store(path, create=True).close()
    script = (
        AS_NOBODY
        + """
import sys
from tidewarp.store import check_file, open_store
become_nobody()
for call in (lambda: open_store(sys.argv[1], read_only=True), lambda: check_file(sys.argv[1]), lambda: open_store(sys.argv[1])):
    try: print(call())
    except Exception as error: print(type(error).__name__, error)
"""
    )
    path.chmod(0o600)
    lines = python(script, path).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["OperatorError"] * 3
    path.chmod(0o644)
    assert python(script, path).stdout.splitlines()[2].startswith("OperatorError")


READER = """
import sys
from tidewarp.store import check_file, open_store
with open_store(sys.argv[1], read_only=True) as store:
    print(len(list(store.journal.read())), store.journal.cursors(), check_file(sys.argv[1]).records)
"""


@pytest.mark.parametrize("state", ["closed", "live", "killed"])
def test_reading_in_a_directory_that_cannot_be_written(
    state: str, public_folder: Path, require: Callable[[str], None]
) -> None:
    """Closed, beside a live writer, and what a killed one left in its -wal: all records, and not one file more."""
    require("otheruid")
    path = public_folder / "j.tw"
    store: Store | None = None
    if state == "killed":
        assert python(KILLED, path, 3).returncode == 9
    else:
        store = open_store(path, create=True)
        store.journal.append(entries(3))
    if state == "closed" and store is not None:
        store.close()
    public_folder.chmod(0o555)
    before = names(public_folder)
    process = python(AS_NOBODY + READER.replace("with", "become_nobody()\nwith", 1), path)
    assert (process.stdout, process.stderr) == ("3 {} 3\n", "")
    assert names(public_folder) == before
    if store is not None:
        store.close()


def test_what_a_killed_writer_left_needs_its_index_or_a_directory(
    public_folder: Path, require: Callable[[str], None]
) -> None:
    """A -wal without -shm cannot be read where nothing can be made: said so, not skipped and not called damage."""
    require("otheruid")
    path = public_folder / "j.tw"
    assert python(KILLED, path, 3).returncode == 9
    Path(f"{path}-shm").unlink()
    public_folder.chmod(0o555)
    script = (
        AS_NOBODY
        + """
import sys
from tidewarp.store import check_file, open_store
become_nobody()
for call in (lambda: open_store(sys.argv[1], read_only=True), lambda: check_file(sys.argv[1])):
    try: print(call())
    except Exception as error: print(type(error).__name__, "-wal" in error.action)
"""
    )
    assert python(script, path).stdout.split() == ["OperatorError", "True"] * 2


@pytest.mark.parametrize(
    ("beside", "is_writable", "expected"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"-wal": b""}, False, True),
        ({"-wal": b"", "-shm": b"index"}, False, False),  # a writer that has committed nothing since it began
        ({"-wal": b"frames"}, False, False),
        ({"-wal": b"frames", "-shm": b"index"}, False, False),
    ],
)
def test_what_is_read_as_immutable(
    beside: dict[str, bytes],
    is_writable: bool,
    expected: bool,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what nobody writes and cannot be read in another way. Root may write everywhere, so it is said here."""
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    for end, data in beside.items():
        Path(f"{path}{end}").write_bytes(data)
    monkeypatch.setattr(os, "access", lambda folder, mode: is_writable and (folder, mode) == (path.parent, os.W_OK))
    assert is_sealed(path) is expected


def test_a_reader_makes_no_lock_and_no_key(path: Path) -> None:
    for end in (".lock", ".key"):
        Path(f"{path}{end}").unlink()
    assert python(READER, path).stdout == "3 {'s': b'3'} 3\n"
    assert not names(path.parent) & {"j.tw.lock", "j.tw.key"}


def test_a_reader_follows_a_live_writer(path: Path) -> None:
    """Each call sees what is durable at that time; a read ends at the size that it began with."""
    with open_store(path) as store, open_store(path, read_only=True) as reader:
        assert reader.journal.size == 3
        begun = reader.journal.read()
        store.journal.append(entries(2), cursors={"s": b"5"})
        assert [one.seq for one in begun] == [1, 2, 3]
        assert [one.seq for one in reader.journal.read(after=3)] == [4, 5]
        assert (reader.journal.size, reader.journal.head) == (5, store.journal.head)
        assert reader.journal.cursor("s") == b"5"
        with pytest.raises(OperatorError, match="read-only"):
            reader.journal.append(entries(1))
        with pytest.raises(OperatorError, match="read-only"):
            reader.journal.submit(entries(1))


def test_a_begun_read_holds_no_transaction(path: Path) -> None:
    """A slow reader does not keep the write-ahead log from being moved into the file."""
    with SqliteStore(path) as store, open_store(path, read_only=True) as reader:
        begun = [store.journal.read(), reader.journal.read()]
        assert [next(one).seq for one in begun] == [1, 1]
        store.journal.append(entries(1))
        assert store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        assert [len(list(one)) for one in begun] == [2, 2]


def test_large_bodies_are_read_in_pages_of_bytes(tmp_path: Path) -> None:
    """Reading needs the memory of a few bodies, not of a thousand."""
    with SqliteStore(tmp_path / "j.tw", create=True) as store:
        store.journal.append([Entry(0x80, bytes(1 << 20))] * 12)
        assert len(store.journal._log.page(1, 12, None)) == 4
        assert [one.seq for one in store.journal.read(after=2)] == list(range(3, 13))
        assert [one.seq for one in store.journal.read(kinds={INPUT})] == []


def test_every_commit_is_fsynced(path: Path) -> None:
    """WAL and FULL: NORMAL survives a crash of the process, not of the machine."""
    with SqliteStore(path) as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_writer_does_not_continue_a_damaged_tail(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE log SET hash = zeroblob(32) WHERE id = (SELECT max(id) FROM log)")
    db.close()
    with pytest.raises(Corrupt, match="record 3") as caught:
        open_store(path)
    assert caught.value.seq == 3
    with open_store(path, read_only=True) as store:
        begun = store.journal.read()
        assert [next(begun).seq, next(begun).seq] == [1, 2]
        with pytest.raises(Corrupt, match="record 3"):
            next(begun)


def test_another_program_that_wrote_is_noticed(path: Path) -> None:
    """The head in the file is not the head that this writer would continue."""
    with SqliteStore(path) as store:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("UPDATE domain SET size = 2")
        db.close()
        with pytest.raises(Corrupt, match="another program"):
            store.journal.append(entries(1))


def test_a_trigger_of_somebody_else_is_noticed(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM source_cursor; END")
    db.close()
    for call in (open_store, check_file):
        with pytest.raises(Corrupt, match="sqlite_master"):
            call(path)


def test_importing_the_store_does_not_import_cryptography() -> None:
    script = "import sys, tidewarp.store; print('cryptography' in sys.modules)"
    assert python(script).stdout == "False\n"


def test_a_journal_that_was_copied_without_its_wal_is_not_begun_anew(tmp_path: Path) -> None:
    """After a kill the file alone is an empty page or two: a run that began there would hide that all is lost."""
    with closing(sqlite3.connect(tmp_path / "a.tw")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    assert (tmp_path / "a.tw").stat().st_size > 0
    with pytest.raises(OperatorError, match=r"copied without its -wal file.*copy a.tw-wal and a.tw.key too"):
        SqliteStore(tmp_path / "a.tw", create=True)
    (tmp_path / "empty.tw").touch()
    SqliteStore(tmp_path / "empty.tw", create=True).close()
