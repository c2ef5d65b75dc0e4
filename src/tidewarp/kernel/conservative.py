"""The conservative engine: each PE executes only what can never be preceded any more, so nothing is ever undone.

A PE's *safe time* is the least promise of the others (:mod:`tidewarp.kernel.lookahead`); it executes what lies below it. Its
own promise is that what it sends is sent no earlier than its first pending event, or its safe time if that is less.
Where all wait although events are pending, one reduction over all PEs raises every promise to the first of these events, so
a long gap costs one round however small the lookahead (the deadlock detection of Chandy and Misra 1981 without its probes).
"""

from __future__ import annotations

from bisect import bisect_left
from heapq import heapify, heappop, heappush
from itertools import count, cycle
from operator import attrgetter, itemgetter
from typing import Any

from tidewarp.errors import InternalError, TidewarpError
from tidewarp.kernel.contract import Statistics, sums_by_class
from tidewarp.kernel.lookahead import promises_between
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import CheckedObjects, Objects
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import Event, Image, split_frames, unpack_event
from tidewarp.kernel.trace import Ledger
from tidewarp.seeds import Stream
from tidewarp.units import TICK_MAX

__all__ = ["ConservativeKernel"]

UNCOMMITTED_MOST = 4096  # executed events of a PE that wait for the others before it pauses
RESERVE = 1024  # outputs: with less room than this, events are executed one by one in key order


class Pe:
    """What one PE owns. ``done`` ascends: executed, not committed yet; ``effects`` are those of them that emitted or added."""

    __slots__ = ("clock", "done", "effects", "inbox", "number", "pending")

    def __init__(self, number: int) -> None:
        self.number = number
        self.pending: list[Event] = []
        self.inbox: list[Event] = []
        self.done: list[Event] = []
        self.effects: list[tuple[Event, list[tuple[int, int]], list[Any]]] = []
        self.clock: tuple[Any, ...] = ()  # the last executed event

    @property
    def first(self) -> int:
        """The tick of the first pending event."""
        return self.pending[0][0] if self.pending else TICK_MAX

    def take(self, event: Event) -> None:
        """Add a pending event.

        Raises:
            InternalError: it precedes what this PE has executed.
        """
        if event < self.clock:
            raise InternalError(
                f"event {event[:5]} for PE {self.number}, which has executed {self.clock[:5]}",
                "a conservative PE never executes what can be preceded",
                "please report this",
            )
        heappush(self.pending, event)

    def drain(self) -> None:
        """Take in what the others have sent."""
        for event in self.inbox:
            self.take(event)
        self.inbox.clear()


