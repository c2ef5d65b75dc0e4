"""Branches: what-if continuations of a journal, held in memory.

A prefix of a journal is a value, so many futures can share one. A branch is that prefix and records of its own, kept here
and nowhere else: they are in no file, head, snapshot or state hash, no peer is told of them, and no key signs for them. The
journal that it leaves goes on untouched; what is written there later does not exist on the branch.

    seq      1 … n                  n + 1                           n + 2 …
             records of the parent  BRANCH: parent, n, head, name   what was appended to the branch

The first record of its own names what it continues, and its domain is the hash of that: two branches of one name and one
prefix have one domain. Their numbers go on behind those of the parent, so that a position (``after``, ``size``, a record
asked for by its number) means one thing on both sides of the cut; the chain of the branch's domain begins at the BRANCH
record, whose ``prev`` is the genesis of that domain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from heapq import merge
from itertools import chain, islice
from operator import itemgetter
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tidewarp.codec import INPUT, Record, genesis, split_timed_body
from tidewarp.codec.bodies import BRANCH, BranchBody
from tidewarp.store.chain import (
    Linked,
    check_cursors,
    check_entries,
    check_name,
    check_range,
    check_window,
    link,
    no_input,
)
from tidewarp.store.contract import Entry, Journal, Written

__all__ = ["BranchJournal", "Cut", "Parent", "overlapping"]


class Cut(NamedTuple):
    """Where a journal is left: so many durable records, the hash of the last (32 bytes), and the cursors of then."""

    size: int
    head: bytes
    cursors: Mapping[str, bytes]


class Parent(Journal, Protocol):
    """A journal of which branches can read the records up to a cut, whatever has come behind it."""

    def check_open(self, call: str) -> None:
        """Raise what ``call`` would, if the journal can be used no more: closed, failed, or of another process."""

    def read_to(
        self, size: int, head: bytes, after: int, limit: int | None, kinds: Collection[int] | None
    ) -> Iterator[Record]:
        """As :meth:`Journal.read`, when ``size`` records were there, and ``head`` was the hash of the last."""

    def read_time_to(
        self, size: int, first_tick: int, last_tick: int, last_tick_of: Callable[[Record], int] | None
    ) -> Iterator[Record]:
        """As :meth:`Journal.read_time`, when ``size`` records were there."""


class BranchJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over another journal's prefix and a list.

    It is its own :class:`~tidewarp.store.contract.JournalHolder`, so what runs on a journal's file can run on it.
    It can be used as long as its parent is open, and in that process: in a child of it every call is refused, as the
    parent's are. Its records are durable while it lives. They have no stamp of time.

    Args:
        parent: stays as it is, and is only read.
        cut: of the parent, at one moment. Its cursors are those to go on from: the positions behind its records.
        name: 1 to 1,024 bytes of UTF-8 without NUL.
    """

    def __init__(self, parent: Parent, cut: Cut, name: str) -> None:
        body = BranchBody(parent.domain, cut.size, cut.head, check_name(name, "branch"))
        self._parent = parent
        self._cut = cut
        self._domain = body.domain
        self._own: list[Linked] = link(self._domain, cut.size, genesis(self._domain), [Entry(BRANCH, body.to_bytes())])
        self._cursors = dict(cut.cursors)
        self._turn = threading.RLock()

    @property
    def domain(self) -> bytes:
        """Identity of the branch, 32 bytes: a hash of what it continues and of its name."""
        return self._domain

    @property
    def size(self) -> int:
        """Records, those of the prefix and the BRANCH record among them."""
        self.check_open("size")
        return self._cut.size + len(self._own)

    @property
    def head(self) -> bytes:
        """Hash of the last record, 32 bytes."""
        self.check_open("head")
        return self._own[-1].hash

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says; it takes what memory there is, and nothing is bounded by a file."""
        self.check_open("append")
        checked, positions = check_entries(entries), check_cursors(cursors)
        with self._turn:
            size = self._cut.size + len(self._own)
            self._own += link(self._domain, size, self._own[-1].hash, checked)
            self._cursors |= positions
            return Written(size + 1, size + len(checked), self._own[-1].hash)

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As append; the future is complete when it is returned."""
        future: Future[Written] = Future()
        future.set_result(self.append(entries, cursors=cursors))
        return future

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says: the parent's prefix first, then the BRANCH record, then what was appended."""
        size = self.size
        check_range(after, limit)
        return self.read_to(size, b"", after, limit, kinds)

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """As the contract says, of prefix and own records together."""
        size = self.size
        check_window(first_tick, last_tick)
        return self.read_time_to(size, first_tick, last_tick, last_tick_of)

    def last_tick(self, seq: int) -> int | None:
        """As the contract says."""
        if seq > self.size:
            raise no_input(seq)
        if seq <= self._cut.size:
            return self._parent.last_tick(seq)
        own = self._own[seq - self._cut.size - 1]
        if own.kind != INPUT:
            raise no_input(seq)
        return own.last_tick

    def cursor(self, source: str) -> bytes | None:
        """The position of ``source``: the parent's at the cut, until the branch has one."""
        return self.cursors().get(source)

    def cursors(self) -> dict[str, bytes]:
        """All positions, by name in byte order."""
        self.check_open("cursors")
        with self._turn:
            return dict(sorted(self._cursors.items()))

    def branch(self, name: str) -> Journal:
        """As the contract says: a branch of a branch."""
        self.check_open("branch")
        with self._turn:
            cut = Cut(self._cut.size + len(self._own), self._own[-1].hash, dict(self._cursors))
        return BranchJournal(self, cut, name)

    # --- as a holder ---

    @property
    def journal(self) -> Self:
        """Itself."""
        return self

    def close(self) -> None:
        """Nothing: it holds memory alone, which goes with the object, and can be read and written until its parent is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- as a parent ---

    def check_open(self, call: str) -> None:
        """As the protocol says: what the parent at the root of it raises."""
        self._parent.check_open(call)

    def read_to(
        self, size: int, head: bytes, after: int, limit: int | None, kinds: Collection[int] | None
    ) -> Iterator[Record]:
        """As the protocol says; ``head`` needs no comparison, since nothing here was written and read back."""
        cut = self._cut
        before = self._parent.read_to(cut.size, cut.head, after, limit, kinds)
        own = (one.record for one in self._own_to(size, after) if kinds is None or one.kind in kinds)
        return islice(chain(before, own), limit)

    def read_time_to(
        self, size: int, first_tick: int, last_tick: int, last_tick_of: Callable[[Record], int] | None
    ) -> Iterator[Record]:
        """As the protocol says."""
        before = self._parent.read_time_to(self._cut.size, first_tick, last_tick, last_tick_of)
        inputs = ((one.record, one.last_tick) for one in self._own_to(size, 0) if one.kind == INPUT)
        return merge(before, overlapping(inputs, first_tick, last_tick, last_tick_of), key=_place)

    def _own_to(self, size: int, after: int) -> Iterator[Linked]:
        """The own records behind number ``after``, up to ``size``."""
        return islice(self._own, max(after - self._cut.size, 0), size - self._cut.size)


def overlapping(
    inputs: Iterable[tuple[Record, int | None]],
    first_tick: int,
    last_tick: int,
    last_tick_of: Callable[[Record], int] | None,
) -> list[Record]:
    """Of INPUT records in the order of their numbers, each with its last tick or None, those that ``read_time`` gives."""
    found = []
    for record, last in inputs:
        tick, _ = split_timed_body(record.body)
        if tick > last_tick:
            continue
        if last is None and last_tick_of is not None:
            last = last_tick_of(record)
        if last is None or last >= first_tick:
            found.append((tick, record))
    return [record for _, record in sorted(found, key=itemgetter(0))]


def _place(record: Record) -> tuple[int, int]:
    """By its first tick, then by its number."""
    return split_timed_body(record.body)[0], record.seq
