"""What people want of the pace of a run while it goes on: wishes of other threads, heeded between two slices."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidewarp.clocks import Pacer
from tidewarp.twin.pace import Pace

__all__ = ["Control"]


class Control:
    """Safe from any thread. A pause holds until :meth:`proceed`, also of the next run; a factor is that of the present run.

    ``wake`` is called behind each wish. Nothing of this can be seen in a digest.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.paused = False
        self._factor: float | None = None
        self._wake = wake
        self._lock = threading.Lock()

    def pause(self) -> None:
        """Let the clock stand still from the next completed slice on."""
        self.paused = True
        self._wake()

    def proceed(self) -> None:
        """End the pause."""
        self.paused = False
        self._wake()

    def set_factor(self, factor: float) -> None:
        """Wall seconds per simulated second from now on; 0 = full speed. Raises OperatorError."""
        Pacer(factor)  # refuses what is none, here and not in the thread of the run
        with self._lock:
            self._factor = float(factor)
        self._wake()

    def begin(self) -> None:
        """A run begins: what was said of the factor of the one before it counts no longer."""
        with self._lock:
            self._factor = None

    def heed(self, pace: Pace, next_tick: Callable[[], int]) -> None:
        """Do as was wished. ``next_tick()``: of what the run has to do next, or where it stands."""
        if self._factor is not None:
            with self._lock:
                factor, self._factor = self._factor, None
            if factor is not None:
                pace.set_factor(factor, next_tick())
        if self.paused is not pace.paused:
            if self.paused:
                pace.pause()
            else:
                pace.proceed(next_tick())
