"""Which ids are shown: adds, lifts and tombstones of each domain, and the tombstones of curators.

An id is live for a domain that has an add of it, whose last event on it (by the domain's own sequence numbers) is not
a tombstone, and whose last add no curator's tombstone covers. It is visible if it is live for one domain. Only the
order inside each domain matters, so domains may be told in any interleaving.

Ids are encoded references (bytes), domains and record hashes have 32 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tidewarp.codec.bodies import STICKY

__all__ = ["Visibility"]


class _Mark(NamedTuple):
    """A domain's word on an id: the seq of its last add, 0 for none, and whether its last event is a tombstone."""

    added: int
    hidden: bool


class _Stone(NamedTuple):
    """A curator's tombstone: of later adds too if sticky, else of each domain's adds up to a seq."""

    scope: int
    bounds: Mapping[bytes, int]

    def covers(self, domain: bytes, seq: int) -> bool:
        """Whether it covers the domain's add ``seq``."""
        return self.scope == STICKY or seq <= self.bounds.get(domain, 0)


_NOTHING = _Mark(0, False)


class Visibility:
    """Events go in, those of one domain in order of their seq; ``visible`` is what is shown then, of all in ``known``."""

    def __init__(self) -> None:
        self.visible: set[bytes] = set()
        self._marks: dict[bytes, dict[bytes, _Mark]] = {}
        self._stones: dict[bytes, dict[bytes, _Stone]] = {}  # id: those of curators, by record hash
        self._lifts: dict[bytes, set[tuple[bytes, int]]] = {}  # id: record hash and scope of what curators lifted

    def add(self, ref: bytes, domain: bytes, seq: int) -> None:
        """The domain adds the id."""
        self._mark(ref, domain, _Mark(seq, False))

    def hide(self, ref: bytes, domain: bytes) -> None:
        """The domain hides what it added."""
        self._mark(ref, domain, _Mark(self._last(ref, domain).added, True))

    def lift(self, ref: bytes, domain: bytes) -> None:
        """The domain shows again what it added."""
        self._mark(ref, domain, _Mark(self._last(ref, domain).added, False))

    def curate(self, ref: bytes, hash: bytes, scope: int, bounds: Mapping[bytes, int]) -> None:
        """A curator's tombstone, the record ``hash``, covers adds of other domains too."""
        self._stones.setdefault(ref, {})[hash] = _Stone(scope, bounds)
        self._look(ref)

    def uncurate(self, ref: bytes, hash: bytes, scope: int) -> None:
        """A curator lifts that tombstone, if it is of this id and scope; it need not be here yet."""
        self._lifts.setdefault(ref, set()).add((hash, scope))
        self._look(ref)

    @property
    def known(self) -> Iterator[bytes]:
        """The ids that a domain has added, hidden or lifted."""
        return iter(self._marks)

    def is_known(self, ref: bytes) -> bool:
        """Whether a domain has added, hidden or lifted it."""
        return ref in self._marks

    def was_added(self, ref: bytes) -> bool:
        """Whether a domain has added it, hidden or not."""
        return any(mark.added for mark in self._marks.get(ref, {}).values())

    def live(self, ref: bytes) -> Iterator[tuple[int, bytes]]:
        """Seq of the last add, and domain, for each domain that the id is live for."""
        marks = self._marks.get(ref, {})
        stones = self._standing_stones(ref)
        for domain, mark in marks.items():
            if mark.added and not mark.hidden and not any(stone.covers(domain, mark.added) for stone in stones):
                yield mark.added, domain

    def _last(self, ref: bytes, domain: bytes) -> _Mark:
        return self._marks.get(ref, {}).get(domain, _NOTHING)

    def _mark(self, ref: bytes, domain: bytes, mark: _Mark) -> None:
        self._marks.setdefault(ref, {})[domain] = mark
        self._look(ref)

    def _look(self, ref: bytes) -> None:
        if any(True for _ in self.live(ref)):
            self.visible.add(ref)
        else:
            self.visible.discard(ref)

    def _standing_stones(self, ref: bytes) -> list[_Stone]:
        lifts = self._lifts.get(ref, ())
        return [stone for record, stone in self._stones.get(ref, {}).items() if (record, stone.scope) not in lifts]
