"""Parcels: what a push carries. Records of one domain, the head that its domain signed, and why that head covers them.

    U32 JSON of the head | bridge n U32 (hash 32)* | batch

The head is as in a page of ``/v1/heads``. The bridge is the consistency proof from the tree that ends with the last of the
records to that of the head; it is empty where they are the same. Whether any of it is true is for whoever takes it.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from tidewarp.codec.batches import BATCH_BYTES_MAX, BatchItem, encode_batch, read_batch
from tidewarp.codec.frames import Reader, count, counted, hash32
from tidewarp.federation.documents import PATH_MAX, HeadDocument, decode_json, encode_json

__all__ = ["PARCEL_BYTES_MAX", "PARCEL_TYPE", "Parcel"]

PARCEL_TYPE = "application/x-tidewarp-parcel"
PARCEL_BYTES_MAX = BATCH_BYTES_MAX + (512 << 10)


class Parcel(NamedTuple):
    """Records of one domain in order, at least one, and what vouches for them."""

    head: HeadDocument
    bridge: tuple[bytes, ...]
    items: list[BatchItem]

    def to_bytes(self) -> bytes:
        """The bytes. Raises CodecError: a part breaks its rule."""
        bridge = count(len(self.bridge)) + b"".join(map(hash32, self.bridge))
        return counted(encode_json(self.head)) + bridge + encode_batch(self.items)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The parcel whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a parcel, or one without records.
        """
        reader = Reader(data, "parcel")
        head = decode_json(reader.counted(), HeadDocument)
        length = reader.count(32)
        if length > PATH_MAX:
            raise reader.refusal(f"a proof has at most {PATH_MAX} hashes, not {length}")
        bridge = tuple([reader.hash32() for _ in range(length)])
        items = read_batch(reader)
        reader.end()
        if not items:
            raise reader.refusal("it has at least one record")
        return cls(head, bridge, items)
