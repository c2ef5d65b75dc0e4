"""Receipts: who claims to have run what, on what, with which outcome. And what names a run: its computation key.

    Receipt      version U16 = 1 | program ER | manifest ER | environment ER | U32 evaluator | output ER
                 | n U32 executor ER* | n U32 (executor ER, output ER)* | started U64 | completed U64 | TLV*
    TLV          type U16 | length U32 | value        types ascend, each once
    Manifest     n U32 ER* | has_params U8 [ER]
    Environment  canonical document {opreg, platform, scheme[, salt]}
    Listing      n U32 (U16 name, version U32, impl 32)*
    Executor     01 | public key 32 | U16 name
    RunRequest   program ER | has_params U8 [ER] | n U32 (00 ER  or  01 request ER, output U32)*
    key          SHA-256("PERK1" | scheme ER | program ER | n U32 ER* | has_params U8 [ER] | listing ER)

A receipt has times and a run id, so two of one computation differ. What they are compared by is the key, which is
a function of what determines the outputs and of nothing else, and the list of outputs.

After PER/FER/1 of the amduat documents, in a profile of our own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from tidewarp.codec import ed25519
from tidewarp.codec.artifacts import (
    TAG_ENVIRONMENT,
    TAG_EXECUTOR,
    TAG_LISTING,
    TAG_MANIFEST,
    TAG_RECEIPT,
    TAG_REQUEST,
    Artifact,
)
from tidewarp.codec.canonical import pack, unpack
from tidewarp.codec.frames import Reader, count, counted, text16, u8, u16, u32, u64
from tidewarp.codec.references import (
    Reference,
    encode_optional,
    encode_references,
    read_optional_reference,
    read_reference,
    read_references,
)
from tidewarp.errors import CodecError

__all__ = [
    "ANY_PLATFORM",
    "BY_CONSTRUCTION",
    "DECLARED",
    "SPOT_CHECKED",
    "UNKNOWN",
    "ClaimedComputation",
    "Determinism",
    "Environment",
    "Executor",
    "Listing",
    "ListingRow",
    "LogReference",
    "Manifest",
    "Receipt",
    "RequestOutput",
    "ResourceLimits",
    "RunRequest",
    "Signature",
    "computation_key",
    "platform_row",
    "read_computation",
    "salt_row",
]

UNKNOWN, DECLARED, SPOT_CHECKED, BY_CONSTRUCTION = range(4)
"""Levels of determinism that a receipt may claim."""

ANY_PLATFORM = "any"
"""The platform of an environment whose operations give the same bytes on each."""

_VERSION = 1
_FINGERPRINT, _RUN_ID, _LOGS, _LIMITS, _DETERMINISM, _SIGNATURE = range(1, 7)
_REFERENCE_BYTES_MIN = 8  # of an EncodedRef
_LOG_BYTES_MIN = 4 + _REFERENCE_BYTES_MIN + 4 + 32
_ROW_BYTES_MIN = 2 + 4 + 32
_ED25519 = 1


class LogReference(NamedTuple):
    """A log of the run: its kind (U32, the writer's affair), its artifact, and the SHA-256 of its text."""

    kind: int
    reference: Reference
    digest: bytes


class ResourceLimits(NamedTuple):
    """What the run was allowed, each a U64."""

    cpu_ms: int
    wall_ms: int
    max_rss_kib: int
    io_reads: int
    io_writes: int


class Determinism(NamedTuple):
    """How sure the executor is that a second run gives the same, and the seed that it used."""

    level: int
    seed: bytes = b""


class Signature(NamedTuple):
    """An Ed25519 public key (32 bytes) and its signature (64)."""

    public_key: bytes
    value: bytes


class Receipt(NamedTuple):
    """The claim that ``executors`` ran the program ``function``, and that ``output`` came out.

    ``output`` is the one output, or else the result (:meth:`~tidewarp.codec.results.Result.answer`). Executors
    ascend by their EncodedRef. Times are ns since 1970, both 0 in a receipt that is to be reproducible.
    """

    function: Reference
    manifest: Reference
    environment: Reference
    evaluator: bytes
    output: Reference
    executors: tuple[Reference, ...]
    started: int = 0
    completed: int = 0
    fingerprint: Reference | None = None
    run_id: bytes | None = None
    logs: tuple[LogReference, ...] | None = None
    limits: ResourceLimits | None = None
    determinism: Determinism | None = None
    signature: Signature | None = None

    def to_bytes(self) -> bytes:
        """The payload of the receipt's artifact.

        Raises:
            CodecError: executors or logs out of order, an end before the start, a number out of range.
        """
        broken = _broken(self)
        if broken:
            raise CodecError(f"receipt for {self.function.hex()}", broken, "correct the receipt")
        output = self.output.encoded()
        return b"".join(
            [
                u16(_VERSION),
                self.function.encoded(),
                self.manifest.encoded(),
                self.environment.encoded(),
                counted(self.evaluator),
                output,
                encode_references(self.executors),
                count(len(self.executors)),
                *[executor.encoded() + output for executor in self.executors],
                u64(self.started),
                u64(self.completed),
                *[u16(number) + counted(value) for number, value in _extension_values(self)],
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        """The receipt whose bytes are ``data``. A signature is not checked here (:meth:`signer`).

        Raises:
            CodecError: not the bytes of a receipt; a type of TLV that is not known is refused too.
        """
        reader = Reader(data, "receipt")
        version = reader.u16()
        if version != _VERSION:
            raise reader.refusal(f"version {_VERSION} is read, not {version}")
        function, manifest, environment = (read_reference(reader) for _ in range(3))
        evaluator, output = reader.counted(), read_reference(reader)
        executors = read_references(reader)
        parity = [
            (read_reference(reader), read_reference(reader)) for _ in range(reader.count(2 * _REFERENCE_BYTES_MIN))
        ]
        if parity != [(executor, output) for executor in executors]:
            raise reader.refusal("parity follows the executors and names the one output")
        receipt = cls(
            function, manifest, environment, evaluator, output, executors, reader.u64(), reader.u64()
        )._replace(**_read_extensions(reader))
        broken = _broken(receipt)
        if broken:
            raise reader.refusal(broken)
        return receipt

    def reference(self) -> Reference:
        """The name of the receipt's artifact."""
        return Artifact(self.to_bytes(), TAG_RECEIPT).reference()

    def signed(self, key: bytes, seed: bytes) -> Receipt:
        """The same with the signature of the Ed25519 ``seed`` over it and the computation ``key``, 32 bytes each.

        The key is not in a receipt, but follows from what it names; so a signature covers the order of the inputs.

        Raises:
            CodecError: the seed has not 32 bytes, or the receipt no bytes.
        """
        value = ed25519.sign(seed, self._signed_bytes(key))
        return self._replace(signature=Signature(ed25519.public_key_of(seed), value))

    def signer(self, key: bytes) -> bytes | None:
        """The public key whose valid signature the receipt for the computation ``key`` has; None if it has none.

        Raises:
            CodecError: the signature is not over this receipt and this key.
        """
        if self.signature is None:
            return None
        public_key, value = self.signature
        if not ed25519.is_signed(public_key, value, self._signed_bytes(key)):
            raise CodecError(
                f"receipt signed by {public_key.hex()}",
                f"the signature is not over it and the computation {key.hex()}",
                "refuse it, and ask its sender",
            )
        return public_key

    def _signed_bytes(self, key: bytes) -> bytes:
        return b"PERSIG1" + key + self._replace(signature=None).to_bytes()


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


class Executor(NamedTuple):
    """Who runs programs: an Ed25519 public key (32 bytes) and a name for people."""

    public_key: bytes
    name: str

    def to_bytes(self) -> bytes:
        """The payload of the executor's artifact.

        Raises:
            CodecError: the key has not 32 bytes, or the name more than 1,024.
        """
        if len(self.public_key) != 32:
            raise CodecError(f"key of {len(self.public_key)} bytes", "a public key has 32 bytes", "give the raw key")
        return u8(_ED25519) + self.public_key + text16(self.name)

    @classmethod
    def from_bytes(cls, data: bytes) -> Executor:
        """The executor whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of an executor.
        """
        reader = Reader(data, "executor")
        kind = reader.u8()
        if kind != _ED25519:
            raise reader.refusal(f"an executor has a key of kind {_ED25519}, not {kind}")
        executor = cls(reader.take(32), reader.text16())
        reader.end()
        return executor

    def reference(self) -> Reference:
        """The name of the executor's artifact."""
        return Artifact(self.to_bytes(), TAG_EXECUTOR).reference()


class ClaimedComputation(NamedTuple):
    """Which computation a receipt is about: its key (32 bytes), and what that follows from."""

    key: bytes
    manifest: Manifest
    environment: Environment
    listing: Listing


class RequestOutput(NamedTuple):
    """An output of the run that ``request`` asks for, counted from 0: an input that need not be there yet."""

    request: Reference
    output: int


RequestInput: TypeAlias = Reference | RequestOutput


class RunRequest(NamedTuple):
    """A run that any site may execute when its inputs are there."""

    program: Reference
    inputs: tuple[RequestInput, ...]
    params: Reference | None = None

    def to_bytes(self) -> bytes:
        """The payload of the request's artifact.

        Raises:
            CodecError: more than 65,536 inputs, or a number out of range.
        """
        return b"".join(
            [
                self.program.encoded(),
                encode_optional(self.params),
                count(len(self.inputs)),
                *[_request_input_bytes(source) for source in self.inputs],
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> RunRequest:
        """The request whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a request.
        """
        reader = Reader(data, "run request")
        program, params = read_reference(reader), read_optional_reference(reader)
        inputs = tuple([_read_request_input(reader) for _ in range(reader.count(1 + _REFERENCE_BYTES_MIN))])
        reader.end()
        return cls(program, inputs, params)

    def reference(self) -> Reference:
        """The name of the request's artifact."""
        return Artifact(self.to_bytes(), TAG_REQUEST).reference()


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


def _broken(receipt: Receipt) -> str:
    """The rule that a receipt breaks besides those of its fields, or nothing."""
    if not _ascend(executor.encoded() for executor in receipt.executors):
        return "executors ascend, each once"
    if receipt.started > receipt.completed:
        return f"a run that started at {receipt.started} does not complete at {receipt.completed}"
    logs = receipt.logs or ()
    if not _ascend((log.kind, log.reference.encoded()) for log in logs):
        return "logs ascend by kind and reference, each once"
    if any(len(log.digest) != 32 for log in logs):
        return "the digest of a log has 32 bytes"
    determinism = receipt.determinism
    if determinism is not None and not UNKNOWN <= determinism.level <= BY_CONSTRUCTION:
        return f"a level of determinism is {UNKNOWN} to {BY_CONSTRUCTION}, not {determinism.level}"
    signature = receipt.signature
    if signature is not None and (len(signature.public_key), len(signature.value)) != (32, ed25519.SIGNATURE_BYTES):
        return f"a signature has a key of 32 bytes and {ed25519.SIGNATURE_BYTES} of its own"
    return ""


def _broken_rows(rows: tuple[ListingRow, ...]) -> str:
    if not _ascend((row.name, row.version) for row in rows):
        return "operations ascend by name and version, each once"
    if any(len(row.impl) != 32 for row in rows):
        return "the digest of an implementation has 32 bytes"
    return ""


def _extension_values(receipt: Receipt) -> list[tuple[int, bytes]]:
    """The TLVs that the receipt has: (type, value), ascending."""
    values = []
    if receipt.fingerprint is not None:
        values.append((_FINGERPRINT, receipt.fingerprint.encoded()))
    if receipt.run_id is not None:
        values.append((_RUN_ID, counted(receipt.run_id)))
    if receipt.logs is not None:
        logs = [u32(log.kind) + log.reference.encoded() + counted(log.digest) for log in receipt.logs]
        values.append((_LOGS, count(len(logs)) + b"".join(logs)))
    if receipt.limits is not None:
        values.append((_LIMITS, b"".join([u64(limit) for limit in receipt.limits])))
    if receipt.determinism is not None:
        values.append((_DETERMINISM, u8(receipt.determinism.level) + counted(receipt.determinism.seed)))
    if receipt.signature is not None:
        values.append((_SIGNATURE, receipt.signature.public_key + receipt.signature.value))
    return values


def _read_extensions(reader: Reader) -> dict[str, Any]:
    """The TLVs up to the end, by the name of their field."""
    fields: dict[str, Any] = {}
    last = 0
    while reader.left:
        number = reader.u16()
        if not last < number <= _SIGNATURE:
            raise reader.refusal(f"a TLV of type {number} after {last}: types 1 to {_SIGNATURE} ascend, each once")
        last = number
        value = Reader(reader.counted(), f"TLV {number} of a receipt")
        if number == _FINGERPRINT:
            fields["fingerprint"] = read_reference(value)
        elif number == _RUN_ID:
            fields["run_id"] = value.counted()
        elif number == _LOGS:
            fields["logs"] = tuple([_read_log(value) for _ in range(value.count(_LOG_BYTES_MIN))])
        elif number == _LIMITS:
            fields["limits"] = ResourceLimits(*[value.u64() for _ in ResourceLimits._fields])
        elif number == _DETERMINISM:
            fields["determinism"] = Determinism(value.u8(), value.counted())
        else:
            fields["signature"] = Signature(value.take(32), value.take(ed25519.SIGNATURE_BYTES))
        value.end()
    return fields


def _read_log(reader: Reader) -> LogReference:
    return LogReference(reader.u32(), read_reference(reader), reader.counted())


def _read_request_input(reader: Reader) -> RequestInput:
    if reader.flag():
        return RequestOutput(read_reference(reader), reader.u32())
    return read_reference(reader)


def _request_input_bytes(source: RequestInput) -> bytes:
    if isinstance(source, RequestOutput):
        return b"\1" + source.request.encoded() + u32(source.output)
    return b"\0" + source.encoded()


def _ascend(items: Iterable[tuple[int, bytes] | tuple[str, int] | bytes]) -> bool:
    return all(one < other for one, other in pairwise(items))  # type: ignore[operator] # all of one type
