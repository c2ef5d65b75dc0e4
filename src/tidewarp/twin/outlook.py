"""How far one turn of a host may go, and how long it may sleep: asked of the run, the gate and the pace. No I/O."""

from __future__ import annotations

import math

from tidewarp.clocks import Clock
from tidewarp.connect.gate import Gate
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.pace import Pace
from tidewarp.twin.run import Run
from tidewarp.units import TICK_MAX

__all__ = ["Outlook"]


class Outlook:
    """Of one call of `run`, up to tick ``until`` (exclusive; None: to the end of all data), with sources or without.

    Its methods are told the run, since a repair may have put another one in its place. Ticks; seconds by the wall.
    """

    def __init__(self, gate: Gate, pace: Pace, clock: Clock, until: int | None, *, has_sources: bool) -> None:
        self._gate, self._pace, self._clock = gate, pace, clock
        self._until, self._has_sources = until, has_sources

    def goal(self, run: Run | ForkedRun) -> int:
        """Where it ends, as far as that is known yet: behind the first instant at least, where the model begins."""
        if self._until is not None:
            return self._until
        if self._gate.sources.finished:
            return max(self._gate.end, run.at, 1)
        if not self._has_sources and run.next_tick == TICK_MAX:
            return max(run.stop_tick, 1)
        return TICK_MAX

    @property
    def is_free(self) -> bool:
        """Is there nothing that could hold the clock, or come in between two slices but from the program itself?"""
        is_held = self._gate.appending or self._gate.next_tick < TICK_MAX
        return self._pace.factor == 0 and not self._has_sources and not is_held

    def limit(self, run: Run | ForkedRun, goal: int) -> int:
        """The first tick that is not yet due."""
        if self._pace.factor > 0:
            upcoming = run.next_tick
            is_due = run.lease > run.at or self._gate.sources.lives or upcoming < self._gate.reach
            return self._pace.limit(upcoming if is_due else None)  # else it is data that the run waits for
        if goal == TICK_MAX and (not self._has_sources or self._gate.sources.lives):
            upcoming = self.upcoming(run, goal)  # neither data nor an end say how far: from event to event
            return run.at if upcoming == TICK_MAX else min(goal, upcoming + 1)
        return TICK_MAX

    def upcoming(self, run: Run | ForkedRun, goal: int) -> int:
        """When something happens next, as far as that is known: an event, an input, the end of the run."""
        return min(goal, run.next_tick, self._gate.next_tick)

    def pause_s(self, run: Run | ForkedRun, goal: int, limit: int) -> float | None:
        """How long to sleep if nothing arrives, when the run may go to ``limit``. None: as long as it takes."""
        now_s = self._clock.now()
        silent_s = self._gate.silent_s - now_s  # then a silent source lets the clock go on
        patience_s = None if silent_s == math.inf else max(0.0, silent_s)
        upcoming = self.upcoming(run, goal)
        if self._pace.factor == 0 or (upcoming < limit and self._gate.floor < limit):
            return patience_s  # data, a commit or a sink is what the run waits for
        tick = max(limit, upcoming)
        if tick == TICK_MAX:
            return patience_s
        pause_s = self._pace.pause_s(tick)
        return pause_s if patience_s is None else min(pause_s, patience_s)
