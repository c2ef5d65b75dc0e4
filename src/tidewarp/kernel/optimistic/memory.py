"""The bound of the event pools: how many events may be alive at once.

Fossil collection alone does not bound memory; sending messages back does (Jefferson: Virtual Time II: Storage
Management in Conservative and Optimistic Systems, PODC 1990): then the run needs no more than a sequential one.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from tidewarp.errors import ModelError
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import Objects
from tidewarp.kernel.publications import Publications
from tidewarp.kernel.records import Image, split_frames, unpack_event

__all__ = ["ENTRY_BYTES", "Pool", "pending_most"]

ENTRY_BYTES = 1024
"""What one event is taken to occupy without its saved state: entry, key, lists, message."""

LOOKED_AT_MOST = 2**20
"""Events that are executed to find out which bound would do."""


def pending_most(model: Model, image: Image, accumulators: Sequence[int], until: int, end: int) -> tuple[int, int]:
    """How many events may be pending at once in a run from ``image`` to ``end`` (ticks, inclusive): it is executed for that.

    What is published above ``until`` belongs to it. Returns the tick, too, that this holds to: ``end``, unless
    LOOKED_AT_MOST events lead no further. Events of one time and generation are final together, and PEs may execute them
    in any order: the worst one counts.
    """
    objects = Objects(model, image)
    pending = [unpack_event(model, record) for record in split_frames(image.pending)]
    heapify(pending)
    values = list(accumulators)
    publications = Publications(model)
    published = publications.after(until)
    most = now_most = len(pending)
    now = (-1, 0)
    for _ in range(LOOKED_AT_MOST):
        while published <= min(end, pending[0][0] if pending else end):
            for sent in publications.at(published, values):
                heappush(pending, sent)
            most = max(most, len(pending))
            published = publications.after(published)
        if not pending or pending[0][0] > end:
            return most, end
        event = heappop(pending)
        if event[:2] != now:
            now, now_most = event[:2], len(pending) + 1
        try:
            objects.execute(event)
        except ModelError:
            return most, end  # the run will end here
        for index, n in objects.context.adds:
            values[index] = model.accumulators[index].merge(values[index], n)
        sends = objects.context.sends
        now_most += max(0, len(sends) - 1)
        most = max(most, now_most)
        for sent in sends:
            heappush(pending, sent)
    return most, pending[0][0] - 1 if pending else end


class Pool:
    """Counts the events of the PEs that share it; ``limit`` (events) is None where memory is unbounded."""

    def __init__(self, bytes_max: int | None, entry_bytes: int = ENTRY_BYTES) -> None:
        self.bytes_max = bytes_max
        self.entry_bytes = entry_bytes
        self.limit = None if bytes_max is None else max(1, bytes_max // entry_bytes)
        self.live = 0
        self.most = 0

    def take(self, n: int) -> None:
        """``n`` events more."""
        self.live += n
        if self.live > self.most:
            self.most = self.live

    def give(self, n: int) -> None:
        """``n`` events less."""
        self.live -= n

    @property
    def pressed(self) -> bool:
        """Seven eighths are in use: only what is final may run."""
        return self.limit is not None and self.live * 8 > self.limit * 7

    @property
    def full(self) -> bool:
        """The bound is reached: events that ran ahead have to be undone."""
        return self.limit is not None and self.live >= self.limit

    @property
    def surplus(self) -> int:
        """How many events have to go until a quarter is free."""
        return 0 if self.limit is None else max(0, self.live - self.limit * 3 // 4)
