"""Python's whole numbers in machine words: the right result, or an error; never a wrong one.

Numba computes u64 with i64 as i64, small unsigned numbers as uint64, and wraps around silently. Handlers are therefore
compiled with the operators of this module in place of ``+ - * // % & | ^ << >> **``, ``int``, ``min``, ``max`` and
``range`` (:mod:`tidewarp.kernel.compiled.handlers` puts them in). A result that no 64 bits hold raises; so does a number
that its field cannot hold. The event then runs once more in the Python tier, which words the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from tidewarp import seeds
from tidewarp.kernel import arithmetic
from tidewarp.kernel.compiled.words import HOME, bare, exp_of, log_of, mix

__all__ = ["FIT", "OPERATORS", "UNARY", "copy_array", "fit_into", "fitting", "greatest", "least", "spread", "whole"]

_LIMITS = {"i8": (-(2**7), 2**7 - 1), "i16": (-(2**15), 2**15 - 1), "i32": (-(2**31), 2**31 - 1)}
_LIMITS |= {"u8": (0, 2**8 - 1), "u16": (0, 2**16 - 1), "u32": (0, 2**32 - 1)}
_TRUNCATED_MAX = 9223372036854775808.0  # 2**63
_EXACT_FLOAT = 2**53


# --- fields -------------------------------------------------------------------------------------------


def fitting(kind: str, given: Any, what: str) -> Callable[[Any], Any]:
    """A compiled function that makes a number of type ``given`` one of ``kind``, or raises.

    Raises:
        TypingError: no number of that type belongs into such a field.
    """
    if not isinstance(given, (types.Number, types.Boolean)):
        raise TypingError(f"{what} takes {kind}, not {given}")
    if kind == "b1":
        if not isinstance(given, types.Boolean):
            raise TypingError(f"{what} takes True or False, not {given}")
        return njit(lambda x: x)  # type: ignore[no-any-return]
    if kind == "f64":
        return njit(lambda x: np.float64(x))  # type: ignore[no-any-return]
    if isinstance(given, types.Float):
        raise TypingError(f"{what} takes {kind}, not {given}: write int(...)")
    return _fitting_whole(kind, _is_unsigned(given))


def _fitting_whole(kind: str, unsigned: bool) -> Callable[[Any], Any]:
    if kind == "u64":
        return _same if unsigned else _to_u64  # type: ignore[no-any-return]
    if kind == "i64":
        return _to_i64 if unsigned else _as_i64  # type: ignore[no-any-return]
    low, high = _LIMITS[kind]
    before = _to_i64 if unsigned else _as_i64

    @njit
    def fit(x: Any) -> Any:
        y = before(x)
        if y < low or y > high:
            raise OverflowError("a number beyond its kind")
        return y

    return fit  # type: ignore[no-any-return]


@njit
def _same(x: Any) -> Any:
    return x


@njit
def _as_i64(x: Any) -> Any:
    return np.int64(x)


@njit
def _to_i64(x: Any) -> Any:
    if np.int64(x) < 0:
        raise OverflowError("a number beyond int64")
    return np.int64(x)


@njit
def _to_u64(x: Any) -> Any:
    if np.int64(x) < 0:
        raise OverflowError("a number below 0")
    return np.uint64(x)


def copy_array(target: Any, source: Any) -> None:
    """Copy the numbers of an array or tuple into an array field."""


@overload(copy_array)
@bare
def _copy_array(target: Any, source: Any) -> Any:
    if isinstance(source, types.UniTuple) and target.ndim == 1:
        if source.count != target.shape[0]:
            raise TypingError(f"{source.count} numbers for an array of {target.shape[0]}")
    elif not (isinstance(source, types.Array) and source.ndim == target.ndim):
        raise TypingError(f"{source} for an array field")
    fit = fitting(_kind_of(target.dtype), source.dtype, "an array")
    if target.ndim > 1:
        if source.dtype != target.dtype:
            raise TypingError(f"numbers of type {source.dtype} for an array of {target.dtype}")

        def copy_all(target: Any, source: Any) -> None:
            if target.shape != source.shape:
                raise ValueError("another shape")
            target[:] = source

        return copy_all

    def copy(target: Any, source: Any) -> None:
        if len(target) != len(source):
            raise ValueError("another shape")
        for i in range(len(target)):
            target[i] = fit(source[i])

    return copy


def _kind_of(dtype: Any) -> str:
    if isinstance(dtype, types.Boolean):
        return "b1"
    if isinstance(dtype, types.Float):
        return "f64"
    return f"{'i' if dtype.signed else 'u'}{dtype.bitwidth}"


# --- operators ----------------------------------------------------------------------------------------


def _is_unsigned(given: Any) -> bool:
    """A u64, the only numbers that int64 does not hold."""
    return isinstance(given, types.Integer) and not given.signed and given.bitwidth == 64


def _is_whole(given: Any) -> bool:
    return isinstance(given, (types.Integer, types.Boolean))


def _flagged(name: str) -> Any:
    @intrinsic
    def operate(typing: Any, a: Any, b: Any) -> Any:
        """The low 64 bits of a result, and whether there are more."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pair = getattr(builder, name)(*args)
            parts = [builder.extract_value(pair, place) for place in (0, 1)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.Tuple((a, types.boolean))(a, a), generate

    return operate


_add_i, _add_u = _flagged("sadd_with_overflow"), _flagged("uadd_with_overflow")
_sub_i = _flagged("ssub_with_overflow")
_mul_i, _mul_u = _flagged("smul_with_overflow"), _flagged("umul_with_overflow")


@njit
def _add_ii(a: Any, b: Any) -> Any:
    result, over = _add_i(np.int64(a), np.int64(b))
    if over:
        raise OverflowError("a sum beyond int64")
    return result


@njit
def _add_uu(a: Any, b: Any) -> Any:
    result, over = _add_u(np.uint64(a), np.uint64(b))
    if over:
        raise OverflowError("a sum beyond u64")
    return result


@njit
def _add_ui(a: Any, b: Any) -> Any:
    c = np.int64(b)
    if c >= 0:
        return _add_uu(a, np.uint64(c))
    if np.uint64(-c) > a:
        raise OverflowError("u64 and a negative number: a sum below 0")
    return a - np.uint64(-c)


@njit
def _add_iu(a: Any, b: Any) -> Any:
    return _add_ui(b, a)


@njit
def _sub_ii(a: Any, b: Any) -> Any:
    result, over = _sub_i(np.int64(a), np.int64(b))
    if over:
        raise OverflowError("a difference beyond int64")
    return result


@njit
def _sub_uu(a: Any, b: Any) -> Any:
    """As int64: a difference may be negative."""
    result = np.int64(np.uint64(a) - np.uint64(b))
    if (result < 0) != (a < b):
        raise OverflowError("a difference of u64 beyond int64")
    return result


@njit
def _sub_ui(a: Any, b: Any) -> Any:
    c = np.int64(b)
    if c >= 0:
        return _sub_uu(a, np.uint64(c))
    return _to_i64(_add_uu(a, np.uint64(-c)))


@njit
def _sub_iu(a: Any, b: Any) -> Any:
    c = np.int64(a)
    if c >= 0:
        return _sub_uu(np.uint64(c), b)
    return _sub_ii(c, _to_i64(b))


@njit
def _mul_ii(a: Any, b: Any) -> Any:
    result, over = _mul_i(np.int64(a), np.int64(b))
    if over:
        raise OverflowError("a product beyond int64")
    return result


@njit
def _mul_uu(a: Any, b: Any) -> Any:
    result, over = _mul_u(np.uint64(a), np.uint64(b))
    if over:
        raise OverflowError("a product beyond u64")
    return result


@njit
def _mul_ui(a: Any, b: Any) -> Any:
    return _mul_uu(a, _to_u64(b))


@njit
def _mul_iu(a: Any, b: Any) -> Any:
    return _mul_uu(_to_u64(a), b)


@njit
def _div_ii(a: Any, b: Any) -> Any:
    c, d = np.int64(a), np.int64(b)
    if d == -1:  # the machine's division traps at the least int64
        return _sub_ii(0, c)
    if d == 0:
        raise ZeroDivisionError("division by zero")
    return c // d


@njit
def _div_uu(a: Any, b: Any) -> Any:
    if b == np.uint64(0):
        raise ZeroDivisionError("division by zero")
    return np.uint64(a) // np.uint64(b)


@njit
def _div_ui(a: Any, b: Any) -> Any:
    return _div_uu(a, _to_u64(b))


@njit
def _div_iu(a: Any, b: Any) -> Any:
    return np.int64(_div_uu(_to_u64(a), b))


@njit
def _mod_ii(a: Any, b: Any) -> Any:
    c, d = np.int64(a), np.int64(b)
    if d == -1:
        return 0
    if d == 0:
        raise ZeroDivisionError("division by zero")
    return c % d


@njit
def _mod_uu(a: Any, b: Any) -> Any:
    if b == np.uint64(0):
        raise ZeroDivisionError("division by zero")
    return np.uint64(a) % np.uint64(b)


@njit
def _mod_ui(a: Any, b: Any) -> Any:
    return np.int64(_mod_uu(a, _to_u64(b)))


@njit
def _mod_iu(a: Any, b: Any) -> Any:
    return np.int64(_mod_uu(_to_u64(a), b))


@njit
def _true_ii(a: Any, b: Any) -> Any:
    c, d = np.int64(a), np.int64(b)
    if d == 0:
        raise ZeroDivisionError("division by zero")
    if c > _EXACT_FLOAT or c < -_EXACT_FLOAT or d > _EXACT_FLOAT or d < -_EXACT_FLOAT:
        raise OverflowError("a quotient of whole numbers beyond 2**53: write float(a) / b")
    return np.float64(c) / np.float64(d)


@njit
def _true_mixed(a: Any, b: Any) -> Any:
    return _true_ii(_to_i64(a), _to_i64(b))


@njit
def _true_ui(a: Any, b: Any) -> Any:
    return _true_ii(_to_i64(a), b)


@njit
def _true_iu(a: Any, b: Any) -> Any:
    return _true_ii(a, _to_i64(b))


@njit
def _and_ii(a: Any, b: Any) -> Any:
    return np.int64(a) & np.int64(b)


@njit
def _and_uu(a: Any, b: Any) -> Any:
    return np.uint64(a) & np.uint64(np.int64(b))


@njit
def _and_iu(a: Any, b: Any) -> Any:
    return np.uint64(np.int64(a)) & np.uint64(b)


@njit
def _or_ii(a: Any, b: Any) -> Any:
    return np.int64(a) | np.int64(b)


@njit
def _or_uu(a: Any, b: Any) -> Any:
    return a | b


@njit
def _or_ui(a: Any, b: Any) -> Any:
    return a | _to_u64(b)


@njit
def _or_iu(a: Any, b: Any) -> Any:
    return _to_u64(a) | b


@njit
def _xor_ii(a: Any, b: Any) -> Any:
    return np.int64(a) ^ np.int64(b)


@njit
def _xor_uu(a: Any, b: Any) -> Any:
    return a ^ b


@njit
def _xor_ui(a: Any, b: Any) -> Any:
    return a ^ _to_u64(b)


@njit
def _xor_iu(a: Any, b: Any) -> Any:
    return _to_u64(a) ^ b


@njit
def _bits_of_shift(b: Any) -> Any:
    c = np.int64(b)
    if c < 0:
        raise ValueError("negative shift count")
    return min(c, 64)


@njit
def _left_i(a: Any, b: Any) -> Any:
    c, n = np.int64(a), _bits_of_shift(b)
    if n > 63:
        if c != 0:
            raise OverflowError("a shift beyond int64")
        return 0
    result = c << n
    if result >> n != c:
        raise OverflowError("a shift beyond int64")
    return result


@njit
def _left_u(a: Any, b: Any) -> Any:
    n = np.uint64(_bits_of_shift(b))
    if n > np.uint64(63):
        if a != np.uint64(0):
            raise OverflowError("a shift beyond u64")
        return np.uint64(0)
    result = a << n
    if result >> n != a:
        raise OverflowError("a shift beyond u64")
    return result


@njit
def _right_i(a: Any, b: Any) -> Any:
    return np.int64(a) >> min(_bits_of_shift(b), 63)


@njit
def _right_u(a: Any, b: Any) -> Any:
    n = np.uint64(_bits_of_shift(b))
    return np.uint64(0) if n > np.uint64(63) else a >> n


@njit
def _pow_ii(a: Any, b: Any) -> Any:
    if b < 0:
        raise OverflowError("a negative exponent of a whole number: write float(a) ** b")
    result = 1
    for _ in range(b):
        result = _mul_ii(result, a)
    return result


def _plain(symbol: str) -> Callable[[Any, Any], Any]:
    names: dict[str, Any] = {"__name__": HOME}
    exec(f"def plain(a, b): return a {symbol} b", names)
    return names["plain"]  # type: ignore[no-any-return]


_TABLE: dict[str, tuple[str, tuple[Any, Any, Any, Any]]] = {
    # name: symbol, functions for (i, i), (u, u), (u, i), (i, u)
    "Add": ("+", (_add_ii, _add_uu, _add_ui, _add_iu)),
    "Sub": ("-", (_sub_ii, _sub_uu, _sub_ui, _sub_iu)),
    "Mult": ("*", (_mul_ii, _mul_uu, _mul_ui, _mul_iu)),
    "FloorDiv": ("//", (_div_ii, _div_uu, _div_ui, _div_iu)),
    "Mod": ("%", (_mod_ii, _mod_uu, _mod_ui, _mod_iu)),
    "Div": ("/", (_true_ii, _true_mixed, _true_ui, _true_iu)),
    "BitAnd": ("&", (_and_ii, _and_uu, _and_uu, _and_iu)),
    "BitOr": ("|", (_or_ii, _or_uu, _or_ui, _or_iu)),
    "BitXor": ("^", (_xor_ii, _xor_uu, _xor_ui, _xor_iu)),
    "LShift": ("<<", (_left_i, _left_u, _left_u, _left_i)),
    "RShift": (">>", (_right_i, _right_u, _right_u, _right_i)),
    "Pow": ("**", (_pow_ii, None, None, None)),
}
_BITWISE = ("BitAnd", "BitOr", "BitXor")


def _operator(name: str) -> Callable[[Any, Any], Any]:
    symbol, functions = _TABLE[name]
    plain = _plain(symbol)

    def operate(a: Any, b: Any) -> Any:
        return plain(a, b)

    operate.__name__ = operate.__qualname__ = f"exact_{name}"

    @overload(operate)
    @bare
    def choose(a: Any, b: Any) -> Any:
        if isinstance(a, types.Boolean) and isinstance(b, types.Boolean) and name in _BITWISE:
            return lambda a, b: bool(np.int64(plain_i(np.int64(a), np.int64(b))))
        if _is_whole(a) and _is_whole(b):
            pick = functions[{(0, 0): 0, (1, 1): 1, (1, 0): 2, (0, 1): 3}[_is_unsigned(a), _is_unsigned(b)]]
            if pick is None:
                raise TypingError(f"{symbol} of u64: it has no exact form")
            return lambda a, b: pick(a, b)
        if isinstance(a, types.Array) or isinstance(b, types.Array):
            raise TypingError(f"{symbol} of arrays: handle them number by number")
        if name == "Pow":
            return lambda a, b: np.float64(a) ** np.float64(b)
        return plain

    plain_i = functions[0]
    return operate


OPERATORS = {name: _operator(name) for name in _TABLE}
"""By the name of the node in :mod:`ast`: a function of two operands."""


def _negative(x: Any) -> Any:
    return -x


@overload(_negative)
@bare
def _negative_of(x: Any) -> Any:
    if _is_unsigned(x):
        return lambda x: _sub_uu(np.uint64(0), x)
    return (lambda x: _sub_ii(0, x)) if _is_whole(x) else (lambda x: -x)


def _inverse(x: Any) -> Any:
    return ~x


@overload(_inverse)
@bare
def _inverse_of(x: Any) -> Any:
    return (lambda x: ~_to_i64(x)) if _is_unsigned(x) else (lambda x: ~np.int64(x))


def _positive(x: Any) -> Any:
    return +x


@overload(_positive)
@bare
def _positive_of(x: Any) -> Any:
    return (lambda x: np.int64(x)) if isinstance(x, types.Boolean) else (lambda x: x)


UNARY = {"USub": _negative, "Invert": _inverse, "UAdd": _positive}
"""By the name of the node in :mod:`ast`: a function of one operand."""


def whole(x: Any) -> Any:
    """``int(x)``."""
    return int(x)


@overload(whole)
@bare
def _whole(x: Any) -> Any:
    if _is_unsigned(x):
        return lambda x: x
    if _is_whole(x):
        return lambda x: np.int64(x)
    if not isinstance(x, types.Float):
        raise TypingError(f"int({x}): it takes a number")

    def truncate(x: Any) -> Any:
        if not -_TRUNCATED_MAX <= x < _TRUNCATED_MAX:
            raise OverflowError("a whole number beyond int64")
        return np.int64(x)

    return truncate


def spread(x: Any) -> Any:
    """A bound of ``range``, as int64."""
    return x


@overload(spread)
@bare
def _spread(x: Any) -> Any:
    if not isinstance(x, types.Integer):
        raise TypingError(f"range({x}): it takes whole numbers")
    return (lambda x: _to_i64(x)) if _is_unsigned(x) else (lambda x: np.int64(x))


def least(a: Any, b: Any) -> Any:
    """``min(a, b)``."""
    return min(a, b)


@overload(least)
@bare
def _least(a: Any, b: Any) -> Any:
    if not (_is_whole(a) and _is_whole(b)):
        return _of_one_type("min", a, b, lambda a, b: b if b < a else a)
    if _is_unsigned(a) and _is_unsigned(b):
        return lambda a, b: b if b < a else a
    if _is_unsigned(a):
        return lambda a, b: np.int64(b) if b < a else np.int64(a)
    if _is_unsigned(b):
        return lambda a, b: np.int64(b) if b < a else np.int64(a)
    return lambda a, b: np.int64(b) if b < a else np.int64(a)


def greatest(a: Any, b: Any) -> Any:
    """``max(a, b)``."""
    return max(a, b)


@overload(greatest)
@bare
def _greatest(a: Any, b: Any) -> Any:
    if not (_is_whole(a) and _is_whole(b)):
        return _of_one_type("max", a, b, lambda a, b: b if b > a else a)
    if _is_unsigned(a) or _is_unsigned(b):
        return lambda a, b: np.uint64(b) if b > a else np.uint64(a)
    return lambda a, b: np.int64(b) if b > a else np.int64(a)


def _of_one_type(name: str, a: Any, b: Any, choice: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    if isinstance(a, types.Float) and isinstance(b, types.Float):
        return choice
    raise TypingError(f"{name}({a}, {b}): Python keeps the type of the one it takes; write float(...) around the whole number")


# --- what handlers may call ---------------------------------------------------------------------------


def _check_whole(name: str, *given: Any) -> None:
    if not all(_is_whole(x) for x in given):
        raise TypingError(f"{name} takes whole numbers")


@overload(arithmetic.mix64)
@bare
def _mix64(x: Any) -> Any:
    _check_whole("mix64", x)
    return lambda x: mix(np.uint64(x))


@overload(arithmetic.wrap_i64)
@bare
def _wrap_i64(x: Any) -> Any:
    _check_whole("wrap_i64", x)
    return lambda x: np.int64(x)


@overload(arithmetic.u64_add)
@bare
def _u64_add(a: Any, b: Any) -> Any:
    _check_whole("u64_add", a, b)
    return lambda a, b: np.uint64(a) + np.uint64(b)


@overload(arithmetic.u64_mul)
@bare
def _u64_mul(a: Any, b: Any) -> Any:
    _check_whole("u64_mul", a, b)
    return lambda a, b: np.uint64(a) * np.uint64(b)


@overload(arithmetic.u64_div)
@bare
def _u64_div(a: Any, b: Any) -> Any:
    _check_whole("u64_div", a, b)
    return lambda a, b: _div_uu(np.uint64(a), np.uint64(b))


@overload(arithmetic.u64_mod)
@bare
def _u64_mod(a: Any, b: Any) -> Any:
    _check_whole("u64_mod", a, b)
    return lambda a, b: _mod_uu(np.uint64(a), np.uint64(b))


@overload(seeds.exact_log)
@bare
def _exact_log(x: Any) -> Any:
    def log(x: Any) -> Any:
        y = np.float64(x)
        if not 0.0 < y < np.inf:
            raise ValueError("exact_log needs a finite number above 0")
        return log_of(y)

    return log


@overload(seeds.exact_exp)
@bare
def _exact_exp(x: Any) -> Any:
    def exp(x: Any) -> Any:
        y = np.float64(x)
        if not y <= 709.782712893384:
            raise ValueError("exact_exp needs at most 709.78")
        return exp_of(y) if y >= -745.1332191019412 else 0.0

    return exp


# --- stores -------------------------------------------------------------------------------------------


def _fit(kind: str) -> Callable[[Any], Any]:
    def fit(x: Any) -> Any:
        return x

    fit.__name__ = fit.__qualname__ = f"fit_{kind}"

    @overload(fit)
    @bare
    def choose(x: Any) -> Any:
        convert = fitting(kind, x, "the field")
        return lambda x: convert(x)

    return fit


FIT = {kind: _fit(kind) for kind in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f64", "b1")}
"""By kind: a function that makes a number fit a field, or raises."""


def fit_into(array: Any, x: Any) -> Any:
    """The same for a number of an array."""
    return x


@overload(fit_into)
@bare
def _fit_into(array: Any, x: Any) -> Any:
    if not isinstance(array, types.Array):
        raise TypingError(f"{array}: only array fields can be stored into")
    convert = fitting(_kind_of(array.dtype), x, "the array")
    return lambda array, x: convert(x)
