"""One graph, one form: whatever order, names and repetitions it was written with."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_values import graphs

from tidewarp.codec.frames import ITEMS_MAX, counted, text16, u16, u32
from tidewarp.codec.programs import PARAMS_BYTES_MAX, External, Node, Output, Program
from tidewarp.errors import CodecError

GRAPHS = graphs()
LEAF = Node("leaf", 1, (External(0),))
TAIL = Node("tail", 1, (Output(0),))


def written(externals: int, nodes: Sequence[Node], roots: Sequence[Output]) -> bytes:
    """The bytes of a graph as it stands, whether or not it breaks a rule: written from the text of the format."""
    data = u16(1) + u32(externals) + u32(len(nodes))
    for node in nodes:
        data += text16(node.operation) + u32(node.version) + u32(len(node.inputs))
        for source in node.inputs:
            data += (b"\0" if isinstance(source, External) else b"\1") + b"".join(map(u32, source))
        data += counted(node.params)
    return data + u32(len(roots)) + b"".join(u32(root.node) + u32(root.output) for root in roots)


def reordered(nodes: Sequence[Node], roots: Sequence[Output], order: Sequence[int]) -> tuple[list[Node], list[Output]]:
    """The graph with the node that was at ``order[n]`` at place n."""
    new = {old: at for at, old in enumerate(order)}

    def moved(source: External | Output) -> External | Output:
        return source if isinstance(source, External) else Output(new[source.node], source.output)

    moved_nodes = [nodes[old]._replace(inputs=tuple(map(moved, nodes[old].inputs))) for old in order]
    return moved_nodes, [Output(new[root.node], root.output) for root in roots]


def another_order(nodes: Sequence[Node], chance: random.Random) -> list[int]:
    """The places of the nodes in some order in which each stands behind those that it reads."""
    order: list[int] = []
    while len(order) < len(nodes):
        ready = [
            at
            for at, node in enumerate(nodes)
            if at not in order and all(isinstance(one, External) or one.node in order for one in node.inputs)
        ]
        order.append(chance.choice(ready))
    return order


@given(GRAPHS, st.randoms(use_true_random=False))
def test_the_order_of_definition_does_not_matter(
    graph: tuple[int, list[Node], list[Output]], chance: random.Random
) -> None:
    """Any two orders of one graph give equal bytes, and the form of a form is itself."""
    externals, nodes, roots = graph
    program = Program.of(externals, nodes, roots)
    other = Program.of(externals, *reordered(nodes, roots, another_order(nodes, chance)))
    assert other.to_bytes() == program.to_bytes() == written(*program)
    assert Program.of(*program) == program


@given(GRAPHS, st.data())
def test_equal_nodes_are_one(graph: tuple[int, list[Node], list[Output]], data: st.DataObject) -> None:
    """A copy of a node, read in its place by some of those that read it, changes nothing."""
    externals, nodes, roots = graph
    if not nodes:
        return
    at = data.draw(st.integers(0, len(nodes) - 1))
    copy = len(nodes)  # behind all: put where the original stands by the order below
    changed = [
        node._replace(
            inputs=tuple(
                Output(copy, one.output)
                if one[:1] == (at,) and isinstance(one, Output) and data.draw(st.booleans())
                else one
                for one in node.inputs
            )
        )
        for node in nodes
    ]
    order = [*range(at + 1), copy, *range(at + 1, len(nodes))]
    copied = reordered([*changed, nodes[at]], [*roots, Output(at), Output(copy)], order)
    assert Program.of(externals, *copied) == Program.of(externals, nodes, [*roots, Output(at), Output(at)])


@given(GRAPHS)
def test_levels_are_what_may_run_side_by_side(graph: tuple[int, list[Node], list[Output]]) -> None:
    """They cover the nodes in their order; a node reads an earlier level, and one of the level before if it can."""
    program = Program.of(*graph)
    levels = program.levels()
    assert [at for level in levels for at in level] == list(range(len(program.nodes)))
    level_of = {at: number for number, level in enumerate(levels) for at in level}
    for at, node in enumerate(program.nodes):
        depths = [level_of[one.node] for one in node.inputs if isinstance(one, Output)]
        assert level_of[at] == max(depths, default=-1) + 1


@given(GRAPHS, st.randoms(use_true_random=False))
def test_any_other_order_is_refused(graph: tuple[int, list[Node], list[Output]], chance: random.Random) -> None:
    """The bytes of the graph in each order but the one: written by hand, for the encoder refuses them too."""
    program = Program.of(*graph)
    order = list(range(len(program.nodes)))
    chance.shuffle(order)
    nodes, roots = reordered(program.nodes, program.roots, order)
    if nodes == list(program.nodes):
        return
    with pytest.raises(CodecError):
        Program.from_bytes(written(program.externals, nodes, roots))
    with pytest.raises(CodecError):
        Program(program.externals, tuple(nodes), tuple(roots)).to_bytes()


REFUSED = {
    "a cycle of one": (0, [Node("a", 1, (Output(0),))], [Output(0)], "stands behind"),
    "a cycle of two": (0, [Node("a", 1, (Output(1),)), Node("b", 1, (Output(0),))], [Output(0)], "stands behind"),
    "a forward reference": (1, [TAIL._replace(inputs=(Output(1),)), LEAF], [Output(0)], "stands behind"),
    "a node that is not there": (1, [LEAF, TAIL._replace(inputs=(Output(9),))], [Output(1)], "stands behind"),
    "a duplicate": (1, [LEAF, LEAF], [Output(0), Output(1)], "equals the one before"),
    "an unfed node": (1, [LEAF, TAIL], [Output(0)], "node 1 feeds no root"),
    "an unfed chain": (1, [LEAF, TAIL], [], "node 1 feeds no root"),
    "an external that is not there": (1, [LEAF._replace(inputs=(External(1),))], [Output(0)], "external input 1 of 1"),
    "a root that is not there": (1, [LEAF], [Output(0), Output(1)], "of 1 nodes"),
    "too many externals": (ITEMS_MAX + 1, [LEAF], [Output(0)], "external inputs"),
    "too many roots": (1, [LEAF], [Output(0)] * (ITEMS_MAX + 1), "roots|65536"),
    "too many inputs": (1, [Node("a", 1, (External(0),) * (ITEMS_MAX + 1))], [Output(0)], "inputs|65536"),
    "too many params": (1, [LEAF._replace(params=bytes(PARAMS_BYTES_MAX + 1))], [Output(0)], "1048577 bytes of params"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_program_has_is_refused(case: str) -> None:
    """By the decoder, by the encoder, and by the maker where no order of nodes would help; the rule is in the error."""
    externals, nodes, roots, rule = REFUSED[case]
    with pytest.raises(CodecError, match=rule):
        Program.from_bytes(written(externals, nodes, roots))
    with pytest.raises(CodecError, match=rule):
        Program(externals, tuple(nodes), tuple(roots)).to_bytes()
    if case == "a duplicate":
        assert Program.of(externals, nodes, roots) == Program(externals, (LEAF,), (Output(0), Output(0)))
    else:
        with pytest.raises(CodecError, match=rule):
            Program.of(externals, nodes, roots)


def test_order_is_by_depth_and_then_by_hash() -> None:
    """Three constants: only one of the six orders is read, and the deeper node is last although its hash is not."""
    leaves = [Node(name, 1, ()) for name in "abc"]
    tails = [Node(name, 1, (Output(0), Output(1), Output(2))) for name in "defghijk"]
    programs = [Program.of(0, [*leaves, tail], [Output(3)]) for tail in tails]
    assert all(program.nodes[3].operation == tail.operation for program, tail in zip(programs, tails, strict=True))
    first = programs[0].nodes[:3]
    assert sorted(first) == leaves
    accepted = 0
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        nodes, roots = reordered(programs[0].nodes, programs[0].roots, [*order, 3])
        try:
            Program.from_bytes(written(0, [nodes[0], nodes[1], nodes[2], nodes[3]], roots))
            accepted += 1
        except CodecError:
            pass
    assert accepted == 1


def test_the_largest_programs_are_read() -> None:
    """A chain of 65,536 nodes is as deep as a program can be, and no recursion; one node more is refused."""
    nodes = [LEAF, *[Node("tail", 1, (Output(at),)) for at in range(ITEMS_MAX - 1)]]
    program = Program.of(1, nodes, [Output(ITEMS_MAX - 1)])
    assert Program.from_bytes(program.to_bytes()) == program
    assert len(program.levels()) == ITEMS_MAX
    more = [*nodes, Node("tail", 1, (Output(ITEMS_MAX - 1),))]
    with pytest.raises(CodecError, match="65536 nodes"):
        Program.of(1, more, [Output(ITEMS_MAX)])


def test_lengths_are_checked_before_memory_is_taken() -> None:
    """Counts and lengths of 4 GiB in 30 bytes cost no memory: each is compared with the bytes left."""
    head = u16(1) + u32(0)
    node = text16("a") + u32(1)
    tracemalloc.start()
    try:
        for data in (
            head + u32(0xFFFFFFFF),
            head + u32(ITEMS_MAX) + bytes(16),
            head + u32(1) + node + u32(0xFFFFFFFF) + bytes(16),
            head + u32(1) + node + u32(0) + u32(0xFFFFFFFF) + bytes(16),
            head + u32(1) + node + u32(0) + u32(0) + u32(ITEMS_MAX),
            head + u32(1) + u16(0xFFFF) + bytes(30),
        ):
            with pytest.raises(CodecError):
                Program.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [0, 2, 0xFFFF])
def test_another_version_is_refused(version: int) -> None:
    with pytest.raises(CodecError, match="version 1 is read"):
        Program.from_bytes(u16(version) + bytes(12))
