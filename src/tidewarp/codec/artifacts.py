"""Artifacts: bytes with an optional type tag, named by the SHA-256 of both.

    ArtifactBytes   has_tag U8 | [tag U32] | size U64 | payload

The tag is part of the identity. Tags up to 0x301 are the published ones of the amduat documents (PEL/1, TGK/1,
FER/1), those from 0x5457_0001 on are ours.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from tidewarp.codec.frames import Reader
from tidewarp.codec.references import SHA256, Reference
from tidewarp.errors import CodecError

__all__ = [
    "EMPTY",
    "TAG_CHECKPOINT",
    "TAG_EDGE",
    "TAG_ENVIRONMENT",
    "TAG_EVIDENCE",
    "TAG_EXECUTION_LOG",
    "TAG_EXECUTOR",
    "TAG_LISTING",
    "TAG_MANIFEST",
    "TAG_MODEL",
    "TAG_POLICY",
    "TAG_PROGRAM",
    "TAG_RECEIPT",
    "TAG_REQUEST",
    "TAG_RESULT",
    "TAG_SCHEME",
    "TAG_SEGMENT",
    "TAG_TRACE",
    "Artifact",
    "artifact_head",
    "read_artifact_head",
]

TAG_PROGRAM, TAG_TRACE, TAG_RESULT = 0x101, 0x102, 0x103
TAG_EDGE = 0x201
TAG_RECEIPT = 0x301
TAG_SCHEME = 0x5457_0001
"""What a program's bytes mean."""
TAG_LISTING = 0x5457_0002
"""The operations that a program uses, each with its implementation's digest."""
TAG_MANIFEST = 0x5457_0003
"""The inputs of a run."""
TAG_ENVIRONMENT = 0x5457_0004
TAG_EXECUTOR = 0x5457_0005
TAG_REQUEST = 0x5457_0006
"""A run that any site may execute."""
TAG_EXECUTION_LOG = 0x5457_0007
TAG_EVIDENCE = 0x5457_0008
TAG_POLICY = 0x5457_0009
TAG_SEGMENT = 0x5457_0010
"""Records of a journal, as a batch."""
TAG_CHECKPOINT = 0x5457_0011
TAG_MODEL = 0x5457_0012
"""Name, reference and digest of a model."""

_UNTAGGED = struct.Struct(">BQ")
_TAGGED = struct.Struct(">BIQ")
_SIZE = struct.Struct(">Q")


class Artifact(NamedTuple):
    """A payload and its type tag (U32), or None."""

    payload: bytes
    tag: int | None = None

    def to_bytes(self) -> bytes:
        """What is hashed.

        Raises:
            CodecError: the tag is no U32.
        """
        return artifact_head(len(self.payload), self.tag) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Artifact:
        """The artifact whose bytes are ``data``.

        Raises:
            CodecError: truncated, or a size that is not that of the payload.
        """
        if data[:1] == b"\0" and int.from_bytes(data[1:9], "big") == len(data) - _UNTAGGED.size:  # as most are
            return cls(data[9:])
        reader = Reader(data, "artifact")
        tag, size = read_artifact_head(reader)
        payload = reader.take(size)
        reader.end()
        return cls(payload, tag)

    def reference(self) -> Reference:
        """Its name: SHA-256 of :meth:`to_bytes`."""
        digest = hashlib.sha256(artifact_head(len(self.payload), self.tag))
        digest.update(self.payload)
        return Reference(SHA256, digest.digest())


def artifact_head(size: int, tag: int | None = None) -> bytes:
    """What is hashed before a payload of ``size`` bytes, which may then be hashed in pieces.

    Raises:
        CodecError: the tag is no U32, or the size no U64.
    """
    try:
        return _UNTAGGED.pack(0, size) if tag is None else _TAGGED.pack(1, tag, size)
    except struct.error as error:
        raise CodecError(f"artifact of {size!r:.40} bytes, tag {tag!r:.40}", str(error), "give ints in range") from None


def read_artifact_head(reader: Reader) -> tuple[int | None, int]:
    """Tag and size, as :func:`artifact_head` writes them."""
    data, at = reader.data, reader.at
    if len(data) - at >= _UNTAGGED.size and not data[at]:  # as most are
        reader.at = at + _UNTAGGED.size
        return None, _SIZE.unpack_from(data, at + 1)[0]
    return reader.u32() if reader.flag() else None, reader.u64()


EMPTY = Artifact(b"").reference()
"""The artifact without tag and payload, which stands where there is nothing to name."""
