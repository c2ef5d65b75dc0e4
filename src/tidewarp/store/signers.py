"""Who may sign the heads of a domain: its root key, always, and whom the domain itself has named. Pure.

A KEYS record lists keys. The last published one counts, so that a key which the next list leaves out is withdrawn, and
it counts for heads behind one that covers it. A head that not the root key has signed therefore leans on an earlier
one, which may lean on another: these are kept with it, ascending, for whoever sees the domain for the first time. A
head of the root key leans on none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.heads import SignedHead, key_id
from tidewarp.codec.records import PUBLISHED, RecordHeader
from tidewarp.errors import PeerError

__all__ = [
    "EARLIER_BYTES_MAX",
    "EARLIER_HEADS_MAX",
    "KeysAt",
    "check_bounds",
    "check_heads",
    "earlier_heads",
    "is_keys",
    "is_of_root",
    "keys_of",
    "last_at",
]

EARLIER_HEADS_MAX = 64
"""Heads that one head leans on: as many KEYS records, until the root key signs again."""

EARLIER_BYTES_MAX = 1 << 18
"""Bytes of their notes together."""


class KeysRecord(Protocol):
    """A KEYS record as it is held."""

    @property
    def header(self) -> RecordHeader:
        """Its header."""

    @property
    def body(self) -> bytes | None:
        """Its body, if that is here."""


KeysAt: TypeAlias = Callable[[int], KeysRecord | None]
"""The last published KEYS record of a domain among its first so many; None: there is none."""

_ACTION = "let the domain's root key sign a head: it leans on none before it"


def is_keys(kind: int, flags: int) -> bool:
    """Is it a record that names signers?"""
    return kind == KEYS and bool(flags & PUBLISHED)


def keys_of(record: KeysRecord | None) -> tuple[bytes, ...]:
    """The public keys (32 bytes each) that a KEYS record names; none, if its body is not here."""
    return () if record is None or record.body is None else KeysBody.from_bytes(record.body).keys


def last_at(records: Sequence[KeysRecord], size: int) -> KeysRecord | None:
    """The last of some KEYS ``records``, ascending, that is among the first ``size`` records of the domain."""
    return next((one for one in reversed(records) if one.header.seq <= size), None)


def is_of_root(head: SignedHead, key: bytes) -> bool:
    """Does a line of a verified head name the root public ``key`` (32 bytes)?"""
    return any(one.key_id == key_id(one.name, key) for one in head.signatures)


def earlier_heads(key: bytes, held: Sequence[SignedHead], head: SignedHead, keys_at: KeysAt) -> tuple[SignedHead, ...]:
    """What is kept before ``head``, which is verified, and comes behind those that are ``held`` (the newest is the last).

    One of these is needed no more if the one before it covers the same KEYS record.
    """
    before = [one for one in held if one.size < head.size]
    if is_of_root(head, key) or not before:
        return ()
    *earlier, last = before
    record = keys_at(last.size)
    is_needed = record is not None and (not earlier or record.header.seq > earlier[-1].size)
    return tuple(before) if is_needed else tuple(earlier)


def check_bounds(domain: bytes, earlier: Sequence[SignedHead]) -> None:
    """Raise PeerError if a head of ``domain`` (32 bytes) leans on more than is kept."""
    size = sum(len(one.to_bytes()) for one in earlier)
    if len(earlier) > EARLIER_HEADS_MAX or size > EARLIER_BYTES_MAX:
        rule = f"at most {EARLIER_HEADS_MAX}, of {EARLIER_BYTES_MAX} bytes together"
        raise PeerError(f"{len(earlier)} heads of {domain.hex()} that a later one leans on", rule, _ACTION)


def check_heads(key: bytes, heads: Sequence[SignedHead], keys_at: KeysAt) -> None:
    """Return if each of ``heads`` is signed by the root public ``key``, or by one that the head before it makes known.

    Raises:
        PeerError: one is not, or they do not ascend.
    """
    allowed: tuple[bytes, ...] = ()
    size = -1
    for head in heads:
        if head.size <= size:
            raise PeerError(f"head of {head.domain.hex()} at {head.size}", f"it is not behind {size}", _ACTION)
        head.verify((key, *allowed))
        size, allowed = head.size, keys_of(keys_at(head.size))
