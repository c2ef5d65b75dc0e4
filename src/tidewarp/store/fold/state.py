"""What records bring about under an admission: the rule for each kind, and the rows of the state hash."""

from __future__ import annotations

from collections.abc import Iterator

from tidewarp.codec import bodies
from tidewarp.codec.bodies import (
    ArtifactBody,
    EdgeBody,
    EvidenceBody,
    LiftBody,
    PointerBody,
    ReceiptBody,
    TombstoneBody,
    VerdictBody,
)
from tidewarp.codec.frames import count, text16, u8
from tidewarp.codec.references import SHA256, Reference
from tidewarp.store.admission import Standing
from tidewarp.store.fold.branches import Entry
from tidewarp.store.fold.pointers import Pointers
from tidewarp.store.fold.receipts import Receipts, outputs_hash
from tidewarp.store.fold.slots import Slots
from tidewarp.store.fold.visibility import Visibility

__all__ = ["FOLDED_KINDS", "State"]

FOLDED_KINDS = frozenset(
    {
        bodies.ARTIFACT,
        bodies.EDGE,
        bodies.RECEIPT,
        bodies.TOMBSTONE,
        bodies.LIFT,
        bodies.ERASE,
        bodies.POINTER,
        bodies.RESOLVE,
        bodies.EVIDENCE,
        bodies.VERDICT,
    }
)
"""The kinds that a state depends on: where the body of one is missing, the state is not known."""


class State:
    """Grows by records, those of one domain in order of their seq, of several domains in any interleaving.

    ``latest`` are the types of edges whose slots show one edge. ``evidence`` are the ids of the conflicts that records
    name.
    """

    def __init__(self, latest: frozenset[int]) -> None:
        self.visibility = Visibility()
        self.slots = Slots(latest)
        self.pointers = Pointers()
        self.receipts = Receipts()
        self.evidence: set[bytes] = set()

    def apply(self, domain: bytes, standing: Standing, entry: Entry) -> None:
        """Take the next record of ``domain`` that says something, according to how the domain stands."""
        body, seen = entry.body, self.visibility
        if body is None or not standing.admits(body) or standing.lacks(entry.seq, body) is not None:
            return
        match body:
            case ArtifactBody(ref=ref):
                if _is_checkable(ref):
                    seen.add(ref.encoded(), domain, entry.seq)
            case EdgeBody(edge=edge):
                encoded = body.ref.encoded()
                seen.add(encoded, domain, entry.seq)
                self.slots.add(encoded, edge)
            case ReceiptBody(ref=ref, key=key, outputs=outputs):
                if _is_checkable(ref):
                    seen.add(ref.encoded(), domain, entry.seq)
                    self.receipts.claim(key, _encoded(outputs), ref.encoded(), domain, entry.seq)
            case TombstoneBody(ref=ref, scope=bodies.DOMAIN):
                if _is_checkable(ref):
                    seen.hide(ref.encoded(), domain)
            case TombstoneBody(ref=ref, scope=scope, bounds=bounds):
                seen.curate(ref.encoded(), entry.hash, scope, dict(bounds))
            case LiftBody(ref=ref, scope=bodies.DOMAIN):
                if _is_checkable(ref):
                    seen.lift(ref.encoded(), domain)
            case LiftBody(ref=ref, scope=scope, tombstone=tombstone):
                seen.uncurate(ref.encoded(), tombstone, scope)
            case PointerBody():
                self.pointers.add(entry.hash, body)
            case VerdictBody(key=key, outputs=outputs):
                self.receipts.judge(key, _encoded(outputs), domain)
            case EvidenceBody(conflict=conflict):
                self.evidence.add(conflict)
            case _:
                pass  # what resolves a fork is read before; the rest means something elsewhere

    def rows(self) -> Iterator[bytes]:
        """The rows of all but the domains, each class in no order.

        01 ER visible · 02 ER hidden · 03 slot ER · 04 key agreement U8 n U32 (hash of outputs)* · 05 U16 name n U32 ER*
        """
        visibility = self.visibility
        visible = visibility.visible
        for ref in visibility.known:
            yield (b"\x01" if ref in visible else b"\x02") + ref
        for slot, ref in self.slots.winners(visibility):
            yield b"\x03" + slot + ref
        for key in self.receipts.keys:
            outcome = self.receipts.outcome(key, visibility)
            if outcome is not None:
                hashes = sorted(map(outputs_hash, outcome.lists))
                yield b"\x04" + key + u8(outcome.agreement) + count(len(hashes)) + b"".join(hashes)
        for name in self.pointers.names():
            values = self.pointers.values(name)
            yield b"\x05" + text16(name) + count(len(values)) + b"".join(values)


def _is_checkable(ref: Reference) -> bool:
    """An artifact under a hash that nobody here can compute is never admitted; nor do its tombstones say anything."""
    return ref.hash_id == SHA256


def _encoded(refs: tuple[Reference, ...]) -> tuple[bytes, ...]:
    return tuple([ref.encoded() for ref in refs])
