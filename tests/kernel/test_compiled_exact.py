"""Whole numbers of compiled handlers: Python's result, or an error, for every operator and mixture of types."""

from __future__ import annotations

import operator
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidewarp.kernel.shell.compiled import load_kernel


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-70, 70), st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1, 63, 64])
)
U64 = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 70), st.sampled_from([0, 1, 63, 64, 2**63 - 1, 2**63, 2**64 - 1])
)
OPERATORS = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "FloorDiv": operator.floordiv, "Mod": operator.mod,
    "Div": operator.truediv, "BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor,
    "LShift": operator.lshift, "RShift": operator.rshift, "min": min, "max": max,
}  # fmt: skip
LIMITS = {"int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}


@cache
def compiled(name, kinds):
    from numba import njit

    exact = load_kernel("exact")
    function = {"min": exact.least, "max": exact.greatest}.get(name) or exact.OPERATORS[name]
    made = njit(f"({kinds[0]}, {kinds[1]})")(lambda a, b: function(a, b))
    return made, str(made.nopython_signatures[0].return_type)


def check(name, kinds, a, b):
    import numpy as np

    function, result = compiled(name, kinds)
    typed = [np.uint64(x) if kind == "uint64" else np.int64(x) for x, kind in zip((a, b), kinds, strict=True)]
    try:
        got = function(*typed)
    except (ArithmeticError, ValueError) as error:
        return error
    expected = OPERATORS[name](a, b)
    assert got == expected, f"{a} {name} {b} as {kinds}"
    assert result == "float64" or LIMITS[result][0] <= expected <= LIMITS[result][1]
    return None


def python(name, a, b):
    """Python's error and result, one of them None."""
    try:
        return None, OPERATORS[name](a, b)
    except (ArithmeticError, ValueError) as error:
        return error, None


@pytest.mark.parametrize("name", OPERATORS)
@given(a=I64, b=I64)
@example(a=-(2**63), b=-1)
def test_signed_numbers_are_right_or_an_error(name, a, b):
    """A result that int64 holds comes out, Python's errors are errors, and nothing wraps around."""
    error = check(name, ("int64", "int64"), a, b)
    if error is not None and name not in ("Div", "LShift"):
        same, expected = python(name, a, b)
        assert type(error) is type(same) if same else not -(2**63) <= expected < 2**63


@pytest.mark.parametrize("name", OPERATORS)
@given(a=U64, b=U64, c=I64)
def test_unsigned_and_mixed_numbers_are_right_or_an_error(name, a, b, c):
    """Also beyond 2**63, where Numba by itself computes something else."""
    check(name, ("uint64", "uint64"), a, b)
    check(name, ("uint64", "int64"), a, c)
    check(name, ("int64", "uint64"), c, a)
    if name in ("FloorDiv", "Mod", "BitAnd", "BitOr", "BitXor", "min", "max") and b > 0:
        assert check(name, ("uint64", "uint64"), a, b) is None
        assert check(name, ("uint64", "int64"), a, abs(c) % 2**62 + 1) is None


COMPARISONS = {
    "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge, "Eq": operator.eq, "NotEq": operator.ne,
}  # fmt: skip
NEAR = [0.0, -0.0, 0.5, -0.5, 2.0**53, 2.0**63, -(2.0**63), 2.0**64, 1e300, float("nan"), float("inf"), -float("inf")]
REAL = st.one_of(st.sampled_from(NEAR), st.floats(), I64.map(float), U64.map(float))


@cache
def compared(name, kinds):
    from numba import njit

    from tidewarp.kernel.compiled import compare

    function = compare.COMPARISONS[name]
    return njit(f"boolean({kinds[0]}, {kinds[1]})")(lambda a, b: function(a, b))


@pytest.mark.parametrize("name", COMPARISONS)
@given(a=I64, b=U64, x=REAL, y=REAL)
@example(a=2**53 + 1, b=2**53 + 1, x=2.0**53, y=2.0**64)
@example(a=2**63 - 1, b=2**64 - 1, x=2.0**63, y=2.0**64)
@example(a=-1, b=1, x=-0.5, y=0.5)
@example(a=-(2**63), b=0, x=-(2.0**63), y=-0.0)
def test_numbers_are_compared_by_their_values(name, a, b, x, y):
    """Whole numbers with floats beyond 2**53, signed ones with unsigned ones, NaN and infinities."""
    import numpy as np

    i, u = np.int64(a), np.uint64(b)
    for kinds, given_, plain in (
        (("int64", "float64"), (i, x), (a, x)),
        (("float64", "int64"), (x, i), (x, a)),
        (("uint64", "float64"), (u, y), (b, y)),
        (("float64", "uint64"), (y, u), (y, b)),
        (("int64", "uint64"), (i, u), (a, b)),
        (("uint64", "int64"), (u, i), (b, a)),
        (("float64", "float64"), (x, y), (x, y)),
    ):
        assert compared(name, kinds)(*given_) == COMPARISONS[name](*plain), (name, plain)
