"""What the text of a handler says: its tokens for the model digest, and the names that it leans on.

A model is the same model when only comments, docstrings or layout of its handlers have changed, and on every
Python: so its digest is over tokens, not over bytecode or text.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from tidewarp.errors import ModelError

__all__ = ["constants_of", "function", "functions_of", "has_source", "messages_of", "text_of", "tokens_of"]

CACHED_MAX = 1024  # functions whose text is remembered: reading it costs a millisecond
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER, tokenize.NEWLINE}
_SILENT = ("CACHE", "PUSH_NULL", "EXTENDED_ARG", "PRECALL")
_MARKS = {tokenize.INDENT: b"{", tokenize.DEDENT: b"}"}


def function(python_function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that handlers of both tiers may call; its source is part of the model digest.

    It takes and returns numbers and arrays, keeps nothing, and calls nothing but other such functions.
    """
    python_function.kernel_function = True  # type: ignore[attr-defined]
    return python_function


@lru_cache(maxsize=CACHED_MAX)
def text_of(method: FunctionType) -> str:
    """The source of a function, without its common indentation.

    Raises:
        ModelError: there is no source to read.
    """
    try:
        return textwrap.dedent(inspect.getsource(method))
    except (OSError, TypeError) as error:
        raise ModelError(
            f"handler {method.__qualname__}", "the digest of a model is over its source", "define it in a file"
        ) from error


def has_source(method: FunctionType) -> bool:
    """Whether there is a text to read."""
    try:
        text_of(method)
    except ModelError:
        return False
    return True


@lru_cache(maxsize=CACHED_MAX)
def tokens_of(method: FunctionType) -> bytes:
    """The tokens of a function, each after a zero byte, without comments, docstrings, layout and annotations' line breaks."""
    text = text_of(method)
    skipped = _docstring_lines(text)
    defaults = (*(method.__defaults__ or ()), *(method.__kwdefaults__ or {}).values())
    return b"\0".join([*_tokens(text, skipped), *(repr(value).encode() for value in defaults)])


def _docstring_lines(text: str) -> set[int]:
    """Lines on which a docstring starts."""
    lines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            lines.add(node.body[0].lineno)
    return lines


def _tokens(text: str, docstrings: set[int]) -> Iterator[bytes]:
    lines = text.splitlines(keepends=True)
    start = getattr(tokenize, "FSTRING_START", None)  # Python 3.12 splits an f-string, 3.11 does not
    end = getattr(tokenize, "FSTRING_END", None)
    depth, opened = 0, (0, 0)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if start is not None and token.type == start:
            opened = token.start if depth == 0 else opened
            depth += 1
        elif depth and token.type == end:
            depth -= 1
            if depth == 0:
                yield _between(lines, opened, token.end).encode()
        elif not depth and token.type not in _SKIPPED and not _is_docstring(token, docstrings):
            yield _MARKS.get(token.type) or token.string.encode()


def _is_docstring(token: tokenize.TokenInfo, lines: set[int]) -> bool:
    line, column = token.start
    return token.type == tokenize.STRING and line in lines and not token.line[:column].strip()


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])


def _names(method: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names that a function reads from outside, with their values; ``module.name`` too."""
    codes: list[CodeType] = [method.__code__]
    closed = dict(
        zip(method.__code__.co_freevars, (cell.cell_contents for cell in method.__closure__ or ()), strict=True)
    )
    while codes:
        code = codes.pop()
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
        for place, step in enumerate(steps):
            outside = closed if step.opname.startswith("LOAD_") and "DEREF" in step.opname else None
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                outside = method.__globals__
            if outside is not None and step.argval in outside:
                yield from _followed(step.argval, outside[step.argval], steps[place + 1 :])


def _followed(name: str, value: Any, steps: list[dis.Instruction]) -> Iterator[tuple[str, Any]]:
    """A name, and what is read of it if it is a module: an attribute of anything else is no name from outside."""
    yield name, value
    for step in steps:
        if not (isinstance(value, ModuleType) and step.opname in ("LOAD_ATTR", "LOAD_METHOD")):
            return
        if step.argval not in vars(value):
            return
        name, value = f"{name}.{step.argval}", vars(value)[step.argval]
        yield name, value


def functions_of(roots: Iterable[FunctionType]) -> list[FunctionType]:
    """The functions marked with :func:`function` that these call, directly or through others, each once, in order of finding."""
    found: dict[FunctionType, None] = {}
    waiting = list(roots)
    while waiting:
        for _, value in _names(waiting.pop(0)):
            if isinstance(value, FunctionType) and hasattr(value, "kernel_function") and value not in found:
                found[value] = None
                waiting.append(value)
    return list(found)


def messages_of(method: FunctionType) -> list[type]:
    """NamedTuple classes that a handler or its functions name."""
    values = [value for root in (method, *functions_of([method])) for _, value in _names(root)]
    return [
        value for value in values if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")
    ]


def constants_of(roots: Iterable[FunctionType]) -> Iterator[bytes]:
    """Numbers, texts, tuples, arrays and enums from outside that these functions read, as ``place: name=value``.

    Each function's are its own: two handlers may close over different values of one name.
    """
    roots = list(roots)
    for place, root in enumerate((*roots, *functions_of(roots))):
        parts = {part for name, value in _names(root) if (part := _constant(name, value)) is not None}
        yield from (b"%d: %b" % (place, part) for part in sorted(parts))


def _constant(name: str, value: Any) -> bytes | None:
    if isinstance(value, (int, float, str, tuple)):
        return f"{name}={value!r}".encode()
    if isinstance(value, np.ndarray):
        return f"{name}={value.dtype.str[1:]} {value.tolist()!r}".encode()
    if isinstance(value, type) and issubclass(value, IntEnum):
        return f"{name}={[(member.name, member.value) for member in value]}".encode()
    return None
