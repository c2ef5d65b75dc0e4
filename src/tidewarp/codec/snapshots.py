"""Snapshots: a vector of heads, one per domain that counts, and the policy that says which do.

    SnapshotBytes   "TWSNAP1" | policy hash 32 | n U32 | (domain 32, seq U64, record hash 32)*   domains ascending

The name of a snapshot is the SHA-256 of that. Equal names mean equal state: what is visible is a function of the
records up to the heads, and of the policy.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import NamedTuple

from tidewarp.codec.frames import Reader, count, hash32, u64
from tidewarp.errors import CodecError

__all__ = ["NO_POLICY", "Snapshot", "read_snapshot"]

NO_POLICY = bytes(32)
"""The policy hash of a store that has not had a policy record."""

_MAGIC = b"TWSNAP1"
_HEAD_BYTES = 32 + 8 + 32


class Snapshot(NamedTuple):
    """Where each domain stood: (domain, seq, hash of that record), ascending by domain, seq from 1.

    A domain without records is left out.
    """

    policy_hash: bytes
    vector: tuple[tuple[bytes, int, bytes], ...]

    def to_bytes(self) -> bytes:
        """What is hashed.

        Raises:
            CodecError: the domains do not ascend, a seq is 0, a hash has not 32 bytes, or more than 65,536 heads.
        """
        broken = _broken(self.vector)
        if broken:
            raise CodecError(f"snapshot of {len(self.vector)} domains", broken, "give one head per domain, ascending")
        rows = b"".join([hash32(domain) + u64(seq) + hash32(head) for domain, seq, head in self.vector])
        return _MAGIC + hash32(self.policy_hash) + count(len(self.vector)) + rows

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """The snapshot whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a snapshot.
        """
        reader = Reader(data, "snapshot")
        snapshot = read_snapshot(reader)
        reader.end()
        return snapshot

    def id(self) -> bytes:
        """Its name: SHA-256 of :meth:`to_bytes`."""
        return hashlib.sha256(self.to_bytes()).digest()


def read_snapshot(reader: Reader) -> Snapshot:
    """SnapshotBytes, which say themselves where they end."""
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise reader.refusal(f"a snapshot begins with {_MAGIC.decode()}")
    policy_hash = reader.hash32()
    heads = range(reader.count(_HEAD_BYTES))
    snapshot = Snapshot(policy_hash, tuple([(reader.hash32(), reader.u64(), reader.hash32()) for _ in heads]))
    broken = _broken(snapshot.vector)
    if broken:
        raise reader.refusal(broken)
    return snapshot


def _broken(vector: tuple[tuple[bytes, int, bytes], ...]) -> str:
    """The rule that the heads break, or nothing."""
    if any(one[0] >= other[0] for one, other in pairwise(vector)):
        return "domains ascend, each once"
    if any(seq < 1 for _, seq, _ in vector):
        return "sequence numbers count from 1"
    return ""
