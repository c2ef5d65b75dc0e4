"""Hypothesis strategies for what programs are made of and leave behind, and the table of their forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import second_decoder as second
from hypothesis import strategies as st
from store_values import HASHES, LISTS, REFERENCES, TEXTS, U32S, U64S, Form

from tidewarp.codec.computations import Listing, ListingRow, Manifest
from tidewarp.codec.programs import External, Input, Node, Output, Program
from tidewarp.codec.receipts import Determinism, Executor, LogReference, Receipt, ResourceLimits, Signature
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestOutput, RunRequest
from tidewarp.codec.results import Diagnostic, NodeStatus, NodeTrace, Result, Status, Trace

BYTES = st.binary(max_size=20)
OPERATIONS = st.sampled_from(["a", "pel.bytes.concat", "é"])


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Node], list[Output]]:
    """Externals, nodes behind those that they read, and roots: each node feeds one."""
    externals = draw(st.integers(0, 3))
    nodes: list[Node] = []
    for at in range(draw(st.integers(0, 8))):
        sources: list[st.SearchStrategy[Input]] = []
        if externals:
            sources.append(st.builds(External, st.integers(0, externals - 1)))
        if at:
            sources.append(st.builds(Output, st.integers(0, at - 1), st.integers(0, 1)))
        inputs = tuple(draw(st.lists(st.one_of(sources), max_size=3))) if sources else ()
        nodes.append(Node(draw(OPERATIONS), draw(st.integers(0, 1)), inputs, draw(st.sampled_from([b"", b"x"]))))
    read = {source.node for node in nodes for source in node.inputs if isinstance(source, Output)}
    roots = [Output(at, draw(st.integers(0, 1))) for at in range(len(nodes)) if at not in read]
    if nodes:
        roots += draw(st.lists(st.builds(Output, st.integers(0, len(nodes) - 1), U32S), max_size=2))
    return externals, nodes, draw(st.permutations(roots))


PROGRAMS = graphs().map(lambda graph: Program.of(*graph))
RESULTS = st.builds(
    Result,
    st.sampled_from(Status),
    U32S,
    REFERENCES,
    REFERENCES,
    LISTS,
    st.none() | REFERENCES,
    LISTS,
    st.lists(st.builds(Diagnostic, U32S, BYTES), max_size=2).map(tuple),
)
NODE_TRACES = st.builds(NodeTrace, st.sampled_from(NodeStatus), U32S, LISTS)
TRACES = st.builds(Trace, REFERENCES, st.lists(NODE_TRACES, max_size=3).map(tuple))
MANIFESTS = st.builds(Manifest, LISTS, st.none() | REFERENCES)
ROWS = st.dictionaries(st.tuples(TEXTS, U32S), HASHES, max_size=3)
LISTINGS = ROWS.map(lambda rows: Listing.of(ListingRow(*row, impl) for row, impl in rows.items()))
EXECUTORS = st.builds(Executor, HASHES, TEXTS)
REQUESTS = st.builds(
    RunRequest,
    REFERENCES,
    st.lists(REFERENCES | st.builds(RequestOutput, REFERENCES, U32S), max_size=3).map(tuple),
    st.none() | REFERENCES,
)


def _by_encoding(references: Sequence[Reference]) -> tuple[Reference, ...]:
    return tuple(sorted(set(references), key=Reference.encoded))


def _by_kind_and_reference(logs: Sequence[LogReference]) -> tuple[LogReference, ...]:
    of_place = {(log.kind, log.reference.encoded()): log for log in logs}
    return tuple(log for _, log in sorted(of_place.items(), key=lambda item: item[0]))


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    started = draw(U64S)
    logs = st.lists(st.builds(LogReference, st.integers(0, 2), REFERENCES, HASHES), max_size=3)
    return Receipt(
        draw(REFERENCES),
        draw(REFERENCES),
        draw(REFERENCES),
        draw(BYTES),
        draw(REFERENCES),
        _by_encoding(draw(LISTS)),
        started,
        draw(st.integers(started, 2**64 - 1)),
        draw(st.none() | REFERENCES),
        draw(st.none() | BYTES),
        draw(st.none() | logs.map(_by_kind_and_reference)),
        draw(st.none() | st.builds(ResourceLimits, U64S, U64S, U64S, U64S, U64S)),
        draw(st.none() | st.builds(Determinism, st.integers(0, 3), BYTES)),
        draw(st.none() | st.builds(Signature, HASHES, st.binary(min_size=64, max_size=64))),
    )


RECEIPTS = receipts()


def plain(value: Any) -> Any:
    """``value`` as the second decoder gives it."""
    match value:
        case Reference():
            return value.to_bytes()
        case Program(externals, nodes, roots):
            return b"\0\1", externals, plain(nodes), plain(roots)
        case External(number):
            return 0, number
        case Node(operation, version, inputs, params):
            sources = [(1, tuple(source)) if isinstance(source, Output) else plain(source) for source in inputs]
            return operation, version, tuple(sources), params
        case Result():
            return b"\0\1", int(value.status), *plain(tuple(value))
        case Trace():
            return b"\0\1", *plain(tuple(value))
        case Listing(rows):
            return plain(rows)
        case Executor():
            return b"\1", *value
        case RunRequest(program, inputs, params):
            return plain(program), plain(params), tuple((int(type(one) is RequestOutput), plain(one)) for one in inputs)
        case Receipt():
            *head, output, executors, started, completed = value[:8]
            parity = tuple((executor, output) for executor in executors)
            tlvs = [(at, plain(tlv)) for at, tlv in enumerate(value[8:], 1) if tlv is not None]
            return b"\0\1", *plain((*head, output, executors, parity, started, completed)), tuple(tlvs)
        case tuple():
            return tuple(map(plain, value))
    return value


def _form(values: st.SearchStrategy[Any], read: Callable[[bytes], Any], parser: second.Parser) -> Form:
    return Form(values, lambda value: value.to_bytes(), read, second.nothing_more(parser))


PROGRAM_FORMS: dict[str, Form] = {
    "program": _form(PROGRAMS, Program.from_bytes, second.PROGRAM),
    "result": _form(RESULTS, Result.from_bytes, second.RESULT),
    "trace": _form(TRACES, Trace.from_bytes, second.TRACE),
    "manifest": _form(MANIFESTS, Manifest.from_bytes, second.MANIFEST),
    "listing": _form(LISTINGS, Listing.from_bytes, second.LISTING),
    "executor": _form(EXECUTORS, Executor.from_bytes, second.EXECUTOR),
    "request": _form(REQUESTS, RunRequest.from_bytes, second.REQUEST),
    "receipt": _form(RECEIPTS, Receipt.from_bytes, second.RECEIPT),
}
