"""The source form of a program: nodes with names, as JSON has them.

    {"inputs": ["a", "b"],
     "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["a", "b"]},
               "s": {"op": "pel.bytes.slice/1", "in": ["j"], "params": {"offset": 0, "length": 5}}},
     "outputs": ["s"]}

``name`` is an input of the program or output 0 of a node, ``name:1`` output 1. The params of ``const`` are one of
``text``, ``hex``, ``base64`` and ``file``, with a ``tag`` or without; of ``hash.asl1`` a ``hash_id`` that is 1 unless
given; of a host operation any object. Names, and the order in which nodes are given, are not part of the program.
"""

from __future__ import annotations

import base64
import graphlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.canonical import pack
from tidewarp.codec.frames import ITEMS_MAX, u16, u64
from tidewarp.codec.programs import PARAMS_BYTES_MAX, External, Input, Node, Output, Program
from tidewarp.codec.references import SHA256
from tidewarp.errors import CodecError, ProgramRefused
from tidewarp.programs.operations import HostOperation, Operation, OperationRegistry

__all__ = ["ReadFile", "build_program"]

ReadFile: TypeAlias = Callable[[str], bytes]
"""The bytes of a file that a source names; only who read the source knows what that name is relative to."""

_WIRE = re.compile(r"([^:]+)(?::([0-9]{1,9}))?")
_OPERATION = re.compile(r"([^/]+)/([1-9][0-9]{0,9})")
_SHOWN_MAX = 80  # characters of a name that an error shows
_CYCLE_SHOWN_MAX = 8  # nodes of a cycle


class _Wire(NamedTuple):
    """What a node reads, or the program gives: an input of the program (output 0), or an output of a node."""

    name: str
    output: int


class _SourceNode(NamedTuple):
    """A node of the source, its params in bytes."""

    operation: Operation
    wires: tuple[_Wire, ...]
    params: bytes


def build_program(
    source: Mapping[str, Any], registry: OperationRegistry, *, read_file: ReadFile | None = None
) -> Program:
    """The program of ``source``, whose operations are in ``registry``.

    Sources of one graph give one program: of nodes that compute the same, one is kept.

    Raises:
        ProgramRefused: the source has not this form; a name that is not there, or twice; an operation that is not
            registered, or has not these inputs, outputs or params; a cycle; a node that feeds no output; a limit of
            :class:`~tidewarp.codec.programs.Program`. The value names the node.
    """
    fields = _object("the source", source, needed=("nodes", "outputs"), allowed=("inputs",))
    inputs = _texts("inputs", fields.get("inputs", []))
    outputs = [_wire("outputs", text) for text in _texts("outputs", fields["outputs"])]
    if not isinstance(fields["nodes"], Mapping):
        raise _refusal("nodes", "are an object: a name, and the node")
    nodes = {name: _node(name, node, registry, read_file) for name, node in fields["nodes"].items()}
    _check_inputs(inputs, nodes)
    known = frozenset(inputs)
    for name, node in nodes.items():
        for wire in node.wires:
            _check_wire(_named(name), wire, known, nodes)
    for wire in outputs:
        _check_wire("outputs", wire, frozenset(), nodes)

    order = _order(nodes)
    _check_fed(nodes, outputs)
    place = {name: at for at, name in enumerate(order)}
    external = {name: External(at) for at, name in enumerate(inputs)}

    def joined(wire: _Wire) -> Input:
        return external[wire.name] if wire.name in external else Output(place[wire.name], wire.output)

    graph = [
        Node(node.operation.name, node.operation.version, tuple([joined(wire) for wire in node.wires]), node.params)
        for node in (nodes[name] for name in order)
    ]
    try:
        return Program.of(len(inputs), graph, [Output(place[wire.name], wire.output) for wire in outputs])
    except CodecError as error:
        raise ProgramRefused(error.value, error.rule, error.action) from error


def _node(name: str, node: object, registry: OperationRegistry, read_file: ReadFile | None) -> _SourceNode:
    what = _named(name)
    if type(name) is not str or not name or ":" in name:
        raise _refusal(what, "a name is a text without a colon, and not empty")
    fields = _object(what, node, needed=("op",), allowed=("in", "params"))
    match = _OPERATION.fullmatch(fields["op"]) if type(fields["op"]) is str else None
    if match is None:
        raise _refusal(what, f"op {_shown(fields['op'])} is no NAME/VERSION")
    operation = registry.find(match[1], int(match[2]))
    if operation is None:
        raise _refusal(what, f"operation {_shown(fields['op'])} is not registered")
    wires = tuple([_wire(what, text) for text in _texts(f"in of {what}", fields.get("in", []))])
    if len(wires) not in operation.inputs:
        most = operation.inputs[-1]
        takes = f"{most}" if len(operation.inputs) == 1 else f"{operation.inputs[0]} to {most}"
        raise _refusal(what, f"{operation.name} takes {takes} inputs, not {len(wires)}")
    try:
        params = _params(what, operation, fields.get("params", {}), read_file)
        operation.read(params)
    except CodecError as error:
        raise _refusal(what, f"params: {error.value}: {error.rule}") from error
    if len(params) > PARAMS_BYTES_MAX:
        raise _refusal(what, f"has {len(params)} bytes of params; {PARAMS_BYTES_MAX} are allowed")
    return _SourceNode(operation, wires, params)


