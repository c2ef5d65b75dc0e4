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
from tidewarp.kernel.compiled import gvt, layout
from tidewarp.kernel.compiled import pe as pes
from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.budget import Budget
from tidewarp.kernel.compiled.gvt import start_round
from tidewarp.kernel.compiled.image import Memory
from tidewarp.kernel.compiled.merge import Merger
from tidewarp.kernel.compiled.pe import LPS, NEVER, Pe, Shared, add_pending
from tidewarp.kernel.compiled.pools import (
    aligned,
    chunk_bytes,
    enlarge_channel,
    enlarge_chunks,
    enlarge_log,
    enlarge_out,
    enlarge_slots,
    new_pe,
    slot_bytes,
    take_over_block,
)
from tidewarp.kernel.compiled.recall import NEEDS_CHANNEL, NEEDS_LOG, NEEDS_SLOTS, recall
from tidewarp.kernel.compiled.replay import Tried
from tidewarp.kernel.compiled.rings import ENTRY_WORDS
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
from tidewarp.kernel.lp import policy_of
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
RINGS_BYTES = 2**28
_POLICIES = {"copy": pes.COPY, "delta": pes.DELTA, "reverse": pes.INVERSE, "periodic": pes.PERIODIC}


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
        self._blocks = max(-(-words // pes.CHUNK) for words in self._memory.row_words)
        self._budget = Budget(options.memory_max_bytes, self._here, self._n, self._memory.message_words, self._blocks)
        self._order: InOrder | None = None
        self._stretch, self._committed_then = IN_ORDER_LEAST, 0
        self._merger = Merger(self._n, ledger, model.trace_interval)
        self._credited = 0
        self._in_flight = [0] * self._n
        self._last_gvt, self._last_moved, self._working = (-1, 0), clock.now(), False
        self._idle_rounds: tuple[int, object] = (0, ())  # the round since which nothing has changed, and what
        self._divided_at: object = None  # GVT and commits at the last division of the memory
        self._shared = self._new_shared()
        self._pes = self._new_pes(image)

    # --- making -----------------------------------------------------------------------------------

    def _placement(self) -> tuple[int, int, np.ndarray[Any, Any]]:
        """How many PEs there are, how many of them here (the first ones), and the PE of each LP."""
        n = self._options.workers
        return n, n, np.array(partition(self._model, self._options), np.int64)

    def _new_shared(self) -> Shared:
        n, width = self._n, ENTRY_WORDS + self._memory.message_words
        ring = self._options.ring if n > 1 else 2
        while ring > 8 and n * n * ring * width * 8 > RINGS_BYTES:
            ring //= 2
        conf = aligned(gvt.CONF)
        lps = self._new_lps()
        window = self._options.window
        lookahead = self._lookahead()
        conf[gvt.N_PES] = conf[gvt.PARTICIPANTS] = n
        conf[gvt.BATCH], conf[gvt.GVT_INTERVAL] = self._options.batch, self._options.gvt_interval
        conf[gvt.ADAPTIVE] = window == "auto"
        conf[gvt.WINDOW_LEAST_TICKS] = max(lookahead, 1) if window == "auto" else lookahead
        conf[gvt.WINDOW_MOST_TICKS] = 2**62
        conf[gvt.LAZY] = self._options.cancellation == "lazy"
        conf[gvt.TRACING] = self._ledger.tracing
        conf[gvt.RING_MASK] = ring - 1
        conf[gvt.ROW_BLOCKS] = self._blocks
        conf[gvt.ROW_FORMS] = self._memory.n_classes
        conf[gvt.PERIODIC_ANY] = bool(np.any(lps["policy"] == pes.PERIODIC))
        return Shared(
            lps=lps,
            rings=np.zeros((n, n, ring, width), np.int64),
            lines=aligned(n * n * 2 * LINE_WORDS),
            control=aligned(gvt.REPORTS + (n + 1) * LINE_WORDS),
            conf=conf,
            operations=self._memory.operations,
            first=self._memory.first_operation,
            kinds=np.array([("sum", "min", "max").index(a.kind) for a in self._model.accumulators] or [0], np.int64),
        )

    def _new_lps(self) -> np.ndarray[Any, Any]:
        table, model = self._memory.lps, self._model
        lps = np.zeros(model.n_lps, LPS)
        lps["row"] = self._rows.ctypes.data + 8 * table[:-1, layout.ROW_AT]
        lps["words"] = np.diff(table[:, layout.ROW_AT])
        lps["cls"] = table[:-1, layout.ROW_CLASS]
        lps["key"] = table[:-1, layout.ROW_KEY].view(np.uint64)
        lps["gamma"] = table[:-1, layout.ROW_GAMMA].view(np.uint64)
        lps["pe"] = self._pe_of
        for index, cls in enumerate(model.classes):
            mine = table[:-1, layout.ROW_CLASS] == index
            saving, interval = policy_of(cls, self._options.saving)
            lps["policy"][mine] = _POLICIES.get(saving, pes.COPY)
            lps["interval"][mine] = interval
            lps["speculative"][mine] = cls.speculative
        self._kps = [1] * self._n
        for p in range(self._n):
            self._kps[p] = self._group(lps, np.flatnonzero(self._pe_of == p))
        return lps

    def _group(self, lps: np.ndarray[Any, Any], mine: np.ndarray[Any, Any]) -> int:
        """Number the KPs of one PE: consecutive LPs; those that do not speculate are a KP of their own."""
        free = mine[lps["speculative"][mine] == 1]
        held = mine[lps["speculative"][mine] == 0]
        wanted = self._options.kps or min(512, max(16, len(free) // 16))
        kps = min(wanted, max(len(free), 1))
        lps["kp"][free] = np.arange(len(free)) * kps // max(len(free), 1)
        lps["kp"][held] = kps
        return kps + (len(held) > 0)

    def _lookahead(self) -> int:
        links = self._model.links
        if links is None:
            return self._model.lookahead
        crossing = self._pe_of[np.repeat(np.arange(self._model.n_lps), np.diff(links.first))] != self._pe_of[links.dst]
        return int(links.lookahead[crossing].min()) if crossing.any() else 2**62

    def _new_pes(self, image: Image) -> list[Pe]:
        count, pool, payload = self._memory.pending(image)
        owner = self._pe_of[pool["dst"][:count]]
        mine = [np.flatnonzero(owner == p) for p in range(self._here)]
        sizes = self._budget.first_shares([len(slots) for slots in mine])
        self._budget.count(sizes)
        window = self._first_window(pool[:count])
        return [self._new_pe(p, pool[mine[p]], payload[mine[p]], *sizes[p], window) for p in range(self._here)]

    def _first_window(self, pending: np.ndarray[Any, Any]) -> int:
        """8 lookaheads; without one, 64 mean gaps of the pending set."""
        window = self._options.window
        if isinstance(window, int):
            return window
        least = int(self._shared.conf[gvt.WINDOW_LEAST_TICKS])
        if window == "lookahead":
            return least
        if least > 1:
            return min(8 * least, 2**62)
        spread = int(pending["time"].max() - pending["time"].min()) if len(pending) else 0
        return max(1, 64 * spread // max(len(pending), 1))

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

    def _work(self, p: int, post: Callable[[Any], None]) -> None:
        """What a thread does: slices of PE ``p``, and what these ask for between them."""
        while self.step(p, post, self._options.slice_turns):
            pass

    def step(self, p: int, post: Callable[[Any], None], turns: int) -> bool:
        """One slice of PE ``p``, and what it asks for. False: its part of this run is over."""
        me = self._pes[p]
        status = self._run_slice(self._handler, me, self._shared, p, turns)
        logged = int(me.reg[pes.N_LOG])
        if logged and self._in_flight[p] < LOGS_MOST:
            self._in_flight[p] += 1
            post((p, *self._log_of(me)))
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
            len(self._model.accumulators), len(old.held_slots) > 1, old.block,
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
        parts = [(me.pool[mine], me.payload[mine]) for me in self._pes for mine in [_pending_of(me)]]
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
        rows = np.array([me.stats for me in self._pes])
        total = rows.sum(axis=0).tolist()
        width = self._memory.message_words
        slots = sum(len(me.pool) for me in self._pes)
        return Statistics(
            executed=total[pes.EXECUTED] + (0 if self._order is None else self._order.executed),
            rolled_back=total[pes.ROLLED_BACK],
            rollbacks_straggler=total[pes.BY_STRAGGLER],
            rollbacks_anti=total[pes.BY_ANTI],
            rollback_lengths=total[pes.LENGTHS : pes.LENGTHS + 32],
            anti_messages=total[pes.ANTIS],
            anti_dropped=total[pes.DROPPED],
            remote_sent=total[pes.REMOTE],
            lazy_hits=total[pes.LAZY_HITS],
            gvt_rounds=total[pes.ROUNDS],
            window_ticks=min(int(me.reg[pes.WINDOW]) for me in self._pes),
            window_least_ticks=int(rows[:, pes.WINDOW_LEAST].min()),
            window_greatest_ticks=int(rows[:, pes.WINDOW_GREATEST].max()),
            live_events_most=total[pes.LIVE_MOST],
            pool_size=slots,
            pool_bytes=slots * slot_bytes(width) + sum(len(me.chunks) for me in self._pes) * chunk_bytes(),
            send_queue_most=int(rows[:, pes.QUEUE_MOST].max()),
            cancelbacks=total[pes.CANCELBACKS],
            thrash_breaks=total[pes.BREAKS],
            errors_undone=total[pes.ERRORS_UNDONE],
            idle_turns=total[pes.IDLE],
            turns=total[pes.TURNS],
        )

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
        control, lines = self._shared.control, []
        reports = [control[gvt.REPORTS + LINE_WORDS * p :][:2].tolist() for p in range(len(self._pes))]
        for p, me in enumerate(self._pes):
            late = int(me.reg[pes.MY_ROUND]) != int(control[gvt.ROUND])
            if not late and reports[p] != min(reports):
                continue
            block, reg = me.block, me.reg
            if block[layout.BEAT] & 1:
                path, tick = self._model.path(int(block[layout.LP])), int(block[layout.NOW])
                lines.append(f"PE {p}: the handler of {path} runs at tick {tick}")
            elif reg[pes.BLOCKED] or reg[pes.PRESSED]:
                lines.append(f"PE {p}: its pool of {len(me.pool)} events is full (memory_max_bytes)")
            elif reg[pes.N_QUEUED]:
                full = [q for q, first in enumerate(me.out_head.tolist()) if first >= 0]
                lines.append(f"PE {p}: {int(reg[pes.N_QUEUED])} messages wait for room in the rings to PE {full}")
            elif late:
                lines.append(f"PE {p}: it has not reported to round {int(control[gvt.ROUND])} of GVT")
            else:
                undone = int(me.stats[pes.ROLLED_BACK])
                lines.append(f"PE {p}: it holds an event at tick {reports[p][0]}, and has undone {undone} so far")
        return lines

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
            _check_slots(me, p)


def _pending_of(me: Pe) -> np.ndarray[Any, Any]:
    return np.concatenate([me.slots[: me.reg[pes.N_PENDING]], me.held_slots[: me.reg[pes.N_HELD]]])


def _check_slots(me: Pe, p: int) -> None:
    pool, reg = me.pool, me.reg
    pending = _pending_of(me)
    executed, children, queued, chunks = [], [], [], []
    for first in me.oldest:
        s = int(first)
        while s >= 0:
            executed.append(s)
            c = int(me.saved[s])
            while c >= 0:
                chunks.append(c)
                c = int(me.chunk_next[c])
            s = int(pool["newer"][s])
    for first in me.out_head:
        s = int(first)
        while s >= 0:
            queued.append(s)
            s = int(pool["newer"][s])
    for s in [*executed, *pending.tolist()]:
        c = int(pool["child"][s])
        while c >= 0:
            if pool["status"][c] in (pes.SENT, pes.RETURNED, pes.EMITTED, pes.ADDED):
                children.append(c)
            c = int(pool["sibling"][c])
    free = me.free[: reg[pes.N_FREE]].tolist()
    found = [*free, *pending.tolist(), *executed, *children, *queued]
    if sorted(found) != list(range(len(pool))):
        raise InternalError(
            f"PE {p}: {len(free)} free, {len(pending)} pending, {len(executed)} executed, {len(children)} stubs, {len(queued)} queued",
            f"that is not each of {len(pool)} slots once",
            "please report this",
        )
    if sorted([*me.chunk_free[: reg[pes.N_CHUNKS]].tolist(), *chunks]) != list(range(len(me.chunks))):
        raise InternalError(f"PE {p}: chunks of saved state", "each is free or kept by one event", "please report this")
