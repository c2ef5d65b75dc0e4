"""The conservative kernel: a slice of one PE's work. It knows no model; the handlers are one function pointer.

A turn: read the promises, empty the rings, report to a round, execute what lies below the promises, publish one's own. The order
is the algorithm. A promise is one word for each PE, its *base*: what it sends from now on is sent at that tick or later, so it
arrives at PE k no earlier than base + lookahead[PE, k]. It is stored after the messages of the turn and loaded before the rings
are emptied; so whoever sees it sees, or has seen, all that was sent before.

Rounds carry promises over gaps: each PE reports the least tick of what it holds and of what it sent since the round began
(Fujimoto and Hybinette 1997), and nobody's base need lie below the least report. PE 0 starts a round only while it is idle.

Every executed event leaves an entry in its PE's log (:mod:`~tidewarp.kernel.compiled.fossils` says what it holds), in key order. Nothing is ever undone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from tidewarp.kernel.compiled.atomics import LINE_WORDS, add_word, load, store, yield_core
from tidewarp.kernel.compiled.fossils import LOG_ADD, LOG_EMIT, LOG_EVENT, LOG_WORDS
from tidewarp.kernel.compiled.heap import heap_pop, heap_push, heap_replace
from tidewarp.kernel.compiled.layout import (
    ADD,
    BEAT,
    CLASS,
    EFFECT_HEAD,
    EFFECTS,
    EVENT,
    GAMMA,
    GENERATION,
    KEY,
    KIND,
    LP,
    MESSAGE,
    NOW,
    OUT_FULL,
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
from tidewarp.kernel.compiled.records import pack_event
from tidewarp.kernel.compiled.spans import address_of, spans
from tidewarp.kernel.compiled.words import entry, get, helper, inlined, put

__all__ = ["HANDLER", "PE", "SHARED", "Pe", "Shared", "run_slice", "take"]

NEVER = 2**63 - 1
NONE = -1

# --- why a slice ended ---------------------------------------------------------------------------------
SLICE, DONE, STOPPED, POOL_LOW, OUT_LOW, LOG_FULL, FAILED, BROKEN = range(8)
"""Its turns are over; all PEs have reached the bound; it was told to stop; the shell has to enlarge the pool or the effects buffer, or
to take the log; a handler refused its first pending event (the code is in ERROR_CODE); a message came too late, which is our fault."""

# --- words that PEs share, each on a line of its own ---------------------------------------------------
STOP, ROUND, WAITING, FLOOR, BASES = (line * LINE_WORDS for line in range(5))
PE_WORDS = 2 * LINE_WORDS
"""From BASES on, for each PE: its base, and a line later its report to the round in progress."""

# --- registers and counters of a PE ----------------------------------------------------------------------
(
    N_PENDING,
    N_FREE,
    N_LOG,
    N_DATA,
    BASE,
    MY_ROUND,
    SEND_MIN,
    QUEUE_HEAD,
    QUEUE_TAIL,
    N_QUEUED,
    CLOCK,
    IDLE_ROW,
    WANTED,
    ERROR_CODE,
    LOG_CAP,
) = range(15)
"""SEND_MIN: least tick sent since a round began that this PE has not reported to. QUEUE: messages that wait for room in a
ring, a list through their slots. CLOCK: an event below it would come too late. WANTED: effects of the event that had no room.
LOG_CAP: entries after which this PE waits to be committed."""
EXECUTED, REMOTE, ROUNDS, IDLE, TURNS, QUEUE_MOST, LOG_MOST = range(16, 23)
REGISTERS = 32
"""Behind them: per class, how many events were executed."""

ENTRY_WORDS = 4
"""Words of a ring's entry before the message: of an EVENT the words time, seq, (dst, src), (generation, kind, status)."""
_DST_SRC, _GENERATION_KIND = 4, 5  # words of an EVENT

IDLE_TURNS = 4  # of PE 0, before it starts a round


