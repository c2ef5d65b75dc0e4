"""References: the name of an artifact is a hash of its bytes.

    ReferenceBytes  hash id U16 | digest
    EncodedRef      U32 length | ReferenceBytes       wherever a reference stands inside something else

Hash id 1 is SHA-256. Another id but 0 is a framed value that nobody here can check: an edge may name it, an
artifact under it is never admitted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tidewarp.codec.frames import Reader, count, u32
from tidewarp.errors import CodecError

__all__ = [
    "DIGEST_BYTES_MAX",
    "DIGEST_BYTES_MIN",
    "ENCODED_BYTES_MIN",
    "SHA256",
    "Reference",
    "encode_optional",
    "encode_references",
    "read_optional_reference",
    "read_reference",
    "read_references",
]

SHA256 = 1
DIGEST_BYTES_MIN, DIGEST_BYTES_MAX = 2, 64

_HEAD = b"\0\1"  # of a SHA-256 reference
_ENCODED_HEAD = b"\0\0\0\x22" + _HEAD
_ENCODED_BYTES = 38
ENCODED_BYTES_MIN = 4 + 2 + DIGEST_BYTES_MIN
_TEXT_MAX = 2 * (2 + DIGEST_BYTES_MAX)
_ACTION = "give a reference as it was printed"


class Reference(NamedTuple):
    """The name of an artifact. References sort as their bytes do."""

    hash_id: int
    digest: bytes

    def to_bytes(self) -> bytes:
        """The hash id as U16, then the digest.

        Raises:
            CodecError: hash id 0 or above 65,535, SHA-256 without 32 bytes, any other without 2 to 64.
        """
        if self.hash_id == SHA256 and len(self.digest) == 32:
            return _HEAD + self.digest
        self._check()
        return self.hash_id.to_bytes(2, "big") + self.digest

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """The reference whose bytes are ``data``.

        Raises:
            CodecError: as :meth:`to_bytes`.
        """
        if len(data) == 34 and data.startswith(_HEAD):  # as nearly all are
            return cls(SHA256, data[2:])
        reference = cls(int.from_bytes(data[:2], "big"), data[2:])
        reference._check()
        return reference

    def encoded(self) -> bytes:
        """The bytes after their length as U32."""
        if self.hash_id == SHA256 and len(self.digest) == 32:
            return _ENCODED_HEAD + self.digest
        data = self.to_bytes()
        return u32(len(data)) + data

    def hex(self) -> str:
        """The bytes as lower-case digits: the text form, of 68 characters for SHA-256."""
        return self.to_bytes().hex()

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference whose text form is ``text``: the whole of it, in lower case.

        Raises:
            CodecError: anything else; the text is looked at, never looked up.
        """
        if len(text) > _TEXT_MAX:
            raise CodecError(f"a text of {len(text)} characters", f"a reference has at most {_TEXT_MAX}", _ACTION)
        try:
            data = bytes.fromhex(text)
        except ValueError:
            data = b""
        if not data or data.hex() != text:  # fromhex() takes upper case and blanks
            raise CodecError(f"{text[:80]!r}", "a reference is written in lower-case hexadecimal digits", _ACTION)
        return cls.from_bytes(data)

    def _check(self) -> None:
        size = len(self.digest)
        if not 0 < self.hash_id <= 0xFFFF:
            raise CodecError(f"a reference with hash id {self.hash_id}", "hash ids are 1 to 65535", _ACTION)
        if self.hash_id == SHA256:
            if size != 32:
                raise CodecError(f"a SHA-256 reference with {size} bytes", "the digest has 32 bytes", _ACTION)
        elif not DIGEST_BYTES_MIN <= size <= DIGEST_BYTES_MAX:
            raise CodecError(
                f"a reference with hash id {self.hash_id} and {size} bytes",
                f"a digest has {DIGEST_BYTES_MIN} to {DIGEST_BYTES_MAX} bytes",
                _ACTION,
            )


def read_reference(reader: Reader) -> Reference:
    """One EncodedRef."""
    data, at = reader.data, reader.at
    end = at + _ENCODED_BYTES
    if data.startswith(_ENCODED_HEAD, at) and end <= len(data):
        reader.at = end
        return Reference(SHA256, data[at + 6 : end])
    return Reference.from_bytes(reader.counted())


def read_references(reader: Reader) -> tuple[Reference, ...]:
    """A U32 count of at most 65,536, then as many EncodedRefs, in the order given, repetitions kept."""
    return tuple([read_reference(reader) for _ in range(reader.count(ENCODED_BYTES_MIN))])


def read_optional_reference(reader: Reader) -> Reference | None:
    """A flag, and an EncodedRef if it is 1."""
    return read_reference(reader) if reader.flag() else None


def encode_references(references: Collection[Reference]) -> bytes:
    """The form of :func:`read_references`.

    Raises:
        CodecError: more than 65,536 of them, or one of them has no bytes.
    """
    return count(len(references)) + b"".join([reference.encoded() for reference in references])


def encode_optional(reference: Reference | None) -> bytes:
    """The form of :func:`read_optional_reference`."""
    return b"\0" if reference is None else b"\1" + reference.encoded()
