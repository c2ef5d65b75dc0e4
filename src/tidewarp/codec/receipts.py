"""Receipts: who claims to have run what, on what, with which outcome.

    Receipt      version U16 = 1 | program ER | manifest ER | environment ER | U32 evaluator | output ER
                 | n U32 executor ER* | n U32 (executor ER, output ER)* | started U64 | completed U64 | TLV*
    TLV          type U16 | length U32 | value        types ascend, each once
    Executor     01 | public key 32 | U16 name

A receipt has times and a run id, so two of one computation differ. What they are compared by is the computation key
(:mod:`~tidewarp.codec.computations`) and the list of outputs.

After PER/FER/1 of the amduat documents, in a profile of our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from tidewarp.codec import ed25519
from tidewarp.codec.artifacts import TAG_EXECUTOR, TAG_RECEIPT, Artifact
from tidewarp.codec.frames import Reader, count, counted, text16, u8, u16, u32, u64
from tidewarp.codec.references import ENCODED_BYTES_MIN, Reference, encode_references, read_reference, read_references
from tidewarp.errors import CodecError

__all__ = [
    "BY_CONSTRUCTION",
    "DECLARED",
    "SPOT_CHECKED",
    "UNKNOWN",
    "Determinism",
    "Executor",
    "LogReference",
    "Receipt",
    "ResourceLimits",
    "Signature",
]

UNKNOWN, DECLARED, SPOT_CHECKED, BY_CONSTRUCTION = range(4)
"""Levels of determinism that a receipt may claim."""

_VERSION = 1
_FINGERPRINT, _RUN_ID, _LOGS, _LIMITS, _DETERMINISM, _SIGNATURE = range(1, 7)
_LOG_BYTES_MIN = 4 + ENCODED_BYTES_MIN + 4 + 32
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
        parity = [(read_reference(reader), read_reference(reader)) for _ in range(reader.count(2 * ENCODED_BYTES_MIN))]
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


def _ascend(items: Iterable[tuple[int, bytes] | bytes]) -> bool:
    return all(one < other for one, other in pairwise(items))  # type: ignore[operator] # all of one type
