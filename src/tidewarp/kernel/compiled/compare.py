"""Comparisons of numbers in compiled handlers: by their values, whatever their types."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from tidewarp.kernel.compiled.writer import DOUBLE, LEAST, WORD, Writer, is_unsigned, is_whole, llvm_function

__all__ = ["COMPARISONS", "same_whole"]

_SIGNS = {"Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Eq": "==", "NotEq": "!="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _comparison(sign: str, only_whole: bool = False) -> Any:
    @intrinsic
    def compare(typing: Any, a: Any, b: Any) -> Any:
        """Two numbers compared by their values, as Python does it; Numba would make floats of both first."""
        given = types.unliteral(a), types.unliteral(b)
        if not all(isinstance(one, (types.Integer, types.Boolean, types.Float)) for one in given):
            raise TypingError(f"{given[0]} {sign} {given[1]}: handlers compare numbers")
        wholes = is_whole(given[0]), is_whole(given[1])
        if only_whole and not all(wholes):
            raise TypingError(f"{given[0]} in a tuple of {given[1]}: whole numbers are looked for in tuples of such")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w = Writer(context, builder)
            if not any(wholes):
                return _compare_floats(w, sign, args[0], args[1])
            if not wholes[0]:
                return _compare_mixed(w, _TURNED[sign], w.word(args[1], given[1]), is_unsigned(given[1]), args[0])
            x, ux = w.word(args[0], given[0]), is_unsigned(given[0])
            if not wholes[1]:
                return _compare_mixed(w, sign, x, ux, args[1])
            y, uy = w.word(args[1], given[1]), is_unsigned(given[1])
            if ux == uy:
                return (builder.icmp_unsigned if ux else builder.icmp_signed)(sign, x, y)
            return builder.icmp_signed(sign, w.wide(x, ux), w.wide(y, uy))

        return types.boolean(*given), generate

    return compare


def _compare_floats(w: Writer, sign: str, a: Any, b: Any) -> Any:
    return w.b.fcmp_unordered(sign, a, b) if sign == "!=" else w.b.fcmp_ordered(sign, a, b)


def _compare_mixed(w: Writer, sign: str, word: Any, unsigned: bool, value: Any) -> Any:
    """A whole number with a float: with the next whole number on that side of the float at which the answer is the same."""
    b = w.b
    edge = llvm_function("ceil" if sign in ("<", ">=") else "floor")(w, value)
    low, high = (0.0, float(2**64)) if unsigned else (float(LEAST), float(2**63))
    above, below = b.fcmp_ordered(">=", edge, DOUBLE(high)), b.fcmp_ordered("<", edge, DOUBLE(low))
    is_held = b.and_(b.fcmp_ordered(">=", edge, DOUBLE(low)), b.fcmp_ordered("<", edge, DOUBLE(high)))
    safe = b.select(is_held, edge, DOUBLE(0.0))
    other = (b.fptoui if unsigned else b.fptosi)(safe, WORD)
    held = (b.icmp_unsigned if unsigned else b.icmp_signed)(sign, word, other)
    if sign in ("==", "!="):  # and a fraction makes them differ
        same = b.fcmp_ordered("==", edge, value)
        equal = b.and_(b.and_(is_held, same), b.icmp_signed("==", word, other))
        return equal if sign == "==" else b.not_(equal)
    return b.or_(b.and_(is_held, held), above if sign in ("<", "<=") else below)


COMPARISONS: dict[str, Any] = {name: _comparison(sign) for name, sign in _SIGNS.items()}
"""By the name of the node in :mod:`ast`: a function of two operands."""
same_whole = _comparison("==", only_whole=True)
