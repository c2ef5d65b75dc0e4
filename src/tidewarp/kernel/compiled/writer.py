"""Machine code of single operations on numbers, written down with checks that raise.

Whole numbers are *signed*, held as i64, or *unsigned*, u64; a smaller kind and a flag count as i64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

__all__ = [
    "DOUBLE",
    "LEAST",
    "WORD",
    "Writer",
    "intrinsic_of",
    "is_unsigned",
    "is_whole",
    "llvm_function",
    "number_type",
]

WORD, WIDE, DOUBLE = ir.IntType(64), ir.IntType(128), ir.DoubleType()
LEAST = -(2**63)
EXACT = 2**53  # whole numbers up to here are floats


def intrinsic_of(count: int, typed: Callable[[tuple[Any, ...]], Any]) -> Any:
    """The intrinsic of one argument or two whose signature and code ``typed`` gives for the types of these."""
    if count == 1:

        @intrinsic
        def one(typing: Any, x: Any) -> Any:
            return typed((x,))

        return one

    @intrinsic
    def two(typing: Any, a: Any, b: Any) -> Any:
        return typed((a, b))

    return two


def is_whole(given: Any) -> bool:
    """Whether it is the type of a whole number; True and False count."""
    return isinstance(given, (types.Integer, types.Boolean))


def is_unsigned(given: Any) -> bool:
    """A u64, the only whole number that int64 does not hold."""
    return isinstance(given, types.Integer) and not given.signed and given.bitwidth == 64


class Writer:
    """Writes the machine code of one operation."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context = context
        self.b = builder

    def word(self, value: Any, given: Any) -> Any:
        """A whole number as 64 bits."""
        return self.context.cast(self.b, value, given, types.uint64 if is_unsigned(given) else types.int64)

    def wide(self, word: Any, unsigned: bool) -> Any:
        """64 bits as 128, where every sum and difference is right."""
        return self.b.zext(word, WIDE) if unsigned else self.b.sext(word, WIDE)

    def refuse(self, bad: Any, text: str, exception: type[Exception] = OverflowError) -> None:
        """Raise if ``bad``."""
        with self.b.if_then(bad, likely=False):
            self.context.call_conv.return_user_exc(self.b, exception, (text,))

    def natural(self, word: Any, unsigned: bool) -> Any:
        """A word that may stand for a u64: raises below 0."""
        if not unsigned:
            self.refuse(self.b.icmp_signed("<", word, WORD(0)), "u64 and a negative number")
        return word

    def narrow(self, wide: Any, unsigned: bool) -> Any:
        """128 bits as 64; raises if they do not fit."""
        word = self.b.trunc(wide, WORD)
        self.refuse(self.b.icmp_signed("!=", self.wide(word, unsigned), wide), "a result beyond 64 bits")
        return word

    def checked(self, name: str, a: Any, b: Any) -> Any:
        """One of LLVM's operations that say whether they overflowed."""
        pair = getattr(self.b, f"{name}_with_overflow")(a, b)
        self.refuse(self.b.extract_value(pair, 1), "a result beyond 64 bits")
        return self.b.extract_value(pair, 0)

    def nonzero(self, divisor: Any) -> None:
        """Raise if it is 0."""
        self.refuse(self.b.icmp_signed("==", divisor, WORD(0)), "division by zero", ZeroDivisionError)

    def floor_division(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Quotient and rest as Python rounds them, signed. The machine's division traps at the least number by -1."""
        self.nonzero(b)
        is_minus = self.b.icmp_signed("==", b, WORD(-1))
        by = self.b.select(is_minus, WORD(1), b)
        quotient, rest = self.b.sdiv(a, by), self.b.srem(a, by)
        differs = self.b.icmp_signed("<", self.b.xor(rest, by), WORD(0))
        off = self.b.and_(self.b.icmp_signed("!=", rest, WORD(0)), differs)
        quotient = self.b.select(off, self.b.sub(quotient, WORD(1)), quotient)
        rest = self.b.select(off, self.b.add(rest, by), rest)
        return self.b.select(is_minus, self.b.neg(a), quotient), rest

    def exact_float(self, word: Any, unsigned: bool) -> Any:
        """A whole number as a float; raises where that would round."""
        shifted = word if unsigned else self.b.add(word, WORD(EXACT))
        self.refuse(
            self.b.icmp_unsigned(">", shifted, WORD(EXACT if unsigned else 2 * EXACT)),
            "beyond 2**53: write float(a) / b",
        )
        return self.b.sitofp(word, DOUBLE)

    def shift_count(self, word: Any, unsigned: bool) -> Any:
        """A count of bits; raises below 0."""
        if not unsigned:
            self.refuse(self.b.icmp_signed("<", word, WORD(0)), "negative shift count", ValueError)
        return word


def number_type(name: str, x: Any) -> Any:
    """The type of an argument that is to be a number."""
    given = types.unliteral(x)
    if not isinstance(given, (types.Integer, types.Boolean, types.Float)):
        raise TypingError(f"{name}({given}): it takes a number")
    return given


def llvm_function(name: str, arguments: int = 1) -> Callable[..., Any]:
    """One of LLVM's functions of floats, as a writer."""
    signature = ir.FunctionType(DOUBLE, [DOUBLE] * arguments)

    def call(w: Writer, *values: Any) -> Any:
        return w.b.call(w.b.module.declare_intrinsic(f"llvm.{name}", [DOUBLE], signature), values)

    return call
