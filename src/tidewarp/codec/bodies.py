"""Bodies of the store's records: what each kind says.

    02 ARTIFACT   ER | has_tag U8 [tag U32] | size U64
    03 EDGE       ER | EdgeBytes
    04 RECEIPT    ER | computation key 32 | n U32 ER* outputs
    10 TOMBSTONE  ER | scope U8 | reason U16 | U16 note | n U32 (domain 32, seq U64)* bounds
    11 LIFT       ER | scope U8 | record hash 32 of the tombstone
    12 ERASE      0 U8 ER, or 1 U8 seq U64 | reason U16
    2F BRANCH     parent domain 32 | seq U64 | head 32 | U16 name
    30 SNAPSHOT   SnapshotBytes | U16 name
    31 POINTER    U16 name | n U32 (record hash 32)* superseded | ER
    40 POLICY     ER
    41 KEYS       n U32 (public key 32)*
    42 RESOLVE    conflict 32 | choice 32
    43 EVIDENCE   conflict 32 | ER
    44 VERDICT    computation key 32 | n U32 ER* outputs
    50 REQUEST    ER

ER is an EncodedRef. Kind 01 is reserved and never written; the timed kinds (INPUT to RELEASED) carry a document of
their writer; 80 and above are opaque. Artifact payloads are in none of them, so that the bytes of one may go without
breaking the chain.
"""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

from tidewarp.codec.artifacts import TAG_EDGE, Artifact, artifact_head, read_artifact_head
from tidewarp.codec.edges import Edge
from tidewarp.codec.frames import Reader, count, hash32, text16, u8, u16, u64
from tidewarp.codec.references import SHA256, Reference, encode_references, read_reference, read_references
from tidewarp.codec.snapshots import Snapshot, read_snapshot
from tidewarp.errors import CodecError

__all__ = [
    "ARTIFACT",
    "BODY_KINDS",
    "BRANCH",
    "DOMAIN",
    "EDGE",
    "ERASE",
    "EVIDENCE",
    "FEDERATION",
    "KEYS",
    "LIFT",
    "POINTER",
    "POLICY",
    "RECEIPT",
    "REQUEST",
    "RESOLVE",
    "SNAPSHOT",
    "STICKY",
    "TOMBSTONE",
    "VERDICT",
    "ArtifactBody",
    "Body",
    "BranchBody",
    "EdgeBody",
    "EraseBody",
    "EvidenceBody",
    "KeysBody",
    "LiftBody",
    "PointerBody",
    "PolicyBody",
    "ReceiptBody",
    "RequestBody",
    "ResolveBody",
    "SnapshotBody",
    "TombstoneBody",
    "VerdictBody",
    "artifact_body",
    "decode_body",
    "plain_add",
]

ARTIFACT, EDGE, RECEIPT = 0x02, 0x03, 0x04
TOMBSTONE, LIFT, ERASE = 0x10, 0x11, 0x12
BRANCH = 0x2F
SNAPSHOT, POINTER = 0x30, 0x31
POLICY, KEYS, RESOLVE, EVIDENCE, VERDICT = 0x40, 0x41, 0x42, 0x43, 0x44
REQUEST = 0x50

DOMAIN, FEDERATION, STICKY = 0, 1, 2
"""Scopes of a tombstone: the writer's own adds; those of all that the curator had seen; also later ones."""

_SCOPES = frozenset({DOMAIN, FEDERATION, STICKY})
_SCOPE_RULE = "a scope is 0, 1 or 2"
_NO_RECORD = bytes(32)
_PLAIN_HEAD = b"\0\0\0\x22\0\1"  # of a body that adds an artifact without a tag: what stands before its SHA-256,
_PLAIN_FLAG = 38  # its flag that there is no tag,
_PLAIN_BYTES = 47  # and its length
_PLAIN_SIZE = struct.Struct(">BQ").unpack_from  # from the flag on


