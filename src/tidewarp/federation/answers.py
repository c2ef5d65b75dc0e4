"""What of the holdings goes to a peer, asked for or pushed: records in batches with their small artifacts, others in pieces.

Only what is published leaves: the body of any other record is withheld, unless it goes to an auditor.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidewarp.codec import bodies
from tidewarp.codec.batches import BATCH_BYTES_MAX, BODY, ERASED, INLINE_BYTES_MAX, WITHHELD, BatchItem
from tidewarp.codec.records import HEADER_BYTES, PUBLISHED, RecordHeader
from tidewarp.codec.references import SHA256, Reference
from tidewarp.collector import collector_paused
from tidewarp.errors import CodecError
from tidewarp.federation.contract import Holdings, StoredRecord
from tidewarp.store.continuation import named_by

__all__ = ["artifact_pieces", "batch_items"]

_PIECE_BYTES = 8 << 20  # of a large artifact that is read and sent at once: one block of the store
_NAMING = frozenset({bodies.ARTIFACT, bodies.RECEIPT, bodies.POLICY, bodies.REQUEST, bodies.EVIDENCE})
_PART_RECORDS = 250  # that are looked at together, with their artifacts of up to 64 KiB each,
_PART_BYTES = 4 << 20  # unless their bodies are long
_ITEM_BYTES = HEADER_BYTES + 2  # of a batch, beside body and artifact


def batch_items(
    holdings: Holdings, domain: bytes, after: int, limit: int, *, is_auditor: bool = False
) -> list[BatchItem]:
    """The records behind ``after``, as many of ``limit`` as a batch has room for."""
    with collector_paused():
        return _batch_items(holdings, domain, after, limit, is_auditor=is_auditor)


def _batch_items(holdings: Holdings, domain: bytes, after: int, limit: int, *, is_auditor: bool) -> list[BatchItem]:
    items: list[BatchItem] = []
    batch_bytes = 8  # magic and count
    for part in _parts(holdings.records(domain, after, limit)):
        shown = [_shown(record, is_auditor=is_auditor) for record in part]
        named = [None if body is None else _named(header.kind, body) for header, _, body in shown]
        small = holdings.small([ref for ref in named if ref is not None], INLINE_BYTES_MAX)
        for (header, state, body), ref in zip(shown, named, strict=True):
            artifact = None if ref is None else small.get(ref)
            batch_bytes += _ITEM_BYTES
            if body is not None:
                batch_bytes += len(body)
            if artifact is not None:
                batch_bytes += 4 + len(artifact)
            if batch_bytes > BATCH_BYTES_MAX:
                return items
            items.append(BatchItem(header, state, body, artifact))
    return items


def artifact_pieces(holdings: Holdings, reference: Reference, head: bytes, first: int, last: int) -> Iterator[bytes]:
    """ArtifactBytes from ``first`` to ``last``; ``head`` is what stands before the payload. Raises Corrupt."""
    if first < len(head):
        yield head[first:last]
    at, end = max(first - len(head), 0), last - len(head)
    while at < end:
        length = min(_PIECE_BYTES - at % _PIECE_BYTES, end - at)
        yield holdings.get(reference, offset=at, length=length)
        at += length


def _parts(records: Iterator[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """The records, some at a time: with their small artifacts these have a bound of their own."""
    part: list[StoredRecord] = []
    body_bytes = 0
    for record in records:
        part.append(record)
        body_bytes += len(record.body or b"")
        if len(part) == _PART_RECORDS or body_bytes > _PART_BYTES:
            yield part
            part, body_bytes = [], 0
    if part:
        yield part


def _shown(record: StoredRecord, *, is_auditor: bool) -> tuple[RecordHeader, int, bytes | None]:
    """Header, state and body, as a peer may see them."""
    header, state = record.header, record.state
    if state == BODY and (is_auditor or header.flags & PUBLISHED):
        return header, BODY, record.body
    return header, ERASED if state == ERASED else WITHHELD, None


def _named(kind: int, body: bytes) -> Reference | None:
    """The artifact whose bytes travel with a record, if it is small, here and whole; else the record goes alone."""
    added = bodies.plain_add(body) if kind == bodies.ARTIFACT else None
    if added is not None:  # as nearly all are
        return added[0] if added[1] <= INLINE_BYTES_MAX else None
    if kind not in _NAMING:
        return None
    try:
        said = bodies.decode_body(kind, body)
    except CodecError:
        return None  # it is relayed as it is; whoever takes it in judges it
    if isinstance(said, bodies.ArtifactBody) and said.size > INLINE_BYTES_MAX:
        return None
    reference = named_by(said)
    return reference if reference is not None and reference.hash_id == SHA256 else None
