"""Records of another domain on their way in: do they continue what is here, and are their artifacts those they name? Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import compress
from operator import not_
from typing import Literal, NamedTuple, TypeAlias, overload

from tidewarp.codec import BODY_BYTES_MAX, PUBLISHED, TIMED_KINDS, RecordHeader, domain_of, record_hash
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BODY, BatchItem
from tidewarp.codec.bodies import (
    ARTIFACT,
    ArtifactBody,
    Body,
    EvidenceBody,
    PolicyBody,
    ReceiptBody,
    RequestBody,
    decode_body,
)
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import Frontier
from tidewarp.codec.records import HEADER_REST, leaf_before_rest
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError, Erased, PeerError, Withheld
from tidewarp.store.contract import ArtifactInfo

__all__ = [
    "Carried",
    "Continuation",
    "Incoming",
    "Mismatch",
    "Unfit",
    "check_arrived",
    "check_awaited",
    "check_head",
    "check_stated",
    "continued",
    "named_by",
    "read_item",
    "read_stubs",
    "stated",
]

_ENCODED_HEAD = b"\0\0\0\x22\0\1"  # of a SHA-256 reference in a body
_PLAIN_HEAD = struct.Struct(">BQ")  # of ArtifactBytes without a tag
_NAMING = (ArtifactBody, ReceiptBody, PolicyBody, RequestBody, EvidenceBody)
_NOT_TAKEN = "nothing was taken in; ask another peer, and look at what this one sent"

Mismatch: TypeAlias = Literal["payload_mismatch", "metadata_mismatch"]
"""Bytes that are not those their header or their record names; a record that says what cannot be true."""


class Unfit(PeerError):
    """Records that were sent are not the continuation of what is here.

    ``seq`` is the number of the first that is not, ``kind`` the conflict that it is, ``data`` the bytes of an artifact, where it
    is about one.
    """

    def __init__(self, kind: Mismatch, seq: int, value: str, rule: str, data: bytes = b"") -> None:
        super().__init__(value, rule, _NOT_TAKEN)
        self.kind = kind
        self.seq = seq
        self.data = data


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


class Carried(NamedTuple):
    """Records that add an artifact without a tag and bring it, column by column: ``digests`` (32 bytes each) name the ``payloads``."""

    headers: tuple[RecordHeader, ...] = ()
    digests: tuple[bytes, ...] = ()
    payloads: tuple[bytes, ...] = ()


class Grown(NamedTuple):
    """A Merkle tree with new leaves: its frontier, to be copied before it grows further, and the roots of the tiles that they filled."""

    frontier: Frontier
    tiles: tuple[bytes, ...]


class Continuation(Sequence[BatchItem]):
    """Records that continue a domain. There is none that was not checked, so that nobody need check it again.

    As a sequence it is the items that it was made of. ``hashes`` (32 bytes each) are those of their records, ``hash`` is that
    of the last. Nearly all records add a small artifact: these are ``carried``, what the check found out of the ``others``,
    in their order, stands with each of them.

    Args:
        domain: 32 bytes.
        before: records of it that are here.
        prev: hash of the last of these (32 bytes), or the domain's genesis.
        items: what was sent.

    Raises:
        Unfit: a gap, another domain, a record that does not follow, a body that is not what its header says, an artifact
            that is not what its record says.
    """

    __slots__ = ("_grown", "_items", "_records", "before", "carried", "domain", "hash", "hashes", "others", "prev")

    def __init__(self, domain: bytes, before: int, prev: bytes, items: Iterable[BatchItem]) -> None:
        self.domain = domain
        self.before = before
        self.prev = prev
        self._items = tuple(items)
        self._grown: tuple[bytes, Grown] | None = None
        self._records: tuple[Incoming, ...] | None = None
        hashes = _chained(domain, before, prev, self._items)
        if hashes is None:
            self.carried, self.others = Carried(), _one_by_one(domain, before, prev, self._items)
            hashes = [one.hash for one in self.others]
        else:
            marks, self.carried = _carried_by(self._items)
            left = compress(zip(self._items, hashes, strict=True), map(not_, marks))
            self.others = tuple([_read(item, hash_) for item, hash_ in left])
        self.hashes = hashes
        self.hash = hashes[-1] if hashes else prev

    @property
    def records(self) -> tuple[Incoming, ...]:
        """All records in order, with what the check found out of them."""
        if self._records is None:
            others = iter(self.others)
            added = {header.seq: (digest, payload) for header, digest, payload in zip(*self.carried, strict=True)}
            found = []
            for item, hash_ in zip(self._items, self.hashes, strict=True):
                if item.header.seq not in added:
                    found.append(next(others))
                    continue
                digest, payload = added[item.header.seq]
                ref = Reference(SHA256, digest)
                said = ArtifactBody(ref, None, len(payload))
                found.append(Incoming(item.header, hash_, BODY, item.body, said, (ref, Artifact(payload))))
            self._records = tuple(found)
        return self._records

    @property
    def size(self) -> int:
        """Records of the domain with these."""
        return self.before + len(self._items)

    def begins_at(self, domain: bytes, size: int, head: bytes) -> bool:
        """Is it the continuation of a log of ``size`` records of ``domain`` whose last hash is ``head``?"""
        return (self.domain, self.before, self.prev) == (domain, size, head)

    def grown(self, frontier: Frontier) -> Grown:
        """The tree over the records before, with these. It is made once, however often it is asked for of the same tree."""
        before = frontier.to_bytes()
        if self._grown is None or self._grown[0] != before:
            after = frontier.copy()
            tiles = after.extend(self.hashes)
            self._grown = before, Grown(after, tuple(tiles))
        return self._grown[1]

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> BatchItem: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[BatchItem]: ...
    def __getitem__(self, place: int | slice) -> BatchItem | Sequence[BatchItem]:
        return self._items[place]

    def __iter__(self) -> Iterator[BatchItem]:
        return iter(self._items)


def continued(domain: bytes, size: int, head: bytes, items: Iterable[BatchItem]) -> Continuation:
    """``items`` as the continuation of ``size`` records of ``domain`` whose last hash is ``head``; what is one, is not checked again.

    Raises:
        Unfit: as of :class:`Continuation`.
    """
    if isinstance(items, Continuation) and items.begins_at(domain, size, head):
        return items
    return Continuation(domain, size, head, items)


def read_item(item: BatchItem) -> Incoming:
    """What one record says and brings; whether it follows the one before is not asked.

    Raises:
        Unfit: its body is not what its header says, or its artifact not what its body says.
        CodecError: a field of its header breaks its rule.
    """
    return _read(item, record_hash(item.header.to_bytes()))


def read_stubs(held: Sequence[RecordHeader], items: Sequence[BatchItem]) -> list[Incoming]:
    """What records of one domain say of which the headers are ``held`` and the bodies have come now.

    Raises:
        Unfit: one is another record, its body has not come, they do not ascend, or as :func:`read_item`.
    """
    last = 0
    for header, item in zip(held, items, strict=True):
        if item.header != header:
            raise _unfit(header, "its header", "another one came with a body for it")
        if item.state != BODY:
            raise _unfit(header, "its body", "it was to come, and is not here")
        if header.seq <= last:
            raise _unfit(header, "its place", f"it came behind record {last}: they ascend, each once")
        last = header.seq
    return [read_item(item) for item in items]


def named_by(body: Body | None) -> Reference | None:
    """The artifact whose bytes belong to a record with this body; None where it names none, or is whole without them."""
    return body.ref if isinstance(body, _NAMING) else None


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


def stated(incoming: Iterable[Incoming]) -> dict[Reference, ArtifactBody | None]:
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


def _chained(domain: bytes, before: int, prev: bytes, items: Sequence[BatchItem]) -> list[bytes] | None:
    """The hashes of the records, if each header is whole and follows the one before; None: one does not, or may not.

    All at a time, since that takes a third of the time; which one it is, :func:`_one_by_one` says.
    """
    if not items:
        return []
    domains, seqs, kinds, flags, hlcs, prevs, body_lens, body_hashes = zip(*[one.header for one in items], strict=True)
    lead = leaf_before_rest(domain)
    try:
        rests = map(HEADER_REST.pack, seqs, kinds, flags, hlcs, prevs, body_lens, body_hashes)
        hashes = [one.digest() for one in map(sha256, map(lead.__add__, rests))]
    except (struct.error, TypeError):
        return None
    is_right = (
        domains.count(domain) == len(items)
        and seqs == tuple(range(before + 1, before + 1 + len(items)))
        and prevs == (prev, *hashes[:-1])
        and max(flags) <= PUBLISHED
        and max(body_lens) <= BODY_BYTES_MAX
        and {*map(len, body_hashes)} == {32}
    )
    return hashes if is_right else None


def _one_by_one(domain: bytes, before: int, prev: bytes, items: Sequence[BatchItem]) -> tuple[Incoming, ...]:
    """What the records say and bring. Raises Unfit as :class:`Continuation`, about the first that is wrong."""
    records = []
    for seq, item in enumerate(items, before + 1):
        header = item.header
        if header.domain != domain or header.seq != seq or header.prev != prev:
            came = f"record {header.seq} of {header.domain.hex()} behind {header.prev.hex()}"
            rule = f"record {seq} of {domain.hex()} behind {prev.hex()} comes next"
            raise Unfit("payload_mismatch", seq, came, rule)
        one = read_item(item)
        prev = one.hash
        records.append(one)
    return tuple(records)


def _carried_by(items: Sequence[BatchItem]) -> tuple[list[bool], Carried]:
    """Which of the items are of the one form that nearly all have, and are right; what does not fit has to be looked at."""
    marks, digests, payloads = [], [], []
    head_of, size_of = _PLAIN_HEAD.pack, len
    for header, state, body, data in items:
        is_right = False
        if data is not None and body is not None and header.kind == ARTIFACT and state == BODY and size_of(data) >= 9:
            digest, head = sha256(data).digest(), data[:9]
            is_right = (
                head == head_of(0, size_of(data) - 9)
                and body == _ENCODED_HEAD + digest + head
                and header.body_len == size_of(body)
                and sha256(body).digest() == header.body_hash
            )
            if is_right:
                digests.append(digest)
                payloads.append(data[9:])
        marks.append(is_right)
    headers = tuple(compress((one.header for one in items), marks))
    return marks, Carried(headers, tuple(digests), tuple(payloads))


def _read(item: BatchItem, hash_: bytes) -> Incoming:
    """As :func:`read_item`, of one whose header is whole, and has this hash."""
    header, state, body, data = item
    if state != BODY or body is None:
        if state == BODY or body is not None or data is not None:
            raise _unfit(header, f"in state {state}", "in state 0 its body comes with it, else nothing")
        return Incoming(header, hash_, state, None)
    if len(body) != header.body_len or sha256(body).digest() != header.body_hash:
        raise _unfit(header, "its body", "it is not the one that its header names")
    said = _said(header, body)
    return Incoming(header, hash_, state, body, said, None if data is None else _carried(header, said, data))


def _said(header: RecordHeader, body: bytes) -> Body | None:
    if header.kind in TIMED_KINDS:
        if len(body) < 8:
            raise _unfit(header, "its body", "a timed body begins with an I64 tick", kind="metadata_mismatch")
        return None
    try:
        return decode_body(header.kind, body)
    except CodecError as error:
        if header.flags & PUBLISHED:
            rule = f"it is none of kind {header.kind:#04x}: {error.rule}"
            raise _unfit(header, "its body", rule, kind="metadata_mismatch") from error
        return None  # what its writer told nobody means nothing to anybody


def _carried(header: RecordHeader, said: Body | None, data: bytes) -> tuple[Reference, Artifact]:
    """The artifact that came with a record, and its name."""
    try:
        artifact = Artifact.from_bytes(data)
    except CodecError as error:
        raise _unfit(header, "its artifact", str(error), data) from None
    digest = sha256(data).digest()  # they are what it would write again
    ref = named_by(said)
    if ref is None or ref.digest != digest or ref.hash_id != SHA256:
        name = "nothing" if ref is None else ref.hex()
        raise _unfit(header, "its artifact", f"it names {name} and brings {Reference(SHA256, digest).hex()}", data)
    payload, tag = artifact
    if isinstance(said, ArtifactBody) and (said.size != len(payload) or said.tag != tag):
        rule = f"its record says tag {said.tag}, {said.size} bytes; it has {tag}, {len(payload)}"
        raise _unfit(header, "its artifact", rule, data, kind="metadata_mismatch")
    return ref, artifact


def _unfit(
    header: RecordHeader, what: str, rule: str, data: bytes = b"", *, kind: Mismatch = "payload_mismatch"
) -> Unfit:
    return Unfit(kind, header.seq, f"record {header.seq} of {header.domain.hex()[:16]}, {what}", rule, data)
