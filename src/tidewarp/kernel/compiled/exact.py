"""Python's whole numbers in machine words: the right result, or an error; never a wrong one.

Numba computes u64 with i64 as i64, small unsigned numbers as uint64, and wraps around silently. Handlers are therefore
compiled with the operators of this module in place of ``+ - * / // % & | ^ << >> **``, ``abs``, ``min``, ``max`` and ``range``
(:mod:`tidewarp.kernel.compiled.handlers` puts them in, and those of :mod:`~tidewarp.kernel.compiled.compare` and
:mod:`~tidewarp.kernel.compiled.reals`). A result that no 64 bits hold raises; so does a number that its field cannot
hold. The event then runs once more in the Python tier, which words the error.

They are intrinsics: machine code written down, since a compiled function for each would take most of the time in
which a handler is compiled. Whole numbers are *signed*, held as i64, or *unsigned*, u64.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from tidewarp import seeds
from tidewarp.kernel import arithmetic
from tidewarp.kernel.compiled.words import HOME, bare, exp_of, kept, log_of
from tidewarp.kernel.compiled.writer import LEAST, WORD, Writer, intrinsic_of, is_unsigned, is_whole

__all__ = ["FIT", "KNOWN", "OPERATORS", "UNARY", "absolute", "copy_array", "fit_into", "greatest", "least", "spread"]

_BOUND_MAX = 2**62 - 1
_LIMITS = {"i8": (-(2**7), 2**7 - 1), "i16": (-(2**15), 2**15 - 1), "i32": (-(2**31), 2**31 - 1)}
_LIMITS |= {"u8": (0, 2**8 - 1), "u16": (0, 2**16 - 1), "u32": (0, 2**32 - 1)}


# --- operators of two numbers: (writer, a, b, a is unsigned, b is unsigned) -> word ----------------------


def _add(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if ua == ub:
        return w.checked("uadd" if ua else "sadd", a, b)
    return w.narrow(w.b.add(w.wide(a, ua), w.wide(b, ub)), True)


def _sub(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if not (ua or ub):
        return w.checked("ssub", a, b)
    return w.narrow(w.b.sub(w.wide(a, ua), w.wide(b, ub)), False)


def _mult(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if not (ua or ub):
        return w.checked("smul", a, b)
    return w.checked("umul", w.natural(a, ua), w.natural(b, ub))


def _floor_div(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if not (ua or ub):
        beyond = w.b.and_(w.b.icmp_signed("==", b, WORD(-1)), w.b.icmp_signed("==", a, WORD(LEAST)))
        w.refuse(beyond, "a result beyond 64 bits")
        return w.floor_division(a, b)[0]
    w.nonzero(b)
    return w.b.udiv(w.natural(a, ua), w.natural(b, ub))


def _mod(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if not (ua or ub):
        return w.floor_division(a, b)[1]
    w.nonzero(b)
    return w.b.urem(w.natural(a, ua), w.natural(b, ub))


def _div(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    w.nonzero(b)
    return w.b.fdiv(w.exact_float(a, ua), w.exact_float(b, ub))


def _and(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    return w.b.and_(a, b)


def _or(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if ua or ub:
        a, b = w.natural(a, ua), w.natural(b, ub)
    return w.b.or_(a, b)


def _xor(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    if ua or ub:
        a, b = w.natural(a, ua), w.natural(b, ub)
    return w.b.xor(a, b)


def _left(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    count = w.shift_count(b, ub)
    is_far = w.b.icmp_unsigned(">", count, WORD(63))
    by = w.b.select(is_far, WORD(63), count)
    result = w.b.shl(a, by)
    back = w.b.lshr(result, by) if ua else w.b.ashr(result, by)
    lost = w.b.or_(w.b.icmp_signed("!=", back, a), w.b.and_(is_far, w.b.icmp_signed("!=", a, WORD(0))))
    w.refuse(lost, "a shift beyond 64 bits")
    return w.b.select(is_far, WORD(0), result)


def _right(w: Writer, a: Any, b: Any, ua: bool, ub: bool) -> Any:
    count = w.shift_count(b, ub)
    is_far = w.b.icmp_unsigned(">", count, WORD(63))
    by = w.b.select(is_far, WORD(63), count)
    return w.b.select(is_far, WORD(0), w.b.lshr(a, by)) if ua else w.b.ashr(a, by)


_Emit = Callable[[Writer, Any, Any, bool, bool], Any]
_TABLE: dict[str, tuple[Any, _Emit]] = {
    "Add": (operator.add, _add),
    "Sub": (operator.sub, _sub),
    "Mult": (operator.mul, _mult),
    "FloorDiv": (operator.floordiv, _floor_div),
    "Mod": (operator.mod, _mod),
    "Div": (operator.truediv, _div),
    "BitAnd": (operator.and_, _and),
    "BitOr": (operator.or_, _or),
    "BitXor": (operator.xor, _xor),
    "LShift": (operator.lshift, _left),
    "RShift": (operator.rshift, _right),
}


_ON_FLOATS = {"Add", "Sub", "Mult", "FloorDiv", "Mod", "Div"}


def _result(name: str, ua: bool, ub: bool) -> Any:
    """The type of an operator's result."""
    if name == "Div":
        return types.float64
    if name == "Sub":
        return types.int64
    if name in ("FloorDiv", "LShift", "RShift"):
        return types.uint64 if ua else types.int64
    if name == "Mod":
        return types.uint64 if ua and ub else types.int64
    return types.uint64 if ua or ub else types.int64