class Pe(NamedTuple):
    """Arrays of one PE."""

    pool: Any  # EVENT slots
    words: Any  # the same memory as (slots, words)
    payload: Any  # message fields of each slot
    times: Any  # pending events: a heap of (time, slot)
    slots: Any
    free: Any  # stack of free slots
    heads: Any  # per PE: how far it was seen to have emptied the ring
    block: Any  # context block
    out: Any  # effects buffer
    scratch: Any  # the row of the event in progress, as it was before
    log: Any  # (entries, LOG_WORDS)
    data: Any  # records
    reg: Any


class Shared(NamedTuple):
    """Arrays that all PEs read."""

    lps: Any  # table of LPs
    rows: Any
    pe_of: Any
    lookahead: Any  # [src, dst] ticks; -1: no channel
    rings: Any  # [src, dst, place] -> words
    lines: Any  # tail and head of each ring
    control: Any
    operations: Any  # forms, for the records
    first: Any
    conf: Any


CLASSES, RECORD_MAX, TRACING = range(3)
"""Words of ``conf``: forms before those of messages; bytes of the longest record; whether events are recorded."""

_i1, _i2 = types.Array(types.int64, 1, "C"), types.Array(types.int64, 2, "C")
_slots = types.Array(types.int32, 1, "C")
_pool, _bytes = types.Array(from_dtype(EVENT), 1, "C"), types.Array(types.uint8, 1, "C")
PE = types.NamedTuple((_pool, _i2, _i2, _i1, _slots, _slots, _i1, _i1, _i2, _i1, _i2, _bytes, _i1), Pe)
SHARED = types.NamedTuple((_i2, _i1, _slots, _i2, types.Array(types.int64, 4, "C"), _i1, _i1, _i2, _i1, _i1), Shared)
HANDLER = types.FunctionType(types.int64(types.int64))


@entry(types.void(PE, types.int64))
def take(me: Any, s: Any) -> None:
    """Put slot ``s``, which the shell has filled, among the pending events."""
    me.reg[N_PENDING] = heap_push(me.times, me.slots, me.reg[N_PENDING], me.pool, s)


@inlined
def line_of(lines: Any, src: Any, dst: Any, n_pes: Any) -> Any:
    """The address of a ring's tail; its head is a line behind."""
    return lines + (src * n_pes + dst) * 16 * LINE_WORDS


@inlined
def base_line(control: Any, pe: Any) -> Any:
    """The address of a PE's base; its report is a line behind."""
    return control + 8 * (BASES + pe * PE_WORDS)


@inlined
def safe_time(pe: Any, n_pes: Any, lookahead: Any, control: Any, bound: Any) -> Any:
    """Below this tick nothing can arrive any more that has not left yet."""
    safe = bound
    for src in range(n_pes):
        ahead = lookahead[src, pe]
        if src != pe and ahead >= 0 and ahead < safe:
            safe = min(safe, load(base_line(control, src)) + ahead)
    return safe


@inlined
def least_base(n_pes: Any, control: Any) -> Any:
    """GVT: nothing below the least base is still to be executed."""
    least = load(base_line(control, 0))
    for p in range(1, n_pes):
        least = min(least, load(base_line(control, p)))
    return least


@inlined
def receive(
    line: Any,
    ring: Any,
    mask: Any,
    width: Any,
    pool: Any,
    words: Any,
    payload: Any,
    times: Any,
    slots: Any,
    free: Any,
    reg: Any,
) -> Any:
    """Empty the ring at an address into the pending events."""
    tail, head = load(line), load(line + 8 * LINE_WORDS)
    status = SLICE
    if head == tail:
        return status
    while head < tail:
        entry = ring + 8 * (head & mask) * (ENTRY_WORDS + width)
        if get(entry) < reg[CLOCK]:
            status = BROKEN
            break
        if reg[N_FREE] == 0:
            status = POOL_LOW
            break
        reg[N_FREE] -= 1
        s = free[reg[N_FREE]]
        words[s, 0], words[s, 1] = get(entry), get(entry + 8)
        words[s, _DST_SRC], words[s, _GENERATION_KIND] = get(entry + 16), get(entry + 24)
        for q in range(width):
            payload[s, q] = get(entry + 8 * (ENTRY_WORDS + q))
        reg[N_PENDING] = heap_push(times, slots, reg[N_PENDING], pool, s)
        head += 1
    store(line + 8 * LINE_WORDS, head)
    return status


