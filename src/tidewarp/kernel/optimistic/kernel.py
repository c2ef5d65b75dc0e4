"""The optimistic engine of the Python tier: PEs, a scheduler, rounds of GVT, and the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tidewarp.errors import PoolExhausted, TidewarpError
from tidewarp.kernel.contract import Statistics, sums_by_class
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.optimistic.commit import Committer
from tidewarp.kernel.optimistic.gvt import TRANSIT, Rounds
from tidewarp.kernel.optimistic.memory import ENTRY_BYTES, Pool, pending_most
from tidewarp.kernel.optimistic.pe import ProcessingElement, grouped
from tidewarp.kernel.optimistic.saving import ObjectsExecutor
from tidewarp.kernel.optimistic.scheduler import Scheduler
from tidewarp.kernel.optimistic.window import Window
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import Event, Image, split_frames, unpack_event
from tidewarp.kernel.trace import Ledger

__all__ = ["OptimisticKernel", "counts_of", "kps_default", "open_pool", "open_window"]

_ROW_FACTOR = 4  # a field as a Python object in a saved tuple against its bytes in a row
_STALLED_ROUNDS = 64  # without any movement of GVT: somebody should hear of it


def kps_default(lps: int) -> int:
    """KPs of a PE with so many LPs: from 16 to 512 the adaptive window makes them equal, one KP undoes far too much."""
    return min(512, max(16, lps // 16))


def open_pool(model: Model, bytes_max: int | None) -> Pool:
    """A pool of at most ``bytes_max``, in which each event keeps a copy of the largest row."""
    row_bytes = max(form_of_lp(cls).size for cls in model.classes)
    return Pool(bytes_max, ENTRY_BYTES + _ROW_FACTOR * row_bytes)


def open_window(model: Model, options: Options, pending: Sequence[Event]) -> Window:
    """The window that ``options`` ask for; adaptive ones begin at 8 lookaheads, or 64 mean gaps of the first events.

    Where neither says anything, they begin at the model's ``trace_interval``.
    """
    lookahead = model.lookahead if model.links is None else int(model.links.lookahead.min())
    if options.window == "lookahead":
        return Window(lookahead, lookahead, False)
    least = max(lookahead, 1)
    if options.window != "auto":
        return Window(options.window, min(least, options.window), False)
    times = [event[0] for event in pending]
    gap = (max(times) - min(times)) // len(times) if times else 0
    return Window(8 * lookahead or 64 * gap or model.trace_interval, least, True)


def counts_of(model: Model, pes: Sequence[ProcessingElement]) -> Statistics:
    """What these PEs have counted, each for itself."""
    found = Statistics(
        executed_by_class=sums_by_class(model, (one for pe in pes for one in pe.executed_of.items())),
        rolled_back_by_class=sums_by_class(model, (one for pe in pes for one in pe.rolled_back_of.items())),
    )
    for pe in pes:
        found.add(pe.statistics)
    return found


class OptimisticKernel:
    """Time Warp over ``options.workers`` PEs that take turns in one thread. See :class:`~tidewarp.kernel.contract.Kernel`."""

    def __init__(self, model: Model, image: Image, ledger: Ledger, options: Options) -> None:
        self.gvt = 0
        self.end = 0  # how far the run is to go: beyond ``until`` where accumulators are published on the way
        self._model = model
        self._ledger = ledger
        self._executor = ObjectsExecutor(model, image, options.saving, options.debug)
        self._pool = open_pool(model, options.memory_max_bytes)
        self._rounds = Rounds(options.workers)
        self._committer = Committer(ledger)
        self._failed: TidewarpError | None = None
        self._still = 0  # rounds since GVT moved
        pending = [unpack_event(model, record) for record in split_frames(image.pending)]
        self._pe_of = partition(model, options)
        self.scheduler = Scheduler(
            [self._open_pe(number, options, pending) for number in range(options.workers)],
            self._rounds,
            ring=options.ring,
            batch=options.batch,
            gvt_interval=options.gvt_interval,
            seed=options.schedule_seed,
        )
        for event in pending:
            self.inject(event)

    def _open_pe(self, number: int, options: Options, pending: Sequence[Event]) -> ProcessingElement:
        model = self._model
        lps = [lp for lp in range(model.n_lps) if self._pe_of[lp] == number]
        kps = grouped(lps, options.kps or kps_default(len(lps)), lambda lp: not model.class_of(lp).speculative)
        window = open_window(model, options, pending)
        lazy = options.cancellation == "lazy"
        return ProcessingElement(
            number, self._pe_of, kps, self._executor, self._rounds, pool=self._pool, window=window, lazy=lazy
        )

    def advance(self, until: int, safe: int) -> None:
        """Run PEs in turn until everything below ``safe`` is committed, or the ledger is full."""
        if self._failed is not None:
            raise self._failed
        bound = min(until + 1, safe)
        rounds = self._rounds
        rounds.bound = max(rounds.bound, (bound, 0, TRANSIT))
        self._commit()
        while rounds.gvt < rounds.bound and not self._ledger.full:
            before = rounds.gvt
            self.gvt = before[0]  # what lies below is committed: this is seen where the run is interrupted
            if self.scheduler.turn(until + 1):
                self._still = 0 if rounds.gvt > before else self._still + 1
                self._commit()
                self._check_pool(until)
        self.gvt = self._committer.tick if self._ledger.full else bound

    def _commit(self) -> None:
        """Release what GVT has passed; collect it."""
        pes = self.scheduler.pes
        try:
            self._committer.release(pe.final() for pe in pes)
        except TidewarpError as error:
            self._failed = error
            raise
        finally:
            for pe in pes:
                pe.collect()

    def _check_pool(self, until: int) -> None:
        """Give up when what is left over the bound is what a sequential run would hold too: nothing of it can be undone."""
        pool, pes = self._pool, self.scheduler.pes
        if pool.limit is None or pool.live <= pool.limit:
            return
        live = pool.live - sum(pe.begotten for pe in pes)
        if live <= pool.limit or any(pe.is_ahead for pe in pes) or self.scheduler.letters:
            return
        end = max(until, self.end)
        most, reached = pending_most(self._model, self.image(), self._ledger.accumulators, until, end)
        far = "" if reached == end else f"for the run to tick {reached}, "
        self._failed = PoolExhausted(
            f"{live * pool.entry_bytes} bytes for {live} events at tick {self._rounds.gvt[0]}",
            f"the bound is {pool.bytes_max} bytes, and nothing can be undone any more",
            f"{far}raise memory_max_bytes above {most * pool.entry_bytes}",
        )
        raise self._failed

    def inject(self, event: Event) -> None:
        """Add an external event; where the ledger is full, GVT goes back to it: nothing from there on is committed."""
        if (event[0], event[1], TRANSIT) < self._rounds.gvt:
            self.scheduler.lower_gvt((event[0], event[1], TRANSIT))
        self.scheduler.pes[self._pe_of[event[2]]].inject(event)

    def image(self) -> Image:
        """The state after the committed events; everything beyond is undone."""
        self._rewind()
        return self._executor.objects.image([event for pe in self.scheduler.pes for event in pe.unprocessed()])

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP; everything that is not committed is undone."""
        self._rewind()
        return self._executor.objects.fields(lp)

    def _rewind(self) -> None:
        if any(pe.speculative for pe in self.scheduler.pes) or self.scheduler.letters:
            self.scheduler.rewind()

    def statistics(self) -> Statistics:
        """Counts over all PEs."""
        total = Statistics(gvt_rounds=self._rounds.number, live_events_most=self._pool.most, pool_size=self._pool.live)
        total.pool_bytes = self._pool.live * self._pool.entry_bytes
        windows = [pe.window for pe in self.scheduler.pes]
        total.window_ticks = min(window.ticks for window in windows)
        total.window_least_ticks = min(window.least for window in windows)
        total.window_greatest_ticks = max(window.greatest for window in windows)
        total.thrash_breaks = sum(window.breaks for window in windows)
        total.add(counts_of(self._model, self.scheduler.pes))
        return total

    def stalls(self) -> list[str]:
        """What each PE waits for, if GVT has not moved for long or a failed event holds it."""
        if self._still < _STALLED_ROUNDS:
            return []
        return self.scheduler.holders()

    def validate(self) -> None:
        """Check the state of all PEs; for tests.

        Raises:
            InternalError: an invariant does not hold.
        """
        for pe in self.scheduler.pes:
            pe.settle()
            pe.validate()
        assert self._pool.live == sum(pe.live() for pe in self.scheduler.pes), "every event is counted once"

    def close(self) -> None:
        """Nothing to release."""
