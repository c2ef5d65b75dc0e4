"""Global virtual time as (time, generation, settled), without barriers (Fujimoto and Hybinette 1997).

A round counter in shared memory starts a round. Each participant reads it *before* it empties its rings, and then reports
the least (time, level) of what it holds: pending events count as settled, what waits to leave or was sent since the round
began does not (level = generation * 2 + settled). A sender that finds, after a message has left, a round that it has not
reported to counts the message as its own: the receiver may have reported before it arrived. The last report makes the round
complete; the leader publishes the minimum.

GVT = (t, g, 1) says: nothing at or below (t, g) is on its way, and whatever could still create or cancel an event there has
been executed for good. So events below (t, g) are committed, and those at (t, g) are final: LPs that do not speculate may
execute them, and nobody can ever undo them. GVT = (t, g, 0) commits the same and makes nothing final.

Words of ``control``, each on cache lines of its own:

    ROUND        the round in progress
    WAITING      participants that have not reported to it
    PUBLISHED    how many GVTs were published; number p lies in the pair of words p & 1 behind it. A reader of p is safe: p + 2
                 is written after a round to which that reader has reported, and it reports after it has read.
    STOP         not 0: leave the slice
    PRESSURE     PEs that are short of slots; while there are any, nobody executes but what is final
    EMITTED_ANY  not 0 once any handler has emitted: from then on commits are logged in key order
    REPORTS + p  lines: the report of participant p (time, level)

A gateway to other hosts is one more participant and one more index of the rings: PEs of other hosts have numbers from
``n_local`` on, messages for them lie in ``rings[me, their number]`` and it drains these, fills ``rings[their number, me]``, and
reports, like a PE, what it holds and what it has sent since the round began. Where ``conf[LEADER]`` is -1 no PE leads: the
gateway starts rounds (:func:`start_round`), reduces the reports (:func:`reduce_reports`) with those of other hosts, and
publishes (:func:`publish`).
"""

from __future__ import annotations

from typing import Any

from numba import types

from tidewarp.kernel.compiled.atomics import LINE_WORDS, add_word, load, store
from tidewarp.kernel.compiled.pe import (
    DONE,
    ERRED,
    FAULT,
    GVT_LEVEL,
    GVT_TIME,
    MY_ROUND,
    N_ERRED,
    N_HELD,
    N_PENDING,
    NEVER,
    OUT_RETURN,
    READ_ROUND_LATE,
    ROUNDS,
    SEEN,
    SEND_LEVEL,
    SEND_TIME,
    SKIP_QUEUE_MIN,
    SKIP_SEND_MIN,
)
from tidewarp.kernel.compiled.spans import address_of
from tidewarp.kernel.compiled.words import entry, helper

__all__ = ["publish", "reduce_reports", "start_round"]

ROUND, WAITING, PUBLISHED, STOP, PRESSURE, EMITTED_ANY, REPORTS = (line * LINE_WORDS for line in range(7))

# --- constants of a run: words of `conf` ------------------------------------------------------------------
(
    N_PES,
    PARTICIPANTS,
    LEADER,
    SAFE,
    UNTIL,
    BATCH,
    GVT_INTERVAL,
    WINDOW_LEAST_TICKS,
    WINDOW_MOST_TICKS,
    LOOKAHEAD_TICKS,
    ADAPTIVE,
    LAZY,
    TRACING,
    RING_MASK,
    ROW_BLOCKS,
    ROW_FORMS,
    PERIODIC_ANY,
) = range(17)
CONF = 32


@helper
def less(ta: Any, la: Any, tb: Any, lb: Any) -> Any:
    """(ta, la) < (tb, lb)."""
    return ta < tb or (ta == tb and la < lb)


