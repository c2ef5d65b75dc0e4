"""Shards: ranges of the digest that a record is about, so that each range can be read by itself.

A record that adds, hides, lifts or erases an artifact belongs with it: its digest is that of the reference. That of any
other record is its record hash. Shards are one node's own affair: no hash, order or answer depends on them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from tidewarp.codec import RecordHeader, record_hash
from tidewarp.errors import CodecError, OperatorError
from tidewarp.store.subjects import told

__all__ = ["SHARDS_MAX", "UNDIVIDED", "ShardMap", "digest_of"]

SHARDS_MAX = 256
"""Shards of a store, at most: a range ends where the first byte of a digest changes."""


@dataclass(frozen=True)
class ShardMap:
    """Where the shards of a store part.

    Args:
        bounds: first bytes (1 to 255, ascending) of the least digest of each shard but the first. Empty: one shard.

    Raises:
        OperatorError: they are not.
    """

    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        is_ascending = all(one < other for one, other in zip(self.bounds, self.bounds[1:], strict=False))
        if not is_ascending or any(not 0 < bound < SHARDS_MAX for bound in self.bounds):
            rule = "bounds are bytes from 1 to 255, each above the one before it"
            raise OperatorError(f"shard map {self.bounds}"[:80], rule, "leave out what repeats, and sort the rest")

    @classmethod
    def even(cls, count: int) -> ShardMap:
        """``count`` shards, 1 to 256, of equal ranges (but for what 256 leaves over). Raises OperatorError."""
        if not 0 < count <= SHARDS_MAX:
            raise OperatorError(f"{count} shards"[:80], f"a store has 1 to {SHARDS_MAX}", "choose a number in between")
        return cls(tuple(place * SHARDS_MAX // count for place in range(1, count)))

    @property
    def count(self) -> int:
        """How many shards there are; they are numbered from 0."""
        return len(self.bounds) + 1

    def shard_of(self, digest: bytes) -> int:
        """The number of the shard to which a digest (32 bytes) belongs."""
        return bisect_right(self.bounds, digest[0])

    def to_bytes(self) -> bytes:
        """The bounds, a byte for each: what ``meta`` holds. Never hashed, never sent."""
        return bytes(self.bounds)

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardMap:
        """What :meth:`to_bytes` gave. Raises OperatorError."""
        return cls(tuple(data))


UNDIVIDED = ShardMap()
"""One shard."""


def digest_of(header: RecordHeader, body: bytes | None) -> bytes:
    """The digest that a record is about, 32 bytes. ``body`` None: it is not here, so nobody knows what it is about."""
    try:
        said = told(header, body)
    except CodecError:  # published, and of no form that its kind has: what a damaged file may hold
        said = None
    return record_hash(header.to_bytes()) if said is None else said.ref.digest
