"""Verify a journal file as an auditor does, trusting nothing that it says of itself."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tidewarp.codec import INPUT, genesis
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, Corrupt, OperatorError
from tidewarp.store.artifacts import INLINE_MAX, ArtifactTable
from tidewarp.store.blocks import BlockFiles, BlockRows
from tidewarp.store.connection import DATABASE_ERRORS, bad, connect_read_only, failure, has_wal, pragma
from tidewarp.store.files import Place, locate
from tidewarp.store.handle import Handle
from tidewarp.store.rows import OWN, ROW, STUB_ROW, RowCheck, log_id
from tidewarp.store.schema import JOURNAL_FORMAT, DomainRow, check_format, check_schema, read_domains
from tidewarp.store.spans import level_of

__all__ = ["Checked", "check_file"]


class Checked(NamedTuple):
    """What a whole journal is: the number of its records, the hash of the last, its domain (32 bytes each)."""

    records: int
    head: bytes
    domain: bytes


def check_file(path: str | os.PathLike[str]) -> Checked:
    """Verify what a store holds: identity, tables, records and chains of all domains, bytes of artifacts, indices, pages.

    A flipped bit is found, wherever it changes what a record or an artifact is. What follows from the records (indices
    of artifacts and edges, trees) is not made anew here. And nothing in the file repeats a cursor. One that cannot be read is found here; one with another value only by the layer that knows what its
    source's records say, and which gets it from ``cursors()``. Nor can a file know of records that were cut
    off its end, in the tables or with its -wal: compare ``records`` and ``head`` with what you saw before.
    May stand beside a live writer. Takes no lock, writes nothing.

    Raises:
        OperatorError: missing, or not permitted.
        Corrupt: names the first bad record (``seq``), table or page.
    """
    place = locate(path, create=False, read_only=True)
    file = place.database
    # Without a -wal file the journal is read as immutable, which leaves no files beside it. A writer
    # that came in the meantime shows itself; then it is read again, as one reads beside a writer.
    before = _stamp(file)
    if not has_wal(file):
        try:
            checked = _check(place, immutable=True)
        except Corrupt:
            if _stamp(file) == before:
                raise
        else:
            if _stamp(file) == before:
                return checked
    return _check(place, immutable=False)


def _stamp(file: Path) -> tuple[int, int, bool]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, has_wal(file)


def _check(place: Place, *, immutable: bool) -> Checked:
    walk = _Walk(place)
    file = place.database
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

    def __init__(self, place: Place) -> None:
        self._place = place
        self._path = str(place.database)
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
        version = check_format(db, self._path)
        if pragma(db, "encoding") != "UTF-8":
            raise bad(self._path, "page 1", "its text encoding is not UTF-8")
        self._where = "table sqlite_master"
        check_schema(db, self._path)
        self._where = "tables meta and domain"
        own, *others = read_domains(db, self._path)
        for row in (own, *others):
            self._check_log(db, row)
        self._where = "table log"
        self._check_strays(db, 1 + len(others))
        self._check_cursors(db)
        if version != JOURNAL_FORMAT:
            self._check_spans(db, own.size)
            self._check_artifacts(db)
        self._check_pages(db)
        return Checked(own.size, own.head, own.id)

    def _check_log(self, db: sqlite3.Connection, row: DomainRow) -> None:
        no, domain, size, head = row
        self._rows = rows = RowCheck(self._path, domain, 1, genesis(domain), no)
        columns = ROW if no == OWN else STUB_ROW
        span = log_id(0, no), log_id(0, no + 1)
        found = db.execute(f"SELECT {columns}, body FROM log WHERE id >= ? AND id < ? ORDER BY id", span)
        deque(rows.walk(islice(found, size)), maxlen=0)
        if rows.seq <= size:
            raise bad(self._path, self.where, "it is missing", rows.seq)
        beyond = next(found, None)
        if beyond is not None:
            raise bad(self._path, "table log", f"row {beyond[0]} is beyond the size {size} that the domain names")
        self._rows = None
        if rows.prev != head:
            raise bad(self._path, "table domain", "its head is not the hash of the last record")

    def _check_strays(self, db: sqlite3.Connection, count: int) -> None:
        """Rows of no domain; the domains have the numbers from 1 to ``count``."""
        span = log_id(0), log_id(0, count + 1)
        stray = db.execute("SELECT id FROM log WHERE id < ? OR id >= ? LIMIT 1", span).fetchone()
        if stray is not None:
            raise bad(self._path, "table log", f"row {stray[0]} is beyond the size that a domain names")

    def _check_cursors(self, db: sqlite3.Connection) -> None:
        self._where = "table source_cursor"
        for source, cursor in db.execute("SELECT source, cursor FROM source_cursor"):
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                raise bad(self._path, self.where, "a row is not a name and its bytes")

    def _check_spans(self, db: sqlite3.Connection, size: int) -> None:
        """Each record of inputs has its row, at its tick. Where it ends, only who knows its inputs can say."""
        self._where = "table span"
        seen = bytearray(size + 1)
        statement = (
            "SELECT level, tick, seq, last, log.kind, log.time FROM span LEFT JOIN log ON log.id = ? | seq"
            " ORDER BY level, tick, seq"
        )
        for level, tick, seq, last, kind, time in db.execute(statement, (log_id(0),)):
            if kind != INPUT or time != tick or seen[seq]:
                raise bad(
                    self._path, self.where, f"row {seq} is not about a record of inputs, or not the only one", seq
                )
            if level != level_of(tick, last) or (last is not None and last < tick):
                raise bad(self._path, self.where, f"the level of row {seq} is not that of its ticks", seq)
            seen[seq] = 1
        count = f"SELECT count(*) FROM log WHERE kind BETWEEN 32 AND 35 AND kind = {INPUT} AND id < ?"
        (inputs,) = db.execute(count, (log_id(0, OWN + 1),)).fetchone()
        if inputs != sum(seen):
            raise bad(self._path, self.where, f"it has {sum(seen)} rows, and there are {inputs} records of inputs")

    def _check_artifacts(self, db: sqlite3.Connection) -> None:
        self._where = "table artifact"
        handle = Handle(self._place.database, db, None)
        blocks = BlockRows(handle) if self._place.blocks is None else BlockFiles(self._place.blocks, handle)
        artifacts = ArtifactTable(handle, blocks, INLINE_MAX, None)
        for (name,) in db.execute("SELECT ref FROM artifact WHERE state != 1 ORDER BY no"):
            try:
                artifacts.verify(Reference.from_bytes(name))
            except (Corrupt, CodecError) as error:
                raise bad(self._path, f"table artifact, {error.value}", error.rule) from error

    def _check_pages(self, db: sqlite3.Connection) -> None:
        self._where = "pages"
        said = [str(row[0]) for row in db.execute("PRAGMA integrity_check(1)")]
        if said != ["ok"]:
            text = " ".join(" ".join(said).split())
            raise bad(self._path, f"a page or an index ({text})", "the database's own check fails")
