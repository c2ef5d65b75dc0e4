"""Batches: records as they travel, with the bytes of small artifacts; a segment of a journal is one without them.

    "FB1" 01 | n U32 | (header 122 | state U8 | [body] | has_bytes U8 [U32 ArtifactBytes])*

State 0: the body follows, of the length that the header says; 1: it is withheld; 2: it is erased. Whether a body
hashes to what its header says, and a header follows the one before, is for whoever admits the records.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from tidewarp.codec.frames import Reader, count
from tidewarp.codec.records import HEADER, HEADER_BYTES, RecordHeader, checked_header
from tidewarp.errors import CodecError

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_ITEMS_MAX",
    "BODY",
    "ERASED",
    "INLINE_BYTES_MAX",
    "WITHHELD",
    "BatchItem",
    "decode_batch",
    "encode_batch",
    "read_batch",
]

BODY, WITHHELD, ERASED = 0, 1, 2
BATCH_ITEMS_MAX = 10_000
BATCH_BYTES_MAX = 16 << 20
INLINE_BYTES_MAX = 64 << 10
"""ArtifactBytes that may travel with their record; larger ones are fetched by themselves."""

_MAGIC = b"FB1\x01"
_STATES = {state: bytes([state]) for state in (BODY, WITHHELD, ERASED)}
_ITEM_BYTES_MIN = HEADER_BYTES + 2
_CARRIED = struct.Struct(">BI")  # flag and length, before ArtifactBytes
_ACTION = "send fewer records"


class BatchItem(NamedTuple):
    """A record: ``state`` is BODY, WITHHELD or ERASED, and ``body`` is there in the first alone.

    ``artifact`` is the ArtifactBytes of what the record names, if they travel with it.
    """

    header: RecordHeader
    state: int
    body: bytes | None
    artifact: bytes | None = None


def encode_batch(items: Collection[BatchItem]) -> bytes:
    """The items as one batch.

    Raises:
        CodecError: more than 10,000 of them or 16 MiB, an artifact above 64 KiB, a body that is missing, too much or
            not as long as its header says.
    """
    if len(items) > BATCH_ITEMS_MAX:
        raise CodecError(f"batch of {len(items)} records", f"a batch has at most {BATCH_ITEMS_MAX}", _ACTION)
    parts = [_MAGIC, count(len(items))]
    add = parts.append
    for header, state, body, artifact in items:
        size = None if body is None else len(body)
        if state not in _STATES or size != (header.body_len if state == BODY else None):
            raise CodecError(
                f"record {header.seq} in state {state} with {'no body' if body is None else f'a body of {size} bytes'}",
                f"in state 0 a body of {header.body_len} bytes follows, in 1 and 2 none",
                "give the body of this header, or say why there is none",
            )
        add(header.to_bytes())
        add(_STATES[state])
        if body is not None:
            add(body)
        if artifact is None:
            add(b"\0")
        elif len(artifact) <= INLINE_BYTES_MAX:
            add(_CARRIED.pack(1, len(artifact)))
            add(artifact)
        else:
            raise CodecError(
                f"artifact of {len(artifact)} bytes beside record {header.seq}",
                f"{INLINE_BYTES_MAX} bytes travel with a record",
                "let it be fetched by its reference",
            )
    data = b"".join(parts)
    if len(data) > BATCH_BYTES_MAX:
        raise CodecError(f"batch of {len(data)} bytes", f"a batch has at most {BATCH_BYTES_MAX}", _ACTION)
    return data


def decode_batch(data: bytes) -> list[BatchItem]:
    """The items whose batch is ``data``.

    Raises:
        CodecError: as :func:`encode_batch`, or not the bytes of a batch.
    """
    reader = Reader(data, "batch")
    if len(data) > BATCH_BYTES_MAX:
        raise reader.refusal(f"a batch has at most {BATCH_BYTES_MAX} bytes")
    items = read_batch(reader)
    reader.end()
    return items


def read_batch(reader: Reader) -> list[BatchItem]:
    """The next batch of ``reader``. Raises CodecError as :func:`decode_batch`."""
    first = reader.at
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise reader.refusal("not a batch of version 1")
    number = reader.count(_ITEM_BYTES_MIN)
    if number > BATCH_ITEMS_MAX:
        raise reader.refusal(f"a batch has at most {BATCH_ITEMS_MAX} records, not {number}")
    # Read in place, without a call for each field: this runs for each record.
    data, at, end = reader.data, reader.at, min(len(reader.data), first + BATCH_BYTES_MAX)
    items = []
    fields, carried, new = HEADER.unpack_from, _CARRIED.unpack_from, tuple.__new__
    for _ in range(number):
        if at + _ITEM_BYTES_MIN > end:
            raise _cut(reader, first, at, _ITEM_BYTES_MIN)
        header = checked_header(fields(data, at))
        at += HEADER_BYTES + 1
        body, state = None, data[at - 1]
        if state == BODY:
            size = header.body_len
            if at + size > end:
                raise _cut(reader, first, at, size)
            body = data[at : at + size]
            at += size
        elif state > ERASED:
            raise reader.refusal(f"a state is 0, 1 or 2, not {state}")
        if at == end:
            raise _cut(reader, first, at, 1)
        artifact, flag = None, data[at]
        at += 1
        if flag:
            if flag > 1:
                raise reader.refusal(f"a flag is 0 or 1, not {flag}")
            if at + 4 > end:
                raise _cut(reader, first, at, 4)
            _, size = carried(data, at - 1)
            at += 4
            if at + size > end:
                raise _cut(reader, first, at, size)
            if size > INLINE_BYTES_MAX:
                raise reader.refusal(f"{INLINE_BYTES_MAX} bytes of an artifact travel with a record, not {size}")
            artifact = data[at : at + size]
            at += size
        items.append(new(BatchItem, (header, state, body, artifact)))
    reader.at = at
    return items


def _cut(reader: Reader, first: int, at: int, size: int) -> CodecError:
    """Why ``size`` bytes from ``at`` on are not in the batch that begins at ``first``."""
    reader.at = at
    if first + BATCH_BYTES_MAX < min(at + size, len(reader.data)):
        return reader.refusal(f"a batch has at most {BATCH_BYTES_MAX} bytes")
    return reader.refusal(f"{size} bytes are needed and {reader.left} are left")
