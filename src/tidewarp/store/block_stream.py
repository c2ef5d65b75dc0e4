"""A large payload as a stream that can seek: one block in memory, checked when it is read."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from tidewarp.store.blocks import Extent

__all__ = ["BlockStream"]


class BlockStream(io.RawIOBase):
    """The ``size`` bytes that ``extents`` cover, in order and without a gap; ``read`` gives the bytes of one, or raises."""

    def __init__(self, extents: Sequence[Extent], size: int, read: Callable[[Extent], bytes]) -> None:
        self._extents = extents
        self._size = size
        self._read = read
        self._starts = [extent.offset for extent in extents]
        self._place = 0
        self._held: tuple[int, bytes] = -1, b""  # index of the extent in memory

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file does."""
        place = offset + (0, self._place, self._size)[whence]
        if place < 0:
            raise ValueError(f"place {place} is before the beginning")
        self._place = place
        return place

    def tell(self) -> int:
        """As a file does."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """As a file does. Raises Corrupt."""
        if self._place >= self._size:
            return 0
        idx = bisect_right(self._starts, self._place) - 1
        extent = self._extents[idx]
        if self._held[0] != idx:
            self._held = idx, self._read(extent)
        start = self._place - extent.offset
        part = self._held[1][start : start + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)
