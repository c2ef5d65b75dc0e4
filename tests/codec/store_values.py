"""Hypothesis strategies for the values of the store, and the table of their forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import second_decoder as second
from hypothesis import strategies as st

from tidewarp.codec import BODY_BYTES_MAX, RecordHeader
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, ERASED, WITHHELD, BatchItem, decode_batch, encode_batch
from tidewarp.codec.bodies import (
    ARTIFACT,
    BRANCH,
    DOMAIN,
    EDGE,
    ERASE,
    EVIDENCE,
    FEDERATION,
    KEYS,
    LIFT,
    POINTER,
    POLICY,
    RECEIPT,
    REQUEST,
    RESOLVE,
    SNAPSHOT,
    STICKY,
    TOMBSTONE,
    VERDICT,
    ArtifactBody,
    Body,
    BranchBody,
    EdgeBody,
    EraseBody,
    EvidenceBody,
    KeysBody,
    LiftBody,
    PointerBody,
    PolicyBody,
    ReceiptBody,
    RequestBody,
    ResolveBody,
    SnapshotBody,
    TombstoneBody,
    VerdictBody,
    decode_body,
)
from tidewarp.codec.edges import Edge
from tidewarp.codec.frames import TEXT_BYTES_MAX
from tidewarp.codec.records import HLC_MAX
from tidewarp.codec.references import SHA256, Reference
from tidewarp.codec.snapshots import Snapshot

U8S, U16S, U32S, U64S = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
SEQS = st.integers(1, 2**64 - 1)
HASHES = st.sampled_from([bytes(32), b"\x01" * 32]) | st.binary(min_size=32, max_size=32)
TEXTS = st.text(max_size=20) | st.just("é" * (TEXT_BYTES_MAX // 2))
OTHER_IDS = st.integers(2, 2**16 - 1)
REFERENCES = st.builds(Reference, st.just(SHA256), HASHES) | st.builds(
    Reference, OTHER_IDS, st.binary(min_size=2, max_size=64)
)
LISTS = st.lists(REFERENCES, max_size=4).map(tuple)
TAGS = st.none() | U32S
ARTIFACTS = st.builds(Artifact, st.binary(max_size=40), TAGS)
EDGES = st.builds(Edge, U32S, LISTS, LISTS, REFERENCES)


def _ascending(rows: dict[bytes, Any]) -> tuple[Any, ...]:
    return tuple((domain, *rest) for domain, rest in sorted(rows.items()))


SNAPSHOTS = st.builds(Snapshot, HASHES, st.dictionaries(HASHES, st.tuples(SEQS, HASHES), max_size=4).map(_ascending))
BOUNDS = st.dictionaries(HASHES, st.tuples(SEQS), max_size=4).map(_ascending)
BODIES: dict[int, st.SearchStrategy[Body]] = {
    ARTIFACT: st.builds(ArtifactBody, REFERENCES, TAGS, U64S),
    EDGE: st.builds(EdgeBody, EDGES),
    RECEIPT: st.builds(ReceiptBody, REFERENCES, HASHES, LISTS),
    TOMBSTONE: st.builds(TombstoneBody, REFERENCES, st.sampled_from([DOMAIN, STICKY]), U16S, TEXTS)
    | st.builds(TombstoneBody, REFERENCES, st.just(FEDERATION), U16S, TEXTS, BOUNDS),
    LIFT: st.builds(LiftBody, REFERENCES) | st.builds(LiftBody, REFERENCES, st.sampled_from([1, 2]), HASHES),
    ERASE: st.builds(EraseBody, REFERENCES, st.none(), U16S) | st.builds(EraseBody, st.none(), SEQS, U16S),
    BRANCH: st.builds(BranchBody, HASHES, U64S, HASHES, TEXTS),
    SNAPSHOT: st.builds(SnapshotBody, SNAPSHOTS, TEXTS),
    POINTER: st.builds(PointerBody, TEXTS, st.lists(HASHES, max_size=4).map(tuple), REFERENCES),
    POLICY: st.builds(PolicyBody, REFERENCES),
    KEYS: st.builds(KeysBody, st.lists(HASHES, max_size=4).map(tuple)),
    RESOLVE: st.builds(ResolveBody, HASHES, HASHES),
    EVIDENCE: st.builds(EvidenceBody, HASHES, REFERENCES),
    VERDICT: st.builds(VerdictBody, HASHES, LISTS),
    REQUEST: st.builds(RequestBody, REFERENCES),
}
HEADERS = st.builds(
    RecordHeader,
    HASHES,
    SEQS,
    U8S,
    st.integers(0, 1),
    st.integers(0, HLC_MAX),
    HASHES,
    st.integers(0, BODY_BYTES_MAX),
    HASHES,
)


@st.composite
def batch_items(draw: st.DrawFn) -> BatchItem:
    header, state = draw(HEADERS), draw(st.sampled_from([BODY, WITHHELD, ERASED]))
    body = draw(st.binary(max_size=40)) if state == BODY else None
    artifact = draw(st.none() | ARTIFACTS)
    header = header if body is None else header._replace(body_len=len(body))
    return BatchItem(header, state, body, artifact and artifact.to_bytes())


class Form(NamedTuple):
    """How the values of one form are made, written, read, and read by the second decoder."""

    values: st.SearchStrategy[Any]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    second: Callable[[bytes], Any]


def _body(kind: int) -> Form:
    return Form(
        BODIES[kind],
        lambda body: body.to_bytes(),
        lambda data: decode_body(kind, data),
        second.nothing_more(second.BODIES[kind]),
    )


FORMS: dict[str, Form] = {
    name: Form(values, lambda value: value.to_bytes(), read, second.nothing_more(parser))
    for name, values, read, parser in (
        ("reference", REFERENCES, Reference.from_bytes, second.REFERENCE),
        ("artifact", ARTIFACTS, Artifact.from_bytes, second.ARTIFACT),
        ("edge", EDGES, Edge.from_bytes, second.EDGE),
        ("header", HEADERS, RecordHeader.from_bytes, second.HEADER),
        ("snapshot", SNAPSHOTS, Snapshot.from_bytes, second.SNAPSHOT),
    )
}
FORMS["batch"] = Form(
    st.lists(batch_items(), max_size=3), encode_batch, decode_batch, second.nothing_more(second.BATCH)
)
FORMS |= {f"body {kind:02x}": _body(kind) for kind in BODIES}


def plain(value: Any) -> Any:
    """``value`` as the second decoder gives it."""
    if isinstance(value, Reference):
        return value.to_bytes()
    if isinstance(value, Artifact):
        return value.tag, value.payload
    if isinstance(value, EdgeBody):
        return value.ref.to_bytes(), plain(value.edge)
    if isinstance(value, EraseBody):
        return (1, value.seq) if value.ref is None else (0, plain(value.ref)), value.reason
    if isinstance(value, Body):
        return tuple(plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return value
