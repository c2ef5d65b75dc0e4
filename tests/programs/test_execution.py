"""Runs of programs: what they come to, and that nothing but the inputs decides it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_programs import (
    HASH,
    IMPL,
    PARAMS,
    concat,
    constant,
    doubling,
    evaluated,
    part,
    picked,
    programs,
    registry,
)

from tidewarp.codec import pack
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.computations import Listing, ListingRow, computation_key
from tidewarp.codec.programs import SCHEME_REFERENCE, External, Node, Output, Program
from tidewarp.codec.results import Diagnostic, NodeStatus, NodeTrace, Status
from tidewarp.errors import CodecError, OutOfModel
from tidewarp.programs import Execution, Limits, OperationFailed, OperationRegistry, execute
from tidewarp.programs.execution import computation_of
from tidewarp.seeds import Stream

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
HELLO, WORLD = Artifact(b"hello"), Artifact(b" world")
REGISTRY = registry()
KERNEL = OperationRegistry.kernel()
SKIPPED = NodeTrace(NodeStatus.SKIPPED, 0, ())
CONCAT_TWO = Program.of(2, [concat(External(0), External(1))], [Output(0)])


def backwards(function: Callable[[int], Any], items: Iterable[int]) -> list[Any]:
    """All of them, the last one first."""
    return list(map(function, list(items)[::-1]))[::-1]


def statuses(execution: Execution) -> list[NodeStatus]:
    return [node.status for node in execution.trace.nodes]


def place(program: Program, node: Node) -> int:
    """Where the one form has put a node without inputs from other nodes, or the only one of its operation and params."""
    (at,) = [
        at for at, other in enumerate(program.nodes) if (other.operation, other.params) == (node.operation, node.params)
    ]
    return at


def chain(*nodes: Node, externals: int = 1) -> Program:
    """Nodes of which each reads the one before, by Output(its place); the last one is the root."""
    return Program.of(externals, nodes, [Output(len(nodes) - 1)])


def test_the_worked_run() -> None:
    """All that the specification prints of it, byte for byte."""
    execution = execute(CONCAT_TWO, (HELLO, WORLD), None, REGISTRY)
    assert execution.outputs == (Artifact(b"hello world"),)
    assert execution.outputs[0].reference().to_bytes() == VECTORS["ref_output"]
    assert execution.key == VECTORS["computation_key"]
    assert execution.result.to_bytes() == VECTORS["result"]
    assert execution.trace.to_bytes() == VECTORS["trace"]
    assert execution.manifest.to_bytes() == VECTORS["manifest"]
    assert execution.environment.to_bytes() == VECTORS["environment"]
    assert execution.listing.to_bytes() == VECTORS["opreg"]
    assert execution.result.answer().to_bytes() == VECTORS["ref_output"]


def test_inputs_in_another_order_are_another_computation() -> None:
    execution = execute(CONCAT_TWO, (WORLD, HELLO), None, REGISTRY)
    assert execution.outputs == (Artifact(b" worldhello"),)
    assert execution.key == VECTORS["computation_key_swapped"]


def test_a_constant_and_its_hash() -> None:
    execution = execute(Program.from_bytes(VECTORS["program_const_hash"]), (), None, KERNEL)
    assert execution.outputs == (
        Artifact(bytes.fromhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")),
    )
    assert statuses(execution) == [NodeStatus.OK, NodeStatus.OK]


@given(programs(), st.lists(st.binary(max_size=4), min_size=2, max_size=2), st.binary(max_size=4))
def test_random_programs_come_to_what_their_nodes_say(program: Program, payloads: list[bytes], params: bytes) -> None:
    """Against an evaluation that knows no sizes, levels or budgets."""
    inputs = [Artifact(payload) for payload in payloads[: program.externals]]
    execution = execute(program, inputs, Artifact(params), REGISTRY)
    expected = evaluated(program, inputs, Artifact(params), execution.key)
    result, trace = execution.result, execution.trace
    assert trace.result == result.reference()
    assert result.inputs == tuple(artifact.reference() for artifact in inputs)
    assert (result.program, result.params) == (program.reference(), Artifact(params).reference())
    if isinstance(expected, list):
        assert list(execution.outputs) == expected
        assert (result.status, result.code, result.diagnostics) == (Status.OK, 0, ())
        assert result.outputs == tuple(artifact.reference() for artifact in expected)
        assert set(statuses(execution)) == {NodeStatus.OK}
        return
    at, code = expected
    assert (result.status, result.code) == (Status.RUNTIME, code)
    assert (execution.outputs, result.outputs) == ((), ())
    assert bool(result.diagnostics) == (code >> 16 == 0xFFFF)
    assert trace.nodes[at] == NodeTrace(NodeStatus.FAILED, code, ())
    assert set(trace.nodes[at + 1 :]) <= {SKIPPED}
    before = set(statuses(execution)[:at])
    assert before <= {NodeStatus.OK} or before == {NodeStatus.SKIPPED}


@given(programs(), st.binary(max_size=4), st.randoms(use_true_random=False))
def test_who_runs_the_nodes_decides_nothing(program: Program, payload: bytes, chance: Any) -> None:
    """One after the other, backwards, in any order, or by four threads: the same in every byte."""

    def shuffled(function: Callable[[int], Any], items: Iterable[int]) -> list[Any]:
        order = list(items)
        done = {at: function(at) for at in chance.sample(order, len(order))}
        return [done[at] for at in order]

    inputs = [Artifact(payload), WORLD][: program.externals]
    execution = execute(program, inputs, HELLO, REGISTRY)
    assert execute(program, inputs, HELLO, REGISTRY) == execution
    assert execute(program, inputs, HELLO, REGISTRY, map=backwards) == execution
    assert execute(program, inputs, HELLO, REGISTRY, map=shuffled) == execution
    with ThreadPoolExecutor(4) as pool:
        assert execute(program, inputs, HELLO, REGISTRY, map=pool.map) == execution


@given(programs(host=False), st.binary(max_size=4))
def test_the_key_is_that_of_what_the_program_uses(program: Program, payload: bytes) -> None:
    """Of the operations that occur, sorted, and no others; so a registry that has more gives the same."""
    inputs = [Artifact(payload), WORLD][: program.externals]
    execution = execute(program, inputs, HELLO, KERNEL)
    used = sorted({node.operation for node in program.nodes})
    listing = Listing(tuple(ListingRow(name, 1, bytes(32)) for name in used))
    assert execution.listing == listing
    assert execution.key == computation_key(
        SCHEME_REFERENCE,
        program.reference(),
        [artifact.reference() for artifact in inputs],
        HELLO.reference(),
        listing.reference(),
    )
    assert execute(program, inputs, HELLO, REGISTRY) == execution
    named = computation_of(program, execution.manifest, REGISTRY)
    assert named == (execution.key, execution.environment, execution.listing)


# --- failures that are results ----------------------------------------------------------------------


@pytest.mark.parametrize("map", [map, backwards])
def test_the_failing_node_with_the_smallest_index_decides(map: Any) -> None:
    """Of three that fail side by side, the first, whichever ran first; those behind it are skipped, one that ran too."""
    nodes = [picked(External(0), most) for most in range(6)]
    program = Program.of(1, nodes, [Output(at) for at in range(6)])
    limits = [node.params for node in program.nodes]
    failing = [at for at, params in enumerate(limits) if params in {pack({"most": most}) for most in range(3)}]
    execution = execute(program, (Artifact(b"abc"),), None, REGISTRY, map=map)
    first = failing[0]
    assert len(failing) == 3
    assert execution.result.status == Status.RUNTIME
    assert execution.result.code == 0xFFFF << 16 | 7
    assert execution.result.diagnostics == (Diagnostic(7, b"3 bytes"),)
    assert statuses(execution) == [NodeStatus.OK] * first + [NodeStatus.FAILED] + [NodeStatus.SKIPPED] * (5 - first)
    assert execution.outputs == ()


@pytest.mark.parametrize("map", [map, backwards])
@pytest.mark.parametrize("first", ["kernel", "host"])
def test_a_bug_behind_the_failing_node_is_not_met(map: Any, first: str) -> None:
    """A node behind the one that decides may have run, fail as it likes: one after the other, it would not have run."""
    operations = registry()
    seen = []
    for number in range(20):  # their order in the program is that of their hashes

        def broken(_: Any, params: Any, __: Any) -> Any:
            seen.append(params["number"])
            raise ZeroDivisionError

        operations.register(f"test.broken{number}", 1, broken, inputs=1, outputs=1, impl=IMPL)
    fails = picked(Output(0), 0) if first == "host" else part(Output(0), 0, 9)
    for number in range(20):
        bug = Node(f"test.broken{number}", 1, (Output(0),), pack({"number": number}))
        program = Program.of(1, [picked(External(0), 9), fails, bug], [Output(1), Output(2)])
        if program.nodes[1].operation == fails.operation:
            execution = execute(program, (HELLO,), None, operations, map=map)
            assert statuses(execution) == [NodeStatus.OK, NodeStatus.FAILED, NodeStatus.SKIPPED]
            assert first == "host" or number not in seen  # its sizes were known before the two were begun
        else:
            with pytest.raises(OutOfModel, match="ZeroDivisionError"):
                execute(program, (HELLO,), None, operations, map=map)
    assert 0 < len(seen) <= 20


def test_a_doubling_graph_fails_at_its_sum() -> None:
    """64 nodes, 2**64 bytes: node 40 is the first above 2**40, and nothing was made to find it."""
    program = chain(*doubling(64, External(0)))
    tracemalloc.start()
    try:
        execution = execute(program, (Artifact(b"x"),), None, KERNEL)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert (execution.result.status, execution.result.code) == (Status.RUNTIME, 1 << 16 | 1)
    assert execution.result.diagnostics == ()
    assert statuses(execution) == [NodeStatus.FAILED if at == 40 else NodeStatus.SKIPPED for at in range(64)]


def test_the_sum_may_be_exactly_as_large_as_allowed() -> None:
    """2**40 bytes break no rule of the model, only the budget of the machine."""
    with pytest.raises(OutOfModel, match=f"{1 << 40} live bytes"):
        execute(chain(*doubling(40, External(0))), (Artifact(b"x"),), None, KERNEL)
    assert execute(chain(*doubling(41, External(0))), (Artifact(b"x"),), None, KERNEL).result.code == 1 << 16 | 1
    assert execute(chain(*doubling(64, External(0))), (Artifact(b""),), None, KERNEL).outputs == (Artifact(b""),)


@example(offset=2**64 - 1, length=2**64 - 1)
@example(offset=2**64 - 1, length=1)
@example(offset=5, length=0)
@given(offset=st.integers(0, 7), length=st.integers(0, 7))
def test_a_slice_is_not_clipped(offset: int, length: int) -> None:
    """It is there as a whole, or it fails; the sum of offset and length does not overflow."""
    execution = execute(chain(part(External(0), offset, length)), (HELLO,), None, KERNEL)
    if offset + length <= 5:
        assert execution.outputs == (Artifact(b"hello"[offset : offset + length]),)
    else:
        assert (execution.result.status, execution.result.code) == (Status.RUNTIME, 2 << 16 | 1)


@pytest.mark.parametrize("hash_id", [0, 2, 0xFFFF])
def test_a_hash_that_is_not_supported_is_a_failure(hash_id: int) -> None:
    program = chain(Node(HASH, 1, (External(0),), hash_id.to_bytes(2, "big")))
    assert execute(program, (HELLO,), None, KERNEL).result.code == 4 << 16 | 1


def test_tags_are_of_constants_and_params_alone() -> None:
    """A constant has its tag, so have the run's params; what is made of tagged bytes has none."""
    tagged = Artifact(b"ab", 7)
    nodes = [constant(b"ab", 7), Node(PARAMS, 1, ()), concat(External(0)), part(External(0), 0, 2)]
    program = Program.of(1, nodes, [Output(at) for at in range(4)])
    assert execute(program, (tagged,), tagged, KERNEL).outputs == (tagged, tagged, Artifact(b"ab"), Artifact(b"ab"))


