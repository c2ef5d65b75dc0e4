"""Edges of the provenance graph: from a list of artifacts to another, with a type and a payload.

    EdgeBytes   type U32 | n U32 ER* sources | n U32 ER* targets | payload ER
    slot key    SHA-256("TGKSLOT1" | type | sources | targets)

An edge is itself an artifact under tag 0x201, so it has a name, and another edge may speak of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import NamedTuple

from tidewarp.codec.artifacts import EMPTY, TAG_EDGE, Artifact
from tidewarp.codec.frames import Reader, u32
from tidewarp.codec.references import Reference, encode_references, read_reference, read_references

__all__ = ["DERIVES", "DESCRIBES", "REPLACES", "USER_TYPES", "WITNESSES", "Edge", "slot_key"]

DERIVES, REPLACES, DESCRIBES, WITNESSES = 1, 2, 3, 4
USER_TYPES = 0x10000
"""The first of the types that users define."""

_SLOT = b"TGKSLOT1"


class Edge(NamedTuple):
    """Order and repetition of sources and targets count; either may be empty. ``type`` is a U32."""

    type: int
    sources: tuple[Reference, ...]
    targets: tuple[Reference, ...]
    payload: Reference = EMPTY

    def to_bytes(self) -> bytes:
        """The payload of the edge's artifact.

        Raises:
            CodecError: the type is no U32, or a list has more than 65,536 references.
        """
        return _ends(self.type, self.sources, self.targets) + self.payload.encoded()

    @classmethod
    def from_bytes(cls, data: bytes) -> Edge:
        """The edge whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of an edge.
        """
        reader = Reader(data, "edge")
        edge = cls(reader.u32(), read_references(reader), read_references(reader), read_reference(reader))
        reader.end()
        return edge

    def reference(self) -> Reference:
        """The name of the edge's artifact."""
        return Artifact(self.to_bytes(), TAG_EDGE).reference()

    def slot_key(self) -> bytes:
        """As :func:`slot_key` of its type and ends."""
        return slot_key(self.type, self.sources, self.targets)


def slot_key(type: int, sources: Collection[Reference], targets: Collection[Reference]) -> bytes:
    """32 bytes that edges share which differ in their payload alone: a policy may say that the latest counts.

    Raises:
        CodecError: as :meth:`Edge.to_bytes`.
    """
    return hashlib.sha256(_SLOT + _ends(type, sources, targets)).digest()


def _ends(type: int, sources: Collection[Reference], targets: Collection[Reference]) -> bytes:
    return u32(type) + encode_references(sources) + encode_references(targets)
