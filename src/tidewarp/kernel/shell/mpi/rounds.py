"""GVT over all ranks, found in rounds while they go on executing.

The rounds are those of Mattern (Efficient algorithms for distributed snapshots and global virtual time approximation,
J. Parallel and Distributed Computing 18, 1993), with counters in place of a token: letters have the colour of the round
in which their rank accepted them. A round begins when a rank changes its colour; one reduction tells every rank how
many letters of earlier colours it must receive; then its PEs report the least of what is unfinished in them and of
what they have sent in the new colour; and one more gives everybody everybody's least. The PEs of a rank use the
bulletin of :mod:`tidewarp.kernel.optimistic.gvt`: they count what they send from the change of colour on, and look at
the new number only when ``open``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tidewarp.errors import InternalError
from tidewarp.kernel.optimistic.gvt import FAILED, NEVER, TRANSIT, Mark
from tidewarp.kernel.shell.mpi.breaker import Breaker
from tidewarp.kernel.shell.mpi.post import Post
from tidewarp.kernel.shell.mpi.world import Ranks

__all__ = ["STOP", "RankRounds"]

STOP = 1
"""Flag of a rank that wants all to leave after this round: its outputs are full, or it has failed."""

_RESTING, _COUNTING, _RECEIVING, _OPEN, _COMPARING = range(5)
_TOLD = 8  # numbers that each rank tells at the end of a round


class RankRounds:
    """The bulletin that the PEs of one rank read and report to. Ranks begin a round each on its own; it ends on all of them.

    ``work`` gives how many events this rank has executed and how many of them it has undone, since the beginning.
    """

    def __init__(self, ranks: Ranks, post: Post, pes: int, gvt: Mark, work: Callable[[], tuple[int, int]]) -> None:
        self.number = 0
        self.gvt = gvt
        self.bound: Mark = gvt
        self.flags = 0  # greatest of all ranks, in the round that ended last
        self.note = 0  # of this rank; set it to the greatest of all when a round has ended
        self.breaker = Breaker()
        self._work = work
        self._ranks = ranks
        self._post = post
        self._pes = pes
        self._state = _RESTING
        self._missing = 0
        self._low: Mark = NEVER
        self._flag = 0
        self._requests: list[Any] = [None]  # the one that is on
        ranks.unfinished.append(self._requests)
        self._lows: list[Mark] = []  # of each rank, in the round that ended last
        self._expected = np.zeros(1, np.uint64)
        self._mine = np.zeros(_TOLD, np.uint64)
        self._all = np.zeros((ranks.size, _TOLD), np.uint64)

    @property
    def resting(self) -> bool:
        """No round is on."""
        return self._state == _RESTING

    @property
    def open(self) -> bool:
        """All letters from before the round are here: the PEs may look at its number, and report."""
        return self._state == _OPEN

    def begin(self) -> None:
        """Change colour and join the round."""
        self.number += 1
        self._missing = self._pes
        self._low = NEVER
        self._post.recolour()
        self._post.flush()
        counts = self._post.accepted.copy()
        self._requests[0] = self._ranks.comm.Ireduce_scatter_block(counts, self._expected)
        self._kept = counts
        self._state = _COUNTING

    def report(self, low: Mark) -> None:
        """One PE's least mark."""
        self._low = min(self._low, low)
        self._missing -= 1

    def give_up(self) -> None:
        """Report for all PEs of a rank that has failed."""
        self._missing = 0

    def poll(self, flag: int) -> bool:
        """Go on if the round can; True when it has ended, and ``gvt`` is new. ``flag`` is told to all ranks at its end.

        Raises:
            InternalError: GVT would go back, or ranks were advanced differently.
        """
        if self._state == _COUNTING and self._requests[0].Test():
            self._state = _RECEIVING
        if self._state == _RECEIVING and self._post.received_before == int(self._expected[0]):
            self._state = _OPEN
        if self._state == _OPEN and not self._missing:
            self._mine[:] = (*self._low, flag, self.bound[0], self.note, *self._work())
            self._requests[0] = self._ranks.comm.Iallgather(self._mine, self._all)
            self._state = _COMPARING
        if self._state == _COMPARING and self._requests[0].Test():
            self._state = _RESTING
            self._end()
            return True
        return False

    def _end(self) -> None:
        rows = self._all.tolist()
        self._lows = [(row[0], row[1], row[2]) for row in rows]
        self.flags = max(row[3] for row in rows)
        self.note = max(row[5] for row in rows)
        self.breaker.end_round(sum(row[6] for row in rows), sum(row[7] for row in rows))
        if any(row[4] != rows[0][4] for row in rows):
            bounds = ", ".join(str(row[4]) for row in rows)
            raise InternalError(
                f"ranks advance to ticks {bounds}", "all ranks make the same calls", "please report this"
            )
        if self.flags:
            return
        gvt = min(self.bound, *self._lows)
        if gvt < self.gvt:
            raise InternalError(f"GVT {gvt} after {self.gvt}", "GVT never goes back", "please report this")
        self.gvt = gvt

    def holders(self, own: Callable[[], list[str]]) -> list[str]:
        """Who holds GVT and why, as far as this rank knows; ``own`` tells it of the PEs here. Any thread may ask."""
        me, others = self._ranks.rank, [rank for rank in range(self._ranks.size) if rank != self._ranks.rank]
        if self._state == _COUNTING:
            silent = [rank for rank in others if self._post.colours[rank] < self.number]
            return [
                f"rank {_listed(silent or others)}: round {self.number} of GVT, which rank {me} is in, has not begun there"
            ]
        if self._state == _RECEIVING:
            missing = int(self._expected[0]) - self._post.received_before
            return [f"rank {me}: {missing} messages for it are on their way from rank {_listed(others)}"]
        if self._state == _COMPARING:
            return [f"rank {_listed(others)}: rank {me} waits for its report to round {self.number} of GVT"]
        if self._state == _RESTING and self._lows:
            low = min(self._lows)
            if low != self._lows[me]:
                return [f"rank {self._lows.index(low)}: something there is unfinished at tick {low[0]}"]
        return [f"rank {me}, {line}" for line in own()]

    @property
    def begun(self) -> int:
        """The last tick of which anything can be final: an input may come at any later one."""
        return self.gvt[0] - (self.gvt[1:] <= (0, TRANSIT))

    @property
    def reached(self) -> bool:
        """Nothing below the bound is unfinished, or nothing can be finished: an event that all others are done before failed."""
        return self.gvt >= self.bound or self.gvt[2] == FAILED


def _listed(ranks: list[int]) -> str:
    return " or ".join(map(str, ranks))
