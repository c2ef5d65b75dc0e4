"""The sequential engine of the compiled tier: one heap, one loop, nothing to undo. Compiled once, for all models.

It runs in slices. A slice ends when its events are over, when somebody wants to be heard, or when an array is too small: then
the event at hand is as if it had not been tried, and runs again in the next slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import types

from tidewarp.errors import PoolExhausted, TidewarpError
from tidewarp.kernel.compiled.dispatch import Dispatch
from tidewarp.kernel.compiled.heap import heap_pop, heap_push, heap_replace
from tidewarp.kernel.compiled.image import Ints, Memory, Slots
from tidewarp.kernel.compiled.layout import (
    BEAT,
    CLASS,
    EFFECT_HEAD,
    EFFECTS,
    EMIT,
    GAMMA,
    GENERATION,
    KEY,
    KIND,
    LP,
    MESSAGE,
    NOW,
    OUT_FULL,
    PAUSE,
    ROW_AT,
    ROW_CLASS,
    ROW_GAMMA,
    ROW_KEY,
    SEND,
    SENT,
    SEQ,
    SRC,
    STATE,
)
from tidewarp.kernel.compiled.records import BYTES, MATRIX, POOL, VECTOR, pack_event
from tidewarp.kernel.compiled.replay import error_of
from tidewarp.kernel.compiled.words import entry, inlined
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.records import Event, Image
from tidewarp.kernel.trace import Ledger

__all__ = ["CompiledSequential"]

HANDLER = types.FunctionType(types.int64(types.int64))
SHORTS = types.Array(types.int32, 1, "C")
_int = types.int64

DONE, SLICE, POOL_LOW, EFFECTS_LOW, LOG_LOW, FULL, FAILED = range(7)
"""Why a slice ended: nothing below the bound is left; its events are over; slots, effects buffer or log are too small; no more
outputs fit the ledger; the handler of the first event refuses."""
N_PENDING, N_FREE, EXECUTED, LOG_AT, N_BLOCKS, OUT_AT, N_OUT, WANT, BLOCK, BLOCK_END = range(10)
"""Registers. WANT: slots, or bytes, that the event at hand needs. BLOCK and BLOCK_END: the block of the trace that is open."""
REGISTERS = 16
"""Behind them: per class, how many events were executed."""
EVENTS_MAX = 2**18  # of a slice: some 50 ms
LOG_BYTES = 2**20
LOG_BLOCKS = 2**10
SLOTS_MIN = 2**12
EFFECTS_MIN = 2**8


@inlined
def _call(handler: Any, context: Any, block: Any, lps: Any, rows: Any, event: Any, fields: Any) -> Any:
    """Execute an event; its effects lie in the effects buffer afterwards."""
    lp = event.dst
    block[NOW], block[LP], block[KIND], block[GENERATION] = event.time, lp, event.kind, event.generation
    block[CLASS], block[KEY], block[GAMMA] = lps[lp, ROW_CLASS], lps[lp, ROW_KEY], lps[lp, ROW_GAMMA]
    block[STATE] = rows.ctypes.data + 8 * lps[lp, ROW_AT]
    block[MESSAGE] = fields
    block[SRC], block[SEQ] = event.src, np.int64(event.seq)
    block[BEAT] += 1
    error = handler(context)
    block[BEAT] += 1
    return error


@inlined
def _turn_to(reg: Any, blocks: Any, index: Any, interval: Any) -> None:
    """Begin a block of the trace: (index, where its records begin in the log, how many)."""
    row = reg[N_BLOCKS]
    blocks[row, 0], blocks[row, 1], blocks[row, 2] = index, reg[LOG_AT], 0
    reg[N_BLOCKS] = row + 1
    reg[BLOCK] = index
    reg[BLOCK_END] = (index + 1) * interval if index + 1 <= 0x7FFFFFFFFFFFFFFF // interval else 0x7FFFFFFFFFFFFFFF


@inlined
def _add(sums: Any, index: Any, n: Any) -> None:
    """Add to an accumulator: row (kind, low word, carries) with kind 0 sum, 1 min, 2 max."""
    if sums[index, 0] == 0:
        before = sums[index, 1]
        after = before + n
        sums[index, 1] = after
        if (before >= 0) == (n >= 0) and (after >= 0) != (n >= 0):
            sums[index, 2] += 1 if n >= 0 else -1
    elif sums[index, 0] == 1:
        sums[index, 1] = min(sums[index, 1], n)
    else:
        sums[index, 1] = max(sums[index, 1], n)


@entry(
    _int(HANDLER, VECTOR, MATRIX, VECTOR, VECTOR, POOL, MATRIX, VECTOR, SHORTS, SHORTS, MATRIX, VECTOR, MATRIX, VECTOR, MATRIX,
         BYTES, BYTES, MATRIX, _int, _int, _int, _int, _int)
)  # fmt: skip
def run_slice(
    handler: Any, block: Any, lps: Any, rows: Any, saved: Any, pool: Any, payload: Any, times: Any, slots: Any, free: Any,
    effects: Any, reg: Any, operations: Any, first: Any, sums: Any, log: Any, out: Any, blocks: Any, n_classes: Any,
    interval: Any, bound: Any, room: Any, turns: Any,
) -> Any:  # fmt: skip
    """Execute events below ``bound`` in key order, ``turns`` at most; ``interval`` 0: no trace; ``room``: outputs that fit."""
    context, width = np.int64(block.ctypes.data), payload.shape[1]
    n, n_free, executed = reg[N_PENDING], reg[N_FREE], 0
    status = SLICE
    while executed < turns:
        if n == 0 or times[0] >= bound:
            status = DONE
            break
        if block[PAUSE] != 0:
            break
        s = slots[0]
        event = pool[s]
        now, lp, generation = event.time, event.dst, event.generation
        row, words = lps[lp, ROW_AT], lps[lp + 1, ROW_AT] - lps[lp, ROW_AT]
        fields = np.int64(payload.ctypes.data) + 8 * s * width
        if interval > 0:
            if now >= reg[BLOCK_END]:
                if reg[N_BLOCKS] == len(blocks):
                    reg[WANT] = 0
                    status = LOG_LOW
                    break
                _turn_to(reg, blocks, now // interval, interval)
            if reg[LOG_AT] + 8 * (width + 6) > len(log):
                reg[WANT] = 8 * (width + 6)
                status = LOG_LOW
                break
        for q in range(words):
            saved[q] = rows[row + q]
        error = _call(handler, context, block, lps, rows, event, fields)
        made = block[EFFECTS]
        if error == 0 and made > 0:
            if made > n_free:
                reg[WANT], error, status = made, OUT_FULL, POOL_LOW
            elif reg[OUT_AT] + made * 8 * (width + 6) > len(out):
                reg[WANT], error, status = made * 8 * (width + 6), OUT_FULL, LOG_LOW
        elif error != 0:
            status = EFFECTS_LOW if error == OUT_FULL else FAILED
        if error != 0:
            for q in range(words):
                rows[row + q] = saved[q]
            break
        if interval > 0:
            end = pack_event(operations, first, n_classes + event.kind, event, fields, log.ctypes.data + reg[LOG_AT])
            reg[LOG_AT] = end - log.ctypes.data
            blocks[reg[N_BLOCKS] - 1, 2] += 1
        executed += 1
        reg[REGISTERS + block[CLASS]] += 1
        is_first = True
        for j in range(made):
            tag = effects[j, 2] >> 32
            if tag == SEND:
                if is_first:  # in place of the event that is done
                    c = s
                else:
                    n_free -= 1
                    c = free[n_free]
                child = pool[c]
                delay = effects[j, 1]
                child.time, child.dst, child.src = now + delay, effects[j, 0], lp
                child.generation = generation + 1 if delay == 0 else 0
                child.seq = np.uint64(rows[row + SENT])
                child.kind = effects[j, 2] & 0xFFFF
                rows[row + SENT] += 1
                for q in range(width):
                    payload[c, q] = effects[j, EFFECT_HEAD + q]
                if is_first:
                    heap_replace(times, slots, n, pool, c)
                    is_first = False
                else:
                    n = heap_push(times, slots, n, pool, c)
            elif tag == EMIT:
                emitted = free[n_free - 1]  # a slot that is free stands for what leaves
                event = pool[emitted]
                event.time, event.generation, event.dst = now, generation, lp
                event.src, event.seq, event.kind = block[SRC], np.uint64(block[SEQ]), effects[j, 2] & 0xFFFF
                form = n_classes + np.int64(event.kind)
                end = pack_event(
                    operations,
                    first,
                    form,
                    event,
                    effects[j:].ctypes.data + 8 * EFFECT_HEAD,
                    out.ctypes.data + reg[OUT_AT],
                )
                reg[OUT_AT] = end - out.ctypes.data
                reg[N_OUT] += 1
            else:
                _add(sums, effects[j, 0], effects[j, 1])
        if is_first:
            n = heap_pop(times, slots, n, pool)
            free[n_free] = s
            n_free += 1
        if reg[N_OUT] >= room:
            reg[WANT] = now
            status = FULL
            break
    reg[N_PENDING], reg[N_FREE] = n, n_free
    reg[EXECUTED] += executed
    return status


@entry((POOL, VECTOR, SHORTS, SHORTS, VECTOR))
def push_free(pool: Any, times: Any, slots: Any, free: Any, reg: Any) -> None:
    """Put the slot on top of the free ones, which was just filled, into the pending set."""
    reg[N_FREE] -= 1
    reg[N_PENDING] = heap_push(times, slots, reg[N_PENDING], pool, free[reg[N_FREE]])


class _Arrays(NamedTuple):
    """What grows with the pending set."""

    pool: Slots
    payload: Ints
    times: Ints
    slots: np.ndarray[Any, np.dtype[np.int32]]
    free: np.ndarray[Any, np.dtype[np.int32]]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in self)


class CompiledSequential:
    """Executes events one after the other in key order, in machine code.

    ``block`` is the context block: a shell may watch its BEAT and set its PAUSE from another thread.
    """

    def __init__(self, model: Model, image: Image, ledger: Ledger, options: Options, dispatch: Dispatch) -> None:
        self.gvt = 0
        self._model = model
        self._ledger = ledger
        self._dispatch = dispatch
        self._memory_max_bytes = options.memory_max_bytes
        self._memory = memory = Memory(model)
        self._rows = memory.rows(image)
        count, pool, payload = memory.pending(image)
        self._reg: Ints = np.zeros(REGISTERS + memory.n_classes, np.int64)
        self._reg[BLOCK_END] = -1
        times, slots = pool["time"].astype(np.int64), np.arange(len(pool), dtype=np.int32)  # in key order: a heap
        self._arrays = _Arrays(pool, payload, times, slots, np.zeros(len(pool), np.int32))
        self._reg[N_PENDING] = count
        if count < len(pool):  # the one slot of an empty pool
            self._reg[N_FREE] = 1
        self._grow(max(SLOTS_MIN, count + count // 2))
        self._saved: Ints = np.zeros(max(memory.row_words), np.int64)
        self._effects = memory.new_effects(EFFECTS_MIN)
        self.block = memory.new_block(self._effects)
        self._log: np.ndarray[Any, np.dtype[np.uint8]] = np.zeros(LOG_BYTES if ledger.tracing else 0, np.uint8)
        self._out: np.ndarray[Any, np.dtype[np.uint8]] = np.zeros(LOG_BYTES, np.uint8)
        self._blocks: Ints = np.zeros((LOG_BLOCKS if ledger.tracing else 1, 3), np.int64)
        self._sums = self._fresh_sums()
        self._executed_by_class: Ints = np.zeros(memory.n_classes, np.int64)
        self._failed: TidewarpError | None = None

    def advance(self, until: int, safe: int) -> None:
        """Execute, and so commit, every event with time <= until and < safe, or until no more outputs fit.

        Between slices, some 50 ms each, signals are heard.

        Raises:
            ModelError: an event broke a rule; everything before it is committed.
            PoolExhausted: the pending set does not fit ``memory_max_bytes``.
        """
        if self._failed is not None:
            raise self._failed
        bound = min(until + 1, safe)
        while (status := self._run(bound)) != DONE:
            if status == FULL:
                self.gvt = int(self._reg[WANT])
                return
            if self._reg[N_PENDING]:
                self.gvt = max(self.gvt, int(self._arrays.times[0]))  # for those who ask while it runs
            self._make_room(status)
        if not self._ledger.full:
            self.gvt = bound

    def _run(self, bound: int) -> int:
        arrays, memory, ledger = self._arrays, self._memory, self._ledger
        self.block[PAUSE] = 0
        interval = self._model.trace_interval if ledger.tracing else 0
        room = ledger.outputs_max - len(ledger.outputs)
        status: int = run_slice(
            self._dispatch, self.block, memory.lps, self._rows, self._saved, arrays.pool, arrays.payload, arrays.times,
            arrays.slots, arrays.free, self._effects, self._reg, memory.operations, memory.first_operation, self._sums,
            self._log, self._out, self._blocks, memory.n_classes, interval, bound, room, EVENTS_MAX,
        )  # fmt: skip
        self._hand_over()
        return status

    def _hand_over(self) -> None:
        """Give the ledger what the slice has committed."""
        reg, ledger = self._reg, self._ledger
        if ledger.tracing:
            ledger.commit_framed(self._traced())
        else:
            ledger.committed += int(reg[EXECUTED])
        if reg[OUT_AT]:
            ledger.emit_framed(self._out[: reg[OUT_AT]].tobytes())
        for index, (kind, low, carries) in enumerate(self._sums[: len(self._model.accumulators)].tolist()):
            ledger.add([(index, low + (carries << 64) if kind == 0 else low)])
        self._sums = self._fresh_sums()
        self._executed_by_class += reg[REGISTERS:]
        reg[REGISTERS:] = 0
        # A block of the trace may go on: the next slice opens it again.
        reg[[EXECUTED, LOG_AT, N_BLOCKS, OUT_AT, N_OUT]] = 0
        reg[BLOCK_END] = -1

    def _traced(self) -> Iterator[tuple[int, memoryview, int]]:
        count = int(self._reg[N_BLOCKS])
        log = self._log.data
        starts = [*self._blocks[:count, 1].tolist(), int(self._reg[LOG_AT])]
        for place, (index, _, events) in enumerate(self._blocks[:count].tolist()):
            if events:
                yield index, log[starts[place] : starts[place + 1]], events

    def _fresh_sums(self) -> Ints:
        accumulators = self._model.accumulators
        rows = [(("sum", "min", "max").index(a.kind), 0 if a.kind == "sum" else a.start, 0) for a in accumulators]
        return np.array(rows or [(0, 0, 0)], np.int64)

    # --- what a slice asked for -------------------------------------------------------------------

    def _make_room(self, status: int) -> None:
        want = int(self._reg[WANT])
        if status == POOL_LOW:
            self._grow(len(self._arrays.pool) + max(want, len(self._arrays.pool) // 2))
        elif status == EFFECTS_LOW:
            self._effects = self._memory.new_effects(2 * len(self._effects))
            self._memory.set_effects(self.block, self._effects)
        elif status == LOG_LOW:
            # They are empty by now, so only what a single event needs more is missing.
            if want > len(self._log) and self._ledger.tracing:
                self._log = np.zeros(2 * want, np.uint8)
            if want > len(self._out):
                self._out = np.zeros(2 * want, np.uint8)
        elif status == FAILED:
            self._fail()

    def _grow(self, capacity: int) -> None:
        old = self._arrays
        more = capacity - len(old.pool)
        if more <= 0:
            return
        pool, payload = self._memory.new_pool(capacity)
        pool[: len(old.pool)], payload[: len(old.pool)] = old.pool, old.payload
        times, slots, free = np.zeros(capacity, np.int64), np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
        times[: len(old.pool)], slots[: len(old.pool)] = old.times, old.slots
        n_free = int(self._reg[N_FREE])
        free[:more] = np.arange(capacity - 1, len(old.pool) - 1, -1)
        free[more : more + n_free] = old.free[:n_free]
        arrays = _Arrays(pool, payload, times, slots, free)
        if self._memory_max_bytes is not None and arrays.nbytes > self._memory_max_bytes:
            raise PoolExhausted(
                f"{arrays.nbytes} bytes for {capacity} pending events",
                f"the bound is {self._memory_max_bytes}",
                "raise memory_max_bytes",
            )
        self._arrays = arrays
        self._reg[N_FREE] = n_free + more

    def _fail(self) -> None:
        """Word the refusal of the event that comes first, by running it in the Python tier."""
        arrays = self._arrays
        event = self._memory.event(arrays.pool, arrays.payload, int(arrays.slots[0]))
        self.gvt = max(self.gvt, event[0])
        self._failed = error_of(self._model, self._memory, self._rows, event)
        raise self._failed

    # --- between slices ---------------------------------------------------------------------------

    def inject(self, event: Event) -> None:
        """Add an external event."""
        if self._reg[N_FREE] == 0:
            self._grow(len(self._arrays.pool) * 3 // 2 + 1)
        arrays = self._arrays
        self._memory.set_event(arrays.pool, arrays.payload, int(arrays.free[self._reg[N_FREE] - 1]), event)
        push_free(arrays.pool, arrays.times, arrays.slots, arrays.free, self._reg)

    def image(self) -> Image:
        """The state as it is now."""
        arrays = self._arrays
        return self._memory.image(
            self._rows, arrays.pool, arrays.payload, arrays.slots[: self._reg[N_PENDING]].astype(np.int64)
        )

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP."""
        return self._memory.fields(self._rows, lp)

    @property
    def executed_by_class(self) -> list[int]:
        """Events, in the order of the model's classes."""
        return self._executed_by_class.tolist()

    def statistics(self) -> Statistics:
        """Counts of the run."""
        by_class = self.executed_by_class
        return Statistics(
            executed=sum(by_class),
            executed_by_class=by_class,
            rolled_back_by_class=[0] * len(by_class),
            pool_size=len(self._arrays.pool),
            pool_bytes=self._arrays.nbytes,
        )

    def stalls(self) -> list[str]:
        """Nothing ever waits for another part of this engine."""
        return []

    def close(self) -> None:
        """Nothing to release."""
