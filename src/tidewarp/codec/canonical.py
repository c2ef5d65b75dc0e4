"""Canonical MessagePack: each value has exactly one byte string, each byte string at most one value.

The form is that of ``msgspec`` with ``order="deterministic"`` (shortest lengths and integers, map keys in byte
order), narrowed to nil, bool, int in [-2**63, 2**64), float as binary64 with one NaN (``7ff8000000000000``), str,
bin, array and map with str keys. No ext, hence no time type. A decoder that accepts more than this gives a
second form to something that is hashed, so :func:`unpack` encodes what it read and compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from tidewarp.errors import CodecError

__all__ = ["DEPTH_MAX", "pack", "pack_plain", "unpack"]

DEPTH_MAX = 64  # containers inside one another

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
pack_plain = _encode
"""As :func:`pack` for what is known to be plain and to hold no NaN, which it does not check: a record of ours."""
_decode = msgspec.msgpack.Decoder().decode
_SCALARS = frozenset({type(None), bool, int, str, bytes})
_INT_MIN, _INT_END = -(2**63), 2**64
_ACTION = "give nil, bool, int, float, str, bytes, and lists and dicts of these"
_SHOWN_MAX = 40  # characters of a key or a place that an error shows


def pack(value: Any) -> bytes:
    """The canonical bytes of ``value``; a tuple is written as an array, any NaN as the one NaN.

    Types are matched exactly: a subclass (an enum, a NumPy scalar) would come back as something else.

    Raises:
        CodecError: another type, a key that is not str, an int out of range, a lone surrogate, or more
            than :data:`DEPTH_MAX` containers inside one another; names the path inside the value and the type.
    """
    if type(value) is dict:  # written out for what most are: flat
        for key, item in value.items():
            kind = type(item)
            if type(key) is not str or (kind is not str and kind not in _SCALARS):
                break
        else:
            try:
                return _encode(value)
            except (OverflowError, UnicodeEncodeError):
                pass  # said below, with the place in the value
    return _pack(value, DEPTH_MAX)


def unpack(data: bytes, *, depth_max: int = DEPTH_MAX) -> Any:
    """The value whose canonical bytes are ``data``; arrays come back as lists.

    Memory is bounded by the bytes present, whatever lengths they declare.

    Raises:
        CodecError: every byte string that :func:`pack` would not have written, trailing bytes and
            more than ``depth_max`` containers inside one another included.
    """
    if type(data) is not bytes:
        raise CodecError(f"a {type(data).__name__}", "a document is bytes", "give bytes")
    try:
        value = _decode(data)
        again = _pack(value, depth_max)
    except RecursionError:
        raise CodecError(_described(data), f"nested deeper than {depth_max}", "send a flatter value") from None
    except CodecError as error:
        raise CodecError(f"{_described(data)}, {error.value}", error.rule, "write it with pack()") from None
    except (ValueError, OverflowError) as error:
        raise CodecError(_described(data), f"not MessagePack: {error}", "write it with pack()") from None
    if again != data:
        raise CodecError(_described(data), _difference(data, again), "write it with pack()")
    return value


def _pack(value: Any, depth_max: int) -> bytes:
    # Nearly all values are plain; only what is not pays for a path, or for a copy with the one NaN.
    if type(value) not in _SCALARS and not _is_plain(value, depth_max):
        value = _normal(value, "value", depth_max)
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError):
        _normal(value, "value", depth_max)
        raise


def _is_plain(value: Any, depth: int) -> bool:
    """May ``value`` be encoded as it stands? The encoder itself refuses ints out of range and surrogates."""
    kind = type(value)
    items: Iterable[Any]
    if kind is float:
        return bool(value == value)
    if depth < 1:
        return False
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    for item in items:  # noqa: SIM110 - all() over a generator takes twice as long, and this runs per output
        if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
            return False
    return True


def _normal(value: Any, path: str, depth: int) -> Any:
    """A copy of ``value`` with the one NaN; raises for the first place that has no canonical form."""
    kind = type(value)
    if kind is float:
        return math.nan if value != value else value
    if kind is int and not _INT_MIN <= value < _INT_END:
        raise _refusal(path, f"an int of {value.bit_length()} bits", "an int lies in [-2**63, 2**64)")
    if kind is str:
        return _text(value, path)
    if kind in _SCALARS:
        return value
    if kind not in (dict, list, tuple):
        raise _refusal(path, f"a {kind.__module__}.{kind.__qualname__}", "no canonical form")
    if depth < 1:
        raise _refusal(path, f"a {kind.__name__}", "nested too deep")
    if kind is not dict:
        return [_normal(item, f"{path}[{at}]", depth - 1) for at, item in enumerate(value)]
    return {_key(key, path): _normal(item, f"{path}[{_shown(key)}]", depth - 1) for key, item in value.items()}


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(path, f"a str with {value[error.start]!r}", "a lone surrogate has no UTF-8") from None
    return value


def _key(key: object, path: str) -> str:
    if type(key) is not str:
        raise _refusal(path, f"a {type(key).__name__} key {_shown(key)}", "map keys are str")
    return _text(key, f"the keys of {path}")


def _refusal(path: str, what: str, rule: str) -> CodecError:
    if len(path) > 4 * _SHOWN_MAX:
        path = f"{path[: 2 * _SHOWN_MAX]}…{path[-2 * _SHOWN_MAX :]}"
    return CodecError(f"{path}: {what}", rule, _ACTION)


def _shown(key: object) -> str:
    if type(key) is not str:
        return f"of type {type(key).__name__}"
    return repr(key) if len(key) <= _SHOWN_MAX else f"{key[:_SHOWN_MAX]!r}…"


def _described(data: bytes) -> str:
    return f"{len(data)} bytes {data[:12].hex()}{'…' if len(data) > 12 else ''}"


def _difference(data: bytes, again: bytes) -> str:
    place = next((at for at, (one, other) in enumerate(zip(data, again, strict=False)) if one != other), len(again))
    return f"not the canonical form, which differs from byte {place} on"
