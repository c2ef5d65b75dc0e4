"""One processing element of a Time Warp run as a pure machine: letters in, a step, letters out. No threads, no I/O.

A turn is ``look()``, ``receive(letters)``, ``step(horizon, batch)``, with whatever other PEs do between them. Whoever
takes the turns (:mod:`scheduler`, a rank of MPI, a session with one PE) carries the letters, begins GVT rounds, and
commits what :meth:`ProcessingElement.final` gives. The LPs are whatever the :class:`Executor` makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, nlargest
from typing import Protocol

from tidewarp.errors import InternalError, ModelError
from tidewarp.kernel.optimistic.entries import (
    ANTI,
    CANCELLED,
    EXECUTED,
    GONE,
    POSITIVE,
    QUEUED,
    RETURN,
    SENT,
    Effects,
    Entry,
    Executor,
    Letter,
)
from tidewarp.kernel.optimistic.gvt import FAILED, NEVER, PENDING, TRANSIT, Mark
from tidewarp.kernel.optimistic.memory import Pool
from tidewarp.kernel.optimistic.rollback import History, Kp
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.records import Event

__all__ = ["Bulletin", "ProcessingElement", "grouped"]

_RETURNS_MOST = 256  # messages sent back in one round
EXTERNAL = (-1, 0)  # the (time, generation) at which events from outside were sent: before all others


class Bulletin(Protocol):
    """What a PE reads of the GVT rounds, and where it reports: :class:`~tidewarp.kernel.optimistic.gvt.Rounds` is one."""

    number: int
    gvt: Mark

    def report(self, low: Mark) -> None:
        """Take this PE's report for round ``number``."""