@helper
def flush(
    pe: Any,
    n_pes: Any,
    lines: Any,
    rings: Any,
    size: Any,
    pe_of: Any,
    pool: Any,
    words: Any,
    payload: Any,
    free: Any,
    heads: Any,
    reg: Any,
    control: Any,
) -> None:
    """Move waiting messages into their rings (of ``size`` entries each, at address ``rings``) until one is full."""
    low, width = NEVER, payload.shape[1]
    reg[QUEUE_MOST] = max(reg[QUEUE_MOST], reg[N_QUEUED])
    while reg[N_QUEUED] > 0:
        s = reg[QUEUE_HEAD]
        dst = pe_of[pool[s].dst]
        line = line_of(lines, pe, dst, n_pes)
        tail = load(line)
        if tail - heads[dst] == size:  # as far as was seen last
            heads[dst] = load(line + 8 * LINE_WORDS)
            if tail - heads[dst] == size:
                break
        entry = rings + 8 * ((pe * n_pes + dst) * size + (tail & (size - 1))) * (ENTRY_WORDS + width)
        put(entry, words[s, 0])
        put(entry + 8, words[s, 1])
        put(entry + 16, words[s, _DST_SRC])
        put(entry + 24, words[s, _GENERATION_KIND])
        for q in range(width):
            put(entry + 8 * (ENTRY_WORDS + q), payload[s, q])
        store(line, tail + 1)
        low = min(low, words[s, 0])
        reg[QUEUE_HEAD] = pool[s].newer
        reg[N_QUEUED] -= 1
        free[reg[N_FREE]] = s
        reg[N_FREE] += 1
        reg[REMOTE] += 1
    # A receiver may have reported to a round before it saw them: then they count as mine. After the last store.
    if low < reg[SEND_MIN] and load(control + 8 * ROUND) != reg[MY_ROUND]:
        reg[SEND_MIN] = low


@inlined
def note(log: Any, n: Any, now: Any, event: Any, what: Any, a: Any, b: Any) -> None:
    """Write entry ``n`` of the log at an address."""
    entry = log + 8 * LOG_WORDS * n
    put(entry, now)
    put(entry + 8, np.int64(event.generation))
    put(entry + 16, np.int64(event.dst))
    put(entry + 24, np.int64(event.src))
    put(entry + 32, np.int64(event.seq))
    put(entry + 40, what)
    put(entry + 48, a)
    put(entry + 56, b)


@helper
def report(n_pes: Any, pe: Any, control: Any, round_seen: Any, times: Any, pool: Any, reg: Any) -> None:
    """Tell the round the least tick of what is pending, waits for room, or was sent since the round began."""
    low = reg[SEND_MIN]
    if reg[N_PENDING] > 0:
        low = min(low, times[0])
    s = reg[QUEUE_HEAD]
    for _ in range(reg[N_QUEUED]):
        low = min(low, pool[s].time)
        s = pool[s].newer
    store(base_line(control, pe) + 8 * LINE_WORDS, low)
    reg[MY_ROUND], reg[SEND_MIN] = round_seen, NEVER
    add_word(control + 8 * WAITING, -1)


@helper
def lead(n_pes: Any, control: Any, reg: Any) -> None:
    """End the round that all have reported to, and begin another."""
    if load(control + 8 * WAITING) != 0:
        return
    if reg[MY_ROUND] > 0:
        low = NEVER
        for p in range(n_pes):
            low = min(low, load(base_line(control, p) + 8 * LINE_WORDS))
        store(control + 8 * FLOOR, low)
        reg[ROUNDS] += 1
    store(control + 8 * WAITING, n_pes)
    store(control + 8 * ROUND, reg[MY_ROUND] + 1)


