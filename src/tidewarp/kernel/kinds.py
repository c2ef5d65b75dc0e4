"""What fields of LPs, messages and parameters may hold, and the one byte form of a row of them.

A *kind* is a machine number: ``i64`` is ``Annotated[int, Kind]``, so that a type checker sees ``int`` and the kernel
sees 64 bits. A :class:`Form` is the list of fields of one class; ``pack`` writes their values in declared
order, big-endian, without padding. That is the form in which rows and messages are hashed, checkpointed and sent.

A value has its kind from when it is assigned, sent or emitted, in every tier:

- ``f64`` takes any number and holds it as a float: ``self.x = 3`` reads 3.0.
- ``i8`` to ``u64`` take whole numbers in their range, never a float. True counts as 1 and False as 0.
- ``b1`` takes True and False only.

A value beyond its kind ends the run in the event that assigns, sends or emits it; all events before it are committed. There
is one exception: the Python tier looks at fields of i64 and u64, which are most, only where it makes the row's bytes (in
images and checkpoints, and with ``debug=True`` after every event). The compiled tier looks at them when they are assigned, so
there such a field ends the run even if it would come back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, NoReturn, TypeAlias, get_type_hints

import numpy as np

from tidewarp.errors import ModelError, RangeError

__all__ = [
    "Array",
    "Bytes",
    "Field",
    "Form",
    "Kind",
    "Numbers",
    "b1",
    "f64",
    "fit_of",
    "form_of",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
]

BYTES_MAX = 16 * 2**20
ROW_BYTES_MAX = 2**20
_KEEP = "keep it in range, or wrap it with wrap_i64 or u64_add"
_NAN = struct.unpack(">d", bytes.fromhex("7ff8000000000000"))[0]
_u32 = struct.Struct(">I")
_f64 = struct.Struct(">d")


class Kind(NamedTuple):
    """A machine number: its name, its code in :mod:`struct` and in numpy; ``bytes`` stands for variable length."""

    name: str
    code: str
    numpy: str


i8: TypeAlias = Annotated[int, Kind("i8", "b", "i1")]
i16: TypeAlias = Annotated[int, Kind("i16", "h", "i2")]
i32: TypeAlias = Annotated[int, Kind("i32", "i", "i4")]
i64: TypeAlias = Annotated[int, Kind("i64", "q", "i8")]
u8: TypeAlias = Annotated[int, Kind("u8", "B", "u1")]
u16: TypeAlias = Annotated[int, Kind("u16", "H", "u2")]
u32: TypeAlias = Annotated[int, Kind("u32", "I", "u4")]
u64: TypeAlias = Annotated[int, Kind("u64", "Q", "u8")]
f64: TypeAlias = Annotated[float, Kind("f64", "d", "f8")]
b1: TypeAlias = Annotated[bool, Kind("b1", "?", "?")]
Bytes: TypeAlias = Annotated[bytes, Kind("bytes", "", "")]
"""Variable length, at most 16 MiB; Python tier only."""


class Shaped(NamedTuple):
    """The mark of an array field: the kind of its numbers and its shape."""

    kind: Kind
    shape: tuple[int, ...]


class _Arrays:
    """``Array[i64, 16]``, ``Array[f64, (4, 4)]``: an array field, one list (of lists) in the Python tier, an ndarray view compiled."""

    def __getitem__(self, item: tuple[Any, int | tuple[int, ...]]) -> Any:
        annotation, shape = item
        marks: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
        sizes = shape if isinstance(shape, tuple) else (shape,)
        kind = marks[0] if marks else None
        if not isinstance(kind, Kind) or not kind.code:
            raise ModelError(
                f"Array of {annotation!r}", "an array holds i8 to u64, f64 or b1", "name one of these kinds"
            )
        if not sizes or any(type(n) is not int or n < 1 for n in sizes):
            raise ModelError(
                f"Array shape {shape!r}", "a shape is one or more whole numbers above 0", "correct the shape"
            )
        return Annotated[list, Shaped(kind, sizes)]


if TYPE_CHECKING:
    Array: TypeAlias = Any
else:
    Array = _Arrays()


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``shape`` () is a single number."""

    name: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def zero(self) -> Any:
        """Its value before anybody sets it."""
        if not self.kind.code:
            return b""
        number = {"d": 0.0, "?": False}.get(self.kind.code, 0)
        return _nested([number] * self.count, self.shape) if self.shape else number