class ConservativeKernel:
    """PEs that wait for each other's promises, interleaved in one thread.

    ``options.schedule_seed`` draws who is next and for how long; without it they take turns of ``options.batch`` events.

    Raises:
        ZeroLookahead: PEs that would wait for each other for ever.
    """

    def __init__(self, model: Model, image: Image, ledger: Ledger, options: Options) -> None:
        self.gvt = 0
        self._model = model
        self._ledger = ledger
        self._options = options
        self._pe_of = partition(model, options)
        self._promises = promises_between(model, self._pe_of)
        self._objects = (CheckedObjects if options.debug else Objects)(model, image)
        self._pes = [Pe(number) for number in range(options.workers)]
        for event in (unpack_event(model, record) for record in split_frames(image.pending)):
            self._pes[self._pe_of[event[2]]].pending.append(event)
        for pe in self._pes:
            heapify(pe.pending)
        self._statistics = Statistics(rolled_back_by_class=[0] * len(model.classes))
        self._executed_of = [0] * model.n_lps
        self._failures: list[tuple[Event, TidewarpError]] = []
        self._failed: TidewarpError | None = None
        self._limit = 0  # of this advance
        self._bound = 0  # the same, or what a failure or full outputs have lowered it to
        self._waiting_outputs = 0  # of executed events that are not committed
        self._turns = cycle(self._pes)
        self._schedule = None if options.schedule_seed is None else Stream(options.schedule_seed, "kernel.schedule")

    # --- the contract -----------------------------------------------------------------------------

    def advance(self, until: int, safe: int) -> None:
        """Execute and commit every event with time <= until and < safe, or until no more outputs fit.

        Outputs may exceed ``outputs_max`` by what events within the same stretch emit when several hundred of them come at once.
        """
        if self._failed is not None:
            raise self._failed
        bound = min(until + 1, safe)
        try:
            while self.gvt < bound and not self._ledger.full:
                self._limit = self._bound = bound
                if self._is_tight():
                    self._run_in_order()
                else:
                    self._run_apart()
        except TidewarpError as error:
            self._failed = error
            raise

    def inject(self, event: Event) -> None:
        """Add an external event."""
        self._pes[self._pe_of[event[2]]].take(event)

    def image(self) -> Image:
        """The state as it is now."""
        return self._objects.image([event for pe in self._pes for event in pe.pending])

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP."""
        return self._objects.fields(lp)

    def statistics(self) -> Statistics:
        """Counts over all PEs; ``gvt_rounds`` are the reductions over all PEs."""
        self._statistics.executed_by_class = sums_by_class(self._model, enumerate(self._executed_of))
        self._statistics.pool_size = sum(len(pe.pending) + len(pe.done) for pe in self._pes)
        return self._statistics

    def stalls(self) -> list[str]:
        """Which PE waits for whose promise."""
        return [
            self._stall(pe) for pe in self._pes if self._promises.safe_advance_time(pe.number) <= pe.first < self._bound
        ]

    def close(self) -> None:
        """Nothing to release."""

    # --- PEs by their promises --------------------------------------------------------------------

    def _run_apart(self) -> None:
        """Let the PEs take turns until all events below the bound are committed; a failure or full outputs lower it."""
        for config in self._promises.configs.values():
            config.last_null_message_ns = self.gvt  # inputs may have come for any tick from there on
        idle: set[int] = set()
        commit_after = self._options.gvt_interval * len(self._pes)
        for turn in count(1):
            pe = next(self._turns) if self._schedule is None else self._pes[self._schedule.below(len(self._pes))]
            if self._turn(pe):
                idle.clear()
            else:
                idle.add(pe.number)
            if len(idle) == len(self._pes):
                if (least := min(pe.first for pe in self._pes)) >= self._bound:
                    break
                self._reduce(least)
                idle.clear()
                self._commit(least)
            elif turn % commit_after == 0:
                self._commit(min(config.last_null_message_ns for config in self._promises.configs.values()))
        self._commit(self._bound)
        if self._failures:
            self._fail()

    def _turn(self, pe: Pe) -> bool:
        """One turn of a PE; False if it found nothing to execute."""
        # Before the inbox: what comes later is not below it.
        promised = min(self._promises.safe_advance_time(pe.number), self._limit)
        pe.drain()
        most = self._options.batch if self._schedule is None else 1 + self._schedule.below(self._options.batch)
        executed = 0
        while executed < most and pe.first < min(promised, self._bound):
            if len(pe.done) >= UNCOMMITTED_MOST and pe.first > self.gvt:
                break
            if not self._execute(pe):
                break
            executed += 1
        self._promises.broadcast_null(pe.number, min(pe.first, promised))
        self._statistics.executed += executed
        self._statistics.turns += 1
        self._statistics.idle_turns += not executed
        return executed > 0

    def _execute(self, pe: Pe) -> bool:
        """Execute the first pending event of a PE; False if its handler failed: that waits until it is committed."""
        event = pe.pending[0]
        context = self._objects.context
        try:
            self._objects.execute(event)
        except TidewarpError as error:
            self._failures.append((event, error))
            self._bound = min(self._bound, event[0])
            return False
        heappop(pe.pending)
        pe.clock = event
        pe.done.append(event)
        self._executed_of[event[2]] += 1
        for sent in context.sends:
            owner = self._pe_of[sent[2]]
            if owner == pe.number:
                heappush(pe.pending, sent)
            else:
                self._pes[owner].inbox.append(sent)
                self._statistics.remote_sent += 1
        if context.adds or context.emitted:
            pe.effects.append((event, list(context.adds), list(context.emitted)))  # the context fills its empty ones
            self._waiting_outputs += len(context.emitted)
            if self._is_tight():
                self._bound = min(self._bound, max(pe.clock[0] for pe in self._pes if pe.clock) + 1)
        return True

    def _reduce(self, least: int) -> None:
        """All PEs wait, and the first event of all is at ``least``: nothing can be sent before that."""
        self._statistics.gvt_rounds += 1
        for number, config in self._promises.configs.items():
            self._promises.broadcast_null(number, max(least, config.last_null_message_ns))

    # --- committing -------------------------------------------------------------------------------

    def _commit(self, bound: int) -> None:
        """Commit what was executed below ``bound``, in key order over all PEs."""
        self._commit_below((bound,))
        self.gvt = max(self.gvt, bound)

    def _commit_below(self, key: tuple[Any, ...]) -> None:
        self._statistics.live_events_most = max(
            self._statistics.live_events_most, sum(len(pe.done) for pe in self._pes)
        )
        events: list[Event] = []
        effects: list[tuple[Event, list[tuple[int, int]], list[Any]]] = []
        for pe in self._pes:
            at = bisect_left(pe.done, key)
            events += pe.done[:at]
            del pe.done[:at]
            at = bisect_left(pe.effects, key, key=_first)
            effects += pe.effects[:at]
            del pe.effects[:at]
        self._ledger.commit(sorted(events))
        for event, adds, emitted in sorted(effects, key=_first):
            self._ledger.add(adds)
            self._ledger.emit(event, emitted)
            self._waiting_outputs -= len(emitted)

    # --- one by one in key order ------------------------------------------------------------------

    def _is_tight(self) -> bool:
        """Whether so few outputs still fit that an event too many could be executed."""
        return self._ledger.outputs_max - len(self._ledger.outputs) - self._waiting_outputs <= RESERVE

    def _run_in_order(self) -> None:
        """Execute and commit event by event up to the bound, so that the engine can stop behind any of them."""
        while not self._ledger.full:
            pe = self._first_pe()
            if pe.first >= self._bound:
                self.gvt = self._bound
                return
            self.gvt = pe.first
            if not self._execute_alone(pe):
                self._fail()
            self._commit_below((self.gvt + 1,))

    def _first_pe(self) -> Pe:
        return min((pe for pe in self._pes if pe.pending), key=_first_pending, default=self._pes[0])

    def _execute_alone(self, pe: Pe) -> bool:
        executed = self._execute(pe)
        self._statistics.executed += executed
        for other in self._pes:
            other.drain()
        return executed

    def _fail(self) -> None:
        """Commit all that precedes the first event whose handler failed, then raise its error."""
        failure = min(self._failures, key=_first)
        while (pe := self._first_pe()).pending[0] < failure[0]:
            if not self._execute_alone(pe):
                failure = self._failures[-1]
        self._commit_below(failure[0])
        raise failure[1]

    # --- words ------------------------------------------------------------------------------------

    def _stall(self, pe: Pe) -> str:
        number = pe.number
        source = min(
            (src for src in self._promises.configs if src != number),
            key=lambda src: self._promises.promise(src, number),
        )
        other = self._pes[source]
        stands = (
            f"stands at {self._model.path(other.pending[0][2])}, tick {other.first}"
            if other.pending
            else "has no event"
        )
        return (
            f"PE {number} waits for PE {source}'s promise of tick {pe.first} at {self._model.path(pe.pending[0][2])}: "
            f"it has promised {self._promises.promise(source, number)} and {stands}"
        )


_first = itemgetter(0)
_first_pending = attrgetter("pending")
