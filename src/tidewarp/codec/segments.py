"""Segments: a journal, from its first record on, as bytes that stand for themselves.

A segment artifact (``TAG_SEGMENT``) is one batch without artifact bytes. What is too long for one is several, and put
in a row (which ``pel.bytes.concat`` does) they are read as one journal again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tidewarp.codec.batches import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BODY, BatchItem, encode_batch, read_batch
from tidewarp.codec.frames import Reader
from tidewarp.codec.records import HEADER_BYTES, Record, genesis, record_hash

__all__ = ["encode_segments", "read_segments"]

_BATCH_HEAD_BYTES = 8
_ITEM_BYTES = HEADER_BYTES + 2  # beside the body


def encode_segments(records: Iterable[Record]) -> list[bytes]:
    """The records, with their bodies, as payloads of segments: as few as the bounds of a batch allow."""
    segments: list[bytes] = []
    items: list[BatchItem] = []
    size = _BATCH_HEAD_BYTES
    for header, body in records:
        needed = _ITEM_BYTES + len(body)
        if items and (len(items) == BATCH_ITEMS_MAX or size + needed > BATCH_BYTES_MAX):
            segments.append(encode_batch(items))
            items, size = [], _BATCH_HEAD_BYTES
        items.append(BatchItem(header, BODY, body))
        size += needed
    return [*segments, encode_batch(items)] if items else segments


def read_segments(data: bytes) -> list[Record]:
    """The records of the segments in ``data``, in a row: those of one domain from the first on, each body what its header says.

    Raises:
        CodecError: not the bytes of segments, a record that does not follow the one before, a body that is missing or
            another, artifact bytes, or nothing at all.
    """
    reader = Reader(data, "journal segment")
    records: list[Record] = []
    head = b""
    while reader.left or not records:
        items = read_batch(reader)
        if not items:
            raise reader.refusal("a segment has records")
        for header, _, body, artifact in items:
            head = head or genesis(header.domain)
            domain = records[0].header.domain if records else header.domain
            if (header.domain, header.seq, header.prev) != (domain, len(records) + 1, head):
                raise reader.refusal(f"record {header.seq} does not follow {len(records)} of {domain.hex()}")
            if body is None or artifact is not None:
                raise reader.refusal(f"record {header.seq} has its body here, and no artifact beside it")
            if len(body) != header.body_len or hashlib.sha256(body).digest() != header.body_hash:
                raise reader.refusal(f"the body of record {header.seq} is not the one of its header")
            head = record_hash(header.to_bytes())
            records.append(Record(header, body))
    return records
