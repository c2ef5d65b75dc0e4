"""The commit stage: the logs of all PEs become one, in key order, and go to the ledger."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from tidewarp.kernel.compiled.fossils import LOG_ADD, LOG_EVENT, LOG_WORDS
from tidewarp.kernel.compiled.words import entry, get, inlined, put
from tidewarp.kernel.trace import Ledger

__all__ = ["Merger"]

_i8, _i8x2, _u1 = types.Array(types.int64, 1, "C"), types.Array(types.int64, 2, "C"), types.Array(types.uint8, 1, "C")
_int = types.int64

Array = np.ndarray[Any, Any]

ENTRIES, COUNT, AT, DATA = range(4)
"""Columns of the table of logs: address and number of entries, how many are taken, address of the records."""
N_BLOCKS, N_OUT, N_ADDS, LAST = range(4)
"""What :func:`merge` tells: blocks, bytes of outputs, adds, tick of the last event."""
ENTRY_BYTES = 8 * LOG_WORDS


@inlined
def _precedes(a: Any, b: Any) -> Any:
    """Is the key of the entry at address a below that of the entry at b?"""
    for q in range(4):
        x, y = get(a + 8 * q), get(b + 8 * q)
        if x != y:
            return x < y
    return np.uint64(get(a + 32)) < np.uint64(get(b + 32))


@inlined
def _copy(target: Any, source: Any, length: Any) -> Any:
    """Copy a record, which has more than 8 bytes; its last word overlaps the one before. The address behind it."""
    for q in range(length >> 3):
        put(target + 8 * q, get(source + 8 * q))
    if length & 7:
        put(target + length - 8, get(source + length - 8))
    return target + length


@entry((_i8x2, _i8, _i8, _int, _int, _int, _int, _u1, _i8x2, _u1, _i8x2, _i8))
def merge(
    logs: Any, row: Any, end: Any, t: Any, generation: Any, room: Any, interval: Any, out: Any, blocks: Any, emitted: Any,
    adds: Any, told: Any,
) -> None:  # fmt: skip
    """Take the events below (t, generation) from all logs in key order, with their effects, until ``room`` outputs are taken.

    PE p has the rows ``row[p]:end[p]`` of ``logs``. Its records go to ``out``, and for each block of the trace (index, where its
    records end, how many) to ``blocks``; outputs to ``emitted``; (accumulator, n) to ``adds``.
    """
    target = first = out.ctypes.data
    put_out = first_out = emitted.ctypes.data
    n_blocks, n_adds, n_emitted, last, block_end = 0, 0, 0, 0, -1
    while n_emitted < room:
        best, head = -1, 0
        for p in range(len(row)):
            while row[p] < end[p] and logs[row[p], AT] == logs[row[p], COUNT]:
                row[p] += 1
            if row[p] < end[p]:
                own = logs[row[p], ENTRIES] + ENTRY_BYTES * logs[row[p], AT]
                if best < 0 or _precedes(own, head):
                    best, head = p, own
        if best < 0 or get(head) > t or (get(head) == t and get(head + 8) >= generation):
            break
        log = logs[row[best]]
        last = get(head)
        if last >= block_end:
            index = last // interval
            block_end = (index + 1) * interval if index + 1 <= 0x7FFFFFFFFFFFFFFF // interval else 0x7FFFFFFFFFFFFFFF
            blocks[n_blocks, 0], blocks[n_blocks, 2] = index, 0
            n_blocks += 1
        target = _copy(target, log[DATA] + get(head + 48), get(head + 56))
        blocks[n_blocks - 1, 1] = target - first
        blocks[n_blocks - 1, 2] += 1
        log[AT] += 1
        while log[AT] < log[COUNT]:  # its effects follow it
            effect = log[ENTRIES] + ENTRY_BYTES * log[AT]
            tag = get(effect + 40) >> 32
            if tag == LOG_EVENT:
                break
            if tag == LOG_ADD:
                adds[n_adds, 0], adds[n_adds, 1] = get(effect + 40) & 0xFFFFFFFF, get(effect + 56)
                n_adds += 1
            else:
                put_out = _copy(put_out, log[DATA] + get(effect + 48), get(effect + 56))
                n_emitted += 1
            log[AT] += 1
    told[N_BLOCKS], told[N_OUT], told[N_ADDS], told[LAST] = n_blocks, put_out - first_out, n_adds, last


class _Log(NamedTuple):
    """Entries and records of a PE; entries before ``at`` are committed."""

    entries: Array
    data: Array
    at: int


class Merger:
    """Takes the logs of PEs as they come and commits what is complete: below what every PE has committed."""

    def __init__(self, n_pes: int, ledger: Ledger, trace_interval: int) -> None:
        self._ledger = ledger
        self._interval = trace_interval
        self._logs: list[list[_Log]] = [[] for _ in range(n_pes)]
        self.upto = [(0, 0)] * n_pes  # (time, generation): every PE's commits below are here
        self.logged = 0  # events that came through logs
        self.stopped_at = 0  # tick at which the ledger was full

    def add(self, pe: int, log: Array, data: Array, upto: tuple[int, int]) -> None:
        """Take the log of a PE, which does not touch it until it is committed or :meth:`hold` has been called."""
        if len(log):
            self._logs[pe].append(_Log(log, data, 0))
            self.logged += int(np.count_nonzero(log[:, 5] >> 32 == LOG_EVENT))
        self.upto[pe] = max(self.upto[pe], upto)

    @property
    def waiting(self) -> bool:
        """Are there entries that are not committed?"""
        return any(self._logs)

    def hold(self) -> None:
        """Copy what waits: its memory is about to be used for something else."""
        for logs in self._logs:
            logs[:] = [_Log(log.entries.copy(), log.data.copy(), log.at) for log in logs]

    def commit(self) -> None:
        """Commit what is complete, or until the ledger is full."""
        ledger = self._ledger
        if not self.waiting or ledger.full:
            return
        logs = [log for own in self._logs for log in own]
        table = np.array([(e.ctypes.data, len(e), at, data.ctypes.data) for e, data, at in logs], np.int64)
        end = np.cumsum([len(own) for own in self._logs])
        entries, size = sum(len(log.entries) - log.at for log in logs), sum(len(log.data) for log in logs)
        out, emitted = np.empty(size, np.uint8), np.empty(size, np.uint8)
        blocks, adds, told = np.empty((entries, 3), np.int64), np.empty((entries, 2), np.int64), np.empty(4, np.int64)
        room = ledger.outputs_max - len(ledger.outputs)
        row = end - [len(own) for own in self._logs]
        merge(table, row, end, *min(self.upto), room, self._interval, out, blocks, emitted, adds, told)
        self._keep(table)
        self._hand_over(told, out, blocks, emitted, adds)

    def _keep(self, table: Array) -> None:
        """Keep what was not taken."""
        taken = iter(table[:, AT].tolist())
        for own in self._logs:
            moved = [_Log(entries, data, next(taken)) for entries, data, _ in own]
            own[:] = [log for log in moved if log.at < len(log.entries)]

    def _hand_over(self, told: Array, out: Array, blocks: Array, emitted: Array, adds: Array) -> None:
        ledger, memory, first = self._ledger, out.data, 0
        n_blocks, n_out, n_adds, last = told.tolist()
        framed = []
        for index, end, count in blocks[:n_blocks].tolist():
            framed.append((index, memory[first:end], count))
            first = end
        ledger.commit_framed(framed)
        if n_out:
            ledger.emit_framed(emitted[:n_out].tobytes())
        ledger.add([(index, n) for index, n in adds[:n_adds].tolist()])
        if ledger.full:
            self.stopped_at = last
