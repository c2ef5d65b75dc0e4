"""Looking at the PEs of the optimistic engine, at work or not: what they count, what holds GVT, whether every slot is somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidewarp.errors import InternalError
from tidewarp.kernel.compiled import gvt, layout
from tidewarp.kernel.compiled import pe as pes
from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.pe import Pe, Shared
from tidewarp.kernel.compiled.pools import chunk_bytes, slot_bytes
from tidewarp.kernel.contract import Statistics
from tidewarp.kernel.model import Model

__all__ = ["check_slots", "holders_of", "pending_of", "statistics_of"]


def statistics_of(all_pes: Sequence[Pe], width: int) -> Statistics:
    """Counts over these PEs; they may be read while threads work. ``width``: words of the longest message."""
    rows = np.array([me.stats for me in all_pes])
    total = rows.sum(axis=0).tolist()
    slots = sum(len(me.pool) for me in all_pes)
    return Statistics(
        executed=total[pes.EXECUTED],
        rolled_back=total[pes.ROLLED_BACK],
        executed_by_class=total[pes.COUNTERS :: 2],
        rolled_back_by_class=total[pes.COUNTERS + 1 :: 2],
        rollbacks_straggler=total[pes.BY_STRAGGLER],
        rollbacks_anti=total[pes.BY_ANTI],
        rollback_lengths=total[pes.LENGTHS : pes.LENGTHS + 32],
        anti_messages=total[pes.ANTIS],
        anti_dropped=total[pes.DROPPED],
        remote_sent=total[pes.REMOTE],
        lazy_hits=total[pes.LAZY_HITS],
        gvt_rounds=total[pes.ROUNDS],
        window_ticks=min(int(me.reg[pes.WINDOW]) for me in all_pes),
        window_least_ticks=int(rows[:, pes.WINDOW_LEAST].min()),
        window_greatest_ticks=int(rows[:, pes.WINDOW_GREATEST].max()),
        live_events_most=total[pes.LIVE_MOST],
        pool_size=slots,
        pool_bytes=slots * slot_bytes(width) + sum(len(me.chunks) for me in all_pes) * chunk_bytes(),
        send_queue_most=int(rows[:, pes.QUEUE_MOST].max()),
        cancelbacks=total[pes.CANCELBACKS],
        thrash_breaks=total[pes.BREAKS],
        errors_undone=total[pes.ERRORS_UNDONE],
        idle_turns=total[pes.IDLE],
        turns=total[pes.TURNS],
    )


def holders_of(model: Model, all_pes: Sequence[Pe], shared: Shared) -> list[str]:
    """What each PE that holds GVT waits for, in words."""
    control, lines = shared.control, []
    reports = [control[gvt.REPORTS + LINE_WORDS * p :][:2].tolist() for p in range(len(all_pes))]
    for p, me in enumerate(all_pes):
        late = int(me.reg[pes.MY_ROUND]) != int(control[gvt.ROUND])
        if not late and reports[p] != min(reports):
            continue
        block, reg = me.block, me.reg
        if block[layout.BEAT] & 1:
            path, tick = model.path(int(block[layout.LP])), int(block[layout.NOW])
            lines.append(f"PE {p}: the handler of {path} runs at tick {tick}")
        elif reg[pes.BLOCKED] or reg[pes.PRESSED]:
            lines.append(f"PE {p}: its pool of {len(me.pool)} events is full (memory_max_bytes)")
        elif reg[pes.N_QUEUED]:
            full = [q for q, first in enumerate(me.out_head.tolist()) if first >= 0]
            lines.append(f"PE {p}: {int(reg[pes.N_QUEUED])} messages wait for room in the rings to PE {full}")
        elif late:
            lines.append(f"PE {p}: it has not reported to round {int(control[gvt.ROUND])} of GVT")
        else:
            undone = int(me.stats[pes.ROLLED_BACK])
            lines.append(f"PE {p}: it holds an event at tick {reports[p][0]}, and has undone {undone} so far")
    return lines


def pending_of(me: Pe) -> np.ndarray[Any, Any]:
    """The slots of a PE's pending events, in no order."""
    return np.concatenate([me.slots[: me.reg[pes.N_PENDING]], me.held_slots[: me.reg[pes.N_HELD]]])


def check_slots(me: Pe, p: int) -> None:
    """Check that PE p, which stands still, has lost no slot and no chunk.

    Raises:
        InternalError: it has.
    """
    pool, reg = me.pool, me.reg
    pending = pending_of(me)
    executed, children, queued, chunks = [], [], [], []
    for first in me.oldest:
        s = int(first)
        while s >= 0:
            executed.append(s)
            c = int(me.saved[s])
            while c >= 0:
                chunks.append(c)
                c = int(me.chunk_next[c])
            s = int(pool["newer"][s])
    for first in me.out_head:
        s = int(first)
        while s >= 0:
            queued.append(s)
            s = int(pool["newer"][s])
    for s in [*executed, *pending.tolist()]:
        c = int(pool["child"][s])
        while c >= 0:
            if pool["status"][c] in (pes.SENT, pes.RETURNED, pes.EMITTED, pes.ADDED):
                children.append(c)
            c = int(pool["sibling"][c])
    free = me.free[: reg[pes.N_FREE]].tolist()
    found = [*free, *pending.tolist(), *executed, *children, *queued]
    if sorted(found) != list(range(len(pool))):
        raise InternalError(
            f"PE {p}: {len(free)} free, {len(pending)} pending, {len(executed)} executed, {len(children)} stubs, {len(queued)} queued",
            f"that is not each of {len(pool)} slots once",
            "please report this",
        )
    if sorted([*me.chunk_free[: reg[pes.N_CHUNKS]].tolist(), *chunks]) != list(range(len(me.chunks))):
        raise InternalError(f"PE {p}: chunks of saved state", "each is free or kept by one event", "please report this")
