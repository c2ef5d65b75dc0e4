"""Requests: runs that any site may execute when their inputs are there.

    RunRequest   program ER | has_params U8 [ER] | n U32 (00 ER  or  01 request ER, output U32)*

Who asks names what he has by its reference, and what is still to be made by the request that makes it.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from tidewarp.codec.artifacts import TAG_REQUEST, Artifact
from tidewarp.codec.frames import Reader, count, u32
from tidewarp.codec.references import (
    ENCODED_BYTES_MIN,
    Reference,
    encode_optional,
    read_optional_reference,
    read_reference,
)

__all__ = ["RequestInput", "RequestOutput", "RunRequest"]


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
        inputs = tuple([_read_request_input(reader) for _ in range(reader.count(1 + ENCODED_BYTES_MIN))])
        reader.end()
        return cls(program, inputs, params)

    def reference(self) -> Reference:
        """The name of the request's artifact."""
        return Artifact(self.to_bytes(), TAG_REQUEST).reference()


def _read_request_input(reader: Reader) -> RequestInput:
    if reader.flag():
        return RequestOutput(read_reference(reader), reader.u32())
    return read_reference(reader)


def _request_input_bytes(source: RequestInput) -> bytes:
    if isinstance(source, RequestOutput):
        return b"\1" + source.request.encoded() + u32(source.output)
    return b"\0" + source.encoded()
