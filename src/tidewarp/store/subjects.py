"""Which artifact a record speaks of: what it adds, hides, lifts or erases."""

from __future__ import annotations

from typing import NamedTuple

from tidewarp.codec import PUBLISHED, RecordHeader
from tidewarp.codec.bodies import (
    ARTIFACT,
    EDGE,
    ERASE,
    LIFT,
    RECEIPT,
    TOMBSTONE,
    ArtifactBody,
    Body,
    EdgeBody,
    EraseBody,
    LiftBody,
    ReceiptBody,
    TombstoneBody,
    decode_body,
)
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError

__all__ = ["INDEXED", "Told", "told", "told_by"]

INDEXED = frozenset({ARTIFACT, EDGE, RECEIPT, TOMBSTONE, LIFT, ERASE})
"""Kinds of records that may speak of one."""

_SPEAKING = (ArtifactBody, EdgeBody, ReceiptBody, TombstoneBody, LiftBody, EraseBody)


class Told(NamedTuple):
    """A record that speaks of an artifact."""

    header: RecordHeader
    ref: Reference
    body: Body


def told(header: RecordHeader, body: bytes | None) -> Told | None:
    """What the record says of an artifact; None if it says nothing of any.

    Raises:
        CodecError: it is published, and its body is none of its kind. An unpublished one of that sort means nothing.
    """
    if header.kind not in INDEXED or body is None:
        return None
    try:
        return told_by(header, decode_body(header.kind, body))
    except CodecError:
        if header.flags & PUBLISHED:
            raise
        return None


def told_by(header: RecordHeader, said: Body | None) -> Told | None:
    """The same of a body that was read."""
    if not isinstance(said, _SPEAKING):
        return None
    ref = said.ref
    return None if ref is None or ref.hash_id != SHA256 else Told(header, ref, said)
