"""What every engine offers to the session that drives it, and what it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Protocol

from tidewarp.kernel.model import Model
from tidewarp.kernel.records import Event, Image

__all__ = ["Kernel", "Statistics", "sums_by_class"]


@dataclass
class Statistics:
    """What an engine has counted since it began; events that were undone count in ``executed`` and in ``rolled_back``.

    Lists by class are in the order of the classes' first ``Model.add``; their sums are ``executed`` and ``rolled_back``.
    """

    executed: int = 0
    rolled_back: int = 0
    executed_by_class: list[int] = field(default_factory=list)
    rolled_back_by_class: list[int] = field(default_factory=list)
    rollbacks_straggler: int = 0
    rollbacks_anti: int = 0
    rollback_lengths: list[int] = field(
        default_factory=lambda: [0] * 32
    )  # [i]: rollbacks of 2**i to 2**(i+1) - 1 events
    anti_messages: int = 0
    anti_dropped: int = 0  # cancelled before they left
    remote_sent: int = 0
    lazy_hits: int = 0
    gvt_rounds: int = 0
    window_ticks: int = 0
    window_least_ticks: int = 0
    window_greatest_ticks: int = 0
    live_events_most: int = 0
    pool_size: int = 0
    pool_bytes: int = 0
    send_queue_most: int = 0
    cancelbacks: int = 0
    thrash_breaks: int = 0
    errors_undone: int = 0
    idle_turns: int = 0
    turns: int = 0

    @property
    def rollbacks(self) -> int:
        """How often anything was undone."""
        return self.rollbacks_straggler + self.rollbacks_anti

    @property
    def committed_by_class(self) -> list[int]:
        """Events that were executed and not undone: after an ``advance`` that is done, the committed ones."""
        return [a - b for a, b in zip(self.executed_by_class, self.rolled_back_by_class, strict=True)]

    def add(self, part: Statistics) -> None:
        """Count in what another part of the engine has counted."""
        for one in fields(self):
            mine, more = getattr(self, one.name), getattr(part, one.name)
            if isinstance(mine, list):
                mine[:] = [a + b for a, b in zip_longest(mine, more, fillvalue=0)]
            else:
                setattr(self, one.name, mine + more)


def sums_by_class(model: Model, counts: Iterable[tuple[int, int]]) -> list[int]:
    """The sums of the counts (LP, n) over the LPs of each class, in the order of the classes' first ``Model.add``."""
    sums = dict.fromkeys(model.classes, 0)
    for lp, n in counts:
        sums[model.class_of(lp)] += n
    return list(sums.values())


class Kernel(Protocol):
    """An engine: sequential, conservative or optimistic, in either tier. Only its speed differs from the others'."""

    @property
    def gvt(self) -> int:
        """All events below this tick are committed, and nothing below it can change any more.

        Where the ledger was full, some events at this very tick may be committed too.
        """

    def advance(self, until: int, safe: int) -> None:
        """Execute up to ``until`` (inclusive); commit what lies below ``safe`` (at most until + 1) to the ledger, in key order.

        Returns when all of that is committed, or no more outputs fit the ledger. Events beyond stay pending.

        Raises:
            ModelError: an event to commit broke a rule; everything before it is committed, and the engine refuses to go on.
            PoolExhausted: the memory bound is too low.
        """

    def inject(self, event: Event) -> None:
        """Add an external event; its time is at or above ``gvt``."""

    def image(self) -> Image:
        """The exact state after the committed events; what was executed beyond them is undone first."""

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP after the committed events."""

    def statistics(self) -> Statistics:
        """Counts over all PEs."""

    def stalls(self) -> list[str]:
        """What holds GVT, in words, one line each; empty while it moves."""

    def close(self) -> None:
        """Stop threads, release memory; idempotent."""
