"""The thrash breaker of all ranks together.

Between ranks a straggler can take long, and what a rank does until it comes is undone: with delays of zero that may be a
hundred times what stays, whatever the windows. No rank sees this alone, since each only answers the anti-messages of the others.
"""

from __future__ import annotations

__all__ = ["Breaker"]

_BAD = 4  # rounds
_CALM, _CALM_MOST = 16, 4096  # rounds


class Breaker:
    """Told at the end of each GVT round what all ranks have done, it says whether windows are shut down to the lookahead.

    They are for 16 rounds, once less than a fifth of what was executed has stayed executed in 4 rounds in a row; for twice as
    long when that comes again before 16 rounds were better and half of what they executed stayed.
    """

    def __init__(self) -> None:
        self.breaks = 0
        self._executed = self._rolled_back = 0
        self._opened = (0, 0)  # the same, when windows were opened
        self._bad = self._good = 0
        self._left = 0  # rounds to stay shut for
        self._calm = _CALM

    @property
    def is_shut(self) -> bool:
        """Nobody runs ahead of GVT by more than the lookahead."""
        return self._left > 0

    def end_round(self, executed: int, rolled_back: int) -> None:
        """A round is over; counts of all ranks since the beginning."""
        done, lost = executed - self._executed, rolled_back - self._rolled_back
        self._executed, self._rolled_back = executed, rolled_back
        if self._left:
            self._left -= 1
            self._opened = executed, rolled_back
        elif done and (done - lost) * 5 >= done:
            self._bad, self._good = 0, self._good + 1
            if self._good >= _CALM and (executed - self._opened[0]) >= 2 * (rolled_back - self._opened[1]):
                self._calm = _CALM
        elif done or lost:
            self._bad += 1
            if self._bad == _BAD:
                self._bad, self._good, self._left = 0, 0, self._calm
                self._calm = min(2 * self._calm, _CALM_MOST)
                self.breaks += 1
