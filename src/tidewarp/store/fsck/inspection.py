"""What the parts of a check share: the database, what was found in it, and whether it may be mended."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tidewarp.errors import CodecError, Corrupt, NotFound, PeerError
from tidewarp.store.connection import DATABASE_ERRORS
from tidewarp.store.damage import Problem
from tidewarp.store.journal import OpenTransaction

__all__ = ["PROBLEMS_MAX", "Inspection"]

PROBLEMS_MAX = 10_000


class Inspection:
    """One check of the store at ``path``, over ``db``; ``transaction`` is the open one, to repair, or None."""

    def __init__(self, db: sqlite3.Connection, path: str, transaction: OpenTransaction | None) -> None:
        self.db = db
        self.path = path
        self.transaction = transaction
        self.problems: list[Problem] = []
        self.checked: Counter[str] = Counter()

    @property
    def repairs(self) -> bool:
        """Whether what is wrong is mended."""
        return self.transaction is not None

    def found(self, kind: str, where: str, rule: str, *, repaired: bool = False) -> None:
        """Note a problem, up to 10,000."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(kind, where, rule, repaired))

    def has_found(self, *kinds: str) -> bool:
        """Whether a problem of one of these kinds was noted."""
        return any(one.kind in kinds for one in self.problems)

    def repair(self, statement: str, *values: object) -> None:
        """Run a statement that mends something, if anything is to be mended."""
        if self.repairs:
            self.db.execute(statement, values)

    @contextmanager
    def section(self, kind: str, where: str) -> Iterator[None]:
        """What goes wrong in here is a problem of this kind, and the check goes on behind it."""
        try:
            yield
        except DATABASE_ERRORS as error:
            self.found(kind, where, f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})")
        except (Corrupt, CodecError, NotFound, PeerError) as error:
            self.found(kind, where, f"{error.value}: {error.rule}")
