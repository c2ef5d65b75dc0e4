"""The values that a node's user owns: copied by name of their type, and their byte form.

None, bool, int, float, complex, str, bytes, tuple, list, dict, NumPy numbers and arrays; types are matched exactly. Anything
else is refused by its place, because nobody can know whether a copy of it is independent. Neither pickle nor
``deepcopy`` is used: 11 and 7 µs against about one, and both run code of the value's class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tidewarp.codec import Digest, pack, unpack
from tidewarp.errors import CodecError, ModelError, RangeError

__all__ = [
    "array_digest",
    "check_value",
    "checked_bytes",
    "copied",
    "frozen_array",
    "int_bytes",
    "int_of",
    "pack_value",
    "unpack_value",
]

DEPTH_MAX = 24  # containers inside one another; a value that contains itself ends here too
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_KINDS = "biufcSUmM"
_DTYPE = re.compile(rf"[<>|=][{_KINDS}]\d{{1,9}}(\[\d{{0,9}}[A-Za-z]{{1,2}}\])?", re.ASCII)


def copied(value: Any, where: str, depth: int = DEPTH_MAX) -> Any:
    """An independent copy of ``value``; ``where`` names it in errors.

    Raises:
        ModelError: a type, or a type of array, that is not in the list; more than 24 containers inside one another.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth == 0:
        raise _refused_depth(where)
    if kind is dict:
        return {
            (key if type(key) in _PLAIN else copied(key, f"key of {where}", depth - 1)): (
                item if type(item) in _PLAIN else copied(item, f"{where}[{key!r}]", depth - 1)
            )
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return kind(
            item if type(item) in _PLAIN else copied(item, f"{where}[{place}]", depth - 1)
            for place, item in enumerate(value)
        )
    if kind is np.ndarray:
        _check_dtype(value.dtype, where)
        return value.copy()
    if isinstance(value, np.generic):
        _check_dtype(value.dtype, where)
        return value
    raise _refused(value, where)


def check_value(value: Any, where: str, depth: int = DEPTH_MAX) -> None:
    """Refuse what :func:`copied` refuses, without a copy.

    Raises:
        ModelError: as :func:`copied`.
    """
    kind = type(value)
    if kind in _PLAIN:
        return
    if depth == 0:
        raise _refused_depth(where)
    if kind is dict:
        for key, item in value.items():
            if type(key) not in _PLAIN:
                check_value(key, f"key of {where}", depth - 1)
            if type(item) not in _PLAIN:
                check_value(item, f"{where}[{key!r}]", depth - 1)
    elif kind is list or kind is tuple:
        for place, item in enumerate(value):
            if type(item) not in _PLAIN:
                check_value(item, f"{where}[{place}]", depth - 1)
    elif kind is np.ndarray or isinstance(value, np.generic):
        _check_dtype(value.dtype, where)
    else:
        raise _refused(value, where)


def frozen_array(value: Any, where: str) -> np.ndarray[Any, Any]:
    """A C-contiguous read-only copy of an array (or of what NumPy makes an array of), with its dtype and shape.

    Raises:
        ModelError: an array of objects, records or long doubles: its bytes do not say what it holds.
    """
    array = np.array(value, order="C", copy=True)
    _check_dtype(array.dtype, where)
    array.flags.writeable = False
    return array


def array_digest(array: np.ndarray[Any, Any]) -> bytes:
    """32 bytes over dtype, shape and values, the same on machines of either byte order."""
    digest = Digest("TWARRAY1")
    digest.add(array.dtype.str[1:].encode())
    digest.add(",".join(map(str, array.shape)).encode())
    digest.add(array.astype(array.dtype.newbyteorder(">"), copy=False).tobytes())
    return digest.digest()


def int_bytes(value: int) -> bytes:
    """An int of any size: two's complement, big-endian, as short as it goes; 0 has no byte."""
    return value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True) if value else b""


