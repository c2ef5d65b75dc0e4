"""Records of the journal: a header of 122 bytes that commits to its body, its predecessor and its domain.

    "FR1" 01 | domain 32 | seq U64 | kind U8 | flags U8 | hlc U64 | prev 32 | body_len U32 | body_hash 32

All integers are big-endian. The hash of a record is the leaf hash of RFC 6962 over its header. Because the
header holds the body's hash, a body may be missing while the chain still verifies.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from tidewarp.errors import CodecError

__all__ = [
    "BODY_BYTES_MAX",
    "CHECKPOINT",
    "DIGEST",
    "HEADER",
    "HEADER_BYTES",
    "HEADER_REST",
    "HLC_MAX",
    "INPUT",
    "PUBLISHED",
    "RELEASED",
    "TIMED_KINDS",
    "Record",
    "RecordHeader",
    "checked_header",
    "domain_of",
    "genesis",
    "leaf_before_rest",
    "record_hash",
    "split_timed_body",
    "timed_body",
]

INPUT, CHECKPOINT, DIGEST, RELEASED = 0x20, 0x21, 0x22, 0x23
TIMED_KINDS = frozenset({INPUT, CHECKPOINT, DIGEST, RELEASED})
"""Kinds whose body begins with a tick."""

PUBLISHED = 0x01
"""The one flag: peers may have the body."""

HLC_MAX = (1 << 63) - 1
"""The greatest stamp, of the year 6429: a column of SQLite has 63 bits."""

BODY_BYTES_MAX = 1 << 20
HEADER_BYTES = 122
HEADER_REST = struct.Struct(">QBBQ32sI32s")
"""What stands in a header behind its domain: its other fields, in their order."""

_MAGIC = b"FR1\x01"
HEADER = struct.Struct(">4s32sQBBQ32sI32s")
"""The magic, then the fields of a header."""
_TICK = struct.Struct(">q")


class RecordHeader(NamedTuple):
    """What the chain hashes. ``domain``, ``prev`` and ``body_hash`` have 32 bytes, ``seq`` counts from 1.

    ``hlc`` (48 bit Unix ms, 16 bit counter) is for people; 0 means not stamped, and no rule reads it.
    """

    domain: bytes
    seq: int
    kind: int
    flags: int
    hlc: int
    prev: bytes
    body_len: int
    body_hash: bytes

    def to_bytes(self) -> bytes:
        """The 122 bytes.

        Raises:
            CodecError: a field breaks its rule.
        """
        try:
            data = HEADER.pack(_MAGIC, *self)
        except struct.error as error:
            raise CodecError(f"header of record {self.seq}", str(error), "keep each field in its range") from None
        if len(self.domain) != 32 or len(self.prev) != 32 or len(self.body_hash) != 32:
            raise CodecError(f"header of record {self.seq}", "a hash has 32 bytes", "give SHA-256 hashes")
        self._check()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> RecordHeader:
        """The header whose bytes are ``data``.

        Raises:
            CodecError: another length or version, seq 0, an unknown flag, a stamp above HLC_MAX, a body above 1 MiB.
        """
        if len(data) != HEADER_BYTES or data[:4] != _MAGIC:
            raise CodecError(
                f"{len(data)} bytes {data[:4].hex()}…", "not a record header of version 1", "send 122 bytes"
            )
        header = cls._make(HEADER.unpack(data)[1:])
        header._check()
        return header

    def _check(self) -> None:
        if not self.seq:
            raise CodecError("record 0", "sequence numbers count from 1", "number the records from 1")
        if self.flags & ~PUBLISHED:
            raise CodecError(f"flags {self.flags:#04x}", "only bit 0 (published) is known", "write 0 or 1")
        if self.hlc > HLC_MAX:
            raise CodecError(
                f"hlc {self.hlc}", "a stamp is below 2^63, before the year 6430", "write 0, or the time of now"
            )
        if self.body_len > BODY_BYTES_MAX:
            raise CodecError(
                f"body of {self.body_len} bytes",
                f"a body has at most {BODY_BYTES_MAX} bytes",
                "split it, or refer to it",
            )


def checked_header(fields: tuple[bytes, bytes, int, int, int, int, bytes, int, bytes]) -> RecordHeader:
    """The header of what :data:`HEADER` unpacks, for who reads a thousand. Raises CodecError as ``from_bytes``."""
    magic, _, seq, _, flags, hlc, _, body_len, _ = fields
    if magic != _MAGIC or not seq or flags > PUBLISHED or hlc > HLC_MAX or body_len > BODY_BYTES_MAX:
        return RecordHeader.from_bytes(HEADER.pack(*fields))  # which says what is wrong
    return tuple.__new__(RecordHeader, fields[1:])


class Record(NamedTuple):
    """One entry of a journal as it is read back: checked header, whole body."""

    header: RecordHeader
    body: bytes

    @property
    def seq(self) -> int:
        """Place in the journal, from 1."""
        return self.header.seq

    @property
    def logseq(self) -> int:
        """``seq`` under its published name."""
        return self.header.seq

    @property
    def kind(self) -> int:
        """What the body is: INPUT, CHECKPOINT, …"""
        return self.header.kind


def record_hash(header: bytes) -> bytes:
    """The hash that the next record names as ``prev``, from the 122 header bytes: SHA-256(``00`` | header)."""
    return hashlib.sha256(b"\0" + header).digest()


def leaf_before_rest(domain: bytes) -> bytes:
    """What :func:`record_hash` hashes before the HEADER_REST of a record of ``domain`` (32 bytes).

    For who hashes many headers of one domain: it takes a fraction of the time of making each.
    """
    return b"\0" + _MAGIC + domain


def genesis(domain: bytes) -> bytes:
    """``prev`` of a domain's first record."""
    return hashlib.sha256(b"ASLLOG/genesis" + domain).digest()


def domain_of(root_public_key: bytes) -> bytes:
    """The identity (32 bytes) of the journal that the holder of this Ed25519 key (32 bytes) writes."""
    return hashlib.sha256(b"TWDOM1" + root_public_key).digest()


def timed_body(tick: int, document: bytes) -> bytes:
    """A body of the :data:`TIMED_KINDS`: ``tick`` (ns of virtual time) as I64, then the document.

    Raises:
        CodecError: the tick is not an int64.
    """
    try:
        return _TICK.pack(tick) + document
    except struct.error:
        raise CodecError(f"tick {tick!r:.40}", "a tick is an int64", "give ns of virtual time") from None


def split_timed_body(body: bytes) -> tuple[int, bytes]:
    """The tick and the document's bytes of a timed body.

    Raises:
        CodecError: shorter than a tick.
    """
    if len(body) < _TICK.size:
        raise CodecError(
            f"body of {len(body)} bytes", "a timed body begins with an I64 tick", "write it as timed_body()"
        )
    return _TICK.unpack_from(body)[0], body[_TICK.size :]
