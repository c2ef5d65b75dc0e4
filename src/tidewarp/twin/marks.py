"""Marks and cuts of a run: made every so often, and journaled once GVT has passed them, since until then a repair may change them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tidewarp.clocks import Clock
from tidewarp.store import Entry, Journal
from tidewarp.twin.cuts import Cut, cut_entries
from tidewarp.twin.documents import MARK, Mark, entry
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.run import Run

__all__ = ["Marks"]


class Marks:
    """Those that wait, in ascending order.

    Args:
        run: stands where the journal stands.
        journal: they go there. Nobody waits until they are durable: what it cannot take also fails the next append.
        clock: of the host.
        released: ``released(at)`` is the record that goes with a mark, where the run stands at tick ``at``.
        inputs: a mark is made after so many,
        every_s: and after so many wall seconds of a paced run, for the life after a kill.
    """

    def __init__(
        self,
        run: Run | ForkedRun,
        journal: Journal,
        clock: Clock,
        released: Callable[[int], Entry],
        inputs: int,
        every_s: float,
    ) -> None:
        self._journal, self._clock, self._released = journal, clock, released
        self._inputs, self._every_s = inputs, every_s
        self._waiting: deque[Mark | Cut] = deque()
        self._marked, self._marked_s = run.applied, 0.0  # inputs at the last mark, and host time
        self._cut_tick = run.cuts_from  # of the last cut that is journaled

    def begin(self) -> None:
        """A run begins: its first mark by the wall is due so long after now."""
        self._marked_s = self._clock.now()

    def note(self, run: Run | ForkedRun, *, is_paced: bool) -> None:
        """Behind a slice: its cuts, and a mark if one is due."""
        self.note_cuts(run)
        if run.settled and self._is_due(run, is_paced=is_paced):
            self._marked, self._marked_s = run.applied, self._clock.now()
            self._waiting.append(run.mark())

    def note_cuts(self, run: Run | ForkedRun) -> None:
        """Its cuts, but for those that are known: a run that goes back makes them again."""
        cuts = run.take_cuts()
        if cuts:
            last = max((mark.tick for mark in self._waiting if isinstance(mark, Cut)), default=self._cut_tick)
            self._waiting.extend(cut for cut in cuts if cut.tick > last)

    def _is_due(self, run: Run | ForkedRun, *, is_paced: bool) -> bool:
        return run.applied - self._marked >= self._inputs or (
            is_paced and self._clock.now() - self._marked_s >= self._every_s
        )

    def journal(self, gvt: int, at: int) -> None:
        """Those up to ``gvt``, which no repair can change any more. The run stands at tick ``at``."""
        while self._waiting and self._waiting[0].tick <= gvt:
            mark = self._waiting.popleft()
            if isinstance(mark, Cut):
                self._cut_tick = mark.tick
                self._journal.submit(cut_entries(mark))
            else:
                self._journal.submit([entry(MARK, mark.tick, mark.document()), self._released(at)])

    def forget_above(self, tick: int) -> None:
        """The run is executed again from there."""
        self._waiting = deque(mark for mark in self._waiting if mark.tick <= tick)