_Fit: TypeAlias = Callable[[Any], Any]
_BITS = {"b": (-(2**7), 2**7 - 1), "h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1)}
_BITS |= {"B": (0, 2**8 - 1), "H": (0, 2**16 - 1), "I": (0, 2**32 - 1)}


class Numbers(list[Any]):
    """An array, or a row of one, in the Python tier: a list of fixed length in which every number fits its kind when it is stored."""

    __slots__ = ()

    field: ClassVar[str]
    rule: ClassVar[str]
    length: ClassVar[int]
    fit: ClassVar[_Fit]

    @classmethod
    def of(cls, values: Any) -> Numbers:
        """The array of these numbers, or rows.

        Raises:
            struct.error, TypeError, ValueError, OverflowError: what it cannot hold.
        """
        if isinstance(values, np.ndarray):
            values = values.tolist()
        made = cls(map(cls.fit, values))
        if len(made) != cls.length:
            raise ValueError("another shape")
        return made

    def __setitem__(self, at: Any, value: Any) -> None:
        try:
            fit = type(self).fit
            fitted = fit(value) if type(at) is not slice else [fit(part) for part in value]
        except (struct.error, TypeError, ValueError, OverflowError) as error:
            place = f"[{at}]" if type(at) is not slice else "[:]"
            raise RangeError(f"{self.field}{place} = {_shown(value)}", self.rule, _KEEP) from error
        if type(at) is slice and len(fitted) != len(self[at]):
            self._refuse()
        super().__setitem__(at, fitted)

    def copy(self) -> Numbers:
        """As a list does it."""
        return type(self)(self)

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def _refuse(self, *_: Any) -> NoReturn:
        raise RangeError(
            f"{self.field} with another length", f"an array keeps its {self.length} places", "change them one by one"
        )

    append = extend = insert = pop = remove = clear = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse


def fit_of(field: Field, owner: str) -> tuple[type, _Fit] | None:
    """What a field of the Python tier holds and the function that makes it of an assigned value; None where nothing is checked.

    Numbers of i64 and u64 are looked at when the row becomes bytes: most fields are of these, and it would double their cost.
    The function raises struct.error, TypeError, ValueError or OverflowError.
    """
    code = field.kind.code
    if code in ("", "q", "Q"):
        return None
    if field.shape:
        array = _array_class(f"{owner}.{field.name}", field.kind, field.shape)
        return array, array.of
    return {"d": float, "?": bool}.get(code, int), _number_fit(code)


def _array_class(name: str, kind: Kind, shape: tuple[int, ...]) -> type[Numbers]:
    rest = shape[1:]
    fit = _array_class(name, kind, rest).of if rest else _number_fit(kind.code)
    rule = f"its kind is {kind.name}{list(rest) if rest else ''}"
    body = {"__slots__": (), "field": name, "rule": rule, "length": shape[0], "fit": staticmethod(fit)}
    return type("Numbers", (Numbers,), body)


def _number_fit(code: str) -> _Fit:
    return {"d": _as_float, "?": _as_flag}.get(code) or _whole_fit(*_BITS[code])


def _as_float(value: Any) -> Any:
    return value if type(value) is float else _f64.unpack(_f64.pack(value))[0]


def _as_flag(value: Any) -> bool:
    if value is True or value is False or type(value) is np.bool_:
        return bool(value)
    raise ValueError("True or False")


def _whole_fit(low: int, high: int) -> _Fit:
    def fit(value: Any) -> int:
        number = value if type(value) is int else index(value)
        if low <= number <= high:
            return number
        raise OverflowError("a number beyond its kind")

    return fit


def _nested(flat: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for size in reversed(shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)]
    return flat


def _flat(value: Any, shape: tuple[int, ...]) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    parts = list(value)
    for size in shape[1:]:
        if any(len(part) != size for part in parts):
            raise ValueError("another shape")
        parts = [number for part in parts for number in part]
    return parts


class Form:
    """The fields of one class, in declared order, and the bytes of their values."""

    def __init__(self, name: str, fields: Sequence[Field]) -> None:
        self.name = name
        self.fields = tuple(fields)
        self.names = tuple(field.name for field in fields)
        self.fixed = all(field.kind.code for field in fields)
        """No field of variable length: every row has ``size`` bytes."""
        self._plain = self.fixed and all(not field.shape and field.kind.code not in "d?" for field in fields)
        self._struct = (
            struct.Struct(">" + "".join(f"{field.count}{field.kind.code}" for field in fields)) if self.fixed else None
        )
        self.size = self._struct.size if self._struct else 0
        self.has_arrays = any(field.shape for field in fields)
        if self.size > ROW_BYTES_MAX:
            raise ModelError(
                f"{name} has {self.size} bytes",
                f"a row has at most {ROW_BYTES_MAX}",
                "split the LP, or keep constants in a table",
            )

    def dtype(self, order: str = ">", align: bool = False) -> np.dtype[np.void]:
        """The same fields as a numpy record; the default is the byte form itself."""
        return np.dtype([(f.name, order + f.kind.numpy, f.shape) for f in self.fields], align=align)

    def zeros(self) -> tuple[Any, ...]:
        """The values of a fresh row."""
        return tuple(field.zero() for field in self.fields)

    def sealed(self, values: Sequence[Any]) -> list[Any]:
        """``values`` with each array as tuples of its own: nobody who holds the original can change it any more."""
        pairs = zip(self.fields, values, strict=True)
        return [_sealed(value, len(field.shape)) if field.shape else value for field, value in pairs]

    @property
    def checker(self) -> Callable[..., bytes] | None:
        """A function of the values that raises :class:`struct.error` for what their kinds cannot hold.

        None where that is not enough: floats, flags and arrays become what they are by :meth:`canonical`.
        """
        return self._struct.pack if self._plain and self._struct else None

    def canonical(self, values: Sequence[Any], owner: str = "") -> list[Any]:
        """``values`` as they come out of their bytes: floats, whole numbers and flags; arrays as tuples of their own.

        Raises:
            RangeError: as :meth:`pack`.
        """
        return self.sealed(self.unpack(self.pack(values, owner)))

    def pack(self, values: Sequence[Any], owner: str = "") -> bytes:
        """Big-endian bytes of ``values`` in declared order; every NaN becomes 7ff8000000000000.

        Raises:
            RangeError: a value that its kind cannot hold; ``owner`` (an LP's path) is named in it.
        """
        try:
            if self._plain:
                return self._struct.pack(*values)  # type: ignore[union-attr]
            return self._pack_slowly(values)
        except (struct.error, TypeError, ValueError, OverflowError) as error:
            raise self._refusal(values, owner) from error

    def _pack_slowly(self, values: Sequence[Any]) -> bytes:
        if len(values) != len(self.fields):
            raise ValueError("not one value for each field")
        return b"".join(_pack_field(field, value) for field, value in zip(self.fields, values, strict=True))

    def _refusal(self, values: Sequence[Any], owner: str) -> RangeError:
        for field, value in zip(self.fields, values, strict=False):
            try:
                _pack_field(field, value)
            except (struct.error, TypeError, ValueError, OverflowError):
                kind = field.kind.name + (f"{list(field.shape)}" if field.shape else "")
                where = f"{owner}: {self.name}" if owner else self.name
                return RangeError(
                    f"{where}.{field.name} = {_shown(value)}",
                    f"its kind is {kind}",
                    _KEEP,
                )
        return RangeError(
            f"{self.name} with {len(values)} values", f"it has {len(self.fields)} fields", "give one value for each"
        )

    def unpack(self, data: bytes | memoryview) -> tuple[Any, ...]:
        """The values of :meth:`pack`; arrays are lists.

        Raises:
            ValueError: bytes of another length.
        """
        values: list[Any] = []
        at = 0
        for field in self.fields:
            at = _unpack_field(field, data, at, values)
        if at != len(data):
            raise ValueError(f"{len(data)} bytes, {at} expected")
        return tuple(values)


def _sealed(value: Any, depth: int) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if depth == 1 or not isinstance(value, (list, tuple)):
        return tuple(value) if isinstance(value, list) else value
    return tuple([_sealed(part, depth - 1) for part in value])


def _pack_field(field: Field, value: Any) -> bytes:
    code = field.kind.code
    if not code:
        if not isinstance(value, bytes) or len(value) > BYTES_MAX:
            raise ValueError("bytes of at most 16 MiB")
        return _u32.pack(len(value)) + value
    numbers = _flat(value, field.shape) if field.shape else [value]
    if code == "d":
        numbers = [_NAN if number != number else number for number in numbers]
    elif code == "?" and not all(number is True or number is False or type(number) is np.bool_ for number in numbers):
        raise ValueError("True or False")
    if len(numbers) != field.count:
        raise ValueError("another shape")
    return struct.pack(f">{field.count}{code}", *numbers)


def _unpack_field(field: Field, data: bytes | memoryview, at: int, values: list[Any]) -> int:
    if field.kind.code:
        form = f">{field.count}{field.kind.code}"
        end = at + struct.calcsize(form)
        if end > len(data):
            raise ValueError("too short")
        numbers = struct.unpack_from(form, data, at)
        values.append(_nested(list(numbers), field.shape) if field.shape else numbers[0])
        return end
    if at + 4 > len(data):
        raise ValueError("too short")
    length: int = _u32.unpack_from(data, at)[0]
    end = at + 4 + length
    if end > len(data) or end - at - 4 > BYTES_MAX:
        raise ValueError("too short")
    values.append(bytes(data[at + 4 : end]))
    return end


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= 120 else shown[:120] + "…"


def form_of(cls: type, stop: type | None = None) -> Form:
    """The form of an annotated class; fields of its bases below ``stop`` come first.

    Raises:
        ModelError: a field without a kernel kind, naming class and field.
    """
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ModelError(
            f"{cls.__qualname__}: {error}",
            "annotations are resolved in the module of their class",
            "import the kind at the top of that module",
        ) from error
    hidden = set(get_type_hints(stop)) if stop is not None else set()
    return Form(cls.__name__, [_field_of(cls, name, hint) for name, hint in hints.items() if name not in hidden])


def _field_of(cls: type, name: str, hint: Any) -> Field:
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Kind):
            return Field(name, mark, ())
        if isinstance(mark, Shaped):
            return Field(name, mark.kind, mark.shape)
    raise ModelError(
        f"{cls.__qualname__}.{name}: {getattr(hint, '__name__', hint)!s}",
        "a field is i8 to u64, f64, b1, Array[kind, n] or Bytes",
        "annotate it with one of these kinds of tidewarp.kernel",
    )
