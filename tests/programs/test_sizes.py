"""What is known of sizes before a program runs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from small_programs import PARAMS, concat, constant, doubling, part, picked, programs, registry

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.results import Status
from tidewarp.programs import Sizes, execute, known_sizes

REGISTRY = registry()


def sizes(program: Program, inputs: Sequence[int] = (), params: int | None = None) -> Sizes:
    operations = REGISTRY.of_nodes(program)
    values = [operation.read(node.params) for operation, node in zip(operations, program.nodes, strict=True)]
    return known_sizes(program, operations, values, inputs, params)


def chain(*nodes: Node) -> Program:
    return Program.of(1, nodes, [Output(len(nodes) - 1)])


def test_sizes_follow_from_those_of_the_inputs() -> None:
    nodes = [concat(External(0), External(0)), part(Output(0), 1, 3), concat(Output(0), Output(1))]
    assert sizes(chain(*nodes), [5]) == Sizes((10, 3, 13), None)
    assert sizes(Program.of(0, [constant(b"abc", 7)], [Output(0)])) == Sizes((3,), None)
    assert sizes(Program.of(0, [Node(PARAMS, 1, ())], [Output(0)]), params=9) == Sizes((9,), None)


def test_what_a_host_operation_makes_is_not_known() -> None:
    """Nor is what is made of it: not even a slice, whose length is written down."""
    nodes = [picked(External(0), 9), part(Output(0), 0, 3), concat(Output(1), Output(1))]
    assert sizes(chain(*nodes), [5]) == Sizes((None, None, None), None)


def test_a_doubling_graph_is_judged_by_its_sum() -> None:
    """Up to 2**40 bytes; the numbers of what lies behind are not even computed."""
    known = sizes(chain(*doubling(64, External(0))), [1])
    assert known == Sizes(tuple(2 ** (at + 1) for at in range(40)), (40, 1))
    assert sizes(chain(*doubling(40, External(0))), [1]).failure is None
    assert sizes(chain(*doubling(1, External(0))), [2**39 + 1]).failure == (0, 1)


def test_the_first_failing_node_is_named() -> None:
    nodes = [part(External(0), 0, length) for length in range(8)]
    program = Program.of(1, nodes, [Output(at) for at in range(8)])
    failing = [at for at, node in enumerate(program.nodes) if node.params[-1] > 4]
    assert sizes(program, [4]).failure == (failing[0], 1)
    assert len(sizes(program, [4]).by_node) == failing[0]


@given(programs(), st.lists(st.binary(max_size=4), min_size=2, max_size=2), st.binary(max_size=4))
def test_known_sizes_are_those_of_the_run(program: Program, payloads: list[bytes], params: bytes) -> None:
    """Each that is known beforehand is what comes out; and a failure that is foreseen is the failure."""
    inputs = [Artifact(payload) for payload in payloads[: program.externals]]
    known = sizes(program, [len(artifact.payload) for artifact in inputs], len(params))
    everything = program._replace(roots=tuple(Output(at) for at in range(len(program.nodes))))
    execution = execute(everything, inputs, Artifact(params), REGISTRY)
    if known.failure is not None:
        at, index = known.failure
        assert execution.result.status == Status.RUNTIME
        assert execution.result.code & 0xFFFF == index
        assert execution.trace.nodes[at].code == execution.result.code
    elif execution.result.status == Status.OK:
        for size, artifact in zip(known.by_node, execution.outputs, strict=True):
            assert size in (None, len(artifact.payload))


@given(programs(host=False), st.binary(max_size=4))
def test_the_kernel_hides_nothing(program: Program, payload: bytes) -> None:
    """Without host operations a run that the sizes let pass does not fail, and all sizes are known."""
    inputs = [Artifact(payload), Artifact(b"xy")][: program.externals]
    known = sizes(program, [len(artifact.payload) for artifact in inputs], 2)
    execution = execute(program, inputs, Artifact(b"ab"), REGISTRY)
    assert (known.failure is None) == (execution.result.status == Status.OK)
    assert None not in known.by_node
