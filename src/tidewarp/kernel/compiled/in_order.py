"""A stretch of an optimistic run, executed one event after the other: how it goes on where memory lets no PE execute anything.

Once everything beyond GVT is undone, what the engine holds is what a sequential run holds there. From then on this is one: it
needs a slot for each pending event and nothing to undo, so it gets on wherever a sequential run would, and commits what a
sequential run commits. If not even that fits, it goes on without committing anything, to find out what would.
"""

from __future__ import annotations

import numpy as np

from tidewarp.errors import ModelError
from tidewarp.kernel.compiled.image import Ints, Slots
from tidewarp.kernel.compiled.sequential import (
    BLOCK_END,
    DONE,
    FULL,
    N_FREE,
    N_PENDING,
    POOL_LOW,
    WANT,
    CompiledSequential,
    _Arrays,
)
from tidewarp.kernel.trace import Ledger

__all__ = ["InOrder"]

SLICES_MAX = 16  # of 2**18 events: how far to look for the bound that does


class InOrder(CompiledSequential):
    """The sequential engine, in as few slots as it needs. It begins when :meth:`take_over` has been called."""

    def take_over(self, rows: Ints, pool: Slots, payload: Ints, block: Ints) -> None:
        """Go on from these pending events, in key order, with ``rows``, which are changed in place, and a context block."""
        count = len(pool)
        if count == 0:
            pool, payload = self._memory.new_pool(1)
        n = len(pool)
        self._rows, self.block = rows, block
        self._memory.set_effects(block, self._effects)
        self._arrays = _Arrays(
            pool, payload, pool["time"].astype(np.int64), np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
        )
        self._reg[:] = 0
        self._reg[N_PENDING], self._reg[N_FREE], self._reg[BLOCK_END] = count, n - count, -1

    def carry_on(self, bound: int, slots_max: int) -> bool:
        """Execute, and so commit, what lies below ``bound``, or until the ledger is full. False: that needs more slots.

        Raises:
            ModelError: an event broke a rule; everything before it is committed.
        """
        reg = self._reg
        if reg[N_PENDING] > slots_max:
            return False
        while (status := self._run(bound)) != DONE:
            if status == FULL:
                self.gvt = int(reg[WANT])
                return True
            if status == POOL_LOW and reg[N_PENDING] + reg[WANT] > slots_max:
                return False
            self._make_room(status)
        self.gvt = bound
        return True

    def pending(self) -> tuple[Slots, Ints]:
        """What is left: events and their messages."""
        arrays = self._arrays
        slots = arrays.slots[: self._reg[N_PENDING]]
        return arrays.pool[slots], arrays.payload[slots]

    def slots_to(self, bound: int) -> int:
        """How many slots the run to ``bound`` needs; it is executed and not committed. It is followed for 4 million events."""
        self._ledger = Ledger(self._model, "off", 2**62)
        self._log = self._log[:0]
        for _ in range(SLICES_MAX):
            status = self._run(bound)
            self._ledger.outputs.clear()
            if status == DONE:
                break
            try:
                self._make_room(status)
            except ModelError:
                break  # the run will end here
        return len(self._arrays.pool)

    def _grow(self, capacity: int) -> None:
        """Take little more than what is needed, for that is what is asked about."""
        need = int(self._reg[N_PENDING] + self._reg[WANT])
        super()._grow(need + need // 32 + 1)
