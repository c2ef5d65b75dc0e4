"""The journal of a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice

from tidewarp.codec import INPUT, Record
from tidewarp.errors import InternalError
from tidewarp.store.branches import BranchJournal, Cut, overlapping
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
        self.check_open("read")
        check_range(after, limit)
        return self.read_to(self.size, self.head, after, limit, kinds)

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """As the contract says."""
        self.check_open("read_time")
        check_window(first_tick, last_tick)
        return self.read_time_to(self.size, first_tick, last_tick, last_tick_of)

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

    def branch(self, name: str) -> BranchJournal:
        """As the contract says; waits for a transaction of another thread."""
        if self._store._in_transaction:
            raise InternalError(
                "branch", "this thread's transaction is open, and not durable yet", "leave the block first"
            )
        with self._store._writing("branch") as state:
            log = state.logs[self._store.domain]
            cut = Cut(len(log.records), log.head, dict(state.cursors))
        return BranchJournal(self, cut, name)

    def close(self) -> None:
        """Refuse everything from here on."""
        self._store._closed = True

    # --- as a parent of branches ---

    def check_open(self, call: str) -> None:
        """As :class:`~tidewarp.store.branches.Parent` says, and the two below."""
        self._store._check_open(call)

    def read_to(
        self, size: int, head: bytes, after: int, limit: int | None, kinds: Collection[int] | None
    ) -> Iterator[Record]:
        """The records of a read that began at ``size``; nothing here was written and read back, so no ``head`` is compared."""
        records = self._durable.records[after:size]
        found = (Record(one.header, one.body or b"") for one in records if kinds is None or one.header.kind in kinds)
        return islice(found, limit)

    def read_time_to(
        self, size: int, first_tick: int, last_tick: int, last_tick_of: Callable[[Record], int] | None
    ) -> Iterator[Record]:
        """The records of a read that began at ``size``."""
        last_ticks = self._store._durable().last_ticks
        records = self.read_to(size, b"", 0, None, {INPUT})
        inputs = ((record, last_ticks.get(record.seq)) for record in records)
        return iter(overlapping(inputs, first_tick, last_tick, last_tick_of))

    @property
    def _durable(self) -> Log:
        return self._store._durable().logs[self._store.domain]
