"""Messages between PEs: one ring for each ordered pair, one producer, one consumer, no locks.

Messages, anti-messages and returns share a ring, so they arrive in the order in which they left. An entry is the first words
of an EVENT and the payload; its word CHANNEL is ``number << 2 | what``. Message ``number`` of a channel (src, dst) lands in
``channel[src][number & mask]`` of the receiver, so that an anti-message, a number and a time, finds it at once; the table
doubles rather than overwrite a living message. Numbers are never used again.

If a ring is full, stubs wait in the send queue, a list through their own slots. One that is cancelled before it left is
dropped. A PE empties its inbox in every turn, so full rings cannot block for ever. Each ring has a tail (written by the producer)
and a head (by the consumer), counts since the beginning, on cache lines of their own: ``lines[(src * n + dst) * 2]``.

A gateway drains ``rings[src, remote]`` up to the tail and stores the head, and fills ``rings[remote, dst]`` and stores the tail;
it never looks into entries but for their time, generation (word 5, low half) and destination.
"""

from __future__ import annotations

from typing import Any

from tidewarp.kernel.compiled.atomics import LINE_WORDS, load, store
from tidewarp.kernel.compiled.gvt import ROUND, less
from tidewarp.kernel.compiled.pe import (
    ANTIS,
    BLOCKED,
    CANCELLED,
    DONE,
    DOOMED,
    DROPPED,
    ERRED,
    ERRORS_UNDONE,
    FAULT,
    LOSE_ANTI,
    MY_ROUND,
    N_ERRED,
    N_FREE,
    N_QUEUED,
    N_WORK,
    NONE,
    ORPHAN,
    OUT_ANTI,
    OUT_DROPPED,
    OUT_RETURN,
    PENDING,
    QUEUE_MOST,
    REMOTE,
    RETURNED,
    REUSE_NUMBER,
    SEND_LEVEL,
    SEND_TIME,
    SENT,
    SKIP_SEND_MIN,
    UNKNOWN_ANTIS,
    push_pending,
    release,
)
from tidewarp.kernel.compiled.words import helper, inlined

__all__ = ["ENTRY_WORDS", "flush", "receive"]

ENTRY_WORDS = 6  # of an EVENT: time, seq, channel, send_time, dst and src, generation and kind
CHANNEL_WORD, SEND_WORD, GENERATION_WORD = 2, 3, 5
POSITIVE, ANTI, RETURN = 0, 1, 2
OK, NO_SLOT, NO_CHANNEL = 0, 1, 2


@inlined
def enqueue_out(pool: Any, out_head: Any, out_tail: Any, reg: Any, s: Any, dst: Any, status: Any) -> None:
    """Let stub s wait to leave for PE dst."""
    pool[s].status, pool[s].newer = status, NONE
    if out_tail[dst] >= 0:
        pool[out_tail[dst]].newer = s
    else:
        out_head[dst] = s
    out_tail[dst] = s
    reg[N_QUEUED] += 1


@inlined
def cancel_here(pool: Any, work: Any, reg: Any, stats: Any, s: Any) -> None:
    """Annihilate event s of this PE: flag it if pending (it is dropped when it comes up), schedule its rollback if executed."""
    status = pool[s].status
    if status in (DONE, ERRED):
        reg[N_ERRED] -= status == ERRED
        stats[ERRORS_UNDONE] += status == ERRED
        pool[s].status = DOOMED
        work[reg[N_WORK]] = s
        reg[N_WORK] += 1
    elif status == PENDING:
        pool[s].status = CANCELLED
        if pool[s].child >= 0:  # kept by lazy cancellation
            work[reg[N_WORK]] = s
            reg[N_WORK] += 1


