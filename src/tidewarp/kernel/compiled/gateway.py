"""Between the rings of the PEs here and the PEs of other ranks: messages as rows of words, and a report to GVT rounds.

PEs of other ranks have numbers behind those here; see :mod:`~tidewarp.kernel.compiled.gvt`. A row is one word, the numbers of
sender and receiver over all ranks, and the words of a ring's entry. Rows are native, and private to one job.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidewarp.kernel.compiled.atomics import LINE_WORDS, add_word, load, store
from tidewarp.kernel.compiled.gvt import REPORTS, WAITING, less, publish, reduce_reports, start_round
from tidewarp.kernel.compiled.pe import NEVER, SHARED
from tidewarp.kernel.compiled.rings import GENERATION_WORD
from tidewarp.kernel.compiled.words import entry, helper

__all__ = [
    "Pointed",
    "begin_local_round",
    "direct",
    "drain",
    "end_local_round",
    "fill",
    "is_empty",
    "least",
    "publish_gvt",
    "report_gateway",
]

_i8, _i8x2 = types.Array(types.int64, 1, "C"), types.Array(types.int64, 2, "C")
_int = types.int64
HANDLER_SIGNATURE = types.int64(types.int64)


def direct(function: Any) -> Any:
    """An entry without Numba's choice of a signature: for arguments of the right types by construction.

    A rank calls these some ten thousand times a second, and to look at a PE's thirty arrays anew took 60 us each time.
    """
    (compiled,) = function.overloads.values()
    return compiled.entry_point


class Pointed:
    """A handler by its address, which Numba then need not ask for in each call."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler  # owns the code
        self._signature = HANDLER_SIGNATURE
        compiled = handler.get_compile_result(self._signature)
        self._address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)

    def __call__(self, address: int) -> int:
        """The handler, called from Python."""
        return int(self._handler(address))

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        """As Numba wants it of whatever has an address."""
        return self._signature


@helper
def lower(low: Any, entry_time: Any, word: Any) -> None:
    """Let (time, level) in ``low`` be at most that of a message on its way."""
    level = (word & 0xFFFFFFFF) * 2
    if less(entry_time, level, low[0], low[1]):
        low[0], low[1] = entry_time, level


@direct
@entry(_int(SHARED, _int, _i8, _i8, _int, _i8x2, _i8))
def drain(shared: Any, here: Any, rank_of: Any, global_of: Any, rank: Any, rows: Any, low: Any) -> Any:
    """Take messages of the PEs 0 to ``here`` - 1 for ``rank`` out of the rings, until ``rows`` is full; how many."""
    rings, n_pes = shared.rings, shared.rings.shape[0]
    mask, lines, n = rings.shape[2] - 1, np.int64(shared.lines.ctypes.data), 0
    for p in range(here):
        for q in range(here, n_pes):
            if rank_of[q] != rank:
                continue
            line = lines + (p * n_pes + q) * 16 * LINE_WORDS
            tail, head = load(line), load(line + 8 * LINE_WORDS)
            while head < tail and n < len(rows):
                entry = rings[p, q, head & mask]
                rows[n, 0] = global_of[p] << 32 | global_of[q]
                for w in range(rings.shape[3]):
                    rows[n, 1 + w] = entry[w]
                lower(low, entry[0], entry[GENERATION_WORD])
                n += 1
                head += 1
            store(line + 8 * LINE_WORDS, head)
    return n


@direct
@entry(types.boolean(SHARED, _int))
def is_empty(shared: Any, here: Any) -> Any:
    """Nothing waits to be drained."""
    n_pes, lines = shared.rings.shape[0], np.int64(shared.lines.ctypes.data)
    for p in range(here):
        for q in range(here, n_pes):
            line = lines + (p * n_pes + q) * 16 * LINE_WORDS
            if load(line) != load(line + 8 * LINE_WORDS):
                return False
    return True


@direct
@entry(_int(SHARED, _i8, _i8x2, _int))
def fill(shared: Any, local_of: Any, rows: Any, first: Any) -> Any:
    """Put rows from ``first`` on into the rings of their receivers, until one is full; the place of the first that stays."""
    rings, n_pes = shared.rings, shared.rings.shape[0]
    mask, lines = rings.shape[2] - 1, np.int64(shared.lines.ctypes.data)
    for i in range(first, len(rows)):
        p, q = local_of[rows[i, 0] >> 32], local_of[rows[i, 0] & 0xFFFFFFFF]
        line = lines + (p * n_pes + q) * 16 * LINE_WORDS
        tail = load(line)
        if tail - load(line + 8 * LINE_WORDS) > mask:
            return i
        entry = rings[p, q, tail & mask]
        for w in range(rings.shape[3]):
            entry[w] = rows[i, 1 + w]
        store(line, tail + 1)
    return len(rows)


@direct
@entry(types.void(_i8x2, _int, _i8))
def least(rows: Any, first: Any, low: Any) -> None:
    """Let ``low`` be at most the (time, level) of the rows from ``first`` on."""
    for i in range(first, len(rows)):
        lower(low, rows[i, 1], rows[i, 1 + GENERATION_WORD])


@direct
@entry(types.void(_int, _int))
def begin_local_round(control: Any, participants: Any) -> None:
    """Ask every PE here, and the gateway, for a report."""
    start_round(control, participants)


@direct
@entry(types.void(_int, _int, _i8))
def report_gateway(control: Any, place: Any, low: Any) -> None:
    """Report (time, level) as participant ``place``."""
    line = control + 8 * (REPORTS + LINE_WORDS * place)
    store(line, low[0])
    store(line + 8, low[1])
    add_word(control + 8 * WAITING, -1)


@direct
@entry(types.boolean(_int, _int, _i8))
def end_local_round(control: Any, participants: Any, low: Any) -> Any:
    """False while a report is missing; then ``low`` is the least of them."""
    if load(control + 8 * WAITING) != 0:
        return False
    low[0], low[1] = reduce_reports(control, participants)
    return True


@direct
@entry(types.void(_int, _int, _int))
def publish_gvt(control: Any, t: Any, level: Any) -> None:
    """Make (t, level) the GVT that the PEs here see."""
    publish(control, t, level)


LOW_NEVER = (NEVER, 0)