@helper
def report(me: Any, shared: Any, pe: Any, round_seen: Any, control: Any) -> None:
    """Report to a round: least of what is pending, waits to leave, or was sent since the round began."""
    pool, times, slots, reg = me.pool, me.times, me.slots, me.reg
    t, level = reg[SEND_TIME], reg[SEND_LEVEL]
    if reg[FAULT] == SKIP_SEND_MIN:
        t, level = NEVER, 0
    if reg[N_PENDING] > 0:
        own = pool[slots[0]].generation * 2 + 1
        if less(times[0], own, t, level):
            t, level = times[0], own
    if reg[N_HELD] > 0:
        own = pool[me.held_slots[0]].generation * 2 + 1
        if less(me.held_times[0], own, t, level):
            t, level = me.held_times[0], own
    for dst in range(shared.conf[N_PES]):
        s = me.out_head[dst]
        while s >= 0 and reg[FAULT] != SKIP_QUEUE_MIN:
            at, own = pool[s].time, pool[s].generation * 2
            if pool[s].status == OUT_RETURN:
                at, own = pool[s].send_time, 0
            if less(at, own, t, level):
                t, level = at, own
            s = pool[s].newer
    if reg[N_ERRED] > 0:
        for kp in range(len(me.oldest)):
            s = me.oldest[kp]
            while s >= 0:
                own = pool[s].generation * 2 + 1
                if pool[s].status == ERRED and less(pool[s].time, own, t, level):
                    t, level = pool[s].time, own
                s = pool[s].newer
    # What a full pool keeps in the rings is known to nobody else any more.
    for src in range(shared.conf[N_PES]):
        if src == pe or reg[FAULT] == READ_ROUND_LATE:
            continue
        line = address_of(shared.lines) + (src * shared.conf[N_PES] + pe) * 16 * LINE_WORDS
        for head in range(load(line + 8 * LINE_WORDS), load(line)):
            entry = shared.rings[src, pe, head & shared.conf[RING_MASK]]
            own = (entry[5] & 0xFFFFFFFF) * 2
            if less(entry[0], own, t, level):
                t, level = entry[0], own
    line = control + 8 * (REPORTS + LINE_WORDS * pe)
    store(line, t)
    store(line + 8, level)
    reg[MY_ROUND], reg[SEND_TIME], reg[SEND_LEVEL] = round_seen, NEVER, 0
    add_word(control + 8 * WAITING, -1)


@entry(types.void(types.int64, types.int64))
def start_round(control: Any, participants: Any) -> None:
    """Begin a round; the one before is complete."""
    store(control + 8 * WAITING, participants)
    store(control + 8 * ROUND, load(control + 8 * ROUND) + 1)


@helper
def reduce_reports(control: Any, participants: Any) -> Any:
    """The least report of a complete round: (time, level)."""
    t, level = NEVER, 0
    for p in range(participants):
        line = control + 8 * (REPORTS + LINE_WORDS * p)
        at, own = load(line), load(line + 8)
        if less(at, own, t, level):
            t, level = at, own
    return t, level


@helper
def publish(control: Any, t: Any, level: Any) -> None:
    """Make (t, level) the GVT that all PEs see."""
    number = load(control + 8 * PUBLISHED) + 1
    pair = control + 8 * (PUBLISHED + 2 + 2 * (number & 1))
    store(pair, t)
    store(pair + 8, level)
    store(control + 8 * PUBLISHED, number)


@helper
def lead(me: Any, conf: Any, control: Any) -> None:
    """If the round is complete, publish what it found, and begin the next."""
    if load(control + 8 * WAITING) != 0:
        return
    reg = me.reg
    if reg[MY_ROUND] > 0:
        t, level = reduce_reports(control, conf[PARTICIPANTS])
        if not less(t, level, conf[SAFE], 0):
            t, level = conf[SAFE], 0
        if less(reg[GVT_TIME], reg[GVT_LEVEL], t, level):
            publish(control, t, level)
        me.stats[ROUNDS] += 1
    start_round(control, conf[PARTICIPANTS])


@helper
def see(reg: Any, control: Any) -> Any:
    """Take over a GVT that was published since the last look. True: there is one."""
    number = load(control + 8 * PUBLISHED)
    if number == reg[SEEN]:
        return False
    pair = control + 8 * (PUBLISHED + 2 + 2 * (number & 1))
    reg[SEEN], reg[GVT_TIME], reg[GVT_LEVEL] = number, load(pair), load(pair + 8)
    return True


@helper
def error_is_final(me: Any) -> Any:
    """Is an event whose handler broke a rule final? Then the run ends with it, or with one at the same (time, generation)."""
    pool, reg = me.pool, me.reg
    if reg[N_ERRED] == 0 or reg[GVT_LEVEL] & 1 == 0:
        return False
    for kp in range(len(me.oldest)):
        s = me.oldest[kp]
        while s >= 0 and pool[s].status in (DONE, ERRED):
            if pool[s].status == ERRED and pool[s].time == reg[GVT_TIME] and pool[s].generation == reg[GVT_LEVEL] >> 1:
                return True
            s = pool[s].newer
    return False
