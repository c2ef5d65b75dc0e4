"""Saving what an execution overwrites, and undoing it: rollback of groups of LPs (KPs) with a work list.

A straggler arrives before the newest executed event of its KP; an anti-message dooms an executed event. Both put a slot on the
work list, and :func:`roll_back` undoes newest first whatever does not precede it (Jefferson 1985; KPs as in ROSS, Carothers et
al. 2002). Undoing an event cancels its children, which only adds to the work list: no recursion, however long the cascade.

State is saved in chunks of 8 words, linked from the event's slot: *copy* keeps all blocks of the row, *delta* the blocks that
the handler has changed, *inverse* three words (draws, sent, note) for the model's reverse handler, *periodic* all blocks of every
K-th event of an LP and nothing of the others, whose rows are found again by executing forward from the one before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled.heap import heap_push
from tidewarp.kernel.compiled.layout import (
    BEAT,
    CLASS,
    DRAWS,
    EFFECTS,
    GAMMA,
    GENERATION,
    KEY,
    KIND,
    LP,
    MESSAGE,
    NOTE,
    NOW,
    REVERSE,
    SEQ,
    SRC,
    STATE,
)
from tidewarp.kernel.compiled.layout import SENT as SENT_COUNT
from tidewarp.kernel.compiled.pe import (
    ADDED,
    BY_ANTI,
    BY_STRAGGLER,
    CANCELLED,
    CHUNK,
    COUNTERS,
    DOOMED,
    EMITTED,
    ERRED,
    ERRORS_UNDONE,
    FAULT,
    INVERSE,
    KEEP_COUNT,
    KEEP_DRAWS,
    KEEP_ROW,
    LAZY_FORGETS,
    LENGTHS,
    LIVE,
    LOSE_CASCADE,
    N_CHUNKS,
    N_ERRED,
    N_HELD,
    N_PENDING,
    N_WORK,
    NONE,
    OUT_ANTI,
    OUT_DROPPED,
    OUT_POSITIVE,
    PENDING,
    PERIODIC,
    RETURNED,
    ROLLED_BACK,
    SENT,
    UNDO_ONE,
    release,
)
from tidewarp.kernel.compiled.rings import cancel_here, enqueue_out
from tidewarp.kernel.compiled.spans import address_of
from tidewarp.kernel.compiled.words import get, helper, inlined, put

__all__ = ["purge", "roll_back"]


@inlined
def address(block: Any, info: Any, event: Any, message: Any) -> None:
    """Write into the context block which event is to be executed."""
    block[NOW], block[LP], block[CLASS] = event.time, event.dst, info.cls
    block[KIND], block[GENERATION] = event.kind, event.generation
    block[STATE], block[MESSAGE] = info.row, message
    block[KEY], block[GAMMA] = info.key, info.gamma
    block[SRC], block[SEQ], block[NOTE] = event.src, np.int64(event.seq), 0


@inlined
def call(handler: Any, context: Any, block: Any) -> Any:
    """Call the handler; the watchdog follows BEAT, which is odd meanwhile."""
    block[BEAT] += 1
    error = handler(context)
    block[BEAT] += 1
    return error


# --- saving --------------------------------------------------------------------------------------------------


@inlined
def save_block(
    row: Any, n: Any, at: Any, chunks: Any, chunk_next: Any, chunk_at: Any, chunk_free: Any, reg: Any, first: Any
) -> Any:
    """Keep block ``at`` (n words) of a row; returns the chunk, which now leads the list that began at ``first``."""
    reg[N_CHUNKS] -= 1
    c = chunk_free[reg[N_CHUNKS]]
    for q in range(n):
        chunks[c, q] = get(row + 8 * q)
    chunk_next[c], chunk_at[c] = first, at
    return c


@helper
def save_row(row: Any, words: Any, chunks: Any, chunk_next: Any, chunk_at: Any, chunk_free: Any, reg: Any) -> Any:
    """Keep a whole row."""
    first = NONE
    for at in range((words + CHUNK - 1) // CHUNK):
        n = min(words - at * CHUNK, CHUNK)
        first = save_block(row + at * CHUNK * 8, n, at, chunks, chunk_next, chunk_at, chunk_free, reg, first)
    return first


@helper
def save_row_again(row: Any, words: Any, chunks: Any, chunk_next: Any, chunk_at: Any, first: Any) -> None:
    """Keep a whole row in the chunks in which it was kept before."""
    c = first
    while c >= 0:
        base = chunk_at[c] * CHUNK
        for q in range(min(words - base, CHUNK)):
            chunks[c, q] = get(row + 8 * (base + q))
        c = chunk_next[c]


@helper
def save_changes(
    row: Any, words: Any, scratch: Any, chunks: Any, chunk_next: Any, chunk_at: Any, chunk_free: Any, reg: Any
) -> Any:
    """Keep the blocks in which a row differs from what it was (in ``scratch``)."""
    first = NONE
    old = address_of(scratch)
    for at in range((words + CHUNK - 1) // CHUNK):
        n = min(words - at * CHUNK, CHUNK)
        base = at * CHUNK * 8
        changed = 0
        for q in range(n):
            changed |= get(row + base + 8 * q) ^ scratch[at * CHUNK + q]
        if changed != 0:
            first = save_block(old + base, n, at, chunks, chunk_next, chunk_at, chunk_free, reg, first)
    return first


@inlined
def drop_saved(chunk_next: Any, chunk_free: Any, reg: Any, first: Any) -> None:
    """Give the chunks of a list back."""
    c = first
    while c >= 0:
        chunk_free[reg[N_CHUNKS]] = c
        reg[N_CHUNKS] += 1
        c = chunk_next[c]


@helper
def restore_row(row: Any, words: Any, chunks: Any, chunk_next: Any, chunk_at: Any, first: Any) -> None:
    """Put the kept blocks back."""
    c = first
    while c >= 0:
        base = chunk_at[c] * CHUNK
        for q in range(min(words - base, CHUNK)):
            put(row + 8 * (base + q), chunks[c, q])
        c = chunk_next[c]


@helper
def coast(handler: Any, me: Any, lps: Any, s: Any) -> None:
    """Bring the row of event s, of which nothing was kept, to what it was: from the row kept last, execute what lies between.

    What the handlers send is not taken: it was sent when they ran first.
    """
    pool, block = me.pool, me.block
    lp = pool[s].dst
    info = lps[lp]
    e = pool[s].older
    while pool[e].dst != lp or me.saved[e] < 0:
        e = pool[e].older
    restore_row(info.row, info.words, me.chunks, me.chunk_next, me.chunk_at, me.saved[e])
    while e != s:
        if pool[e].dst == lp and pool[e].status != ERRED:
            address(block, info, pool[e], address_of(me.payload) + e * me.payload.shape[1] * 8)
            call(handler, address_of(block), block)
            sent = info.row + 8 * SENT_COUNT
            for j in range(block[EFFECTS]):
                if me.out[j, 2] >> 32 == 0:
                    put(sent, get(sent) + 1)
        e = pool[e].newer


@helper
def restore(handler: Any, me: Any, lps: Any, s: Any) -> None:
    """Put the row of event s, the newest of its KP, back to what it was before s was executed."""
    pool, block, reg = me.pool, me.block, me.reg
    info = lps[pool[s].dst]
    first = me.saved[s]
    draws, count = get(info.row + 8 * DRAWS), get(info.row + 8 * SENT_COUNT)
    if info.policy == PERIODIC:
        if first < 0:
            if pool[s].status != ERRED:  # of a failed one the row was put back at once
                coast(handler, me, lps, s)
            lps[pool[s].dst].since -= 1
        else:
            restore_row(info.row, info.words, me.chunks, me.chunk_next, me.chunk_at, first)
            lps[pool[s].dst].since = info.interval
    elif info.policy == INVERSE:
        if pool[s].status != ERRED:
            address(block, info, pool[s], address_of(me.payload) + s * me.payload.shape[1] * 8)
            block[KIND] |= REVERSE
            block[NOTE] = me.chunks[first, 2]
            call(handler, address_of(block), block)
        put(info.row + 8 * DRAWS, me.chunks[first, 0])
        put(info.row + 8 * SENT_COUNT, me.chunks[first, 1])
    else:
        restore_row(info.row, info.words, me.chunks, me.chunk_next, me.chunk_at, first)
    drop_saved(me.chunk_next, me.chunk_free, reg, first)
    me.saved[s] = NONE
    if reg[FAULT] == KEEP_DRAWS:
        put(info.row + 8 * DRAWS, draws)
    if reg[FAULT] == KEEP_COUNT:
        put(info.row + 8 * SENT_COUNT, count)


# --- undoing -------------------------------------------------------------------------------------------------


@helper
def cancel_child(me: Any, lps: Any, c: Any) -> None:
    """Take one effect of an undone event back."""
    pool, reg = me.pool, me.reg
    status = pool[c].status
    if status == SENT:
        enqueue_out(pool, me.out_head, me.out_tail, reg, c, lps[pool[c].dst].pe, OUT_ANTI)
    elif status == OUT_POSITIVE:
        pool[c].status = OUT_DROPPED
    elif status in (RETURNED, ADDED, EMITTED):
        release(pool, me.free, reg, c)
    elif reg[FAULT] != LOSE_CASCADE or status == PENDING:
        cancel_here(pool, me.work, reg, me.stats, c)


@helper
def cancel_children(me: Any, lps: Any, s: Any) -> None:
    """Take all effects of event s back."""
    c = me.pool[s].child
    me.pool[s].child = NONE
    while c >= 0:
        sibling = me.pool[c].sibling
        cancel_child(me, lps, c)
        c = sibling


@helper
def keep_children(me: Any, lps: Any, s: Any) -> None:
    """Lazy cancellation: messages stay, for the next execution may send the same; other effects go."""
    pool = me.pool
    c, last = pool[s].child, NONE
    pool[s].child = NONE
    while c >= 0:
        sibling = pool[c].sibling
        if pool[c].status in (RETURNED, ADDED, EMITTED):
            cancel_child(me, lps, c)
        else:
            pool[c].sibling = NONE
            if last < 0:
                pool[s].child = c
            else:
                pool[last].sibling = c
            last = c
        c = sibling


@helper
def undo(handler: Any, me: Any, lps: Any, s: Any, kp: Any, lazy: Any) -> None:
    """Undo event s, the newest of its KP."""
    pool, reg = me.pool, me.reg
    event = pool[s]
    if reg[FAULT] == KEEP_ROW and event.seq % 4 == 1:
        drop_saved(me.chunk_next, me.chunk_free, reg, me.saved[s])
        me.saved[s] = NONE
    else:
        restore(handler, me, lps, s)
    me.stats[COUNTERS + 2 * lps[event.dst].cls + 1] += 1
    me.newest[kp] = event.older
    if event.older >= 0:
        pool[event.older].newer = NONE
    else:
        me.oldest[kp] = NONE
    if event.status == DOOMED:
        cancel_children(me, lps, s)
        release(pool, me.free, reg, s)
        return
    if lazy:
        keep_children(me, lps, s)
    else:
        cancel_children(me, lps, s)
    if event.status == ERRED:
        reg[N_ERRED] -= 1
        me.stats[ERRORS_UNDONE] += 1
    event.status = PENDING
    if lps[event.dst].speculative:
        reg[N_PENDING] = heap_push(me.times, me.slots, reg[N_PENDING], pool, s)
    else:
        reg[N_HELD] = heap_push(me.held_times, me.held_slots, reg[N_HELD], pool, s)


@helper
def count_rollback(me: Any, undone: Any, anti: Any) -> None:
    """Write a rollback into the counters."""
    stats = me.stats
    if undone == 0:
        return
    stats[ROLLED_BACK] += undone
    stats[BY_ANTI if anti else BY_STRAGGLER] += 1
    me.reg[LIVE] -= undone
    power = 0
    while undone > 1:
        undone >>= 1
        power += 1
    stats[LENGTHS + power] += 1


@helper
def roll_back(handler: Any, me: Any, lps: Any, lazy: Any) -> None:
    """Empty the work list: undo, newest first, whatever does not precede a cause. Cascades only add causes."""
    pool, reg, work, newest = me.pool, me.reg, me.work, me.newest
    while reg[N_WORK] > 0:
        reg[N_WORK] -= 1
        cause = work[reg[N_WORK]]
        returned = cause < 0
        if returned:
            cause = ~cause
        status = pool[cause].status
        if status == CANCELLED:
            if reg[FAULT] == LAZY_FORGETS:
                pool[cause].child = NONE
            cancel_children(me, lps, cause)
            continue
        if status != PENDING and status != DOOMED and not returned:
            continue
        kp = lps[pool[cause].dst].kp
        t, generation, dst, src, seq = (
            pool[cause].time,
            pool[cause].generation,
            pool[cause].dst,
            pool[cause].src,
            pool[cause].seq,
        )
        undone = 0
        while newest[kp] >= 0:
            s = newest[kp]
            event = pool[s]
            if s != cause:
                if event.time != t:
                    earlier = event.time < t
                elif event.generation != generation:
                    earlier = event.generation < generation
                elif event.dst != dst:
                    earlier = event.dst < dst
                elif event.src != src:
                    earlier = event.src < src
                else:
                    earlier = event.seq < seq
                if earlier:
                    break
            if reg[FAULT] == UNDO_ONE and undone == 1:
                break
            undo(handler, me, lps, s, kp, lazy)
            undone += 1
        count_rollback(me, undone, status == DOOMED)


@helper
def purge(pool: Any, times: Any, slots: Any, n: Any, free: Any, reg: Any) -> Any:
    """Drop cancelled events from a pending set now, not when they come up; returns how many are left."""
    kept = 0
    for i in range(n):
        s = slots[i]
        if pool[s].status == CANCELLED:
            release(pool, free, reg, s)
        else:
            kept = heap_push(times, slots, kept, pool, s)
    return kept
