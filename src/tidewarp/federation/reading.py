"""Reading what people write, strictly: a key or a word that is not known is refused, and the nearest that is, named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from tidewarp.errors import OperatorError

__all__ = ["HEX", "StrictReader"]

HEX = re.compile("[0-9a-f]{64}")
"""32 bytes as text: a domain, a key."""

_LIST_MAX = 256
_SHOWN = 64  # characters of a word that is not known, which are compared

Word = TypeVar("Word", bound=StrEnum)


class StrictReader:
    """Takes the values of a document apart. All methods raise OperatorError; ``action`` is what it advises.

    ``what`` is how the error names the value.
    """

    def __init__(self, action: str) -> None:
        self._action = action

    def toml(self, text: str, what: str) -> dict[str, Any]:
        """The tables of a text in TOML."""
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            reason = str(error)
        except RecursionError:
            reason = "it is nested too deeply"
        raise OperatorError(what, f"no TOML: {reason}", self._action)

    def table(self, value: object, what: str, known: Iterable[str] | None = None) -> dict[str, Any]:
        """A table, of keys that are ``known``; None: of any."""
        if type(value) is not dict:
            raise OperatorError(f"{what}: {value!r:.40}", "it is a table", self._action)
        if known is not None:
            keys = tuple(known)
            for key in value:
                self.word(key, keys, f"key of {what}")
        return value

    def sequence(self, value: object, what: str) -> list[Any]:
        """A list, of at most 256."""
        if type(value) is not list or len(value) > _LIST_MAX:
            raise OperatorError(f"{what}: {value!r:.40}", f"it is a list of at most {_LIST_MAX}", self._action)
        return value

    def number(self, value: object, most: int, what: str) -> int:
        """A whole number from 0 to ``most``."""
        if type(value) is not int or not 0 <= value <= most:
            raise OperatorError(f"{what}: {value!r:.40}", f"it is a whole number from 0 to {most}", self._action)
        return value

    def word(self, value: object, known: Iterable[str], what: str) -> str:
        """One of the ``known``."""
        words = list(known)
        if isinstance(value, str) and value in words:
            return value
        near = get_close_matches(str(value)[:_SHOWN], words, n=1, cutoff=0)
        action = f"did you mean {near[0]}?" if near else "leave it out"
        raise OperatorError(f"{what}: {value!r:.80}", f"known are {', '.join(words[:16]) or 'none'}", action)

    def enum(self, value: object, words: type[Word], what: str) -> Word:
        """One of the members of ``words``."""
        return words(self.word(value, [str(word) for word in words], what))

    def hash32(self, value: object, what: str, action: str = "copy all of it") -> bytes:
        """32 bytes, from their 64 digits."""
        if type(value) is not str or not HEX.fullmatch(value):
            raise OperatorError(f"{what} {value!r:.80}", "it has 64 lower-case hexadecimal digits", action)
        return bytes.fromhex(value)
