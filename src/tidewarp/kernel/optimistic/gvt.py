"""Global virtual time: the least key that anything unfinished has, found in rounds while the PEs go on.

The rounds are those of Fujimoto and Hybinette (Computing Global Virtual Time in Shared-Memory Multiprocessors, ACM
TOMACS 7(4), 1997): a PE reads the number of the round *before* it drains its inbox and reports once per round; a sender
that sees a round it has not reported to yet counts what it sends as its own. So each message is in at least one report.
"""

from __future__ import annotations

from typing import TypeAlias

from tidewarp.errors import InternalError

__all__ = ["FAILED", "NEVER", "PENDING", "TRANSIT", "Mark", "Rounds"]

Mark: TypeAlias = tuple[int, int, int]
"""(time, generation, settled): where something unfinished stands. What is on its way between PEs counts as TRANSIT,
a pending event as PENDING, a held error as FAILED. If GVT is (t, g, PENDING), nothing at or below (t, g) is on its
way and nobody can send or cancel any: the events there are final, executed or not. If it is (t, g, FAILED), nothing
is left to do there. So an event at (t, g) may run for good if (t, g, PENDING) <= GVT, and be committed if (t, g, FAILED) <= GVT."""

TRANSIT, PENDING, FAILED = 0, 1, 2
NEVER: Mark = (2**63, 0, TRANSIT)


class Rounds:
    """The words that the PEs of one process share: number of the round, reports still missing, the result.

    ``bound`` is the mark that GVT never passes: the least watermark of the sources.
    """

    def __init__(self, pes: int) -> None:
        self.number = 0
        self.missing = 0
        self.gvt: Mark = (0, 0, TRANSIT)
        self.bound: Mark = (0, 0, TRANSIT)
        self._pes = pes
        self._low: Mark = NEVER

    def begin(self) -> None:
        """Ask every PE for a report; the last round is over."""
        if self.missing:
            raise InternalError(f"round {self.number}", f"{self.missing} PEs have not reported", "please report this")
        self.number += 1
        self.missing = self._pes
        self._low = NEVER

    def report(self, low: Mark) -> None:
        """One PE's least mark; the last report of a round moves GVT.

        Raises:
            InternalError: GVT would go back.
        """
        self._low = min(self._low, low)
        self.missing -= 1
        if not self.missing:
            self._move(min(self._low, self.bound))

    def retreat(self, gvt: Mark) -> None:
        """Back to where nothing is committed yet.

        Raises:
            InternalError: a round has begun, and its reports know nothing of this.
        """
        if self.missing:
            raise InternalError(f"round {self.number}", f"{self.missing} PEs have not reported", "please report this")
        self.gvt = gvt

    def _move(self, gvt: Mark) -> None:
        if gvt < self.gvt:
            raise InternalError(f"GVT {gvt} after {self.gvt}", "GVT never goes back", "please report this")
        self.gvt = gvt