def int_of(data: bytes) -> int:
    """The int of :func:`int_bytes`.

    Raises:
        CodecError: bytes that it would not have written.
    """
    value = int.from_bytes(data, "big", signed=True)
    if int_bytes(value) != data:
        raise CodecError(f"an int of {len(data)} bytes", "an int has one form", "take the bytes of int_bytes()")
    return value


def pack_value(value: Any, where: str) -> bytes:
    """The bytes of a value that :func:`copied` accepts; a dict keeps its order, since handlers see it.

    Raises:
        ModelError: as :func:`copied`.
    """
    return pack(_tagged(value, where, DEPTH_MAX))


def unpack_value(data: bytes) -> Any:
    """The value of :func:`pack_value`, with its types.

    Raises:
        CodecError: bytes that it would not have written.
    """
    tagged = unpack(data)
    try:
        value = _untagged(tagged)
        if pack_value(value, "value") == data:
            return value
    except (ModelError, TypeError, ValueError, KeyError, IndexError):
        pass
    raise CodecError(f"a value of {len(data)} bytes", "it is not what pack_value writes", "take its bytes whole")


def _tagged(value: Any, where: str, depth: int) -> Any:
    kind = type(value)
    if kind is int and not -(2**63) <= value < 2**63:
        return ["i", int_bytes(value)]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind in _PLAIN:
        return value
    if depth == 0:
        raise _refused_depth(where)
    if kind is dict:
        pairs = [
            [_tagged(key, f"key of {where}", depth - 1), _tagged(item, f"{where}[{key!r}]", depth - 1)]
            for key, item in value.items()
        ]
        return ["d", pairs]
    if kind is list or kind is tuple:
        items = [_tagged(item, f"{where}[{place}]", depth - 1) for place, item in enumerate(value)]
        return ["l" if kind is list else "t", items]
    if kind is np.ndarray or isinstance(value, np.generic):
        _check_dtype(value.dtype, where)
        return ["a" if kind is np.ndarray else "n", value.dtype.str, list(value.shape), value.tobytes()]
    raise _refused(value, where)


def _untagged(tagged: Any) -> Any:
    if not isinstance(tagged, list):
        return tagged
    return _UNTAG[tagged[0]](*tagged[1:])


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray[Any, Any]:
    if _DTYPE.fullmatch(dtype) is None:  # numpy would read far more into a text than a type's name
        raise ValueError("no name of a type that pack_value writes")
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()


_UNTAG: dict[str, Callable[..., Any]] = {
    "i": int_of,
    "c": complex,
    "d": lambda pairs: {_untagged(key): _untagged(item) for key, item in pairs},
    "l": lambda items: [_untagged(item) for item in items],
    "t": lambda items: tuple(_untagged(item) for item in items),
    "a": _array,
    "n": lambda dtype, shape, data: _array(dtype, shape, data)[()],
}


def checked_bytes(what: str, data: object) -> bytes:
    """``data`` as bytes.

    Raises:
        RangeError: it is no bytes-like object; ``what`` names what it should hold.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise RangeError(f"{what} from {data!r:.80}", "it is read from bytes", "give what to_bytes() returned")
    return bytes(data)


def _check_dtype(dtype: np.dtype[Any], where: str) -> None:
    long = dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16)
    if dtype.kind not in _KINDS or long or dtype.hasobject or not dtype.itemsize:
        raise ModelError(
            f"{where}: an array of {dtype}",
            "arrays hold numbers of at most 64 bits or fixed text",
            "convert it with astype",
        )


def _refused(value: Any, where: str) -> ModelError:
    return ModelError(
        f"{where}: a {type(value).__module__}.{type(value).__qualname__}",
        "state and payload are numbers, str, bytes, tuple, list, dict and NumPy arrays",
        "keep its contents in these",
    )


def _refused_depth(where: str) -> ModelError:
    return ModelError(where[:200], f"more than {DEPTH_MAX} containers inside one another", "make it flatter")
