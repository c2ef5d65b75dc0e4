"""Making a stopped run exact at GVT: everything beyond is undone, every message in transit arrives. No thread is at work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidewarp.kernel.compiled.atomics import LINE_WORDS, load
from tidewarp.kernel.compiled.fossils import collect
from tidewarp.kernel.compiled.gvt import N_PES, PERIODIC_ANY, see
from tidewarp.kernel.compiled.pe import (
    BEHIND,
    N_HELD,
    N_PENDING,
    N_QUEUED,
    N_WORK,
    PE,
    PENDING,
    SHARED,
)
from tidewarp.kernel.compiled.rings import NO_CHANNEL, NO_SLOT, flush, receive
from tidewarp.kernel.compiled.rollback import cancel_children, purge, roll_back
from tidewarp.kernel.compiled.slices import HANDLER
from tidewarp.kernel.compiled.spans import address_of, spans
from tidewarp.kernel.compiled.words import entry

__all__ = ["MOVED", "NEEDS_CHANNEL", "NEEDS_LOG", "NEEDS_SLOTS", "QUIET", "recall"]

QUIET, MOVED, NEEDS_SLOTS, NEEDS_CHANNEL, NEEDS_LOG = range(5)


@entry(types.int64(HANDLER, PE, SHARED, types.int64))
def recall(handler: Any, arrays: Any, common: Any, pe: Any) -> Any:
    """Commit what GVT has passed, undo the rest, exchange messages. Call it for all PEs in turn until all are QUIET."""
    me, shared = spans(arrays), spans(common)
    pool, reg, lps = me.pool, me.reg, shared.lps
    lines, control, n_pes = address_of(shared.lines), address_of(shared.control), shared.conf[N_PES]
    if see(reg, control) or reg[BEHIND]:
        collect(handler, me, shared, shared.conf[PERIODIC_ANY], control)
        if reg[BEHIND]:
            return NEEDS_LOG
    result = QUIET
    for kp in range(len(me.newest)):
        if me.oldest[kp] >= 0:
            me.work[reg[N_WORK]] = ~me.oldest[kp]
            reg[N_WORK] += 1
            roll_back(handler, me, lps, np.int64(0))
            result = MOVED
    for s in range(len(pool)):
        if pool[s].status == PENDING and pool[s].child >= 0:
            cancel_children(me, lps, s)
            result = MOVED
    if reg[N_WORK] > 0:
        roll_back(handler, me, lps, np.int64(0))
    for dst in range(n_pes):
        if me.out_head[dst] >= 0:
            flush(
                dst, pe, pool, me.words, me.payload, me.free, me.sent, me.out_head, me.out_tail, reg, me.stats,
                shared.rings, lines, control,
            )  # fmt: skip
            result = MOVED
    for src in range(n_pes):
        if src == pe:
            continue
        line = lines + (src * n_pes + pe) * 16 * LINE_WORDS
        if load(line) == load(line + 8 * LINE_WORDS):
            continue
        result = MOVED
        got = receive(
            src, pe, lps, pool, me.words, me.payload, me.times, me.slots, me.held_times, me.held_slots, me.free,
            me.work, me.newest, me.channel, reg, me.stats, shared.rings, lines,
        )  # fmt: skip
        if got == NO_SLOT:
            result = NEEDS_SLOTS
        elif got == NO_CHANNEL:
            result = NEEDS_CHANNEL
        roll_back(handler, me, lps, np.int64(0))
    reg[N_PENDING] = purge(pool, me.times, me.slots, reg[N_PENDING], me.free, reg)
    reg[N_HELD] = purge(pool, me.held_times, me.held_slots, reg[N_HELD], me.free, reg)
    return MOVED if result == QUIET and reg[N_QUEUED] > 0 else result
