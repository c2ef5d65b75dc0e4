"""The history of a PE: what is pending, what was executed, and how what came too early is undone.

Undoing is a work list, never recursion: whatever an undone event has sent is cancelled, and what of it was executed here is
the next to be undone. An event is undone newest first within its KP, a group of LPs that roll back together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from tidewarp.errors import InternalError
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.optimistic.entries import (
    ANTI,
    CANCELLED,
    COMMITTED,
    DOOMED,
    EXECUTED,
    GONE,
    PENDING,
    POSITIVE,
    QUEUED,
    SENT,
    Entry,
    Executor,
    Item,
)
from tidewarp.kernel.optimistic.memory import Pool
from tidewarp.kernel.records import Event

__all__ = ["History", "Kp"]


class Kp:
    """LPs that roll back together: their executed and uncommitted events in key order.

    A handler error stops it: ``failed`` is the newest executed event, and what comes after it waits in ``blocked``.
    ``final``: its one LP is not speculative.
    """

    __slots__ = ("blocked", "executed", "failed", "final")

    def __init__(self, final: bool) -> None:
        self.executed: deque[Entry] = deque()
        self.failed: Entry | None = None
        self.blocked: list[Entry] = []
        self.final = final


class History:
    """Pending, executed and sent events of the LPs of one PE, and rollback."""

    def __init__(self, kps: dict[int, Kp], executor: Executor, pool: Pool, lazy: bool) -> None:
        self.kps = list(dict.fromkeys(kps.values()))
        self.statistics = Statistics()
        self.executed_of = dict.fromkeys(kps, 0)  # per LP: those that were undone too
        self.rolled_back_of = dict.fromkeys(kps, 0)
        self._kp_of = kps
        self._executor = executor
        self._pool = pool
        self._lazy = lazy
        self._serial = 0
        self._pending: list[Item] = []
        self._waiting: list[Item] = []  # events that run only when they are final
        self._work: list[Entry] = []  # stragglers, doomed events, senders of returned messages
        self._stale: list[Entry] = []  # cancelled while their kept messages were still alive
        self._outbox: dict[int, deque[tuple[int, Entry]]] = {}  # target -> (POSITIVE or ANTI, stub)
        self._received: dict[tuple[int, int], Entry] = {}  # (source, number) -> event that can still be cancelled
        self._stubs: dict[tuple[int, int], Entry] = {}  # (target, number) -> stub of an uncommitted sender
        self._bases: dict[int, tuple[Any, list[Event]]] = {}  # the last committed image of an LP, and events since
        self._cancelled = 0  # entries in the heaps that will be dropped

    # --- pending ----------------------------------------------------------------------------------

    def insert(self, event: Event, sent: tuple[int, int], channel: tuple[int, int] | None) -> Entry:
        """A new event for an LP of this PE; a straggler is put on the work list."""
        kp = self._kp_of[event[2]]
        entry = Entry(event, kp, None, sent)
        self._serial = serial = self._serial + 1
        time, generation, dst, src, count, _ = event
        entry.item = (time, generation, dst, src, count, serial, entry)
        if channel is not None:
            entry.channel = channel
            self._received[channel] = entry
        self._pool.take(1)
        self._queue(entry)
        if self._is_straggler(entry):
            self._work.append(entry)
        return entry

    def _queue(self, entry: Entry) -> None:
        heappush(self._waiting if entry.held or entry.kp.final else self._pending, entry.item)

    def _is_straggler(self, entry: Entry) -> bool:
        executed = entry.kp.executed
        return bool(executed) and executed[-1].item > entry.item

    def _top(self, heap: list[Item]) -> Entry | None:
        """The first entry that can run: cancelled ones are dropped, those of a failed KP put aside."""
        while heap:
            entry = heap[0][6]
            if entry.status == CANCELLED:
                self._drop(entry)
                self._cancelled -= 1
            elif entry.kp.failed is not None and heap[0] > entry.kp.failed.item:
                entry.kp.blocked.append(entry)
            else:
                return entry
            heappop(heap)
        return None

    def _drop(self, entry: Entry) -> None:
        entry.status = GONE
        entry.item = None

    def _sweep(self) -> None:
        """Rebuild the heaps when most of them is cancelled: memory follows what is alive."""
        if self._cancelled * 2 <= len(self._pending) + len(self._waiting) or self._cancelled < 64:
            return
        for heap in (self._pending, self._waiting):
            for item in heap:
                if item[6].status == CANCELLED:
                    self._drop(item[6])
            heap[:] = [item for item in heap if item[6].status == PENDING]
            heapify(heap)
        self._cancelled = 0

    # --- cancelling -------------------------------------------------------------------------------

    def _cancel(self, entry: Entry) -> None:
        """Annihilate an event of this PE."""
        if entry.channel is not None:
            del self._received[entry.channel]
        if entry.status == PENDING:
            entry.status = CANCELLED
            self._cancelled += 1
            self._pool.give(1)
            if entry.kept:
                self._stale.append(entry)
        elif entry.status == EXECUTED:
            entry.status = DOOMED
            self._work.append(entry)
        else:
            raise InternalError(
                f"cancelling {entry!r}", "an event is cancelled once, before it is final", "please report this"
            )

    def _withdraw(self, children: Iterable[Entry]) -> None:
        """Take back what an undone event has sent."""
        for child in children:
            if child.status == SENT:
                self._drop_stub(child)
                self._post(ANTI, child)
            elif child.status == QUEUED:
                child.status = GONE
                self._pool.give(1)
                self.statistics.anti_dropped += 1
            else:
                self._cancel(child)

    def _drop_stub(self, stub: Entry) -> None:
        assert stub.channel is not None
        del self._stubs[stub.channel]
        stub.status = GONE
        self._pool.give(1)

    def _post(self, kind: int, stub: Entry) -> None:
        target = self._target_of(stub)
        self._outbox.setdefault(target, deque()).append((kind, stub))

    def _target_of(self, stub: Entry) -> int:
        raise NotImplementedError

    # --- undoing ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Empty the work list: afterwards every KP has executed its events in key order, none of them cancelled."""
        while self._work or self._stale:
            if self._stale:
                entry = self._stale.pop()
                kept, entry.kept = entry.kept, []
                self._withdraw(kept)
                continue
            cause = self._work.pop()
            if cause.status in (PENDING, DOOMED, EXECUTED):
                self._roll_back(cause)

    def _roll_back(self, cause: Entry) -> None:
        """Undo, newest first, whatever does not precede ``cause``; the cause itself too if it was executed."""
        by_straggler = cause.status == PENDING
        executed = cause.kp.executed
        undone = 0
        to_coast: dict[int, None] = {}
        while executed:
            entry = executed[-1]
            if entry is not cause and not self._must_undo(entry, cause):
                break
            executed.pop()
            self._restore(entry, to_coast)
            self._undo(entry)
            self.rolled_back_of[entry.event[2]] += 1
            undone += 1
        for lp in to_coast:
            self._coast(cause.kp, lp)
        if undone:
            self._count_rollback(undone, by_straggler)

    def _must_undo(self, entry: Entry, cause: Entry) -> bool:
        item = cause.item
        return item is not None and bool(entry.item > item)

    def _restore(self, entry: Entry, to_coast: dict[int, None]) -> None:
        lp = entry.event[2]
        if entry.saved is None:
            to_coast[lp] = None
        else:
            self._executor.restore(lp, entry.saved)
            entry.saved = None
            to_coast.pop(lp, None)

    def _undo(self, entry: Entry) -> None:
        """Forget what an execution has done besides changing its LP, and put the event back."""
        entry.emitted = entry.adds = ()
        if entry.error is not None:
            self._unblock(entry)
        children, entry.children = entry.children, []
        if entry.status == DOOMED:
            self._withdraw(children)
            self._drop(entry)
            self._pool.give(1)
            return
        entry.status = PENDING
        self._queue(entry)
        if not self._lazy:
            self._withdraw(children)
        else:
            entry.kept = [child for child in children if not child.held]
            self._withdraw([child for child in children if child.held])

    def _unblock(self, entry: Entry) -> None:
        kp = entry.kp
        entry.error = kp.failed = None
        self.statistics.errors_undone += 1
        blocked, kp.blocked = kp.blocked, []
        for one in blocked:
            self._queue(one)

    def _coast(self, kp: Kp, lp: int) -> None:
        """Bring an LP back to its newest remaining event: its last image, and what it executed since once more."""
        events: list[Event] = []
        for entry in reversed(kp.executed):
            if entry.event[2] == lp:
                events.append(entry.event)
                if entry.saved is not None:
                    saved = entry.saved
                    break
        else:
            saved, since = self._bases[lp]
            events += reversed(since)
        self._executor.restore(lp, saved)
        for event in reversed(events):
            self._executor.execute(event)

    def _count_rollback(self, undone: int, by_straggler: bool) -> None:
        counts = self.statistics
        counts.rolled_back += undone
        counts.rollback_lengths[min(undone.bit_length() - 1, 31)] += 1
        if by_straggler:
            counts.rollbacks_straggler += 1
        else:
            counts.rollbacks_anti += 1

    # --- committing -------------------------------------------------------------------------------

    def committed(self, lp: int) -> tuple[Any, Sequence[Event]] | None:
        """The state of ``lp`` after its last committed event: an image, and what to execute on it; None: as it is now."""
        first = next((entry for entry in self._kp_of[lp].executed if entry.event[2] == lp), None)
        if first is None:
            return None
        return self._bases[lp] if first.saved is None else (first.saved, ())

    def collect(self) -> None:
        """Fossil collection: let go of the entries that are COMMITTED, the oldest ones of each KP."""
        for kp in self.kps:
            executed = kp.executed
            while executed and executed[0].status == COMMITTED:
                self._bury(executed.popleft())
        self._sweep()

    def _bury(self, entry: Entry) -> None:
        lp = entry.event[2]
        if self._executor.coasts(lp):
            if entry.saved is not None:
                self._bases[lp] = (entry.saved, [entry.event])
            else:
                self._bases[lp][1].append(entry.event)
        if entry.channel is not None:
            del self._received[entry.channel]
        for child in entry.children:
            if child.status == SENT:
                self._drop_stub(child)
            elif child.status == QUEUED:
                child.sender = None
        entry.children = []
        entry.saved = None
        self._drop(entry)
        self._pool.give(1)

    # --- checking ---------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check the invariants of the whole state, for tests: costs as much as the state is large.

        Raises:
            InternalError: one does not hold.
        """
        pending = self._alive()
        stubs = list(self._stubs.values())
        executed = [entry for kp in self.kps for entry in kp.executed]
        _check(not self._work and not self._stale, "the work list is empty")
        _check(all(entry.status == PENDING for entry in pending), "pending entries are pending")
        _check(all(entry.status == EXECUTED for entry in executed), "executed entries are executed")
        _check(all(stub.status == SENT for stub in stubs), "stubs were sent")
        for kp in self.kps:
            items = [entry.item for entry in kp.executed]
            _check(all(a < b for a, b in pairwise(items)), "a KP's events are in key order")
            _check(kp.failed is None or kp.executed[-1] is kp.failed, "a failed event is its KP's newest")
            _check(all(entry.kp is kp for entry in kp.executed), "an event is in the list of its KP")
            _check(kp.failed is not None or not kp.blocked, "nothing is blocked without an error")
        newest = {id(kp): kp.executed[-1].item for kp in self.kps if kp.executed}
        for entry in pending:
            _check(
                entry.held or id(entry.kp) not in newest or entry.item > newest[id(entry.kp)],
                "a pending event follows its KP's newest",
            )
        for channel, entry in self._received.items():
            _check(
                entry.channel == channel and entry.status in (PENDING, EXECUTED), "a received event can be cancelled"
            )
        senders = {id(entry) for entry in (*executed, *pending)}
        _check(all(id(stub.sender) in senders for stub in stubs), "a stub has a sender")
        self._check_children(executed, pending)

    @property
    def backlog(self) -> int:
        """How many events are pending."""
        blocked = sum(len(kp.blocked) for kp in self.kps)
        return len(self._pending) + len(self._waiting) + blocked - self._cancelled

    def _alive(self) -> list[Entry]:
        heaps: list[Sequence[Item]] = [self._pending, self._waiting]
        found = [item[6] for heap in heaps for item in heap if item[6].status != CANCELLED]
        return found + [entry for kp in self.kps for entry in kp.blocked if entry.status != CANCELLED]

    def live(self) -> int:
        """How many events of the pool are here."""
        queued = [
            1 for box in self._outbox.values() for kind, stub in box if kind == POSITIVE and stub.status == QUEUED
        ]
        return len(self._alive()) + sum(len(kp.executed) for kp in self.kps) + len(self._stubs) + len(queued)

    def _check_children(self, executed: Sequence[Entry], pending: Sequence[Entry]) -> None:
        for entry in (*executed, *pending):
            for child in (*entry.children, *entry.kept):
                _check(child.status in (PENDING, EXECUTED, QUEUED, SENT), "what an event has sent is alive")
                _check(child.event[:2] > entry.event[:2], "a child is later than its parent")
        _check(all(not entry.children for entry in pending), "a pending event has sent nothing")


def _check(holds: bool, rule: str) -> None:
    if not holds:
        raise InternalError("the state of a PE", rule, "please report this")
