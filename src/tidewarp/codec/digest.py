"""Digests: SHA-256 over labelled, length-prefixed parts, and the resumable chain that names a run."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import sha256

from tidewarp.errors import InternalError

__all__ = ["BLOCK_TICKS", "Chain", "Digest"]

BLOCK_TICKS = 10**9  # 1 s of virtual time

_u32 = struct.Struct(">I").pack
_u64 = struct.Struct(">Q").pack
_link = struct.Struct(">10sQ32sQqQ32s").pack  # what Digest("TWTRACE1") hashes of three parts
_LABEL = b"\0\x08TWTRACE1"
_FRAMES = tuple(map(_u32, range(1_024)))  # the lengths of most records


class Digest:
    """SHA-256 of the label (U16 length, then UTF-8) and of each part (U64 length, then its bytes).

    Lengths are hashed, so that neither two parts and their concatenation nor two labels share a digest.
    """

    def __init__(self, label: str) -> None:
        name = label.encode()
        self._hash = sha256(len(name).to_bytes(2, "big") + name)

    def add(self, data: bytes) -> None:
        """Hash one more part."""
        self._hash.update(_u64(len(data)))
        self._hash.update(data)

    def digest(self) -> bytes:
        """The 32 bytes so far; more parts may follow."""
        return self._hash.digest()

    def hexdigest(self) -> str:
        """The same as 64 lower-case digits."""
        return self._hash.hexdigest()


class Chain:
    """A chain of records in blocks of virtual time; equal heads mean equal records in equal blocks.

    The records whose ticks have one quotient by ``block_ticks`` are a block. When a later one begins, the block
    closes: ``D' = Digest("TWTRACE1")`` over D (32 zero bytes at first), the block's index as I64, and the
    SHA-256 of its records, each after its U32 length. Blocks without records leave no trace. A hash
    object cannot be saved, but a D can, so a run is compared, and resumed, block by block: a chain made with the
    ``head`` and ``count`` of another continues it, if what follows lies in later blocks.
    """

    def __init__(self, block_ticks: int = BLOCK_TICKS, head: bytes = bytes(32), count: int = 0) -> None:
        if block_ticks < 1:
            raise InternalError(f"block of {block_ticks} ticks", "a block has at least one tick", "give a positive int")
        self.count = count  # records so far
        self._block_ticks = block_ticks
        self._closed = head
        self._index: int | None = None
        self._open = sha256()
        self._listener: Callable[[int, bytes], None] | None = None

    def add(self, tick: int, record: bytes) -> None:
        """Append a record at ``tick`` (ns of virtual time, int64).

        Raises:
            InternalError: its block is already closed.
        """
        self.extend((tick,), (record,))

    def extend(self, ticks: Sequence[int], records: Sequence[bytes]) -> None:
        """Append many records, their ticks ascending, as :meth:`add` does one: the same chain, sooner."""
        framed: list[bytes] = [b""] * (2 * len(records))  # each after its length
        try:
            framed[0::2] = map(_FRAMES.__getitem__, map(len, records))
        except IndexError:
            framed[0::2] = map(_u32, map(len, records))
        framed[1::2] = records
        start, end = 0, len(ticks)
        while start < end:
            index = ticks[start] // self._block_ticks
            if index != self._index:
                self._turn_to(index)
            block_end = (index + 1) * self._block_ticks
            if ticks[-1] < block_end:
                stop = end
            elif ticks[start + 1] >= block_end:  # alone in its block, as sparse data is
                stop = start + 1
            else:
                stop = bisect_left(ticks, block_end, lo=start)
            self._open.update(b"".join(framed[2 * start : 2 * stop]))
            self.count += stop - start
            start = stop

    def extend_framed(self, index: int, data: bytes | memoryview, count: int) -> None:
        """Append ``count`` records of block ``index``, each already after its U32 length: the chain of :meth:`extend`."""
        if index != self._index:
            self._turn_to(index)
        self._open.update(data)
        self.count += count

    @property
    def block(self) -> int | None:
        """The index of the open block; None before the first record."""
        return self._index

    def on_block(self, listener: Callable[[int, bytes], None]) -> None:
        """Call ``listener(index, head)`` with each block that closes from now on."""
        self._listener = listener

    def head(self) -> bytes:
        """D (32 bytes) as if the open block closed now; it stays open, so more records may follow."""
        if self._index is None:
            return self._closed
        # Written out: sparse data closes a block for each record.
        return sha256(_link(_LABEL, 32, self._closed, 8, self._index, 32, self._open.digest())).digest()

    def _turn_to(self, index: int) -> None:
        if self._index is not None and index < self._index:
            raise InternalError(
                f"a record of block {index}", f"block {self._index} has begun", "add records in order of their ticks"
            )
        self._closed = self.head()
        if self._index is not None and self._listener is not None:
            self._listener(self._index, self._closed)
        self._index = index
        self._open = sha256()
