"""The optimistic kernel: a slice of one PE's work. It knows no model; the handlers are one function pointer.

A turn: read the round of GVT, empty the rings, roll back, send what waits, report, collect fossils, execute a batch. The order is
the algorithm: the round is read before the rings (see gvt), and a report is made with an empty work list.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidewarp.kernel.compiled.atomics import load, store, yield_core
from tidewarp.kernel.compiled.fossils import collect
from tidewarp.kernel.compiled.gvt import (
    ADAPTIVE,
    BATCH,
    EMITTED_ANY,
    GVT_INTERVAL,
    LAZY,
    LEADER,
    LOOKAHEAD_TICKS,
    N_PES,
    PERIODIC_ANY,
    PRESSURE,
    ROUND,
    ROW_BLOCKS,
    SAFE,
    STOP,
    UNTIL,
    WINDOW_LEAST_TICKS,
    WINDOW_MOST_TICKS,
    error_is_final,
    lead,
    report,
    see,
)
from tidewarp.kernel.compiled.heap import heap_pop, heap_push
from tidewarp.kernel.compiled.layout import DRAWS, EFFECT_HEAD, EFFECTS, EMIT, NOTE, OUT_FULL, SEND
from tidewarp.kernel.compiled.layout import SENT as SENT_COUNT
from tidewarp.kernel.compiled.memory import cancel_back, relieve, settle_pressure
from tidewarp.kernel.compiled.pe import (
    ADDED,
    BEHIND,
    BLOCKED,
    BREAK_ROUNDS,
    BREAKS,
    CANCELLED,
    COPY,
    COUNTERS,
    DELTA,
    DONE,
    EMITTED,
    ERRED,
    EXECUTED,
    EXECUTED_ROUND,
    EXECUTED_THEN,
    FAULT,
    GVT_LEVEL,
    GVT_TIME,
    IDLE,
    INCLUSIVE_WINDOW,
    INVERSE,
    LAZY_HITS,
    LAZY_KEEPS_ALL,
    LIVE,
    LOW_ROUNDS,
    MY_ROUND,
    N_CHUNKS,
    N_ERRED,
    N_FREE,
    N_HELD,
    N_PENDING,
    N_WORK,
    NONE,
    OUT_POSITIVE,
    PE,
    PRESSED,
    READ_ROUND_LATE,
    RETURNED,
    ROLLED_BACK,
    ROLLED_ROUND,
    ROLLED_THEN,
    SHARED,
    STUCK_TURNS,
    TURN,
    TURNS,
    WANT,
    WINDOW,
    WINDOW_GREATEST,
    WINDOW_LEAST,
    push_pending,
    release,
)
from tidewarp.kernel.compiled.rings import NO_CHANNEL, enqueue_out, flush, receive
from tidewarp.kernel.compiled.rollback import (
    address,
    call,
    cancel_child,
    drop_saved,
    restore_row,
    roll_back,
    save_changes,
    save_row,
)
from tidewarp.kernel.compiled.spans import address_of, spans
from tidewarp.kernel.compiled.words import entry, get, helper, put

__all__ = ["HANDLER", "run_slice"]

HANDLER = types.FunctionType(types.int64(types.int64))
SLICE, FINISHED, STOPPED, POOL_LOW, CHANNEL_LOW, OUT_LOW, LOG_FULL, ERROR_FINAL, STUCK = range(9)
"""Why a slice ended: its turns are over; GVT has passed SAFE; it was told to stop; the shell has to enlarge the pools, the channel
table, the effects buffer; has to take the log; an error is final; no memory, and nothing that could free any."""
STUCK_TURNS_MAX = 64


@helper
def adapt(reg: Any, stats: Any, conf: Any) -> None:
    """Shrink the window fast above 2.5 % rolled back, grow it slowly below."""
    executed, rolled = stats[EXECUTED] - reg[EXECUTED_THEN], stats[ROLLED_BACK] - reg[ROLLED_THEN]
    if executed >= 256:
        if rolled * 40 > executed:
            reg[WINDOW] = max(conf[WINDOW_LEAST_TICKS], reg[WINDOW] * 7 // 10)
        else:
            reg[WINDOW] = min(conf[WINDOW_MOST_TICKS], reg[WINDOW] + reg[WINDOW] // 16 + 1)
        reg[EXECUTED_THEN], reg[ROLLED_THEN] = stats[EXECUTED], stats[ROLLED_BACK]
        stats[WINDOW_LEAST] = min(stats[WINDOW_LEAST], reg[WINDOW])
        stats[WINDOW_GREATEST] = max(stats[WINDOW_GREATEST], reg[WINDOW])


@helper
def break_thrash(reg: Any, stats: Any) -> None:
    """Let the window be the lookahead for 16 rounds if four in a row have undone more than four fifths of what they executed.

    Without it PEs may chase each other's messages through a tick without end, and fill all memory.
    """
    if reg[BREAK_ROUNDS] > 0:
        reg[BREAK_ROUNDS] -= 1
    executed, rolled = stats[EXECUTED] - reg[EXECUTED_ROUND], stats[ROLLED_BACK] - reg[ROLLED_ROUND]
    if executed >= 64:
        reg[LOW_ROUNDS] = reg[LOW_ROUNDS] + 1 if rolled * 5 > executed * 4 else 0
        reg[EXECUTED_ROUND], reg[ROLLED_ROUND] = stats[EXECUTED], stats[ROLLED_BACK]
        if reg[LOW_ROUNDS] >= 4 and reg[BREAK_ROUNDS] == 0:
            reg[LOW_ROUNDS], reg[BREAK_ROUNDS] = 0, 16
            stats[BREAKS] += 1


@helper
def same_message(pool: Any, payload: Any, c: Any, at: Any, dst: Any, kind: Any, seq: Any, row: Any) -> Any:
    """Is the message kept in slot c what the handler has just sent?"""
    if pool[c].time != at or pool[c].dst != dst or pool[c].kind != kind or pool[c].seq != seq:
        return False
    for q in range(payload.shape[1]):  # noqa: SIM110  generators do not compile
        if payload[c, q] != row[EFFECT_HEAD + q]:
            return False
    return True


@entry(types.int64(HANDLER, PE, SHARED, types.int64, types.int64))
def run_slice(handler: Any, arrays: Any, common: Any, pe: Any, turns: Any) -> Any:
    """Work for ``turns`` turns; returns why it stopped."""
    me, shared = spans(arrays), spans(common)
    pool, words, payload, saved = me.pool, me.words, me.payload, me.saved
    chunks, chunk_next, chunk_at, chunk_free = me.chunks, me.chunk_next, me.chunk_at, me.chunk_free
    times, slots, held_times, held_slots = me.times, me.slots, me.held_times, me.held_slots
    free, work, newest, oldest, channel = me.free, me.work, me.newest, me.oldest, me.channel
    sent, out_head, out_tail, out, block, scratch = me.sent, me.out_head, me.out_tail, me.out, me.block, me.scratch
    reg, stats, lps, rings, conf = me.reg, me.stats, shared.lps, shared.rings, shared.conf
    lines, control, context = (
        address_of(shared.lines),
        address_of(shared.control),
        address_of(block),
    )
    n_pes, lazy, row_blocks, safe, until = conf[N_PES], conf[LAZY], conf[ROW_BLOCKS], conf[SAFE], conf[UNTIL]
    width, batch = payload.shape[1], conf[BATCH]
    out_address, out_stride = address_of(out), out.shape[1] * 8
    for _ in range(turns):
        reg[TURN] += 1
        if load(control + 8 * STOP) != 0:
            return STOPPED
        status = SLICE
        reg[BLOCKED] = 0
        round_seen = load(control + 8 * ROUND)  # before the rings: what these miss is counted by its sender
        for src in range(n_pes):
            if reg[FAULT] == READ_ROUND_LATE and round_seen != reg[MY_ROUND]:
                continue
            if src != pe and receive(
                src, pe, lps, pool, words, payload, times, slots, held_times, held_slots, free, work, newest, channel,
                reg, stats, rings, lines,
            ) == NO_CHANNEL:  # fmt: skip
                status = CHANNEL_LOW
        if reg[N_WORK] > 0:
            roll_back(handler, me, lps, lazy)
        for dst in range(n_pes):
            if out_head[dst] >= 0:
                flush(dst, pe, pool, words, payload, free, sent, out_head, out_tail, reg, stats, rings, lines, control)
        if status == CHANNEL_LOW:
            return status
        if round_seen != reg[MY_ROUND]:
            if reg[PRESSED]:
                if see(reg, control):  # the GVT of the round before: what it protects must stay
                    reg[BEHIND] = 1
                cancel_back(handler, me, shared)
            report(me, shared, pe, round_seen, control)
        if pe == conf[LEADER] and (reg[TURN] % conf[GVT_INTERVAL] == 0 or load(control + 8 * PRESSURE) > 0):
            lead(me, conf, control)
        if see(reg, control):
            reg[BEHIND] = 1
            break_thrash(reg, stats)
            if conf[ADAPTIVE]:
                adapt(reg, stats, conf)
        if reg[BEHIND]:
            collect(handler, me, shared, conf[PERIODIC_ANY], control)
        if reg[N_ERRED] > 0 and not reg[BEHIND] and error_is_final(me):
            return ERROR_FINAL  # looked at each turn: an event that was final before it ran moves no GVT
        gvt, level = reg[GVT_TIME], reg[GVT_LEVEL]
        if reg[BEHIND]:
            yield_core()
            return LOG_FULL
        if gvt >= safe:
            return FINISHED
        if reg[PRESSED]:
            settle_pressure(me, control)

        window = min(conf[LOOKAHEAD_TICKS], reg[WINDOW]) if reg[BREAK_ROUNDS] > 0 else reg[WINDOW]
        limit = until + 1 if window > until - gvt else gvt + window
        if reg[FAULT] == INCLUSIVE_WINDOW and limit <= until:
            limit += 1
        if reg[N_ERRED] > 0 or load(control + 8 * PRESSURE) > 0:
            limit = gvt
        final = level >> 1 if level & 1 else -1  # events at (gvt, generation <= final) are final
        done = 0
        while done < batch:
            if reg[N_HELD] > 0 and (
                pool[held_slots[0]].status == CANCELLED
                or (held_times[0] == gvt and pool[held_slots[0]].generation <= final)
            ):
                s, now, held = held_slots[0], held_times[0], True
            elif reg[N_PENDING] > 0:
                s, now, held = slots[0], times[0], False
            else:
                break
            event = pool[s]
            if event.status != CANCELLED:
                if now >= limit and not (now == gvt and event.generation <= final):
                    break
                if reg[N_FREE] <= 0 or reg[N_CHUNKS] < 3 * row_blocks:
                    status = POOL_LOW
                    break
            if held:
                reg[N_HELD] = heap_pop(held_times, held_slots, reg[N_HELD], pool)
            else:
                reg[N_PENDING] = heap_pop(times, slots, reg[N_PENDING], pool)
            if event.status == CANCELLED:
                release(pool, free, reg, s)
                continue

            lp = event.dst
            info = lps[lp]
            row, policy = info.row, info.policy
            address(block, info, event, address_of(payload) + s * width * 8)
            if policy == COPY:
                first = save_row(row, info.words, chunks, chunk_next, chunk_at, chunk_free, reg)
            else:
                first = NONE
                for q in range(info.words):
                    scratch[q] = get(row + 8 * q)
            error = call(handler, context, block)
            effects = block[EFFECTS]
            if error != 0 or effects > reg[N_FREE]:
                # What the handler did is taken back at once.
                if policy == COPY:
                    restore_row(row, info.words, chunks, chunk_next, chunk_at, first)
                else:
                    for q in range(info.words):
                        put(row + 8 * q, scratch[q])
                if error == OUT_FULL or error == 0:
                    drop_saved(chunk_next, chunk_free, reg, first)
                    if held:
                        reg[N_HELD] = heap_push(held_times, held_slots, reg[N_HELD], pool, s)
                    else:
                        reg[N_PENDING] = heap_push(times, slots, reg[N_PENDING], pool, s)
                    if error == OUT_FULL:
                        return OUT_LOW
                    reg[WANT] = effects
                    status = POOL_LOW
                    break
                effects = 0
            if policy != COPY:
                if policy == DELTA:
                    first = save_changes(row, info.words, scratch, chunks, chunk_next, chunk_at, chunk_free, reg)
                elif policy == INVERSE:
                    reg[N_CHUNKS] -= 1
                    first = chunk_free[reg[N_CHUNKS]]
                    chunk_next[first], chunk_at[first] = NONE, 0
                    chunks[first, 0], chunks[first, 1], chunks[first, 2] = (
                        scratch[DRAWS],
                        scratch[SENT_COUNT],
                        block[NOTE],
                    )
                elif info.since == 0 or info.since >= info.interval:
                    first = save_row(address_of(scratch), info.words, chunks, chunk_next, chunk_at, chunk_free, reg)
                    lps[lp].since = 1
                else:
                    lps[lp].since += 1
            saved[s] = first
            kept = event.child  # by lazy cancellation: what it sent last time
            kp, top = info.kp, newest[info.kp]
            event.status, event.child, event.older, event.newer = DONE, NONE, top, NONE
            if error != 0:
                event.status = ERRED
                reg[N_ERRED] += 1
            if top >= 0:
                pool[top].newer = s
            else:
                oldest[kp] = s
            newest[kp] = s
            reg[LIVE] += 1
            stats[EXECUTED] += 1
            stats[COUNTERS + 2 * info.cls] += 1
            done += 1
            last = NONE
            for j in range(effects):
                effect = out_address + j * out_stride
                tag = get(effect + 16)
                kind = tag & 0xFFFFFFFF
                tag >>= 32
                c = NONE
                if tag == SEND:
                    dst, delay = get(effect), get(effect + 8)
                    at, count = now + delay, get(row + 8 * SENT_COUNT)
                    put(row + 8 * SENT_COUNT, count + 1)
                    while kept >= 0:  # the next one kept that has the number of this one, or none
                        after = pool[kept].sibling
                        if (
                            pool[kept].seq == count
                            and pool[kept].status != RETURNED
                            and (
                                same_message(pool, payload, kept, at, dst, kind, count, out[j])
                                or reg[FAULT] == LAZY_KEEPS_ALL
                            )
                        ):
                            c = kept
                            stats[LAZY_HITS] += 1
                        elif pool[kept].seq > count:
                            break
                        else:
                            cancel_child(me, lps, kept)
                        kept = after
                        if c >= 0:
                            break
                    if c < 0:
                        reg[N_FREE] -= 1
                        c = free[reg[N_FREE]]
                        child = pool[c]
                        child.time, child.send_time, child.seq, child.channel = at, now, count, -1
                        child.dst, child.src, child.kind, child.child = dst, lp, kind, NONE
                        child.generation = event.generation + 1 if delay == 0 else 0
                        for q in range(width):
                            payload[c, q] = get(effect + 8 * (EFFECT_HEAD + q))
                        target = np.int64(lps[dst].pe)
                        if target == pe:
                            push_pending(lps, pool, times, slots, held_times, held_slots, newest, work, reg, c)
                        else:
                            enqueue_out(pool, out_head, out_tail, reg, c, target, OUT_POSITIVE)
                            flush(
                                target, pe, pool, words, payload, free, sent, out_head, out_tail, reg, stats, rings,
                                lines, control,
                            )  # fmt: skip
                else:
                    reg[N_FREE] -= 1
                    c = free[reg[N_FREE]]
                    child = pool[c]
                    child.time, child.generation, child.dst = now, event.generation, lp
                    child.src, child.seq, child.kind, child.child, child.channel = event.src, event.seq, kind, NONE, -1
                    if tag == EMIT:
                        child.status = EMITTED
                        for q in range(width):
                            payload[c, q] = get(effect + 8 * (EFFECT_HEAD + q))
                        if load(control + 8 * EMITTED_ANY) == 0:
                            store(control + 8 * EMITTED_ANY, 1)
                    else:
                        child.status, child.kind, child.send_time = ADDED, get(effect), get(effect + 8)
                pool[c].sibling = NONE
                if last < 0:
                    event.child = c
                else:
                    pool[last].sibling = c
                last = c
            while kept >= 0:
                after = pool[kept].sibling
                cancel_child(me, lps, kept)
                kept = after
            if reg[N_WORK] > 0:
                roll_back(handler, me, lps, lazy)
            if error != 0:
                break
        if status == POOL_LOW or reg[BLOCKED]:
            status = relieve(me, shared)
            if status == POOL_LOW:
                return POOL_LOW
            if status == STUCK:
                reg[STUCK_TURNS] += 1
                if reg[STUCK_TURNS] >= STUCK_TURNS_MAX:
                    reg[STUCK_TURNS] = 0
                    return STUCK
        elif done > 0:
            reg[STUCK_TURNS], reg[WANT] = 0, 0
        if done == 0:
            stats[IDLE] += 1
            yield_core()
        stats[TURNS] += 1
    return SLICE
