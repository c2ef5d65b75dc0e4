"""Records of another domain on their way in: do they continue what is here, and are their artifacts those they name? Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

from tidewarp.codec import PUBLISHED, TIMED_KINDS, RecordHeader, domain_of, record_hash
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import (
    ArtifactBody,
    Body,
    EvidenceBody,
    PolicyBody,
    ReceiptBody,
    RequestBody,
    decode_body,
)
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, Erased, PeerError, Withheld
from tidewarp.store.contract import ArtifactInfo

__all__ = ["Incoming", "check_arrived", "check_awaited", "check_head", "check_stated", "continuation", "stated"]

_NAMING = ArtifactBody | ReceiptBody | PolicyBody | RequestBody | EvidenceBody
_NOT_TAKEN = "nothing was taken in; ask another peer, and look at what this one sent"


class Incoming(NamedTuple):
    """A record that continues a domain, and its hash (32 bytes).

    ``body`` is None where it is not here, ``said`` where it means nothing here. ``artifact`` came with it, under its name.
    """

    header: RecordHeader
    hash: bytes
    state: int
    body: bytes | None
    said: Body | None = None
    artifact: tuple[Reference, Artifact] | None = None


def continuation(domain: bytes, size: int, head: bytes, items: Sequence[BatchItem]) -> list[Incoming]:
    """``items`` as they follow a log of ``size`` records of ``domain`` whose last hash is ``head``.

    Raises:
        PeerError: a gap, another domain, a record that does not follow, a body that is not what its header says, an
            artifact that is not what its record says.
    """
    incoming = []
    name = domain.hex()[:16]
    for seq, (header, state, body, data) in enumerate(items, size + 1):
        what = f"record {seq} of {name}"
        if header.domain != domain or header.seq != seq:
            came = f"{header.seq} of {header.domain.hex()[:16]}"
            raise PeerError(what, f"this one comes next, and {came} was sent", _NOT_TAKEN)
        if header.prev != head:
            raise PeerError(what, "it does not follow the record before it", _NOT_TAKEN)
        if (body is None) != (state != BODY):
            raise PeerError(what, f"state {state} and its body do not agree", _NOT_TAKEN)
        said = None if body is None else _said(what, header, body)
        artifact = None if data is None else _carried(what, said, data)
        head = record_hash(header.to_bytes())
        incoming.append(Incoming(header, head, state, body, said, artifact))
    return incoming


def check_head(domain: bytes, key: bytes, head: SignedHead, size: int, last: bytes) -> None:
    """Check what ``head`` says against ``size`` records whose last hash is ``last``, and whose domain ``key`` makes.

    Raises:
        PeerError: they are not one domain's; the head covers fewer records; or as many, with another hash.
    """
    what = f"head of {head.domain.hex()[:16]} at {head.size}"
    if domain_of(key) != domain or head.domain != domain:
        raise PeerError(what, f"domain, key and head are those of {domain.hex()[:16]}", _NOT_TAKEN)
    if head.size < size:
        raise PeerError(what, f"it covers the records taken in, which reach to {size}", _NOT_TAKEN)
    if head.size == size and head.head != last:
        raise PeerError(what, f"its hash is that of record {size}", _NOT_TAKEN)


def stated(incoming: Sequence[Incoming]) -> dict[Reference, ArtifactBody | None]:
    """The artifacts that the records name, with what one of them says of tag and size.

    Edges are whole in their records.
    """
    found: dict[Reference, ArtifactBody | None] = {}
    for one in incoming:
        if isinstance(one.said, ArtifactBody):
            found[one.said.ref] = one.said
        elif isinstance(one.said, _NAMING):
            found.setdefault(one.said.ref, None)
    return found


def check_stated(said: ArtifactBody | None, tag: int | None, size: int, what: str) -> None:
    """Raise PeerError unless an artifact has the tag and size that its record says, if it says them."""
    if said is not None and (said.tag, said.size) != (tag, size):
        raise PeerError(what, f"its record says tag {said.tag}, {said.size} bytes; it has {tag}, {size}", _NOT_TAKEN)


def check_arrived(ref: Reference, named: Reference) -> None:
    """Raise PeerError unless the bytes that came for ``ref``, and whose name is ``named``, are those of it."""
    if named != ref:
        raise PeerError(f"artifact {ref.hex()}", f"its bytes have the name {named.hex()}", "do not take it")


def check_awaited(info: Callable[[Reference], ArtifactInfo], ref: Reference) -> None:
    """Raise NotFound if no record adds ``ref``, Erased if one says that its bytes are gone for good."""
    try:
        is_erased = info(ref).state == "erased"
    except Withheld:
        return  # as it has to be; no record says its size
    if is_erased:
        raise Erased(f"artifact {ref.hex()}", "a record says that its bytes were dropped for good", "do without")


def _carried(what: str, said: Body | None, data: bytes) -> tuple[Reference, Artifact]:
    artifact = Artifact.from_bytes(data)
    ref = Reference(SHA256, sha256(data).digest())  # they are what it would write again
    if not isinstance(said, _NAMING) or said.ref != ref:
        raise PeerError(f"{what}, its artifact", "the record does not name it", _NOT_TAKEN)
    check_stated(said if isinstance(said, ArtifactBody) else None, artifact.tag, len(artifact.payload), what)
    return ref, artifact


def _said(what: str, header: RecordHeader, body: bytes) -> Body | None:
    if len(body) != header.body_len or sha256(body).digest() != header.body_hash:
        raise PeerError(what, "its body is not what its header says", _NOT_TAKEN)
    if header.kind in TIMED_KINDS:
        if len(body) < 8:
            raise PeerError(what, "a timed body begins with an I64 tick", _NOT_TAKEN)
        return None
    try:
        return decode_body(header.kind, body)
    except CodecError as error:
        if header.flags & PUBLISHED:
            raise PeerError(what, f"its body is none of kind {header.kind:#04x}: {error.rule}", _NOT_TAKEN) from error
        return None  # what its writer told nobody means nothing to anybody
