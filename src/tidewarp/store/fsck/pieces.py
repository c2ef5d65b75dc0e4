"""Check the pieces of large payloads: extents of nothing, blocks and files that nothing names."""

from __future__ import annotations

from tidewarp.store.blocks import BlockFiles, Blocks
from tidewarp.store.damage import ORPHAN
from tidewarp.store.fsck.inspection import Inspection

__all__ = ["PieceCheck"]


class PieceCheck:
    """The table ``extent``, and what lies where blocks do. Whether a payload is whole, its own check says."""

    def __init__(self, inspection: Inspection, blocks: Blocks) -> None:
        self._inspection = inspection
        self._blocks = blocks

    def run(self) -> None:
        """Check both."""
        with self._inspection.section("extent", "table extent"):
            self._check_extents()
        with self._inspection.section(ORPHAN, "blocks"):
            self._check_blocks()
            if isinstance(self._blocks, BlockFiles):
                self._check_files(self._blocks)

    def _check_extents(self) -> None:
        stray = "FROM extent WHERE artifact NOT IN (SELECT no FROM artifact)"
        ((count,),) = self._inspection.db.execute(f"SELECT count(*) {stray}").fetchall()
        if count:
            self._inspection.repair(f"DELETE {stray}")
            self._inspection.found(
                "extent", "table extent", f"{count} are of nothing", repaired=self._inspection.repairs
            )

    def _check_blocks(self) -> None:
        named = "SELECT 1 FROM extent WHERE block = ?1 UNION ALL SELECT 1 FROM orphan WHERE block = ?1 LIMIT 1"
        for name in self._blocks.names():
            self._inspection.checked["blocks"] += 1
            if self._inspection.db.execute(named, (name,)).fetchone() is None:
                self._inspection.repair("INSERT OR IGNORE INTO orphan VALUES (?)", name)
                where = f"block {name.hex()}"
                self._inspection.found(ORPHAN, where, "no artifact refers to it", repaired=self._inspection.repairs)

    def _check_files(self, blocks: BlockFiles) -> None:
        for draft in blocks.drafts():
            rule = "it is what a put has left that did not come to its end"
            self._inspection.found(ORPHAN, str(draft), rule, repaired=self._inspection.repairs)
        if self._inspection.repairs:
            blocks.drop_drafts()
        for file in blocks.strays():
            self._inspection.found(ORPHAN, str(file), "it is no block")
