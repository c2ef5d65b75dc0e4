"""Fields, their kinds and the one byte form of a row."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import ModelError, RangeError
from tidewarp.kernel import Array, Bytes, b1, f64, i8, i16, i32, i64, u8, u16, u32, u64
from tidewarp.kernel.kinds import BYTES_MAX, ROW_BYTES_MAX, Form, form_of

WHOLE = {"i8": i8, "i16": i16, "i32": i32, "i64": i64, "u8": u8, "u16": u16, "u32": u32, "u64": u64}
BITS = {name: int(name[1:]) for name in WHOLE}


def bounds(name: str) -> tuple[int, int]:
    bits = BITS[name]
    return (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def form_with(**kinds: Any) -> Form:
    return form_of(type("Row", (), {"__annotations__": kinds}))


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind == "f64":
        return st.floats()
    if kind == "b1":
        return st.booleans()
    if kind == "bytes":
        return st.binary(max_size=40)
    return st.integers(*bounds(kind))


KINDS = {**WHOLE, "f64": f64, "b1": b1}


@st.composite
def forms(draw: st.DrawFn) -> tuple[Form, list[Any]]:
    kinds: dict[str, Any] = {}
    values = []
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from([*KINDS, "bytes"]))
        shape = draw(st.sampled_from([(), (), (3,), (2, 2), (1, 2, 3)])) if kind != "bytes" else ()
        value = values_of(kind)
        for size in reversed(shape):
            value = st.lists(value, min_size=size, max_size=size)
        annotation = Bytes if kind == "bytes" else KINDS[kind]
        kinds[f"f{number}"] = Array[annotation, shape] if shape else annotation
        values.append(draw(value))
    return form_with(**kinds), values


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and a == b


@given(forms())
def test_a_row_comes_back_from_its_bytes(case: tuple[Form, list[Any]]) -> None:
    """All kinds and shapes, -0.0 included; the bytes of what comes back are the same."""
    form, values = case
    packed = form.pack(values)
    back = form.unpack(packed)
    assert same(list(back), values)
    assert form.pack(back) == packed
    if form.fixed:
        assert len(packed) == form.size == form.dtype().itemsize


@given(forms())
def test_numpy_reads_the_same_row(case: tuple[Form, list[Any]]) -> None:
    """The record of ``dtype`` is the byte form itself."""
    form, values = case
    if form.fixed and form.fields:
        (row,) = np.frombuffer(form.pack(values), form.dtype())
        assert form.pack([row[name].tolist() for name in form.names]) == form.pack(values)


def test_numbers_are_big_endian_without_padding() -> None:
    """The form that is hashed, written out by hand."""
    form = form_with(a=u8, b=i16, c=Array[u16, 2], d=f64, e=b1, f=Bytes)
    expected = b"\x07" + b"\xff\xfe" + b"\x00\x01\x00\x02" + struct.pack(">d", 1.5) + b"\x01" + b"\x00\x00\x00\x02hi"
    assert form.pack([7, -2, [1, 2], 1.5, True, b"hi"]) == expected
    assert form.unpack(expected) == (7, -2, [1, 2], 1.5, True, b"hi")


@given(st.integers(0, 2**52 - 1), st.booleans(), st.booleans())
def test_every_nan_has_one_form(payload: int, negative: bool, in_array: bool) -> None:
    """Two runs must not differ by the payload of a NaN, which machines choose freely."""
    bits = 0x7FF0000000000000 | (payload or 1) | negative << 63
    (nan,) = struct.unpack(">d", struct.pack(">Q", bits))
    form = form_with(x=Array[f64, 1] if in_array else f64)
    assert form.pack([[nan] if in_array else nan]).hex() == "7ff8000000000000"


@pytest.mark.parametrize("name", WHOLE)
def test_a_number_beyond_its_kind_is_refused(name: str) -> None:
    """The error names owner, class, field, value and kind, and says what to do."""
    form = form_with(ok=i64, x=WHOLE[name])
    for bound, step in zip(bounds(name), (-1, 1), strict=True):
        form.pack([0, bound])
        with pytest.raises(RangeError) as caught:
            form.pack([0, bound + step], "process.3")
        assert caught.value.value == f"process.3: Row.x = {bound + step}"
        assert caught.value.rule == f"its kind is {name}"
        assert "wrap_i64" in caught.value.action
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (i64, 1.0),
        (i64, "1"),
        (i64, None),
        (i64, [1]),
        (f64, "x"),
        (f64, 1j),
        (b1, 1),
        (b1, 0.0),
        (Bytes, "text"),
        (Bytes, bytearray(2)),
        (Bytes, bytes(BYTES_MAX + 1)),
        (Array[i64, 2], [1]),
        (Array[i64, 2], [1, 2, 3]),
        (Array[i64, 2], 5),
        (Array[i64, (2, 2)], [1, 2, 3, 4]),
        (Array[u8, 2], [1, 256]),
    ],
)
def test_a_value_of_another_type_is_refused(kind: Any, value: Any) -> None:
    """Never a struct.error, a TypeError or a guess."""
    with pytest.raises(RangeError, match=r"Row\.x = "):
        form_with(x=kind).pack([value])


def test_a_huge_value_does_not_fill_the_screen() -> None:
    """An error line is for people."""
    with pytest.raises(RangeError) as caught:
        form_with(x=i64).pack([10**100_000])
    assert len(caught.value.value) < 100
    with pytest.raises(RangeError) as caught:
        form_with(x=Array[i64, 2]).pack([list(range(10_000))])
    assert len(caught.value.value) < 200


def test_another_number_of_values_is_refused() -> None:
    """A row is whole."""
    for form in (form_with(a=i64, b=i64), form_with(a=i64, b=f64)):
        with pytest.raises(RangeError, match="it has 2 fields"):
            form.pack([1])


@given(st.binary(max_size=30), st.integers(0, 30))
def test_bytes_of_another_length_are_refused(noise: bytes, cut: int) -> None:
    """Neither torn rows nor rows with something behind them, nor lengths from outside, are believed."""
    form = form_with(a=u16, b=Bytes, c=Array[u8, 3])
    whole = form.pack([1, noise, [1, 2, 3]])
    for torn in (whole[: min(cut, len(whole) - 1)], whole + b"\0"):
        with pytest.raises(ValueError):
            form.unpack(torn)


def test_a_length_from_outside_is_bounded() -> None:
    """16 MiB and no more, whatever the bytes say."""
    with pytest.raises(ValueError):
        form_with(b=Bytes).unpack(b"\xff\xff\xff\xff" + bytes(100))


@pytest.mark.parametrize("annotation", [int, list[int], "i64 | None", np.int64, Array])
def test_a_field_without_a_kind_is_refused(annotation: Any) -> None:
    """When the model is built; the error names class and field."""
    with pytest.raises(ModelError) as caught:
        form_of(type("Row", (), {"__annotations__": {"x": annotation}}))
    assert "Row.x" in str(caught.value) or "Row" in str(caught.value)


def test_a_name_that_cannot_be_resolved_is_explained() -> None:
    """A kind that was imported inside a function is not seen by annotations that are text."""
    with pytest.raises(ModelError, match="annotations are resolved in the module of their class"):
        form_of(type("Row", (), {"__annotations__": {"x": "no_such_kind"}}))


@pytest.mark.parametrize(
    ("kind", "shape"), [(int, 3), (Bytes, 3), (i64, 0), (i64, -1), (i64, ()), (i64, 2.0), (i64, (2, 0)), (i64, True)]
)
def test_arrays_are_of_numbers_and_have_a_size(kind: Any, shape: Any) -> None:
    """Refused where it is written."""
    with pytest.raises(ModelError, match="Array"):
        Array[kind, shape]


def test_a_row_has_at_most_a_mebibyte() -> None:
    """More belongs into a table or several LPs."""
    assert form_with(x=Array[u8, ROW_BYTES_MAX]).size == ROW_BYTES_MAX
    with pytest.raises(ModelError, match="split the LP"):
        form_with(x=Array[u8, ROW_BYTES_MAX], y=u8)


def test_fields_of_bases_come_first() -> None:
    """And those below ``stop`` are not fields."""

    class Root:
        hidden: int

    class Base(Root):
        a: i64

    class Derived(Base):
        b: u8
        a: i32  # narrower, in its old place

    form = form_of(Derived, Root)
    assert [(field.name, field.kind.name) for field in form.fields] == [("a", "i32"), ("b", "u8")]


def test_fields_start_as_zero() -> None:
    """Of their own type, and lists are nobody else's."""
    form = form_with(a=i64, b=f64, c=b1, d=Bytes, e=Array[b1, (2, 2)])
    one, other = form.zeros(), form.zeros()
    assert one == (0, 0.0, False, b"", [[False, False], [False, False]])
    assert [type(value) for value in one] == [int, float, bool, bytes, list]
    one[4][0][0] = True
    assert other[4][0][0] is False
    assert other[4][1][0] is False


class Letter(NamedTuple):
    """A message with arrays."""

    flat: Array[i64, 2]
    deep: Array[f64, (2, 1)]
    number: i64


@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_sealed_values_cannot_be_changed_from_outside(make: Any) -> None:
    """A message leaves its sender for good: what the sender does to its own arrays afterwards does not reach it."""
    form = form_of(Letter)
    flat, deep = make([1, 2]), make([[1.0], [2.0]])
    sealed = form.sealed(Letter(flat, deep, 3))
    assert sealed == [(1, 2), ((1.0,), (2.0,)), 3]
    if make is not tuple:
        flat[0], deep[0][0] = 9, 9.0
    assert sealed == [(1, 2), ((1.0,), (2.0,)), 3]
    assert form.sealed(sealed) == sealed
