"""A store in memory: the model that the others are tested against, and the journal of runs that keep nothing."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from types import TracebackType
from typing import Self

from tidewarp.codec import Record, domain_of, genesis
from tidewarp.errors import InternalError
from tidewarp.store.chain import Linked, check_cursors, check_entries, check_range, link
from tidewarp.store.contract import Entry, Written

__all__ = ["MemoryJournal", "MemoryStore"]


class MemoryJournal:
    """The :class:`~tidewarp.store.contract.Journal` contract over a list and a dict; durable while the process lives."""

    def __init__(self, root_public_key: bytes) -> None:
        self._domain = domain_of(root_public_key)
        self._log: list[Linked] = []
        self._cursors: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def domain(self) -> bytes:
        """Identity of the journal, 32 bytes."""
        return self._domain

    @property
    def size(self) -> int:
        """Records."""
        return len(self._log)

    @property
    def head(self) -> bytes:
        """Hash of the last record, 32 bytes."""
        return self._log[-1].hash if self._log else genesis(self._domain)

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """As the contract says."""
        checked, positions = check_entries(entries), check_cursors(cursors)
        with self._lock:
            self._check_open("append")
            first_seq = len(self._log) + 1
            self._log += link(self._domain, len(self._log), self.head, checked)
            self._cursors |= positions
            return Written(first_seq, len(self._log), self.head)

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """As append; the future is complete when it is returned."""
        future: Future[Written] = Future()
        future.set_result(self.append(entries, cursors=cursors))
        return future

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """As the contract says."""
        self._check_open("read")
        check_range(after, limit)
        found = (one.record for one in self._log[after:] if kinds is None or one.record.kind in kinds)
        return islice(found, limit)

    def cursor(self, source: str) -> bytes | None:
        """The position of ``source``."""
        self._check_open("cursor")
        return self._cursors.get(source)

    def cursors(self) -> dict[str, bytes]:
        """All positions, by name in byte order."""
        self._check_open("cursors")
        return dict(sorted(self._cursors.items()))

    def close(self) -> None:
        """Refuse everything from here on."""
        self._closed = True

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise InternalError(call, "the store is closed", "open it again")


class MemoryStore:
    """A store without a file. Equal ``root_public_key`` (32 bytes) and equal entries give equal records."""

    def __init__(self, root_public_key: bytes = bytes(32)) -> None:
        self._journal = MemoryJournal(root_public_key)

    @property
    def journal(self) -> MemoryJournal:
        """The journal."""
        return self._journal

    def close(self) -> None:
        """Refuse everything from here on; what was written is gone with the object."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
