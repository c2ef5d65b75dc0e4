"""Check everything that a store in SQLite holds, and mend what follows from something that is whole.

page       SQLite's own check                                   its indices are made anew
record     chain, columns and bodies of every domain            never changed
domain     size and head                                        never changed
head       signed heads: their signatures, roots and hashes     never changed
tree       Merkle tables, from the record hashes                dropped: they are made anew when somebody asks
stub       lengths of bodies that are not here                  those of bodies that are here are dropped
event, edge, node, receipt    from the records                  made anew
span       ticks of inputs                                      made anew, without the ends, which no record says
artifact   payloads against their names; rows                   fetched
missing bytes   of artifacts that are shown, and never came     fetched
extent     the pieces of large payloads                         fetched; those of nothing are dropped
block      against their names                                  fetched
link       what artifacts name, from their bytes                made anew
pin        that there is something under it                     never changed
cursor     positions of sources can be read                     never changed
orphan     blocks and files that nothing names                  blocks and temporary files are removed

No row of a journal is ever deleted or changed. While a record is bad, nothing is made anew from the records.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.clocks.pacing import Clock
from tidewarp.codec import INPUT, Record, domain_of, genesis
from tidewarp.codec.batches import BODY
from tidewarp.codec.bodies import ERASE, KEYS, ArtifactBody, KeysBody, decode_body
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, Corrupt, OperatorError, PeerError, StoreFailed, StoreFull
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import BlockFiles, BlockRows, Blocks
from tidewarp.store.chain import Linked
from tidewarp.store.collection import Pins
from tidewarp.store.connection import DATABASE_ERRORS
from tidewarp.store.damage import MISSING_BYTES, ByteSource, FsckReport, Problem
from tidewarp.store.handle import Handle
from tidewarp.store.index import INDEXED, RecordIndex, Told, told
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.links import LINKING, links
from tidewarp.store.payload import artifact_payload
from tidewarp.store.rows import OWN, STUB_ROW, Row, RowCheck, header_of, log_id
from tidewarp.store.schema import ABSENT, HERE, DomainRow, create_tables, read_domains
from tidewarp.store.spans import SpanTable, level_of

__all__ = ["Fsck"]

_PROBLEMS_MAX = 10_000
_UNSTATED_BYTES_MAX = 16 << 20  # of an artifact whose size nothing here says
_PART = 1_000  # records that are indexed at once


class _Derived(NamedTuple):
    """A table that follows from the records: rows that can be compared between two databases, and how it is filled."""

    name: str
    rows: str
    width: int
    insert: str


_DERIVED = (
    _Derived(
        "event",
        "SELECT ref, domain, seq, kind, flags FROM event LEFT JOIN artifact ON no = artifact",
        5,
        "INSERT INTO event SELECT no, ?2, ?3, ?4, ?5 FROM artifact WHERE ref = ?1",
    ),
    _Derived(
        "edge",
        "SELECT ref, type, slot FROM edge LEFT JOIN artifact ON no = edge",
        3,
        "INSERT INTO edge SELECT no, ?2, ?3 FROM artifact WHERE ref = ?1",
    ),
    _Derived(
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
    _Derived(
        "receipt",
        "SELECT key, domain, seq, ref, outputs_hash FROM receipt LEFT JOIN artifact ON no = receipt",
        5,
        "INSERT INTO receipt SELECT ?1, ?2, ?3, no, ?5 FROM artifact WHERE ref = ?4",
    ),
)


class Fsck:
    """One check of a store.

    Args:
        handle: over the connection to read; to repair, that of the store, in an open transaction.
        blocks: where its blocks are.
        transaction: the open transaction, to repair; None: nothing is written.
        sources: who is asked for damaged bytes.
        inline_max: payload bytes that stand in a row.
        clock: wall time.
        is_shown: does a domain that counts show an artifact to everybody? Asked where all records are sound.
    """

    def __init__(
        self,
        handle: Handle,
        blocks: Blocks,
        transaction: OpenTransaction | None,
        sources: Sequence[ByteSource],
        inline_max: int,
        clock: Clock,
        is_shown: Callable[[Reference], bool],
    ) -> None:
        self.temporary: list[Path] = []
        """Files to be removed when the transaction is durable."""
        self._handle = handle
        self._db = handle.db if transaction is not None else handle.reader
        self._blocks = blocks
        self._transaction = transaction
        self._sources = sources
        self._clock = clock
        self._is_shown = is_shown
        self._artifacts = ArtifactTable(handle, blocks, inline_max, None)
        self._path = str(handle.path)
        self._problems: list[Problem] = []
        self._checked: Counter[str] = Counter()
        self._domains: list[DomainRow] = []

    def run(self) -> FsckReport:
        """Check everything. Raises StoreFailed: the disk cannot be read, or written."""
        begun = self._clock.now()
        self._check_pages()
        with closing(_Scratch()) as scratch:
            with self._section("domain", "table domain"):
                self._domains = read_domains(self._db, self._path)
            for row in self._domains:
                self._check_domain(row, scratch)
            is_sound = bool(self._domains) and not any(one.kind in ("record", "domain") for one in self._problems)
            with self._section("record", "table log"):
                self._check_strays()
            with self._section("stub", "table stub"):
                self._check_stubs()
            if is_sound:
                self._check_derived(scratch)
            with self._section("span", "table span"):
                self._check_spans(repairs=is_sound)
            with self._section("artifact", "table artifact"):
                self._check_artifacts(scratch if is_sound else None)
        for kind, where, check in (
            ("extent", "table extent", self._check_extents),
            ("orphan", "blocks", self._check_orphans),
            ("cursor", "table source_cursor", self._check_cursors),
            ("pin", "table pin", self._check_pins),
        ):
            with self._section(kind, where):
                check()
        problems = tuple(self._problems)
        seconds = self._clock.now() - begun
        return FsckReport(all(one.repaired for one in problems), dict(self._checked), problems, seconds)

    # --- pages

    def _check_pages(self) -> None:
        with self._section("page", "database"):
            said = self._said_of_pages()
            if said and self._transaction is not None:
                self._db.execute("REINDEX")
                self._db.execute(
                    "UPDATE domain SET size = size WHERE no = 1"
                )  # what REINDEX writes counts as no change
                is_mended = not self._said_of_pages()
            else:
                is_mended = False
            for one in said:
                self._found("page", "a page or an index", one, repaired=is_mended)

    def _said_of_pages(self) -> list[str]:
        rows = [" ".join(str(row[0]).split()) for row in self._db.execute("PRAGMA integrity_check(100)")]
        return [] if rows == ["ok"] else rows

    # --- records

    def _check_domain(self, row: DomainRow, scratch: _Scratch) -> None:
        name = f"domain {row.id.hex()}"
        frontier = Frontier()
        keys: list[bytes] = []
        covered = frontier.root(), genesis(row.id)  # root and record hash at the size of the signed head
        head = self._stored_head(row)
        before = len(self._problems)
        last = genesis(row.id)
        tiles: list[bytes] = []
        size = 0
        found: list[Told] = []
        with self._section("record", name):
            for one in self._rows(row):
                size, last = size + 1, one.hash
                self._checked["records"] += 1
                tile = frontier.append(one.hash)
                if tile is not None:
                    tiles.append(tile)
                if head is not None and head.size == size:
                    covered = frontier.root(), one.hash
                if one.body_state == BODY:
                    self._read_body(row, one, keys, found)
                if len(found) >= _PART:
                    scratch.add(row.no, found)
                    found.clear()
            scratch.add(row.no, found)
        if len(self._problems) > before:
            return
        if (size, last) != (row.size, row.head):
            self._found("domain", name, f"its size and head are not those of its {size} records")
            return
        with self._section("head", name):
            self._check_head(row, head, keys, covered)
        with self._section("tree", name):
            self._check_tree(row, tiles)

    def _rows(self, domain: DomainRow) -> Iterator[Row]:
        """The good rows of a domain in order; each of the others is a problem."""
        checks = RowCheck(self._path, domain.id, 1, genesis(domain.id), domain.no)
        span = log_id(0, domain.no), log_id(0, domain.no + 1)
        cursor = self._db.execute(f"SELECT {STUB_ROW}, body FROM log WHERE id >= ? AND id < ? ORDER BY id", span)
        latest: list[Row] = []

        def heard() -> Iterator[Row]:
            for values in cursor:
                latest[:] = [Row(*values)]
                yield latest[0]

        rows = heard()
        while True:
            try:
                yield from checks.walk(rows)
            except Corrupt as error:
                self._found("record", f"record {checks.seq} of {domain.id.hex()}", error.rule)
                bad = latest[0]
                prev = bad.hash if isinstance(bad.hash, bytes) else None
                checks = RowCheck(self._path, domain.id, (bad.id & (1 << 44) - 1) + 1, prev, domain.no)
                rows = heard()
                continue
            return

    def _read_body(self, domain: DomainRow, row: Row, keys: list[bytes], found: list[Told]) -> None:
        header = header_of(domain.id, row)
        try:
            said = told(header, row.body)
            if header.kind not in INDEXED and header.flags:
                body = decode_body(header.kind, row.body)
                if header.kind == KEYS and isinstance(body, KeysBody):
                    keys += body.keys
        except CodecError as error:
            self._found("record", f"record {header.seq} of {domain.id.hex()}", error.rule)
            return
        if said is not None:
            found.append(said)

    def _stored_head(self, row: DomainRow) -> SignedHead | None:
        with self._section("head", f"domain {row.id.hex()}"):
            notes = self._db.execute("SELECT note FROM note WHERE no = ?", (row.no,)).fetchall()
            if notes and notes[0][0] is not None:
                return SignedHead.parse(notes[0][0])
        return None

    def _check_head(
        self, row: DomainRow, head: SignedHead | None, keys: list[bytes], covered: tuple[bytes, bytes]
    ) -> None:
        name = f"domain {row.id.hex()}"
        rows = self._db.execute("SELECT key FROM note WHERE no = ?", (row.no,)).fetchall()
        if rows:
            self._checked["heads"] += 1
            keys = [rows[0][0], *keys]
            if row.id != domain_of(rows[0][0]):
                self._found("head", name, "the root key that is kept with it is another domain's")
        elif row.no != OWN:
            self._found("head", name, "no key of it is kept")
        if head is None:
            return
        if head.domain != row.id or covered != (head.root, head.head):
            self._found("head", name, f"its signed head at {head.size} is about other records")
        head.verify(keys)

    def _check_tree(self, row: DomainRow, tiles: list[bytes]) -> None:
        stored = self._db.execute("SELECT frontier FROM tree WHERE no = ?", (row.no,)).fetchall()
        found = self._db.execute("SELECT idx, root FROM tile WHERE no = ? ORDER BY idx", (row.no,)).fetchall()
        rule = ""
        if stored:
            try:
                size = Frontier.from_bytes(stored[0][0]).size
            except CodecError as error:
                rule = error.rule
            else:
                again = self._frontier_at(row, size)
                if size > row.size or again.to_bytes() != stored[0][0]:
                    rule = f"its frontier is not that of {size} records"
        if not rule and found != list(enumerate(tiles))[: len(found)]:
            rule = "the roots of its tiles are not those of its records"
        if rule:
            self._repair("DELETE FROM tree WHERE no = ?", row.no)
            self._repair("DELETE FROM tile WHERE no = ?", row.no)
            self._found("tree", f"domain {row.id.hex()}", rule, repaired=self._transaction is not None)

    def _frontier_at(self, row: DomainRow, size: int) -> Frontier:
        span = log_id(0, row.no), log_id(size, row.no)
        cursor = self._db.execute("SELECT hash FROM log WHERE id > ? AND id <= ? ORDER BY id", span)
        frontier = Frontier()
        while part := cursor.fetchmany(16_384):
            frontier.extend([row[0] for row in part])
        return frontier

    def _check_strays(self) -> None:
        """Rows of no domain, which also a size that is too small makes."""
        numbers = [row.no for row in self._domains]
        beyond = log_id(0, max(numbers, default=0) + 1)
        statement = "SELECT id FROM log WHERE id < ? OR id >= ? LIMIT 100"
        for (number,) in self._db.execute(statement, (log_id(0), beyond)):
            self._found("record", f"row {number} of table log", "it is of no domain")
        for table, kind in (("note", "head"), ("tree", "tree"), ("tile", "tree")):
            stray = f"FROM {table} WHERE no NOT IN (SELECT no FROM domain)"
            is_repaired = kind == "tree" and self._transaction is not None
            for (number,) in self._db.execute(f"SELECT DISTINCT no {stray} LIMIT 100").fetchall():
                self._found(kind, f"row {number} of table {table}", "it is of no domain", repaired=is_repaired)
            if kind == "tree":
                self._repair(f"DELETE {stray}")

    def _check_stubs(self) -> None:
        wrong = "FROM stub WHERE NOT EXISTS (SELECT 1 FROM log WHERE log.id = stub.id AND body_state != 0)"
        for (number,) in self._db.execute(f"SELECT id {wrong} LIMIT {_PROBLEMS_MAX}").fetchall():
            self._found(
                "stub", f"row {number} of table stub", "its body is here", repaired=self._transaction is not None
            )
        self._repair(f"DELETE {wrong}")

    # --- what follows from records

    def _check_derived(self, scratch: _Scratch) -> None:
        for one in _DERIVED:
            with self._section(one.name, f"table {one.name}"):
                differing = sum(1 for _ in _differences(self._db, scratch.db, one))
                self._checked[one.name] += scratch.count(one.name)
                if differing:
                    rule = f"{differing} rows are not what the records say"
                    self._rebuild(scratch, one)
                    self._found(one.name, f"table {one.name}", rule, repaired=self._transaction is not None)

    def _rebuild(self, scratch: _Scratch, table: _Derived) -> None:
        if self._transaction is None:
            return
        names = scratch.db.execute("SELECT ref FROM artifact ORDER BY no")
        while part := names.fetchmany(_PART):
            self._artifacts.numbers(self._db, [Reference.from_bytes(ref) for (ref,) in part])
        self._db.execute(f"DELETE FROM {table.name}")
        self._db.executemany(table.insert, scratch.db.execute(table.rows))

    def _check_spans(self, *, repairs: bool) -> None:
        wrong: dict[int, str] = {}
        seen: set[int] = set()
        statement = (
            "SELECT level, tick, seq, last, log.kind, log.time FROM span LEFT JOIN log ON log.id = ? | seq"
            " ORDER BY level, tick, seq"
        )
        for level, tick, seq, last, kind, time in self._db.execute(statement, (log_id(0),)):
            if kind != INPUT or time != tick or seq in seen:
                wrong[seq] = "it is not about a record of inputs, or not the only one"
            elif level != level_of(tick, last) or (last is not None and last < tick):
                wrong[seq] = "its level is not that of its ticks"
            seen.add(seq)
        own = f"SELECT id & {(1 << 44) - 1} FROM log WHERE kind BETWEEN 32 AND 35 AND kind = {INPUT} AND id < ?"
        for (seq,) in self._db.execute(own, (log_id(0, OWN + 1),)):
            if seq not in seen:
                wrong[seq] = "a record of inputs has none"
        self._checked["span"] += len(seen)
        is_mended = repairs and self._transaction is not None
        for seq, rule in wrong.items():
            if is_mended:
                self._mend_span(seq)
            self._found("span", f"row {seq} of table span", rule, repaired=is_mended)

    def _mend_span(self, seq: int) -> None:
        self._db.execute("DELETE FROM span WHERE seq = ?", (seq,))
        rows = self._db.execute(f"SELECT {STUB_ROW}, body FROM log WHERE id = ?", (log_id(seq),)).fetchall()
        if rows and rows[0][1] == INPUT:
            row = Row(*rows[0])
            header = header_of(self._domains[0].id, row)
            SpanTable(self._handle).write(self._db, [Linked(Record(header, row.body), row.hash)])

    # --- artifacts

    def _check_artifacts(self, scratch: _Scratch | None) -> None:
        rows = self._db.execute("SELECT no, ref, tag, size, state, bytes IS NULL FROM artifact ORDER BY no").fetchall()
        for no, name, tag, size, state, is_empty in rows:
            where = f"artifact {name.hex()}"
            try:
                ref = Reference.from_bytes(name)
            except CodecError as error:
                self._found("artifact", where, error.rule)
                continue
            if state == HERE:
                self._checked["artifacts"] += 1
                if self._check_artifact(scratch, no, ref) and tag in LINKING:
                    self._check_links(no, ref, tag)
            elif state != ABSENT or not is_empty or self._has_extents(no):
                self._repair("UPDATE artifact SET state = 0 WHERE no = ?", no)
                if self._transaction is not None and not self._is_right(ref):
                    self._artifacts.let_go(self._db, no)
                    self._artifacts.clear_extents(self._db, no, -1)
                rule = "its state is not that of an artifact whose bytes are not here"
                self._found("artifact", where, rule, repaired=self._transaction is not None)
            else:
                self._check_absent(scratch, no, ref, tag, size)
        stray = (
            "FROM link WHERE source NOT IN (SELECT no FROM artifact) OR artifact NOT IN (SELECT no FROM artifact)"
            f" OR source IN (SELECT no FROM artifact WHERE state = 0 AND tag NOT IN ({','.join(map(str, LINKING))}))"
            " OR source IN (SELECT no FROM artifact WHERE state = 0 AND tag IS NULL)"
        )
        ((strays,),) = self._db.execute(f"SELECT count(*) {stray}").fetchall()
        if strays:
            self._repair(f"DELETE {stray}")
            rule = f"{strays} rows are of artifacts that name nothing"
            self._found("link", "table link", rule, repaired=self._transaction is not None)

    def _has_extents(self, no: int) -> bool:
        """Whether an artifact that is not here has pieces, and no collection is about to clear them."""
        statement = (
            "SELECT 1 FROM extent WHERE artifact = ?1"
            " AND NOT EXISTS (SELECT 1 FROM gc_state WHERE name = 'halfway' AND place = ?2) LIMIT 1"
        )
        return self._db.execute(statement, (no, no.to_bytes(8, "big"))).fetchone() is not None

    def _is_right(self, ref: Reference) -> bool:
        try:
            self._artifacts.verify(ref)
        except Corrupt:
            return False
        return True

    def _describe(self, scratch: _Scratch | None, no: int, ref: Reference, tag: Any, size: Any) -> bool:
        """Whether an artifact is what it should be once it has tag and size as a record says them."""
        if self._transaction is None or scratch is None:
            return False
        statement = "UPDATE artifact SET tag = ?, size = ? WHERE no = ?"
        for said in scratch.stated(ref):
            self._db.execute(statement, (*said, no))
            if self._is_right(ref):
                return True
        self._db.execute(statement, (tag, size, no))
        return False

    def _check_artifact(self, scratch: _Scratch | None, no: int, ref: Reference) -> bool:
        """Whether the bytes of an artifact are what they should be, or are by now."""
        where = f"artifact {ref.hex()}"
        try:
            self._artifacts.verify(ref)
        except Corrupt as error:
            rows = self._db.execute("SELECT tag, size FROM artifact WHERE no = ?", (no,)).fetchall()
            tag, size = rows[0] if rows else (None, None)  # a bad page may hide it
            kind = self._kind_of_damage(no, size)
            is_mended = self._describe(scratch, no, ref, tag, size) or self._fetch(scratch, ref, size)
            self._found(kind, where, error.rule, repaired=is_mended)
            return is_mended
        return True

    def _kind_of_damage(self, no: int, size: Any) -> str:
        extents = self._artifacts.extents(self._db, no)
        if any(not self._is_whole(one.block) for one in extents):
            return "block"
        ends = [0, *accumulate(one.length for one in extents)]
        is_covered = [one.offset for one in extents] == ends[:-1] and ends[-1] == size
        return "extent" if extents and not is_covered else "artifact"

    def _is_whole(self, name: bytes) -> bool:
        try:
            self._blocks.read(name)
        except Corrupt:
            return False
        return True

    def _check_absent(self, scratch: _Scratch | None, no: int, ref: Reference, tag: Any, size: Any) -> None:
        if scratch is None:
            return
        stated = scratch.stated(ref)
        if size is not None and stated and (tag, size) not in stated:
            self._repair("UPDATE artifact SET tag = ?, size = ? WHERE no = ?", *stated[0], no)
            rule = "tag and size are not what a record says"
            self._found("artifact", f"artifact {ref.hex()}", rule, repaired=self._transaction is not None)
        is_missed = scratch.is_published(ref) and self._is_shown(ref)
        is_mended = (is_missed or scratch.is_added(ref)) and self._fetch(scratch, ref, size)
        if is_mended:
            self._checked["fetched"] += 1
        if is_missed:
            rule = "a record names it, its bytes have not come: tidewarp store fsck DIR --repair --from URL"
            self._found(MISSING_BYTES, f"artifact {ref.hex()}", rule, repaired=is_mended)

    def _check_links(self, no: int, ref: Reference, tag: int) -> None:
        named = links(tag, self._artifacts.get(ref, 0, None))
        statement = "SELECT ref FROM link LEFT JOIN artifact ON no = artifact WHERE source = ?"
        found = {name for (name,) in self._db.execute(statement, (no,))}
        self._checked["link"] += len(named)
        if found != {one.to_bytes() for one in named}:
            if self._transaction is not None:
                self._db.execute("DELETE FROM link WHERE source = ?", (no,))
                numbers = self._artifacts.numbers(self._db, sorted(named))
                self._db.executemany("INSERT INTO link VALUES (?, ?)", ((one, no) for one in numbers.values()))
            rule = "what is noted of it is not what its bytes name"
            self._found("link", f"artifact {ref.hex()}", rule, repaired=self._transaction is not None)

    def _fetch(self, scratch: _Scratch | None, ref: Reference, size: int | None) -> bool:
        """Whether a source had the bytes of an artifact, which are here now. ``size``: as its row says."""
        if self._transaction is None:
            return False
        said = [] if scratch is None else [one for _, one in scratch.stated(ref)]
        most = max(said) if said else _UNSTATED_BYTES_MAX if size is None else size
        for source in self._sources:
            stream = source.fetch(ref, most)
            if stream is None:
                continue
            with closing(stream):
                try:
                    payload, tag = artifact_payload(stream, f"artifact {ref.hex()}")
                    content = self._artifacts.content(payload, tag)
                except (StoreFull, StoreFailed):
                    raise
                except (PeerError, OperatorError):
                    continue  # no artifact, or not as long as it says; another source may have it
                if content.ref == ref:
                    self._artifacts.keep(self._transaction, [content])
                    return True
        return False

    # --- the rest

    def _check_extents(self) -> None:
        stray = "FROM extent WHERE artifact NOT IN (SELECT no FROM artifact)"
        ((count,),) = self._db.execute(f"SELECT count(*) {stray}").fetchall()
        if count:
            self._repair(f"DELETE {stray}")
            self._found("extent", "table extent", f"{count} are of nothing", repaired=self._transaction is not None)

    def _check_orphans(self) -> None:
        named = "SELECT 1 FROM extent WHERE block = ?1 UNION ALL SELECT 1 FROM orphan WHERE block = ?1 LIMIT 1"
        for name in self._blocks.names():
            self._checked["blocks"] += 1
            if self._db.execute(named, (name,)).fetchone() is None:
                self._repair("INSERT OR IGNORE INTO orphan VALUES (?)", name)
                is_mended = self._transaction is not None
                self._found("orphan", f"block {name.hex()}", "no artifact refers to it", repaired=is_mended)
        if isinstance(self._blocks, BlockFiles):
            for file in self._blocks.strays():
                is_temporary = self._blocks.is_temporary(file)
                is_mended = is_temporary and self._transaction is not None
                if is_mended:
                    self.temporary.append(file)
                rule = "it was never finished" if is_temporary else "it is no block"
                self._found("orphan", str(file), rule, repaired=is_mended)

    def _check_cursors(self) -> None:
        for source, cursor in self._db.execute("SELECT source, cursor FROM source_cursor"):
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                self._found("cursor", "table source_cursor", "a row is not a name and its bytes")

    def _check_pins(self) -> None:
        sizes = {row.id: (row.no, row.size) for row in self._domains}
        for name, what in Pins.read(self._db, self._path).items():
            self._checked["pins"] += 1
            if isinstance(what, Snapshot):
                is_here = all(
                    seq <= sizes.get(domain, (0, 0))[1]
                    and self._db.execute(
                        "SELECT 1 FROM log WHERE id = ? AND hash = ?", (log_id(seq, sizes[domain][0]), head)
                    ).fetchone()
                    for domain, seq, head in what.vector
                )
            else:
                is_here = self._db.execute("SELECT 1 FROM artifact WHERE ref = ?", (what.to_bytes(),)).fetchone()
            if not is_here:
                self._found("pin", f"pin {name!r:.80}", "there is nothing here that it could keep")

    # --- parts

    def _found(self, kind: str, where: str, rule: str, *, repaired: bool = False) -> None:
        if len(self._problems) < _PROBLEMS_MAX:
            self._problems.append(Problem(kind, where, rule, repaired))

    def _repair(self, statement: str, *values: object) -> None:
        if self._transaction is not None:
            self._db.execute(statement, values)

    @contextmanager
    def _section(self, kind: str, where: str) -> Iterator[None]:
        """What goes wrong in here is a problem of this kind."""
        try:
            yield
        except DATABASE_ERRORS as error:
            self._found(kind, where, f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})")
        except (Corrupt, CodecError, PeerError) as error:
            self._found(kind, where, f"{error.value}: {error.rule}")


class _Scratch:
    """What follows from the records, made anew in a database that is nobody else's."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("", isolation_level=None)  # a temporary one, beside the memory that it needs
        create_tables(self.db, bytes(32))
        self.db.execute("CREATE TABLE stated (ref BLOB NOT NULL, tag INTEGER, size INTEGER NOT NULL)")
        self.db.execute("CREATE INDEX stated_ref ON stated (ref)")
        self.db.execute("BEGIN")
        self._transaction = OpenTransaction(self.db, (0, bytes(32)))
        handle = Handle(Path(os.devnull), self.db, None)
        self._index = RecordIndex(handle, ArtifactTable(handle, BlockRows(handle), 1 << 62, None))

    def add(self, no: int, found: Sequence[Told]) -> None:
        """Index records of domain ``no``."""
        if not found:
            return
        self._index.write(self._transaction, no, found)
        bodies = [one.body for one in found if isinstance(one.body, ArtifactBody) and one.body.size < 1 << 63]
        rows = ((body.ref.to_bytes(), body.tag, body.size) for body in bodies)
        self.db.executemany("INSERT INTO stated VALUES (?, ?, ?)", rows)

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def stated(self, ref: Reference) -> list[tuple[int | None, int]]:
        """Tag and size of an artifact as records say them."""
        return self.db.execute("SELECT DISTINCT tag, size FROM stated WHERE ref = ?", (ref.to_bytes(),)).fetchall()

    def is_added(self, ref: Reference) -> bool:
        """Whether a record adds it, and none hides or erases it."""
        statement = "SELECT min(kind), max(kind) FROM event JOIN artifact ON no = artifact WHERE ref = ?"
        first, last = self.db.execute(statement, (ref.to_bytes(),)).fetchone()
        return first is not None and first <= 4 and last <= 4

    def is_published(self, ref: Reference) -> bool:
        """Whether a published record adds it, and none erases it."""
        statement = (
            f"SELECT max(kind <= 4 AND flags & 1), max(kind = {ERASE}) FROM event JOIN artifact ON no = artifact"
            " WHERE ref = ?"
        )
        return bool(self.db.execute(statement, (ref.to_bytes(),)).fetchone() == (1, 0))

    def close(self) -> None:
        """Forget it."""
        self.db.close()


def _differences(one: sqlite3.Connection, other: sqlite3.Connection, table: _Derived) -> Iterator[tuple[Any, ...]]:
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