class Body(ABC):
    """What a record of one ``kind`` says. Two bodies are equal when their kinds and fields are."""

    __slots__ = ()
    kind: ClassVar[int]

    def to_bytes(self) -> bytes:
        """The bytes behind the record's header.

        Raises:
            CodecError: a field breaks its rule.
        """
        return self._written()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The body whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a body of this kind.
        """
        reader = Reader(data, cls.__name__)
        body = cls._read(reader)
        reader.end()
        return body

    @abstractmethod
    def _written(self) -> bytes: ...

    @classmethod
    @abstractmethod
    def _read(cls, reader: Reader) -> Self: ...


@dataclass(frozen=True, slots=True)
class ArtifactBody(Body):
    """An add of an artifact: its name, its tag (U32) and the bytes of its payload (U64)."""

    kind = ARTIFACT
    ref: Reference
    tag: int | None
    size: int

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """As of every body."""
        added = plain_add(data)
        if added is not None:  # as nearly all are
            return cls(added[0], None, added[1])
        return super(ArtifactBody, cls).from_bytes(data)

    def _written(self) -> bytes:
        return artifact_body(self.ref, self.tag, self.size)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(read_reference(reader), *read_artifact_head(reader))


def plain_add(data: bytes) -> tuple[Reference, int] | None:
    """Name and size of what an :class:`ArtifactBody` adds, if it has the one form that nearly all have; None: read it whole."""
    if len(data) == _PLAIN_BYTES and data.startswith(_PLAIN_HEAD) and not data[_PLAIN_FLAG]:
        return tuple.__new__(Reference, (SHA256, data[len(_PLAIN_HEAD) : _PLAIN_FLAG])), _PLAIN_SIZE(data, _PLAIN_FLAG)[
            1
        ]
    return None


def artifact_body(ref: Reference, tag: int | None, size: int) -> bytes:
    """The bytes of an :class:`ArtifactBody`, for who writes a thousand. Raises CodecError: as its ``to_bytes``."""
    return ref.encoded() + artifact_head(size, tag)


@dataclass(frozen=True, slots=True)
class EdgeBody(Body):
    """An add of an edge, whole, so that the graph is a function of records alone."""

    kind = EDGE
    edge: Edge

    @property
    def ref(self) -> Reference:
        """The name of the edge's artifact, hashed anew at each call."""
        return self.edge.reference()

    def _written(self) -> bytes:
        data = self.edge.to_bytes()
        return Artifact(data, TAG_EDGE).reference().encoded() + data

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        ref, data = read_reference(reader), reader.rest()
        if Artifact(data, TAG_EDGE).reference() != ref:
            raise reader.refusal("the reference is that of another edge")
        return cls(Edge.from_bytes(data))


@dataclass(frozen=True, slots=True)
class ReceiptBody(Body):
    """An add of a receipt, with the computation key (32 bytes) and the outputs that it claims."""

    kind = RECEIPT
    ref: Reference
    key: bytes
    outputs: tuple[Reference, ...]

    def _written(self) -> bytes:
        return self.ref.encoded() + hash32(self.key) + encode_references(self.outputs)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(read_reference(reader), reader.hash32(), read_references(reader))


@dataclass(frozen=True, slots=True)
class TombstoneBody(Body):
    """Hides an artifact. ``reason`` is a U16 for programs, ``note`` for people.

    ``bounds``, of scope FEDERATION alone, are the adds that the curator had seen: for each domain, ascending, the
    highest seq (from 1).
    """

    kind = TOMBSTONE
    ref: Reference
    scope: int = DOMAIN
    reason: int = 0
    note: str = ""
    bounds: tuple[tuple[bytes, int], ...] = ()

    def _written(self) -> bytes:
        broken = self._broken()
        if broken:
            raise CodecError(f"tombstone of scope {self.scope}", broken, "give what the scope asks for")
        bounds = b"".join([hash32(domain) + u64(seq) for domain, seq in self.bounds])
        head = self.ref.encoded() + u8(self.scope) + u16(self.reason) + text16(self.note)
        return head + count(len(self.bounds)) + bounds

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        ref, scope, reason, note = read_reference(reader), reader.u8(), reader.u16(), reader.text16()
        bounds = tuple([(reader.hash32(), reader.u64()) for _ in range(reader.count(32 + 8))])
        body = cls(ref, scope, reason, note, bounds)
        broken = body._broken()
        if broken:
            raise reader.refusal(broken)
        return body

    def _broken(self) -> str:
        if self.scope not in _SCOPES:
            return _SCOPE_RULE
        if self.bounds and self.scope != FEDERATION:
            return "only a tombstone of scope 1 has bounds"
        if any(one[0] >= other[0] for one, other in pairwise(self.bounds)):
            return "bounds ascend by domain, each once"
        if any(seq < 1 for _, seq in self.bounds):
            return "sequence numbers count from 1"
        return ""


@dataclass(frozen=True, slots=True)
class LiftBody(Body):
    """Takes back a tombstone of the same scope: the one with this record hash, or, in scope DOMAIN, the writer's own."""

    kind = LIFT
    ref: Reference
    scope: int = DOMAIN
    tombstone: bytes = _NO_RECORD

    def _written(self) -> bytes:
        broken = self._broken()
        if broken:
            raise CodecError(f"lift of scope {self.scope}", broken, "give what the scope asks for")
        return self.ref.encoded() + u8(self.scope) + hash32(self.tombstone)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        body = cls(read_reference(reader), reader.u8(), reader.hash32())
        broken = body._broken()
        if broken:
            raise reader.refusal(broken)
        return body

    def _broken(self) -> str:
        if self.scope not in _SCOPES:
            return _SCOPE_RULE
        if self.scope == DOMAIN and self.tombstone != _NO_RECORD:
            return "a lift of scope 0 names no tombstone: 32 zero bytes"
        return ""