@entry(types.int64(HANDLER, PE, SHARED, types.int64, types.int64, types.int64, types.int64, types.boolean))
def run_slice(handler: Any, me: Any, shared: Any, pe: Any, bound: Any, batch: Any, turns: Any, alone: Any) -> Any:
    """Work for ``turns`` turns of ``batch`` events, on events below ``bound``; returns why it ended.

    ``alone``: the other PEs stand still, and the caller answers for the key order; a turn then ends with the first
    event that sends to another PE, emits or adds.
    """
    pool, words, payload, times, slots, free, heads, block, out, scratch, log, data, reg = spans(me)
    lps, rows, pe_of, lookahead, rings, lines_array, control_array, operations, first, conf = spans(shared)
    control, lines, context = (
        address_of(control_array),
        address_of(lines_array),
        address_of(block),
    )
    rows_at, payload_at, out_at, lps_at = (
        address_of(rows),
        address_of(payload),
        address_of(out),
        address_of(lps),
    )
    log_at, data_at, rings_at, size = (
        address_of(log),
        address_of(data),
        address_of(rings),
        rings.shape[2],
    )
    n_pes, width, stride, classes, tracing = (
        lookahead.shape[0],
        payload.shape[1],
        out.shape[1] * 8,
        conf[CLASSES],
        conf[TRACING],
    )
    for _ in range(turns):
        if not alone and load(control + 8 * STOP) != 0:
            return STOPPED
        round_seen = load(control + 8 * ROUND)
        safe = bound if alone else safe_time(pe, n_pes, lookahead, control, bound)
        for src in range(n_pes):
            if src != pe and lookahead[src, pe] >= 0:
                status = receive(
                    line_of(lines, src, pe, n_pes),
                    rings_at + 8 * (src * n_pes + pe) * size * (ENTRY_WORDS + width),
                    size - 1,
                    width,
                    pool,
                    words,
                    payload,
                    times,
                    slots,
                    free,
                    reg,
                )
                if status != SLICE:
                    store(control + 8 * STOP, 1)
                    return status
        if reg[N_QUEUED] > 0:
            flush(pe, n_pes, lines, rings_at, size, pe_of, pool, words, payload, free, heads, reg, control)
        if not alone and round_seen != reg[MY_ROUND]:
            report(n_pes, pe, control, round_seen, times, pool, reg)

        done, status = 0, SLICE
        while done < batch and reg[N_PENDING] > 0 and times[0] < safe and reg[N_QUEUED] == 0:
            if reg[N_LOG] >= reg[LOG_CAP]:
                least = bound if alone else least_base(n_pes, control)
                if log[0, 0] < least or times[0] <= least:
                    status = LOG_FULL
                break
            s, now = slots[0], times[0]
            event = pool[s]
            lp = event.dst
            info = lps_at + 8 * lps.shape[1] * lp
            row_at = get(info + 8 * ROW_AT)
            row = rows_at + 8 * row_at
            row_words = get(info + 8 * (lps.shape[1] + ROW_AT)) - row_at
            for q in range(row_words):
                scratch[q] = get(row + 8 * q)
            block[NOW], block[LP], block[KIND], block[GENERATION] = now, lp, event.kind, event.generation
            block[CLASS], block[KEY], block[GAMMA] = (
                get(info + 8 * ROW_CLASS),
                get(info + 8 * ROW_KEY),
                get(info + 8 * ROW_GAMMA),
            )
            block[STATE], block[MESSAGE], block[SRC], block[SEQ] = (
                row,
                payload_at + 8 * s * width,
                event.src,
                np.int64(event.seq),
            )
            block[BEAT] += 1
            error = handler(context)
            block[BEAT] += 1
            effects = block[EFFECTS]
            if (
                error != 0
                or effects > reg[N_FREE]
                or reg[N_LOG] + 1 + effects > len(log)
                or reg[N_DATA] + (1 + effects) * conf[RECORD_MAX] > len(data)
            ):
                for q in range(row_words):
                    put(row + 8 * q, scratch[q])
                reg[WANTED], reg[ERROR_CODE] = effects, error
                if error == OUT_FULL:
                    status = OUT_LOW
                elif error != 0:
                    status = FAILED
                elif effects > reg[N_FREE]:
                    status = POOL_LOW
                else:
                    status = LOG_FULL
                break
            reg[CLOCK] = now if alone else now + 1
            done += 1
            reg[REGISTERS + block[CLASS]] += 1
            at, length = reg[N_DATA], 0
            if tracing:
                target = data_at + at
                length = (
                    pack_event(operations, first, classes + event.kind, event, payload_at + 8 * s * width, target)
                    - target
                )
                reg[N_DATA] += length
            note(log_at, reg[N_LOG], now, event, LOG_EVENT << 32 | event.kind, at, length)
            reg[N_LOG] += 1
            is_first, crossed = (
                True,
                False,
            )  # an event that is done keeps its place in the heap until the first of its sends takes it
            for j in range(effects):
                effect = out_at + j * stride
                tag = get(effect + 16)
                kind = tag & 0xFFFFFFFF
                if tag >> 32 == SEND:
                    dst, delay, count = get(effect), get(effect + 8), get(row + 8 * SENT)
                    put(row + 8 * SENT, count + 1)
                    reg[N_FREE] -= 1
                    c = free[reg[N_FREE]]
                    child = pool[c]
                    child.time, child.seq, child.dst, child.src, child.kind = now + delay, count, dst, lp, kind
                    child.generation = event.generation + 1 if delay == 0 else 0
                    for q in range(width):
                        payload[c, q] = get(effect + 8 * (EFFECT_HEAD + q))
                    if pe_of[dst] != pe:
                        crossed = True
                        if reg[N_QUEUED] == 0:
                            reg[QUEUE_HEAD] = c
                        else:
                            pool[reg[QUEUE_TAIL]].newer = c
                        reg[QUEUE_TAIL] = c
                        reg[N_QUEUED] += 1
                    elif is_first:
                        heap_replace(times, slots, reg[N_PENDING], pool, c)
                        is_first = False
                    else:
                        reg[N_PENDING] = heap_push(times, slots, reg[N_PENDING], pool, c)
                elif tag >> 32 == ADD:
                    crossed = True
                    note(log_at, reg[N_LOG], now, event, LOG_ADD << 32 | get(effect), 0, get(effect + 8))
                    reg[N_LOG] += 1
                else:
                    crossed = True
                    at = reg[N_DATA]
                    target = data_at + at
                    event.kind = kind
                    length = (
                        pack_event(operations, first, classes + kind, event, effect + 8 * EFFECT_HEAD, target) - target
                    )
                    reg[N_DATA] += length
                    note(log_at, reg[N_LOG], now, event, LOG_EMIT << 32 | kind, at, length)
                    reg[N_LOG] += 1
            if is_first:
                reg[N_PENDING] = heap_pop(times, slots, reg[N_PENDING], pool)
            free[reg[N_FREE]] = s
            reg[N_FREE] += 1
            if reg[N_QUEUED] > 0:
                flush(pe, n_pes, lines, rings_at, size, pe_of, pool, words, payload, free, heads, reg, control)
            if alone and crossed:
                break
        reg[EXECUTED] += done
        reg[TURNS] += 1
        reg[LOG_MOST] = max(reg[LOG_MOST], reg[N_LOG])
        if status != SLICE:
            store(control + 8 * STOP, 1)
            return status
        if alone:
            continue
        if reg[N_QUEUED] == 0:
            base = safe
            if reg[N_PENDING] > 0 and times[0] < base:
                base = times[0]
            base = min(max(base, load(control + 8 * FLOOR)), bound)
            if base > reg[BASE]:
                reg[BASE] = base
                store(base_line(control, pe), base)
            if base == bound and least_base(n_pes, control) >= bound:
                return DONE
        if done > 0:
            reg[IDLE_ROW] = 0
        else:
            reg[IDLE] += 1
            reg[IDLE_ROW] += 1
            if pe == 0 and reg[IDLE_ROW] >= IDLE_TURNS:
                lead(n_pes, control, reg)
            yield_core()
    return SLICE
