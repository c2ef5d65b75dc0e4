"""The arrays of PEs: made, enlarged, counted. All sizes are decided here; the kernels only find them too small."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.fossils import LOG_WORDS
from tidewarp.kernel.compiled.layout import BLOCK_WORDS, EFFECT_HEAD, EVENT, EVENT_WORDS, OUT, OUT_MAX, OUT_STRIDE
from tidewarp.kernel.compiled.pe import CHUNK, COUNTERS, FREE, N_CHUNKS, N_FREE, NONE, REGISTERS, Pe

__all__ = [
    "aligned",
    "chunk_bytes",
    "enlarge_channel",
    "enlarge_chunks",
    "enlarge_log",
    "enlarge_out",
    "enlarge_slots",
    "new_pe",
    "slot_bytes",
    "take_over_block",
]

OUT_ROWS = 1024
CHANNEL_NUMBERS = 1024
LOG_ENTRIES, LOG_BYTES = 2**15, 2**21

Array = np.ndarray[Any, Any]


def aligned(*shape: int) -> Array:
    """Zeroed int64 words that begin on a line of their own and share none with what follows."""
    words = int(np.prod(shape))
    memory = np.zeros(words + 2 * LINE_WORDS, np.int64)
    skip = -(memory.ctypes.data // 8) % LINE_WORDS
    return memory[skip : skip + words].reshape(shape)


def slot_bytes(width: int) -> int:
    """What one slot costs: event, payload of ``width`` words, its places in the pending set, work list and stack."""
    return EVENT.itemsize + 8 * width + 4 + 12 + 4 + 8


def chunk_bytes() -> int:
    """What one chunk of saved state costs."""
    return 8 * CHUNK + 12


def new_pe(
    slots: int,
    chunks: int,
    width: int,
    kps: int,
    n_pes: int,
    row_words: int,
    accumulators: int,
    classes: int,
    held: bool,
    block: Array,
) -> Pe:
    """A PE with empty lists; ``width``: words of the longest message; ``held``: it has LPs that do not speculate."""
    pool = _pool(slots)
    out = np.zeros((OUT_ROWS, EFFECT_HEAD + width), np.int64)
    own = aligned(BLOCK_WORDS)
    own[:] = block
    pe = Pe(
        pool=pool,
        words=pool.view(np.int64).reshape(slots, EVENT_WORDS),
        payload=np.zeros((slots, width), np.int64),
        saved=_none(slots),
        chunks=aligned(chunks, CHUNK),
        chunk_next=_none(chunks),
        chunk_at=np.zeros(chunks, np.int32),
        chunk_free=_stack(0, chunks),
        times=np.zeros(slots, np.int64),
        slots=np.zeros(slots, np.int32),
        held_times=np.zeros(slots if held else 1, np.int64),
        held_slots=np.zeros(slots if held else 1, np.int32),
        free=_stack(0, slots),
        work=np.zeros(2 * slots + 64, np.int32),
        newest=_none(kps),
        oldest=_none(kps),
        channel=np.full((n_pes, CHANNEL_NUMBERS if n_pes > 1 else 1), NONE, np.int32),
        sent=aligned(n_pes),
        out_head=_none(n_pes),
        out_tail=_none(n_pes),
        out=out,
        block=own,
        scratch=aligned(row_words),
        merge_times=np.zeros(kps, np.int64),
        merge_slots=np.zeros(kps, np.int32),
        log=np.zeros((LOG_ENTRIES, LOG_WORDS), np.int64),
        data=np.zeros(LOG_BYTES, np.uint8),
        sums=np.zeros((max(accumulators, 1), 2), np.int64),
        reg=aligned(REGISTERS),
        stats=aligned(COUNTERS + 2 * classes),
    )
    pe.reg[N_FREE], pe.reg[N_CHUNKS] = slots, chunks
    _point_out(pe)
    return pe


def _pool(slots: int) -> Array:
    memory = aligned(slots, EVENT_WORDS)
    pool = memory.reshape(-1).view(EVENT)
    for name in ("newer", "older", "child", "sibling"):
        pool[name] = NONE
    pool["channel"] = -1
    return pool


def _none(n: int) -> Array:
    return np.full(n, NONE, np.int32)


def _stack(first: int, n: int) -> Array:
    """Free numbers first to n - 1, the lowest on top."""
    stack = np.zeros(n, np.int32)
    stack[: n - first] = np.arange(n - 1, first - 1, -1)
    return stack


def _point_out(pe: Pe) -> None:
    pe.block[OUT], pe.block[OUT_STRIDE], pe.block[OUT_MAX] = pe.out.ctypes.data, pe.out.shape[1] * 8, len(pe.out)


def _longer(old: Array, n: int, fill: int = 0) -> Array:
    new = np.full((n, *old.shape[1:]), fill, old.dtype) if fill else np.zeros((n, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new


def enlarge_slots(pe: Pe, slots: int) -> Pe:
    """The same PE with more slots."""
    old, free = len(pe.pool), int(pe.reg[N_FREE])
    pool = _pool(slots)
    pool[:old] = pe.pool
    stack = np.zeros(slots, np.int32)
    more = slots - old
    stack[:more] = np.arange(slots - 1, old - 1, -1)
    stack[more : more + free] = pe.free[:free]
    pe.reg[N_FREE] = free + more
    held = len(pe.held_slots) > 1
    return pe._replace(
        pool=pool,
        words=pool.view(np.int64).reshape(slots, EVENT_WORDS),
        payload=_longer(pe.payload, slots),
        saved=_longer(pe.saved, slots, NONE),
        times=_longer(pe.times, slots),
        slots=_longer(pe.slots, slots),
        held_times=_longer(pe.held_times, slots) if held else pe.held_times,
        held_slots=_longer(pe.held_slots, slots) if held else pe.held_slots,
        free=stack,
        work=_longer(pe.work, 2 * slots + 64),
    )


def enlarge_chunks(pe: Pe, chunks: int) -> Pe:
    """The same PE with more chunks of saved state."""
    old, free = len(pe.chunks), int(pe.reg[N_CHUNKS])
    memory = aligned(chunks, CHUNK)
    memory[:old] = pe.chunks
    stack = np.zeros(chunks, np.int32)
    more = chunks - old
    stack[:more] = np.arange(chunks - 1, old - 1, -1)
    stack[more : more + free] = pe.chunk_free[:free]
    pe.reg[N_CHUNKS] = free + more
    return pe._replace(
        chunks=memory,
        chunk_next=_longer(pe.chunk_next, chunks, NONE),
        chunk_at=_longer(pe.chunk_at, chunks),
        chunk_free=stack,
    )


def enlarge_channel(pe: Pe, n_pes: int) -> Pe:
    """The same PE with a channel table of twice the size; every living message is in it."""
    size = 2 * pe.channel.shape[1]
    channel = np.full((n_pes, size), NONE, np.int32)
    alive = np.flatnonzero((pe.pool["channel"] >= 0) & (pe.pool["status"] > FREE) & (pe.pool["status"] < 8))
    numbers, sources = np.divmod(pe.pool["channel"][alive], n_pes)
    channel[sources, numbers & (size - 1)] = alive
    return pe._replace(channel=channel)


def enlarge_out(pe: Pe) -> Pe:
    """The same PE with an effects buffer of twice the size."""
    pe = pe._replace(out=np.zeros((2 * len(pe.out), pe.out.shape[1]), np.int64))
    _point_out(pe)
    return pe


def enlarge_log(pe: Pe) -> Pe:
    """The same PE with a log of twice the size; it is empty."""
    return pe._replace(log=np.zeros((2 * len(pe.log), LOG_WORDS), np.int64), data=np.zeros(2 * len(pe.data), np.uint8))


def take_over_block(pe: Pe, block: Array) -> Pe:
    """The same PE with the context block of another, which somebody watches."""
    pe = pe._replace(block=block)
    _point_out(pe)
    return pe
