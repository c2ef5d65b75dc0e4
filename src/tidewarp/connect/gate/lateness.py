"""Does a source come too late as a rule? Then its clock is behind, or its messages take longer than the twin's clock holds back.

Nothing here decides what is admitted: it is for a line of the log.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

__all__ = ["Habit", "Lateness"]

_SLOT: Final = 62_500_000  # ticks: what comes in a sixteenth of a second is looked at together
_SLOTS: Final = 64  # that are remembered: 4 s at least


class Habit(NamedTuple):
    """How late messages come as a rule. Ticks below virtual time by the wall."""

    median: int
    most: int  # what covers nearly all of them


class Lateness:
    """Of the last slots of time in which a source, whose messages have times of their own, was heard: how late was the latest message?

    A slot, and not a message, because that is what is repaired together.
    """

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque(maxlen=_SLOTS)  # where virtual time stood, and ticks too late

    def note(self, present: int, late: int) -> None:
        """Virtual time stands at tick ``present`` by the wall, and what came is ``late`` ticks below it; 0: it is in time."""
        if self._slots and present < self._slots[-1][0] + _SLOT:
            begin, latest = self._slots[-1]
            self._slots[-1] = begin, max(latest, late)
        else:
            self._slots.append((present, late))

    @property
    def habit(self) -> Habit | None:
        """How late, if most slots were, by about the same. None also where it changes as fast as time passes.

        That is how it is while a source that was down brings what had to wait: nothing is wrong with its clock.
        """
        late = sorted(ticks for _, ticks in self._slots if ticks)
        if len(self._slots) < _SLOTS or 2 * len(late) <= _SLOTS:
            return None
        rest = len(late) // 20
        least, most = late[rest], late[-1 - rest]
        passed = self._slots[-1][0] - self._slots[0][0]
        return Habit(late[len(late) // 2], most) if 2 * (most - least) <= passed else None
