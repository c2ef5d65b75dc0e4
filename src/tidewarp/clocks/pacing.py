"""Virtual time against wall time: when is an event due, how far has virtual time come, how late are we.

Pure: every time is an argument, so a week of pacing is tested in microseconds. A host reads a
:class:`Clock`, asks the :class:`Pacer` and waits on its inbox until the deadline.
"""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Protocol, TypeVar

from tidewarp.errors import OperatorError

if TYPE_CHECKING:
    from queue import SimpleQueue

__all__ = ["Clock", "Pacer"]

T = TypeVar("T")


class Clock(Protocol):
    """The host time that a host is handed: ``clocks.wall.WallClock``, or ``testing.ManualClock``."""

    def now(self) -> float:
        """Wall seconds since an arbitrary origin; never goes back."""

    def unix_ns(self) -> int:
        """Unix ns: what the calendar says. May go back."""

    def wait(self, inbox: SimpleQueue[T], timeout_s: float | None) -> T | None:
        """The next item of ``inbox``, or None after ``timeout_s`` wall seconds; None or infinity waits for ever."""


class Pacer:
    """Keeps virtual time in step with the wall: ``factor`` wall seconds per simulated second, 0 = full speed.

    It holds an anchor, a pair (wall, virtual) that belongs together, and computes from the differences to it.
    Hence the epoch and the origin of the wall clock do not matter. Before :meth:`start` it stands still as in
    a pause. At factor 0 the wall has no say: :meth:`virtual` is inf, :meth:`deadline` -inf, :meth:`lag` 0.
    Wall and virtual times are float seconds.

    Raises:
        OperatorError: a factor that is negative, NaN or infinite.
    """

    def __init__(self, factor: float) -> None:
        self._factor = _checked(factor)
        self._wall0 = 0.0
        self._virtual0 = 0.0
        self._held: float | None = 0.0  # wall time at which virtual time was stopped

    @property
    def factor(self) -> float:
        """Wall seconds per simulated second."""
        return self._factor

    @property
    def paused(self) -> bool:
        """True from :meth:`pause` to :meth:`resume`, and before :meth:`start`."""
        return self._held is not None

    def start(self, wall_s: float, virtual_s: float) -> None:
        """Run from here: ``virtual_s`` is due at ``wall_s``. What was behind, or paused, is forgotten."""
        self._wall0, self._virtual0, self._held = wall_s, virtual_s, None

    def virtual(self, wall_s: float) -> float:
        """The virtual time that the wall has reached; inf at factor 0, standing still in a pause."""
        if self._factor == 0.0:
            return math.inf
        return self._virtual0 + (self._running(wall_s) - self._wall0) / self._factor

    def deadline(self, virtual_s: float) -> float:
        """The wall time at which ``virtual_s`` is due; -inf at factor 0, inf (not before a resume) in a pause."""
        if self._held is not None:
            return math.inf
        if self._factor == 0.0:
            return -math.inf
        return self._wall0 + self._factor * (virtual_s - self._virtual0)

    def lag(self, wall_s: float, virtual_s: float) -> float:
        """Wall seconds that a simulation at ``virtual_s`` is late; 0 on time, ahead, and at factor 0."""
        if self._factor == 0.0:
            return 0.0
        return max(0.0, (self._running(wall_s) - self._wall0) - self._factor * (virtual_s - self._virtual0))

    def set_factor(self, factor: float, wall_s: float, virtual_s: float | None = None) -> None:
        """Change speed at ``wall_s``: virtual time goes on from where it is, and so do deadlines from now on.

        The virtual seconds that are behind stay behind; their lag is counted at the new factor. With ``virtual_s``,
        where the simulation stands, the new anchor is there and what was behind is forgiven. Leaving
        factor 0 needs it, since at full speed only the simulation knows.

        Raises:
            OperatorError: a bad factor, or no ``virtual_s`` on leaving factor 0. Nothing has changed then.
        """
        checked = _checked(factor)
        if virtual_s is None:
            if self._factor == 0.0 and checked != 0.0:
                raise OperatorError(
                    f"factor 0 to {factor}",
                    "at full speed only the simulation knows virtual time",
                    "pass virtual_s, the time at which the simulation stands",
                )
            virtual_s = self._virtual0 if self._factor == 0.0 else self.virtual(wall_s)
        self._wall0 = self._running(wall_s)
        self._virtual0 = virtual_s
        self._factor = checked

    def pause(self, wall_s: float) -> None:
        """Stop virtual time at ``wall_s``. A second pause changes nothing."""
        if self._held is None:
            self._held = wall_s

    def resume(self, wall_s: float) -> None:
        """Go on at ``wall_s``: every deadline moves by the length of the pause, lag is what it was."""
        if self._held is not None:
            self._wall0 += wall_s - self._held
            self._held = None

    def _running(self, wall_s: float) -> float:
        """``wall_s``, or in a pause the wall time at which it began."""
        return wall_s if self._held is None else self._held


def _checked(factor: object) -> float:
    """``factor`` as a float. Text that looks like a number is none, and True is no pace."""
    try:
        number = math.nan if isinstance(factor, bool) or not isinstance(factor, Real | Decimal) else float(factor)
    except OverflowError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        # repr() refuses numbers of some thousand digits
        is_long = isinstance(factor, int) and factor.bit_length() > 256
        raise OperatorError(
            "factor of more than 2^256" if is_long else f"factor {factor!r:.80}",
            "the factor is wall seconds per simulated second: finite, 0 (full speed) or more",
            "give e.g. 1 for real time or 0.1 for ten times faster",
        )
    return number
