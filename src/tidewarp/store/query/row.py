"""Rows: what a record says, as named values, and the condition that a filter puts to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from tidewarp.codec import PUBLISHED, record_hash
from tidewarp.codec.artifacts import TAG_EDGE, TAG_RECEIPT
from tidewarp.codec.bodies import ArtifactBody, EdgeBody, LiftBody, ReceiptBody, TombstoneBody, decode_body
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError
from tidewarp.store.fold.order import Place, rank

if TYPE_CHECKING:
    from tidewarp.store.contract import StoredRecord

__all__ = ["RECORD_FIELDS", "Condition", "Role", "Row", "row_of_record"]

Role: TypeAlias = Literal["from", "to", "both"]
"""Which ends of an edge are meant: its sources, its targets, or either."""

RECORD_FIELDS = (
    *("domain", "seq", "kind", "published", "hash"),
    *("ref", "tag", "size", "type", "sources", "targets", "payload"),
)
"""Fields of a record's row. The first five every row has; ``ref`` is what the record adds, lifts or hides, and the rest
is of what it adds: ``tag`` and ``size`` of an artifact, the last four of an edge. Else, and where the body is not here,
a field is None."""


@dataclass(frozen=True, slots=True)
class Row:
    """Named values. ``place``: of a record, in the merge order; None of what is no record.

    ``truncated``: a bound was met here, so that rows are missing from here on. Such a row has no values but None, and is
    the last.
    """

    place: Place | None
    values: Mapping[str, Any]
    truncated: bool = False

    def __getitem__(self, field: str) -> Any:
        return self.values[field]


_ENDS: Mapping[Role, tuple[str, ...]] = {"from": ("sources",), "to": ("targets",), "both": ("sources", "targets")}


class Condition(NamedTuple):
    """What a row has to be; None: anything.

    ``tag``: it adds an artifact under this tag (edges and receipts have theirs). ``type``: it adds an edge of this type;
    ``node``: one that has this artifact at an end that ``role`` means. ``origin``: the domain (32 bytes) that wrote it.
    """

    tag: int | None
    type: int | None
    node: Reference | None
    role: Role
    origin: bytes | None

    def holds(self, row: Row) -> bool:
        """Whether the row is so."""
        values = row.values
        if self.tag is not None and values["tag"] != self.tag:
            return False
        if self.type is not None and values["type"] != self.type:
            return False
        if self.origin is not None and values["domain"] != self.origin:
            return False
        return self.node is None or any(self.node in (values[ends] or ()) for ends in _ENDS[self.role])


def row_of_record(record: StoredRecord) -> Row:
    """The row of a record; the merge order of :mod:`tidewarp.store.fold.order` is that of the rows' places."""
    header = record.header
    body = None
    if record.body is not None:
        try:
            body = decode_body(header.kind, record.body)
        except CodecError:  # of an unpublished record, which may say what it likes: nothing, here
            body = None
    values: dict[str, Any] = dict.fromkeys(RECORD_FIELDS)
    name = record_hash(header.to_bytes())
    values |= {
        "domain": header.domain,
        "seq": header.seq,
        "kind": header.kind,
        "published": header.flags & PUBLISHED,
        "hash": name,
    }
    ref = body.ref if isinstance(body, ArtifactBody | EdgeBody | ReceiptBody | TombstoneBody | LiftBody) else None
    values["ref"] = ref
    if isinstance(body, ArtifactBody):
        values["tag"], values["size"] = body.tag, body.size
    elif isinstance(body, EdgeBody):
        edge = body.edge
        values |= {"type": edge.type, "sources": edge.sources, "targets": edge.targets, "payload": edge.payload}
        values["tag"] = TAG_EDGE
    elif isinstance(body, ReceiptBody):
        values["tag"] = TAG_RECEIPT
    return Row((header.seq, rank(header.kind), header.domain, b"" if ref is None else ref.to_bytes(), name), values)
