"""The journal: an append-only, hash-chained log with source positions, durable before it is acknowledged.

    contract      what upper layers see: Entry, Written, Journal, Store
    sqlite        a file: journal (records), groupcommit (queue), schema (tables), connection, files (key, lock)
    memory        the same without a file; the model that ``sqlite`` is tested against
    chain         from entries to records, for both
    check         verify all that a file holds

Nothing here knows what a body means, but for the tick at its start.
"""

from __future__ import annotations

import os

from tidewarp.store.check import Checked, check_file
from tidewarp.store.contract import NAME_BYTES_MAX, Entry, Journal, Store, Written
from tidewarp.store.files import key_fault
from tidewarp.store.memory import MemoryStore
from tidewarp.store.sqlite import SqliteStore

__all__ = [
    "NAME_BYTES_MAX",
    "Checked",
    "Entry",
    "Journal",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "Written",
    "check_file",
    "key_fault",
    "open_store",
]


def open_store(path: str | os.PathLike[str], *, create: bool = False, read_only: bool = False) -> Store:
    """Open the journal file ``path``; ``":memory:"`` is a new store that keeps nothing (the two options have no effect).

    Args:
        path: of the .tw file; a link is followed.
        create: make the journal if there is none.
        read_only: take no lock, write nothing; any number of readers may stand beside the writer.

    Raises:
        OperatorError: missing, not permitted, no journal, or of another format; for writing also without its key.
        StoreLocked: another process, or another handle of this one, writes it.
        Corrupt: the file is no database, or its tables, its identity or its last record are damaged.
        StoreFull, StoreFailed: it could not be created, or read.
    """
    if path == ":memory:":
        return MemoryStore(os.urandom(32))  # an identity of its own: a sink knows a run by it
    return SqliteStore(path, create=create, read_only=read_only)
