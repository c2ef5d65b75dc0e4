"""Time Warp over compiled handlers: PEs on threads, one digest with every other engine.

The threads run slices (:mod:`~tidewarp.kernel.compiled.slices`) and enlarge their own PE's arrays between them; the thread that
calls :meth:`CompiledOptimistic.advance` merges what they have committed and hands it to the ledger. Whenever they stand
still the state can be made exact at GVT (:mod:`~tidewarp.kernel.compiled.recall`): for images, for dividing the memory anew,
and for an error of a committed event, which the interpreted tier then repeats from there, so that it is the
same error, after the same events, as in the sequential run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tidewarp.clocks.pacing import Clock
from tidewarp.errors import InternalError, LateInput, OperatorError, TidewarpError
from tidewarp.kernel.compiled import gvt
from tidewarp.kernel.compiled import pe as pes
from tidewarp.kernel.compiled.budget import Budget
from tidewarp.kernel.compiled.gvt import start_round
from tidewarp.kernel.compiled.image import Memory
from tidewarp.kernel.compiled.looking import check_slots, holders_of, pending_of, statistics_of
from tidewarp.kernel.compiled.merge import Merger
from tidewarp.kernel.compiled.opening import blocks_of_row, first_window, least_lookahead, new_shared, placed_lps
from tidewarp.kernel.compiled.pe import NEVER, Pe, add_pending
from tidewarp.kernel.compiled.pools import (
    enlarge_channel,
    enlarge_chunks,
    enlarge_log,
    enlarge_out,
    enlarge_slots,
    new_pe,
    take_over_block,
)
from tidewarp.kernel.compiled.recall import NEEDS_CHANNEL, NEEDS_LOG, NEEDS_SLOTS, recall
from tidewarp.kernel.compiled.replay import Tried
from tidewarp.kernel.compiled.slices import (
    CHANNEL_LOW,
    ERROR_FINAL,
    FINISHED,
    LOG_FULL,
    OUT_LOW,
    POOL_LOW,
    STOPPED,
    STUCK,
    run_slice,
)
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import partition
from tidewarp.kernel.records import Event, Image
from tidewarp.kernel.sequential import SequentialKernel
from tidewarp.kernel.trace import Ledger

if TYPE_CHECKING:
    from tidewarp.kernel.compiled.in_order import InOrder

__all__ = ["CompiledOptimistic", "Workers"]

STALL_S = 5.0
DEADLOCK_ROUNDS = 32  # of GVT at the bound of memory, in which nothing is committed
IN_ORDER_LEAST, IN_ORDER_MOST = 16, 2**16  # pending events that are executed in order before PEs try again
LOGS_MOST = 4  # of one PE, on their way to the ledger


class Workers(Protocol):
    """Threads that run one function at a time; see kernel.shell.threads."""

    @property
    def running(self) -> int:
        """How many have not ended their work."""

    def start(self, work: Callable[[int, Callable[[Any], None]], None]) -> None:
        """Let every thread run ``work(its number, post)``."""

    def take(self, timeout_s: float) -> Any:
        """The next posted item; None after the time, or when a thread has ended."""

    def close(self) -> None:
        """End the threads."""


class CompiledOptimistic:
    """The optimistic engine of the compiled tier, a :class:`~tidewarp.kernel.contract.Kernel`."""

    _run_slice = staticmethod(run_slice)

    def __init__(
        self,
        model: Model,
        image: Image,
        ledger: Ledger,
        options: Options,
        handler: Any,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._model, self._ledger, self._options = model, ledger, options
        self._handler, self._workers, self._clock = handler, workers, clock
        self._memory = Memory(model)
        self._n, self._here, self._pe_of = self._placement()
        self._rows = self._memory.rows(image)
        self._failed: TidewarpError | None = None
        self._injected: list[Event] = []
        self._blocks = blocks_of_row(self._memory)
        self._budget = Budget(options.memory_max_bytes, self._here, self._n, self._memory.message_words, self._blocks)
        self._order: InOrder | None = None
        self._stretch, self._committed_then = IN_ORDER_LEAST, 0
        self._merger = Merger(self._n, ledger, model.trace_interval)
        self._credited = 0
        self._in_flight = [0] * self._n
        self._told = [(0, 0)] * self._n  # how far the merger knows each PE to have committed
        self._last_gvt, self._last_moved, self._working = (-1, 0), clock.now(), False
        self._idle_rounds: tuple[int, object] = (0, ())  # the round since which nothing has changed, and what
        self._divided_at: object = None  # GVT and commits at the last division of the memory
        lps, self._kps = placed_lps(model, self._memory, options, self._rows, self._pe_of, self._n)
        lookahead = least_lookahead(model, self._pe_of)
        self._shared = new_shared(model, self._memory, options, lps, self._n, lookahead, ledger.tracing)
        self._pes = self._new_pes(image)

    # --- making -----------------------------------------------------------------------------------

    def _placement(self) -> tuple[int, int, np.ndarray[Any, Any]]:
        """How many PEs there are, how many of them here (the first ones), and the PE of each LP."""
        n = self._options.workers
        return n, n, np.array(partition(self._model, self._options), np.int64)

    def _new_pes(self, image: Image) -> list[Pe]:
        count, pool, payload = self._memory.pending(image)
        owner = self._pe_of[pool["dst"][:count]]
        mine = [np.flatnonzero(owner == p) for p in range(self._here)]
        sizes = self._budget.first_shares([len(slots) for slots in mine])
        self._budget.count(sizes)
        least = int(self._shared.conf[gvt.WINDOW_LEAST_TICKS])
        window = first_window(self._options.window, least, pool[:count])
        return [self._new_pe(p, pool[mine[p]], payload[mine[p]], *sizes[p], window) for p in range(self._here)]

    def _new_pe(
        self,
        p: int,
        pool: np.ndarray[Any, Any],
        payload: np.ndarray[Any, Any],
        slots: int,
        chunks: int,
        window: int,
    ) -> Pe:
        memory, shared = self._memory, self._shared
        me = new_pe(
            slots,
            chunks,
            memory.message_words,
            self._kps[p],
            self._n,
            max(memory.row_words),
            len(self._model.accumulators),
            memory.n_classes,
            not shared.lps["speculative"].all(),
            memory.new_block(memory.new_effects(1)),
        )
        reg = me.reg
        reg[pes.SEND_TIME], reg[pes.WINDOW] = NEVER, window
        me.stats[pes.WINDOW_LEAST] = me.stats[pes.WINDOW_GREATEST] = window
        for index, accumulator in enumerate(self._model.accumulators):
            me.sums[index, 0] = accumulator.start
        self._put(me, pool, payload)
        return me

    def _put(self, me: Pe, pool: np.ndarray[Any, Any], payload: np.ndarray[Any, Any]) -> None:
        """Put events into a PE's pending set."""
        n = int(me.reg[pes.N_FREE])
        for i in range(len(pool)):
            s = int(me.free[n - 1 - i])
            for name in ("time", "seq", "dst", "src", "generation", "kind"):
                me.pool[name][s] = pool[name][i]
            me.pool["channel"][s], me.pool["child"][s], me.pool["send_time"][s] = -1, pes.NONE, -1
            me.payload[s] = payload[i]
            me.reg[pes.N_FREE] -= 1
            add_pending(me, self._shared, s)

    # --- Kernel -----------------------------------------------------------------------------------

    @property
    def gvt(self) -> int:
        """All events below this tick are committed."""
        if self._ledger.full or self._merger.waiting:
            return self._merger.stopped_at
        return self._true_gvt()[0]

    @property
    def blocks(self) -> list[Any]:
        """The context blocks of all PEs; they stay the same arrays."""
        return [me.block for me in self._pes]

    def _true_gvt(self) -> tuple[int, int]:
        control = self._shared.control
        pair = gvt.PUBLISHED + 2 + 2 * (int(control[gvt.PUBLISHED]) & 1)
        return int(control[pair]), int(control[pair + 1])

    def advance(self, until: int, safe: int) -> None:
        """Execute up to ``until`` (inclusive), commit below ``safe``. Blocks; the threads work meanwhile.

        Raises:
            ModelError: an event to commit broke a rule.
            PoolExhausted: the memory bound is too low.
        """
        if self._failed is not None:
            raise self._failed
        safe = min(safe, until + 1)
        self._merger.commit()
        while not self._ledger.full and not self._complete(safe):
            self._take_injected()
            try:
                again = self._relieve(until, safe) if self._budget.is_overdrawn else self._run(until, safe)
            except TidewarpError as error:
                self._failed = error
                raise
            if not again:
                break

    def _complete(self, safe: int) -> bool:
        """Is everything below ``safe`` in the ledger?"""
        t, level = self._true_gvt()
        return t >= safe and min(self._merger.upto) >= (t, level >> 1) and not self._merger.waiting

    def _run(self, until: int, safe: int) -> bool:
        """Let the threads work until all is committed or something has to be done about them. True: go on."""
        conf, control = self._shared.conf, self._shared.control
        conf[gvt.UNTIL], conf[gvt.SAFE] = until, safe
        control[gvt.STOP] = 0
        self._last_moved = self._clock.now()
        outcomes: list[int] = []
        errors: list[BaseException] = []
        self._working = True
        self._workers.start(self._work)
        while self._workers.running:
            try:
                item = self._workers.take(0.02 if self._at_bound() else 0.2)
            except BaseException as error:
                control[gvt.STOP] = 1
                errors.append(error)
                continue
            self._follow_gvt()
            if isinstance(item, int):
                outcomes.append(item)
                control[gvt.STOP] = 1
            elif item is None and self._is_deadlocked():
                outcomes.append(STUCK)
                control[gvt.STOP] = 1
            elif item is not None:
                p, log, data, upto = item
                self._merger.add(p, log, data, upto)
                self._in_flight[p] -= 1
                self._merger.commit()
                if self._ledger.full:
                    control[gvt.STOP] = 1
        self._working = False
        if errors:
            raise errors[0]
        self._gather()
        if ERROR_FINAL in outcomes:
            self._repeat_error()
        if STUCK in outcomes:
            self._relieve(until, safe)
        return bool(outcomes)

    def _at_bound(self) -> bool:
        return any(me.reg[pes.AT_BOUND] for me in self._pes)

    def _is_deadlocked(self) -> bool:
        """Have many rounds of GVT passed at the bound of memory without an event committed?"""
        done = int(self._shared.control[gvt.ROUND])
        here = (self._at_bound(), self._true_gvt(), sum(int(me.stats[pes.COMMITTED]) for me in self._pes))
        if not here[0] or here != self._idle_rounds[1]:
            self._idle_rounds = (done, here)
            return False
        return done - self._idle_rounds[0] >= DEADLOCK_ROUNDS

    def _gather(self) -> None:
        """Take what the PEs have committed and not handed over; no thread is at work."""
        for p, me in enumerate(self._pes):
            self._merger.add(p, *self._log_of(me))
        self._merger.commit()
        self._credit()

    def _credit(self) -> None:
        """Count what was committed without a log."""
        total = sum(int(me.stats[pes.COMMITTED]) for me in self._pes) - self._merger.logged
        if total > self._credited:
            self._ledger.commit_framed([(0, b"", total - self._credited)])
            self._credited = total
        for me in self._pes:
            for index, accumulator in enumerate(self._model.accumulators):
                low, high = me.sums[index].tolist()
                if (low, high) != (accumulator.start, 0):
                    self._ledger.add([(index, low + (high << 32))])
                me.sums[index] = accumulator.start, 0

    def _log_of(self, me: Pe) -> tuple[Any, Any, tuple[int, int]]:
        reg = me.reg
        n, size = int(reg[pes.N_LOG]), int(reg[pes.N_DATA])
        reg[pes.N_LOG] = reg[pes.N_DATA] = 0
        return me.log[:n].copy(), me.data[:size].copy(), (int(reg[pes.UPTO_TIME]), int(reg[pes.UPTO_LEVEL]))

    def _is_news(self, p: int) -> bool:
        """Does the merger wait to hear how far this PE has committed, though there is nothing to log?"""
        reg = self._pes[p].reg
        ordered = self._ledger.tracing or int(self._shared.control[gvt.EMITTED_ANY])
        return bool(ordered) and (int(reg[pes.UPTO_TIME]), int(reg[pes.UPTO_LEVEL])) > self._told[p]

    def _work(self, p: int, post: Callable[[Any], None]) -> None:
        """What a thread does: slices of PE ``p``, and what these ask for between them."""
        while self.step(p, post, self._options.slice_turns):
            pass

    def step(self, p: int, post: Callable[[Any], None], turns: int) -> bool:
        """One slice of PE ``p``, and what it asks for. False: its part of this run is over."""
        me = self._pes[p]
        status = self._run_slice(self._handler, me, self._shared, p, turns)
        logged = int(me.reg[pes.N_LOG])
        if (logged or self._is_news(p)) and self._in_flight[p] < LOGS_MOST:
            self._in_flight[p] += 1
            log, data, upto = self._log_of(me)
            self._told[p] = upto
            post((p, log, data, upto))
        if status == POOL_LOW:
            self._enlarge(p)
        elif status == CHANNEL_LOW:
            self._pes[p] = enlarge_channel(me, self._n)
        elif status == OUT_LOW:
            self._pes[p] = enlarge_out(me)
        elif status == LOG_FULL and logged == 0:
            self._pes[p] = enlarge_log(me)
        elif status in (ERROR_FINAL, STUCK):
            post(status)
        return status not in (FINISHED, STOPPED, ERROR_FINAL, STUCK)

    def _enlarge(self, p: int) -> None:
        """Let a PE's pools grow by half, or as far as the bound of memory allows."""
        me, blocks = self._pes[p], self._blocks
        slots, chunks = len(me.pool), len(me.chunks)
        want = int(me.reg[pes.WANT])
        if me.reg[pes.N_FREE] <= want:
            more = self._budget.grant_slots(max(slots // 2, 2 * want, 64), min(want + 1, 16))
            if more == 0:
                me.reg[pes.AT_BOUND] = 1
            else:
                self._pes[p] = enlarge_slots(me, slots + more)
        if me.reg[pes.N_CHUNKS] < 3 * blocks:
            more = self._budget.grant_chunks(max(chunks // 2, 4 * blocks), blocks)
            if more == 0:
                me.reg[pes.AT_BOUND] = 1
            else:
                self._pes[p] = enlarge_chunks(self._pes[p], chunks + more)

    # --- standing still ---------------------------------------------------------------------------

    def _restart_round(self) -> None:
        """Let all PEs report anew: something became pending of which earlier reports know nothing."""
        start_round(self._shared.control.ctypes.data, int(self._shared.conf[gvt.PARTICIPANTS]))

    def _recall(self) -> None:
        """Undo what lies beyond GVT and let every message arrive."""
        moved = True
        while moved:
            moved = False
            for p in range(self._here):
                status = recall(self._handler, self._pes[p], self._shared, p)
                moved |= status != 0
                if status == NEEDS_SLOTS:
                    me = self._pes[p]
                    more = self._budget.take_slots(len(me.pool) // 2 + 64)
                    self._pes[p] = enlarge_slots(me, len(me.pool) + more)
                elif status == NEEDS_CHANNEL:
                    self._pes[p] = enlarge_channel(self._pes[p], self._n)
                elif status == NEEDS_LOG:
                    self._merger.add(p, *self._log_of(self._pes[p]))
        self._gather()
        self._restart_round()

    def _take_injected(self) -> None:
        if not self._injected:
            return
        pool, payload = self._memory.new_pool(1)
        for event in self._injected:
            self._memory.set_event(pool, payload, 0, event)
            p = int(self._pe_of[event[2]])
            if self._pes[p].reg[pes.N_FREE] == 0:
                more = self._budget.grant_slots(64, 1) or self._budget.take_slots(1)
                self._pes[p] = enlarge_slots(self._pes[p], len(self._pes[p].pool) + more)
            self._put(self._pes[p], pool, payload)
        self._injected.clear()
        self._restart_round()

    def _repeat_error(self) -> None:
        """An error is final: the sequential engine of the interpreted tier goes on from GVT, up to the event that errs.

        Raises:
            ModelError: always, unless the compiled handler does not err any more.
        """
        self._recall()
        tick = self._true_gvt()[0]
        image = self._image()
        self._ledger.outputs_max = 2**62  # the run ends within this tick
        objects = Tried(self._model, image, self._memory, self._handler)
        SequentialKernel(self._model, image, self._ledger, objects).advance(tick, tick + 1)
        raise InternalError(
            f"a handler at tick {tick}", "it broke a rule compiled, and then it does not", "please report this"
        )

    def _relieve(self, until: int, safe: int) -> bool:
        """Go on where there is no memory for more than the sequential run; True, for then the PEs may go on.

        Raises:
            ModelError: an event broke a rule.
            PoolExhausted: there is not even memory for the sequential run.
        """
        self._recall()
        if self._ledger.full or self._merger.waiting:  # what is committed comes first
            return True
        pool, payload = self._pending()
        order = self._in_order(pool, payload)
        bound = min(until + 1, safe)
        if len(pool):
            bound = min(bound, int(pool["time"][min(self._stretch, len(pool)) - 1]) + 1)
        try:
            if not order.carry_on(bound, self._budget.pending_most):
                raise self._budget.refusal(self._true_gvt()[0], order.slots_to(min(until + 1, safe)))
        finally:
            self._share_out(*order.pending())
        self._raise_gvt(order.gvt)
        self._merger.stopped_at = order.gvt
        return True

    def _in_order(self, pool: np.ndarray[Any, Any], payload: np.ndarray[Any, Any]) -> InOrder:
        """The sequential engine, to go on with these events; for twice as many as before where PEs hardly get on."""
        from tidewarp.kernel.compiled.in_order import InOrder

        committed = sum(int(me.stats[pes.COMMITTED]) for me in self._pes)
        gained, self._committed_then = committed - self._committed_then, committed
        if gained < 2 * self._stretch:
            self._stretch = min(2 * self._stretch, IN_ORDER_MOST)
        else:
            self._stretch = max(self._stretch // 2, IN_ORDER_LEAST)
        if self._order is None:
            options = replace(self._options, memory_max_bytes=None)
            self._order = InOrder(self._model, self._image(), self._ledger, options, self._handler)
        self._order.take_over(self._rows, pool, payload, self._pes[0].block)
        return self._order

    def _raise_gvt(self, tick: int) -> None:
        """Everything below ``tick`` is committed: let the PEs see it."""
        control = self._shared.control
        if self._true_gvt() < (tick, 0):
            number = int(control[gvt.PUBLISHED]) + 1
            pair = gvt.PUBLISHED + 2 + 2 * (number & 1)
            control[pair], control[pair + 1] = tick, 0
            control[gvt.PUBLISHED] = number
            for me in self._pes:  # the leader compares with what it has seen
                me.reg[pes.GVT_TIME], me.reg[pes.GVT_LEVEL] = tick, 0

    def _divide_memory(self) -> None:
        """Give each PE memory after its need.

        Raises:
            PoolExhausted: there is not enough for all, or nothing came of the last division.
        """
        self._recall()
        here = (self._true_gvt(), sum(int(me.stats[pes.COMMITTED]) for me in self._pes))
        pool, payload = self._pending()
        if here == self._divided_at:
            raise self._budget.refusal(here[0][0], 2 * self._budget.pending_most)
        if len(pool) > self._budget.pending_most:
            raise self._budget.refusal(here[0][0], len(pool))
        self._divided_at = here
        self._share_out(pool, payload)

    def _share_out(self, pool: np.ndarray[Any, Any], payload: np.ndarray[Any, Any]) -> None:
        """Give all PEs here new pools, and each its part of these events. Nothing is executed, and nothing can cancel any."""
        owner = self._pe_of[pool["dst"]]
        mine = [np.flatnonzero(owner == p) for p in range(self._here)]
        pending = [len(slots) for slots in mine]
        wanted = [n + 16 + 2 * int(me.reg[pes.WANT]) for n, me in zip(pending, self._pes, strict=True)]
        sizes = self._budget.shares(pending, wanted)
        for p, me in enumerate(self._pes):
            self._pes[p] = self._moved(me, *sizes[p], p)
            self._put(self._pes[p], pool[mine[p]], payload[mine[p]])
        self._budget.count(sizes)
        self._shared.lps["since"] = 0
        self._shared.control[gvt.PRESSURE] = 0

    def _moved(self, old: Pe, slots: int, chunks: int, p: int) -> Pe:
        """A PE with other pools, and no events."""
        me = new_pe(
            slots, chunks, self._memory.message_words, self._kps[p], self._n, max(self._memory.row_words),
            len(self._model.accumulators), self._memory.n_classes, len(old.held_slots) > 1, old.block,
        )  # fmt: skip
        keep = [
            i
            for i in range(pes.REGISTERS)
            if i not in (pes.N_PENDING, pes.N_HELD, pes.N_FREE, pes.N_CHUNKS, pes.PRESSED, pes.WANT, pes.AT_BOUND)
        ]
        me.reg[keep] = old.reg[keep]
        me.reg[pes.AT_BOUND], me.reg[pes.SEND_TIME] = 1, NEVER  # what was sent has arrived
        me = take_over_block(me, old.block)
        me.stats[:] = old.stats
        me.sums[:], me.sent[:] = old.sums, old.sent
        return me

    def _pending(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """All pending events here and their messages, in key order."""
        parts = [(me.pool[mine], me.payload[mine]) for me in self._pes for mine in [pending_of(me)]]
        pool = np.concatenate([part for part, _ in parts])
        payload = np.concatenate([words for _, words in parts])
        order = self._memory.in_key_order(pool, np.arange(len(pool)))
        return pool[order], payload[order]

    def inject(self, event: Event) -> None:
        """Add an external event; below what is executed it is a straggler.

        Raises:
            LateInput: it lies below GVT.
        """
        now = self._true_gvt()[0]
        if event[0] < now:
            raise LateInput(
                f"an input at tick {event[0]}",
                f"GVT stands at {now}",
                "hold the watermark back for as long as inputs may be late",
            )
        self._injected.append(event)

    def image(self) -> Image:
        """The exact state at GVT; what was executed beyond is undone first.

        Raises:
            OperatorError: committed outputs wait to be taken.
        """
        if self._merger.waiting:
            raise OperatorError(
                "an image between two outputs", "the ledger is full", "take the outputs and advance first"
            )
        self._take_injected()
        self._recall()
        return self._image()

    def _image(self) -> Image:
        pool, payload = self._pending()
        return self._memory.image(self._rows, pool, payload, np.arange(len(pool)))

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP at GVT."""
        if any(me.reg[pes.LIVE] for me in self._pes) and not self._merger.waiting:
            self._recall()
        return self._memory.fields(self._rows, lp)

    def statistics(self) -> Statistics:
        """Counts over all PEs; they may be read while the threads work."""
        found = statistics_of(self._pes, self._memory.message_words)
        if self._order is not None:
            in_order = self._order.executed_by_class
            found.add(Statistics(executed=sum(in_order), executed_by_class=in_order, rollback_lengths=[]))
        return found

    def stalls(self) -> list[str]:
        """Once GVT has not moved for 5 s: what each PE that holds it waits for. May be called while the threads work."""
        self._follow_gvt()
        waited = self._clock.now() - self._last_moved
        if not self._working or waited < STALL_S:
            return []
        return [f"{line}; GVT has stood at tick {self._last_gvt[0]} for {waited:.0f} s" for line in self._holders()]

    def _follow_gvt(self) -> None:
        now = self._true_gvt()
        if now != self._last_gvt:
            self._last_gvt, self._last_moved = now, self._clock.now()

    def _holders(self) -> list[str]:
        return holders_of(self._model, self._pes, self._shared)

    def close(self) -> None:
        """Stop the threads; idempotent."""
        self._shared.control[gvt.STOP] = 1
        self._workers.close()

    def validate(self) -> None:
        """Check that no slot and no chunk is lost; for tests, between two calls of ``advance``.

        Raises:
            InternalError: one is.
        """
        for p, me in enumerate(self._pes):
            check_slots(me, p)
