from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import struct
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidewarp.codec import DEPTH_MAX, pack, unpack
from tidewarp.errors import CodecError

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
CANONICAL_NAN = bytes.fromhex("cb7ff8000000000000")


@dataclass
class Point:
    x: int = 1


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_golden() -> None:
    """The bytes that the specification gives: map keys in byte order, shortest forms."""
    assert pack({"z": 1, "é": 2, "aa": 3, "b": 4, "": 5}).hex() == "85a005a2616103a16204a17a01a2c3a902"


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    """unpack(pack(x)) is x, to the type and the sign of zero."""
    back = unpack(pack(value))
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, dict | list)
    assert pack(back) == pack(value)


@given(st.binary(max_size=64))
@example(b"\xca\x7f\xc0\x00\x00")
@example(b"\x81\xa1\xff\x01")
@example(b"\xd6\xff\xff\xff\xff\xff")
def test_bytes_are_refused_or_are_the_one_form(data: bytes) -> None:
    """Whatever unpack accepts, pack writes again; nothing else but CodecError is raised."""
    try:
        value = unpack(data)
    except CodecError:
        return
    assert pack(value) == data


@given(VALUES, st.data())
def test_a_flipped_bit_is_refused_or_is_another_value(value: object, data: st.DataObject) -> None:
    """No two byte strings stand for one value."""
    whole = pack(value)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        assert pack(unpack(bytes(flipped))) != whole
    except CodecError:
        pass


def test_any_nan_is_written_as_the_one_nan() -> None:
    """inf - inf has its sign bit set on x86; the bytes must not tell."""
    negative = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]
    for nan in (math.nan, negative, math.inf - math.inf):
        assert pack(nan) == CANONICAL_NAN
        assert pack({"a": (1, nan)}) == b"\x81\xa1a\x92\x01" + CANONICAL_NAN
    assert math.isnan(unpack(CANONICAL_NAN))
    assert math.isnan(unpack(pack([{"x": negative}]))[0]["x"])
    with pytest.raises(CodecError):
        unpack(bytes.fromhex("cbfff8000000000001"))


def test_edges_of_numbers() -> None:
    """-0.0 keeps its sign; ints reach from -2**63 to 2**64 - 1 and no further."""
    assert pack(-0.0).hex() == "cb8000000000000000"
    assert pack(1.5)[0] == 0xCB
    for value in (-(2**63), 2**64 - 1):
        assert unpack(pack(value)) == value
    for value in (-(2**63) - 1, 2**64, 10**5000):
        with pytest.raises(CodecError, match=r"value\['n'\]\[1\]: an int"):
            pack({"n": [0, value]})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {2}]}, r"value\['a'\]\[1\]: a builtins.set"),
        ([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], r"value\[0\]: a datetime.datetime"),
        ({"d": decimal.Decimal(1)}, r"value\['d'\]: a decimal.Decimal"),
        (Point(), r"value: a .*Point"),
        ([Colour.RED], r"value\[0\]: a .*Colour"),
        (Text("a"), r"value: a .*Text"),
        (bytearray(b"a"), r"value: a builtins.bytearray"),
        (1j, r"value: a builtins.complex"),
        (object, r"value: a builtins.type"),
        ({"m": {1: 2}}, r"value\['m'\]: a int key"),
        ({"m": {Text("a"): 2}}, r"value\['m'\]: a Text key"),
        (["ok", "\ud800"], r"value\[1\]: a str with '\\ud800'"),
        ({"\udfff": 1}, r"the keys of value: a str"),
    ],
)
def test_a_refusal_names_path_and_type(value: object, place: str) -> None:
    """A value without canonical form is refused with its place in the whole and its type."""
    with pytest.raises(CodecError, match=place):
        pack(value)


def test_depth_is_bounded_in_both_directions() -> None:
    """64 containers inside one another, not 65; a value that contains itself ends too."""
    deepest = nested(DEPTH_MAX)
    assert unpack(pack(deepest)) == deepest
    with pytest.raises(CodecError, match="nested too deep"):
        pack(nested(DEPTH_MAX + 1))
    with pytest.raises(CodecError, match="nested too deep"):
        unpack(b"\x91" * DEPTH_MAX + b"\x90")
    with pytest.raises(CodecError):
        unpack(pack([[1]]), depth_max=1)
    assert unpack(pack([1]), depth_max=1) == [1]
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CodecError):
        pack(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0\xc0",
        b"\xdd\xff\xff\xff\xff",  # 4 Gi items declared
        b"\xc6\xff\xff\xff\xff",
        b"\x82\xa1a\x01\xa1a\x02",  # duplicate key
        b"\x82\xa1b\x01\xa1a\x02",  # keys out of order
        b"\xcc\x01",  # longer than needed
        b"\xd9\x01a",
        b"\xdc\x00\x01\xc0",
        b"\xca\x3f\x80\x00\x00",  # binary32
        b"\x81\x01\x02",  # int key
        b"\x81\x90\x01",  # array key
        b"\xd4\x05a",  # ext
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\xa2\xff\xff",  # not UTF-8
        b"\x91" * 100_000 + b"\xc0",
    ],
)
def test_other_forms_are_refused(data: bytes) -> None:
    """Trailing bytes, long forms, duplicate keys, ext, depth 1e5, lengths beyond the bytes: CodecError, nothing else."""
    with pytest.raises(CodecError):
        unpack(data)


def test_only_bytes_are_unpacked() -> None:
    with pytest.raises(CodecError, match="bytearray"):
        unpack(bytearray(b"\xc0"))  # type: ignore[arg-type]


def test_a_tuple_is_an_array() -> None:
    assert pack((1, ("a",))) == pack([1, ["a"]])
