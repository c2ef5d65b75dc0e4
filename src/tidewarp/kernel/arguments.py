"""What users write as arguments: whole numbers (Python's, NumPy's), names, one of a few words. Each may be anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

__all__ = ["is_identifier", "is_name", "is_one_of", "whole"]


def whole(given: object) -> int | None:
    """``given`` as Python's int; None if it is no whole number. A bool is none: it stands where a number was forgotten."""
    if type(given) is int:
        return given
    if isinstance(given, bool):
        return None
    try:
        return index(given)  # type: ignore[arg-type]
    except TypeError:
        return None


def is_name(given: object) -> bool:
    """Whether it is text that can stand in errors and digests: not empty, printable, so without lone surrogates too."""
    return isinstance(given, str) and given != "" and given.isprintable()


def is_identifier(given: object) -> bool:
    """Whether it is text that Python could have as a name."""
    return isinstance(given, str) and given.isidentifier()


def is_one_of(given: object, words: Sequence[str]) -> bool:
    """Whether it is one of these words."""
    return isinstance(given, str) and given in words