def _params(what: str, operation: Operation, params: object, read_file: ReadFile | None) -> bytes:
    """The params of a node, as bytes of its operation's own form."""
    if isinstance(operation, HostOperation):
        if not isinstance(params, Mapping):
            raise _refusal(what, "params are an object")
        return pack(params)
    match operation.name:
        case "pel.bytes.slice":
            fields = _object(f"params of {what}", params, needed=("offset", "length"))
            return u64(_number(what, fields["offset"])) + u64(_number(what, fields["length"]))
        case "pel.bytes.hash.asl1":
            fields = _object(f"params of {what}", params, allowed=("hash_id",))
            return u16(_number(what, fields.get("hash_id", SHA256)))
        case "pel.bytes.const":
            return _constant(what, params, read_file).to_bytes()
    _object(f"params of {what}", params)
    return b""


def _constant(what: str, params: object, read_file: ReadFile | None) -> Artifact:
    fields = dict(_object(f"params of {what}", params, allowed=("text", "hex", "base64", "file", "tag")))
    tag = _number(what, fields.pop("tag", None))
    if len(fields) != 1 or type(text := next(iter(fields.values()))) is not str:
        raise _refusal(what, "a constant is a text in one of text, hex, base64 and file")
    if "file" in fields:
        if read_file is None:
            raise _refusal(what, "no files are read here: give text, hex or base64")
        return Artifact(read_file(text), tag)
    try:
        if "text" in fields:
            payload = text.encode()
        elif "hex" in fields:
            payload = bytes.fromhex(text)
        else:
            payload = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _refusal(what, f"params: {error}") from None
    return Artifact(payload, tag)


def _number(what: str, value: Any) -> Any:
    """``value``, unless it is true or false, which Python counts among the numbers; whoever writes it checks the rest."""
    if isinstance(value, bool):
        raise _refusal(what, f"params: {value}: a number, not a bool")
    return value


def _check_inputs(inputs: Sequence[str], nodes: Collection[str]) -> None:
    if len(set(inputs)) < len(inputs):
        raise _refusal("inputs", "a name stands for one input")
    for name in inputs:
        if not name or ":" in name:
            raise _refusal(f"input {_shown(name)}", "a name is a text without a colon, and not empty")
        if name in nodes:
            raise _refusal(_named(name), "an input has this name")


def _check_wire(what: str, wire: _Wire, inputs: Set[str], nodes: Mapping[str, _SourceNode]) -> None:
    if wire.name in nodes:
        outputs = nodes[wire.name].operation.outputs
        if wire.output >= outputs:
            raise _refusal(what, f"{_named(wire.name)} has {outputs} outputs, counted from 0, and no {wire.output}")
    elif wire.name not in inputs:
        raise _refusal(what, f"{_shown(wire.name)} is no node" + (" and no input" if inputs else ""))
    elif wire.output:
        raise _refusal(what, f"{_shown(wire.name)} is an input, which has no output {wire.output}")


def _order(nodes: Mapping[str, _SourceNode]) -> list[str]:
    """The names of the nodes, each behind those that it reads."""
    sorter = graphlib.TopologicalSorter(
        {name: [wire.name for wire in node.wires if wire.name in nodes] for name, node in nodes.items()}
    )
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        cycle = error.args[1]
        shown = " -> ".join(
            [_shown(name) for name in cycle[:_CYCLE_SHOWN_MAX]] + ["…"] * (len(cycle) > _CYCLE_SHOWN_MAX)
        )
        raise _refusal(_named(cycle[0]), f"it reads itself: {shown}") from None


def _check_fed(nodes: Mapping[str, _SourceNode], outputs: Sequence[_Wire]) -> None:
    fed: set[str] = set()
    found = [wire.name for wire in outputs]
    while found:
        name = found.pop()
        if name not in fed:
            fed.add(name)
            found += [wire.name for wire in nodes[name].wires if wire.name in nodes]
    for name in nodes:
        if name not in fed:
            raise _refusal(_named(name), "it feeds no output")


def _wire(what: str, text: str) -> _Wire:
    match = _WIRE.fullmatch(text)
    if match is None:
        raise _refusal(what, f"{_shown(text)} is neither NAME nor NAME:OUTPUT")
    return _Wire(match[1], int(match[2] or 0))


def _object(
    what: str, value: object, *, needed: Collection[str] = (), allowed: Collection[str] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refusal(what, f"an object, not a {type(value).__name__}")
    for key in value:
        if key not in needed and key not in allowed:
            known = ", ".join([*needed, *allowed]) or "none"
            raise _refusal(what, f"{_shown(key)} is not one of its keys: {known}")
    for key in needed:
        if key not in value:
            raise _refusal(what, f"it has no {key}")
    return value


def _texts(what: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not all(type(text) is str for text in value):
        raise _refusal(what, "a list of names")
    if len(value) > ITEMS_MAX:
        raise _refusal(what, f"a list has at most {ITEMS_MAX} items, not {len(value)}")
    return list(value)


def _named(name: object) -> str:
    return f"node {_shown(name)}"


def _shown(name: object) -> str:
    return repr(name) if type(name) is not str or len(name) <= _SHOWN_MAX else f"{name[:_SHOWN_MAX]!r}…"


def _refusal(what: str, rule: str) -> ProgramRefused:
    return ProgramRefused(what, rule, "correct the source")
