"""The parts of a check in their order, and the small ones: pages, positions of sources, pins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.store.artifacts import ArtifactTable
from tidewarp.store.blocks import Blocks
from tidewarp.store.damage import ByteSource, FsckReport
from tidewarp.store.fsck.derived import DerivedCheck
from tidewarp.store.fsck.inspection import Inspection
from tidewarp.store.fsck.names import NameCheck
from tidewarp.store.fsck.payloads import PayloadCheck
from tidewarp.store.fsck.pieces import PieceCheck
from tidewarp.store.fsck.records import RecordCheck
from tidewarp.store.fsck.spans import SpanCheck
from tidewarp.store.handle import Handle
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.pins import Pins
from tidewarp.store.rows import log_id
from tidewarp.store.schema import DomainRow, read_domains

__all__ = ["Fsck"]


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
        self._handle = handle
        self._blocks = blocks
        self._sources = sources
        self._clock = clock
        self._is_shown = is_shown
        self._artifacts = ArtifactTable(handle, blocks, inline_max, None)
        db = handle.db if transaction is not None else handle.reader
        self._inspection = Inspection(db, str(handle.path), transaction)

    def run(self) -> FsckReport:
        """Check everything. Raises StoreFailed: the disk cannot be read, or written."""
        begun = self._clock.now()
        inspection, domains = self._inspection, self._read_domains()
        with closing(DerivedCheck(inspection, self._artifacts)) as derived:
            RecordCheck(inspection, derived, domains).run()
            is_sound = bool(domains) and not inspection.has_found("record", "domain")
            names = NameCheck(inspection, self._artifacts, self._blocks)
            names.run(is_sound=is_sound)
            derived.run(is_sound=is_sound)
            SpanCheck(inspection, self._handle, domains).run(is_sound=is_sound)
            payloads = PayloadCheck(inspection, names, self._artifacts, self._blocks, self._sources, self._is_shown)
            payloads.run(derived if derived.is_right else None)
        PieceCheck(inspection, self._blocks).run()
        for kind, table, check in (("cursor", "source_cursor", self._check_cursors), ("pin", "pin", self._check_pins)):
            with inspection.section(kind, f"table {table}"):
                check(domains)
        return FsckReport(dict(inspection.checked), tuple(inspection.problems), self._clock.now() - begun)

    def _read_domains(self) -> list[DomainRow]:
        self._check_pages()
        domains: list[DomainRow] = []
        with self._inspection.section("domain", "table domain"):
            domains += read_domains(self._inspection.db, self._inspection.path)
        return domains

    def _check_pages(self) -> None:
        inspection = self._inspection
        with inspection.section("page", "database"):
            said = self._said_of_pages()
            if said and inspection.repairs:
                inspection.db.execute("REINDEX")
                # what REINDEX writes counts as no change
                inspection.db.execute("UPDATE domain SET size = size WHERE no = 1")
            is_mended = bool(said) and inspection.repairs and not self._said_of_pages()
            for one in said:
                inspection.found("page", "a page or an index", one, repaired=is_mended)

    def _said_of_pages(self) -> list[str]:
        rows = [" ".join(str(row[0]).split()) for row in self._inspection.db.execute("PRAGMA integrity_check(100)")]
        return [] if rows == ["ok"] else rows

    def _check_cursors(self, _: Sequence[DomainRow]) -> None:
        for source, cursor in self._inspection.db.execute("SELECT source, cursor FROM source_cursor"):
            if not isinstance(source, str) or not isinstance(cursor, bytes):
                self._inspection.found("cursor", "table source_cursor", "a row is not a name and its bytes")

    def _check_pins(self, domains: Sequence[DomainRow]) -> None:
        inspection = self._inspection
        sizes = {row.id: (row.no, row.size) for row in domains}
        for name, what in Pins.read(inspection.db, inspection.path).items():
            inspection.checked["pins"] += 1
            if isinstance(what, Snapshot):
                is_here = all(
                    seq <= sizes.get(domain, (0, 0))[1]
                    and inspection.db.execute(
                        "SELECT 1 FROM log WHERE id = ? AND hash = ?", (log_id(seq, sizes[domain][0]), head)
                    ).fetchone()
                    for domain, seq, head in what.vector
                )
            else:
                name_bytes = what.to_bytes()
                is_here = inspection.db.execute("SELECT 1 FROM artifact WHERE ref = ?", (name_bytes,)).fetchone()
            if not is_here:
                inspection.found("pin", f"pin {name!r:.80}", "there is nothing here that it could keep")
