"""The pace of one run: which tick is due by the wall, and how late the run is."""

from __future__ import annotations

import math

from tidewarp.clocks import Clock, Pacer
from tidewarp.units import in_seconds, ticks

__all__ = ["Pace"]

_VIRTUAL_S_MAX = 9.2e9  # just inside int64 ns: a tiny factor reaches it in seconds
_CAUGHT_UP_S = 0.05  # nearer to the wall than this, lag is lag and no longer the past


class Pace:
    """``factor`` wall seconds per simulated second, 0 = full speed. Nothing is due before :meth:`start`.

    A run that begins behind the wall, because it was down or because its epoch lies in the past, catches up at full
    speed first. Until then its lag is not counted, and :attr:`keeps_up` is False.

    Args:
        clock: the wall clock.
        factor: as above.
        by_calendar: are virtual times those of the calendar? Then a pause is made up for.
        lag_limit_s: beyond so many wall seconds it is :attr:`too_late`.

    Raises:
        OperatorError: a factor that is negative, NaN or infinite.
    """

    def __init__(
        self, clock: Clock, factor: float, *, by_calendar: bool = False, lag_limit_s: float = math.inf
    ) -> None:
        self.lag_s_max = 0.0
        self._pacer = Pacer(factor)
        self.factor = self._pacer.factor
        self.paused = False
        self._clock = clock
        self._is_behind = False
        self._by_calendar, self._lag_limit_s = by_calendar, lag_limit_s
        self._paused_s = 0.0

    @property
    def too_late(self) -> bool:
        """Was the run later than its limit?"""
        return self.lag_s_max > self._lag_limit_s

    @property
    def keeps_up(self) -> bool:
        """Is the run paced, and not catching up?"""
        return self.factor > 0 and not self._is_behind

    def start(self, at: int, due_s: float | None = None) -> None:
        """Begin: the run stands at tick ``at``, and by the wall virtual time ``due_s`` is due now (None: what it stands at).

        A run that stands ahead of the wall waits for it.
        """
        at_s = in_seconds(at)
        self._pacer.start(self._clock.now(), at_s if due_s is None else due_s)
        self._is_behind = due_s is not None and due_s > at_s

    def limit(self, next_tick: int | None) -> int:
        """The first tick that is not yet due. ``next_tick``: of what the run has to do next, None if that is not known."""
        now_s = self._clock.now()
        if next_tick is not None:
            self._note_lag(self._pacer.lag(now_s, in_seconds(next_tick)))
        return self._virtual(now_s) + 1

    def _note_lag(self, lag_s: float) -> None:
        if self._is_behind:
            self._is_behind = lag_s > _CAUGHT_UP_S
        else:
            self.lag_s_max = max(self.lag_s_max, lag_s)

    def lag_s(self, next_tick: int) -> float:
        """Wall seconds by which ``next_tick``, what the run has to do next, is late; 0 while it catches up."""
        return 0.0 if self._is_behind else self._pacer.lag(self._clock.now(), in_seconds(next_tick))

    def pause(self) -> None:
        """Virtual time stands still by the wall."""
        if not self.paused:
            self.paused, self._paused_s = True, self._clock.now()
            self._pacer.pause(self._paused_s)

    def end(self) -> None:
        """The run has ended, and time does not pass for it until the next one begins; by the calendar it does."""
        if not self._by_calendar:
            self.pause()

    def proceed(self, next_tick: int) -> None:
        """Go on from where it stands; by the calendar, catch up. What was late is forgiven."""
        if not self.paused:
            return
        self.paused = False
        now_s = self._clock.now()
        if self._by_calendar and self.factor > 0:
            due_s = self._pacer.virtual(now_s) + (now_s - self._paused_s) / self.factor
            self._pacer.start(now_s, due_s)
            self._is_behind = due_s > in_seconds(next_tick)
        else:
            self._pacer.resume(now_s)
            self._pacer.set_factor(self.factor, now_s, self._here_s(next_tick, now_s))

    def set_factor(self, factor: float, next_tick: int) -> None:
        """Another pace from where the run stands. What was late is forgiven. Raises as the constructor."""
        now_s = self._clock.now()
        self._pacer.set_factor(factor, now_s, self._here_s(next_tick, now_s))
        self.factor, self._is_behind = self._pacer.factor, False

    def _here_s(self, next_tick: int, now_s: float) -> float:
        """Virtual time by the wall, or where the run stands if that is less."""
        return min(self._pacer.virtual(now_s), in_seconds(next_tick))

    def present(self, ahead_s: float = 0.0) -> int:
        """The tick that virtual time has reached by the wall, or will have in ``ahead_s``; at full speed the first.

        Nothing arrives at tick 0: whether the model's processes have started then would be a matter of timing.
        """
        return max(1, self._virtual(self._clock.now() + ahead_s)) if self.factor > 0 else 1

    def pause_s(self, tick: int) -> float:
        """Wall seconds until ``tick`` is due."""
        return max(0.0, self._pacer.deadline(in_seconds(tick)) - self._clock.now())

    def _virtual(self, now_s: float) -> int:
        virtual_s = self._pacer.virtual(now_s)
        return ticks(min(virtual_s, _VIRTUAL_S_MAX)) if math.isfinite(virtual_s) else ticks(_VIRTUAL_S_MAX)
