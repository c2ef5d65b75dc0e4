"""What a peer sent, against what its domain signed: header, chain, body, signed head and Merkle root, artifact bytes.

Nothing that is here trusts a length, a name or an order that a peer gave. What breaks a rule is a :class:`Refusal`,
which says of which kind of conflict it is; nothing of the batch is used then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tidewarp.codec.batches import BatchItem
from tidewarp.codec.bodies import ArtifactBody
from tidewarp.codec.frames import Reader, u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier, verify_consistency
from tidewarp.codec.records import RecordHeader, domain_of
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, PeerError, PeerRefused
from tidewarp.federation.documents import HeadDocument
from tidewarp.store.continuation import Continuation, Incoming, Unfit, named_by, read_stubs
from tidewarp.store.signers import check_bounds

__all__ = [
    "UNSTATED_BYTES_MAX",
    "ByteCheck",
    "Prefix",
    "Refusal",
    "Verified",
    "Wanted",
    "check_batch",
    "check_bodies",
    "check_bridge",
    "check_covered",
    "check_head",
    "heads_before",
]

UNSTATED_BYTES_MAX = 16 << 20
"""Payload bytes of an artifact whose record does not say its size: a receipt, a policy, a request, evidence."""

_HEAD_BYTES_MAX = 13  # of ArtifactBytes: what stands before the payload
_ACTION = "see what came: tidewarp peer status DIR; ask the peer's operator; other domains go on"


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
    """Records that continue a prefix, the prefix that they make, and the artifacts that they name and have not brought."""

    items: Continuation
    prefix: Prefix
    wanted: tuple[Wanted, ...]


def check_head(shown: HeadDocument, declared: Collection[bytes] = ()) -> SignedHead:
    """The signed head that a peer shows of a domain; whether it covers the records that it is bridged from is for the caller.

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
        is_bridged = shown.bridge_path() is not None
        is_same = (head.size, head.head.hex()) == (shown.size, shown.head)
        if head.domain != domain or not (0 < shown.size < head.size if is_bridged else is_same):
            raise Refusal("bad_signature", domain, what, "its note is about another head", note)
        head.verify((key, *declared))
    except Refusal:
        raise
    except PeerError as error:
        raise Refusal("bad_signature", domain, what, str(error), note) from None
    return head


def heads_before(shown: HeadDocument) -> list[HeadDocument]:
    """The heads that the one which a peer shows leans on, each with those before it; whether they are true is not asked.

    Raises:
        Refusal: they are too many, or not of this domain, ascending and behind the one that is shown.
    """
    domain = bytes.fromhex(shown.domain)
    what = f"{len(shown.notes)} heads that the one of {shown.domain} at {shown.size} leans on"
    try:
        heads = [SignedHead.parse(note) for note in shown.notes]
        check_bounds(domain, heads)
    except PeerError as error:
        raise Refusal("bad_signature", domain, what, str(error), shown.note.encode(errors="replace")) from None
    sizes = [one.size for one in heads] + [shown.size]
    if sizes != sorted(set(sizes)) or not sizes[0] or any(one.domain != domain for one in heads):
        raise Refusal("bad_signature", domain, what, "they are of this domain, and ascend to it", heads[0].to_bytes())
    return [
        HeadDocument(shown.domain, one.size, one.head.hex(), note, shown.status, shown.key, notes=shown.notes[:n])
        for n, (one, note) in enumerate(zip(heads, shown.notes, strict=True))
    ]


def check_batch(domain: bytes, prefix: Prefix, items: Sequence[BatchItem], data: bytes) -> Verified:
    """``items``, decoded from ``data``, as the continuation of ``prefix``. Whether a head covers them is for the caller.

    Raises:
        Refusal: a record of another domain, a gap, a broken chain, a body or an artifact that is not what its header
            or its record says.
    """
    size, head, frontier = prefix
    try:
        continuation = Continuation(domain, size, head, items)
    except Unfit as unfit:
        raise Refusal(unfit.kind, domain + u64(unfit.seq), unfit.value, unfit.rule, unfit.data or data) from None
    grown = continuation.grown(frontier).frontier
    bare = [record for record in continuation.others if record.artifact is None]
    wanted = [one for one in map(_wanted, bare) if one is not None]
    return Verified(continuation, Prefix(continuation.size, continuation.hash, grown), tuple(wanted))


def check_bodies(
    domain: bytes, held: Sequence[RecordHeader], items: Sequence[BatchItem], data: bytes
) -> tuple[Wanted, ...]:
    """Bodies that came for stubs, in ``items``, decoded from ``data``, against the headers that are ``held``.

    Returns the artifacts that they name and have not brought.

    Raises:
        Refusal: another record, one that comes twice, or a body or an artifact that is not what its header or its record says.
    """
    try:
        wanted = [_wanted(one) for one in read_stubs(held, items)]
    except Unfit as unfit:
        raise Refusal(unfit.kind, domain + u64(unfit.seq), unfit.value, unfit.rule, unfit.data or data) from None
    return tuple(one for one in wanted if one is not None)


def check_bridge(prefix: Prefix, head: SignedHead, bridge: Sequence[bytes]) -> None:
    """Return if ``head`` covers ``prefix``: it is the same tree, or ``bridge`` is the consistency proof between the two.

    Raises:
        Refusal: it does not.
    """
    check_covered(prefix.size, prefix.frontier.root(), head, bridge)
    if prefix.size == head.size and prefix.head != head.head:
        at = f"{prefix.size} records of {head.domain.hex()}"
        rule = f"the last has the hash {prefix.head.hex()}, the head names {head.head.hex()}"
        raise _mismatch(head.domain, prefix.size, at, rule, head.to_bytes())


def check_covered(size: int, root: bytes, head: SignedHead, bridge: Sequence[bytes]) -> None:
    """Return if ``bridge`` shows that ``head`` covers the ``size`` records whose tree has this ``root``. Raises Refusal."""
    try:
        verify_consistency(size, head.size, bridge, root, head.root)
    except PeerError as error:
        # The records may be true and the proof false: what is at odds with the signature is not known.
        at = f"{size} records of {head.domain.hex()}"
        raise _mismatch(head.domain, size, at, str(error), head.to_bytes()) from None


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


def _wanted(record: Incoming) -> Wanted | None:
    """The artifact whose bytes a record has not brought, and that may be had."""
    if record.artifact is not None or record.said is None:
        return None
    named = named_by(record.said)
    # Under a hash that we cannot compute nothing can be admitted. Who shows the body of a record, shows its artifact too.
    if named is None or named.hash_id != SHA256:
        return None
    return Wanted(record.header.seq, named, record.said if isinstance(record.said, ArtifactBody) else None)


def _check_stated(
    domain: bytes, seq: int, stated: ArtifactBody | None, tag: int | None, size: int, data: bytes
) -> None:
    if stated is not None and (stated.tag, stated.size) != (tag, size):
        rule = f"it says tag {stated.tag} and {stated.size} bytes, the artifact has tag {tag} and {size} bytes"
        raise Refusal("metadata_mismatch", domain + u64(seq), f"record {seq} of {domain.hex()}", rule, data)


def _mismatch(domain: bytes, seq: int, value: str, rule: str, data: bytes) -> Refusal:
    return Refusal("payload_mismatch", domain + u64(seq), value, rule, data)
