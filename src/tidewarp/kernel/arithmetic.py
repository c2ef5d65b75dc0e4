"""Whole-number arithmetic that wraps around, with the same result interpreted and compiled.

Python's integers never overflow and a machine word does. A handler that means to wrap says so with these
functions; every other result must fit its field.
"""

from __future__ import annotations

from tidewarp.seeds import mix64

__all__ = ["mix64", "u64_add", "u64_div", "u64_mod", "u64_mul", "wrap_i64"]

_MASK = 2**64 - 1


def wrap_i64(x: int) -> int:
    """The low 64 bits of ``x`` as a signed number."""
    x &= _MASK
    return x - 2**64 if x >> 63 else x


def u64_add(a: int, b: int) -> int:
    """(a + b) modulo 2**64; operands count by their low 64 bits."""
    return (a + b) & _MASK


def u64_mul(a: int, b: int) -> int:
    """(a · b) modulo 2**64; operands count by their low 64 bits."""
    return (a * b) & _MASK


def u64_div(a: int, b: int) -> int:
    """The whole part of a / b for unsigned 64-bit numbers; b = 0 raises ZeroDivisionError."""
    return (a & _MASK) // (b & _MASK)


def u64_mod(a: int, b: int) -> int:
    """The rest of a / b for unsigned 64-bit numbers; b = 0 raises ZeroDivisionError."""
    return (a & _MASK) % (b & _MASK)
