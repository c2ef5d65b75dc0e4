"""Check the domains: every record, the signed head, the Merkle tables, and rows that are of nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tidewarp.codec import domain_of, genesis
from tidewarp.codec.batches import BODY
from tidewarp.codec.bodies import decode_body
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.errors import CodecError, Corrupt
from tidewarp.store.contract import StoredRecord
from tidewarp.store.fsck.derived import DerivedCheck
from tidewarp.store.fsck.inspection import PROBLEMS_MAX, Inspection
from tidewarp.store.rows import OWN, SEQ_BITS, STUB_ROW, Row, RowCheck, header_of, log_id
from tidewarp.store.schema import DomainRow
from tidewarp.store.signers import check_heads, is_keys, last_at
from tidewarp.store.subjects import INDEXED

__all__ = ["RecordCheck"]

_PART = 1_000  # records that are hashed into the tree at once
_STRAYS_MAX = 100


class _Mark(NamedTuple):
    """The tree when it had some size: its root, the last record hash, the bytes of its frontier."""

    root: bytes
    hash: bytes
    frontier: bytes


class _Tree:
    """The Merkle tree over the records of a domain, with its marks at ``sizes``."""

    def __init__(self, sizes: Iterable[int], first_hash: bytes) -> None:
        self.tiles: list[bytes] = []
        self.hash = first_hash
        self._frontier = Frontier()
        self._sizes = sorted(sizes)
        self._marks: dict[int, _Mark] = {}
        self.add([])

    @property
    def size(self) -> int:
        return self._frontier.size

    def add(self, hashes: Sequence[bytes]) -> None:
        """Grow by these record hashes."""
        begin, end = self.size, self.size + len(hashes)
        cuts = [size for size in self._sizes if begin <= size <= end]
        for cut in (*cuts, end):
            part = hashes[self.size - begin : cut - begin]
            self.tiles += self._frontier.extend(part)
            self.hash = part[-1] if part else self.hash
            if cut in cuts:
                self._marks[cut] = _Mark(self._frontier.root(), self.hash, self._frontier.to_bytes())

    def at(self, size: int) -> _Mark | None:
        """The mark at one of the sizes; None if the tree did not get there."""
        return self._marks.get(size)


class RecordCheck:
    """The tables ``domain``, ``log``, ``stub``, ``note``, ``earlier_note``, ``tree`` and ``tile``."""

    def __init__(self, inspection: Inspection, derived: DerivedCheck, domains: Sequence[DomainRow]) -> None:
        self._inspection = inspection
        self._db: sqlite3.Connection = inspection.db
        self._derived = derived
        self._domains = domains

    def run(self) -> None:
        """Check all domains, and let ``derived`` read what their records say."""
        for row in self._domains:
            self._check_domain(row)
        with self._inspection.section("record", "table log"):
            self._check_strays()
        with self._inspection.section("stub", "table stub"):
            self._check_stubs()

    def _check_domain(self, row: DomainRow) -> None:
        inspection, name = self._inspection, f"domain {row.id.hex()}"
        heads, stored = self._stored_heads(row), self._stored_size(row)
        tree = _Tree({stored, *(head.size for head in heads)}, genesis(row.id))
        keys: list[StoredRecord] = []
        before = len(inspection.problems)
        with inspection.section("record", name):
            part: list[bytes] = []
            for columns in self._rows(row):
                part.append(columns[7])
                if columns[8] == BODY:
                    self._read_body(row, columns)
                if is_keys(columns[1], columns[2]):
                    body = columns[10] if columns[8] == BODY else None
                    keys.append(StoredRecord(header_of(row.id, Row(*columns)), columns[8], body))
                if len(part) >= _PART:
                    tree.add(part)
                    part = []
            tree.add(part)
        inspection.checked["records"] += tree.size
        if len(inspection.problems) > before:
            return
        if (tree.size, tree.hash) != (row.size, row.head):
            inspection.found("domain", name, f"its size and head are not those of its {tree.size} records")
            return
        with inspection.section("head", name):
            self._check_heads(row, heads, keys, tree)
        with inspection.section("tree", name):
            self._check_tree(row, stored, tree)

    def _rows(self, domain: DomainRow) -> Iterator[Sequence[Any]]:
        """The columns of the good rows of a domain in order; each of the others is a problem."""
        statement = f"SELECT {STUB_ROW}, body FROM log WHERE id >= ? AND id < ? ORDER BY id"
        begin, end = log_id(0, domain.no), log_id(0, domain.no + 1)
        first = 1
        prev: bytes | None = genesis(domain.id)
        while True:
            checks = RowCheck(self._inspection.path, domain.id, first, prev, domain.no)
            try:
                yield from checks.walk(self._db.execute(statement, (begin, end)))
            except Corrupt as error:
                self._inspection.found("record", f"record {checks.seq} of {domain.id.hex()}", error.rule)
                behind = begin if checks.seq == first else log_id(checks.seq, domain.no)
                bad = Row(*self._db.execute(f"{statement} LIMIT 1", (behind, end)).fetchone())
                begin, first = bad.id + 1, (bad.id & (1 << SEQ_BITS) - 1) + 1
                prev = bad.hash if isinstance(bad.hash, bytes) else None
            else:
                return

    def _read_body(self, domain: DomainRow, columns: Sequence[Any]) -> None:
        """Let a record say what it says of artifacts."""
        kind, flags, data = columns[1], columns[2], columns[10]
        if kind not in INDEXED and not flags:
            return
        try:
            if kind in INDEXED:
                self._derived.read(domain, columns)
                return
            decode_body(kind, data)
        except CodecError as error:
            header = header_of(domain.id, Row(*columns))
            self._inspection.found("record", f"record {header.seq} of {domain.id.hex()}", error.rule)

    # --- heads and trees

    def _stored_heads(self, row: DomainRow) -> list[SignedHead]:
        """The signed heads that are kept of a domain: those that the last one leans on, and the last one."""
        heads: list[SignedHead] = []
        with self._inspection.section("head", f"domain {row.id.hex()}"):
            statement = (
                "SELECT note, size FROM earlier_note WHERE no = ?1"
                " UNION ALL SELECT note, NULL FROM note WHERE no = ?1 AND note IS NOT NULL ORDER BY size NULLS LAST"
            )
            for note, size in self._db.execute(statement, (row.no,)):
                head = SignedHead.parse(note)
                if size not in (None, head.size):
                    rule = f"the earlier head that is kept at {size} is one of {head.size} records"
                    self._inspection.found("head", f"domain {row.id.hex()}", rule)
                heads.append(head)
        return heads

    def _check_heads(
        self, row: DomainRow, heads: Sequence[SignedHead], keys: Sequence[StoredRecord], tree: _Tree
    ) -> None:
        name = f"domain {row.id.hex()}"
        rows = self._db.execute("SELECT key FROM note WHERE no = ?", (row.no,)).fetchall()
        if rows:
            self._inspection.checked["heads"] += 1
            if row.id != domain_of(rows[0][0]):
                self._inspection.found("head", name, "the root key that is kept with it is another domain's")
        elif row.no != OWN:
            self._inspection.found("head", name, "no key of it is kept")
        for head in heads:
            mark = tree.at(head.size)
            if head.domain != row.id or mark is None or (mark.root, mark.hash) != (head.root, head.head):
                self._inspection.found("head", name, f"its signed head at {head.size} is about other records")
        if rows:
            check_heads(rows[0][0], heads, lambda size: last_at(keys, size))

    def _stored_size(self, row: DomainRow) -> int:
        """How many records the frontier that is kept covers; 0 where there is none, or none that can be read."""
        with self._inspection.section("tree", f"domain {row.id.hex()}"):
            for (frontier,) in self._db.execute("SELECT frontier FROM tree WHERE no = ?", (row.no,)):
                try:
                    return Frontier.from_bytes(frontier).size
                except CodecError:
                    return 0
        return 0

    def _check_tree(self, row: DomainRow, size: int, tree: _Tree) -> None:
        stored = self._db.execute("SELECT frontier FROM tree WHERE no = ?", (row.no,)).fetchall()
        found = self._db.execute("SELECT idx, root FROM tile WHERE no = ? ORDER BY idx", (row.no,)).fetchall()
        mark = tree.at(size)
        rule = ""
        if stored and (mark is None or mark.frontier != stored[0][0]):
            rule = f"its frontier is not that of {size} records"
        elif found != list(enumerate(tree.tiles))[: len(found)]:
            rule = "the roots of its tiles are not those of its records"
        if rule:
            self._inspection.repair("DELETE FROM tree WHERE no = ?", row.no)
            self._inspection.repair("DELETE FROM tile WHERE no = ?", row.no)
            self._inspection.found("tree", f"domain {row.id.hex()}", rule, repaired=self._inspection.repairs)

    # --- rows of nothing

    def _check_strays(self) -> None:
        """Rows of no domain, which also a size that is too small makes."""
        numbers = [row.no for row in self._domains]
        beyond = log_id(0, max(numbers, default=0) + 1)
        statement = f"SELECT id FROM log WHERE id < ? OR id >= ? LIMIT {_STRAYS_MAX}"
        for (number,) in self._db.execute(statement, (log_id(0), beyond)):
            self._inspection.found("record", f"row {number} of table log", "it is of no domain")
        for table, kind in (("note", "head"), ("earlier_note", "head"), ("tree", "tree"), ("tile", "tree")):
            stray = f"FROM {table} WHERE no NOT IN (SELECT no FROM domain)"
            is_mended = kind == "tree" and self._inspection.repairs
            for (number,) in self._db.execute(f"SELECT DISTINCT no {stray} LIMIT {_STRAYS_MAX}").fetchall():
                self._inspection.found(kind, f"row {number} of table {table}", "it is of no domain", repaired=is_mended)
            if kind == "tree":
                self._inspection.repair(f"DELETE {stray}")

    def _check_stubs(self) -> None:
        wrong = "FROM stub WHERE NOT EXISTS (SELECT 1 FROM log WHERE log.id = stub.id AND body_state != 0)"
        for (number,) in self._db.execute(f"SELECT id {wrong} LIMIT {PROBLEMS_MAX}").fetchall():
            where, is_mended = f"row {number} of table stub", self._inspection.repairs
            self._inspection.found("stub", where, "its body is here", repaired=is_mended)
        self._inspection.repair(f"DELETE {wrong}")
