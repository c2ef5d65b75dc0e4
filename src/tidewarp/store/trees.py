"""The Merkle trees of the domains: kept up with the log when somebody asks, not with each append.

What a tree is follows from the record hashes in ``log``. So an append pays nothing for it; who signs, adopts or proves
catches up from what was written last, a microsecond per record, and writes that down if it may.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from itertools import islice

from tidewarp.codec.merkle import (
    EMPTY_ROOT,
    TILE_LEAVES,
    Frontier,
    Hashes,
    consistency_proof,
    inclusion_proof,
)
from tidewarp.errors import CodecError, NotFound
from tidewarp.store.connection import bad
from tidewarp.store.continuation import Continuation
from tidewarp.store.handle import Handle
from tidewarp.store.log import LogReader
from tidewarp.store.rows import log_id
from tidewarp.store.schema import DomainRow

__all__ = ["Trees", "check_size", "root_of"]

_CHUNK = 16_384  # leaves that are hashed together


class _Tree:
    """The frontier of one domain, and the roots of its full tiles, the first ``written`` of which are in ``tile``."""

    def __init__(self, frontier: Frontier, tiles: list[bytes], written: int) -> None:
        self.frontier = frontier
        self.tiles = tiles
        self.written = written


class Trees:
    """``tree`` and ``tile``."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._trees: dict[int, _Tree] = {}
        self._lock = threading.Lock()

    def frontier(self, row: DomainRow) -> Frontier:
        """A copy of the frontier over the records that ``row`` counts."""
        with self._lock:
            tree = self._caught_up(row)
            if tree.frontier.size == row.size:
                return tree.frontier.copy()
        frontier = Frontier()  # another thread has gone on meanwhile: rare, so it may cost
        frontier.extend(list(LogReader(self._handle, row.no, row.id).hashes(0, row.size, row.head)))
        return frontier

    def root_at(self, row: DomainRow, size: int) -> bytes:
        """The root over the first ``size`` records. Raises NotFound: more than there are."""
        check_size(row, size)
        return root_of(size, *self._hashes(row))

    def inclusion_proof(self, row: DomainRow, seq: int, size: int) -> list[bytes]:
        """The path of record ``seq`` in the tree over ``size`` records."""
        check_size(row, size)
        return inclusion_proof(seq - 1, size, *self._hashes(row))

    def consistency_proof(self, row: DomainRow, first: int, second: int) -> list[bytes]:
        """That the tree over ``first`` records is a prefix of that over ``second``."""
        check_size(row, second)
        return consistency_proof(first, second, *self._hashes(row))

    def extend(self, db: sqlite3.Connection, row: DomainRow, continuation: Continuation | None = None) -> Frontier:
        """Add records behind those that ``row`` counts, in the open transaction; a copy of the frontier."""
        with self._lock:
            tree = self._caught_up(row)
            if continuation is not None:
                frontier, tiles = continuation.grown(tree.frontier)
                tree.frontier, tree.tiles = frontier.copy(), [*tree.tiles, *tiles]
            news = list(enumerate(tree.tiles))[tree.written :]
            db.executemany("INSERT OR REPLACE INTO tile VALUES (?, ?, ?)", ((row.no, idx, root) for idx, root in news))
            db.execute("INSERT OR REPLACE INTO tree VALUES (?, ?)", (row.no, tree.frontier.to_bytes()))
            tree.written = len(tree.tiles)
            return tree.frontier.copy()

    def forget(self) -> None:
        """A transaction did not come to be: read anew what was written down."""
        with self._lock:
            self._trees.clear()

    def _hashes(self, row: DomainRow) -> tuple[Hashes, Hashes]:
        with self._lock:
            tiles = self._caught_up(row).tiles
        return self._leaves_of(row.no), lambda first, last: tiles[first:last]

    def _leaves_of(self, no: int) -> Hashes:
        def leaves(first: int, last: int) -> Sequence[bytes]:
            span = log_id(first + 1, no), log_id(last, no)
            rows = self._handle.select("proof", "SELECT hash FROM log WHERE id BETWEEN ? AND ? ORDER BY id", *span)
            return [row[0] for row in rows]

        return leaves

    def _caught_up(self, row: DomainRow) -> _Tree:
        tree = self._trees.get(row.no)
        if tree is None:
            tree = self._trees[row.no] = self._read(row)
        if tree.frontier.size < row.size:
            hashes = LogReader(self._handle, row.no, row.id).hashes(tree.frontier.size, row.size, row.head)
            frontier, tiles = tree.frontier.copy(), tree.tiles[:]
            while part := list(islice(hashes, _CHUNK)):
                tiles += frontier.extend(part)
            tree.frontier, tree.tiles = frontier, tiles
        return tree

    def _read(self, row: DomainRow) -> _Tree:
        stored = self._handle.select("tree", "SELECT frontier FROM tree WHERE no = ?", row.no)
        tiles = self._handle.select("tree", "SELECT idx, root FROM tile WHERE no = ? ORDER BY idx", row.no)
        try:
            frontier = Frontier.from_bytes(stored[0][0]) if stored else Frontier()
        except CodecError as error:
            raise bad(str(self._handle.path), "table tree", str(error)) from error
        full = frontier.size // TILE_LEAVES
        roots = [root for _, root in tiles]
        if frontier.size > row.size or [idx for idx, _ in tiles] != list(range(full)) or {*map(len, roots)} - {32}:
            raise bad(str(self._handle.path), "tables tree and tile", f"they are not those of {row.size} records")
        return _Tree(frontier, roots, full)


def root_of(size: int, leaves: Hashes, tiles: Hashes) -> bytes:
    """The root over the first ``size`` leaves, from the roots of its full tiles and the leaves of the last one."""
    if not size:
        return EMPTY_ROOT
    full = size // TILE_LEAVES
    above = Frontier()
    above.extend(list(tiles(0, full)))
    if size % TILE_LEAVES:
        last = Frontier()
        last.extend(list(leaves(full * TILE_LEAVES, size)))
        above.append(last.root())
    return above.root()


def check_size(row: DomainRow, size: int) -> None:
    """Raise NotFound if the domain has fewer records here, or the size is negative."""
    if not 0 <= size <= row.size:
        raise NotFound(f"{size} records of {row.id.hex()[:16]}", f"{row.size} are here", "ask for what is here")
