"""Shards in the database: a row for each record of a store that has more than one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from tidewarp.codec import RecordHeader
from tidewarp.store.handle import Handle
from tidewarp.store.rows import SEQ_BITS, log_id
from tidewarp.store.schema import SHARDS
from tidewarp.store.shards import UNDIVIDED, ShardMap, digest_of

__all__ = ["ShardTable"]

_PLACED = (
    f"SELECT domain << {SEQ_BITS} | seq AS id, shard_of(substr(ref, 3)) AS no"
    " FROM event CROSS JOIN artifact ON artifact.no = event.artifact"
    f" UNION ALL SELECT id, shard_of(hash) FROM log WHERE id NOT IN (SELECT domain << {SEQ_BITS} | seq FROM event)"
)
"""The shard of each record: by the reference that it speaks of, of which the digest begins at the third byte, or else by
its hash."""


class ShardTable:
    """``shard``, which follows from ``log`` and ``event`` under the map in ``meta``. Of one shard it is empty."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def map(self) -> ShardMap:
        """The map, as this thread sees it."""
        with self._handle.reading_table("shards", "meta") as db:
            return _map(db)

    def write(self, db: sqlite3.Connection, no: int, records: Iterable[tuple[RecordHeader, bytes | None]]) -> None:
        """Place new records of domain ``no`` (header and body, None of a stub) in the open transaction."""
        shard_map = _map(db)
        if shard_map.count > 1:
            rows = [(log_id(header.seq, no), shard_map.shard_of(digest_of(header, body))) for header, body in records]
            db.executemany("INSERT INTO shard VALUES (?, ?)", rows)

    def replace(self, db: sqlite3.Connection, shard_map: ShardMap) -> None:
        """Place all records anew, by another map, in the open transaction."""
        db.execute("DELETE FROM shard")
        db.execute("DELETE FROM meta WHERE name = ?", (SHARDS,))
        if shard_map.count > 1:
            db.execute("INSERT INTO meta VALUES (?, ?)", (SHARDS, shard_map.to_bytes()))
            _teach(db, shard_map)
            db.execute(f"INSERT INTO shard SELECT id, no FROM ({_PLACED})")

    def differing(self, db: sqlite3.Connection) -> int:
        """How many records have no row, or another than the map says; and rows, no record."""
        shard_map = _map(db)
        if shard_map.count == 1:
            return int(db.execute("SELECT count(*) FROM shard").fetchone()[0])
        _teach(db, shard_map)
        wrong = (
            f"SELECT count(*) FROM ({_PLACED}) AS placed LEFT JOIN shard ON shard.id = placed.id"
            " WHERE shard.no IS NOT placed.no"
        )
        strays = "SELECT count(*) FROM shard WHERE NOT EXISTS (SELECT 1 FROM log WHERE log.id = shard.id)"
        return sum(int(db.execute(statement).fetchone()[0]) for statement in (wrong, strays))

    def seqs(self, shard_map: ShardMap, shard: int, no: int, after: int, limit: int) -> list[int] | None:
        """The next records of domain ``no`` in a shard, at most ``limit``; None if the map is another one by now."""
        with self._handle.reading_table("run", "shard") as db:
            statement = (  # one, so that map and rows are of one state
                "SELECT value FROM meta WHERE name = ? UNION ALL SELECT * FROM"
                " (SELECT id FROM shard WHERE no = ? AND id > ? AND id < ? ORDER BY id LIMIT ?)"
            )
            values = (SHARDS, shard, log_id(after, no), log_id(0, no + 1), limit)
            rows = db.execute(statement, values).fetchall()
        if not rows or rows[0][0] != shard_map.to_bytes():
            return None
        return [number & (1 << SEQ_BITS) - 1 for (number,) in rows[1:]]


def _map(db: sqlite3.Connection) -> ShardMap:
    rows = db.execute("SELECT value FROM meta WHERE name = ?", (SHARDS,)).fetchall()
    return ShardMap.from_bytes(rows[0][0]) if rows else UNDIVIDED


def _teach(db: sqlite3.Connection, shard_map: ShardMap) -> None:
    db.create_function("shard_of", 1, shard_map.shard_of, deterministic=True)
