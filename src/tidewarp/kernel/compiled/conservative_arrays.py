"""The arrays of conservative PEs: made, filled, enlarged. The kernel only finds them too small."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.conservative import (
    BASES,
    CLOCK,
    ENTRY_WORDS,
    LOG_CAP,
    N_FREE,
    PE_WORDS,
    REGISTERS,
    Pe,
    Shared,
)
from tidewarp.kernel.compiled.fossils import LOG_WORDS
from tidewarp.kernel.compiled.image import Ints, Memory, Slots
from tidewarp.kernel.compiled.layout import BLOCK_WORDS, EVENT_WORDS
from tidewarp.kernel.compiled.pools import aligned
from tidewarp.kernel.lookahead import NullMessageOptimizer

__all__ = ["bytes_of", "enlarge_log", "enlarge_out", "enlarge_pool", "new_pe", "new_shared", "swap_log"]

EFFECTS = 256  # rows of an effects buffer
LOG_ENTRIES = 2**15


def new_shared(
    memory: Memory, rows: Ints, pe_of: list[int], promises: NullMessageOptimizer, ring: int, tracing: bool
) -> Shared:
    """What all PEs see; ``ring``: messages that fit one ring, a power of 2."""
    n = promises.num_nodes
    lookahead = np.full((n, n), -1, np.int64)
    for src, dst in np.ndindex(n, n):
        ticks = promises.lookahead(src, dst) if src != dst else None
        lookahead[src, dst] = -1 if ticks is None else ticks
    return Shared(
        lps=memory.lps,
        rows=rows,
        pe_of=np.array(pe_of, np.int32),
        lookahead=lookahead,
        rings=aligned(n, n, ring if n > 1 else 1, ENTRY_WORDS + memory.message_words),
        lines=aligned(n * n * 2 * LINE_WORDS),
        control=aligned(BASES + n * PE_WORDS),
        operations=memory.operations,
        first=memory.first_operation,
        conf=np.array([memory.n_classes, memory.record_bytes_max, tracing], np.int64),
    )


def new_pe(memory: Memory, pool: Slots, payload: Ints, n_pes: int, tracing: bool) -> Pe:
    """A PE whose slots are all free; ``pool`` and ``payload`` become its own."""
    slots = len(pool)
    out = memory.new_effects(EFFECTS)
    block = aligned(BLOCK_WORDS)
    block[:] = memory.new_block(out)
    pe = Pe(
        pool=pool,
        words=pool.view(np.int64).reshape(slots, EVENT_WORDS),
        payload=payload,
        times=np.zeros(slots, np.int64),
        slots=np.zeros(slots, np.int32),
        free=np.arange(slots - 1, -1, -1, dtype=np.int32),
        heads=aligned(n_pes),
        block=block,
        out=out,
        scratch=aligned(max(memory.row_words)),
        log=np.zeros((LOG_ENTRIES + EFFECTS, LOG_WORDS), np.int64),
        data=np.zeros(
            LOG_ENTRIES * (memory.record_bytes_max if tracing else 8) + EFFECTS * memory.record_bytes_max, np.uint8
        ),
        reg=aligned(REGISTERS + memory.n_classes),
    )
    pe.reg[N_FREE], pe.reg[CLOCK], pe.reg[LOG_CAP] = slots, -1, LOG_ENTRIES
    return pe


def bytes_of(pe: Pe) -> int:
    """Memory of a PE's slots, which grow with its pending events."""
    return int(sum(array.nbytes for array in (pe.pool, pe.payload, pe.times, pe.slots, pe.free)))


def enlarge_pool(memory: Memory, pe: Pe, slots: int) -> Pe:
    """The same PE with so many slots in all."""
    old, free = len(pe.pool), int(pe.reg[N_FREE])
    pool, payload = memory.new_pool(slots)
    pool[:old], payload[:old] = pe.pool, pe.payload
    stack = np.zeros(slots, np.int32)
    stack[: slots - old] = np.arange(slots - 1, old - 1, -1)
    stack[slots - old : slots - old + free] = pe.free[:free]
    pe.reg[N_FREE] = free + slots - old
    words = pool.view(np.int64).reshape(slots, EVENT_WORDS)
    return pe._replace(
        pool=pool,
        words=words,
        payload=payload,
        times=_longer(pe.times, slots),
        slots=_longer(pe.slots, slots),
        free=stack,
    )


def enlarge_out(memory: Memory, pe: Pe) -> Pe:
    """The same PE with an effects buffer of twice the size, and a log that takes all of it."""
    out = memory.new_effects(2 * len(pe.out))
    memory.set_effects(pe.block, out)
    return enlarge_log(pe._replace(out=out), len(out), len(out) * memory.record_bytes_max)


def enlarge_log(pe: Pe, entries: int, size: int) -> Pe:
    """The same PE with room for so many entries and bytes more."""
    return pe._replace(log=_longer(pe.log, len(pe.log) + entries), data=_longer(pe.data, len(pe.data) + size))


def swap_log(pe: Pe, log: Ints, data: np.ndarray[Any, Any]) -> Pe:
    """The same PE with other memory for its log, if that is as large, else with new memory."""
    if log.shape == pe.log.shape and data.shape == pe.data.shape:
        return pe._replace(log=log, data=data)
    return pe._replace(log=np.zeros_like(pe.log), data=np.zeros_like(pe.data))


def _longer(old: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    new = np.zeros((n, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new
