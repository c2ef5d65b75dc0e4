"""The journal of a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from operator import itemgetter

from tidewarp.codec import INPUT, Record, split_timed_body
from tidewarp.errors import InternalError
from tidewarp.store.chain import check_cursors, check_entries, check_range, check_window, no_input
from tidewarp.store.contract import Entry, Written
from tidewarp.store.memory.state import Log
from tidewarp.store.memory.turns import Turns

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over a list and a dict; durable while the process lives."""

    def __init__(self, store: Turns) -> None:
        self._store = store

    @property
    def domain(self) -> bytes:
        """Identity of the journal, 32 bytes."""
        return self._store.domain

    @property
    def size(self) -> int:
        """Records."""
        return len(self._durable.records)

    @property
    def head(self) -> bytes:
        """Hash of the last record, 32 bytes."""
        return self._durable.head

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says."""
        checked, positions = check_entries(entries), check_cursors(cursors)
        with self._store._writing("append") as state:
            written = self._store._extend(state, checked)
            state.cursors |= positions
            return written

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As append; the future is complete when it is returned."""
        if self._store._in_transaction:
            raise InternalError("submit", "a transaction is written by the thread that opened it", "append there")
        future: Future[Written] = Future()
        future.set_result(self.append(entries, cursors=cursors))
        return future

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says."""
        self._store._check_open("read")
        check_range(after, limit)
        records = self._durable.records[after:]
        found = (Record(one.header, one.body or b"") for one in records if kinds is None or one.header.kind in kinds)
        return islice(found, limit)

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """As the contract says."""
        self._store._check_open("read_time")
        check_window(first_tick, last_tick)
        found = []
        for record in self.read(kinds={INPUT}):
            tick = split_timed_body(record.body)[0]
            last = self._store._durable().last_ticks.get(record.seq)
            if last is None and last_tick_of is not None and tick <= last_tick:
                last = last_tick_of(record)
            if tick <= last_tick and (last is None or last >= first_tick):
                found.append((tick, record))
        return (record for _, record in sorted(found, key=itemgetter(0)))

    def last_tick(self, seq: int) -> int | None:
        """As the contract says."""
        if not 0 < seq <= self.size or self._durable.records[seq - 1].header.kind != INPUT:
            raise no_input(seq)
        return self._store._durable().last_ticks.get(seq)

    def cursor(self, source: str) -> bytes | None:
        """The position of ``source``."""
        return self.cursors().get(source)

    def cursors(self) -> dict[str, bytes]:
        """All positions, by name in byte order."""
        self._store._check_open("cursors")
        return dict(sorted(self._store._seen().cursors.items()))

    def close(self) -> None:
        """Refuse everything from here on."""
        self._store._closed = True

    @property
    def _durable(self) -> Log:
        return self._store._durable().logs[self._store.domain]
