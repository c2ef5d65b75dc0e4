"""Computations: what names a run before it is made, and binds those together whose outputs must be equal.

    key          SHA-256("PERK1" | scheme ER | program ER | n U32 ER* | has_params U8 [ER] | listing ER)
    Manifest     n U32 ER* | has_params U8 [ER]
    Environment  canonical document {opreg, platform, scheme[, salt]}
    Listing      n U32 (U16 name, version U32, impl 32)*

The key is a function of what determines the outputs and of nothing else: no time, no host, no name of who ran it. A
receipt names manifest and environment, and whoever has these makes the key anew (:func:`read_computation`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from typing import NamedTuple

from tidewarp.codec.artifacts import TAG_ENVIRONMENT, TAG_LISTING, TAG_MANIFEST, Artifact
from tidewarp.codec.canonical import pack, unpack
from tidewarp.codec.frames import Reader, count, text16, u32
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.references import (
    Reference,
    encode_optional,
    encode_references,
    read_optional_reference,
    read_references,
)
from tidewarp.errors import CodecError

__all__ = [
    "ANY_PLATFORM",
    "ClaimedComputation",
    "Environment",
    "Listing",
    "ListingRow",
    "Manifest",
    "computation_key",
    "platform_row",
    "read_computation",
    "salt_row",
]

ANY_PLATFORM = "any"
"""The platform of an environment whose operations give the same bytes on each."""

_ROW_BYTES_MIN = 2 + 4 + 32


class Manifest(NamedTuple):
    """The inputs of a run in their order, repetitions kept, and its params."""

    inputs: tuple[Reference, ...]
    params: Reference | None = None

    def to_bytes(self) -> bytes:
        """The payload of the manifest's artifact.

        Raises:
            CodecError: more than 65,536 inputs.
        """
        return encode_references(self.inputs) + encode_optional(self.params)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a manifest.
        """
        reader = Reader(data, "input manifest")
        manifest = cls(read_references(reader), read_optional_reference(reader))
        reader.end()
        return manifest

    def reference(self) -> Reference:
        """The name of the manifest's artifact."""
        return Artifact(self.to_bytes(), TAG_MANIFEST).reference()


class Environment(NamedTuple):
    """What a run depends on besides its inputs: the operations, the platform if one is bound to it, the scheme.

    ``salt``: any bytes; another salt makes another computation of the same run, so that poisoned results can be disowned.
    """

    listing: Reference
    scheme: Reference
    platform: str = ANY_PLATFORM
    salt: bytes = b""

    def to_bytes(self) -> bytes:
        """The payload of the environment's artifact.

        Raises:
            CodecError: the platform has no UTF-8 form.
        """
        document: dict[str, str | bytes] = {
            "opreg": self.listing.to_bytes(),
            "platform": self.platform,
            "scheme": self.scheme.to_bytes(),
        }
        if self.salt:
            document["salt"] = self.salt
        return pack(document)

    @classmethod
    def from_bytes(cls, data: bytes) -> Environment:
        """The environment whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of an environment.
        """
        match unpack(data):
            case {"opreg": bytes(listing), "platform": str(platform), "scheme": bytes(scheme), **others}:
                salt = others.get("salt", b"")
                if type(salt) is bytes:
                    environment = cls(Reference.from_bytes(listing), Reference.from_bytes(scheme), platform, salt)
                    if environment.to_bytes() == data:
                        return environment
        raise CodecError(
            f"environment of {len(data)} bytes",
            "an environment is {opreg, platform, scheme} and maybe a salt, which is not empty",
            "send the bytes as they were made",
        )

    def reference(self) -> Reference:
        """The name of the environment's artifact."""
        return Artifact(self.to_bytes(), TAG_ENVIRONMENT).reference()


class ListingRow(NamedTuple):
    """An operation, and the digest (32 bytes) that names how it is implemented: zero for those of the kernel."""

    name: str
    version: int
    impl: bytes