@helper
def flush(
    dst: Any,
    pe: Any,
    pool: Any,
    words: Any,
    payload: Any,
    free: Any,
    sent: Any,
    out_head: Any,
    out_tail: Any,
    reg: Any,
    stats: Any,
    rings: Any,
    lines: Any,
    control: Any,
) -> None:
    """Move waiting stubs into the ring until it is full."""
    line = lines + (pe * rings.shape[0] + dst) * 16 * LINE_WORDS
    tail, head, mask = load(line), load(line + 8 * LINE_WORDS), rings.shape[2] - 1
    if reg[N_QUEUED] > stats[QUEUE_MOST]:
        stats[QUEUE_MOST] = reg[N_QUEUED]
    while out_head[dst] >= 0 and tail - head <= mask:
        s = out_head[dst]
        event = pool[s]
        status = event.status
        out_head[dst] = event.newer
        reg[N_QUEUED] -= 1
        if out_head[dst] < 0:
            out_tail[dst] = NONE
        if status == OUT_DROPPED or (status == OUT_ANTI and reg[FAULT] == LOSE_ANTI and event.channel % 7 == 3):
            release(pool, free, reg, s)
            stats[DROPPED] += 1
            continue
        entry = rings[pe, dst, tail & mask]
        at, level = event.time, event.generation * 2
        entry[0], entry[GENERATION_WORD] = at, event.generation
        if status == OUT_ANTI:
            entry[CHANNEL_WORD] = event.channel << 2 | ANTI
            release(pool, free, reg, s)
            stats[ANTIS] += 1
        elif status == OUT_RETURN:
            at, level = event.send_time, 0
            entry[0], entry[GENERATION_WORD] = at, 0
            entry[CHANNEL_WORD] = event.channel // rings.shape[0] << 2 | RETURN
            release(pool, free, reg, s)
        else:
            event.channel, event.status = sent[dst], SENT
            if not (reg[FAULT] == REUSE_NUMBER and sent[dst] % 5 == 4 and event.seq & 1):
                sent[dst] += 1
            for q in range(ENTRY_WORDS):
                entry[q] = words[s, q]
            for q in range(payload.shape[1]):
                entry[ENTRY_WORDS + q] = payload[s, q]
            entry[CHANNEL_WORD] = event.channel << 2
            stats[REMOTE] += 1
            if event.child == ORPHAN:
                release(pool, free, reg, s)
        tail += 1
        store(line, tail)
        # The receiver may have reported for this round already: then the message counts as mine.
        if (
            load(control + 8 * ROUND) != reg[MY_ROUND]
            and less(at, level, reg[SEND_TIME], reg[SEND_LEVEL])
            and reg[FAULT] != SKIP_SEND_MIN
        ):
            reg[SEND_TIME], reg[SEND_LEVEL] = at, level


@helper
def take_back(pool: Any, work: Any, reg: Any, src: Any, number: Any, lps: Any, newest: Any) -> None:
    """A message came back from a PE that has no room for it: undo the event that sent it, if it is still there."""
    for s in range(len(pool)):
        if pool[s].status == SENT and pool[s].channel == number and lps[pool[s].dst].pe == src:
            pool[s].status = RETURNED
            for kp in range(len(newest)):
                e = newest[kp]
                while e >= 0:
                    c = pool[e].child
                    while c >= 0:
                        if c == s:
                            work[reg[N_WORK]] = ~e
                            reg[N_WORK] += 1
                            return
                        c = pool[c].sibling
                    e = pool[e].older
            return


@helper
def receive(
    src: Any,
    pe: Any,
    lps: Any,
    pool: Any,
    words: Any,
    payload: Any,
    times: Any,
    slots: Any,
    held_times: Any,
    held_slots: Any,
    free: Any,
    work: Any,
    newest: Any,
    channel: Any,
    reg: Any,
    stats: Any,
    rings: Any,
    lines: Any,
) -> Any:
    """Empty one ring. NO_SLOT or NO_CHANNEL: it is not empty, for want of a free slot or of room in the channel table."""
    mask, n_pes = channel.shape[1] - 1, rings.shape[0]
    line = lines + (src * n_pes + pe) * 16 * LINE_WORDS
    tail, start = load(line), load(line + 8 * LINE_WORDS)
    if tail == start:
        return OK
    head, result = start, OK
    while head < tail:
        entry = rings[src, pe, head & (rings.shape[2] - 1)]
        number, what = entry[CHANNEL_WORD] >> 2, entry[CHANNEL_WORD] & 3
        name = number * n_pes + src
        if what == RETURN:
            take_back(pool, work, reg, src, number, lps, newest)
            head += 1
            continue
        old = channel[src, number & mask]
        if what == ANTI:
            if old >= 0 and pool[old].channel == name and PENDING <= pool[old].status <= ERRED:
                cancel_here(pool, work, reg, stats, old)
            else:
                stats[UNKNOWN_ANTIS] += 1  # it crossed its message on the way back
            head += 1
            continue
        if old >= 0 and pool[old].channel == name - (mask + 1) * n_pes and 0 < pool[old].status < SENT:
            result = NO_CHANNEL
            break
        if reg[N_FREE] <= 0:
            result = NO_SLOT
            break
        reg[N_FREE] -= 1
        s = free[reg[N_FREE]]
        for q in range(ENTRY_WORDS):
            words[s, q] = entry[q]
        for q in range(payload.shape[1]):
            payload[s, q] = entry[ENTRY_WORDS + q]
        pool[s].channel, pool[s].child = name, NONE
        channel[src, number & mask] = s
        push_pending(lps, pool, times, slots, held_times, held_slots, newest, work, reg, s)
        head += 1
    store(line + 8 * LINE_WORDS, head)
    if result != OK:
        reg[BLOCKED] = 1
    return result
