"""Verify a journal file as an auditor does, trusting nothing that it says of itself."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tidewarp.codec import genesis
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.store.connection import DATABASE_ERRORS, connect_read_only, failure, has_wal
from tidewarp.store.files import resolve
from tidewarp.store.schema import ROW, RowCheck, bad, check_format, check_schema, pragma, read_domain

__all__ = ["Checked", "check_file"]


class Checked(NamedTuple):
    """What a whole journal is: the number of its records, the hash of the last, its domain (32 bytes each)."""

    records: int
    head: bytes
    domain: bytes


def check_file(path: str | os.PathLike[str]) -> Checked:
    """Verify what a journal stores: identity, tables, records, chain, indices, pages.

    A flipped bit is found, wherever it changes what the tables say, with one exception: nothing in the file repeats a
    cursor. One that cannot be read is found here; one with another value only by the layer that knows what its
    source's records say, and which gets it from ``cursors()``. Nor can a file know of records that were cut
    off its end, in the tables or with its -wal: compare ``records`` and ``head`` with what you saw before.
    May stand beside a live writer. Takes no lock, writes nothing.

    Raises:
        OperatorError: missing, or not permitted.
        Corrupt: names the first bad record (``seq``), table or page.
    """
    file = resolve(path, create=False, read_only=True)
    # Without a -wal file the journal is read as immutable, which leaves no files beside it. A writer
    # that came in the meantime shows itself; then it is read again, as one reads beside a writer.
    before = _stamp(file)
    if not has_wal(file):
        try:
            checked = _check(file, immutable=True)
        except Corrupt:
            if _stamp(file) == before:
                raise
        else:
            if _stamp(file) == before:
                return checked
    return _check(file, immutable=False)


def _stamp(file: Path) -> tuple[int, int, bool]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, has_wal(file)


def _check(file: Path, *, immutable: bool) -> Checked:
    walk = _Walk(file)
    try:
        with closing(connect_read_only(file, immutable=immutable)) as db:
            return walk.run(db)
    except DATABASE_ERRORS as error:
        met = failure(error, file, walk.where, walk.seq)
        if not immutable and type(met) is OperatorError:
            raise met from error  # what a writer left beside the file cannot be read here
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise bad(str(file), walk.where, f"{error} ({name})", walk.seq) from error
    except OperatorError as error:
        if isinstance(error, Corrupt):
            raise
        raise bad(str(file), "page 1", error.rule) from error


class _Walk:
    """One pass over a file. ``where`` and ``seq`` say what was being read when something went wrong."""

    def __init__(self, file: Path) -> None:
        self._path = str(file)
        self._where = "page 1"
        self._rows: RowCheck | None = None

    @property
    def seq(self) -> int | None:
        """The record; None of a table or a page."""
        return None if self._rows is None else self._rows.seq

    @property
    def where(self) -> str:
        """The record, table or page."""
        return self._where if self._rows is None else f"record {self.seq}"

    def run(self, db: sqlite3.Connection) -> Checked:
        db.execute("BEGIN")  # one state of the file, also beside a writer
        check_format(db, self._path)
        if pragma(db, "encoding") != "UTF-8":
            raise bad(self._path, "page 1", "its text encoding is not UTF-8")
        self._where = "table sqlite_master"
        check_schema(db, self._path)
        self._where = "tables meta and domain"
        domain, size, head = read_domain(db, self._path)
        self._check_log(db, domain, size, head)
        self._check_cursors(db)
        self._check_pages(db)
        return Checked(size, head, domain)

    def _check_log(self, db: sqlite3.Connection, domain: bytes, size: int, head: bytes) -> None:
        self._rows = rows = RowCheck(self._path, domain, 1, genesis(domain))
        found = db.execute(f"SELECT {ROW}, body FROM log ORDER BY id")
        deque(rows.walk(islice(found, size)), maxlen=0)
        if rows.seq <= size:
            raise bad(self._path, self.where, "it is missing", rows.seq)
        beyond = next(found, None)
        if beyond is not None:
            raise bad(self._path, "table log", f"row {beyond[0]} is beyond the size {size} that the domain names")
        self._rows = None
        if rows.prev != head:
            raise bad(self._path, "table domain", "its head is not the hash of the last record")

    def _check_cursors(self, db: sqlite3.Connection) -> None:
        self._where = "table source_cursor"
        for source, cursor in db.execute("SELECT source, cursor FROM source_cursor"):
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                raise bad(self._path, self.where, "a row is not a name and its bytes")

    def _check_pages(self, db: sqlite3.Connection) -> None:
        self._where = "pages"
        said = [str(row[0]) for row in db.execute("PRAGMA integrity_check(1)")]
        if said != ["ok"]:
            text = " ".join(" ".join(said).split())
            raise bad(self._path, f"a page or an index ({text})", "the database's own check fails")
