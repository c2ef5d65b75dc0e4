"""The tables of upper layers beside a store in memory: those of a database in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from tidewarp.errors import InternalError
from tidewarp.store.memory.turns import Turns
from tidewarp.store.tables import check_ddl

__all__ = ["Extensions", "MemoryTables"]


class Extensions(Turns):
    """What a store in memory does for an upper layer."""

    def extension(self, name: str, version: int, ddl: Sequence[str]) -> MemoryTables:
        """As the contract says."""
        check_ddl(name, ddl)
        with self._writing("extension") as state:
            if self._db is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                if self._in_transaction:
                    self._db.execute("BEGIN")
            made = state.extensions.setdefault(name, (version, tuple(ddl)))
            if made != (version, tuple(ddl)):
                rule = f"the tables that are here are of version {made[0]}, or made by other statements"
                raise InternalError(f"extension {name} {version}", rule, "migrate them first")
            names = {row[0] for row in self._db.execute("SELECT sql FROM sqlite_master")}
            for statement in ddl:
                if statement not in names:
                    self._db.execute(statement)
            return MemoryTables(self, self._db)


class MemoryTables:
    """The :class:`~tidewarp.store.contract.Tables` of an extension, in a database in memory."""

    def __init__(self, store: Turns, db: sqlite3.Connection) -> None:
        self._store = store
        self._db = db

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """As the contract says."""
        with self._store._writing("execute"):
            return self._db.execute(statement, values).fetchall()
