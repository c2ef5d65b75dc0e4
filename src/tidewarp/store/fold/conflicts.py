"""The names of conflicts, equal on all nodes.

conflict id   SHA-256("TWCONF1" | kind | key)      kind in ASCII; key of a fork: domain 32 | seq U64

So what one site resolves, every other knows as the same.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from tidewarp.codec.frames import u64

__all__ = ["FORK", "Fork", "conflict_id", "fork_id"]

FORK = "fork"


class Fork(NamedTuple):
    """Two or more records that one domain (32 bytes) wrote as its ``seq``: their record hashes, ascending."""

    domain: bytes
    seq: int
    hashes: tuple[bytes, ...]

    @property
    def conflict(self) -> bytes:
        """The name of the conflict, 32 bytes."""
        return fork_id(self.domain, self.seq)


def conflict_id(kind: str, key: bytes) -> bytes:
    """The name (32 bytes) of the conflict of this kind over ``key``.

    No kind is the beginning of another, so kind and key need no length between them.
    """
    return hashlib.sha256(b"TWCONF1" + kind.encode("ascii") + key).digest()


def fork_id(domain: bytes, seq: int) -> bytes:
    """The name (32 bytes) of the fork of ``domain`` whose branches begin at ``seq``."""
    return conflict_id(FORK, domain + u64(seq))
