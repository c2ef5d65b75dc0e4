"""What a collection asks of the tables: the records that speak of an artifact, what names it, and what records name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tidewarp.codec.bodies import EraseBody, decode_body
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError
from tidewarp.store.connection import bad
from tidewarp.store.domains import DomainTable
from tidewarp.store.fold import View
from tidewarp.store.handle import Handle
from tidewarp.store.retention import Named, Word
from tidewarp.store.rows import SEQ_BITS, log_id
from tidewarp.store.schema import NAMING, DomainRow
from tidewarp.store.views import Views

__all__ = ["TOGETHER_MAX", "Candidate", "NamingRecords", "TableHoldings"]

TOGETHER_MAX = 64
"""Candidates whose records are read together."""


class Candidate(NamedTuple):
    """An artifact that a collection looks at: its number in ``artifact``, and its bytes of payload."""

    no: int
    ref: Reference
    size: int
    is_split: bool  # its payload is in blocks


class TableHoldings:
    """What the rule asks, over the tables; :class:`~tidewarp.store.retention.Holdings`."""

    def __init__(self, handle: Handle, domains: DomainTable, views: Callable[[], Views]) -> None:
        self._handle = handle
        self._domains = domains
        self._make_views = views
        self._views: Views | None = None
        self._words: dict[Reference, list[Word]] = {}  # of the candidates that were read together
        self._unlinked: set[Reference] = set()
        self.ids: dict[int, bytes] = {}

    def refresh(self) -> list[DomainRow]:
        """The domains that there are now."""
        rows = self._domains.rows()
        self.ids = {row.no: row.id for row in rows}
        self.read_together([])
        return rows

    def read_together(self, candidates: Sequence[Candidate]) -> None:
        """Read what is asked of these, up to 64, with two statements. It is true until somebody writes. Raises Corrupt."""
        self._words = {one.ref: [] for one in candidates}
        self._unlinked = set(self._words)
        if not candidates:
            return
        refs = {one.no: one.ref for one in candidates}
        numbers = [*refs, *[candidates[-1].no] * (TOGETHER_MAX - len(refs))]  # one text, whatever their number
        marks = ", ".join("?" * TOGETHER_MAX)
        statement = (
            "SELECT event.artifact, event.domain, event.seq, log.kind, log.flags, log.hash, log.body FROM event"
            f" CROSS JOIN log ON log.id = (event.domain << {SEQ_BITS} | event.seq)"
            f" WHERE event.artifact IN ({marks}) ORDER BY event.artifact, event.domain, event.seq"
        )
        for no, *row in self._handle.select("gc", statement, *numbers):
            self._words[refs[no]].append(self.word(*row))
        statement = f"SELECT DISTINCT artifact FROM link WHERE artifact IN ({marks})"
        self._unlinked.difference_update(refs[no] for (no,) in self._handle.select("gc", statement, *numbers))

    def words(self, ref: Reference) -> list[Word]:
        """As the protocol says. Raises Corrupt: a record is not what the index says."""
        if ref in self._words:
            return self._words[ref]
        statement = (
            "SELECT event.domain, event.seq, log.kind, log.flags, log.hash, log.body FROM artifact"
            " CROSS JOIN event ON event.artifact = artifact.no"
            f" CROSS JOIN log ON log.id = (event.domain << {SEQ_BITS} | event.seq)"
            " WHERE artifact.ref = ? ORDER BY event.domain, event.seq"
        )
        return [self.word(*row) for row in self._handle.select("gc", statement, ref.to_bytes())]

    def word(self, no: int, seq: int, kind: int, flags: int, hash: bytes, data: bytes) -> Word:
        """A record that is about artifacts. Raises Corrupt."""
        try:
            body = decode_body(kind, data)
        except CodecError as error:
            raise bad(str(self._handle.path), f"record {seq} of domain {no}", error.rule, seq) from error
        if body is None or no not in self.ids:
            raise bad(str(self._handle.path), f"record {seq} of domain {no}", "it speaks of no artifact", seq)
        return Word(self.ids[no], seq, flags, hash, body)

    def namers(self, ref: Reference) -> list[Reference]:
        """As the protocol says."""
        if ref in self._unlinked:
            return []
        statement = (
            "SELECT source.ref FROM artifact CROSS JOIN link ON link.artifact = artifact.no"
            " CROSS JOIN artifact AS source ON source.no = link.source WHERE artifact.ref = ?"
        )
        return [Reference.from_bytes(name) for (name,) in self._handle.select("gc", statement, ref.to_bytes())]

    def is_visible(self, ref: Reference) -> bool:
        """As the protocol says."""
        if self._views is None:
            self._views = self._make_views()
        views: tuple[View, ...] = (self._views.view(None, "published"), self._views.view(None, "all"))
        return any(view.is_visible(ref) for view in views)


class NamingRecords:
    """The records that name artifacts, read as they come: ``named``, and the domains that are not ``settled``."""

    def __init__(self, handle: Handle, tables: TableHoldings, views: Views, own: bytes) -> None:
        self.named = Named(own)
        self.unsettled = {header.domain for header in views.rivals}
        self._handle = handle
        self._tables = tables
        self._views = views
        self._read: dict[int, int] = {}

    def read(self, domains: Sequence[DomainRow]) -> None:
        """Read what has come since."""
        news = [row for row in domains if self._read.get(row.no, 0) < row.size]
        for row in news:
            statement = (
                f"SELECT id, kind, flags, hash, body_state, body FROM log INDEXED BY log_naming WHERE ({NAMING})"
                " AND id > ? AND id < ? ORDER BY id"
            )
            span = log_id(self._read.get(row.no, 0), row.no), log_id(0, row.no + 1)
            found = self._handle.select("gc", statement, *span)
            words = [self._word(row.no, *values) for values in found]
            if any(word is None or (isinstance(word.body, EraseBody) and word.body.ref is None) for word in words):
                self.unsettled.add(row.id)
            if self._views.admission.standing(row.id) is not None:
                for word in words:
                    if word is not None:
                        self.named.add(word, settled=row.id not in self.unsettled)
            self._read[row.no] = row.size

    def _word(self, no: int, id: int, kind: int, flags: int, hash: bytes, body_state: int, data: bytes) -> Word | None:
        """The record; None of one whose body is not here, or that is of no form that its kind has."""
        try:
            body = None if body_state else decode_body(kind, data)
        except CodecError:
            return None
        return None if body is None else Word(self._tables.ids[no], id & (1 << SEQ_BITS) - 1, flags, hash, body)
