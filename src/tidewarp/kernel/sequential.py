"""The sequential reference: one pending set, one loop, nothing to undo. Every other engine is compared with this one."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

from tidewarp.errors import TidewarpError
from tidewarp.kernel.contract import Statistics, sums_by_class
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import Objects
from tidewarp.kernel.records import Event, Image, split_frames, unpack_event
from tidewarp.kernel.trace import Ledger

__all__ = ["SequentialKernel"]

BATCH = 256  # events handed to the ledger at once; those kept make the collector run


class SequentialKernel:
    """Executes events one after the other in key order, on ``objects`` if a check brings its own."""

    def __init__(self, model: Model, image: Image, ledger: Ledger, objects: Objects | None = None) -> None:
        self.gvt = 0
        self._objects = objects or Objects(model, image)
        self._model = model
        self._ledger = ledger
        self._pending: list[Event] = [unpack_event(model, record) for record in split_frames(image.pending)]
        self._executed_of = [0] * model.n_lps
        self._failed: TidewarpError | None = None
        heapify(self._pending)

    def advance(self, until: int, safe: int) -> None:
        """Execute, and so commit, every event with time <= until and < safe, or until no more outputs fit."""
        if self._failed is not None:
            raise self._failed
        bound = min(until + 1, safe)
        done: list[Event] = []
        try:
            try:
                self._run(bound, done)
            finally:
                self._ledger.commit(done)
        except TidewarpError as error:
            self._failed = error
            raise
        if not self._ledger.full:
            self.gvt = bound

    def _run(self, bound: int, done: list[Event]) -> None:
        pending, objects, ledger, executed_of = self._pending, self._objects, self._ledger, self._executed_of
        context = objects.context
        while pending and pending[0][0] < bound:
            event = pending[0]
            objects.execute(event)
            if context.emitted:
                ledger.emit(event, context.emitted)
            sends = context.sends
            if sends:
                heapreplace(pending, sends[0])  # pop and push at once
                for sent in sends[1:]:
                    heappush(pending, sent)
            else:
                heappop(pending)
            done.append(event)
            executed_of[event[2]] += 1
            if context.adds:
                ledger.add(context.adds)
            if context.emitted and ledger.full:
                self.gvt = event[0]
                break
            if len(done) == BATCH:
                batch = done.copy()
                done.clear()  # first: what a refused commit has taken is not to be handed over again
                ledger.commit(batch)
                self.gvt = event[0]

    def inject(self, event: Event) -> None:
        """Add an external event."""
        heappush(self._pending, event)

    def image(self) -> Image:
        """The state as it is now."""
        return self._objects.image(self._pending)

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP."""
        return self._objects.fields(lp)

    def statistics(self) -> Statistics:
        """Counts of the run."""
        by_class = sums_by_class(self._model, enumerate(self._executed_of))
        return Statistics(
            executed=sum(by_class),
            executed_by_class=by_class,
            rolled_back_by_class=[0] * len(by_class),
            pool_size=len(self._pending),
        )

    def stalls(self) -> list[str]:
        """Nothing ever waits for another part of this engine."""
        return []

    def close(self) -> None:
        """Nothing to release."""
