"""What the PEs of the optimistic engine share, and begin with."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidewarp.kernel.compiled import gvt, layout
from tidewarp.kernel.compiled import pe as pes
from tidewarp.kernel.compiled.atomics import LINE_WORDS
from tidewarp.kernel.compiled.image import Memory
from tidewarp.kernel.compiled.pe import LPS, Shared
from tidewarp.kernel.compiled.pools import aligned
from tidewarp.kernel.compiled.rings import ENTRY_WORDS
from tidewarp.kernel.lp import policy_of
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options

__all__ = ["blocks_of_row", "first_window", "least_lookahead", "new_shared", "placed_lps"]

RINGS_BYTES = 2**28
_POLICIES = {"copy": pes.COPY, "delta": pes.DELTA, "reverse": pes.INVERSE, "periodic": pes.PERIODIC}

Array = np.ndarray[Any, Any]


def blocks_of_row(memory: Memory) -> int:
    """Chunks of the longest row."""
    return max(-(-words // pes.CHUNK) for words in memory.row_words)


def new_shared(
    model: Model, memory: Memory, options: Options, lps: Array, n: int, lookahead: int, tracing: bool
) -> Shared:
    """What ``n`` PEs share; ``lookahead`` (ticks): the least delay of what goes from one to another."""
    ring, width = options.ring if n > 1 else 2, ENTRY_WORDS + memory.message_words
    while ring > 8 and n * n * ring * width * 8 > RINGS_BYTES:
        ring //= 2
    conf = aligned(gvt.CONF)
    conf[gvt.N_PES] = conf[gvt.PARTICIPANTS] = n
    conf[gvt.BATCH], conf[gvt.GVT_INTERVAL] = options.batch, options.gvt_interval
    conf[gvt.ADAPTIVE] = options.window == "auto"
    conf[gvt.WINDOW_LEAST_TICKS] = max(lookahead, 1) if options.window == "auto" else lookahead
    conf[gvt.WINDOW_MOST_TICKS], conf[gvt.LOOKAHEAD_TICKS] = 2**62, lookahead
    conf[gvt.LAZY] = options.cancellation == "lazy"
    conf[gvt.TRACING] = tracing
    conf[gvt.RING_MASK] = ring - 1
    conf[gvt.ROW_BLOCKS] = blocks_of_row(memory)
    conf[gvt.ROW_FORMS] = memory.n_classes
    conf[gvt.PERIODIC_ANY] = bool(np.any(lps["policy"] == pes.PERIODIC))
    return Shared(
        lps=lps,
        rings=np.zeros((n, n, ring, width), np.int64),
        lines=aligned(n * n * 2 * LINE_WORDS),
        control=aligned(gvt.REPORTS + (n + 1) * LINE_WORDS),
        conf=conf,
        operations=memory.operations,
        first=memory.first_operation,
        kinds=np.array([("sum", "min", "max").index(a.kind) for a in model.accumulators] or [0], np.int64),
    )


def placed_lps(
    model: Model, memory: Memory, options: Options, rows: Array, pe_of: Array, n: int
) -> tuple[Array, list[int]]:
    """The table of LPs, whose state is in ``rows``, and how many KPs each of ``n`` PEs has."""
    table = memory.lps
    lps = np.zeros(model.n_lps, LPS)
    lps["row"] = rows.ctypes.data + 8 * table[:-1, layout.ROW_AT]
    lps["words"] = np.diff(table[:, layout.ROW_AT])
    lps["cls"] = table[:-1, layout.ROW_CLASS]
    lps["key"] = table[:-1, layout.ROW_KEY].view(np.uint64)
    lps["gamma"] = table[:-1, layout.ROW_GAMMA].view(np.uint64)
    lps["pe"] = pe_of
    for index, cls in enumerate(model.classes):
        mine = table[:-1, layout.ROW_CLASS] == index
        saving, interval = policy_of(cls, options.saving)
        lps["policy"][mine] = _POLICIES.get(saving, pes.COPY)
        lps["interval"][mine] = interval
        lps["speculative"][mine] = cls.speculative
    return lps, [_group(lps, np.flatnonzero(pe_of == p), options.kps) for p in range(n)]


def _group(lps: Array, mine: Array, wanted: int | None) -> int:
    """Number the KPs of one PE: consecutive LPs; those that do not speculate are a KP of their own."""
    free = mine[lps["speculative"][mine] == 1]
    held = mine[lps["speculative"][mine] == 0]
    kps = min(wanted or min(512, max(16, len(free) // 16)), max(len(free), 1))
    lps["kp"][free] = np.arange(len(free)) * kps // max(len(free), 1)
    lps["kp"][held] = kps
    return kps + (len(held) > 0)


def least_lookahead(model: Model, pe_of: Array) -> int:
    """The least delay in ticks of what goes from one PE to another."""
    links = model.links
    if links is None:
        return model.lookahead
    crossing = pe_of[np.repeat(np.arange(model.n_lps), np.diff(links.first))] != pe_of[links.dst]
    return int(links.lookahead[crossing].min()) if crossing.any() else 2**62


def first_window(wanted: str | int, least: int, pending: Array) -> int:
    """8 lookaheads; without one, 64 mean gaps of the pending set."""
    if isinstance(wanted, int):
        return wanted
    if wanted == "lookahead":
        return least
    if least > 1:
        return min(8 * least, 2**62)
    spread = int(pending["time"].max() - pending["time"].min()) if len(pending) else 0
    return max(1, 64 * spread // max(len(pending), 1))
