"""How late is a model, seen from inside: what its processes note of the wall's time, and what that says.

The same for every engine, so it says nothing about how an engine counts its own lag.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

__all__ = ["Notes", "behind_ms", "latencies_ms"]


class Notes:
    """Numbers that a process of a model notes, at most ``room`` of them, in the order in which they came.

    They lie in memory that is shared with a child by fork, so that it does not matter where the model is executed. They are
    for who measures: what a model does must not depend on them.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        # The first of them says how many there are.
        self._cells: memoryview[float] = memoryview(mmap.mmap(-1, 8 * (room + 1))).cast("d")

    def add(self, number: float) -> None:
        """Note one; what finds no room is left out."""
        count = int(self._cells[0])
        if count < self._room:
            self._cells[count + 1] = number
            self._cells[0] = count + 1

    def all(self) -> list[float]:
        """What has been noted so far."""
        return list(self._cells[1 : int(self._cells[0]) + 1])


def behind_ms(noted_s: Iterable[float]) -> list[float]:
    """How far the clock was behind the wall at each note of ``wall seconds - virtual seconds``, ms, ascending.

    The smallest of them is taken for on time: no engine lets a process run before its time has come.
    """
    ordered = sorted(noted_s)
    return [1e3 * (one - ordered[0]) for one in ordered]


def latencies_ms(sent_s: Sequence[float], seen: Iterable[tuple[int, float]]) -> list[float]:
    """From the sending of an update to the process that it resumed: ``seen`` has its number and the wall's seconds then."""
    return [1e3 * (at_s - sent_s[number]) for number, at_s in seen]
