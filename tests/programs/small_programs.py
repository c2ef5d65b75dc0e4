"""A registry with host operations, random programs over it, and an evaluation of them by another way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tidewarp.codec import pack, unpack
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.programs import External, Input, Node, Output, Program
from tidewarp.programs import OperationFailed, OperationRegistry
from tidewarp.seeds import Stream

IMPL = hashlib.sha256(b"test").digest()
CONCAT, SLICE, CONST, HASH, PARAMS = (
    f"pel.bytes.{name}" for name in ("concat", "slice", "const", "hash.asl1", "params")
)


def mix(inputs: tuple[Artifact, ...], params: Any, stream: Stream) -> list[Artifact]:
    """The inputs the other way round, tagged; and 8 random bytes."""
    return [Artifact(inputs[1].payload + inputs[0].payload, params["tag"]), Artifact(stream.bits().to_bytes(8, "big"))]


def pick(inputs: tuple[Artifact, ...], params: Any, stream: Stream) -> tuple[Artifact, ...]:
    """The input if it is short enough; otherwise it fails, and says how long it is."""
    size = len(inputs[0].payload)
    if size > params["most"]:
        raise OperationFailed(7, f"{size} bytes")
    return inputs


def registry() -> OperationRegistry:
    """The kernel, and two operations of the host."""
    operations = OperationRegistry.kernel()
    operations.register("test.mix", 1, mix, inputs=2, outputs=2, impl=IMPL)
    operations.register("test.pick", 1, pick, inputs=1, outputs=1, impl=IMPL)
    return operations


def constant(payload: bytes, tag: int | None = None) -> Node:
    return Node(CONST, 1, (), Artifact(payload, tag).to_bytes())


def concat(*inputs: Input) -> Node:
    return Node(CONCAT, 1, inputs)


def part(source: Input, offset: int, length: int) -> Node:
    return Node(SLICE, 1, (source,), offset.to_bytes(8, "big") + length.to_bytes(8, "big"))


def picked(source: Input, most: int) -> Node:
    return Node("test.pick", 1, (source,), pack({"most": most}))


def doubling(nodes: int, first: Input) -> list[Node]:
    """Each node puts two of the one before in a row, beginning at place 0 of the program."""
    return [concat(first, first), *[concat(Output(at), Output(at)) for at in range(nodes - 1)]]


SIZES = st.integers(0, 6)


@st.composite
def programs(draw: st.DrawFn, *, host: bool = True) -> Program:
    """Programs whose nodes fit their operations, and may fail."""
    externals = draw(st.integers(0, 2))
    nodes: list[Node] = []
    outputs: list[Input] = [External(number) for number in range(externals)]
    kinds = ["const", "params", "concat", "slice", "hash"] + (["mix", "mix", "pick"] if host else [])
    for at in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(kinds if outputs else ["const", "params"]))
        sources = st.sampled_from(outputs) if outputs else st.nothing()
        match kind:
            case "const":
                nodes.append(constant(draw(st.binary(max_size=4)), draw(st.none() | st.just(7))))
            case "params":
                nodes.append(Node(PARAMS, 1, ()))
            case "concat":
                nodes.append(concat(*draw(st.lists(sources, min_size=1, max_size=3))))
            case "slice":
                nodes.append(part(draw(sources), draw(st.sampled_from([0, 0, 0, 1, 2**64 - 1])), draw(SIZES)))
            case "hash":
                nodes.append(Node(HASH, 1, (draw(sources),), draw(st.sampled_from([b"\0\1", b"\0\1", b"\0\2"]))))
            case "mix":
                nodes.append(Node("test.mix", 1, (draw(sources), draw(sources)), pack({"tag": draw(SIZES)})))
            case "pick":
                nodes.append(picked(draw(sources), draw(SIZES)))
        outputs += [Output(at, index) for index in range(2 if kind == "mix" else 1)]
    read = {source.node for node in nodes for source in node.inputs if isinstance(source, Output)}
    roots = [Output(at) for at in range(len(nodes)) if at not in read]
    roots += [source for source in draw(st.lists(st.sampled_from(outputs), max_size=2)) if isinstance(source, Output)]
    return Program.of(externals, nodes, roots)


Failure = tuple[int, int]  # place of the node, and its status code


def evaluated(program: Program, inputs: Sequence[Artifact], params: Artifact, key: bytes) -> list[Artifact] | Failure:
    """What the program comes to, node by node in their order and without a look at sizes: the outputs, or who failed.

    What depends on no host operation goes first: it fails before any of these has run.
    """
    for hosts in (False, True):
        values: dict[Input, Artifact | None] = {External(number): artifact for number, artifact in enumerate(inputs)}
        for at, node in enumerate(program.nodes):
            sources = [values[source] for source in node.inputs]
            if not hosts and (node.operation.startswith("test.") or None in sources):
                values |= {Output(at, index): None for index in range(2)}
                continue
            try:
                made = _run(node, [source for source in sources if source is not None], params, key, at)
            except OperationFailed as failed:
                code = {CONCAT: 1, SLICE: 2, HASH: 4}.get(node.operation, 0xFFFF)
                return at, code << 16 | failed.index
            values |= {Output(at, index): artifact for index, artifact in enumerate(made)}
    return [artifact for root in program.roots if (artifact := values[root]) is not None]


def _run(node: Node, inputs: list[Artifact], params: Artifact, key: bytes, at: int) -> Sequence[Artifact]:
    stream = Stream(int.from_bytes(key[:8], "big"), f"{node.operation}/{node.version}.{at}")
    match node.operation:
        case "pel.bytes.concat":
            return [Artifact(b"".join(artifact.payload for artifact in inputs))]
        case "pel.bytes.slice":
            offset, length = int.from_bytes(node.params[:8], "big"), int.from_bytes(node.params[8:], "big")
            if length > len(inputs[0].payload) - offset:
                raise OperationFailed(1)
            return [Artifact(inputs[0].payload[offset:][:length])]
        case "pel.bytes.const":
            return [Artifact.from_bytes(node.params)]
        case "pel.bytes.hash.asl1":
            if node.params != b"\0\1":
                raise OperationFailed(1)
            return [Artifact(hashlib.sha256(inputs[0].payload).digest())]
        case "pel.bytes.params":
            return [params]
        case "test.mix":
            return mix(tuple(inputs), unpack(node.params), stream)
    return pick(tuple(inputs), unpack(node.params), stream)
