"""Results and traces: what a run of a program came to, and what each of its nodes did.

    Result  version U16 = 1 | status U8 | kind U8 | code U32 | scheme ER | program ER | inputs n U32 ER*
            | has_params U8 [ER] | outputs n U32 ER* | diagnostics n U32 (code U32, U32 bytes)*
    Trace   version U16 = 1 | result ER | n U32 (status U8, code U32, n U32 ER*)*

The kind equals the status. Neither holds a time, a place or a name of who ran it: equal runs give equal bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tidewarp.codec.artifacts import TAG_RESULT, TAG_TRACE, Artifact
from tidewarp.codec.frames import Reader, count, counted, u8, u16, u32
from tidewarp.codec.references import (
    Reference,
    encode_optional,
    encode_references,
    read_optional_reference,
    read_reference,
    read_references,
)

__all__ = ["Diagnostic", "NodeStatus", "NodeTrace", "Result", "Status", "Trace"]

_VERSION = 1
_DIAGNOSTIC_BYTES_MIN = 8
_NODE_BYTES_MIN = 1 + 4 + 4


class Status(IntEnum):
    """What a run came to; all but OK are without outputs."""

    OK = 0
    SCHEME = 1
    """The program's bytes are of a scheme that is not ours."""
    INVALID_PROGRAM = 2
    """A node has inputs, outputs or params that its operation does not have."""
    INVALID_INPUTS = 3
    """Another number of inputs than the program has, or no params where it reads them."""
    RUNTIME = 4
    """An operation failed; the code says which, and how."""


class NodeStatus(IntEnum):
    """What became of a node."""

    OK = 0
    FAILED = 1
    SKIPPED = 2


class Diagnostic(NamedTuple):
    """What a host operation said of its failure: its index of the failure (U32), and a message."""

    code: int
    message: bytes


class Result(NamedTuple):
    """What a run came to. ``code`` (U32) is 0, or of a failed operation ``code << 16 | index``."""

    status: Status
    code: int
    scheme: Reference
    program: Reference
    inputs: tuple[Reference, ...]
    params: Reference | None
    outputs: tuple[Reference, ...]
    diagnostics: tuple[Diagnostic, ...] = ()

    def to_bytes(self) -> bytes:
        """The payload of the result's artifact.

        Raises:
            CodecError: a number out of range, or a list of more than 65,536.
        """
        return b"".join(
            [
                u16(_VERSION),
                u8(self.status),
                u8(self.status),
                u32(self.code),
                self.scheme.encoded(),
                self.program.encoded(),
                encode_references(self.inputs),
                encode_optional(self.params),
                encode_references(self.outputs),
                count(len(self.diagnostics)),
                *[u32(code) + counted(message) for code, message in self.diagnostics],
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Result:
        """The result whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a result.
        """
        reader = Reader(data, "result")
        _check_version(reader)
        status = _read_status(reader)
        kind = reader.u8()
        if kind != status:
            raise reader.refusal(f"the kind {kind} equals the status {status:d}")
        result = cls(
            status,
            reader.u32(),
            read_reference(reader),
            read_reference(reader),
            read_references(reader),
            read_optional_reference(reader),
            read_references(reader),
            tuple([Diagnostic(reader.u32(), reader.counted()) for _ in range(reader.count(_DIAGNOSTIC_BYTES_MIN))]),
        )
        reader.end()
        return result

    def reference(self) -> Reference:
        """The name of the result's artifact."""
        return Artifact(self.to_bytes(), TAG_RESULT).reference()

    def answer(self) -> Reference:
        """What a receipt names as the output: the one output, or else the result itself."""
        return self.outputs[0] if len(self.outputs) == 1 else self.reference()


class NodeTrace(NamedTuple):
    """What one node did: its outputs if it is OK; if it FAILED, the code that the result has too."""

    status: NodeStatus
    code: int
    outputs: tuple[Reference, ...]


class Trace(NamedTuple):
    """What each node of a run did, in the order of the program."""

    result: Reference
    nodes: tuple[NodeTrace, ...]

    def to_bytes(self) -> bytes:
        """The payload of the trace's artifact.

        Raises:
            CodecError: a number out of range, or a list of more than 65,536.
        """
        return b"".join(
            [
                u16(_VERSION),
                self.result.encoded(),
                count(len(self.nodes)),
                *[u8(node.status) + u32(node.code) + encode_references(node.outputs) for node in self.nodes],
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """The trace whose bytes are ``data``.

        Raises:
            CodecError: not the bytes of a trace.
        """
        reader = Reader(data, "trace")
        _check_version(reader)
        result = read_reference(reader)
        nodes = tuple([_read_node(reader) for _ in range(reader.count(_NODE_BYTES_MIN))])
        reader.end()
        return cls(result, nodes)

    def reference(self) -> Reference:
        """The name of the trace's artifact."""
        return Artifact(self.to_bytes(), TAG_TRACE).reference()


def _check_version(reader: Reader) -> None:
    version = reader.u16()
    if version != _VERSION:
        raise reader.refusal(f"version {_VERSION} is read, not {version}")


def _read_status(reader: Reader) -> Status:
    number = reader.u8()
    try:
        return Status(number)
    except ValueError:
        raise reader.refusal(f"a status is 0 to {max(Status):d}, not {number}") from None


def _read_node(reader: Reader) -> NodeTrace:
    number = reader.u8()
    try:
        status = NodeStatus(number)
    except ValueError:
        raise reader.refusal(f"the status of a node is 0 to {max(NodeStatus):d}, not {number}") from None
    return NodeTrace(status, reader.u32(), read_references(reader))
