"""The store: journals of domains, artifacts, edges and tombstones, durable before they are acknowledged.

    contract      what upper layers see: Entry, Written, Journal, Store, …
    sqlite        the store in files; opening: its parts, which are
        files, connection, handle      where it lies, who may write it, what an error means
        schema, rows, log              tables, rows of records, reading them in pages
        groupcommit, journal           queue, transactions, the own journal
        blocks, payload, artifacts     bytes
        index, trees, domains          what follows from records; the logs of all domains
        spans                          reads by virtual time
        links, arrivals, collection    garbage collection: what names what, what was just put, what goes
        sharding                       rows of shards
        tables                         tables of upper layers
    memory        the same without files; the model that ``sqlite`` is tested against
    shards, subjects, snapshots        where a record belongs, what it is about; what was visible when: for both
    branches      what-if continuations of a journal, in memory: for both
    stamps        when records were written: for both
    chain, continuation, speaking      records made, records taken in, what is said of an artifact: pure, for both
    retention     what may go: pure, for both
    admission, fold, views, query      from records to what is visible, and questions about it
    check, audit  verify all that a file holds; that a store holds
    fsck, damage  the same of every table and block, with repair
    described     what a store says of itself

Nothing here knows peers, nor what a timed body means, but for the tick at its start.
"""

from __future__ import annotations

import os

from tidewarp.clocks.pacing import Clock
from tidewarp.store.admission import OPEN, Admission
from tidewarp.store.branches import BranchJournal
from tidewarp.store.check import Checked, check_file
from tidewarp.store.contract import (
    NAME_BYTES_MAX,
    Adopted,
    ArtifactInfo,
    DomainState,
    Entry,
    Journal,
    JournalHolder,
    Store,
    StoredRecord,
    Tables,
    Written,
)
from tidewarp.store.damage import ByteSource, FsckReport, Problem
from tidewarp.store.files import key_fault
from tidewarp.store.fold import View
from tidewarp.store.memory import MemoryStore
from tidewarp.store.retention import GcReport, Guard, Pinned
from tidewarp.store.schema import Settings, check_settings
from tidewarp.store.shards import ShardMap
from tidewarp.store.snapshots import Item, find_snapshot
from tidewarp.store.sqlite import SqliteStore

__all__ = [
    "NAME_BYTES_MAX",
    "OPEN",
    "Admission",
    "Adopted",
    "ArtifactInfo",
    "BranchJournal",
    "ByteSource",
    "Checked",
    "DomainState",
    "Entry",
    "FsckReport",
    "GcReport",
    "Guard",
    "Item",
    "Journal",
    "JournalHolder",
    "MemoryStore",
    "Pinned",
    "Problem",
    "Settings",
    "ShardMap",
    "SqliteStore",
    "Store",
    "StoredRecord",
    "Tables",
    "View",
    "Written",
    "check_file",
    "find_snapshot",
    "key_fault",
    "open_store",
]


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    read_only: bool = False,
    key: bytes | None = None,
    quota_bytes: int | None = None,
    inline_max: int | None = None,
    shards: int = 1,
    admission: Admission = OPEN,
    clock: Clock | None = None,
) -> Store:
    """Open the store at ``path``: a file NAME.tw, or a directory that is there.

    ``":memory:"`` is a new store that keeps nothing; ``create`` and ``read_only`` have no effect on it.

    Args:
        path: a link is followed.
        create: make the store if there is none.
        read_only: take no lock, write nothing; any number of readers may stand beside the writer.
        key: of a new store: its Ed25519 seed (32 bytes); None: a new one. Two stores with one key are a fork.
        quota_bytes: of a new store: payload bytes that it takes, at most. None: no bound.
        inline_max: of a new store: payload bytes that stand in a row of its database; larger ones are kept as blocks.
        shards: of a new store: into how many shards its records are divided, 1 to 256; ``Store.reshard`` changes it.
        admission: whose records count.
        clock: the wall's, such as ``tidewarp.clocks.WallClock()``: each record that is written through this handle says when
            (:mod:`~tidewarp.store.stamps`). None: it does not, and equal calls give equal bytes.

    Raises:
        OperatorError: missing, not permitted, no store, or of another format; for writing also without its key; a quota or
            a bound that is no number of bytes.
        StoreLocked: another process, or another handle of this one, writes it.
        Corrupt: the file is no database, or its tables, its identity or its last record are damaged.
        StoreFull, StoreFailed: it could not be created, or read.
    """
    settings = Settings(quota_bytes, inline_max, ShardMap.even(shards))
    check_settings(settings)
    if path == ":memory:":
        # An identity of its own: a sink knows a run by it.
        return MemoryStore(
            key or os.urandom(32),
            quota_bytes=quota_bytes,
            shard_map=settings.shard_map,
            admission=admission,
            clock=clock,
        )
    return SqliteStore(
        path, create=create, read_only=read_only, settings=settings, key=key, admission=admission, clock=clock
    )
