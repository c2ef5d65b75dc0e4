"""Check ``span``: which ticks the inputs of the own domain speak of."""

from __future__ import annotations

from collections.abc import Sequence

from tidewarp.codec import INPUT
from tidewarp.store.fsck.inspection import Inspection
from tidewarp.store.handle import Handle
from tidewarp.store.rows import OWN, SEQ_BITS, STUB_ROW, Row, header_of, log_id
from tidewarp.store.schema import DomainRow
from tidewarp.store.spans import SpanTable, level_of

__all__ = ["SpanCheck"]

_MASK = (1 << SEQ_BITS) - 1


class SpanCheck:
    """Each record of inputs has one row, at its tick, of the level that follows from its ticks."""

    def __init__(self, inspection: Inspection, handle: Handle, domains: Sequence[DomainRow]) -> None:
        self._inspection = inspection
        self._db = inspection.db
        self._handle = handle
        self._own = domains[0] if domains else None

    def run(self, *, is_sound: bool) -> None:
        """Check the table; rows that are wrong are made anew if all records are sound, without the last tick."""
        with self._inspection.section("span", "table span"):
            wrong = self._wrong()
            is_mended = is_sound and self._inspection.repairs
            for seq, rule in wrong.items():
                if is_mended:
                    self._mend(seq)
                self._inspection.found("span", f"row {seq} of table span", rule, repaired=is_mended)

    def _wrong(self) -> dict[int, str]:
        wrong: dict[int, str] = {}
        size = 0 if self._own is None else self._own.size
        seen = bytearray(size + 1)
        statement = "SELECT level, tick, seq, last, log.kind, log.time FROM span LEFT JOIN log ON log.id = ? | seq"
        count = 0
        for level, tick, seq, last, kind, time in self._db.execute(statement, (log_id(0),)):
            count += 1
            if kind != INPUT or time != tick or not 0 < seq <= size or seen[seq]:
                wrong[seq] = "it is not about a record of inputs, or not the only one"
            elif level != level_of(tick, last) or (last is not None and last < tick):
                wrong[seq] = "its level is not that of its ticks"
            if 0 < seq <= size:
                seen[seq] = 1
        own = f"SELECT id & {_MASK} FROM log WHERE kind BETWEEN 32 AND 35 AND kind = {INPUT} AND id < ?"
        for (seq,) in self._db.execute(own, (log_id(0, OWN + 1),)):
            if seq > size or not seen[seq]:
                wrong[seq] = "a record of inputs has none"
        self._inspection.checked["span"] += count
        return wrong

    def _mend(self, seq: int) -> None:
        self._db.execute("DELETE FROM span WHERE seq = ?", (seq,))
        rows = self._db.execute(f"SELECT {STUB_ROW}, body FROM log WHERE id = ?", (log_id(seq),)).fetchall()
        if rows and rows[0][1] == INPUT and self._own is not None:
            row = Row(*rows[0])
            header = header_of(self._own.id, row)
            SpanTable(self._handle).write(self._db, [(header.seq, row.body, None)])
