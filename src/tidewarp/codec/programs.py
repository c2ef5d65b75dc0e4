"""Programs: graphs of operations over artifacts, in one byte form per graph.

    ProgramBytes  version U16 = 1 | external count U32 | n U32 node* | n U32 (node U32, output U32)* roots
    node          U16 operation name | version U32 | n U32 input* | U32 params
    input         00 external U32  or  01 node U32 output U32

The hash of a node is the SHA-256 of its bytes in which each input that is a node is ``01 | hash of that node |
output U32``; its depth is the length of the longest way to it from a node without such inputs. Nodes stand in
order of (depth, hash), equal ones once, and each feeds a root. So two sources that differ in names, in the order of
their definitions or in repetitions are one program, and no order leaves room for a cycle.

After PEL/PROGRAM-DAG/1 of the amduat documents, in a profile of our own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from tidewarp.codec.artifacts import TAG_PROGRAM, TAG_SCHEME, Artifact
from tidewarp.codec.frames import ITEMS_MAX, Reader, count, counted, text16, u16, u32
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError

__all__ = ["PARAMS_BYTES_MAX", "SCHEME", "SCHEME_REFERENCE", "External", "Input", "Node", "Output", "Program"]

PARAMS_BYTES_MAX = 1 << 20  # of a node

SCHEME = Artifact(b"PEL/PROGRAM-DAG/1 tidewarp profile 1", TAG_SCHEME)
"""What says how the bytes of a program are to be read: part of each computation key."""
SCHEME_REFERENCE = SCHEME.reference()

_VERSION = 1
_U32_MAX = 0xFFFF_FFFF
_INPUT_BYTES_MIN = 5
_NODE_BYTES_MIN = 2 + 4 + 4 + 4
_ROOT_BYTES = 8
_ACTION = "make it with Program.of()"


class External(NamedTuple):
    """An input of the whole program, counted from 0."""

    number: int


class Output(NamedTuple):
    """An output of the node at place ``node``, both counted from 0."""

    node: int
    output: int = 0


Input: TypeAlias = External | Output


class Node(NamedTuple):
    """An operation, applied to inputs whose order and repetitions count. What ``params`` may be is its affair."""

    operation: str
    version: int
    inputs: tuple[Input, ...]
    params: bytes = b""


class Program(NamedTuple):
    """A graph in its one form; :meth:`of` brings any graph to it. ``roots`` are the outputs of the whole."""

    externals: int
    nodes: tuple[Node, ...]
    roots: tuple[Output, ...]

    @classmethod
    def of(cls, externals: int, nodes: Sequence[Node], roots: Iterable[Output]) -> Program:
        """The program of ``nodes``, given in any order in which a node stands behind those that it reads.

        Raises:
            CodecError: a node that reads itself or a later one, an external input or a root that is not there, a
                node that feeds no root, or a limit (65,536 nodes, roots, externals or inputs of one; 1 MiB of params).
        """
        graph = cls(externals, tuple(nodes), tuple(roots))
        broken = _broken_graph(graph)
        if broken:
            raise CodecError(f"graph of {len(graph.nodes)} nodes", broken, "correct the graph")
        hashes = _hashes(graph.nodes)
        order = sorted(set(zip(_depths(graph.nodes), hashes, strict=True)))
        place = {name: at for at, (_, name) in enumerate(order)}
        new = [place[name] for name in hashes]  # by old place
        by_hash = dict(zip(hashes, graph.nodes, strict=True))
        return cls(
            externals,
            tuple([_moved(by_hash[name], new) for _, name in order]),
            tuple([Output(new[root.node], root.output) for root in graph.roots]),
        )

    def to_bytes(self) -> bytes:
        """The payload of the program's artifact.

        Raises:
            CodecError: the graph breaks a rule of :meth:`of`, or does not stand in its one form.
        """
        broken = _broken(self)
        if broken:
            raise CodecError(f"program of {len(self.nodes)} nodes", broken, _ACTION)
        return b"".join(
            [
                u16(_VERSION),
                u32(self.externals),
                count(len(self.nodes)),
                *[_node_bytes(node, [_input_bytes(source) for source in node.inputs]) for node in self.nodes],
                count(len(self.roots)),
                *[u32(root.node) + u32(root.output) for root in self.roots],
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """The program whose bytes are ``data``; memory is bounded by the bytes present.

        Raises:
            CodecError: all that :meth:`to_bytes` would not have written.
        """
        reader = Reader(data, "program")
        version = reader.u16()
        if version != _VERSION:
            raise reader.refusal(f"version {_VERSION} is read, not {version}")
        externals = reader.u32()
        nodes = tuple([_read_node(reader) for _ in range(reader.count(_NODE_BYTES_MIN))])
        roots = tuple([Output(reader.u32(), reader.u32()) for _ in range(reader.count(_ROOT_BYTES))])
        reader.end()
        program = cls(externals, nodes, roots)
        broken = _broken(program)
        if broken:
            raise reader.refusal(broken)
        return program

    def reference(self) -> Reference:
        """The name of the program's artifact."""
        return Artifact(self.to_bytes(), TAG_PROGRAM).reference()

    def levels(self) -> list[range]:
        """The places of the nodes, split by depth: the nodes of a level read those of earlier levels alone."""
        depths = _depths(self.nodes)
        firsts = [at for at, depth in enumerate(depths) if not at or depth != depths[at - 1]]
        return [range(first, end) for first, end in pairwise([*firsts, len(depths)])]


