"""Programs from the form that people write."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_programs import CONST, HASH, PARAMS, SLICE, concat, constant, part, programs, registry

from tidewarp.codec import pack, unpack
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.frames import ITEMS_MAX
from tidewarp.codec.programs import PARAMS_BYTES_MAX, External, Node, Output, Program
from tidewarp.errors import ProgramRefused
from tidewarp.programs import build_program, execute

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
REGISTRY = registry()
JOIN = {"op": "pel.bytes.concat/1", "in": ["a", "b"]}
WORKED = {
    "inputs": ["a", "b"],
    "nodes": {"j": JOIN, "s": {"op": "pel.bytes.slice/1", "in": ["j"], "params": {"offset": 0, "length": 5}}},
    "outputs": ["s"],
}
CONCAT = {"inputs": ["a", "b"], "nodes": {"c": JOIN}, "outputs": ["c"]}


def source_of(program: Program, chance: random.Random) -> dict[str, Any]:
    """A source of ``program``: any names, any order, and some nodes written twice; all that is written is read."""
    found: dict[str, int] = {}  # by name: its place in the program

    def wire(one: External | Output) -> str:
        if isinstance(one, External):
            return f"in {one.number}"
        name = f"n{one.node}{chance.choice(['', '', ' again'])}"
        found.setdefault(name, one.node)
        return name if not one.output and chance.random() < 0.5 else f"{name}:{one.output}"

    outputs = [wire(root) for root in program.roots]
    nodes: dict[str, dict[str, Any]] = {}
    while waiting := [name for name in found if name not in nodes]:
        for name in waiting:
            node = program.nodes[found[name]]
            op = f"{node.operation}/{node.version}"
            nodes[name] = {"op": op, "in": [wire(one) for one in node.inputs], **_params(node)}
    return {
        "outputs": outputs,
        "nodes": {name: nodes[name] for name in chance.sample(sorted(nodes), len(nodes))},
        "inputs": [f"in {number}" for number in range(program.externals)],
    }


def _params(node: Node) -> dict[str, Any]:
    match node.operation:
        case "pel.bytes.slice":
            numbers = [int.from_bytes(part, "big") for part in (node.params[:8], node.params[8:])]
            return {"params": dict(zip(("offset", "length"), numbers, strict=True))}
        case "pel.bytes.const":
            artifact = Artifact.from_bytes(node.params)
            tag = {} if artifact.tag is None else {"tag": artifact.tag}
            return {"params": {"hex": artifact.payload.hex(), **tag}}
        case "pel.bytes.hash.asl1":
            return {"params": {"hash_id": int.from_bytes(node.params, "big")}}
        case "pel.bytes.concat" | "pel.bytes.params":
            return {}
    return {"params": unpack(node.params)}


def test_the_worked_program() -> None:
    """The first example of the specification is the golden program; the second adds a slice to it."""
    assert build_program(CONCAT, REGISTRY).to_bytes() == VECTORS["program_concat"]
    program = build_program(WORKED, REGISTRY)
    assert program == Program.of(2, [concat(External(0), External(1)), part(Output(0), 0, 5)], [Output(1)])
    outputs = execute(program, (Artifact(b"hello"), Artifact(b" world")), None, REGISTRY).outputs
    assert outputs == (Artifact(b"hello"),)


def test_a_constant_and_its_hash() -> None:
    source = {
        "nodes": {
            "h": {"op": "pel.bytes.hash.asl1/1", "in": ["k"]},
            "k": {"op": "pel.bytes.const/1", "params": {"text": "hello"}},
        },
        "outputs": ["h"],
    }
    assert build_program(source, REGISTRY).to_bytes() == VECTORS["program_const_hash"]


@given(programs(), st.randoms(use_true_random=False))
def test_isomorphic_sources_are_one_program(program: Program, chance: random.Random) -> None:
    """Other names, another order, nodes written twice: equal bytes, those of the program that they were made from."""
    for _ in range(2):
        source = source_of(program, chance)
        assert build_program(source, REGISTRY).to_bytes() == program.to_bytes()
        assert build_program(json.loads(json.dumps(source)), REGISTRY).to_bytes() == program.to_bytes()


def test_outputs_by_number() -> None:
    """`name` is output 0 and `name:1` output 1, of a node read and of the program; their order is kept."""
    source = {
        "inputs": ["a"],
        "nodes": {
            "m": {"op": "test.mix/1", "in": ["a", "a:0"], "params": {"tag": 1}},
            "c": {"op": "pel.bytes.concat/1", "in": ["m:1", "m", "m:0"]},
        },
        "outputs": ["m:1", "c", "m"],
    }
    mixed = Node("test.mix", 1, (External(0), External(0)), pack({"tag": 1}))
    nodes = [mixed, concat(Output(0, 1), Output(0), Output(0))]
    assert build_program(source, REGISTRY) == Program.of(1, nodes, [Output(0, 1), Output(1), Output(0)])


@pytest.mark.parametrize(
    ("params", "artifact"),
    [
        ({"text": "é"}, Artifact("é".encode())),
        ({"text": ""}, Artifact(b"")),
        ({"hex": "00fF"}, Artifact(b"\0\xff")),
        ({"base64": "AP8="}, Artifact(b"\0\xff")),
        ({"file": "reading.csv"}, Artifact(b"of reading.csv")),
        ({"text": "x", "tag": 0}, Artifact(b"x", 0)),
        ({"hex": "", "tag": 2**32 - 1}, Artifact(b"", 2**32 - 1)),
    ],
)
def test_constants(params: dict[str, Any], artifact: Artifact) -> None:
    """As text, digits, base64 or a file, which the caller reads; with a tag or without."""
    source = {"nodes": {"k": {"op": "pel.bytes.const/1", "params": params}}, "outputs": ["k"]}
    program = build_program(source, REGISTRY, read_file=lambda name: f"of {name}".encode())
    assert program == Program.of(0, [constant(artifact.payload, artifact.tag)], [Output(0)])


def test_params_of_other_operations() -> None:
    """A hash id may be left out; a host operation has any object, or none and then an empty one."""

    def node(op: str, inputs: list[str], **params: Any) -> Node:
        one = {"op": op, "in": inputs, **params}
        return build_program({"inputs": ["a"], "nodes": {"n": one}, "outputs": ["n"]}, REGISTRY).nodes[0]

    assert node("pel.bytes.hash.asl1/1", ["a"]).params == b"\0\1"
    assert node("pel.bytes.hash.asl1/1", ["a"], params={"hash_id": 2}).params == b"\0\2"
    assert node("pel.bytes.params/1", []).params == b""
    assert node("pel.bytes.concat/1", ["a"], params={}).params == b""
    assert node("test.pick/1", ["a"]).params == pack({})
    assert node("test.pick/1", ["a"], params={"b": [1.5, None], "a": "x"}).params == pack({"a": "x", "b": [1.5, None]})


def const(**params: Any) -> dict[str, Any]:
    return {"op": f"{CONST}/1", "params": params}


LONG = "x" * 1000
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # what is set in WORKED (a path, and a value), and what the error says
    "no outputs": ({"outputs": None}, "it has no outputs"),
    "no nodes": ({"nodes": None}, "it has no nodes"),
    "a key that is none": ({"roots": []}, "'roots' is not one of its keys"),
    "nodes in a list": ({"nodes": []}, "nodes"),
    "outputs that are a name": ({"outputs": "s"}, "outputs: a list of names"),
    "an output that is no name": ({"outputs": [1]}, "outputs: a list of names"),
    "inputs that are a number": ({"inputs": 2}, "inputs: a list of names"),
    "an input twice": ({"inputs": ["a", "b", "a"]}, "a name stands for one input"),
    "an input without a name": ({"inputs": ["a", "b", ""]}, "input ''"),
    "an input with a colon": ({"inputs": ["a", "b", "c:1"]}, "input 'c:1'"),
    "an input named as a node": ({"inputs": ["a", "b", "j"]}, "node 'j': an input has this name"),
    "an output that is an input": ({"outputs": ["a"]}, "outputs: 'a' is no node"),
    "an output that is nothing": ({"outputs": ["s", "x"]}, "outputs: 'x' is no node"),
    "an output that the node has not": ({"outputs": ["s:1"]}, "node 's' has 1 outputs, counted from 0, and no 1"),
    "an output of no number": ({"outputs": ["s:x"]}, "neither NAME nor NAME:OUTPUT"),
    "an output of a negative number": ({"outputs": ["s:-1"]}, "neither NAME nor NAME:OUTPUT"),
    "an output of another digit": ({"outputs": ["s:١"]}, "neither NAME nor NAME:OUTPUT"),
    "a node that feeds nothing": ({"nodes.d": JOIN}, "node 'd': it feeds no output"),
    "a node that is a text": ({"nodes.j": "concat"}, "node 'j': an object, not a str"),
    "a node without a name": ({"nodes": {"": JOIN}}, "node ''"),
    "a node with a colon": ({"nodes": {"j:1": JOIN}}, "node 'j:1'"),
    "a node whose name is a number": ({"nodes": {1: JOIN}}, "node 1"),
    "a node with another key": ({"nodes.j.ins": []}, "node 'j': 'ins' is not one of its keys: op, in, params"),
    "a node without op": ({"nodes.j.op": None}, "node 'j': it has no op"),
    "an op of a number": ({"nodes.j.op": 1}, "node 'j': op 1 is no NAME/VERSION"),
    "an op without version": ({"nodes.j.op": "pel.bytes.concat"}, "no NAME/VERSION"),
    "an op of version 0": ({"nodes.j.op": "pel.bytes.concat/0"}, "no NAME/VERSION"),
    "an op of another version": ({"nodes.j.op": "pel.bytes.concat/2"}, "'pel.bytes.concat/2' is not registered"),
    "an op that is unknown": ({"nodes.j.op": "pel.bytes.reverse/1"}, "node 'j': .* is not registered"),
    "an op with a long name": ({"nodes.j.op": LONG}, "no NAME/VERSION"),
    "in that is a name": ({"nodes.j.in": "a"}, "in of node 'j': a list of names"),
    "in without any": ({"nodes.j.in": []}, "node 'j': pel.bytes.concat takes 1 to 65536 inputs, not 0"),
    "in with too many": ({"nodes.s.in": ["j", "j"]}, "node 's': pel.bytes.slice takes 1 inputs, not 2"),
    "in that is nothing": ({"nodes.s.in": ["x"]}, "node 's': 'x' is no node and no input"),
    "in with a long name": ({"nodes.s.in": [LONG]}, "node 's': 'x{80}'… is no node"),
    "in of an input's output": ({"nodes.j.in": ["a:1", "b"]}, "node 'j': 'a' is an input, which has no output 1"),
    "a cycle of one": ({"nodes.j.in": ["j"]}, "node 'j': it reads itself: 'j' -> 'j'"),
    "a cycle of two": ({"nodes.j.in": ["a", "s"]}, "it reads itself: '(j' -> 's' -> 'j|s' -> 'j' -> 's)'"),
    "no offset": ({"nodes.s.params": {"length": 1}}, "params of node 's': it has no offset"),
    "a negative offset": ({"nodes.s.params.offset": -1}, "node 's': params: -1"),
    "an offset beyond U64": ({"nodes.s.params.offset": 2**64}, "node 's': params"),
    "an offset that is a text": ({"nodes.s.params.offset": "0"}, "node 's': params"),
    "an offset that is a fraction": ({"nodes.s.params.offset": 0.5}, "node 's': params"),
    "an offset that is true": ({"nodes.s.params.offset": True}, "node 's': params: True: a number"),
    "params that are a list": ({"nodes.s.params": []}, "params of node 's': an object, not a list"),
    "params for none": ({"nodes.j.params": {"x": 1}}, "params of node 'j': 'x' is not one of its keys: none"),
    "a constant without": ({"nodes.j": const()}, "a constant is a text in one of"),
    "a constant of two": ({"nodes.j": const(text="x", hex="00")}, "a constant is a text in one of"),
    "a constant of a number": ({"nodes.j": const(text=1)}, "a constant is a text in one of"),
    "a constant of half a byte": ({"nodes.j": const(hex="0")}, "node 'j': params: non-hexadecimal"),
    "a constant of a lone surrogate": ({"nodes.j": const(text="\ud800")}, "surrogates not allowed"),
    "a constant of bad base64": ({"nodes.j": const(base64="AP8")}, "node 'j': params: Incorrect padding"),
    "a constant of other base64": ({"nodes.j": const(base64="AP8=!")}, "node 'j': params"),
    "a constant of a file": ({"nodes.j": const(file="/etc/passwd")}, "no files are read here"),
    "a constant with a tag that is none": ({"nodes.j": const(text="x", tag=2**32)}, "node 'j': params: artifact"),
    "a constant with a tag that is a text": ({"nodes.j": const(text="x", tag="7")}, "node 'j': params: artifact"),
    "a constant that is too long": (
        {"nodes.j": const(text="x" * PARAMS_BYTES_MAX)},
        "node 'j': has 1048585 bytes of params; 1048576",
    ),
    "a hash id beyond U16": (
        {"nodes.s": {"op": f"{HASH}/1", "in": ["j"], "params": {"hash_id": 65536}}},
        "node 's': params: 65536",
    ),
    "host params that are a list": (
        {"nodes.s": {"op": "test.pick/1", "in": ["j"], "params": [1]}},
        "node 's': params are an object",
    ),
    "host params without a form": (
        {"nodes.s": {"op": "test.pick/1", "in": ["j"], "params": {"x": 2**64}}},
        "node 's': params: value",
    ),
    "more outputs than a list has": ({"outputs": ["s"] * (ITEMS_MAX + 1)}, "at most 65536 items, not 65537"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_source_is_refused_with_its_place_and_rule(case: str) -> None:
    """Which node, which rule, what to do; and it is bad input, exit code 2."""
    changes, rule = REFUSED[case]
    source: dict[str, Any] = copy.deepcopy(WORKED)
    for path, value in changes.items():
        *above, last = path.split(".")
        place = source
        for key in above:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    with pytest.raises(ProgramRefused, match=rule) as raised:
        build_program(source, REGISTRY)
    assert raised.value.exit_code == 2
    assert len(str(raised.value)) < 1_000
    assert isinstance(raised.value, ValueError)


def test_a_source_that_is_no_object_is_refused() -> None:
    for source in ([], "x", None, 1):
        with pytest.raises(ProgramRefused, match="the source"):
            build_program(source, REGISTRY)  # type: ignore[arg-type]


def test_a_long_chain_is_no_recursion() -> None:
    """5,000 nodes, each of which reads the one written behind it; and the same as a ring."""
    nodes: dict[str, Any] = {f"n{at}": {"op": "pel.bytes.concat/1", "in": [f"n{at + 1}"]} for at in range(5_000)}
    nodes["n5000"] = {"op": "pel.bytes.concat/1", "in": ["a"]}
    program = build_program({"inputs": ["a"], "nodes": nodes, "outputs": ["n0"]}, REGISTRY)
    assert len(program.levels()) == len(program.nodes) == 5_001
    nodes["n5000"] = {"op": "pel.bytes.concat/1", "in": ["n0"]}
    with pytest.raises(ProgramRefused, match=r"reads itself: .* -> …") as raised:
        build_program({"inputs": ["a"], "nodes": nodes, "outputs": ["n0"]}, REGISTRY)
    assert len(str(raised.value)) < 200


def test_as_many_inputs_as_there_may_be() -> None:
    """Each is looked up at once: to compare it with all the others would take minutes."""
    names = [f"i{number}" for number in range(ITEMS_MAX)]
    nodes = {"n": {"op": "pel.bytes.concat/1", "in": names}}
    program = build_program({"inputs": names, "nodes": nodes, "outputs": ["n"]}, REGISTRY)
    assert program.nodes[0].inputs == tuple(External(at) for at in range(ITEMS_MAX))


def test_names_of_operations_are_those_of_the_registry() -> None:
    """What a source calls an operation is what the program calls it."""
    source = {"nodes": {"p": {"op": f"{PARAMS}/1"}}, "outputs": ["p"]}
    assert build_program(source, REGISTRY).nodes == (Node(PARAMS, 1, ()),)
    assert SLICE in {node.operation for node in build_program(WORKED, REGISTRY).nodes}
