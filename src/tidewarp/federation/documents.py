"""The JSON of the HTTP interface: one class per document, read strictly and written with its keys in this order.

Domains and hashes are lower-case hexadecimal, hashes of proofs base64. Nothing here is hashed but the page of heads, for its ETag.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from tidewarp.codec.heads import NOTE_BYTES_MAX, SignedHead
from tidewarp.errors import CodecError

__all__ = [
    "DOMAINS_PER_PAGE",
    "EVIDENCE_PER_PAGE",
    "PATH_MAX",
    "ChangesDocument",
    "EvidenceDocument",
    "HashDocument",
    "HeadDocument",
    "ProofDocument",
    "ProtocolDocument",
    "RefusalDocument",
    "TakenDocument",
    "decode_evidence",
    "decode_heads",
    "decode_json",
    "encode_json",
    "head_document",
    "proof_document",
]

DOMAINS_PER_PAGE = 1_000
PATH_MAX = 65
"""Hashes of a proof: a tree has at most 64 levels, and a consistency proof may name the node that it begins at."""

EVIDENCE_PER_PAGE = 1_000

Document = TypeVar("Document", bound=msgspec.Struct)
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Base64Hash = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9+/]{43}=\\Z")]


class HeadDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a peer shows of one domain: ``note`` is the signed head, ``key`` the root key that the domain's id is the hash of.

    ``size`` and ``head`` are those of the note, ``origin`` says that the peer writes this domain itself. ``notes`` are the
    signed heads that it leans on, ascending: see :mod:`tidewarp.store.signers`.

    With a ``bridge`` the note is of more records than the peer holds: ``size`` and ``head`` are of those that it does hold, and
    the bridge is the consistency proof from these to the note.
    """

    domain: Hash
    size: Size
    head: Hash
    note: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]
    status: Annotated[str, msgspec.Meta(max_length=32)]
    key: Hash
    origin: bool = False
    notes: tuple[Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)], ...] = ()
    bridge: Annotated[tuple[Base64Hash, ...], msgspec.Meta(max_length=PATH_MAX)] | msgspec.UnsetType = msgspec.UNSET

    def bridge_path(self) -> tuple[bytes, ...] | None:
        """The hashes of the bridge, 32 bytes each; None: the note is of what the peer holds."""
        return None if self.bridge is msgspec.UNSET else _path(self.bridge)

    def bridged(self, size: int, head: bytes, path: Sequence[bytes]) -> HeadDocument:
        """As it is shown by who holds ``size`` records, of which ``head`` is the hash of the last: ``path`` leads to the note."""
        return msgspec.structs.replace(self, size=size, head=head.hex(), bridge=proof_document(path).hashes)


class HashDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record hash."""

    hash: Hash


class ProofDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hashes of a proof, in order."""

    hashes: Annotated[tuple[Base64Hash, ...], msgspec.Meta(max_length=PATH_MAX)]

    def path(self) -> tuple[bytes, ...]:
        """The hashes, 32 bytes each."""
        return _path(self.hashes)


class ProtocolDocument(msgspec.Struct, frozen=True):
    """What a peer speaks: versions and limits, its own domain, and the kinds of records that it knows."""

    versions: tuple[int, ...]
    domain: str
    limits: dict[str, int]
    kinds: tuple[int, ...]


class EvidenceDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fork that a peer knows: the conflict's id, whose journal is forked, and the artifact that proves it, as text."""

    conflict: Hash
    domain: Hash
    evidence: Annotated[str, msgspec.Meta(max_length=132)]


class ChangesDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The domains that have grown, and the token to come with next time."""

    domains: tuple[Hash, ...]
    token: Hash


class TakenDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a parcel: the size of its domain before and now; what was refused or forked is counted."""

    domain: Hash
    before: Size
    after: Size
    conflicts: Size


class RefusalDocument(msgspec.Struct, frozen=True):
    """Why a request was refused: the value, the rule and the next action."""

    error: str
    rule: str
    next: str


def head_document(heads: Sequence[SignedHead], status: str, key: bytes, *, origin: bool = False) -> HeadDocument:
    """The document of the last of these ``heads`` of a domain whose root public ``key`` has 32 bytes; it leans on the others."""
    *notes, note = [one.note() for one in heads]
    domain, size, _, head, *_ = heads[-1]
    return HeadDocument(domain.hex(), size, head.hex(), note, status, key.hex(), origin, tuple(notes))


def proof_document(hashes: Sequence[bytes]) -> ProofDocument:
    """The document of a proof."""
    return ProofDocument(tuple([base64.b64encode(one).decode() for one in hashes]))


def encode_json(document: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document)


def decode_json(data: bytes, form: type[Document]) -> Document:
    """The document of ``form`` whose JSON is ``data``.

    Raises:
        CodecError: no JSON, not nested as it has to be, or a field that breaks its rule.
    """
    found: Document = _decoded(data, form)
    return found


def decode_heads(data: bytes) -> list[HeadDocument]:
    """A page of heads: at most 1,000, ascending by domain.

    Raises:
        CodecError: as :func:`decode_json`, or in another order.
    """
    page: list[HeadDocument] = _decoded(data, list[HeadDocument])
    if len(page) > DOMAINS_PER_PAGE:
        raise CodecError(f"{len(page)} heads", f"a page has at most {DOMAINS_PER_PAGE}", _ACTION)
    names = [one.domain for one in page]
    if names != sorted(set(names)):
        raise CodecError(f"{len(page)} heads", "they ascend by domain, each once", _ACTION)
    return page


def decode_evidence(data: bytes) -> list[EvidenceDocument]:
    """A page of conflicts: at most 1,000, ascending by id.

    Raises:
        CodecError: as :func:`decode_json`, or in another order.
    """
    page: list[EvidenceDocument] = _decoded(data, list[EvidenceDocument])
    names = [one.conflict for one in page]
    if len(page) > EVIDENCE_PER_PAGE or names != sorted(set(names)):
        raise CodecError(
            f"{len(page)} conflicts", f"a page has at most {EVIDENCE_PER_PAGE}, ascending by id, each once", _ACTION
        )
    return page


_ACTION = "send the documents of /v1"


def _path(hashes: Sequence[str]) -> tuple[bytes, ...]:
    return tuple([base64.b64decode(text) for text in hashes])


def _decoded(data: bytes, form: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CodecError(f"{len(data)} bytes of JSON", str(error), _ACTION) from None
