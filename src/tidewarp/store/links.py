"""What an artifact needs to mean anything: the references in the bytes of programs' runs. Pure.

receipt      program, manifest, environment, output, executors, fingerprint, logs
manifest     inputs, params
environment  operation listing, scheme
result       scheme, program, inputs, params, outputs
trace        result, outputs of nodes
run request  program, params, inputs
edge         sources, targets, payload

Bytes under one of these tags that are none of its kind name nothing: a tag is the word of whoever put them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tidewarp.codec.artifacts import (
    EMPTY,
    TAG_EDGE,
    TAG_ENVIRONMENT,
    TAG_MANIFEST,
    TAG_RECEIPT,
    TAG_REQUEST,
    TAG_RESULT,
    TAG_TRACE,
)
from tidewarp.codec.computations import Environment, Manifest
from tidewarp.codec.edges import Edge
from tidewarp.codec.receipts import Receipt
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.codec.results import Result, Trace
from tidewarp.errors import CodecError

__all__ = ["LINKING", "PAYLOAD_BYTES_MAX", "links"]

PAYLOAD_BYTES_MAX = 64 << 20
"""Bytes of a payload that is read for the references in it, at most: more than lists of 65,536 come to."""


def links(tag: int | None, payload: bytes) -> frozenset[Reference]:
    """The references that an artifact of this tag names; that of the empty artifact is not among them."""
    read = _READERS.get(tag)
    if read is None:
        return frozenset()
    try:
        named = frozenset(ref for ref in read(payload) if ref is not None)
    except CodecError:
        return frozenset()
    return named - {EMPTY}


def _of_receipt(data: bytes) -> Iterator[Reference | None]:
    one = Receipt.from_bytes(data)
    yield from (one.function, one.manifest, one.environment, one.output, one.fingerprint, *one.executors)
    yield from (log.reference for log in one.logs or ())


def _of_manifest(data: bytes) -> Iterator[Reference | None]:
    one = Manifest.from_bytes(data)
    yield from (*one.inputs, one.params)


def _of_environment(data: bytes) -> Iterator[Reference | None]:
    one = Environment.from_bytes(data)
    yield from (one.listing, one.scheme)


def _of_result(data: bytes) -> Iterator[Reference | None]:
    one = Result.from_bytes(data)
    yield from (one.scheme, one.program, *one.inputs, one.params, *one.outputs)


def _of_trace(data: bytes) -> Iterator[Reference | None]:
    one = Trace.from_bytes(data)
    yield one.result
    for node in one.nodes:
        yield from node.outputs


def _of_request(data: bytes) -> Iterator[Reference | None]:
    one = RunRequest.from_bytes(data)
    yield from (one.program, one.params)
    yield from (source.request if isinstance(source, RequestOutput) else source for source in one.inputs)


def _of_edge(data: bytes) -> Iterator[Reference | None]:
    one = Edge.from_bytes(data)
    yield from (*one.sources, *one.targets, one.payload)


_READERS: Mapping[int | None, Callable[[bytes], Iterator[Reference | None]]] = {
    TAG_RECEIPT: _of_receipt,
    TAG_MANIFEST: _of_manifest,
    TAG_ENVIRONMENT: _of_environment,
    TAG_RESULT: _of_result,
    TAG_TRACE: _of_trace,
    TAG_REQUEST: _of_request,
    TAG_EDGE: _of_edge,
}

LINKING = frozenset(tag for tag in _READERS if tag is not None)
"""The tags of artifacts that name others."""
