"""Stochastic computing: a number p in [0, 1] as a stream of bits of which a share p is 1.

A bit is ``word < level``, the word being that of a 16-bit linear feedback shift register (Galois form, mask 0xB400: x^16 +
x^14 + x^13 + x^11 + 1, primitive, so every word but 0 comes once in 65,535 steps) and level = floor(65536 p). The product of
two numbers is the AND of their streams, half their sum is a choice between them (Gaines, Stochastic Computing Systems,
1969). Both hold only for streams that do not follow each other; :func:`check_correlation` says whether they do (Alaghi and
Hayes, Exploiting Correlation in Stochastic Circuit Design, ICCD 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tidewarp.errors import ModelError
from tidewarp.kernel import function

__all__ = [
    "MASK",
    "PERIOD",
    "Correlation",
    "check_correlation",
    "level_of",
    "next_word",
    "product",
    "scaled_sum",
    "stream",
    "value_of",
]

MASK = 0xB400
PERIOD = 65_535
_SIGMAS = 4.0


@function
def next_word(word: int) -> int:
    """The register's next word; from one that is not 0 never 0."""
    return (word >> 1) ^ (MASK if word & 1 else 0)


def level_of(p: float) -> int:
    """What words are compared with: floor(65536 p). In a whole period level - 1 bits are 1 (none for level 0).

    Raises:
        ModelError: p outside of [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ModelError(f"p = {p!r}", "a stream stands for a number from 0 to 1", "scale it")
    return int(p * 65536.0)


def stream(p: float, bits: int, seed: int) -> list[int]:
    """``bits`` bits that stand for p; ``seed`` is the register's first word, 1 to 65535.

    Raises:
        ModelError: p outside of [0, 1], a seed that the register does not have (from 0 it would never leave).
    """
    if type(seed) is not int or not 1 <= seed <= PERIOD:
        raise ModelError(f"LFSR seed {seed!r}", "a register's word is 1 to 65535", "choose another seed")
    level, word, made = level_of(p), seed, []
    for _ in range(bits):
        made.append(int(word < level))
        word = next_word(word)
    return made


def value_of(bits: Sequence[int]) -> float:
    """The number that a stream stands for: its share of ones."""
    if not bits:
        raise ModelError("a stream of no bits", "it stands for no number", "give it a length")
    return sum(bits) / len(bits)


def product(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """The stream of the product, if both are independent; of the smaller one if they come from one register."""
    return [x & y for x, y in zip(a, b, strict=True)]


def scaled_sum(a: Sequence[int], b: Sequence[int], choice: Sequence[int]) -> list[int]:
    """The stream of p(choice) a + (1 - p(choice)) b; with choice 1/2 half the sum."""
    return [x if c else y for x, y, c in zip(a, b, choice, strict=True)]


class Correlation(NamedTuple):
    """How two streams go together: ``scc`` is 1 where one covers the other, 0 independent, -1 where they avoid each other.

    ``is_independent``: their AND is the product of both values within 4 standard deviations.
    """

    scc: float
    is_independent: bool


def check_correlation(a: Sequence[int], b: Sequence[int]) -> Correlation:
    """The stochastic computing correlation of two streams of one length."""
    p, q, both = value_of(a), value_of(b), value_of(product(a, b))
    excess = both - p * q
    room = min(p, q) - p * q if excess > 0.0 else p * q - max(p + q - 1.0, 0.0)
    sigma = math.sqrt(p * q * (1.0 - p * q) / len(a))
    return Correlation(excess / room if room > 0.0 else 0.0, abs(excess) <= _SIGMAS * sigma)
