"""``pin``: what is kept whatever tombstones say."""

from __future__ import annotations

import sqlite3

from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.errors import CodecError, NotFound
from tidewarp.store.chain import check_name
from tidewarp.store.connection import bad
from tidewarp.store.handle import Handle
from tidewarp.store.journal import SqliteJournal
from tidewarp.store.retention import Pinned

__all__ = ["Pins"]

_ARTIFACT, _SNAPSHOT = 0, 1  # kinds of pins


class Pins:
    """The table."""

    def __init__(self, handle: Handle, journal: SqliteJournal) -> None:
        self._handle = handle
        self._journal = journal

    def put(self, name: str, what: Pinned) -> None:
        """Give the name, in place of what it had."""
        kind = _SNAPSHOT if isinstance(what, Snapshot) else _ARTIFACT
        with self._journal.transaction("pin") as transaction:
            statement = "INSERT OR REPLACE INTO pin VALUES (?, ?, ?)"
            transaction.db.execute(statement, (check_name(name, "pin"), kind, what.to_bytes()))

    def remove(self, name: str) -> None:
        """Take the name away. Raises NotFound."""
        with self._journal.transaction("unpin") as transaction:
            if not transaction.db.execute("DELETE FROM pin WHERE name = ?", (name,)).rowcount:
                raise NotFound(f"pin {name!r:.80}", "there is no such pin", "tidewarp store snapshot DIR lists them")

    def all(self) -> dict[str, Pinned]:
        """By name, in byte order. Raises Corrupt."""
        with self._handle.reading_table("pins", "pin") as db:
            return self.read(db, str(self._handle.path))

    @staticmethod
    def read(db: sqlite3.Connection, path: str) -> dict[str, Pinned]:
        """The same of any connection; ``path`` is what errors name. Raises Corrupt, DATABASE_ERRORS."""
        pins: dict[str, Pinned] = {}
        for name, kind, value in db.execute("SELECT name, kind, value FROM pin ORDER BY name").fetchall():
            where = f"table pin, {name!r:.80}"
            if kind not in (_ARTIFACT, _SNAPSHOT):
                raise bad(path, where, f"a pin is of an artifact (0) or of a snapshot (1), not {kind}")
            try:
                pins[name] = Snapshot.from_bytes(value) if kind == _SNAPSHOT else Reference.from_bytes(value)
            except CodecError as error:
                raise bad(path, where, error.rule) from error
        return pins