INVALID = {
    "no input": concat(),
    "two inputs for one": Node(HASH, 1, (External(0), External(0)), b"\0\1"),
    "an input for none": Node(PARAMS, 1, (External(0),)),
    "params for none": Node("pel.bytes.concat", 1, (External(0),), b"x"),
    "short params": Node("pel.bytes.slice", 1, (External(0),), bytes(15)),
    "long params": Node("pel.bytes.slice", 1, (External(0),), bytes(17)),
    "no artifact": Node("pel.bytes.const", 1, (), b"\2"),
    "a trailing byte": Node("pel.bytes.const", 1, (), Artifact(b"x").to_bytes() + b"x"),
    "half a hash id": Node(HASH, 1, (External(0),), b"\0"),
    "no document": Node("test.pick", 1, (External(0),), b""),
    "a document in another form": Node("test.pick", 1, (External(0),), b"\xcc\x01"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_node_that_does_not_fit_its_operation_is_an_invalid_program(case: str) -> None:
    """Found before anything runs, and before the inputs are counted."""
    program = Program.of(1, [INVALID[case], constant(b"fine")], [Output(0), Output(1)])
    at = 1 - place(program, constant(b"fine"))
    for inputs in ((HELLO,), ()):
        execution = execute(program, inputs, None, REGISTRY)
        assert (execution.result.status, execution.result.code) == (Status.INVALID_PROGRAM, 0)
        assert statuses(execution)[at] == NodeStatus.FAILED
        assert statuses(execution)[1 - at] == NodeStatus.SKIPPED
        assert (execution.outputs, execution.result.diagnostics) == ((), ())


@pytest.mark.parametrize("source", [Output(0, 1), Output(0, 2**32 - 1)])
def test_an_output_that_an_operation_does_not_have(source: Output) -> None:
    """Read by a node: the node is invalid. Named by a root: no node is to blame, and the program is."""
    read = Program.of(1, [concat(External(0)), concat(source)], [Output(1)])
    execution = execute(read, (HELLO,), None, KERNEL)
    assert execution.result.status == Status.INVALID_PROGRAM
    assert statuses(execution) == [NodeStatus.SKIPPED, NodeStatus.FAILED]
    named = Program.of(1, [concat(External(0))], [source])
    execution = execute(named, (HELLO,), None, KERNEL)
    assert execution.result.status == Status.INVALID_PROGRAM
    assert statuses(execution) == [NodeStatus.SKIPPED]


@pytest.mark.parametrize("inputs", [(), (HELLO,), (HELLO, HELLO, HELLO)])
def test_another_number_of_inputs_is_invalid(inputs: tuple[Artifact, ...]) -> None:
    execution = execute(CONCAT_TWO, inputs, None, KERNEL)
    assert (execution.result.status, execution.result.code) == (Status.INVALID_INPUTS, 0)
    assert execution.trace.nodes == (SKIPPED,)


def test_params_that_are_read_must_be_there() -> None:
    """Absent they are invalid inputs; an empty artifact is not absent."""
    program = Program.of(0, [Node(PARAMS, 1, ())], [Output(0)])
    execution = execute(program, (), None, KERNEL)
    assert execution.result.status == Status.INVALID_INPUTS
    assert statuses(execution) == [NodeStatus.FAILED]
    empty = execute(program, (), Artifact(b""), KERNEL)
    assert empty.outputs == (Artifact(b""),)
    assert empty.key != execution.key


def test_what_sizes_say_is_said_before_anything_runs() -> None:
    """A slice that is sure to fail: the host operation of a smaller index was not even asked."""
    asked = []

    def ask(inputs: Any, _: Any, __: Any) -> Any:
        asked.append(inputs)
        return inputs

    operations = OperationRegistry.kernel()
    operations.register("test.ask", 1, ask, inputs=1, outputs=1, impl=IMPL)
    nodes = [Node("test.ask", 1, (External(0),), pack({})), constant(b"abc"), part(Output(1), 2, 2)]
    program = Program.of(1, nodes, [Output(0), Output(2)])
    execution = execute(program, (HELLO,), None, operations)
    assert execution.result.code == 2 << 16 | 1
    assert statuses(execution) == [NodeStatus.SKIPPED, NodeStatus.SKIPPED, NodeStatus.FAILED]
    assert asked == []


def test_a_program_without_nodes() -> None:
    """It has nothing to do, and does it: OK, and no outputs."""
    execution = execute(Program(1, (), ()), (HELLO,), None, KERNEL)
    assert (execution.result.status, execution.outputs, execution.trace.nodes) == (Status.OK, (), ())
    assert execution.result.answer() == execution.result.reference()


# --- what a machine cannot do -----------------------------------------------------------------------


def host(function: Any, *, inputs: int = 1, outputs: int = 1) -> tuple[OperationRegistry, Program]:
    """A registry with ``test.it`` and a program of this one node."""
    operations = OperationRegistry.kernel()
    operations.register("test.it", 1, function, inputs=inputs, outputs=outputs, impl=IMPL)
    node = Node("test.it", 1, (External(0),) * inputs, pack({"list": [1]}))
    return operations, Program.of(1, [node], [Output(0)])


def raises(error: BaseException) -> Any:
    def function(*_: Any) -> Any:
        raise error

    return function


BUGS = {
    "an exception": (raises(KeyError("x")), "KeyError"),
    "bad bytes that it should have reported": (raises(CodecError("a", "b", "c")), "CodecError"),
    "no memory": (raises(MemoryError()), "no memory"),
    "nothing": (lambda *_: None, "TypeError"),
    "an artifact, not a list of one": (lambda inputs, *_: inputs[0], "bug"),
    "too few": (lambda *_: [], "0 outputs, 1 are registered"),
    "too many": (lambda inputs, *_: [*inputs, *inputs], "2 outputs, 1 are registered"),
    "bytes": (lambda *_: [b"x"], "not a bytes"),
    "bytes that may change": (lambda *_: [Artifact(bytearray(b"x"))], "Artifact of bytes"),
    "a tag that is none": (lambda *_: [Artifact(b"x", 2**32)], "CodecError"),
    "a failure without a number": (lambda *_: raises(Exception("x"))(), "Exception"),
}


@pytest.mark.parametrize("case", BUGS)
def test_a_bug_in_a_host_operation_leaves_no_result(case: str) -> None:
    """It says which operation, and what; it is the machine's fault and not the computation's."""
    function, rule = BUGS[case]
    operations, program = host(function)
    with pytest.raises(OutOfModel, match=rule) as raised:
        execute(program, (HELLO,), None, operations)
    assert raised.value.value == "node 0 (test.it/1)"
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(("index", "message"), [(0, ""), (0x10000, ""), (-1, ""), (1, "x" * 4097), (1, "\ud800")])
def test_a_failure_out_of_range_is_a_bug(index: int, message: str) -> None:
    """Its number or message would not fit the result: the operation is wrong, not its inputs."""

    def function(*_: Any) -> Any:
        raise OperationFailed(index, message)

    operations, program = host(function)
    with pytest.raises(OutOfModel, match="bug"):
        execute(program, (HELLO,), None, operations)


def test_a_host_operation_may_say_itself_what_the_machine_lacks() -> None:
    """Its OutOfModel is the run's, word for word, and no bug."""
    lacking = OutOfModel("state of 9 GiB", "there is no room for it", "run it on a larger machine")
    operations, program = host(raises(lacking))
    with pytest.raises(OutOfModel) as raised:
        execute(program, (HELLO,), None, operations)
    assert raised.value is lacking


def test_an_interruption_is_not_caught() -> None:
    operations, program = host(raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        execute(program, (HELLO,), None, operations)


def test_an_operation_that_is_not_here_is_out_of_model() -> None:
    """Another site may have it: that it is missing is no property of the program."""
    for node in (Node("test.pick", 2, (External(0),), pack({"most": 9})), Node("pel.bytes.reverse", 1, (External(0),))):
        with pytest.raises(OutOfModel, match=f"{node.operation}/{node.version} is not registered"):
            execute(chain(node), (HELLO,), None, REGISTRY)


def test_a_run_may_be_cancelled_between_nodes() -> None:
    """It is asked before each node; there is no result of half a run."""
    answers = iter([False, False, True])
    program = chain(*doubling(5, External(0)))
    with pytest.raises(OutOfModel, match="cancelled") as raised:
        execute(program, (HELLO,), None, KERNEL, Limits(cancelled=lambda: next(answers)))
    assert raised.value.value.startswith("node 2 ")


def test_bytes_that_no_node_reads_any_more_are_let_go() -> None:
    """A chain of 50 KiB in a budget of 11: at most what a node reads and makes is live. All as outputs, they are not."""
    nodes = [concat(External(0)), *[concat(Output(at)) for at in range(49)]]
    inputs = (Artifact(bytes(1024)),)
    assert execute(chain(*nodes), inputs, None, KERNEL, Limits(3 * 1024)).outputs == inputs
    with pytest.raises(OutOfModel, match=f"{3 * 1024 + 1024} live bytes"):
        execute(Program.of(1, nodes, [Output(at) for at in range(50)]), inputs, None, KERNEL, Limits(3 * 1024))


def test_live_bytes_are_refused_before_they_are_made() -> None:
    """Behind a host operation, where no size is known before it has run: 4 MiB at once cost nothing but an error."""
    program = chain(picked(External(0), 1024), concat(*[Output(0)] * 4096))
    tracemalloc.start()
    try:
        with pytest.raises(OutOfModel, match=f"{2048 + (4 << 20)} live bytes"):
            execute(program, (Artifact(bytes(1024)),), None, REGISTRY, Limits(1 << 16))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_a_host_operation_makes_counts_too() -> None:
    operations, program = host(lambda *_: [Artifact(bytes(100))])
    assert execute(program, (HELLO,), None, operations, Limits(105)).outputs == (Artifact(bytes(100)),)
    with pytest.raises(OutOfModel, match="105 live bytes: a run has at most 104"):
        execute(program, (HELLO,), None, operations, Limits(104))


@pytest.mark.parametrize("map", [map, backwards])
@given(program=programs(), payload=st.binary(max_size=4), budget=st.integers(0, 60))
def test_a_budget_leaves_the_result_or_nothing(map: Any, program: Program, payload: bytes, budget: int) -> None:
    """Whatever the limit: the one result, or OutOfModel; and the same of the two in any order."""
    inputs = [Artifact(payload), WORLD][: program.externals]
    whole = execute(program, inputs, HELLO, REGISTRY)
    try:
        bounded = execute(program, inputs, HELLO, REGISTRY, Limits(budget), map=map)
    except OutOfModel:
        bounded = None
    assert bounded in (whole, None)
    assert bounded == whole or budget < 1 << 10


# --- what host operations get -----------------------------------------------------------------------


def test_a_host_operation_gets_artifacts_params_and_a_stream() -> None:
    """And nothing else: no store, no clock, no key; the stream is one of the run's seed, named by the node."""
    got: list[Any] = []

    def function(*given: Any, **more: Any) -> Any:
        got.append((given, more))
        return [Artifact(given[2].bits().to_bytes(8, "big"), 3)]

    operations, program = host(function, inputs=2)
    execution = execute(program, (HELLO,), WORLD, operations)
    ((inputs, params, stream), more) = got[0]
    assert (inputs, params, more) == ((HELLO, HELLO), {"list": [1]}, {})
    assert type(inputs) is tuple
    assert type(stream) is Stream
    assert stream.path == "test.it/1.0"
    assert stream.key == Stream(int.from_bytes(execution.key[:8], "big"), "test.it/1.0").key
    assert execution.outputs == (
        Artifact(Stream(int.from_bytes(execution.key[:8], "big"), "test.it/1.0").bits().to_bytes(8, "big"), 3),
    )


def test_equal_runs_draw_equal_numbers_and_two_nodes_do_not() -> None:
    """Another salt, another input or another node: other numbers."""

    def draw(_: Any, __: Any, stream: Stream) -> Any:
        return [Artifact(stream.bits().to_bytes(8, "big"))]

    operations = OperationRegistry.kernel()
    operations.register("test.draw", 1, draw, inputs=1, outputs=1, impl=IMPL)
    nodes = [Node("test.draw", 1, (External(0),), pack(number)) for number in range(3)]
    program = Program.of(1, nodes, [Output(at) for at in range(3)])
    runs = [
        execute(program, (artifact,), None, operations, salt=salt).outputs
        for artifact in (HELLO, WORLD)
        for salt in (b"", b"salt")
    ]
    assert len({output for outputs in runs for output in outputs}) == 12
    assert execute(program, (HELLO,), None, operations).outputs == runs[0]


def test_params_that_a_host_operation_changes_are_its_own() -> None:
    """The next run reads the document again."""

    def function(inputs: Any, params: Any, _: Any) -> Any:
        params["list"].append(2)
        return [Artifact(bytes(params["list"]))]

    operations, program = host(function)
    assert [execute(program, (HELLO,), None, operations).outputs for _ in range(2)] == [(Artifact(b"\1\2"),)] * 2


# --- what names a run -------------------------------------------------------------------------------


def test_a_salt_disowns_a_result() -> None:
    """Another key and environment, the same outputs; the key does not hold the salt, only its hash."""
    plain, salted = (execute(CONCAT_TWO, (HELLO, WORLD), None, KERNEL, salt=salt) for salt in (b"", b"poisoned"))
    assert plain.key != salted.key
    assert plain.outputs == salted.outputs
    assert plain.result == salted.result
    assert (salted.environment.salt, salted.environment.listing) == (b"poisoned", salted.listing.reference())
    assert [row.name for row in salted.listing.rows] == ["pel.bytes.concat", "salt"]


def test_a_platform_is_named_where_an_operation_is_bound_to_it() -> None:
    """In environment and key; a program that does not use such an operation is the same on every platform."""

    def run(platform: str, program: Program) -> Execution:
        operations = OperationRegistry.kernel(platform=platform)
        operations.register(
            "test.sine", 1, lambda inputs, *_: inputs, inputs=1, outputs=1, impl=IMPL, platform_bound=True
        )
        return execute(program, (HELLO,), None, operations)

    bound = chain(Node("test.sine", 1, (External(0),), pack({})))
    one, other = (run(platform, bound) for platform in ("linux-x86_64", "linux-aarch64"))
    assert one.key != other.key
    assert (one.environment.platform, other.environment.platform) == ("linux-x86_64", "linux-aarch64")
    assert [row.name for row in one.listing.rows] == ["platform", "test.sine"]
    free = chain(concat(External(0)))
    assert run("linux-x86_64", free) == run("linux-aarch64", free)
    assert run("linux-x86_64", free).environment.platform == "any"


def test_another_implementation_is_another_computation() -> None:
    keys = set()
    for number in (1, 2):
        operations = OperationRegistry.kernel()
        operations.register("test.it", 1, lambda inputs, *_: inputs, inputs=1, outputs=1, impl=bytes([number]) * 32)
        program = chain(Node("test.it", 1, (External(0),), pack({})))
        keys.add(execute(program, (HELLO,), None, operations).key)
    assert len(keys) == 2


def test_a_program_out_of_its_form_is_not_run() -> None:
    """It would have no name: what is run is what its reference says."""
    nodes = (constant(b"a"), constant(b"b"))
    roots = (Output(0), Output(1))
    wrong = [Program(0, order, roots) for order in (nodes, nodes[::-1])]
    (refused,) = [program for program in wrong if program.nodes != Program.of(0, nodes, roots).nodes]
    with pytest.raises(CodecError, match="ascend"):
        execute(refused, (), None, KERNEL)
