"""Outputs that wait until GVT has passed them: until then a late input may replace them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from tidewarp.connect.contract import Output

__all__ = ["BYTES_MAX", "COUNT_MAX", "Withheld"]

COUNT_MAX: Final = 200_000
BYTES_MAX: Final = 64 << 20
"""Of the values of all outputs that wait. Beyond either bound GVT is moved up, before the horizon says so."""


class Withheld:
    """Outputs in ascending order."""

    def __init__(self) -> None:
        self._outputs: deque[Output] = deque()
        self._bytes = 0

    def hold(self, outputs: Sequence[Output]) -> None:
        """Let these wait behind all others."""
        self._outputs.extend(outputs)
        self._bytes += _size(outputs)

    def replace(self, begin: str, outputs: Sequence[Output]) -> None:
        """What had come behind the output with the id ``begin`` is not true any more; ``outputs`` are."""
        kept = [output for output in self._outputs if output.id <= begin]
        self._outputs, self._bytes = deque((*kept, *outputs)), _size(kept) + _size(outputs)

    def leave(self, gvt: int) -> list[Output]:
        """Those below ``gvt``: they wait no longer."""
        left = list(takewhile(lambda output: output.tick < gvt, self._outputs))
        for _ in left:
            self._outputs.popleft()
        self._bytes -= _size(left)
        return left

    @property
    def first_tick(self) -> int | None:
        """Of the first that waits; None if none does."""
        return self._outputs[0].tick if self._outputs else None

    @property
    def relief(self) -> int | None:
        """If there are too many: the GVT that lets the oldest half of them go. Else None."""
        if len(self._outputs) <= COUNT_MAX and self._bytes <= BYTES_MAX:
            return None
        return self._outputs[len(self._outputs) // 2].tick + 1

    def __iter__(self) -> Iterator[Output]:
        return iter(self._outputs)


def _size(outputs: Sequence[Output]) -> int:
    return sum(len(output.value) for output in outputs)
