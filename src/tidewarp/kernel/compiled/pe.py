"""What one processing element (PE) of the compiled optimistic engine owns: arrays, registers, counters, its pending sets.

Nothing of a PE lives on a kernel's stack: :func:`~tidewarp.kernel.compiled.slices.run_slice` can be left after any turn and
entered again, with larger arrays if need be. Only its own thread touches a PE's arrays; PEs share the rings, the table of
LPs (constant) and the control words (:mod:`~tidewarp.kernel.compiled.gvt`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from tidewarp.kernel.compiled.heap import before, heap_push
from tidewarp.kernel.compiled.layout import EVENT
from tidewarp.kernel.compiled.spans import spans
from tidewarp.kernel.compiled.words import entry, helper, inlined

__all__ = ["LPS", "NEVER", "NONE", "PE", "SHARED", "Pe", "Shared", "add_pending"]

NEVER = 2**63 - 1
NONE = -1
ORPHAN = -2  # in `child` of a message that waits to leave: its sender is committed

# --- status of a slot -------------------------------------------------------------------------------
FREE, PENDING, DONE, ERRED, CANCELLED, DOOMED = range(6)
"""ERRED: executed, but its handler broke a rule. CANCELLED: annihilated while pending. DOOMED: annihilated while executed."""
SENT, OUT_POSITIVE, OUT_ANTI, OUT_DROPPED, OUT_RETURN, RETURNED = range(8, 14)
"""Stubs of messages to other PEs: left; waiting to leave as message, anti-message, not at all, on its way back; came back."""
EMITTED, ADDED = 16, 17
"""Effects that leave when their event is committed. ADDED keeps n in ``send_time`` and the accumulator in ``kind``."""

# --- state saving --------------------------------------------------------------------------------------
COPY, DELTA, INVERSE, PERIODIC = range(4)
CHUNK = 8  # words: a row is saved in blocks of one cache line

LPS = np.dtype(
    [
        ("row", "i8"),  # address
        ("key", "u8"),  # random stream
        ("gamma", "u8"),
        ("words", "i4"),  # of its row
        ("kp", "i4"),  # in its PE
        ("pe", "i4"),
        ("cls", "i2"),
        ("policy", "i1"),
        ("speculative", "i1"),
        ("interval", "i4"),  # of PERIODIC
        ("since", "i4"),  # events since the last saved row, written by the LP's own PE
    ]
)

# --- registers -------------------------------------------------------------------------------------------
(
    N_PENDING,
    N_HELD,
    N_FREE,
    N_CHUNKS,
    N_WORK,
    N_LOG,
    N_DATA,
    N_QUEUED,
    N_ERRED,
    LIVE,
    SEND_TIME,
    SEND_LEVEL,
    MY_ROUND,
    SEEN,
    GVT_TIME,
    GVT_LEVEL,
    UPTO_TIME,
    UPTO_LEVEL,
    BEHIND,
    WINDOW,
    EXECUTED_THEN,
    ROLLED_THEN,
    EXECUTED_ROUND,
    ROLLED_ROUND,
    LOW_ROUNDS,
    BREAK_ROUNDS,
    TURN,
    BLOCKED,
    AT_BOUND,
    PRESSED,
    WANT,
    STUCK_TURNS,
    FAULT,
) = range(33)
"""SEND: least (time, level) sent since a round of GVT began; a level is generation * 2 + settled. UPTO: committed below it.
BEHIND: fossils wait for room in the log. BLOCKED: a ring could not be emptied. AT_BOUND: the pools may not grow."""
REGISTERS = 40

# --- counters: one row of a shared matrix for each PE ------------------------------------------------------
(
    EXECUTED,
    ROLLED_BACK,
    BY_STRAGGLER,
    BY_ANTI,
    ANTIS,
    DROPPED,
    REMOTE,
    LAZY_HITS,
    ROUNDS,
    WINDOW_LEAST,
    WINDOW_GREATEST,
    LIVE_MOST,
    QUEUE_MOST,
    CANCELBACKS,
    BREAKS,
    ERRORS_UNDONE,
    IDLE,
    TURNS,
    COMMITTED,
    UNKNOWN_ANTIS,
) = range(20)
LENGTHS = 24  # 32 words: rollbacks by the logarithm of their length
COUNTERS = 64
"""Behind them: per class, how many events were executed and how many of these undone."""


class Pe(NamedTuple):
    """Arrays of one PE."""

    pool: Any  # EVENT slots
    words: Any  # the same memory as (slots, words)
    payload: Any  # message fields of each slot
    saved: Any  # per slot: first chunk of what its execution overwrote
    chunks: Any  # (chunks, CHUNK) words of rows
    chunk_next: Any
    chunk_at: Any  # block of the row, or length of the list where it is free
    chunk_free: Any  # stack
    times: Any  # pending set: a heap of (time, slot)
    slots: Any
    held_times: Any  # pending events of LPs that do not speculate
    held_slots: Any
    free: Any  # stack of free slots
    work: Any  # slots that cause a rollback: stragglers, executed events that were annihilated
    newest: Any  # per KP: executed events, a list in key order
    oldest: Any
    channel: Any  # [source PE, message number & mask] -> slot
    sent: Any  # per PE: messages sent so far
    out_head: Any  # per PE: send queue
    out_tail: Any
    out: Any  # effects buffer
    block: Any  # context block
    scratch: Any  # a row
    merge_times: Any  # heap of KPs while fossils are collected in key order
    merge_slots: Any
    log: Any  # committed: (entries, LOG_WORDS)
    data: Any  # committed: bytes of the records
    sums: Any  # per accumulator: low and high part of a sum, or the best value
    reg: Any
    stats: Any


class Shared(NamedTuple):
    """Arrays that all PEs read."""

    lps: Any
    rings: Any  # [src, dst, place] -> words of a message
    lines: Any  # heads and tails of the rings
    control: Any
    conf: Any  # constants of a run
    operations: Any  # forms of rows and messages, see records.operations_of
    first: Any
    kinds: Any  # of accumulators: 0 sum, 1 min, 2 max


_i4, _i8 = types.Array(types.int32, 1, "C"), types.Array(types.int64, 1, "C")
_i4x2, _i8x2, _i8x4 = (
    types.Array(types.int32, 2, "C"),
    types.Array(types.int64, 2, "C"),
    types.Array(types.int64, 4, "C"),
)
_pool = types.Array(from_dtype(EVENT), 1, "C")
_lps = types.Array(from_dtype(LPS), 1, "C")
_u1 = types.Array(types.uint8, 1, "C")

PE = types.NamedTuple(
    (
        _pool,
        _i8x2,
        _i8x2,
        _i4,
        _i8x2,
        _i4,
        _i4,
        _i4,
        _i8,
        _i4,
        _i8,
        _i4,
        _i4,
        _i4,
        _i4,
        _i4,
        _i4x2,
        _i8,
        _i4,
        _i4,
        _i8x2,
        _i8,
        _i8,
        _i8,
        _i4,
        _i8x2,
        _u1,
        _i8x2,
        _i8,
        _i8,
    ),
    Pe,
)
SHARED = types.NamedTuple((_lps, _i8x4, _i8, _i8, _i8, _i8x2, _i8, _i8), Shared)


@inlined
def release(pool: Any, free: Any, reg: Any, s: Any) -> None:
    """Give a slot back."""
    pool[s].status = FREE
    free[reg[N_FREE]] = s
    reg[N_FREE] += 1


@helper
def push_pending(
    lps: Any,
    pool: Any,
    times: Any,
    slots: Any,
    held_times: Any,
    held_slots: Any,
    newest: Any,
    work: Any,
    reg: Any,
    s: Any,
) -> None:
    """Put event s into its pending set; if its KP has gone past it, it becomes the cause of a rollback."""
    pool[s].status = PENDING
    dst = pool[s].dst
    if lps[dst].speculative:
        reg[N_PENDING] = heap_push(times, slots, reg[N_PENDING], pool, s)
    else:
        reg[N_HELD] = heap_push(held_times, held_slots, reg[N_HELD], pool, s)
    top = newest[lps[dst].kp]
    if top >= 0 and before(pool, pool[s].time, s, pool[top].time, top):
        if reg[FAULT] == TIME_ONLY and pool[s].time == pool[top].time:
            return
        work[reg[N_WORK]] = s
        reg[N_WORK] += 1


# --- bugs that tests plant in the register FAULT (tidewarp.testing.planted); 0: none ----------------------------
(
    LOSE_ANTI,
    TIME_ONLY,
    KEEP_DRAWS,
    KEEP_COUNT,
    FOSSIL_EARLY,
    SKIP_SEND_MIN,
    READ_ROUND_LATE,
    INCLUSIVE_WINDOW,
    REUSE_NUMBER,
    SKIP_QUEUE_MIN,
    LOSE_CASCADE,
    KEEP_ROW,
    SETTLE_EARLY,
    UNDO_ONE,
    LAZY_KEEPS_ALL,
    LAZY_FORGETS,
) = range(1, 17)


@entry(types.void(PE, SHARED, types.int64))
def add_pending(arrays: Any, common: Any, s: Any) -> None:
    """Put event s, which the shell wrote into a slot, into the pending set."""
    me, shared = spans(arrays), spans(common)
    push_pending(shared.lps, me.pool, me.times, me.slots, me.held_times, me.held_slots, me.newest, me.work, me.reg, s)
