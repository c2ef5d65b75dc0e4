"""Check the tables that follow from the records of all domains: ``event``, ``edge``, ``node``, ``receipt``.

An event says no more than its record: kind, flags, and the reference at a fixed place of the body. So all of them are
compared with ``log`` in one statement, and made anew by one. Edges and receipts are worked out again in a database
that is nobody else's, and compared row by row.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.codec.batches import BODY
from tidewarp.codec.bodies import ARTIFACT, ERASE, ArtifactBody, EdgeBody, ReceiptBody, decode_body
from tidewarp.codec.references import Reference
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import BlockRows
from tidewarp.store.fsck.inspection import Inspection
from tidewarp.store.fsck.names import NAMED
from tidewarp.store.handle import Handle
from tidewarp.store.index import RecordIndex
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.rows import SEQ_BITS, Row, header_of
from tidewarp.store.schema import DomainRow, create_tables
from tidewarp.store.sharding import ShardTable
from tidewarp.store.subjects import INDEXED, Told, told

__all__ = ["DerivedCheck"]

_PART = 1_000  # edges and receipts that are worked out at once
_PLAIN_ADD = b"\0\0\0\x22\0\1"  # an ER of hash 1
_UNTAGGED_BYTES, _TAGGED_BYTES, _FLAG = 47, 51, 38  # of the body of an add, and where it says which it is

_SPEAKS = (
    f"log.kind IN ({','.join(map(str, sorted(INDEXED)))}) AND log.body_state = {BODY}"
    " AND log.id NOT IN (SELECT value FROM json_each(?))"
)
_MASK = (1 << SEQ_BITS) - 1
_RIGHT_EVENTS = (
    "SELECT count(*) FROM event CROSS JOIN artifact ON artifact.no = event.artifact"
    f" CROSS JOIN log ON log.id = (event.domain << {SEQ_BITS} | event.seq)"
    f" AND log.id >> {SEQ_BITS} = event.domain AND log.id & {_MASK} = event.seq"
    f" WHERE event.kind = log.kind AND event.flags = log.flags AND artifact.ref = {NAMED} AND {_SPEAKS}"
)
_NEW_EVENTS = (
    f"INSERT INTO event SELECT artifact.no, log.id >> {SEQ_BITS}, log.id & {_MASK}, log.kind, log.flags"
    f" FROM log CROSS JOIN artifact ON artifact.ref = {NAMED} WHERE {_SPEAKS}"
)
_UNNUMBERED = (
    f"SELECT DISTINCT {NAMED} FROM log WHERE {_SPEAKS} AND {NAMED} NOT IN (SELECT ref FROM artifact) LIMIT {_PART}"
)


class _Table(NamedTuple):
    """A table in two databases: its rows as they can be compared, and how one is written."""

    name: str
    rows: str
    width: int
    insert: str


_WORKED_OUT = (
    _Table(
        "edge",
        "SELECT ref, type, slot FROM edge LEFT JOIN artifact ON no = edge",
        3,
        "INSERT INTO edge SELECT no, ?2, ?3 FROM artifact WHERE ref = ?1",
    ),
    _Table(
        "node",
        (
            "SELECT ends.ref, edges.ref, role, position FROM node LEFT JOIN artifact AS ends ON ends.no = node"
            " LEFT JOIN artifact AS edges ON edges.no = edge"
        ),
        4,
        (
            "INSERT INTO node SELECT ends.no, edges.no, ?3, ?4 FROM artifact AS ends, artifact AS edges"
            " WHERE ends.ref = ?1 AND edges.ref = ?2"
        ),
    ),
    _Table(
        "receipt",
        "SELECT key, domain, seq, ref, outputs_hash FROM receipt LEFT JOIN artifact ON no = receipt",
        5,
        "INSERT INTO receipt SELECT ?1, ?2, ?3, no, ?5 FROM artifact WHERE ref = ?4",
    ),
)


class DerivedCheck:
    """Reads what records say of artifacts, then compares the tables; to be closed."""

    def __init__(self, inspection: Inspection, artifacts: ArtifactTable) -> None:
        self.is_right = False
        """Whether the tables are, or are by now, what the records say. Then this object answers for single artifacts."""
        self._inspection = inspection
        self._db = inspection.db
        self._artifacts = artifacts
        self._events = 0
        self._scratch = _Scratch()
        self._found: list[tuple[int, Told]] = []
        self._silent: list[int] = []  # rows of records of these kinds that say nothing

    def close(self) -> None:
        """Forget it."""
        self._scratch.close()

    def read(self, domain: DomainRow, columns: Sequence[Any]) -> None:
        """Take in a checked record of a kind that speaks of artifacts, whose body is here: columns of a Row.

        Raises:
            CodecError: it is published, and of no form that its kind has.
        """
        kind, body = columns[1], columns[10]
        if kind == ARTIFACT and _is_plain_add(body):
            self._events += 1
            return
        said = told(header_of(domain.id, Row(*columns)), body)
        if said is None:
            self._silent.append(columns[0])
            return
        self._events += 1
        if isinstance(said.body, EdgeBody | ReceiptBody):
            self._found.append((domain.no, said))
            if len(self._found) >= _PART:
                self._work_out()

    def run(self, *, is_sound: bool) -> None:
        """Compare the tables, and make anew what differs; only if all records are sound."""
        if not is_sound:
            return
        self._work_out()
        before = len(self._inspection.problems)
        with self._inspection.section("event", "table event"):
            self._check_events()
        for table in _WORKED_OUT:
            with self._inspection.section(table.name, f"table {table.name}"):
                self._check_worked_out(table)
        with self._inspection.section("shard", "table shard"):
            self._check_shards()
        self.is_right = all(one.repaired for one in self._inspection.problems[before:])

    # --- single artifacts

    def stated(self, ref: Reference) -> set[tuple[int | None, int]]:
        """Tag and size of an artifact as records say them, where a column can hold the size."""
        statement = (
            f"SELECT log.body FROM artifact CROSS JOIN event ON event.artifact = artifact.no AND event.kind = {ARTIFACT}"
            f" CROSS JOIN log ON log.id = (event.domain << {SEQ_BITS} | event.seq) WHERE artifact.ref = ?"
        )
        bodies = [decode_body(ARTIFACT, data) for (data,) in self._db.execute(statement, (ref.to_bytes(),))]
        return {(one.tag, one.size) for one in bodies if isinstance(one, ArtifactBody) and one.size < 1 << 63}

    def is_added(self, ref: Reference) -> bool:
        """Whether a record adds it, and none hides or erases it."""
        statement = "SELECT min(kind), max(kind) FROM event JOIN artifact ON no = artifact WHERE ref = ?"
        first, last = self._db.execute(statement, (ref.to_bytes(),)).fetchone()
        return first is not None and first <= 4 and last <= 4

    def is_published(self, ref: Reference) -> bool:
        """Whether a published record adds it, and none erases it."""
        statement = (
            f"SELECT max(kind <= 4 AND flags & 1), max(kind = {ERASE}) FROM event JOIN artifact ON no = artifact"
            " WHERE ref = ?"
        )
        return bool(self._db.execute(statement, (ref.to_bytes(),)).fetchone() == (1, 0))

    # --- tables

    def _work_out(self) -> None:
        self._scratch.add(self._found)
        self._found.clear()

    def _check_events(self) -> None:
        ((rows,),) = self._db.execute("SELECT count(*) FROM event").fetchall()
        silent = (json.dumps(self._silent),)
        ((right,),) = self._db.execute(_RIGHT_EVENTS, silent).fetchall()
        self._inspection.checked["event"] += self._events
        if (rows, right) == (self._events, self._events):
            return
        if self._inspection.repairs:
            self._db.execute("DELETE FROM event")
            while names := self._db.execute(_UNNUMBERED, silent).fetchall():
                self._artifacts.numbers(self._db, [Reference.from_bytes(ref) for (ref,) in names])
            self._db.execute(_NEW_EVENTS, silent)
        rule = f"{rows - right + self._events - right} rows are not what the records say"
        self._inspection.found("event", "table event", rule, repaired=self._inspection.repairs)

    def _check_worked_out(self, table: _Table) -> None:
        differing = sum(1 for _ in _differences(self._db, self._scratch.db, table))
        self._inspection.checked[table.name] += self._scratch.count(table.name)
        if not differing:
            return
        if self._inspection.repairs:
            names = self._scratch.db.execute("SELECT ref FROM artifact ORDER BY no")
            while part := names.fetchmany(_PART):
                self._artifacts.numbers(self._db, [Reference.from_bytes(ref) for (ref,) in part])
            self._db.execute(f"DELETE FROM {table.name}")
            self._db.executemany(table.insert, self._scratch.db.execute(table.rows))
        rule = f"{differing} rows are not what the records say"
        self._inspection.found(table.name, f"table {table.name}", rule, repaired=self._inspection.repairs)

    def _check_shards(self) -> None:
        shards = ShardTable(Handle(Path(self._inspection.path), self._db, None))
        differing = shards.differing(self._db)
        if differing:
            if self._inspection.repairs:
                shards.replace(self._db, shards.map())
            rule = f"{differing} rows are not those of the shard map"
            self._inspection.found("shard", "table shard", rule, repaired=self._inspection.repairs)


class _Scratch:
    """Edges and receipts, worked out from records in a database of their own."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("", isolation_level=None)  # a temporary one, beside the memory that it needs
        create_tables(self.db, bytes(32))
        self.db.execute("BEGIN")
        self._transaction = OpenTransaction(self.db, (0, bytes(32)))
        handle = Handle(Path(os.devnull), self.db, None)
        self._artifacts = ArtifactTable(handle, BlockRows(handle), 1 << 62, None)
        self._index = RecordIndex(handle, self._artifacts)

    def add(self, found: Sequence[tuple[int, Told]]) -> None:
        """Index records, each with the number of its domain. Their bytes are compared elsewhere, and not kept here."""
        numbers = self._artifacts.numbers(self.db, [one.ref for _, one in found])
        for no in sorted({no for no, _ in found}):
            self._index.write(self._transaction, no, [one for other, one in found if other == no], numbers)

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def close(self) -> None:
        """Forget it."""
        self.db.close()


def _is_plain_add(body: bytes) -> bool:
    """Whether these are the bytes of an ArtifactBody under a SHA-256: they have two lengths, and nothing else to get wrong."""
    size = len(body)
    is_one = (size == _UNTAGGED_BYTES and body[_FLAG] == 0) or (size == _TAGGED_BYTES and body[_FLAG] == 1)
    return is_one and body.startswith(_PLAIN_ADD)


def _differences(one: sqlite3.Connection, other: sqlite3.Connection, table: _Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a table that stand in one of the two databases, by merging both in order."""
    order = ", ".join(str(place + 1) for place in range(table.width))
    left, right = (db.execute(f"{table.rows} ORDER BY {order}") for db in (one, other))
    a, b = left.fetchone(), right.fetchone()
    while a is not None or b is not None:
        if a == b:
            a, b = left.fetchone(), right.fetchone()
        elif b is None or (a is not None and _key(a) < _key(b)):
            yield a
            a = left.fetchone()
        else:
            yield b
            b = right.fetchone()


def _key(row: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """A row as SQLite orders it: what is missing comes first."""
    return tuple((value is not None, value) for value in row)
