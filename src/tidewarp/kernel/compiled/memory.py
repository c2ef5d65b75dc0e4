"""What a PE does when it has no slots left: drop what is dead, ask for larger pools, then take speculation back.

At the bound of memory nobody executes but what is final (PRESSURE), GVT is computed at once, the newest events are undone here,
and messages that were sent from beyond GVT go back to their senders (cancelback: Jefferson, Virtual Time II, 1990). A
sender undoes the event that sent one, and sends it again when that event is final or the pressure is off. A return is
decided on after a new round of GVT was seen and before the report to it, so that the report counts it: a sender
cannot be committed meanwhile. If even that frees nothing, the slice ends STUCK, and the shell divides the memory anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled.atomics import add_word
from tidewarp.kernel.compiled.gvt import N_PES, PRESSURE, ROW_BLOCKS, less
from tidewarp.kernel.compiled.heap import before, heap_push
from tidewarp.kernel.compiled.pe import (
    AT_BOUND,
    BLOCKED,
    CANCELBACKS,
    GVT_LEVEL,
    GVT_TIME,
    LIVE,
    N_CHUNKS,
    N_FREE,
    N_HELD,
    N_PENDING,
    N_WORK,
    OUT_RETURN,
    PENDING,
    PRESSED,
    WANT,
)
from tidewarp.kernel.compiled.rings import enqueue_out
from tidewarp.kernel.compiled.rollback import purge, roll_back
from tidewarp.kernel.compiled.spans import address_of
from tidewarp.kernel.compiled.words import helper

__all__ = ["cancel_back", "relieve", "settle_pressure"]

_SLICE, _POOL_LOW, _STUCK = 0, 3, 8  # of slices
RETURNS_MAX = 16  # in one round


@helper
def enough(me: Any, shared: Any) -> Any:
    """Is there room for the next event?"""
    reg = me.reg
    return reg[N_FREE] > max(reg[WANT], 0) and reg[N_CHUNKS] >= 3 * shared.conf[ROW_BLOCKS]


@helper
def take_back_newest(handler: Any, me: Any, shared: Any) -> None:
    """Undo the newest event that GVT does not protect, with its KP down to there."""
    pool, reg = me.pool, me.reg
    t, generation = reg[GVT_TIME], reg[GVT_LEVEL] >> 1
    found = -1
    for kp in range(len(me.newest)):
        s = me.newest[kp]
        if s < 0 or less(pool[s].time, pool[s].generation, t, generation + (reg[GVT_LEVEL] & 1)):
            continue
        if found < 0 or before(pool, pool[found].time, found, pool[s].time, s):
            found = s
    if found >= 0:
        me.work[reg[N_WORK]] = ~found
        reg[N_WORK] += 1
        roll_back(handler, me, shared.lps, np.int64(0))


@helper
def relieve(me: Any, shared: Any) -> Any:
    """Make room. SLICE: go on; POOL_LOW: the shell has to enlarge the pools; STUCK: nothing helps."""
    pool, reg = me.pool, me.reg
    reg[N_PENDING] = purge(pool, me.times, me.slots, reg[N_PENDING], me.free, reg)
    reg[N_HELD] = purge(pool, me.held_times, me.held_slots, reg[N_HELD], me.free, reg)
    if enough(me, shared):
        return _SLICE
    if not reg[AT_BOUND]:
        return _POOL_LOW
    if not reg[PRESSED]:
        reg[PRESSED] = 1
        add_word(address_of(shared.control) + 8 * PRESSURE, 1)
    if reg[LIVE] > 0 or find_return(me, shared) >= 0:
        return _SLICE  # GVT, or a return, will free something
    return _STUCK


@helper
def find_return(me: Any, shared: Any) -> Any:
    """Place in the pending set of the last event that came from another PE and was sent beyond GVT; -1: none."""
    pool, slots, found = me.pool, me.slots, -1
    for i in range(me.reg[N_PENDING]):
        s = slots[i]
        if (
            pool[s].status == PENDING
            and pool[s].channel >= 0
            and pool[s].child < 0
            and pool[s].send_time > me.reg[GVT_TIME]
            and pool[s].src >= 0
            and (found < 0 or before(pool, pool[slots[found]].time, slots[found], pool[s].time, s))
        ):
            found = i
    return found


@helper
def cancel_back(handler: Any, me: Any, shared: Any) -> None:
    """Take speculation back for which there is no room: here, and where messages came from.

    Only between a new round of GVT and the report to it: both make events pending that may lie below an earlier report.
    """
    pool, reg = me.pool, me.reg
    take_back_newest(handler, me, shared)
    for _ in range(RETURNS_MAX):
        if reg[N_FREE] > len(me.free) // 4:
            return
        i = find_return(me, shared)
        if i < 0:
            return
        s = me.slots[i]
        # Out of the pending set: the heap is built again without it.
        n = reg[N_PENDING]
        me.slots[i], me.times[i] = me.slots[n - 1], me.times[n - 1]
        kept = 0
        for j in range(n - 1):
            kept = heap_push(me.times, me.slots, kept, pool, me.slots[j])
        reg[N_PENDING] = kept
        enqueue_out(pool, me.out_head, me.out_tail, reg, s, pool[s].channel % shared.conf[N_PES], OUT_RETURN)
        me.stats[CANCELBACKS] += 1


@helper
def settle_pressure(me: Any, control: Any) -> None:
    """Let speculation go on when a quarter of the pool is free again."""
    reg = me.reg
    if reg[N_FREE] > len(me.free) // 4 and not reg[BLOCKED]:
        reg[PRESSED] = 0
        add_word(control + 8 * PRESSURE, -1)
