"""``int``, ``float``, ``bool``, ``round`` and the exact functions of :mod:`math` in compiled handlers.

A whole number that int64 does not hold raises, and so does what Python refuses; Numba would give some number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from tidewarp.kernel.compiled.writer import (
    DOUBLE,
    LEAST,
    WORD,
    Writer,
    intrinsic_of,
    is_unsigned,
    is_whole,
    llvm_function,
    number_type,
)

__all__ = ["MATH", "real", "rounded", "truth", "whole"]


def _wholes(name: str, emit: Callable[[Writer, Any], Any] | None) -> Any:
    """An intrinsic of one number that gives a whole one; ``emit`` makes a float without a fraction of a float."""

    @intrinsic
    def make(typing: Any, x: Any) -> Any:
        given = number_type(name, x)
        result = types.uint64 if is_unsigned(given) else types.int64

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            writer = Writer(context, builder)
            if is_whole(given):
                return writer.word(args[0], given)
            value = emit(writer, args[0]) if emit else args[0]
            low = builder.fcmp_ordered(">=", value, DOUBLE(float(LEAST)))
            high = builder.fcmp_ordered("<", value, DOUBLE(float(2**63)))
            writer.refuse(builder.not_(builder.and_(low, high)), "a whole number beyond int64")
            return builder.fptosi(value, WORD)

        return result(given), generate

    return make


whole = _wholes("int", None)
rounded = _wholes("round", llvm_function("rint"))  # to the even one of two, as Python does


def _reals(name: str, count: int, emit: Callable[..., Any], result: Any = types.float64) -> Any:
    """An intrinsic of numbers, which it takes as floats."""

    def typed(given: tuple[Any, ...]) -> Any:
        given = tuple(number_type(name, one) for one in given)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [context.cast(builder, value, one, types.float64) for value, one in zip(args, given, strict=True)]
            return emit(Writer(context, builder), *values)

        return result(*given), generate

    return intrinsic_of(count, typed)


def _root(w: Writer, x: Any) -> Any:
    w.refuse(w.b.fcmp_ordered("<", x, DOUBLE(0.0)), "math domain error", ValueError)
    return llvm_function("sqrt")(w, x)


def _signed_like(w: Writer, x: Any, sign: Any) -> Any:
    w.refuse(w.b.fcmp_unordered("uno", sign, sign), "the sign of NaN is the machine's", ValueError)
    return llvm_function("copysign", 2)(w, x, sign)


def _is_infinite(w: Writer, x: Any) -> Any:
    return w.b.fcmp_ordered("==", llvm_function("fabs")(w, x), DOUBLE(float("inf")))


def _is_finite(w: Writer, x: Any) -> Any:
    return w.b.fcmp_ordered("<", llvm_function("fabs")(w, x), DOUBLE(float("inf")))


MATH: dict[str, Any] = {
    "floor": _wholes("floor", llvm_function("floor")),
    "ceil": _wholes("ceil", llvm_function("ceil")),
    "trunc": _wholes("trunc", llvm_function("trunc")),
    "sqrt": _reals("sqrt", 1, _root),
    "fabs": _reals("fabs", 1, llvm_function("fabs")),
    "copysign": _reals("copysign", 2, _signed_like),
    "isnan": _reals("isnan", 1, lambda w, x: w.b.fcmp_unordered("uno", x, x), types.boolean),
    "isinf": _reals("isinf", 1, _is_infinite, types.boolean),
    "isfinite": _reals("isfinite", 1, _is_finite, types.boolean),
}
"""Functions of :mod:`math` that every machine rounds alike, by name."""
real = _reals("float", 1, lambda w, x: x)
truth = _reals("bool", 1, lambda w, x: w.b.fcmp_unordered("!=", x, DOUBLE(0.0)), types.boolean)
