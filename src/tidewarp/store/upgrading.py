"""A journal of format 1 as a store: a copy that has the same records, the same hashes and the same identity."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tidewarp.codec import INPUT, Record
from tidewarp.errors import Corrupt, OperatorError
from tidewarp.store.contract import Entry
from tidewarp.store.described import describe
from tidewarp.store.files import locate, read_seed, refuse_foreign, require_key, writer_lock
from tidewarp.store.schema import JOURNAL_FORMAT
from tidewarp.store.sqlite import SqliteStore

__all__ = ["upgrade"]

_RECORDS = 1_000  # that are in memory at once


def upgrade(
    old: str | os.PathLike[str], new: str | os.PathLike[str], *, last_tick_of: Callable[[Record], int]
) -> SqliteStore:
    """Copy records and cursors of the journal ``old`` into the new store ``new``, in one transaction; ``new``, open.

    ``old`` is locked meanwhile, and stays as it is. From then on there are two stores with one key: whoever writes to
    both has forked his domain.

    Args:
        old: a file of format 1, with its key beside it.
        new: NAME.tw, or a directory that is made.
        last_tick_of: the highest tick that an INPUT record speaks of, so that reads by time find it at once.

    Raises:
        OperatorError: ``old`` is no such file or has no key, or something stands at ``new``.
        Corrupt: ``old`` is damaged; what stands at ``new`` then is a store without records.
        StoreLocked, StoreFull, StoreFailed: as of a store that is opened and written.
    """
    refuse_foreign(locate(old, create=False, read_only=True))
    found = describe(old).format
    if found != JOURNAL_FORMAT:
        raise OperatorError(str(old), f"its format is {found}: it is a store already", "use it as it is")
    if os.path.lexists(new):
        raise OperatorError(str(new), "something stands here, and nothing is overwritten", "name another place")
    place = locate(old, create=False, read_only=True)
    with writer_lock(place), SqliteStore(old, read_only=True) as source:
        require_key(place, source.domain)
        if Path(new).suffix != ".tw":
            Path(new).mkdir()
        store = SqliteStore(new, create=True, key=read_seed(place))
        try:
            _copy(source, store, last_tick_of)
        except BaseException:
            store.close()
            raise
    return store


def _copy(source: SqliteStore, store: SqliteStore, last_tick_of: Callable[[Record], int]) -> None:
    records = source.journal.read()
    with store.transaction():
        head = store.journal.head
        while part := list(islice(records, _RECORDS)):
            head = store.journal.append([_entry(record, last_tick_of) for record in part]).head
        store.journal.append([], cursors=source.journal.cursors())
        if head != source.journal.head:
            raise Corrupt(
                f"journal {source.domain.hex()}",
                "written again, its records have other hashes",
                "keep it as it is, and report it",
            )


def _entry(record: Record, last_tick_of: Callable[[Record], int]) -> Entry:
    last_tick = last_tick_of(record) if record.kind == INPUT else None
    return Entry(record.kind, record.body, record.header.flags, last_tick)
