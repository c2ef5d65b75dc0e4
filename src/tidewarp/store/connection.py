"""Connections to a journal file, and what their errors mean to the caller."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from tidewarp.errors import Corrupt, InternalError, OperatorError, StoreFailed, StoreFull, StoreLocked, TidewarpError

__all__ = [
    "DATABASE_ERRORS",
    "NO_VALUE",
    "SHORT_BYTES",
    "Blob",
    "bad",
    "blob",
    "connect",
    "connect_read_only",
    "failure",
    "has_wal",
    "is_sealed",
    "pragma",
    "set_durable",
    "widen_cache",
]

DATABASE_ERRORS = (sqlite3.Error, UnicodeError, MemoryError)
"""What the sqlite3 module raises for a bad file: it shows messages that quote the file's bytes as UTF-8, and
turns SQLITE_NOMEM, which a damaged length may cause, into MemoryError."""

Blob = bytearray
"""What hot statements bind in place of short bytes. The sqlite3 module looks for an adapter of each bytes and each None that
it binds, and not of these (nor of int and str), which takes longer than the copy."""

SHORT_BYTES = 4_096
"""Beyond them the copy takes longer."""

NO_VALUE = ""
"""What they bind in place of None, to be written as ``nullif(?, '')``."""

_NOT_ALLOWED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TAKEN = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(path: Path) -> sqlite3.Connection:
    """A connection for the writer; makes an empty file if there is none. Raises DATABASE_ERRORS."""
    return _connect(path, "mode=rwc")


def connect_read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that never writes the file. ``immutable``: nobody else does either, as long as it is open.

    SQLite reads a database in WAL mode through two files beside it, and makes them if they are missing; where
    it may not, only an immutable file can be read. Raises DATABASE_ERRORS.
    """
    return _connect(path, "mode=ro&immutable=1" if immutable else "mode=ro")


def has_wal(path: Path) -> bool:
    """Are there commits that are not yet in the file itself?"""
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except OSError:
        return False


def is_sealed(path: Path) -> bool:
    """Whether the database can be read only as one that nobody writes: its -wal cannot be made, and holds nothing.

    So lies a journal that was closed in a folder without write permission, or on a medium that is mounted read-only. An
    empty -wal file that was copied with it changes nothing; one with an index (-shm) beside it may be a live writer's.
    """
    if has_wal(path) or os.access(path.parent, os.W_OK):
        return False
    return not (os.path.exists(f"{path}-wal") and os.path.exists(f"{path}-shm"))


def set_durable(db: sqlite3.Connection, path: Path) -> None:
    """Commits are in the write-ahead log, and fsynced, before they return. NORMAL would lose them with the power."""
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    db.execute("PRAGMA synchronous = FULL")
    if mode != "wal" or pragma(db, "synchronous") != 2:
        raise OperatorError(str(path), "this file system has no write-ahead log", "keep the journal on a local disk")


def widen_cache(db: sqlite3.Connection) -> None:
    """Let a transaction change 16 MiB of pages before SQLite writes some of them ahead, only to write them again at the commit.

    A thousand payloads of 1 KiB change 1.5 MiB one behind the other, and a page of the index by names for nearly each of them.
    """
    db.execute("PRAGMA cache_size = -16384")


def blob(data: bytes) -> bytes | bytearray:
    """A :data:`Blob` of bytes that are short, and the bytes where the copy would take longer."""
    return Blob(data) if len(data) <= SHORT_BYTES else data


def bad(path: str, where: str, rule: str, seq: int | None = None) -> Corrupt:
    """The error for bytes that are not what was written."""
    return Corrupt(f"{path}: {where}", rule, "restore the file from a copy", seq)


def pragma(db: sqlite3.Connection, name: str) -> Any:
    """The value of a pragma."""
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def failure(error: Exception, path: Path | str, where: str, seq: int | None = None) -> TidewarpError:
    """What ``error``, met at ``where`` (a record, a table, a page), means to the caller."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    said = f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    if primary == sqlite3.SQLITE_FULL:
        return StoreFull(f"{path}: {where}", said, "make room; nothing of this was written, the journal stays usable")
    if primary == sqlite3.SQLITE_NOTADB:
        return bad(str(path), "page 1", f"not a journal: {said}", seq)
    if primary in _DAMAGED or (code is None and isinstance(error, sqlite3.OperationalError | UnicodeError)):
        return bad(str(path), where, said, seq)  # without a code: Python could not decode a text
    if primary in _NOT_ALLOWED:
        action = (
            "check permissions; if there is a -wal file, copy it with the journal to a directory that may be written"
        )
        return OperatorError(f"{path}: {where}", said, action)
    if primary in _TAKEN:
        return StoreLocked(f"{path}: {where}", f"another program holds the database: {said}", "end it")
    if code is None and not isinstance(error, MemoryError):
        return InternalError(f"{path}: {where}", said, "report this")
    return StoreFailed(
        f"{path}: {where}", said, "what the disk holds is unknown: check the disk, open the journal again and verify it"
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None, check_same_thread=False)
    try:
        # A file may come from anybody: no functions out of its schema, cells checked before they are used.
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
    except DATABASE_ERRORS:
        db.close()
        raise
    return db
