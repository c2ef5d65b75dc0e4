"""Fossil collection: what GVT has passed is committed, and its memory is free again.

Where order matters (the run is traced, or something was emitted) the lists of the KPs are merged in key order and each event
goes into the PE's log: an entry with its key, entries for its emits and adds, and the bytes of the records that the trace is
made of. The shell merges the logs of all PEs (:mod:`~tidewarp.kernel.compiled.merge`). Else only counts and sums are kept.
If the log is full, collection stops where it is and goes on when the shell has taken it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled.atomics import load
from tidewarp.kernel.compiled.gvt import EMITTED_ANY, ROW_FORMS, TRACING, less
from tidewarp.kernel.compiled.heap import heap_pop, heap_push
from tidewarp.kernel.compiled.pe import (
    ADDED,
    BEHIND,
    COMMITTED,
    EMITTED,
    FAULT,
    FOSSIL_EARLY,
    GVT_LEVEL,
    GVT_TIME,
    LIVE,
    LIVE_MOST,
    N_DATA,
    N_LOG,
    NONE,
    ORPHAN,
    OUT_POSITIVE,
    PERIODIC,
    SENT,
    SETTLE_EARLY,
    UPTO_LEVEL,
    UPTO_TIME,
    release,
)
from tidewarp.kernel.compiled.records import RECORD_HEAD, pack_event
from tidewarp.kernel.compiled.rollback import coast, drop_saved, save_row_again
from tidewarp.kernel.compiled.spans import address_of
from tidewarp.kernel.compiled.words import get, helper, put

__all__ = ["LOG_WORDS", "collect"]

LOG_WORDS = 8
"""Words of a log entry: time, generation, dst, src, seq, tag << 32 | index, a, b. EVENT, EMIT: a, b = place and length of the
record in ``data`` (with its U32 length before it). ADD: b = n."""
LOG_EVENT, LOG_EMIT, LOG_ADD = 0, 1, 2


@helper
def record_bytes(operations: Any, first: Any, form: Any) -> Any:
    """Length of the record of a message of this form, its U32 length included."""
    total = 4 + RECORD_HEAD
    for j in range(first[form], first[form + 1]):
        total += min(operations[j, 0], 8) * operations[j, 2]
    return total


@helper
def commit(me: Any, shared: Any, s: Any, ordered: Any) -> Any:
    """Commit event s and free it. False: the log has no room for it."""
    pool, reg, log = me.pool, me.reg, me.log
    operations, first, rows = shared.operations, shared.first, shared.conf[ROW_FORMS]
    event = pool[s]
    data, fields, width = address_of(me.data), address_of(me.payload), me.payload.shape[1] * 8
    if ordered:
        entries, size = 1, record_bytes(operations, first, rows + event.kind)
        c = event.child
        while c >= 0:
            if pool[c].status == EMITTED:
                entries += 1
                size += record_bytes(operations, first, rows + pool[c].kind)
            entries += pool[c].status == ADDED
            c = pool[c].sibling
        if reg[N_LOG] + entries > len(log) or reg[N_DATA] + size > len(me.data):
            return False
        length = 0
        if shared.conf[TRACING]:
            target = data + reg[N_DATA]
            length = pack_event(operations, first, rows + event.kind, event, fields + s * width, target) - target
        entry = log[reg[N_LOG]]
        entry[0], entry[1], entry[2], entry[3], entry[4] = event.time, event.generation, event.dst, event.src, event.seq
        entry[5], entry[6], entry[7] = LOG_EVENT << 32 | event.kind, reg[N_DATA], length
        reg[N_LOG] += 1
        reg[N_DATA] += length
    c = event.child
    while c >= 0:
        status, sibling = pool[c].status, pool[c].sibling
        if status == SENT:
            release(pool, me.free, reg, c)
        elif status == OUT_POSITIVE:
            pool[c].child = ORPHAN
        elif status in (ADDED, EMITTED):
            if ordered:
                entry = log[reg[N_LOG]]
                entry[0] = event.time
                if status == ADDED:
                    entry[5], entry[6], entry[7] = LOG_ADD << 32 | pool[c].kind, 0, pool[c].send_time
                else:
                    target = data + reg[N_DATA]
                    length = (
                        pack_event(operations, first, rows + pool[c].kind, pool[c], fields + c * width, target) - target
                    )
                    entry[5], entry[6], entry[7] = LOG_EMIT << 32 | pool[c].kind, reg[N_DATA], length
                    reg[N_DATA] += length
                reg[N_LOG] += 1
            else:
                add_up(me.sums, shared.kinds, pool[c].kind, pool[c].send_time)
            release(pool, me.free, reg, c)
        c = sibling
    drop_saved(me.chunk_next, me.chunk_free, reg, me.saved[s])
    me.saved[s] = NONE
    shared.lps[event.dst].since = 0  # the next one is saved: this row is gone
    release(pool, me.free, reg, s)
    reg[LIVE] -= 1
    me.stats[COMMITTED] += 1
    return True


@helper
def add_up(sums: Any, kinds: Any, accumulator: Any, n: Any) -> None:
    """Count an add where order does not matter; a sum is kept in two halves, so that it cannot overflow."""
    if kinds[accumulator] == 0:
        sums[accumulator, 0] += n & 0xFFFFFFFF
        sums[accumulator, 1] += n >> 32
    elif kinds[accumulator] == 1:
        sums[accumulator, 0] = min(sums[accumulator, 0], n)
    else:
        sums[accumulator, 0] = max(sums[accumulator, 0], n)


@helper
def unlink_oldest(me: Any, kp: Any, newer: Any) -> None:
    """The oldest event of a KP is gone."""
    me.oldest[kp] = newer
    if newer >= 0:
        me.pool[newer].older = NONE
    else:
        me.newest[kp] = NONE


@helper
def keep_rows(handler: Any, me: Any, lps: Any, kp: Any, t: Any, generation: Any) -> None:
    """Periodic saving: give the first event that stays, of each LP, a saved row, for those before it are about to go.

    It takes over the chunks of the row saved last: there may be no free ones.
    """
    pool = me.pool
    s = me.newest[kp]
    while s >= 0 and not less(pool[s].time, pool[s].generation, t, generation):
        info = lps[pool[s].dst]
        if info.policy == PERIODIC and me.saved[s] < 0:
            e = pool[s].older
            while pool[e].dst != pool[s].dst:
                e = pool[e].older
            if less(pool[e].time, pool[e].generation, t, generation):
                for q in range(info.words):
                    me.scratch[q] = get(info.row + 8 * q)
                coast(handler, me, lps, s)
                while pool[e].dst != pool[s].dst or me.saved[e] < 0:
                    e = pool[e].older
                me.saved[s], me.saved[e] = me.saved[e], NONE
                save_row_again(info.row, info.words, me.chunks, me.chunk_next, me.chunk_at, me.saved[s])
                for q in range(info.words):
                    put(info.row + 8 * q, me.scratch[q])
        s = pool[s].older


@helper
def collect(handler: Any, me: Any, shared: Any, periodic: Any, control: Any) -> None:
    """Commit every executed event below GVT, or as many as the log can take (then BEHIND stays 1)."""
    pool, reg = me.pool, me.reg
    t, generation = reg[GVT_TIME], reg[GVT_LEVEL] >> 1
    if reg[FAULT] == FOSSIL_EARLY:
        t += 2
    if reg[FAULT] == SETTLE_EARLY:
        generation += 1
    if reg[LIVE] > me.stats[LIVE_MOST]:
        me.stats[LIVE_MOST] = reg[LIVE]
    reg[BEHIND] = 0
    if periodic:
        for kp in range(len(me.oldest)):
            keep_rows(handler, me, shared.lps, kp, t, generation)
    if shared.conf[TRACING] or load(control + 8 * EMITTED_ANY) != 0:
        collect_in_order(me, shared, t, generation)
        if reg[BEHIND]:
            return
    else:
        for kp in range(len(me.oldest)):
            s = me.oldest[kp]
            if s < 0:
                continue
            while s >= 0 and less(pool[s].time, pool[s].generation, t, generation):
                newer = pool[s].newer
                commit(me, shared, s, np.int64(0))
                s = newer
            if s != me.oldest[kp]:
                unlink_oldest(me, kp, s)
                if s >= 0:
                    pool[s].older = NONE
    reg[UPTO_TIME], reg[UPTO_LEVEL] = t, generation


@helper
def collect_in_order(me: Any, shared: Any, t: Any, generation: Any) -> None:
    """Commit in key order: the oldest events of the KPs are a heap."""
    pool, reg, times, slots = me.pool, me.reg, me.merge_times, me.merge_slots
    n = 0
    for kp in range(len(me.oldest)):
        s = me.oldest[kp]
        if s >= 0 and less(pool[s].time, pool[s].generation, t, generation):
            n = heap_push(times, slots, n, pool, s)
    while n > 0:
        s = slots[0]
        at, own = pool[s].time, np.int64(pool[s].generation)
        group, newer = np.int64(shared.lps[pool[s].dst].kp), np.int64(pool[s].newer)
        if reg[N_LOG] == len(me.log) or not commit(me, shared, s, np.int64(1)):
            reg[BEHIND] = 1
            if less(reg[UPTO_TIME], reg[UPTO_LEVEL], at, own):
                reg[UPTO_TIME], reg[UPTO_LEVEL] = at, own
            return
        n = heap_pop(times, slots, n, pool)
        unlink_oldest(me, group, newer)
        if newer >= 0:
            pool[newer].older = NONE
            if less(pool[newer].time, pool[newer].generation, t, generation):
                n = heap_push(times, slots, n, pool, newer)