@dataclass(frozen=True, slots=True)
class EraseBody(Body):
    """Drops bytes and keeps their identity: of an artifact, or of the body of the writer's own record ``seq``.

    One of the two is None. ``reason`` is a U16.
    """

    kind = ERASE
    ref: Reference | None
    seq: int | None
    reason: int = 0

    def _written(self) -> bytes:
        if self.ref is not None and self.seq is None:
            what = b"\0" + self.ref.encoded()
        elif self.ref is None and self.seq:
            what = b"\1" + u64(self.seq)
        else:
            raise CodecError(f"erasure of {self.ref} and record {self.seq}", "one of the two, from 1", "give one")
        return what + u16(self.reason)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        if not reader.flag():
            return cls(read_reference(reader), None, reader.u16())
        seq = reader.u64()
        if seq < 1:
            raise reader.refusal("sequence numbers count from 1")
        return cls(None, seq, reader.u16())


@dataclass(frozen=True, slots=True)
class BranchBody(Body):
    """The first record of a branch: what it continues, up to record ``seq``, whose hash is ``head``."""

    kind = BRANCH
    parent: bytes
    seq: int
    head: bytes
    name: str

    @property
    def domain(self) -> bytes:
        """The domain (32 bytes) of the branch, which no key signs for."""
        return hashlib.sha256(b"TWBR1" + self.to_bytes()).digest()

    def _written(self) -> bytes:
        return hash32(self.parent) + u64(self.seq) + hash32(self.head) + text16(self.name)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.hash32(), reader.u64(), reader.hash32(), reader.text16())


@dataclass(frozen=True, slots=True)
class SnapshotBody(Body):
    """A snapshot under a name."""

    kind = SNAPSHOT
    snapshot: Snapshot
    name: str

    def _written(self) -> bytes:
        return self.snapshot.to_bytes() + text16(self.name)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(read_snapshot(reader), reader.text16())


@dataclass(frozen=True, slots=True)
class PointerBody(Body):
    """A name that points to an artifact, in place of the values that the records of these hashes gave it.

    A multi-value register: what two sites wrote without seeing each other stands side by side until one supersedes both.
    """

    kind = POINTER
    name: str
    superseded: tuple[bytes, ...]
    ref: Reference

    def _written(self) -> bytes:
        return text16(self.name) + _hashes_written(self.superseded) + self.ref.encoded()

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.text16(), _read_hashes(reader), read_reference(reader))


@dataclass(frozen=True, slots=True)
class PolicyBody(Body):
    """The policy document that is in force in the writer's domain from here on."""

    kind = POLICY
    ref: Reference

    def _written(self) -> bytes:
        return self.ref.encoded()

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(read_reference(reader))


@dataclass(frozen=True, slots=True)
class KeysBody(Body):
    """The Ed25519 public keys (32 bytes each) that may sign the domain's later heads."""

    kind = KEYS
    keys: tuple[bytes, ...]

    def _written(self) -> bytes:
        return _hashes_written(self.keys)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(_read_hashes(reader))


@dataclass(frozen=True, slots=True)
class ResolveBody(Body):
    """The end of a conflict, by its id and the 32 bytes that name what was chosen."""

    kind = RESOLVE
    conflict: bytes
    choice: bytes

    def _written(self) -> bytes:
        return hash32(self.conflict) + hash32(self.choice)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.hash32(), reader.hash32())


@dataclass(frozen=True, slots=True)
class EvidenceBody(Body):
    """The artifact that shows a conflict to anybody."""

    kind = EVIDENCE
    conflict: bytes
    ref: Reference

    def _written(self) -> bytes:
        return hash32(self.conflict) + self.ref.encoded()

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.hash32(), read_reference(reader))


@dataclass(frozen=True, slots=True)
class VerdictBody(Body):
    """An auditor's word on the outputs of a computation key."""

    kind = VERDICT
    key: bytes
    outputs: tuple[Reference, ...]

    def _written(self) -> bytes:
        return hash32(self.key) + encode_references(self.outputs)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.hash32(), read_references(reader))


@dataclass(frozen=True, slots=True)
class RequestBody(Body):
    """A run that any site with the role may execute."""

    kind = REQUEST
    ref: Reference

    def _written(self) -> bytes:
        return self.ref.encoded()

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(read_reference(reader))


_BODIES: dict[int, type[Body]] = {
    body.kind: body
    for body in (
        ArtifactBody,
        EdgeBody,
        ReceiptBody,
        TombstoneBody,
        LiftBody,
        EraseBody,
        BranchBody,
        SnapshotBody,
        PointerBody,
        PolicyBody,
        KeysBody,
        ResolveBody,
        EvidenceBody,
        VerdictBody,
        RequestBody,
    )
}
BODY_KINDS = frozenset(_BODIES)
"""Kinds that :func:`decode_body` reads."""


def decode_body(kind: int, body: bytes) -> Body | None:
    """What the body of a record says; None for a kind that is stored and relayed, and means nothing to a view.

    Those are the timed, the reserved, the opaque and the unknown ones.

    Raises:
        CodecError: a kind of this module, and not the bytes of one of its bodies.
    """
    form = _BODIES.get(kind)
    return None if form is None else form.from_bytes(body)


def _hashes_written(hashes: tuple[bytes, ...]) -> bytes:
    return count(len(hashes)) + b"".join(map(hash32, hashes))


def _read_hashes(reader: Reader) -> tuple[bytes, ...]:
    return tuple([reader.hash32() for _ in range(reader.count(32))])