def grouped(lps: Sequence[int], kps: int, final: Callable[[int], bool]) -> dict[int, Kp]:
    """The KP of each LP of a PE: ``kps`` groups of neighbours, and one for each LP that is not speculative."""
    speculative = [lp for lp in lps if not final(lp)]
    groups = [Kp(False) for _ in range(max(1, min(kps, len(speculative))))]
    found = {lp: groups[place * len(groups) // len(speculative)] for place, lp in enumerate(speculative)}
    return found | {lp: Kp(True) for lp in lps if final(lp)}


class ProcessingElement(History):
    """The PE ``number``. ``pe_of`` (LP -> PE) is shared by all PEs, ``bulletin`` and ``pool`` by those of one process."""

    def __init__(
        self,
        number: int,
        pe_of: Sequence[int],
        kps: dict[int, Kp],
        executor: Executor,
        bulletin: Bulletin,
        *,
        pool: Pool | None = None,
        window: Window | None = None,
        lazy: bool = False,
    ) -> None:
        super().__init__(kps, executor, pool or Pool(None), lazy)
        self.number = number
        self.window = window or Window(2**62, 1, False)
        self._pe_of = pe_of
        self._bulletin = bulletin
        self._seen = self._reported = bulletin.number  # rounds: the one read last, the one reported to last
        self._gvt: Mark = bulletin.gvt
        self._send_low: Mark = NEVER  # of what left since the round began that is not reported yet
        self._sent: dict[int, int] = {}  # target -> how many positive messages have left
        self._returned: set[tuple[int, int]] = set()  # sent back; their anti-message is still to come

    # --- a turn -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Read GVT and the number of its round, before the inbox is drained: what the drain misses its sender counts."""
        self._seen = self._bulletin.number
        self._gvt = self._bulletin.gvt

    def receive(self, letters: Iterable[Letter]) -> None:
        """Take letters, each channel's in the order sent. What they undo is undone by the next ``step`` or ``settle``.

        Raises:
            InternalError: an anti-message for an event that is not here.
        """
        for letter in letters:
            channel = (letter.source, letter.number)
            if letter.kind == POSITIVE:
                assert letter.event is not None
                self.insert(letter.event, letter.sent, channel)
            elif letter.kind == RETURN:
                self._take_back(channel)
            elif channel in self._returned:
                self._returned.remove(channel)
            elif channel in self._received:
                self._cancel(self._received[channel])
            else:
                raise InternalError(f"{letter}", "an anti-message follows its message", "please report this")

    def inject(self, event: Event) -> None:
        """Take an event from outside, at or above GVT; it may be a straggler."""
        self.insert(event, EXTERNAL, None)

    def step(
        self, horizon: int, batch: int, *, room: Callable[[int], int] | None = None, transit: Mark = NEVER
    ) -> list[Letter]:
        """Undo what has to be undone, report to the GVT round, execute up to ``batch`` events below ``horizon`` (ticks).

        Returns the letters that leave; ``room(target)`` says how many fit, the rest waits. ``transit`` is the least
        mark of letters that are with this PE, but not received yet.
        """
        counts = self.statistics
        self.settle()
        letters = self.flush(room)
        if self._seen != self._reported:
            letters += self._report(transit)
        executed = 0
        while executed < batch and (entry := self._next(horizon)) is not None:
            self._run(entry)
            executed += 1
        letters += self.flush(room)
        counts.turns += 1
        counts.idle_turns += not executed
        self.window.look(counts.executed, counts.rolled_back)
        return letters

    # --- executing --------------------------------------------------------------------------------

    def _next(self, horizon: int) -> Entry | None:
        """The first event that may run: final, or within the window and the memory bound; it leaves the pending set."""
        gvt = self._gvt
        limit = min(horizon, gvt[0] + self.window.ticks)
        if self._pool.pressed:
            limit = 0
        ahead, waiting = self._top(self._pending), self._top(self._waiting)
        if ahead is not None and (ahead.event[0] >= limit or self._is_deep(ahead)) and not self._is_final(ahead):
            ahead = None
        if waiting is not None and not self._is_final(waiting):
            waiting = None
        if waiting is not None and (ahead is None or waiting.item < ahead.item):
            heappop(self._waiting)
            return waiting
        if ahead is not None:
            heappop(self._pending)
        return ahead

    def _is_deep(self, entry: Entry) -> bool:
        """Whether it lies above GVT by sends without delay while the breaker is on.

        From rank to rank an anti-message is only as fast as what it chases, and catches up when that stops.
        """
        time, generation = entry.event[:2]
        return self.window.is_shut and generation > (self._gvt[1] if time == self._gvt[0] else 0)

    def _is_final(self, entry: Entry) -> bool:
        time, generation = entry.event[:2]
        return (time, generation, PENDING) <= self._gvt

    def _run(self, entry: Entry) -> None:
        """Execute one event and send what it sends; then undo what that has turned into the past."""
        if self._is_straggler(entry):  # it had been held back while its KP went on
            self._work.append(entry)
            self.settle()
        executor = self._executor
        entry.saved = executor.save(entry.event[2])
        entry.held = False
        entry.status = EXECUTED
        entry.kp.executed.append(entry)
        self.statistics.executed += 1
        self.executed_of[entry.event[2]] += 1
        try:
            effects = executor.execute(entry.event)
        except ModelError as error:
            entry.error = error
            entry.kp.failed = entry
            self._send(entry, [])
        else:
            self._take_effects(entry, effects)
        if self._work or self._stale:
            self.settle()

    def _take_effects(self, entry: Entry, effects: Effects) -> None:
        if effects.emitted:
            entry.emitted = effects.emitted
        if effects.adds:
            entry.adds = effects.adds
        if effects.sends or entry.kept:
            self._send(entry, effects.sends)

    def _send(self, entry: Entry, sends: Sequence[Event]) -> None:
        """Make children of what an event sends; of an earlier execution keep what is the same and cancel the rest."""
        if entry.kept:
            sends = self._keep(entry, sends)
        here, sent = self.number, entry.mark
        for event in sends:
            if self._pe_of[event[2]] == here:
                child = self.insert(event, sent, None)
            else:
                child = Entry(event, None, entry, sent)
                child.status = QUEUED
                self._pool.take(1)
                self._post(POSITIVE, child)
            entry.children.append(child)

    def _keep(self, entry: Entry, sends: Sequence[Event]) -> list[Event]:
        old = {child.event[:5]: child for child in entry.kept}
        entry.kept = []
        fresh = []
        for event in sends:
            child = old.get(event[:5])
            if child is not None and self._executor.same(child.event, event):
                del old[event[:5]]
                entry.children.append(child)
                self.statistics.lazy_hits += 1
            else:
                fresh.append(event)
        self._withdraw(old.values())
        return fresh

    # --- sending ----------------------------------------------------------------------------------

    def _target_of(self, stub: Entry) -> int:
        return self._pe_of[stub.event[2]]

    def flush(self, room: Callable[[int], int] | None = None) -> list[Letter]:
        """The letters that leave now, numbered; they count for the GVT round that this PE has not reported to yet."""
        letters: list[Letter] = []
        waiting = 0
        for target, box in self._outbox.items():
            free = len(box) if room is None else room(target)
            while box and free > 0:
                letter = self._letter(target, *box.popleft())
                if letter is not None:
                    letters.append(letter)
                    free -= 1
            waiting += len(box)
        self.statistics.send_queue_most = max(self.statistics.send_queue_most, waiting)
        self._count_sent(letters)
        return letters

    def _count_sent(self, letters: Iterable[Letter]) -> None:
        if self._bulletin.number != self._reported:
            for letter in letters:
                self._send_low = min(self._send_low, letter.mark)

    def _letter(self, target: int, kind: int, stub: Entry) -> Letter | None:
        time, generation = stub.event[:2]
        if kind == ANTI:
            assert stub.channel is not None
            self.statistics.anti_messages += 1
            return Letter(ANTI, self.number, target, stub.channel[1], time, generation, None, stub.sent)
        if stub.status != QUEUED:
            return None  # cancelled before it left
        number = self._sent.get(target, 0)
        self._sent[target] = number + 1
        self.statistics.remote_sent += 1
        if stub.sender is None:  # committed meanwhile: nobody will cancel it
            stub.status = GONE
            self._pool.give(1)
        else:
            stub.status = SENT
            stub.channel = (target, number)
            self._stubs[target, number] = stub
        return Letter(POSITIVE, self.number, target, number, time, generation, stub.event, stub.sent)

    # --- GVT --------------------------------------------------------------------------------------

    def _report(self, transit: Mark) -> list[Letter]:
        """Report the least mark to the round; under memory pressure make room first. Returns messages sent back."""
        self.window.end_round(self.statistics.executed, self.statistics.rolled_back)
        returns = self._relieve() if self._pool.full else []
        low = min([self.low(), transit, self._send_low, *(letter.mark for letter in returns)])
        self._reported, self._send_low = self._seen, NEVER
        self._bulletin.report(low)
        return returns

    def low(self) -> Mark:
        """The least mark of what is unfinished in this PE: pending events, letters that wait to leave, held errors."""
        if self._work or self._stale:
            raise InternalError("a report with work to undo", "a PE settles first", "please report this")
        marks = [(*entry.mark, PENDING) for heap in (self._pending, self._waiting) if (entry := self._top(heap))]
        marks += [(*kp.failed.mark, FAILED) for kp in self.kps if kp.failed is not None]
        marks += [
            (*stub.mark, TRANSIT)
            for box in self._outbox.values()
            for kind, stub in box
            if kind == ANTI or stub.status == QUEUED
        ]
        return min(marks, default=NEVER)

    def final(self) -> list[Entry]:
        """Executed events that GVT has passed, in key order: mark them COMMITTED and call ``collect``, the first ones first."""
        gvt = self._gvt = self._bulletin.gvt
        found: list[Entry] = []
        for kp in self.kps:
            for entry in kp.executed:
                if (*entry.mark, FAILED) > gvt:
                    break
                found.append(entry)
        found.sort(key=_item)
        return found

    # --- memory -----------------------------------------------------------------------------------

    def _relieve(self) -> list[Letter]:
        """Make room: send messages back whose sender can be undone, then undo the newest events here."""
        letters = [self._send_back(entry) for entry in self._returnable()]
        while self._pool.surplus and (entry := self._newest_speculative()) is not None:
            self._work.append(entry)
            self.settle()
        self._sweep()
        return letters

    def _returnable(self) -> list[Entry]:
        """Pending messages with the greatest keys that were sent at or above GVT by another PE."""
        wanted = min(self._pool.surplus, _RETURNS_MOST)
        found = (
            item
            for item in self._pending
            if item[6].channel is not None and item[6].status != CANCELLED and (*item[6].sent, TRANSIT) >= self._gvt
        )
        return [item[6] for item in nlargest(wanted, found)]

    def _send_back(self, entry: Entry) -> Letter:
        assert entry.channel is not None
        source, number = entry.channel
        self._returned.add(entry.channel)
        self._cancel(entry)
        self.settle()
        self.statistics.cancelbacks += 1
        return Letter(RETURN, self.number, source, number, *entry.sent, None, entry.sent)

    def _take_back(self, channel: tuple[int, int]) -> None:
        """A message came back: undo its sender, which is to run again when it is final. The undoing cancels the message.

        A stub that is gone was cancelled meanwhile: its anti-message is on its way and meets the returned one there.
        """
        stub = self._stubs.get(channel)
        if stub is None:
            return
        sender = stub.sender
        assert sender is not None
        stub.held = True
        if sender.status == EXECUTED:
            sender.held = True
            self._work.append(sender)
        elif stub in sender.kept:
            sender.kept.remove(stub)
            self._withdraw([stub])

    def _newest_speculative(self) -> Entry | None:
        newest = [kp.executed[-1] for kp in self.kps if kp.executed and not kp.final]
        entry = max(newest, key=_item, default=None)
        return None if entry is None or self._is_final(entry) else entry

    # --- looking in -------------------------------------------------------------------------------

    @property
    def speculative(self) -> int:
        """How many executed events are not committed."""
        return sum(len(kp.executed) for kp in self.kps)

    @property
    def queued(self) -> int:
        """How many letters wait for room to leave; those of committed events may outlast the run."""
        return sum(map(len, self._outbox.values()))

    @property
    def begotten(self) -> int:
        """How many of the events here are there because others are executed that are not committed."""
        executed = [entry for kp in self.kps for entry in kp.executed]
        return len(self._stubs) + sum(len(e.children) + len(e.kept) for e in [*executed, *self._alive()])

    @property
    def is_ahead(self) -> bool:
        """Whether an executed event is not final."""
        return self._newest_speculative() is not None

    def undo_all(self) -> None:
        """Undo everything that is not committed, kept messages too: what remains is the state at the last committed event."""
        for kp in self.kps:
            if kp.executed:
                self._work.append(kp.executed[0])
        self.settle()
        for entry in self._alive():
            if entry.kept:
                self._stale.append(entry)
        self.settle()

    def unprocessed(self) -> list[Event]:
        """The pending events, in no order."""
        return [entry.event for entry in self._alive()]

    def first(self) -> Entry | None:
        """The event that is to run next, be it allowed to or not; None: nothing can run. Settle before asking."""
        entries = [entry for heap in (self._pending, self._waiting) if (entry := self._top(heap)) is not None]
        return min(entries, key=_item, default=None)

    def waits_for(self) -> str:
        """What holds this PE back, in words."""
        if self.queued:
            return f"{self.queued} letters wait to leave"
        for kp in self.kps:
            if kp.failed is not None:
                return f"an event at tick {kp.failed.event[0]} has failed and waits to be committed"
        first = self.first()
        if first is None:
            return "nothing to do"
        why = "runs only when it is final" if first.kp.final or first.held else "is next"
        return f"the event of LP {first.event[2]} at tick {first.event[0]} {why}"

    def validate(self) -> None:
        """Check the invariants of the state, and that nothing uncommitted lies below GVT."""
        super().validate()
        for entry in self._alive():
            if (*entry.mark, PENDING) < self._gvt:
                raise InternalError(
                    f"{entry!r} is pending below GVT {self._gvt}", "GVT passes no pending event", "please report this"
                )


def _item(entry: Entry) -> tuple[int, ...]:
    return entry.item[:6]  # type: ignore[no-any-return]
