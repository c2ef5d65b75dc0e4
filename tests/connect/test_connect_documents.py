"""The journal's documents of inputs: nothing changes on the way there and back, and damage is always Corrupt."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import BODY_BYTES_MAX, unpack, unpack_document
from tidewarp.connect.contract import DeadLetter, Input
from tidewarp.connect.documents import (
    DEAD,
    ENDED,
    GAP,
    INPUTS,
    PATHS,
    SHED,
    PathTable,
    decode_inputs,
    encode_dead,
    encode_ended,
    encode_gap,
    encode_inputs,
    encode_shed,
    pack_positions,
    value_bytes,
)
from tidewarp.errors import Corrupt, InternalError

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
FLOATS = st.floats(allow_nan=False)
PLAIN = st.none() | st.booleans() | INT64 | FLOATS | TEXT
TREES = st.recursive(PLAIN, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3))
CHANGES = st.lists(st.tuples(TEXT, PLAIN | TREES), min_size=1, max_size=4).map(tuple)
POSITIONS = st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**48 - 1))


def build(places: list[tuple[int, int]], data: Any) -> list[Input]:
    inputs = []
    for partition, offset in places:
        tick = data.draw(INT64)
        event = data.draw(st.just(tick) | INT64)
        words = (data.draw(st.just("") | TEXT), data.draw(st.just("") | TEXT))
        inputs.append(Input(tick, 3, partition, offset, data.draw(CHANGES), event, *words))
    return inputs


def typed(value: Any) -> Any:
    """`value` with its types, so that 1, 1.0 and True are three, and -0.0 is not 0.0."""
    if isinstance(value, list | tuple):
        return [typed(part) for part in value]
    if isinstance(value, dict):
        return {key: typed(part) for key, part in value.items()}
    return type(value), struct.pack(">d", value) if isinstance(value, float) else value


@given(places=st.lists(POSITIONS, unique=True, max_size=5), data=st.data())
def test_inputs_come_back_as_they_went(places: list[tuple[int, int]], data: Any) -> None:
    """Every kind of value, several changes of one input, clamped ones among others, the same path again."""
    inputs = build(places, data)
    table, read = PathTable(), PathTable()
    *paths, rows = encode_inputs("source", 5, inputs, table)
    assert len(paths) == bool(inputs)
    for data_of_paths in paths:
        document = unpack_document(data_of_paths)
        assert document.value["first"] == 0
        read.add(document.value["paths"])
    assert encode_inputs("source", 5, inputs, table) == [rows], "each path is written once"
    document = unpack_document(rows)
    assert (document.schema, document.version) == (INPUTS, 1)
    assert (document.value["source"], document.value["admitted"]) == ("source", 5)
    assert ("ids" in document.value) == any(one.id for one in inputs)
    assert bool(document.value["causes"]) == any(one.cause for one in inputs)
    assert bool(document.value["events"]) == any(one.tick != one.event_tick for one in inputs)
    back = decode_inputs(document.value, 3, read)
    assert back == inputs
    assert [typed(one.changes) for one in back] == [typed(one.changes) for one in inputs]
    assert encode_inputs("source", 5, back, read) == [rows], "one form"


INPUTS_DONE = [
    Input(5, 1, 0, 0, (("line.a", 1.5), ("line.b", True), ("line.c", None)), 4),
    Input(-1, 1, 65_535, 2**48 - 1, (("line.a", -2), ("line.d", "é"), ("line.e", [1, {"k": False}])), -1),
]


def encoded() -> tuple[bytes, bytes, PathTable]:
    table = PathTable()
    paths, rows = encode_inputs("s", 3, INPUTS_DONE, table)
    return paths, rows, table


GOLDEN = {
    PATHS: (
        "93a874772e70617468730182a5666972737400a5706174687395a66c696e652e61a66c696e652e62a66c696e652e63a66c69"
        "6e652e64a66c696e652e65"
    ),
    INPUTS: (
        "93a974772e696e70757473018aa861646d697474656403a6636175736573c400a66576656e7473c430000000000000000400"
        "000000000000040000000000000004ffffffffffffffffffffffffffffffffffffffffffffffffa56b696e6473c406030100"
        "020405a76f666673657473c4300000000000000000000000000000000000000000000000000000ffffffffffff0000ffffff"
        "ffffff0000ffffffffffffaa706172746974696f6e73c40c000000000000ffffffffffffa57061746873c418000000000000"
        "000100000002000000000000000300000004a6736f75726365a173a57469636b73c430000000000000000500000000000000"
        "050000000000000005ffffffffffffffffffffffffffffffffffffffffffffffffa676616c756573c4213ff8000000000000"
        "01fffffffffffffffe00000002c3a900000006920181a16bc2"
    ),
    DEAD: (
        "93a774772e646561640185a861646d697474656403a7636f756e74656482a363737601a4666f726d02a76c65747465727391"
        "970207a576616c7565a7613a20623b2063c40468656164c420000102030405060708090a0b0c0d0e0f101112131415161718"
        "191a1b1c1d1e1fa0a9706f736974696f6e7392920001920209a6736f75726365a173"
    ),
    ENDED: ("93a874772e656e6465640182a861646d697474656403a6736f75726365a173"),
    GAP: ("93a674772e6761700185a861646d697474656403a3656e6409a5666972737407a9706172746974696f6e02a6736f75726365a173"),
    SHED: (
        "93a774772e736865640185a861646d697474656403a7636f756e74656482a9636f616c657363656401a47368656402a36964"
        "7392a469643a61a461743a37a9706f736974696f6e7392920001920209a6736f75726365a173"
    ),
}


def documents() -> dict[str, bytes]:
    paths, inputs, _ = encoded()
    letters = [DeadLetter(2, 7, "value", "a: b; c", b"head", bytes(range(32)))]
    return {
        PATHS: paths,
        INPUTS: inputs,
        DEAD: encode_dead("s", 3, letters, {"form": 2, "csv": 1}, {2: 9, 0: 1}),
        ENDED: encode_ended("s", 3),
        GAP: encode_gap("s", 3, 2, 7, 9),
        SHED: encode_shed("s", 3, {"shed": 2, "coalesced": 1}, {2: 9, 0: 1}, ["id:a", "at:7"]),
    }


@pytest.mark.parametrize("schema", list(GOLDEN))
def test_the_bytes_of_a_document_never_change(schema: str) -> None:
    """A journal of today is read for ever: what changes here needs a new version and an upcaster."""
    assert documents()[schema].hex() == GOLDEN[schema]
    assert unpack_document(bytes.fromhex(GOLDEN[schema])).schema == schema


def test_golden_inputs_are_read() -> None:
    """The frozen bytes, not only those of this release."""
    table = PathTable()
    paths = unpack_document(bytes.fromhex(GOLDEN[PATHS]))
    assert paths.value["first"] == 0
    table.add(paths.value["paths"])
    assert decode_inputs(unpack_document(bytes.fromhex(GOLDEN[INPUTS])).value, 1, table) == INPUTS_DONE


def test_ids_and_causes_are_written_once_per_input() -> None:
    """Frozen like the rest: each text after its U16 length, none in the further rows of one input."""
    inputs = [INPUTS_DONE[0]._replace(id="a7"), INPUTS_DONE[1]._replace(id="é", cause="0-1")]
    table = PathTable()
    _, rows = encode_inputs("s", 3, inputs, table)
    document = unpack_document(rows).value
    assert document["ids"].hex() == "00026137" + "0000" * 2 + "0002c3a9" + "0000" * 2
    assert document["causes"].hex() == "0000" * 3 + "0003302d31" + "0000" * 2
    assert decode_inputs(document, 1, table) == inputs


def test_a_float_input_costs_at_most_32_bytes() -> None:
    """What lets a journal hold years of readings: 31 bytes a row, and little for all of a record."""
    inputs = [Input(n, 1, 0, n, (("line.temperature", n / 7),), n) for n in range(8_192)]
    assert sum(map(len, encode_inputs("source", 0, inputs, PathTable()))) <= 32 * len(inputs)


def test_a_cursor_is_a_function_of_the_positions() -> None:
    """The order in which partitions showed themselves leaves no trace."""
    assert pack_positions({5: 1, 0: 2**48 - 1}) == pack_positions({0: 2**48 - 1, 5: 1})
    assert unpack(pack_positions({5: 1, 0: 7})) == [[0, 7], [5, 1]]


@pytest.mark.parametrize("value", [b"bytes", (1, 2), {1}, object(), 1j])
def test_a_value_that_the_gate_never_admits_is_our_fault(value: Any) -> None:
    """Declared types only."""
    with pytest.raises(InternalError, match="admits values of declared types"):
        value_bytes(value)


# ---------------------------------------------------------------------------- damage


def test_a_path_that_no_record_named_is_corrupt() -> None:
    """The table is shorter than the number."""
    _, inputs, _ = encoded()
    with pytest.raises(Corrupt, match="the journal names 0 paths"):
        decode_inputs(unpack_document(inputs).value, 1, PathTable())


@pytest.mark.parametrize("paths", [["a", "a"], [["a"]], [None], [3]])
def test_a_path_list_that_repeats_a_path_or_holds_something_else_is_corrupt(paths: Any) -> None:
    """Numbers would not mean what they meant when they were written."""
    with pytest.raises(Corrupt, match="listed once"):
        PathTable().add(paths)


def rows(kinds: bytes, values: Any, **columns: Any) -> dict[str, Any]:
    n = len(kinds)
    document = {
        "source": "s",
        "admitted": 0,
        "ticks": bytes(8 * n),
        "events": b"",
        "partitions": bytes(2 * n),
        "offsets": struct.pack(f">{n}Q", *range(n)),
        "paths": bytes(4 * n),
        "kinds": kinds,
        "values": values,
        "causes": b"",
    }
    return document | columns


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"kinds": b""},
        rows(b"\6", b""),
        rows(b"\xff", b""),
        rows(b"\0", b"x"),
        rows(b"", b"x"),
        rows(b"\1", b""),
        rows(b"\1", b"\2"),
        rows(b"\2", bytes(7)),
        rows(b"\3", bytes(9)),
        rows(b"\4", bytes(3)),
        rows(b"\4", b"\0\0\0\2x"),
        rows(b"\4", b"\xff\xff\xff\xffx"),
        rows(b"\4", b"\0\0\0\1\xff"),
        rows(b"\5", b"\0\0\0\1\xc1"),
        rows(b"\5", b"\0\0\0\0"),
        rows(b"\0\0", b"", ticks=bytes(15)),
        rows(b"\0", b"", partitions=b"\0"),
        rows(b"\0", b"", offsets=b""),
        rows(b"\0", b"", paths=bytes(8)),
        rows(b"\0", b"", events=bytes(7)),
        rows(b"\0\0", b"", events=bytes(8)),
        rows(b"\0", b"", paths=b"\0\0\0\1"),
        rows(b"\0\0", b"", offsets=bytes(16), ticks=bytes(15) + b"\1"),
        rows(b"\0\0", b"", offsets=bytes(16), events=bytes(15) + b"\1"),
        rows(b"\0", b"", ticks="12345678"),
        rows(b"\0", b"", ticks=None),
        rows(b"\0", None),
        rows(b"\0", b"") | {"kinds": "a"},
        rows(b"\0", b"") | {"kinds": [0]},
        rows(b"\0", b"") | {"kinds": 1},
        rows(b"\0", b"", events=1),
        rows(b"\0", b"", causes=None),
        rows(b"\0", b"", causes=b"\0"),
        rows(b"\0", b"", causes=b"\0\0"),
        rows(b"\0", b"", causes=b"\0\1"),
        rows(b"\0", b"", causes=b"\0\1\xff"),
        rows(b"\0", b"", ids=b"\0\1aa"),
        rows(b"\0\0", b"", ids=b"\0\1a"),
        rows(b"\0\0", b"", offsets=bytes(16), ids=b"\0\1a\0\1a"),
        rows(b"\0\0", b"", offsets=bytes(16), causes=b"\0\0\0\1a"),
        [],
        None,
        "text",
    ],
)
def test_damaged_columns_are_corrupt(damaged: Any) -> None:
    """Never a KeyError, a struct.error or a UnicodeDecodeError, and never other inputs."""
    table = PathTable()
    table.add(["a"])
    with pytest.raises(Corrupt, match="run tidewarp verify"):
        decode_inputs(damaged, 1, table)


JUNK = (
    st.none() | st.integers() | st.text(max_size=8) | st.binary(max_size=60) | st.lists(st.integers(0, 5), max_size=6)
)


@given(name=st.sampled_from(sorted(rows(b"", b""))), junk=JUNK, data=st.data())
def test_any_damage_gives_inputs_or_corrupt(name: str, junk: Any, data: Any) -> None:
    """A column replaced, or one of its bytes: an answer of the right shape, or Corrupt."""
    _, inputs, table = encoded()
    value = unpack_document(inputs).value
    column = value[name]
    if isinstance(column, bytes) and column and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(column) - 1))
        junk = column[:at] + data.draw(st.binary(max_size=2)) + column[at + 1 :]
    value[name] = junk
    with contextlib.suppress(Corrupt):
        back = decode_inputs(value, 1, table)
        assert all(type(one) is Input and one.changes for one in back)


def test_many_new_paths_are_spread_over_records() -> None:
    """5,000 paths of the longest kind in one batch: each document fits into a record, in the order of the table."""
    changes = tuple((f"{n:05d}.{'x' * 249}", 1.0) for n in range(5_000))
    table, read = PathTable(), PathTable()
    documents = table.introduce([path for path, _ in changes])
    assert len(documents) == 3
    for data in documents:
        assert len(data) < BODY_BYTES_MAX
        value = unpack_document(data).value
        assert value["first"] == len(read)
        read.add(value["paths"])
    assert [read.path(n) for n in range(5_000)] == [path for path, _ in changes]
