"""The bound of memory of the optimistic engine: what each PE gets of it, and which bound would do."""

from __future__ import annotations

from collections.abc import Sequence

from tidewarp.errors import PoolExhausted
from tidewarp.kernel.compiled.pools import chunk_bytes, slot_bytes

__all__ = ["Budget"]

SLOTS_LEAST, ROWS_LEAST = 8, 4  # of a PE, beyond what is pending
SLOTS_PER_ROW = 4  # of the rest: slots for each row that can be saved


class Budget:
    """The bytes that the pools of the ``here`` PEs of this process may take together; PEs ask from their own threads.

    ``most`` is the bound for all of ``n`` PEs, None without one; ``width``: words of the longest message; ``blocks``: chunks of
    the longest row.
    """

    def __init__(self, most: int | None, here: int, n: int, width: int, blocks: int) -> None:
        self._whole = most
        self._most = None if most is None else most * here // n
        self._here, self._n, self._blocks = here, n, blocks
        self._slot, self._chunk = slot_bytes(width), chunk_bytes()
        self._taken = 0

    @property
    def is_overdrawn(self) -> bool:
        """Is more in use than the bound allows?"""
        return self._most is not None and self._taken > self._most

    @property
    def pending_most(self) -> int:
        """How many events may be pending at once; below 0 if there is not even memory for none."""
        return 2**62 if self._most is None else (self._most - self._need(0)) // self._slot

    def _need(self, pending: int) -> int:
        """Bytes with which a run goes on that has so many events pending at once."""
        least = SLOTS_LEAST * self._slot + ROWS_LEAST * self._blocks * self._chunk
        return pending * self._slot + self._here * least

    def shares(self, pending: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, int]]:
        """(slots, chunks) of each PE with so many pending events: what it must have, and of the rest after what it wants."""
        rest = 2**62 if self._most is None else max(0, self._most - self._need(sum(pending)))
        row = self._blocks * self._chunk
        sizes = []
        for n, want in zip(pending, wanted, strict=True):
            rows = rest * want // sum(wanted) // (SLOTS_PER_ROW * self._slot + row)
            sizes.append((n + SLOTS_LEAST + SLOTS_PER_ROW * rows, (ROWS_LEAST + rows) * self._blocks))
        return sizes

    def first_shares(self, pending: Sequence[int]) -> list[tuple[int, int]]:
        """(slots, chunks) of each PE to begin with; it can grow."""
        wanted = [2 * n + 256 for n in pending]
        return [
            (min(slots, 2 * n + 256), min(chunks, (n // 2 + 256) * self._blocks))
            for n, (slots, chunks) in zip(pending, self.shares(pending, wanted), strict=True)
        ]

    def count(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Count anew: these are the (slots, chunks) of all PEs."""
        self._taken = sum(slots * self._slot + chunks * self._chunk for slots, chunks in sizes)

    def grant_slots(self, wanted: int, least: int) -> int:
        """How many of ``wanted`` slots may be had; 0 if less than ``least``."""
        return self._grant(wanted, self._slot, least)

    def grant_chunks(self, wanted: int, least: int) -> int:
        """How many of ``wanted`` chunks may be had; 0 if less than ``least``."""
        return self._grant(wanted, self._chunk, least)

    def _grant(self, wanted: int, size: int, least: int) -> int:
        if self._most is not None:
            wanted = min(wanted, (self._most - self._taken) // size)
            if wanted < least:
                return 0
        self._taken += wanted * size
        return wanted

    def take_slots(self, n: int) -> int:
        """Count ``n`` slots that are needed, whatever the bound; returns n."""
        self._taken += n * self._slot
        return n

    def refusal(self, tick: int, pending: int) -> PoolExhausted:
        """The error of a run that holds so many events at once from ``tick`` on; it names the bound that does."""
        least = -(-self._need(pending) * self._n // self._here)
        return PoolExhausted(
            f"memory_max_bytes {self._whole} at tick {tick}",
            f"this run needs {least} bytes for its pending events",
            f"set memory_max_bytes={least} or more",
        )
