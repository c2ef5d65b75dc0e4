"""How far ahead of GVT a PE may run.

Running far ahead gains nothing when most of it is undone, so the window shrinks fast while much is rolled back and
grows slowly while little is. The thrash breaker is for what adapts too slowly: echoes of rollbacks between PEs.
"""

from __future__ import annotations

__all__ = ["Window"]

TICKS_MAX = 2**62
_SAMPLE = 256  # executed events between two looks
_ROUNDS_BAD, _ROUNDS_CALM = 4, 16


class Window:
    """The window of one PE in ticks: fixed, or adaptive between ``least`` and unlimited.

    The breaker shuts a window down to ``least`` for 16 GVT rounds when less than a fifth of what was executed
    stayed executed in 4 rounds in a row.
    """

    def __init__(self, ticks: int, least: int, adaptive: bool) -> None:
        self._ticks = min(ticks, TICKS_MAX)
        self._floor = least
        self._adaptive = adaptive
        self._executed = self._rolled_back = 0  # at the last look
        self._round_executed = self._round_rolled_back = 0  # at the last round
        self._bad = self._calm = 0
        self.least = self.greatest = self._ticks
        self.breaks = 0

    @property
    def ticks(self) -> int:
        """How many ticks above GVT events may run."""
        return min(self._ticks, self._floor) if self._calm else self._ticks

    @property
    def is_shut(self) -> bool:
        """The breaker is on."""
        return self._calm > 0

    def shut(self) -> None:
        """Shut it beyond the report to the next round: other ranks thrash with this one."""
        self._calm = max(self._calm, 2)

    def look(self, executed: int, rolled_back: int) -> None:
        """Adapt to the counts so far; call it once per turn."""
        sample = executed - self._executed
        if not self._adaptive or sample < _SAMPLE:
            return
        if (rolled_back - self._rolled_back) * 40 > sample:
            self._ticks = max(self._floor, self._ticks * 7 // 10)
        else:
            self._ticks = min(TICKS_MAX, self._ticks + self._ticks // 16 + 1)
        self._executed, self._rolled_back = executed, rolled_back
        self.least = min(self.least, self._ticks)
        self.greatest = max(self.greatest, self._ticks)

    def end_round(self, executed: int, rolled_back: int) -> None:
        """A GVT round is over; watch for thrashing."""
        done = executed - self._round_executed
        lost = rolled_back - self._round_rolled_back
        self._round_executed, self._round_rolled_back = executed, rolled_back
        if self._calm:
            self._calm -= 1
        elif done:
            self._bad = self._bad + 1 if (done - lost) * 5 < done else 0
            if self._bad == _ROUNDS_BAD:
                self._bad, self._calm = 0, _ROUNDS_CALM
                self.breaks += 1