def _operator(name: str) -> Any:
    function, emit = _TABLE[name]

    @intrinsic
    def operate(typing: Any, a: Any, b: Any) -> Any:
        """An operator of two numbers."""
        given = types.unliteral(a), types.unliteral(b)
        if isinstance(given[0], types.Boolean) and isinstance(given[1], types.Boolean) and name.startswith("Bit"):
            return _booleans(name)
        if not (is_whole(given[0]) and is_whole(given[1])):
            if name not in _ON_FLOATS:
                raise TypingError(f"{function.__name__} of {given[0]} and {given[1]}: it takes whole numbers")
            return _as_numba_does(typing, function, given)
        signs = is_unsigned(given[0]), is_unsigned(given[1])

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            writer = Writer(context, builder)
            return emit(writer, writer.word(args[0], given[0]), writer.word(args[1], given[1]), *signs)

        return _result(name, *signs)(*given), generate

    return operate


def _booleans(name: str) -> Any:
    method = {"BitAnd": "and_", "BitOr": "or_", "BitXor": "xor"}[name]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, method)(*args)

    return types.boolean(types.boolean, types.boolean), generate


def _as_numba_does(typing: Any, function: Any, given: tuple[Any, ...]) -> Any:
    """The operator on floats, or on a float and a whole number."""
    if not all(isinstance(one, (types.Number, types.Boolean)) for one in given):
        raise TypingError(f"{function.__name__} of {' and '.join(map(str, given))}: handlers compute with numbers")
    found = typing.resolve_function_type(function, given, {})
    if found is None:
        raise TypingError(f"{function.__name__} of {' and '.join(map(str, given))}: it is not defined")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [
            context.cast(builder, value, one, wanted)
            for value, one, wanted in zip(args, given, found.args, strict=True)
        ]
        return context.get_function(function, found)(builder, values)

    return found.return_type(*given), generate


def _power(a: Any, b: Any) -> Any:
    return a**b


@overload(_power)
@bare
def _power_of(a: Any, b: Any) -> Any:
    if not (is_whole(a) and is_whole(b)):
        raise TypingError("a power of floats is libm's own on each machine: multiply, or exact_exp(y * exact_log(x))")
    if is_unsigned(b):
        raise TypingError("an exponent is an i64")
    multiply = OPERATORS["Mult"]

    def power(a: Any, b: Any) -> Any:
        if b < 0:
            raise OverflowError("a negative exponent of a whole number: write 1.0 / a ** -b")
        result = multiply(a, 0)
        result += result + 1
        base, left = multiply(a, 1), np.int64(b)
        while left > 0:
            if left & 1:
                result = multiply(result, base)
            left >>= 1
            if left > 0:
                base = multiply(base, base)
        return result

    return power


OPERATORS: dict[str, Any] = {name: _operator(name) for name in _TABLE}
"""By the name of the node in :mod:`ast`: a function of two operands."""
OPERATORS["Pow"] = _power


# --- operators of one number --------------------------------------------------------------------------


def _unary(name: str, on_floats: Any, emit: Callable[[Writer, Any, bool], Any], result: Callable[[bool], Any]) -> Any:
    @intrinsic
    def operate(typing: Any, x: Any) -> Any:
        """An operator of one number."""
        given = types.unliteral(x)
        if not is_whole(given):
            if name == "Invert":
                raise TypingError(f"~ of {given}: it takes a whole number")
            return _as_numba_does(typing, on_floats, (given,))
        unsigned = is_unsigned(given)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            writer = Writer(context, builder)
            return emit(writer, writer.word(args[0], given), unsigned)

        return result(unsigned)(given), generate

    return operate


def _signed(unsigned: bool) -> Any:
    return types.int64


def _of_kind(unsigned: bool) -> Any:
    return types.uint64 if unsigned else types.int64


def _as_i64(w: Writer, word: Any, unsigned: bool) -> Any:
    if unsigned:
        w.refuse(w.b.icmp_signed("<", word, WORD(0)), "a number beyond int64")
    return word


