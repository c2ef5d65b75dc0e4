"""Whose turn it is: one thread changes the state, and the others see what was there before its transaction."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.batches import BODY
from tidewarp.errors import InternalError
from tidewarp.store.chain import link
from tidewarp.store.continuation import Incoming
from tidewarp.store.contract import Entry, Written
from tidewarp.store.memory.state import State
from tidewarp.store.stamps import stamps
from tidewarp.store.views import Views

__all__ = ["Turns"]

_OUTER = "BEGIN", "COMMIT", "ROLLBACK"


class Turns:
    """The state of a store in memory, of ``domain`` (32 bytes), and transactions of it. ``clock`` stamps its records.

    A transaction keeps a copy to go back to. ``_views`` are told where records have gone that were folded.
    """

    _views: Views

    def __init__(self, domain: bytes, state: State, clock: Clock | None = None) -> None:
        self._domain = domain
        self._clock = clock
        self._state = state
        self._before: State | None = None  # what others see while a transaction is open
        self._holder: int | None = None  # the thread whose transaction is open
        self._turn = threading.RLock()
        self._closed = False
        self._is_refolded = False
        self._db: sqlite3.Connection | None = None  # tables of extensions

    @property
    def domain(self) -> bytes:
        """The domain that this store writes, 32 bytes."""
        return self._domain

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As the contract says."""
        with self._writing("transaction") as state:
            before, outer, nested = state.copy(), self._before, self._in_transaction
            begin, end, undo = ("SAVEPOINT part", "RELEASE part", "ROLLBACK TO part") if nested else _OUTER
            self._before, self._holder = outer or before, threading.get_ident()
            if self._db is not None:
                self._db.execute(begin)
            try:
                yield
            except BaseException:
                self._state = before
                self._views.forget()
                if self._db is not None and self._db.in_transaction:
                    self._db.execute(undo)
                raise
            else:
                if self._db is not None and self._db.in_transaction:
                    self._db.execute(end)
            finally:
                self._before = outer
                if not nested:
                    self._holder = None
                    if self._is_refolded:
                        self._is_refolded = False
                        self._views.forget()

    @property
    def _in_transaction(self) -> bool:
        return self._holder is not None and self._holder == threading.get_ident()

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise InternalError(call, "the store is closed", "open it again")

    @contextmanager
    def _writing(self, call: str) -> Iterator[State]:
        """The state, to be changed by this thread alone; who changes it checks before the first change."""
        with self._turn:
            self._check_open(call)
            yield self._state

    def _fold_anew(self) -> None:
        """Records that were folded are others now: here at once, and again when others see it, who fold meanwhile."""
        self._views.forget()
        self._is_refolded = self._in_transaction

    def _seen(self) -> State:
        """What this thread sees."""
        return self._state if self._in_transaction else self._durable()

    def _durable(self) -> State:
        return self._state if self._before is None else self._before

    def _extend(self, state: State, entries: Sequence[Entry]) -> Written:
        log = state.logs[self._domain]
        size = len(log.records)
        hlcs = () if self._clock is None else (stamps(self._clock, log.records[-1].header.hlc if size else 0),)
        linked = link(self._domain, size, log.head, entries, *hlcs)
        state.extend(self._domain, (Incoming(one.record.header, one.hash, BODY, one.record.body) for one in linked))
        state.last_ticks |= {one.record.seq: one.last_tick for one in linked if one.last_tick is not None}
        return Written(size + 1, len(log.records), log.head)
