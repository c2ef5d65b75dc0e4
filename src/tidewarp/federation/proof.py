"""The proof of a fork: two records that one domain has at one place, each vouched for by a head that the domain signed.

    "FP1" 01 | root public key 32 | header 122 | header 122 | voucher | voucher
    voucher = size U64 | root 32 | path n U32 (hash 32)* | bridge n U32 (hash 32)* | U32 signed note | n U32 link*
    link    = U32 signed note | header 122 | U32 body | path n U32 (hash 32)*

Anybody can check it, alone and offline: the domain is the hash of the key. The two records stand in the order of their record
hashes, so that the same fork has the same bytes wherever it is found, but for the heads that were at hand.

The links are there if not the root key has signed the note: each is an earlier head, signed by the root key or by one that
the link before it names, with the KEYS record that it covers, and that names who signed the next.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import NamedTuple, Self

from tidewarp.codec.bodies import KeysBody
from tidewarp.codec.frames import Reader, count, counted, hash32, u64
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import verify_consistency, verify_inclusion
from tidewarp.codec.records import HEADER_BYTES, RecordHeader, domain_of, record_hash
from tidewarp.errors import CodecError, PeerError
from tidewarp.federation.contract import Holdings
from tidewarp.store.fold import fork_id
from tidewarp.store.signers import EARLIER_HEADS_MAX, is_keys

__all__ = ["ForkProof", "Link", "Voucher", "links_of"]

_MAGIC = b"FP1\x01"
_LINK_BYTES_MIN = 4 + HEADER_BYTES + 4 + 4
_ACTION = "ask for the proof again, or do not use it"


class Link(NamedTuple):
    """A head that a later one leans on, and the KEYS record that names who signed that; ``path`` is its inclusion proof."""

    head: SignedHead
    header: RecordHeader
    body: bytes
    path: tuple[bytes, ...]

    def check(self, domain: bytes, keys: Collection[bytes]) -> tuple[bytes, ...]:
        """The keys (32 bytes each) that ``domain`` (32 bytes) names here, if one of ``keys`` has signed that.

        Raises:
            PeerError: none has.
            CodecError: a hash has not 32 bytes, or the body is none of a KEYS record.
        """
        what = f"KEYS record {self.header.seq} of {self.header.domain.hex()}"
        if self.head.domain != domain or self.header.domain != domain:
            raise PeerError(what, f"it and its head are of {domain.hex()}", _ACTION)
        if not is_keys(self.header.kind, self.header.flags):
            raise PeerError(what, "it is a published record of keys", _ACTION)
        if len(self.body) != self.header.body_len or sha256(self.body).digest() != self.header.body_hash:
            raise PeerError(what, "its body is not the one of its header", _ACTION)
        self.head.verify(keys)
        head = self.head
        verify_inclusion(record_hash(self.header.to_bytes()), self.header.seq - 1, head.size, self.path, head.root)
        return KeysBody.from_bytes(self.body).keys

    def to_bytes(self) -> bytes:
        """The bytes. Raises CodecError: a field breaks its rule."""
        return counted(self.head.to_bytes()) + self.header.to_bytes() + counted(self.body) + _hashes_written(self.path)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """One link of ``reader``. Raises CodecError."""
        head, header = SignedHead.from_bytes(reader.counted()), RecordHeader.from_bytes(reader.take(HEADER_BYTES))
        return cls(head, header, reader.counted(), _read_hashes(reader))


class Voucher(NamedTuple):
    """Why a record is part of what its domain signed.

    ``path`` is the record's inclusion proof in the tree of ``size`` records, whose root (32 bytes) is ``root``, and ``bridge``
    the consistency proof from that tree to the one of ``head``, empty where they are the same. ``links`` lead from the root
    key to the one that signed ``head``.
    """

    size: int
    root: bytes
    path: tuple[bytes, ...]
    bridge: tuple[bytes, ...]
    head: SignedHead
    links: tuple[Link, ...] = ()

    def check(self, header: RecordHeader, key: bytes) -> None:
        """Return if this vouches for ``header``, and the root public ``key`` (32 bytes), or one that the links name, has signed.

        Raises:
            PeerError: it does not.
            CodecError: a hash has not 32 bytes.
        """
        if self.head.domain != header.domain:
            raise PeerError(f"head of {self.head.domain.hex()}", f"the record is of {header.domain.hex()}", _ACTION)
        keys: tuple[bytes, ...] = (key,)
        for link in self.links:
            keys = (key, *link.check(header.domain, keys))
        self.head.verify(keys)
        verify_consistency(self.size, self.head.size, self.bridge, self.root, self.head.root)
        verify_inclusion(record_hash(header.to_bytes()), header.seq - 1, self.size, self.path, self.root)

    def to_bytes(self) -> bytes:
        """The bytes. Raises CodecError: a field breaks its rule."""
        note = counted(self.head.to_bytes())
        links = count(len(self.links)) + b"".join([one.to_bytes() for one in self.links])
        return (
            u64(self.size)
            + hash32(self.root)
            + _hashes_written(self.path)
            + _hashes_written(self.bridge)
            + note
            + links
        )

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """One voucher of ``reader``. Raises CodecError."""
        size, root, path, bridge = reader.u64(), reader.hash32(), _read_hashes(reader), _read_hashes(reader)
        head = SignedHead.from_bytes(reader.counted())
        number = reader.count(_LINK_BYTES_MIN)
        if number > EARLIER_HEADS_MAX:
            raise reader.refusal(f"a head leans on at most {EARLIER_HEADS_MAX} others, not {number}")
        return cls(size, root, path, bridge, head, tuple([Link.read(reader) for _ in range(number)]))


class ForkProof(NamedTuple):
    """Two headers of one domain and seq, ascending by record hash, each with what vouches for it.

    ``key`` is the domain's root public key, 32 bytes.
    """

    key: bytes
    one: RecordHeader
    other: RecordHeader
    one_voucher: Voucher
    other_voucher: Voucher

    @classmethod
    def of(cls, key: bytes, *sides: tuple[RecordHeader, Voucher]) -> Self:
        """The proof of two records, given in either order."""
        (one, one_voucher), (other, other_voucher) = sorted(sides, key=lambda side: record_hash(side[0].to_bytes()))
        return cls(key, one, other, one_voucher, other_voucher)

    @property
    def domain(self) -> bytes:
        """Whose journal is forked, 32 bytes."""
        return self.one.domain

    @property
    def common(self) -> int:
        """Records that both branches have."""
        return self.one.seq - 1

    @property
    def conflict(self) -> bytes:
        """The name (32 bytes) of the conflict, the same whatever the vouchers are."""
        return fork_id(self.domain, self.one.seq)

    def check(self) -> None:
        """Return if this shows that the domain has signed two histories.

        Raises:
            PeerError: it does not show that.
            CodecError: a hash has not 32 bytes.
        """
        what = f"proof about record {self.one.seq} of {self.domain.hex()}"
        if domain_of(self.key) != self.domain:
            raise PeerError(what, f"{self.key.hex()} is not the root key of that domain", _ACTION)
        if (self.one.domain, self.one.seq) != (self.other.domain, self.other.seq):
            raise PeerError(what, "its records have one domain and one seq", _ACTION)
        if self.one == self.other:
            raise PeerError(what, "its records differ", _ACTION)
        if self.one.prev != self.other.prev:
            raise PeerError(what, "its records follow the same one: they are the first that differ", _ACTION)
        self.one_voucher.check(self.one, self.key)
        self.other_voucher.check(self.other, self.key)

    def to_bytes(self) -> bytes:
        """The bytes.

        Raises:
            CodecError: a field breaks its rule.
        """
        vouchers = self.one_voucher.to_bytes() + self.other_voucher.to_bytes()
        return _MAGIC + hash32(self.key) + self.one.to_bytes() + self.other.to_bytes() + vouchers

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The proof whose bytes are ``data``; :meth:`check` says whether it is true.

        Raises:
            CodecError: not the one form of such a proof.
        """
        reader = Reader(data, "proof of a fork")
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise reader.refusal("not a proof of a fork of version 1")
        key = reader.hash32()
        one, other = (RecordHeader.from_bytes(reader.take(HEADER_BYTES)) for _ in range(2))
        proof = cls(key, one, other, Voucher.read(reader), Voucher.read(reader))
        reader.end()
        if record_hash(one.to_bytes()) > record_hash(other.to_bytes()):
            raise CodecError("proof of a fork", "its records stand in the order of their hashes", _ACTION)
        return proof


def links_of(holdings: Holdings, heads: Sequence[SignedHead]) -> tuple[Link, ...]:
    """The links over ``heads`` of one domain, which are ``held`` and ascend; of those that cover a KEYS record."""
    links = []
    for one in heads:
        record = holdings.keys_record(one.domain, one.size)
        if record is not None and record.body is not None:
            path = tuple(holdings.inclusion_proof(one.domain, record.header.seq, one.size))
            links.append(Link(one, record.header, record.body, path))
    return tuple(links)


def _hashes_written(hashes: Sequence[bytes]) -> bytes:
    return count(len(hashes)) + b"".join(map(hash32, hashes))


def _read_hashes(reader: Reader) -> tuple[bytes, ...]:
    return tuple([reader.hash32() for _ in range(reader.count(32))])
