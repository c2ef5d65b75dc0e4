"""What the layers above see of a journal: plain values and two protocols. It is all that a twin needs of a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tidewarp.codec import Record

__all__ = ["CURSOR_BYTES_MAX", "NAME_BYTES_MAX", "Entry", "Journal", "JournalHolder", "Written"]

NAME_BYTES_MAX = 1_024
"""UTF-8 bytes of a source's name, at most; at least one."""

CURSOR_BYTES_MAX = 1 << 20
"""Bytes of one source's cursor, at most."""


class Entry(NamedTuple):
    """What becomes a record: kind (U8), body (at most 1 MiB), flags (0 or PUBLISHED).

    The body of a timed kind begins with its tick: see :func:`tidewarp.codec.timed_body`. ``last_tick`` is the highest
    that it speaks of, None if the writer does not say: no part of the record, but what :meth:`Journal.read_time` finds
    it by.
    """

    kind: int
    body: bytes
    flags: int = 0
    last_tick: int | None = None


class Written(NamedTuple):
    """Where entries stand: first and last sequence number, and the record hash of the last (32 bytes).

    Without entries (cursors alone), ``last_seq`` is the size of the journal and ``first_seq`` one more.
    """

    first_seq: int
    last_seq: int
    head: bytes


class Journal(Protocol):
    """The hash-chained log of one domain. Methods may be called from any thread of the process that opened it."""

    @property
    def domain(self) -> bytes:
        """Identity of the journal, 32 bytes."""

    @property
    def size(self) -> int:
        """Durable records."""

    @property
    def head(self) -> bytes:
        """Record hash of the last durable record (32 bytes); of an empty journal, ``genesis(domain)``."""

    def append(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Written:
        """Write ``entries`` and ``cursors`` in one transaction, after all that was submitted before; block until durable.

        An append that is interrupted by a signal has the outcome of a crash: look at ``size``.

        Raises:
            CodecError: an entry, a name or a cursor breaks its rule; nothing was queued.
            StoreFull: no space, or an earlier submission failed and nobody has looked at it (see :meth:`submit`).
            StoreFailed: an I/O error, now or before.
            OperatorError: the store was opened read-only.
        """

    def submit(self, entries: Sequence[Entry], *, cursors: Mapping[str, bytes] | None = None) -> Future[Written]:
        """Queue ``entries`` and ``cursors`` for the next commit: at once, or behind the one that is being written.

        The order of submission is the order of records, and one submission is never split. Blocks while
        the queue holds 65,536 entries. A queued submission cannot be cancelled.

        When a submission fails, all that were submitted after it fail too, with nothing of theirs written,
        so that the order has no hole. This goes on, for ``append`` as well, until somebody has called ``result()`` or
        ``exception()`` of the *first* that failed: then its caller knows, and may submit again from there.
        Read the futures in their order.

        Raises:
            CodecError, OperatorError, StoreFailed: as :meth:`append`, at once.
        """

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        """The records behind sequence number ``after``, of ``kinds``, at most ``limit``, up to the size of now.

        Each header is checked against its columns and its predecessor, each body that is returned against its hash.
        Read in pages, each in a transaction of its own, so a slow reader delays no checkpoint of the database.

        Raises:
            Corrupt: with ``seq`` of the first bad record; those before it were returned.
        """

    def read_time(
        self, first_tick: int, last_tick: int, *, last_tick_of: Callable[[Record], int] | None = None
    ) -> Iterator[Record]:
        """The INPUT records that speak of a tick from ``first_tick`` to ``last_tick``, up to the size of now.

        A record speaks of all ticks from the one at its start to the last one of its entry. Ascending by the first of
        them, then by seq; checked and paged as in :meth:`read`.

        Args:
            first_tick: I64, of the window's begin.
            last_tick: I64, of its end, which belongs to it.
            last_tick_of: the highest tick that a record speaks of, for those of which no entry said it: in a file of
                format 1, and in a tail that came back from another site. They are read, and given or not by what this
                says; without it, all that begin up to ``last_tick`` are given, so none is missing.

        Raises:
            Corrupt: as :meth:`read`.
            OperatorError: these are no window.
        """

    def last_tick(self, seq: int) -> int | None:
        """What the entry of an INPUT record gave as its last tick; None if it did not, or the format keeps none.

        Raises:
            NotFound: there is no such record.
        """

    def cursor(self, source: str) -> bytes | None:
        """The durable position of ``source``; None if it has none."""

    def cursors(self) -> dict[str, bytes]:
        """All durable positions, by name in byte order."""

    def branch(self, name: str) -> Journal:
        """A what-if continuation of all that is durable now: see :mod:`~tidewarp.store.branches`.

        It is held in memory and can be written, also where this journal was opened read-only; this one stays as it is, and
        may go on. Reading it gives the records of this one up to now, a record that says what it continues, then its own,
        which are numbered behind those. Its cursors are the durable ones of now. Equal names at one place give one domain.

        Raises:
            CodecError: the name has not 1 to 1,024 bytes of UTF-8 without NUL.
            InternalError: a transaction of this thread is open.
        """


class JournalHolder(Protocol):
    """What has a journal and is closed: all that a twin needs of a store. A context manager that closes."""

    @property
    def journal(self) -> Journal:
        """The journal of the holder's own domain."""

    def close(self) -> None:
        """Commit what is queued and release everything. Safe to call twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
