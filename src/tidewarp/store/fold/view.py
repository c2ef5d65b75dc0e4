"""A state that one can ask: what is visible, what a slot, a name or a computation key shows, which domains count.

state hash   SHA-256("TWSTATE1" | (U32 length | row)*)      rows in byte order

It covers what is known and shown, not whose disk holds the bytes, nor how they lie there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from enum import IntEnum
from itertools import chain
from typing import NamedTuple

from tidewarp.codec.edges import Edge, slot_key
from tidewarp.codec.frames import u8, u32, u64
from tidewarp.codec.references import Reference
from tidewarp.codec.snapshots import Snapshot
from tidewarp.store.admission import Admission
from tidewarp.store.fold.conflicts import Fork, fork_id
from tidewarp.store.fold.receipts import Agreement
from tidewarp.store.fold.state import State

__all__ = ["Claim", "DomainStatus", "Head", "KeyState", "View"]


class DomainStatus(IntEnum):
    """How a domain stands with its own history, according to the records that count."""

    LIVE = 0
    FROZEN = 1
    """An EVIDENCE record names the fork right behind the head."""
    RESOLVED = 2
    """The head lies on a branch that the resolver chose."""


class Head(NamedTuple):
    """How far a domain (32 bytes) counts: number and hash of that record."""

    domain: bytes
    seq: int
    hash: bytes
    resolved: bool = False


class Claim(NamedTuple):
    """A receipt's word: which domain has it, as which record, and the outputs that it names."""

    domain: bytes
    seq: int
    receipt: Reference
    outputs: tuple[Reference, ...]


class KeyState(NamedTuple):
    """What a computation key comes to.

    ``lists``, in order of their hash: all that was claimed; the one accepted; those that contradict each other; or
    the one of the verdict.
    """

    agreement: Agreement
    lists: tuple[tuple[Reference, ...], ...]


class View:
    """The state that records come to under an admission. Equal snapshots mean equal views."""

    def __init__(
        self, admission: Admission, state: State, heads: Mapping[bytes, Head], forks: tuple[Fork, ...] = ()
    ) -> None:
        self.admission = admission
        self._state = state
        self._heads = heads  # by domain, in no order
        self._forks = forks

    @property
    def lineage(self) -> object:
        """The same object, by ``is``, as long as the view only grows: as all that counted counts, and more does."""
        return self._now()

    def is_visible(self, ref: Reference) -> bool:
        """Whether the artifact, edge or receipt is live for one of the domains that count."""
        return ref.encoded() in self._now().visibility.visible

    def is_hidden(self, ref: Reference) -> bool:
        """Whether it is known, which is to say that a domain added, hid or lifted it, and is not visible."""
        visibility = self._now().visibility
        return visibility.is_known(ref.encoded()) and ref.encoded() not in visibility.visible

    def visible(self) -> list[Reference]:
        """All that is visible, ascending."""
        return list(map(_reference, sorted(self._now().visibility.visible)))

    def hidden(self) -> list[Reference]:
        """All that is hidden, ascending."""
        visibility = self._now().visibility
        return list(map(_reference, sorted(set(visibility.known) - visibility.visible)))

    def slot(self, type: int, sources: Collection[Reference], targets: Collection[Reference]) -> list[Edge]:
        """The visible edges of a slot in merge order; the last of them alone, if the admission says so of the type."""
        state = self._now()
        return [edge for _, edge in state.slots.shown(slot_key(type, sources, targets), state.visibility)]

    def pointer(self, name: str) -> list[Reference]:
        """The values that a name has, ascending: none, one, or as many as sites gave it without seeing each other."""
        return list(map(_reference, self._now().pointers.values(name)))

    def computations(self) -> list[bytes]:
        """The computation keys (32 bytes) that a receipt is about, ascending."""
        return sorted(self._now().receipts.keys)

    def receipts(self, key: bytes) -> list[Claim]:
        """All claims about a computation key (32 bytes), of hidden receipts too, in merge order."""
        return [
            Claim(domain, seq, _reference(receipt), tuple(map(_reference, outputs)))
            for seq, domain, receipt, outputs in self._now().receipts.claims(key)
        ]

    def key_state(self, key: bytes) -> KeyState | None:
        """What a computation key (32 bytes) comes to; None without a receipt."""
        state = self._now()
        outcome = state.receipts.outcome(key, state.visibility)
        if outcome is None:
            return None
        return KeyState(outcome.agreement, tuple(tuple(map(_reference, outputs)) for outputs in outcome.lists))

    def heads(self) -> list[Head]:
        """How far each domain counts, ascending; without the domains of which nothing does."""
        self._now()
        return sorted(self._heads.values())

    def status(self, domain: bytes) -> DomainStatus | None:
        """How the domain stands; None where no record of it counts."""
        state = self._now()
        head = self._heads.get(domain)
        return None if head is None else _status(head, state)

    def forks(self) -> tuple[Fork, ...]:
        """Where domains that count have forked as far as the records here show, resolved or not; ascending."""
        return self._forks

    def snapshot(self) -> Snapshot:
        """The vector of heads, which names this view."""
        return Snapshot(self.admission.policy_hash, tuple((head.domain, head.seq, head.hash) for head in self.heads()))

    def rows(self) -> list[bytes]:
        """The rows of the state hash, in byte order: those of :meth:`State.rows`, and

        06 domain seq U64 record hash status U8
        """
        state = self._now()
        domains = (
            b"\x06" + head.domain + u64(head.seq) + head.hash + u8(_status(head, state))
            for head in self._heads.values()
        )
        return sorted(chain(state.rows(), domains))

    def state_hash(self) -> bytes:
        """32 bytes that two sites compare: equal on all that hold the same records under the same policy."""
        rows = self.rows()
        lengths = {size: u32(size) for size in set(map(len, rows))}  # most rows have one
        return hashlib.sha256(b"TWSTATE1" + b"".join([lengths[len(row)] + row for row in rows])).digest()

    def _now(self) -> State:
        return self._state


def _status(head: Head, state: State) -> DomainStatus:
    if state.evidence and fork_id(head.domain, head.seq + 1) in state.evidence:
        return DomainStatus.FROZEN
    return DomainStatus.RESOLVED if head.resolved else DomainStatus.LIVE


def _reference(id: bytes) -> Reference:
    """The reference of an id, which is its encoded form."""
    return Reference.from_bytes(id[4:])
