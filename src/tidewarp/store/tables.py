"""Tables of upper layers in the database of a store, so that what they note is durable with what it is about."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tidewarp.errors import InternalError, OperatorError
from tidewarp.store.connection import DATABASE_ERRORS
from tidewarp.store.handle import Handle
from tidewarp.store.journal import OpenTransaction
from tidewarp.store.schema import DDL_SEPARATOR

__all__ = ["SqliteTables", "check_ddl", "is_made", "make_tables"]

_NAME = re.compile("[a-z]{1,32}")
_READS = ("SELECT", "WITH", "VALUES")


class SqliteTables:
    """The :class:`~tidewarp.store.contract.Tables` of one extension."""

    def __init__(self, handle: Handle, begin: Callable[[str], AbstractContextManager[OpenTransaction]]) -> None:
        self._handle = handle
        self._begin = begin

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """As the contract says."""
        try:
            if statement.lstrip().upper().startswith(_READS):
                with self._handle.reading("execute") as db:
                    return db.execute(statement, values).fetchall()
            with self._begin("execute") as transaction:
                return transaction.db.execute(statement, values).fetchall()
        except DATABASE_ERRORS as error:
            self._handle.fail(error, f"statement {statement.split('(')[0]!r:.60}")


def is_made(handle: Handle, name: str, version: int, ddl: Sequence[str]) -> bool:
    """Are the tables of an extension here?

    Raises:
        OperatorError: a newer release has made them.
        InternalError: they were made by other statements.
    """
    rows = handle.select("extension", "SELECT version, ddl FROM extension WHERE name = ?", name)
    if not rows:
        return False
    found, text = rows[0]
    if found > version:
        raise OperatorError(str(handle.path), f"its tables of {name} are of version {found}", "use a newer release")
    if (found, text) != (version, _text(ddl)):
        rule = f"the tables that are here are of version {found}, or made by other statements"
        raise InternalError(f"extension {name} {version}", rule, "migrate them first")
    return True


def make_tables(db: sqlite3.Connection, name: str, version: int, ddl: Sequence[str]) -> None:
    """Make the tables of an extension, in the open transaction. Raises DATABASE_ERRORS."""
    for statement in ddl:
        db.execute(statement)
    db.execute("INSERT INTO extension VALUES (?, ?, ?)", (name, version, _text(ddl)))


def _text(ddl: Sequence[str]) -> str:
    return DDL_SEPARATOR.join(ddl)


def check_ddl(name: str, ddl: Sequence[str]) -> None:
    """Raise InternalError unless the statements make nothing but tables and indices whose names begin with ``name_``."""
    if not _NAME.fullmatch(name):
        raise InternalError(f"extension {name!r:.60}", "a name is 1 to 32 lower-case letters", "rename it")
    allowed = re.compile(rf"CREATE (TABLE|(UNIQUE )?INDEX) {name}_[a-z_]+ (ON {name}_[a-z_]+ )?\(")
    for statement in ddl:
        if not allowed.match(statement) or ";" in statement:
            rule = f"an extension makes tables and indices whose names begin with {name}_"
            raise InternalError(f"statement {statement!r:.80}", rule, "write CREATE TABLE or CREATE INDEX")