class Listing(NamedTuple):
    """The operations that a program uses, ascending by name and version, each once.

    What else decides the outputs is a row too, of version 0: :func:`salt_row`, :func:`platform_row`.
    """

    rows: tuple[ListingRow, ...]

    @classmethod
    def of(cls, rows: Iterable[ListingRow]) -> Listing:
        """The listing of ``rows``, given in any order and repeated at will."""
        return cls(tuple(sorted(set(rows))))

    def to_bytes(self) -> bytes:
        """The payload of the listing's artifact.

        Raises:
            CodecError: rows that do not ascend, a digest without 32 bytes, more than 65,536 rows.
        """
        broken = _broken_rows(self.rows)
        if broken:
            raise CodecError(f"listing of {len(self.rows)} operations", broken, "make it with Listing.of()")
        return count(len(self.rows)) + b"".join(
            [text16(name) + u32(version) + impl for name, version, impl in self.rows]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Listing:
        """The listing whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a listing.
        """
        reader = Reader(data, "operation listing")
        rows = range(reader.count(_ROW_BYTES_MIN))
        listing = cls(tuple([ListingRow(reader.text16(), reader.u32(), reader.hash32()) for _ in rows]))
        reader.end()
        broken = _broken_rows(listing.rows)
        if broken:
            raise reader.refusal(broken)
        return listing

    def reference(self) -> Reference:
        """The name of the listing's artifact."""
        return Artifact(self.to_bytes(), TAG_LISTING).reference()


class ClaimedComputation(NamedTuple):
    """Which computation a receipt is about: its key (32 bytes), and what that follows from."""

    key: bytes
    manifest: Manifest
    environment: Environment
    listing: Listing


def computation_key(
    scheme: Reference,
    program: Reference,
    inputs: Collection[Reference],
    params: Reference | None,
    listing: Reference,
) -> bytes:
    """The 32 bytes that runs share whose outputs must be equal; the inputs count in their order, repetitions too.

    Raises:
        CodecError: more than 65,536 inputs.
    """
    parts = [scheme.encoded(), program.encoded(), encode_references(inputs), encode_optional(params), listing.encoded()]
    return hashlib.sha256(b"PERK1" + b"".join(parts)).digest()


def read_computation(receipt: Receipt, read: Callable[[Reference], Artifact]) -> ClaimedComputation:
    """The computation that ``receipt`` is about, made anew from what it names; ``read`` gives these artifacts.

    Raises:
        CodecError: one of them is not what the receipt says that it is. What ``read`` raises.
    """
    manifest = Manifest.from_bytes(_payload(read, receipt.manifest, TAG_MANIFEST, "manifest"))
    environment = Environment.from_bytes(_payload(read, receipt.environment, TAG_ENVIRONMENT, "environment"))
    listing = Listing.from_bytes(_payload(read, environment.listing, TAG_LISTING, "operation listing"))
    key = computation_key(environment.scheme, receipt.function, manifest.inputs, manifest.params, environment.listing)
    return ClaimedComputation(key, manifest, environment, listing)


def salt_row(salt: bytes) -> ListingRow:
    """The row that makes a computation differ from the same without the salt."""
    return ListingRow("salt", 0, hashlib.sha256(salt).digest())


def platform_row(platform: str) -> ListingRow:
    """The row that binds a computation to a platform."""
    return ListingRow("platform", 0, hashlib.sha256(platform.encode()).digest())


def _payload(read: Callable[[Reference], Artifact], ref: Reference, tag: int, what: str) -> bytes:
    payload, found = read(ref)
    if found != tag:
        shown = "no tag" if found is None else f"tag {found:#x}"
        raise CodecError(
            f"{what} {ref.hex()}", f"its artifact has tag {tag:#x}, not {shown}", "ask who wrote the receipt"
        )
    return payload


def _broken_rows(rows: tuple[ListingRow, ...]) -> str:
    if not all(one[:2] < other[:2] for one, other in pairwise(rows)):
        return "operations ascend by name and version, each once"
    if any(len(row.impl) != 32 for row in rows):
        return "the digest of an implementation has 32 bytes"
    return ""
