"""Which ticks an input record speaks of: its span, from the tick at its start to the highest one in it.

A record holds thousands of inputs, so an index by its first tick would miss what lies behind that. ``span`` has a
row for each INPUT record of the own domain: its span, and the span's level, where 2^level is the size of the smallest
aligned block of ticks that holds it:

    level   bits of first XOR last, as 64-bit words; 64 if they differ in sign, or the last is not known (NULL)

So what overlaps a window begins, at each level, in the block of the window's first tick at the earliest: 65 searches
in one B-tree, and an outlier costs nothing but its own row. This is the relational interval tree of Kriegel, Pötke and
Seidl, "Managing Intervals Efficiently in Object-Relational Databases" (VLDB 2000), with levels for its fork nodes.
"""

from __future__ import annotations

import heapq
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from tidewarp.codec import INPUT
from tidewarp.store.connection import bad
from tidewarp.store.handle import Handle
from tidewarp.store.rows import SEQ_BITS, log_id

__all__ = ["FormerSpans", "Span", "SpanTable", "Spans", "level_of"]

_LEVELS = range(65)
_TICK_MIN = -1 << 63
_WORD = (1 << 64) - 1
_TICK = struct.Struct(">q")  # at the start of a timed body
_PAGE = 1_000  # rows of one read transaction


class Span(NamedTuple):
    """The ticks of record ``seq``: the one at its start, and the highest, None where nobody said it."""

    tick: int
    seq: int
    last: int | None


class Spans(Protocol):
    """What is known of the spans of the own domain's inputs."""

    def write(self, db: sqlite3.Connection, inputs: Iterable[tuple[int, bytes, int | None]]) -> None:
        """Note the spans of new INPUT records: number, body, last tick (None: not known)."""

    def overlapping(self, first: int, last: int, size: int) -> Iterator[Span]:
        """The spans among the first ``size`` records that overlap ticks ``first`` to ``last``, ascending by tick and seq.

        One whose end is not known counts as if it had none.
        """

    def last_tick(self, tick: int, seq: int) -> int | None:
        """The end of the span of record ``seq``, which begins at ``tick``; None if it is not known."""


class SpanTable:
    """:class:`Spans` in a file that has the table."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def write(self, db: sqlite3.Connection, inputs: Iterable[tuple[int, bytes, int | None]]) -> None:
        """As the protocol says."""
        rows = []
        for seq, body, last in inputs:
            (tick,) = _TICK.unpack_from(body)
            rows.append((level_of(tick, last), tick, seq, last))
        db.executemany("INSERT INTO span VALUES (?, ?, ?, ?)", rows)

    def overlapping(self, first: int, last: int, size: int) -> Iterator[Span]:
        """As the protocol says."""
        return heapq.merge(*(self._overlapping(level, first, last, size) for level in _LEVELS))

    def last_tick(self, tick: int, seq: int) -> int | None:
        """As the protocol says. Raises Corrupt if the record has no row, or another one too."""
        levels = ",".join(map(str, _LEVELS))
        statement = f"SELECT last FROM span WHERE level IN ({levels}) AND tick = ? AND seq = ?"
        rows = self._handle.select("last_tick", statement, tick, seq)
        if len(rows) != 1:
            raise bad(str(self._handle.path), f"table span, record {seq}", "a record of inputs has one row", seq)
        last: int | None = rows[0][0]
        return last

    def _overlapping(self, level: int, first: int, last: int, size: int) -> Iterator[Span]:
        block = first >> level << level if level < 64 else _TICK_MIN
        statement = (
            "SELECT tick, seq, last FROM span WHERE level = ? AND (tick, seq) > (?, ?) AND tick <= ?"
            " AND (last IS NULL OR last >= ?) AND seq <= ? ORDER BY tick, seq LIMIT ?"
        )
        tick, seq = block, 0
        while True:
            rows = self._handle.select("read_time", statement, level, tick, seq, last, first, size, _PAGE)
            yield from [Span(*row) for row in rows]
            if len(rows) < _PAGE:
                return
            tick, seq, _ = rows[-1]


class FormerSpans:
    """:class:`Spans` of a file of format 1, which has no table of them: no end is known."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def write(self, db: sqlite3.Connection, inputs: Iterable[tuple[int, bytes, int | None]]) -> None:
        """Nothing: there is no place for it."""

    def overlapping(self, first: int, last: int, size: int) -> Iterator[Span]:
        """As the protocol says: all that begin up to ``last``."""
        statement = (
            f"SELECT time, id FROM log WHERE kind BETWEEN 32 AND 35 AND kind = {INPUT} AND (time, id) > (?, ?)"
            " AND time <= ? AND id <= ? ORDER BY time, id LIMIT ?"
        )
        tick, row = _TICK_MIN, 0
        while True:
            rows = self._handle.select("read_time", statement, tick, row, last, log_id(size), _PAGE)
            yield from [Span(time, number & (1 << SEQ_BITS) - 1, None) for time, number in rows]
            if len(rows) < _PAGE:
                return
            tick, row = rows[-1]

    def last_tick(self, tick: int, seq: int) -> int | None:
        """As the protocol says."""
        return None


def level_of(first: int, last: int | None) -> int:
    """The level of a span that ends at ``last``."""
    return 64 if last is None else ((first ^ last) & _WORD).bit_length()
