"""Disks under real stores, for tests: a store that dies before its n-th write, and what its disk holds then.

Each site of a simulated federation has one. An *image* is what a disk holds: it outlives the process, may be an old one
(a backup), and a store is started from it. Nothing here decides by chance: whoever asks for a fault says which.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

from tidewarp.codec import ed25519
from tidewarp.errors import StoreFailed
from tidewarp.store import MemoryStore, Settings, SqliteStore, Store
from tidewarp.store.connection import DATABASE_ERRORS

__all__ = ["Death", "Disk", "FileDisk", "FileImage", "MemoryDisk", "seed_of", "signatures_once"]

INLINE_MAX = 32  # payload bytes: most artifacts of a test are kept as blocks then
PAGES_MAX = 0x3FFF_FFFF  # of SQLite: no bound


def seed_of(number: int) -> bytes:
    """The private key of site ``number``."""
    return hashlib.sha256(b"site %d" % number).digest()


@contextmanager
def signatures_once() -> Iterator[None]:
    """Make and check each signature once: Ed25519 is deterministic, and every site checks what every other has checked."""
    with ExitStack() as stack:
        for function in (ed25519.sign, ed25519.is_signed, ed25519.public_key_of):
            once = lru_cache(maxsize=8_192)(function)
            for name, module in list(sys.modules.items()):
                if name.startswith("tidewarp.") and getattr(module, function.__name__, None) is function:
                    stack.enter_context(patch.object(module, function.__name__, once))
        yield


class Death(BaseException):
    """The process is gone: no code of the package may catch this."""


class Disk(Protocol):
    """A disk and the store on it."""

    store: Any

    def start(self, image: Any) -> None:
        """Put ``image`` on the disk, and open the store; whoever had it open is dead."""

    def image(self) -> Any:
        """What the disk holds now, or held when the store died."""

    def arm(self, write: int) -> None:
        """Die before write number ``write`` from here on, or right behind a commit; 0: live."""

    def restart(self) -> None:
        """Open the store again: closed in order before, or dead."""

    def end(self) -> None:
        """Let go of everything."""


class _Countdown:
    """Counts writes down to the death."""

    def __init__(self) -> None:
        self.left = 0
        self.is_dead = False

    def step(self, at_death: Callable[[], None] = lambda: None) -> None:
        """A write follows, or a commit is done. Raises Death."""
        if self.is_dead:
            raise Death
        if self.left:
            self.left -= 1
            if not self.left:
                self.is_dead = True
                at_death()
                raise Death


class _Mortal(MemoryStore):
    """A store in memory that can die. Its state is its disk: a transaction is in it as a whole."""

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed=seed)
        self.countdown = _Countdown()

    @contextmanager
    def _writing(self, call: str) -> Iterator[Any]:
        self.countdown.step()
        with super()._writing(call) as state:
            yield state
        if not self._in_transaction:
            self.countdown.step()  # durable, and nobody has been told


class _Table(NamedTuple):
    """A table of an upper layer, as it was made and filled."""

    name: str
    ddl: str
    rows: list[tuple[Any, ...]]


def _tables(db: sqlite3.Connection | None) -> list[_Table]:
    if db is None:
        return []
    made = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    return [_Table(name, ddl, db.execute(f"SELECT * FROM {name}").fetchall()) for name, ddl in made]


def _filled(db: sqlite3.Connection | None, tables: list[_Table]) -> sqlite3.Connection:
    """A database with these tables and no others: ``db``, or a new one where that has others."""
    if db is not None and db.in_transaction:
        db.execute("ROLLBACK")
    made = [] if db is None else db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    if db is None or made != [(one.name, one.ddl) for one in tables]:
        if db is not None:
            db.close()
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for one in tables:
            db.execute(one.ddl)
    for one in tables:
        db.execute(f"DELETE FROM {one.name}")
        if one.rows:
            db.executemany(f"INSERT INTO {one.name} VALUES ({', '.join('?' * len(one.rows[0]))})", one.rows)
    return db


class MemoryDisk:
    """The :class:`Disk` of a store in memory."""

    def __init__(self, number: int) -> None:
        self._seed = seed_of(number)
        self.store = _Mortal(self._seed)

    def start(self, image: tuple[Any, list[_Table]]) -> None:
        """As the protocol says. The connection stays: most of what a short run would pay is compiling its statements."""
        state, tables = image
        self._open(state.copy(), _filled(self.store._db, tables))

    def image(self) -> tuple[Any, list[_Table]]:
        """As the protocol says."""
        return self.store._state.copy(), _tables(self.store._db)

    def arm(self, write: int) -> None:
        """As the protocol says."""
        self.store.countdown.left = write

    def restart(self) -> None:
        """As the protocol says."""
        self._open(self.store._state, self.store._db)

    def end(self) -> None:
        """As the protocol says."""
        if self.store._db is not None:
            self.store._db.close()

    def _open(self, state: Any, db: sqlite3.Connection | None) -> None:
        self.store = _Mortal(self._seed)
        self.store._state, self.store._db = state, db


class FileImage(NamedTuple):
    """A database and its write-ahead log. ``synced``: how many bytes of the log were fsynced; the rest a power cut may take."""

    database: bytes
    log: bytes
    synced: int

    def cut(self, kept: int, garbled: int) -> FileImage:
        """After a power cut: of what was not fsynced so many bytes are left, and so many of these are not what was written."""
        tail = self.log[self.synced :][:kept]
        start = max(0, len(tail) - garbled)
        log = self.log[: self.synced] + tail[:start] + bytes(one ^ 0x5A for one in tail[start:])
        return FileImage(self.database, log, len(log))

    def flipped(self, bit: int) -> FileImage:
        """With one bit of the database changed; the log has to be empty."""
        assert not self.log
        place, shift = divmod(bit % (8 * len(self.database)), 8)
        data = bytearray(self.database)
        data[place] ^= 1 << shift
        return self._replace(database=bytes(data))


class _Writer:
    """The connection that writes, between the store and SQLite."""

    def __init__(self, db: sqlite3.Connection, disk: FileDisk) -> None:
        self._db = db
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Count it, if it writes."""
        if statement.startswith(("SELECT", "PRAGMA")):
            return self._db.execute(statement, *values)
        self._disk.before(statement)
        cursor = self._db.execute(statement, *values)
        if statement == "COMMIT":
            self._disk.committed()
        return cursor

    def executemany(self, statement: str, values: Any) -> sqlite3.Cursor:
        """Count it."""
        self._disk.before(statement)
        return self._db.executemany(statement, values)


