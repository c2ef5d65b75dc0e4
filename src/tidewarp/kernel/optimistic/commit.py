"""The commit stage: what GVT has passed leaves all PEs in key order and cannot be undone any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidewarp.errors import InternalError
from tidewarp.kernel.optimistic.entries import COMMITTED, Entry
from tidewarp.kernel.records import Event
from tidewarp.kernel.trace import Ledger

__all__ = ["Committer"]


class Committer:
    """Hands final events to the ledger: trace, accumulators, outputs."""

    def __init__(self, ledger: Ledger) -> None:
        self.tick = 0
        """Tick of the last committed event."""
        self._ledger = ledger
        self._last: tuple[Any, ...] = ()

    def release(self, finals: Iterable[list[Entry]]) -> int:
        """Commit the final events of all PEs (each list in key order) until the ledger is full; how many it were.

        What is committed is marked COMMITTED, for the PEs to collect.

        Raises:
            ModelError: the error of the first event that failed; everything before it is committed.
            InternalError: an event that does not follow the last one.
        """
        ledger = self._ledger
        done: list[Event] = []
        try:
            for entry in sorted((entry for final in finals for entry in final), key=_key):
                if ledger.full:
                    break
                if entry.error is not None:
                    raise entry.error
                self._take(entry)
                done.append(entry.event)
        finally:
            ledger.commit(done)
        return len(done)

    def _take(self, entry: Entry) -> None:
        key = entry.event[:5]
        if key <= self._last:
            raise InternalError(f"committing {key}", f"{self._last} was committed before", "please report this")
        self._last = key
        self.tick = key[0]
        entry.status = COMMITTED
        if entry.adds:
            self._ledger.add(entry.adds)
        if entry.emitted:
            self._ledger.emit(entry.event, entry.emitted)


def _key(entry: Entry) -> tuple[Any, ...]:
    return entry.event[:5]
