"""The merge order: one total order of all records of all domains, for listings and the latest edge of a slot.

    (seq, rank of the kind, domain, id, record hash)      ranks: add 0 < lift 1 < tombstone 2 < any other 3

It says nothing about what happened before what: sequence numbers of two domains have nothing to do with each other.
So neither causality nor cursors nor tombstones read it.
"""

from __future__ import annotations

from tidewarp.codec import Record, record_hash
from tidewarp.codec.bodies import (
    ARTIFACT,
    EDGE,
    LIFT,
    RECEIPT,
    TOMBSTONE,
    ArtifactBody,
    EdgeBody,
    LiftBody,
    ReceiptBody,
    TombstoneBody,
    decode_body,
)

__all__ = ["Place", "merge_order", "rank"]

Place = tuple[int, int, bytes, bytes, bytes]
"""Where a record stands in the merge order."""

_RANKS = {ARTIFACT: 0, EDGE: 0, RECEIPT: 0, LIFT: 1, TOMBSTONE: 2}


def rank(kind: int) -> int:
    """The place of a kind among records with one sequence number."""
    return _RANKS.get(kind, 3)


def merge_order(record: Record) -> Place:
    """Where ``record`` stands. Its id is the reference of what it adds, lifts or hides, and empty for other kinds.

    Raises:
        CodecError: a body that is none of its kind.
    """
    header = record.header
    body = decode_body(header.kind, record.body)
    named = (ArtifactBody, EdgeBody, ReceiptBody, TombstoneBody, LiftBody)
    return (
        header.seq,
        rank(header.kind),
        header.domain,
        body.ref.to_bytes() if isinstance(body, named) else b"",
        record_hash(header.to_bytes()),
    )
