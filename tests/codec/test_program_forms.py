"""Every byte form of programs and their runs: golden bytes, both ways for any value, and no second form for any bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import second_decoder as second
from hypothesis import given
from hypothesis import strategies as st
from program_values import PROGRAM_FORMS, plain

from tampering import flips
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.computations import Environment, Listing, ListingRow, Manifest, computation_key
from tidewarp.codec.programs import SCHEME_REFERENCE, External, Node, Output, Program
from tidewarp.codec.receipts import BY_CONSTRUCTION, Determinism, Executor, Receipt
from tidewarp.codec.results import NodeStatus, NodeTrace, Result, Status, Trace
from tidewarp.errors import CodecError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
GOLDEN = [
    ("program", "program_concat"),
    ("program", "program_const_hash"),
    ("result", "result"),
    ("trace", "trace"),
    ("manifest", "manifest"),
    ("listing", "opreg"),
    ("executor", "executor"),
    ("receipt", "receipt"),
]
FORM = pytest.mark.parametrize("form", PROGRAM_FORMS)
EACH_GOLDEN = pytest.mark.parametrize(("form", "name"), GOLDEN, ids=[name for _, name in GOLDEN])

HELLO, WORLD, OUTPUT = (Artifact(payload).reference() for payload in (b"hello", b" world", b"hello world"))
CONCAT = Program.of(2, [Node("pel.bytes.concat", 1, (External(0), External(1)))], [Output(0)])
LISTING = Listing((ListingRow("pel.bytes.concat", 1, bytes(32)),))


def agreed(form: str, data: bytes) -> Any:
    """What both decoders say that ``data`` is, or None where both refuse it; its one form is ``data``."""
    _, write, read, again = PROGRAM_FORMS[form]
    try:
        value = read(data)
    except CodecError:
        with pytest.raises(second.Refused):
            again(data)
        return None
    assert plain(value) == again(data)
    assert write(value) == data
    return value


def test_the_worked_run() -> None:
    """concat of two artifacts: from the values to the bytes and references of all that a run leaves."""
    assert SCHEME_REFERENCE.to_bytes() == VECTORS["scheme_ref"]
    assert CONCAT.to_bytes() == VECTORS["program_concat"]
    assert CONCAT.reference().to_bytes() == VECTORS["ref_program_concat"]
    assert LISTING.to_bytes() == VECTORS["opreg"]
    assert LISTING.reference().to_bytes() == VECTORS["ref_opreg"]
    key = computation_key(SCHEME_REFERENCE, CONCAT.reference(), (HELLO, WORLD), None, LISTING.reference())
    assert key == VECTORS["computation_key"]
    swapped = computation_key(SCHEME_REFERENCE, CONCAT.reference(), (WORLD, HELLO), None, LISTING.reference())
    assert swapped == VECTORS["computation_key_swapped"]

    result = Result(Status.OK, 0, SCHEME_REFERENCE, CONCAT.reference(), (HELLO, WORLD), None, (OUTPUT,))
    assert result.to_bytes() == VECTORS["result"]
    assert result.reference().to_bytes() == VECTORS["ref_result"]
    trace = Trace(result.reference(), (NodeTrace(NodeStatus.OK, 0, (OUTPUT,)),))
    assert trace.to_bytes() == VECTORS["trace"]
    assert trace.reference().to_bytes() == VECTORS["ref_trace"]

    manifest = Manifest((HELLO, WORLD))
    environment = Environment(LISTING.reference(), SCHEME_REFERENCE)
    executor = Executor(VECTORS["public_key"], "site-a")
    assert manifest.to_bytes() == VECTORS["manifest"]
    assert environment.to_bytes() == VECTORS["environment"]
    assert executor.to_bytes() == VECTORS["executor"]
    receipt = Receipt(
        CONCAT.reference(),
        manifest.reference(),
        environment.reference(),
        b"tidewarp-pel/1",
        result.answer(),
        (executor.reference(),),
        run_id=b"r1",
        determinism=Determinism(BY_CONSTRUCTION),
    )
    assert receipt.to_bytes() == VECTORS["receipt"]
    assert receipt.reference().to_bytes() == VECTORS["ref_receipt"]


def test_a_constant_and_its_hash() -> None:
    """Two levels: the node that reads another stands behind it."""
    nodes = [
        Node("pel.bytes.const", 1, (), Artifact(b"hello").to_bytes()),
        Node("pel.bytes.hash.asl1", 1, (Output(0),), b"\0\1"),
    ]
    program = Program.of(0, nodes, [Output(1)])
    assert program.to_bytes() == VECTORS["program_const_hash"]
    assert program.reference().to_bytes() == VECTORS["ref_program_const_hash"]


@EACH_GOLDEN
def test_golden_bytes_are_read_and_written_again(form: str, name: str) -> None:
    assert agreed(form, VECTORS[name]) is not None


@EACH_GOLDEN
def test_every_flipped_bit_is_refused_or_is_another_value(form: str, name: str) -> None:
    """So is a byte more or less; and the two decoders agree on which is which."""
    whole = VECTORS[name]
    value = PROGRAM_FORMS[form].read(whole)
    outcomes = [agreed(form, data) for data in flips(whole)]
    assert len(outcomes) == 8 * len(whole) + 2
    assert value not in outcomes
    assert outcomes.count(None) >= 2


@FORM
@given(data=st.data())
def test_every_value_comes_back(form: str, data: st.DataObject) -> None:
    """Written and read, it is the same; and the second decoder reads the same."""
    values, write, _, _ = PROGRAM_FORMS[form]
    value = data.draw(values)
    assert agreed(form, write(value)) == value


@FORM
@given(data=st.data())
def test_any_bytes_are_refused_or_have_one_form(form: str, data: st.DataObject) -> None:
    """Bytes near to a value's, or any: what is accepted is written as the same bytes."""
    values, write, _, _ = PROGRAM_FORMS[form]
    near = bytearray(write(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(near)))
        end = data.draw(st.integers(at, min(len(near), at + 8)))
        near[at:end] = data.draw(st.binary(max_size=8))
    agreed(form, bytes(near))
    agreed(form, data.draw(st.binary(max_size=80)))


def test_every_flipped_bit_of_an_environment() -> None:
    """It is a document, which the second decoder does not read: refused, or another value with these bytes."""
    whole = VECTORS["environment"]
    value = Environment.from_bytes(whole)
    refused = 0
    for data in flips(whole):
        try:
            other = Environment.from_bytes(data)
        except CodecError:
            refused += 1
        else:
            assert other != value
            assert other.to_bytes() == data
    assert refused > 8 * len("opreg" + "platform" + "scheme")  # of the keys none is another key


@pytest.mark.parametrize(
    ("form", "count_at"), [("program", 6), ("trace", 40), ("manifest", 0), ("listing", 0), ("result", 84)]
)
def test_a_count_is_compared_with_the_bytes_before_anything_is_made(form: str, count_at: int) -> None:
    """4 billion items in a few bytes: refused, and no list of them was begun."""
    name = dict(reversed(GOLDEN))[form]
    data = bytearray(VECTORS[name])
    for number in (0xFFFFFFFF, 65_536):
        data[count_at : count_at + 4] = number.to_bytes(4, "big")
        with pytest.raises(CodecError, match=f"{number}"):
            PROGRAM_FORMS[form].read(bytes(data))
