"""What a store writes in its own journal when it adds, hides and shows artifacts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tidewarp.codec import PUBLISHED
from tidewarp.codec.bodies import ARTIFACT, EDGE, ERASE, RECEIPT, TOMBSTONE, Body, EraseBody, LiftBody, TombstoneBody
from tidewarp.codec.references import Reference
from tidewarp.errors import NotFound, OperatorError
from tidewarp.store.contract import SCOPES, Entry, Scope

__all__ = ["ADDS", "HIDES", "Event", "entry_of", "erasing", "hiding", "lifting", "shows"]

ADDS = (ARTIFACT, EDGE, RECEIPT)
"""Kinds of the records that add an artifact."""

HIDES = (TOMBSTONE, ERASE)
"""Kinds of the records after which its bytes may be there for nobody."""


class Event(NamedTuple):
    """A record of ``domain`` (32 bytes) that speaks of an artifact: its sequence number, kind and flags."""

    domain: bytes
    seq: int
    kind: int
    flags: int


def entry_of(body: Body, *, publish: bool) -> Entry:
    """The entry that says ``body``."""
    return Entry(body.kind, body.to_bytes(), PUBLISHED if publish else 0)


def shows(events: Iterable[tuple[int, int]], *, publish: bool) -> bool:
    """Does a domain show an artifact by these events of it, (kind, flags) in order; to others, if it is to be published?

    Tombstones of curators are the affair of whoever folds the records.
    """
    was_added, last = False, 0
    for kind, flags in events:
        if (flags & PUBLISHED or not publish) and kind != ERASE:
            was_added, last = was_added or kind in ADDS, kind
    return was_added and last != TOMBSTONE


def erasing(ref: Reference, own: bytes, events: Iterable[Event], reason: int) -> Entry:
    """The erasure of an artifact. It is published, unless the own domain alone knows of it."""
    return entry_of(EraseBody(ref, None, reason), publish=_is_published(own, list(events)))


def hiding(ref: Reference, own: bytes, events: Iterable[Event], scope: Scope, reason: int = 0, note: str = "") -> Entry:
    """The tombstone of an artifact. It is published, unless the own domain alone knows of it."""
    events = list(events)
    adds: dict[bytes, int] = {}
    if _scope(scope) == SCOPES["federation"]:
        for domain, seq, kind, _ in events:
            if kind in ADDS:
                adds[domain] = max(seq, adds.get(domain, 0))
    body = TombstoneBody(ref, _scope(scope), reason, note, tuple(sorted(adds.items())))
    return entry_of(body, publish=_is_published(own, events))


def lifting(
    ref: Reference,
    own: bytes,
    events: Iterable[Event],
    scope: Scope,
    tombstone: bytes | None,
    stone_at: Callable[[int], tuple[TombstoneBody, bytes]],
) -> Entry:
    """The lift of a tombstone: the one with that record hash, or the last own one of this scope.

    ``stone_at`` gives body and record hash of the own tombstone with a sequence number.

    Raises:
        NotFound: there is none.
    """
    events = list(events)
    if _scope(scope) == SCOPES["domain"]:
        body = LiftBody(ref)
    elif tombstone is not None:
        body = LiftBody(ref, _scope(scope), tombstone)
    else:
        own_stones = (stone_at(one.seq) for one in reversed(events) if (one.domain, one.kind) == (own, TOMBSTONE))
        found = next((record for stone, record in own_stones if stone.scope == _scope(scope)), None)
        if found is None:
            raise NotFound(f"artifact {ref.hex()}", f"no own tombstone of scope {scope} is on it", "name the tombstone")
        body = LiftBody(ref, _scope(scope), found)
    return entry_of(body, publish=_is_published(own, events))


def _is_published(own: bytes, events: list[Event]) -> bool:
    """What is said of an artifact of which nobody else has heard, is nobody else's affair."""
    return not events or any(one.flags & PUBLISHED or one.domain != own for one in events)


def _scope(scope: Scope) -> int:
    if scope not in SCOPES:
        raise OperatorError(f"scope {scope!r:.40}", f"a scope is one of {', '.join(SCOPES)}", "choose one")
    return SCOPES[scope]
