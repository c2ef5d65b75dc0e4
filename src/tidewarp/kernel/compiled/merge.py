"""The commit stage: the logs of all PEs become one, in key order, and go to the ledger."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidewarp.kernel.compiled.fossils import LOG_ADD, LOG_EMIT, LOG_EVENT
from tidewarp.kernel.compiled.words import entry
from tidewarp.kernel.trace import Ledger

__all__ = ["Merger"]

_i8, _i8x2, _u1 = types.Array(types.int64, 1, "C"), types.Array(types.int64, 2, "C"), types.Array(types.uint8, 1, "C")

Array = np.ndarray[Any, Any]


@entry(types.int64(_i8x2, _i8, _i8, types.int64, types.int64, _u1, _i8, _u1))
def merge(entries: Any, at: Any, end: Any, t: Any, generation: Any, data: Any, order: Any, out: Any) -> Any:
    """Put the entries below (t, generation) of several logs into one order, and the events' records after each other.

    Log p is ``entries[at[p]:end[p]]``, with places in ``data``; ``at`` is moved behind what was taken. Returns how many.
    """
    n, size = 0, 0
    while True:
        best = -1
        for p in range(len(at)):
            if at[p] == end[p]:
                continue
            a = entries[at[p]]
            if a[0] > t or (a[0] == t and a[1] >= generation):
                continue
            if best >= 0:
                b = entries[at[best]]
                later: Any = False
                for q in range(5):
                    if a[q] != b[q]:
                        later = np.uint64(a[q]) > np.uint64(b[q]) if q == 4 else a[q] > b[q]
                        break
                if later:
                    continue
            best = p
        if best < 0:
            return n
        i = at[best]
        for q in range(entries[i, 6], entries[i, 6] + entries[i, 7]):
            out[size] = data[q]
            size += 1
        order[n] = i
        n += 1
        i += 1
        while i < end[best] and entries[i, 5] >> 32 != 0:  # its effects follow their event
            order[n] = i
            n += 1
            i += 1
        at[best] = i


class Merger:
    """Takes the logs of PEs as they come and commits what is complete: below what every PE has committed."""

    def __init__(self, n_pes: int, ledger: Ledger, trace_interval: int) -> None:
        self._ledger = ledger
        self._interval = trace_interval
        self._logs: list[list[tuple[Array, Array]]] = [[] for _ in range(n_pes)]
        self.upto = [(0, 0)] * n_pes  # (time, generation): every PE's commits below are here
        self.logged = 0  # events that came through logs
        self.stopped_at = 0  # tick at which the ledger was full

    def add(self, pe: int, log: Array, data: Array, upto: tuple[int, int]) -> None:
        """Take the log of a PE, which it does not touch any more."""
        if len(log):
            self._logs[pe].append((log, data))
            self.logged += int(np.count_nonzero(log[:, 5] >> 32 == LOG_EVENT))
        self.upto[pe] = max(self.upto[pe], upto)

    @property
    def waiting(self) -> bool:
        """Are there entries that are not committed?"""
        return any(self._logs)

    def commit(self) -> None:
        """Commit what is complete, or until the ledger is full."""
        bound = min(self.upto)
        if not self.waiting or self._ledger.full:
            return
        counts = [sum(len(log) for log, _ in logs) for logs in self._logs]
        end = np.cumsum(counts)
        at = end - counts
        entries = np.concatenate([log for logs in self._logs for log, _ in logs])
        base = 0
        place = 0
        parts = []
        for logs in self._logs:
            for log, data in logs:
                entries[place : place + len(log), 6] += base
                parts.append(data)
                base += len(data)
                place += len(log)
        data = np.concatenate(parts)
        order, out = np.empty(len(entries), np.int64), np.empty(len(data), np.uint8)
        starts = at.copy()
        n = merge(entries, at, end, bound[0], bound[1], data, order, out)
        n = self._hand_over(entries, order[:n], data, out)
        self._keep(entries, data, starts, end, order[:n])

    def _hand_over(self, entries: Array, order: Array, data: Array, out: Array) -> int:
        """Give entries to the ledger; returns how many it took."""
        taken = entries[order]
        tags = taken[:, 5] >> 32
        ledger = self._ledger
        n = len(order)
        for i in np.flatnonzero(tags != LOG_EVENT).tolist():
            tag, index, a, b = int(tags[i]), int(taken[i, 5] & 0xFFFFFFFF), int(taken[i, 6]), int(taken[i, 7])
            if tag == LOG_ADD:
                ledger.add([(index, b)])
            elif tag == LOG_EMIT:
                ledger.emit_framed(data[a : a + b].tobytes())
            if ledger.full and (i + 1 == n or tags[i + 1] == LOG_EVENT):
                self.stopped_at = int(taken[i, 0])
                n = i + 1
                break
        events = taken[:n][tags[:n] == LOG_EVENT]
        ticks, ends = events[:, 0] // self._interval, np.cumsum(events[:, 7])
        cuts = np.flatnonzero(np.diff(ticks)) + 1
        memory = out.data
        first = first_byte = 0
        blocks = []
        for cut in [*cuts.tolist(), len(events)]:
            if cut > first:
                last_byte = int(ends[cut - 1])
                blocks.append((int(ticks[first]), memory[first_byte:last_byte], cut - first))
                first, first_byte = cut, last_byte
        ledger.commit_framed(blocks)
        return n

    def _keep(self, entries: Array, data: Array, starts: Array, end: Array, order: Array) -> None:
        """Keep what was not taken: of each log, what follows its part of ``order``."""
        taken = np.searchsorted(np.sort(order), end)
        before = np.concatenate([[0], taken[:-1]])
        for p, logs in enumerate(self._logs):
            rest = entries[starts[p] + taken[p] - before[p] : end[p]]
            logs.clear()
            if len(rest):
                records = rest[rest[:, 5] >> 32 != LOG_ADD]
                low, high = int(records[:, 6].min()), int((records[:, 6] + records[:, 7]).max())
                rest = rest.copy()
                rest[:, 6] -= low
                logs.append((rest, data[low:high].copy()))