class FileDisk:
    """The :class:`Disk` of a store in a file. ``folder`` is its own; a disk in memory is as good and faster."""

    def __init__(self, number: int, folder: Path) -> None:
        self._path = folder / f"{number}.tw"
        self._seed = seed_of(number)
        self.store: Store
        self._countdown = _Countdown()
        self._at_death: FileImage | None = None
        self._synced = 0
        self._fsync_fails: bool | None = None
        if not self._path.exists():
            SqliteStore(self._path, create=True, settings=Settings(None, INLINE_MAX), key=self._seed).close()
        self._opened = False
        self._open()

    def start(self, image: FileImage) -> None:
        """As the protocol says. Raises what opening it raises: the image may be a damaged one."""
        self._abandon()
        self._path.write_bytes(image.database)
        Path(f"{self._path}-shm").unlink(missing_ok=True)
        if image.log:
            Path(f"{self._path}-wal").write_bytes(image.log)
        else:
            Path(f"{self._path}-wal").unlink(missing_ok=True)
        self._open()

    def image(self) -> FileImage:
        """As the protocol says."""
        if self._at_death is not None:
            return self._at_death
        log = Path(f"{self._path}-wal")
        data = log.read_bytes() if log.exists() else b""
        return FileImage(self._path.read_bytes(), data, min(self._synced, len(data)))

    def arm(self, write: int) -> None:
        """As the protocol says."""
        self._countdown.left = write

    def restart(self) -> None:
        """As the protocol says."""
        if self._at_death is not None:
            self.start(self._at_death)
            return
        self._opened = False
        self.store.close()
        self._open()

    def rest(self) -> FileImage:
        """Close the store in order; what the disk holds then. It is to be started again."""
        self._opened = False
        self.store.close()
        self._synced = 0
        return self.image()

    def end(self) -> None:
        """As the protocol says."""
        self._abandon()

    # --- faults

    def fill(self, pages: int) -> None:
        """There is room for so many pages of 4 KiB more."""
        (used,) = self.store._db.execute("PRAGMA page_count").fetchone()
        self.store._db.execute(f"PRAGMA max_page_count = {used + pages}")

    def make_room(self) -> None:
        """There is room again."""
        if self._opened:
            self.store._db.execute(f"PRAGMA max_page_count = {PAGES_MAX}")

    def fail_fsync(self, *, is_written: bool) -> None:
        """The next COMMIT fails in its fsync; what it wrote is on the disk or not."""
        self._fsync_fails = is_written

    # --- what the writer tells

    def before(self, statement: str) -> None:
        """The store is about to run a statement that writes. Raises Death, or an error of SQLite."""
        self._countdown.step(self._die)
        if statement == "COMMIT" and self._fsync_fails is not None:
            is_written, self._fsync_fails = self._fsync_fails, None
            if is_written:
                self.store._db.execute("COMMIT")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
            raise error

    def committed(self) -> None:
        """A COMMIT is done: it was fsynced if the connection does that. Raises Death."""
        (synchronous,) = self.store._db.execute("PRAGMA synchronous").fetchone()
        if synchronous == 2:  # FULL
            self._synced = os.stat(f"{self._path}-wal").st_size
        self._countdown.step(self._die)

    def _die(self) -> None:
        self._at_death = self.image()

    def _open(self) -> None:
        self._at_death = None
        self._fsync_fails = None
        self._countdown = _Countdown()
        self.store = SqliteStore(self._path)
        self._opened = True
        log = Path(f"{self._path}-wal")
        self._synced = log.stat().st_size if log.exists() else 0  # it was there before, whatever it is worth
        self.store._handle.writer = _Writer(self.store._db, self)

    def _abandon(self) -> None:
        """End the handle as the end of its process would: nothing more is written that anybody looks at."""
        if self._opened:
            self._opened = False
            self.store._handle.failed = StoreFailed(str(self._path), "its process is dead", "start another")
            with suppress(Death, *DATABASE_ERRORS):
                self.store._opened.close()