def _read_node(reader: Reader) -> Node:
    operation, version = reader.text16(), reader.u32()
    inputs = tuple([_read_input(reader) for _ in range(reader.count(_INPUT_BYTES_MIN))])
    return Node(operation, version, inputs, reader.counted())


def _read_input(reader: Reader) -> Input:
    return Output(reader.u32(), reader.u32()) if reader.flag() else External(reader.u32())


def _input_bytes(source: Input) -> bytes:
    if isinstance(source, External):
        return b"\0" + u32(source.number)
    return b"\1" + u32(source.node) + u32(source.output)


def _node_bytes(node: Node, inputs: Sequence[bytes]) -> bytes:
    return text16(node.operation) + u32(node.version) + count(len(inputs)) + b"".join(inputs) + counted(node.params)


def _hashes(nodes: Sequence[Node]) -> list[bytes]:
    """The hash of each node; those that it reads stand before it."""
    hashes: list[bytes] = []
    for node in nodes:
        inputs = [
            _input_bytes(source) if isinstance(source, External) else b"\1" + hashes[source.node] + u32(source.output)
            for source in node.inputs
        ]
        hashes.append(hashlib.sha256(_node_bytes(node, inputs)).digest())
    return hashes


def _depths(nodes: Sequence[Node]) -> list[int]:
    depths: list[int] = []
    for node in nodes:
        depths.append(max([1 + depths[source.node] for source in node.inputs if isinstance(source, Output)], default=0))
    return depths


def _moved(node: Node, new: Sequence[int]) -> Node:
    return node._replace(
        inputs=tuple(
            [
                source if isinstance(source, External) else Output(new[source.node], source.output)
                for source in node.inputs
            ]
        )
    )


def _broken(program: Program) -> str:
    """The rule of the one form that ``program`` breaks, or nothing."""
    broken = _broken_graph(program)
    if broken:
        return broken
    order = zip(_depths(program.nodes), _hashes(program.nodes), strict=True)
    for at, (one, other) in enumerate(pairwise(order), 1):
        if one >= other:
            return f"node {at} equals the one before" if one == other else f"node {at}: nodes ascend by depth and hash"
    return ""


def _broken_graph(program: Program) -> str:
    """The rule that the graph breaks, in whatever order its nodes stand, or nothing."""
    externals, nodes, roots = program
    if not 0 <= externals <= ITEMS_MAX:
        return f"a program has at most {ITEMS_MAX} external inputs, not {externals}"
    if max(len(nodes), len(roots)) > ITEMS_MAX:
        return f"a program has at most {ITEMS_MAX} nodes, and as many roots"
    for at, node in enumerate(nodes):
        broken = _broken_node(node, at, externals)
        if broken:
            return f"node {at} {broken}"
    fed = [False] * len(nodes)
    for root in roots:
        if not 0 <= root.node < len(nodes) or not 0 <= root.output <= _U32_MAX:
            return f"a root names output {root.output} of node {root.node}, of {len(nodes)} nodes"
        fed[root.node] = True
    for at in reversed(range(len(nodes))):
        if not fed[at]:
            return f"node {at} feeds no root"
        for source in nodes[at].inputs:
            if isinstance(source, Output):
                fed[source.node] = True
    return ""


def _broken_node(node: Node, at: int, externals: int) -> str:
    if len(node.params) > PARAMS_BYTES_MAX:
        return f"has {len(node.params)} bytes of params; {PARAMS_BYTES_MAX} are allowed"
    if len(node.inputs) > ITEMS_MAX:
        return f"has {len(node.inputs)} inputs; {ITEMS_MAX} are allowed"
    for source in node.inputs:
        if isinstance(source, External):
            if not 0 <= source.number < externals:
                return f"reads external input {source.number} of {externals}"
        elif not 0 <= source.node < at:
            return f"reads node {source.node}: a node stands behind those that it reads"
    return ""