UNARY: dict[str, Any] = {
    "USub": _unary("USub", operator.neg, lambda w, x, u: _sub(w, WORD(0), x, False, u), _signed),
    "Invert": _unary("Invert", operator.invert, lambda w, x, u: w.b.not_(_as_i64(w, x, u)), _signed),
    "UAdd": _unary("UAdd", operator.pos, lambda w, x, u: x, _of_kind),
}
"""By the name of the node in :mod:`ast`: a function of one operand."""


def _absolute(w: Writer, word: Any, unsigned: bool) -> Any:
    if unsigned:
        return word
    return w.b.select(w.b.icmp_signed("<", word, WORD(0)), _sub(w, WORD(0), word, False, False), word)


absolute = _unary("abs", abs, _absolute, _of_kind)
"""``abs(x)``."""


@intrinsic
def spread(typing: Any, x: Any) -> Any:
    """A bound of ``range``, as int64."""
    given = types.unliteral(x)
    if not isinstance(given, types.Integer):
        raise TypingError(f"range({given}): it takes whole numbers")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        writer = Writer(context, builder)
        word = _as_i64(writer, writer.word(args[0], given), is_unsigned(given))
        far = builder.icmp_unsigned(">", builder.add(word, WORD(_BOUND_MAX)), WORD(2 * _BOUND_MAX))
        writer.refuse(far, "a bound of range beyond 2**62")  # the difference of two bounds must fit a word
        return word

    return types.int64(given), generate


def _choice(name: str, sign: str) -> Any:
    @intrinsic
    def choose(typing: Any, a: Any, b: Any) -> Any:
        """The first of two numbers, unless the second is beyond it."""
        given = types.unliteral(a), types.unliteral(b)
        if given == (types.float64, types.float64):
            return types.float64(*given), _pick_float
        if not (is_whole(given[0]) and is_whole(given[1])):
            raise TypingError(
                f"{name}{given}: Python keeps the type of the one it takes; write float(...) around the whole number"
            )
        signs = is_unsigned(given[0]), is_unsigned(given[1])
        unsigned = all(signs) if name == "min" else any(signs)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w = Writer(context, builder)
            x, y = w.word(args[0], given[0]), w.word(args[1], given[1])
            return builder.select(builder.icmp_signed(sign, w.wide(y, signs[1]), w.wide(x, signs[0])), y, x)

        return _of_kind(unsigned)(*given), generate

    def _pick_float(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(sign, args[1], args[0]), args[1], args[0])

    return choose


least, greatest = _choice("min", "<"), _choice("max", ">")


# --- stores -------------------------------------------------------------------------------------------


def _fit(w: Writer, kind: str, value: Any, given: Any) -> Any:
    """A number as the value of a field of ``kind``, in the type of :func:`_kept`."""
    if kind == "b1":
        return value
    if kind == "f64":
        return w.context.cast(w.b, value, given, types.float64)
    word, unsigned = w.word(value, given), is_unsigned(given)
    if kind == "u64":
        return w.natural(word, unsigned)
    word = _as_i64(w, word, unsigned)
    if kind != "i64":
        low, high = _LIMITS[kind]
        outside = w.b.or_(w.b.icmp_signed("<", word, WORD(low)), w.b.icmp_signed(">", word, WORD(high)))
        w.refuse(outside, "a number beyond its kind")
    return word


def _kept(kind: str, given: Any, what: str) -> Any:
    """The type in which a number of type ``given`` is stored into a field of ``kind``; refuses what does not belong there."""
    if not isinstance(given, (types.Number, types.Boolean)):
        raise TypingError(f"{what} takes {kind}, not {given}")
    if kind == "b1" and not isinstance(given, types.Boolean):
        raise TypingError(f"{what} takes True or False, not {given}")
    if kind not in ("b1", "f64") and isinstance(given, types.Float):
        raise TypingError(f"{what} takes {kind}, not {given}: write int(...)")
    return {"b1": types.boolean, "f64": types.float64, "u64": types.uint64}.get(kind, types.int64)


def _fitting(kind: str) -> Any:
    @intrinsic
    def fit(typing: Any, x: Any) -> Any:
        """A number as the value of a field, or an error."""
        given = types.unliteral(x)
        result = _kept(kind, given, "the field")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _fit(Writer(context, builder), kind, args[0], given)

        return result(given), generate

    return fit


FIT: dict[str, Any] = {
    kind: _fitting(kind) for kind in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f64", "b1")
}
"""By kind: a function that makes a number fit a field, or raises."""


@intrinsic
def fit_into(typing: Any, array: Any, x: Any) -> Any:
    """The same for a number of an array."""
    given = types.unliteral(x)
    if not isinstance(array, types.Array):
        raise TypingError(f"{array}: only array fields are stored into")
    if array.ndim != 1:  # Numba would put one number into all places of the row
        raise TypingError("a row of an array field is changed number by number: write array[i][j] = ...")
    kind = _kind_of(array.dtype)
    result = _kept(kind, given, "the array")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fit(Writer(context, builder), kind, args[1], given)

    return result(array, given), generate


