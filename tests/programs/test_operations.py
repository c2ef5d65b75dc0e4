"""The registry of operations, and what may be registered."""

from __future__ import annotations

from typing import Any

import pytest
from small_programs import IMPL, mix, registry

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.frames import ITEMS_MAX, TEXT_BYTES_MAX
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.errors import ModelError, OutOfModel
from tidewarp.programs import HostOperation, OperationFailed, OperationRegistry

FIVE = [
    ("pel.bytes.concat", 1, range(1, ITEMS_MAX + 1)),
    ("pel.bytes.slice", 2, range(1, 2)),
    ("pel.bytes.const", 3, range(1)),
    ("pel.bytes.hash.asl1", 4, range(1, 2)),
    ("pel.bytes.params", 5, range(1)),
]


@pytest.mark.parametrize(("name", "code", "inputs"), FIVE)
def test_the_kernel_has_five_operations(name: str, code: int, inputs: range) -> None:
    """Each of version 1 with one output, and a digest of zeros: what they compute is in their name."""
    operation = OperationRegistry.kernel().find(name, 1)
    assert operation is not None
    assert (operation.code, operation.inputs, operation.outputs, operation.impl) == (code, inputs, 1, bytes(32))
    assert not operation.platform_bound
    assert OperationRegistry.kernel().find(name, 2) is None
    assert OperationRegistry().find(name, 1) is None


def test_a_host_operation_is_found_by_name_and_version() -> None:
    """Two versions are two operations; a registry of its own knows neither."""
    operations = registry()
    operations.register("test.mix", 2, mix, inputs=0, outputs=3, impl=bytes([9]) * 32)
    first, second = operations.find("test.mix", 1), operations.find("test.mix", 2)
    assert isinstance(first, HostOperation)
    assert isinstance(second, HostOperation)
    assert (first.code, first.inputs, first.outputs, first.impl) == (0xFFFF, range(2, 3), 2, IMPL)
    assert (second.inputs, second.outputs, second.impl) == (range(1), 3, bytes([9]) * 32)
    assert OperationRegistry.kernel().find("test.mix", 1) is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "a name"),
    "a name of the kernel": ({"name": "pel.bytes.reverse"}, "not the kernel's"),
    "a slash": ({"name": "test/it"}, "slash"),
    "a space": ({"name": "test it"}, "space"),
    "a line break": ({"name": "test\nit"}, "printable"),
    "a lone surrogate": ({"name": "test\ud800"}, "printable"),
    "a long name": ({"name": "é" * (TEXT_BYTES_MAX // 2 + 1)}, "1024 bytes"),
    "version 0": ({"version": 0}, "versions count from 1"),
    "a version above U32": ({"version": 1 << 32}, "versions count from 1"),
    "fewer inputs than none": ({"inputs": -1}, "inputs are 0"),
    "too many inputs": ({"inputs": ITEMS_MAX + 1}, "inputs are 0"),
    "no outputs": ({"outputs": 0}, "outputs 1"),
    "too many outputs": ({"outputs": 1_025}, "outputs 1"),
    "a digest of zeros": ({"impl": bytes(32)}, "not zero"),
    "a short digest": ({"impl": bytes(31)}, "32 bytes"),
    "a platform that nobody named": ({"platform_bound": True}, "platform"),
    "a name that is taken": ({"name": "test.mix"}, "registered already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_be_registered(case: str) -> None:
    """It is said at once, with the operation's name; and nothing was registered."""
    changes, rule = REFUSED[case]
    operations = registry()
    given = {"name": "test.it", "version": 1, "inputs": 1, "outputs": 1, "impl": IMPL} | changes
    before = operations.find(given["name"], given["version"])
    with pytest.raises(ModelError, match=rule):
        operations.register(given.pop("name"), given.pop("version"), mix, **given)
    assert operations.find("test.it", 1) is None
    assert before == operations.find("test.mix", 1) or before is None


def test_the_operations_of_a_program() -> None:
    """By node; the first that is not here is named with its node."""
    nodes = [Node("test.mix", 1, (External(0), External(0)), b"\x80"), Node("pel.bytes.params", 1, ())]
    program = Program.of(1, nodes, [Output(0), Output(1)])
    operations = registry()
    assert [one.name for one in operations.of_nodes(program)] == [node.operation for node in program.nodes]
    missing = [node.operation for node in program.nodes].index("test.mix")
    with pytest.raises(OutOfModel, match=f"node {missing}: operation test.mix/1 is not registered"):
        OperationRegistry.kernel().of_nodes(program)


def test_a_failure_has_an_index_and_a_message() -> None:
    failed = OperationFailed(3, "é")
    assert (failed.index, failed.message) == (3, "é".encode())
    assert OperationFailed(0xFFFF, "x" * 4096).message == b"x" * 4096
    for index, message in ((0, ""), (0x10000, ""), (1, "x" * 4097)):
        with pytest.raises(ModelError):
            OperationFailed(index, message)


def test_a_size_is_known_before_the_bytes() -> None:
    """For each kernel operation: what `size` says is how long `run` makes it."""
    hello, tagged = Artifact(b"hello"), Artifact(b"ab", 7)
    cases = [
        ("pel.bytes.concat", b"", [hello, tagged, hello]),
        ("pel.bytes.slice", bytes(7) + b"\1" + bytes(7) + b"\3", [hello]),
        ("pel.bytes.const", tagged.to_bytes(), []),
        ("pel.bytes.hash.asl1", b"\0\1", [hello]),
        ("pel.bytes.params", b"", [tagged]),
    ]
    for name, params, inputs in cases:
        operation = OperationRegistry.kernel().find(name, 1)
        assert operation is not None
        assert not isinstance(operation, HostOperation)
        value = operation.read(params)
        made = operation.run(value, inputs)
        assert len(made.payload) == operation.size(value, [len(artifact.payload) for artifact in inputs]) > 0
