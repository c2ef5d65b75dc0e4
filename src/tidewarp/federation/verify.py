"""What a peer sent, against what its domain signed: header, chain, body, signed head and Merkle root, artifact bytes.

Nothing that is here trusts a length, a name or an order that a peer gave. What breaks a rule is a :class:`Refusal`,
which says of which kind of conflict it is; nothing of the batch is used then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import ArtifactBody, Body, EvidenceBody, PolicyBody, ReceiptBody, RequestBody, decode_body
from tidewarp.codec.frames import Reader, u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier, verify_consistency
from tidewarp.codec.records import PUBLISHED, TIMED_KINDS, domain_of, record_hash, split_timed_body
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, PeerError, PeerRefused
from tidewarp.federation.documents import HeadDocument

__all__ = [
    "UNSTATED_BYTES_MAX",
    "ByteCheck",
    "Prefix",
    "Refusal",
    "Verified",
    "Wanted",
    "check_batch",
    "check_bridge",
    "check_head",
    "named_by",
]

UNSTATED_BYTES_MAX = 16 << 20
"""Payload bytes of an artifact whose record does not say its size: a receipt, a policy, a request, evidence."""

_HEAD_BYTES_MAX = 13  # of ArtifactBytes: what stands before the payload
_ACTION = "look at the quarantine, and ask the peer's operator; other domains go on"


class Refusal(PeerRefused):
    """What a peer sent about one domain cannot be true.

    Args:
        kind: of the conflict that it is, as in the table of conflicts.
        key: what the conflict is about: a domain, and maybe the seq of a record as U64.
        value, rule: as of any error.
        data: the bytes that were refused.
    """

    def __init__(self, kind: str, key: bytes, value: str, rule: str, data: bytes = b"") -> None:
        super().__init__(value, rule, _ACTION)
        self.kind = kind
        self.key = key
        self.data = data


class Prefix(NamedTuple):
    """A verified beginning of a domain: its records, the hash of the last (or the genesis), and their tree."""

    size: int
    head: bytes
    frontier: Frontier


class Wanted(NamedTuple):
    """An artifact that record ``seq`` names and whose bytes did not come with it. ``stated``: the record says tag and size."""

    seq: int
    reference: Reference
    stated: ArtifactBody | None

    @property
    def size(self) -> int:
        """Bytes of its payload, at most."""
        return UNSTATED_BYTES_MAX if self.stated is None else self.stated.size


class Verified(NamedTuple):
    """Records that continue a prefix, their hashes, the prefix that they make, and the artifacts that they name."""

    items: tuple[BatchItem, ...]
    hashes: tuple[bytes, ...]
    prefix: Prefix
    wanted: tuple[Wanted, ...]


def check_head(shown: HeadDocument, declared: Collection[bytes] = ()) -> SignedHead:
    """The signed head that a peer shows of a domain.

    ``declared`` are the keys (32 bytes each) that KEYS records name, as far as an earlier valid head covers these.

    Raises:
        Refusal: the key is not that of the domain, the note says something else than its document, or nobody who may has signed it.
    """
    domain, key = bytes.fromhex(shown.domain), bytes.fromhex(shown.key)
    what = f"head of {shown.domain} at {shown.size}"
    if domain_of(key) != domain:
        raise Refusal("bad_signature", domain, what, f"{shown.key} is not the root key of that domain", key)
    note = shown.note.encode(errors="replace")
    try:
        head = SignedHead.parse(shown.note)
        if (head.domain, head.size, head.head.hex()) != (domain, shown.size, shown.head):
            raise Refusal("bad_signature", domain, what, "its note is about another head", note)
        head.verify((key, *declared))
    except Refusal:
        raise
    except PeerError as error:
        raise Refusal("bad_signature", domain, what, str(error), note) from None
    return head


def check_batch(domain: bytes, prefix: Prefix, items: Sequence[BatchItem], data: bytes) -> Verified:
    """``items``, decoded from ``data``, as the continuation of ``prefix``. Whether a head covers them is for the caller.

    Raises:
        Refusal: a record of another domain, a gap, a broken chain, a body or an artifact that is not what its header
            or its record says.
    """
    size, head, frontier = prefix
    hashes: list[bytes] = []
    wanted: list[Wanted] = []
    for item in items:
        size += 1
        header = item.header
        if header.domain != domain or header.seq != size or header.prev != head:
            at = f"record {header.seq} of {header.domain.hex()}"
            raise _mismatch(domain, size, at, f"record {size} of {domain.hex()} behind {head.hex()} was to come", data)
        head = record_hash(header.to_bytes())
        hashes.append(head)
        if item.state == BODY:
            wanted += _check_body(domain, item, data)
        elif item.artifact is not None:
            raise _mismatch(
                domain, size, f"record {size}", "bytes came with a record that has no body to name them", data
            )
    grown = frontier.copy()
    grown.extend(hashes)
    return Verified(tuple(items), tuple(hashes), Prefix(size, head, grown), tuple(wanted))


def check_bridge(prefix: Prefix, head: SignedHead, bridge: Sequence[bytes]) -> None:
    """Return if ``head`` covers ``prefix``: it is the same tree, or ``bridge`` is the consistency proof between the two.

    Raises:
        Refusal: it does not.
    """
    root = prefix.frontier.root()
    at = f"{prefix.size} records of {head.domain.hex()}"
    try:
        verify_consistency(prefix.size, head.size, bridge, root, head.root)
        if prefix.size == head.size and prefix.head != head.head:
            raise PeerError(at, f"the last has the hash {prefix.head.hex()}, the head names {head.head.hex()}", _ACTION)
    except PeerError as error:
        # The records may be true and the proof false: what is at odds with the signature is not known.
        raise _mismatch(head.domain, prefix.size, at, str(error), head.to_bytes()) from None


def named_by(body: Body | None) -> Reference | None:
    """The artifact whose bytes belong to a record with this body; None where it names none, or is whole without them."""
    return body.ref if isinstance(body, ArtifactBody | ReceiptBody | PolicyBody | RequestBody | EvidenceBody) else None


class ByteCheck:
    """Checks ArtifactBytes in the pieces in which they come: :meth:`feed` each, then :meth:`end`.

    ``size`` counts the bytes so far. Both methods raise Refusal; then no byte of it may be used.
    """

    def __init__(self, domain: bytes, wanted: Wanted) -> None:
        self.size = 0
        self._domain = domain
        self._wanted = wanted
        self._head = b""
        self._hash = hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        """The next bytes, maybe none."""
        self.size += len(piece)
        if self.size > self._wanted.size + _HEAD_BYTES_MAX:
            raise self._refusal(f"its payload has at most {self._wanted.size} bytes, {self.size} have come")
        self._head += piece[: _HEAD_BYTES_MAX - len(self._head)]
        self._hash.update(piece)

    def end(self) -> None:
        """That was all."""
        if self._hash.digest() != self._wanted.reference.digest:
            raise self._refusal(f"{self.size} bytes came that hash to {self._hash.hexdigest()}")
        reader = Reader(self._head, "artifact")
        try:
            tag, size = reader.u32() if reader.flag() else None, reader.u64()
        except CodecError as error:
            raise self._refusal(str(error)) from None
        if size != self.size - reader.at:
            raise self._refusal(f"it declares {size} bytes of payload and has {self.size - reader.at}")
        _check_stated(self._domain, self._wanted.seq, self._wanted.stated, tag, size, self._head)

    def _refusal(self, rule: str) -> Refusal:
        wanted = self._wanted
        return _mismatch(self._domain, wanted.seq, f"artifact {wanted.reference.hex()}", rule, self._head)


def _check_body(domain: bytes, item: BatchItem, data: bytes) -> list[Wanted]:
    """What the record names and has not brought: nothing, or one artifact."""
    header, body = item.header, item.body
    at = f"record {header.seq} of {domain.hex()}"
    if body is None or len(body) != header.body_len or hashlib.sha256(body).digest() != header.body_hash:
        raise _mismatch(domain, header.seq, at, "its body is not the one that its header names", data)
    try:
        if header.kind in TIMED_KINDS:
            split_timed_body(body)
        said = decode_body(header.kind, body)
    except CodecError as error:
        raise Refusal("metadata_mismatch", domain + u64(header.seq), at, str(error), data) from None
    stated = said if isinstance(said, ArtifactBody) else None
    named = named_by(said)
    if item.artifact is None:
        # Under a hash that we cannot compute nothing can be admitted, and what is not published nobody gives.
        is_to_be_had = named is not None and named.hash_id == SHA256 and header.flags & PUBLISHED
        return [Wanted(header.seq, named, stated)] if named is not None and is_to_be_had else []
    try:
        artifact = Artifact.from_bytes(item.artifact)
        reference = Reference(SHA256, hashlib.sha256(item.artifact).digest())  # they are what it would write again
    except CodecError as error:
        raise _mismatch(domain, header.seq, at, str(error), item.artifact) from None
    if reference != named:
        name = "nothing" if named is None else named.hex()
        rule = f"it names {name} and brings {reference.hex()}"
        raise _mismatch(domain, header.seq, at, rule, item.artifact)
    _check_stated(domain, header.seq, stated, artifact.tag, len(artifact.payload), item.artifact)
    return []


def _check_stated(
    domain: bytes, seq: int, stated: ArtifactBody | None, tag: int | None, size: int, data: bytes
) -> None:
    if stated is not None and (stated.tag, stated.size) != (tag, size):
        rule = f"it says tag {stated.tag} and {stated.size} bytes, the artifact has tag {tag} and {size} bytes"
        raise Refusal("metadata_mismatch", domain + u64(seq), f"record {seq} of {domain.hex()}", rule, data)


def _mismatch(domain: bytes, seq: int, value: str, rule: str, data: bytes) -> Refusal:
    return Refusal("payload_mismatch", domain + u64(seq), value, rule, data)