def _kind_of(dtype: Any) -> str:
    if isinstance(dtype, types.Boolean):
        return "b1"
    if isinstance(dtype, types.Float):
        return "f64"
    return f"{'i' if dtype.signed else 'u'}{dtype.bitwidth}"


def copy_array(target: Any, source: Any) -> None:
    """Copy the numbers of an array or tuple into an array field."""


@overload(copy_array)
@bare
def _copy_array(target: Any, source: Any) -> Any:
    if isinstance(source, types.BaseTuple):
        return _copy_of_tuple(target.ndim, source)
    if not (isinstance(source, types.Array) and source.ndim == target.ndim):
        raise TypingError(f"{source} for an array field: it takes an array, or tuples nested as its shape is")
    if target.ndim == 1:

        def copy(target: Any, source: Any) -> None:
            if len(target) != len(source):
                raise ValueError("another shape")
            for i in range(len(target)):
                target[i] = fit_into(target, source[i])

        return copy

    def copy_rows(target: Any, source: Any) -> None:
        if len(target) != len(source):
            raise ValueError("another shape")
        for i in range(len(target)):
            copy_array(target[i], source[i])

    return copy_rows


def _copy_of_tuple(dimensions: int, source: Any) -> Any:
    """A function that stores a tuple part by part: its parts may have types of their own."""
    lines = ["def copy(target, source):", f" if len(target) != {len(source)}:", "  raise ValueError('another shape')"]
    for i, part in enumerate(source):
        if dimensions > 1:
            lines.append(f" copy_array(target[{i}], source[{i}])")
        elif isinstance(part, (types.Number, types.Boolean)):
            lines.append(f" target[{i}] = fit_into(target, source[{i}])")
        else:
            raise TypingError(f"{part} for a number of an array field: tuples are nested as its shape is")
    names: dict[str, Any] = {"__name__": HOME, "copy_array": copy_array, "fit_into": fit_into}
    exec("\n".join(lines), names)  # numbers and names of ours only
    return names["copy"]


# --- what handlers may call ---------------------------------------------------------------------------


def _on_words(name: str, count: int, emit: Callable[..., Any], result: Any) -> Any:
    """An intrinsic on the low 64 bits of whole numbers."""

    def typed(given: tuple[Any, ...]) -> Any:
        given = tuple(types.unliteral(one) for one in given)
        if not all(is_whole(one) for one in given):
            raise TypingError(f"{name} takes whole numbers")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            writer = Writer(context, builder)
            return emit(writer, *(writer.word(value, one) for value, one in zip(args, given, strict=True)))

        return result(*given), generate

    return intrinsic_of(count, typed)


def _scrambled(w: Writer, x: Any) -> Any:
    """:func:`tidewarp.seeds.mix64`."""
    x = w.b.mul(w.b.xor(x, w.b.lshr(x, WORD(30))), WORD(0xBF58476D1CE4E5B9))
    x = w.b.mul(w.b.xor(x, w.b.lshr(x, WORD(27))), WORD(0x94D049BB133111EB))
    return w.b.xor(x, w.b.lshr(x, WORD(31)))


@kept("float64(float64)")
def _exact_log(x: Any) -> Any:
    if not 0.0 < x < np.inf:
        raise ValueError("exact_log needs a finite number above 0")
    return log_of(x)


@kept("float64(float64)")
def _exact_exp(x: Any) -> Any:
    if not x <= 709.782712893384:
        raise ValueError("exact_exp needs at most 709.78")
    return exp_of(x) if x >= -745.1332191019412 else 0.0


KNOWN: dict[Any, Any] = {
    arithmetic.mix64: _on_words("mix64", 1, _scrambled, types.uint64),
    arithmetic.wrap_i64: _on_words("wrap_i64", 1, lambda w, x: x, types.int64),
    arithmetic.u64_add: _on_words("u64_add", 2, lambda w, a, b: w.b.add(a, b), types.uint64),
    arithmetic.u64_mul: _on_words("u64_mul", 2, lambda w, a, b: w.b.mul(a, b), types.uint64),
    arithmetic.u64_div: _on_words("u64_div", 2, lambda w, a, b: _floor_div(w, a, b, True, True), types.uint64),
    arithmetic.u64_mod: _on_words("u64_mod", 2, lambda w, a, b: _mod(w, a, b, True, True), types.uint64),
    seeds.exact_log: _exact_log,
    seeds.exact_exp: _exact_exp,
}
"""Functions of ours that handlers may call, and their compiled forms."""
