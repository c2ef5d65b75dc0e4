"""Which fork snapshots are kept, and which inputs for them. Pure: what a snapshot is, and how it is taken and ended, is for others to say.

Taking one costs time and keeping one costs memory, so there are few, and they lie the closer the nearer they are to the
present: how much is executed in vain before a late input grows with how late it is. That is the rule of checkpoints in
Time Warp (Jefferson 1985), thinned out as incremental backups are.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Generic, Protocol, TypeVar

from tidewarp.connect.contract import Input

__all__ = ["SNAPSHOTS_MAX", "Due", "GrantedInputs", "Snapshots"]

SNAPSHOTS_MAX = 12
_SHARE = 15  # a snapshot is worth its cost once so many times the cost has been spent on the run
_AT = attrgetter("at")
_TICK = itemgetter(Input._fields.index("tick"))


class _Snapshot(Protocol):
    at: int  # all instants below this tick are done in it


S = TypeVar("S", bound=_Snapshot)


class Due:
    """When the next snapshot is worth it, by what the last one cost and by what the run has spent since.

    At the latest after ``_SHARE`` times the cost, so that a repair never executes more than that in vain; sooner where
    repairs are frequent: the interval that costs least is sqrt(2 * cost * time between two of them) (Young 1974).
    """

    def __init__(self) -> None:
        self._cost_s = 0.0
        self._spent_s = 0.0  # since the last snapshot
        self._total_s = 0.0
        self._repairs = 0

    def spend(self, s: float) -> None:
        """The run took so many more seconds."""
        self._spent_s += s
        self._total_s += s

    def repaired(self) -> None:
        """It has gone back to a snapshot."""
        self._repairs += 1

    @property
    def is_due(self) -> bool:
        """Is a snapshot worth it now?"""
        interval_s = _SHARE * self._cost_s
        if self._repairs:
            interval_s = min(interval_s, math.sqrt(2 * self._cost_s * self._total_s / self._repairs))
        return self._spent_s >= interval_s

    def taken(self, cost_s: float) -> None:
        """A snapshot took so many seconds."""
        self._cost_s, self._spent_s = cost_s, 0.0


class GrantedInputs:
    """The inputs that a run was granted, in their order; of ticks below ``begin`` they are forgotten."""

    def __init__(self) -> None:
        self.begin = 0
        self._inputs: list[Input] = []

    def __len__(self) -> int:
        return len(self._inputs)

    def append(self, inputs: Sequence[Input]) -> None:
        """Add what lies behind all others."""
        self._inputs += inputs

    def insert(self, late: Sequence[Input]) -> None:
        """Put these in their places."""
        self._inputs = sorted((*self._inputs, *(one for one in late if one.tick >= self.begin)))

    def since(self, tick: int, ahead: int) -> tuple[Input, ...]:
        """From ``tick`` on, without the first ``ahead`` of them."""
        return tuple(self._inputs[self._place(tick) + ahead :])

    def forget_below(self, tick: int) -> None:
        """Nobody will ask for them."""
        del self._inputs[: self._place(tick)]
        self.begin = max(self.begin, tick)

    def _place(self, tick: int) -> int:
        return bisect_left(self._inputs, tick, key=_TICK)


class Snapshots(Generic[S]):
    """Snapshots in ascending order of ``at``. What a method returns is no longer kept, and is to be ended."""

    def __init__(self) -> None:
        self._kept: list[S] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, number: int) -> S:
        return self._kept[number]

    def __iter__(self) -> Iterator[S]:
        return iter(self._kept)

    def add(self, snapshot: S, gvt: int) -> list[S]:
        """Keep one more, of the present. Below GVT, behind which no repair reaches, one is enough."""
        self._kept.append(snapshot)
        below = max(0, bisect_right(self._kept, gvt, key=_AT) - 1)
        gone, self._kept = self._kept[:below], self._kept[below:]
        if len(self._kept) > SNAPSHOTS_MAX:
            gone.append(self.thin_out())
        return gone

    def thin_out(self) -> S:
        """Take out the one that is missed least: where the gap that it leaves is small for how far it lies back."""
        kept = self._kept
        now = kept[-1].at
        missed = [(after.at - before.at) / (now - after.at + 1) for before, after in zip(kept, kept[2:], strict=False)]
        return kept.pop(1 + missed.index(min(missed)) if missed else 0)

    def drop_above(self, tick: int) -> list[S]:
        """Take out those of later ticks: what they did there has to be done again."""
        keep = bisect_right(self._kept, tick, key=_AT)
        gone, self._kept = self._kept[keep:], self._kept[:keep]
        return gone

    def drop_oldest(self) -> S:
        """Take out the first."""
        return self._kept.pop(0)
