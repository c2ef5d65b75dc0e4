"""What a path accepts: the cast of its declared type, then range and choice.

This is the static stage: it looks at the value alone, so the gate may ask before it journals an input.
The dynamic stage, what the state of the moment allows, is in ``registry``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tidewarp.errors import ModelError, RuleViolation

__all__ = ["DEPTH_MAX", "ITEMS_MAX", "TEXT_BYTES_MAX", "Rule", "same", "shown"]

TEXT_BYTES_MAX: Final = 64 * 1024
ITEMS_MAX: Final = 10_000
DEPTH_MAX: Final = 32
_INT64_MAX: Final = 2**63 - 1
_FLOAT_MAX: Final = math.nextafter(math.inf, 0)
_NUMBER_TEXT_MAX: Final = 64  # no finite number needs more; a longer text is an attempt to make us work
_SHOWN_MAX: Final = 80

_DECIMAL = re.compile(r"[+-]?[0-9]+")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NONFINITE_TEXT: Final = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}
_BOOL_TEXT: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class _Unfit(Exception):
    """A cast failed: (rule, next action). The rule that knows the path makes the error of it."""


def shown(value: object) -> str:
    """``value`` for a message: short, and equal in every life (never an address in memory)."""
    if isinstance(value, list | tuple | dict | bytes):
        return f"{type(value).__name__} of length {len(value)}"
    if isinstance(value, int) and value.bit_length() > 256:  # repr() refuses numbers of some thousand digits
        return f"int of {value.bit_length()} bits"
    if value is None or type(value) in (bool, int, float, str):
        text = repr(value if not isinstance(value, str) else value[:_SHOWN_MAX])
        return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."
    return f"of type {type(value).__name__}"


def same(a: Any, b: Any) -> bool:
    """Equal in type and value at every depth: ``1``, ``1.0`` and ``True`` are three values, also inside a list. NaN is NaN."""
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is float:
        return bool(a == b or (a != a and b != b))  # NaN after NaN is no change
    if kind is list:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is dict:
        return a.keys() == b.keys() and all(same(item, b[key]) for key, item in a.items())
    return bool(a == b)


def _int64(value: int) -> int:
    if -_INT64_MAX - 1 <= value <= _INT64_MAX:
        return int(value)
    raise _Unfit("outside int64", "send a whole number from -2^63 to 2^63 - 1, or declare the path as float")


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise _Unfit("not a finite number", "send a finite number; leave the reading out if there is none")


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and (value == 0 or value == 1):
        return value == 1
    if isinstance(value, str) and len(value) <= 5 and value.lower() in _BOOL_TEXT:
        return _BOOL_TEXT[value.lower()]
    raise _Unfit("not a bool", "send true or false, 1 or 0, or one of the texts true false yes no on off 1 0")


def _int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _int64(value)
    if isinstance(value, float) and value.is_integer():
        return _int64(int(value))
    if isinstance(value, str) and len(value) <= _NUMBER_TEXT_MAX and _DECIMAL.fullmatch(value):
        return _int64(int(value))
    raise _Unfit("not a whole number", "send a whole number, or declare the path as float")


def _float(value: object) -> float:
    if type(value) is float and -math.inf < value < math.inf:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _finite(float(value))
        except OverflowError:
            return _finite(math.inf)
    if isinstance(value, str) and len(value) <= _NUMBER_TEXT_MAX and _JSON_NUMBER.fullmatch(value):
        return _finite(float(value))
    raise _Unfit("not a number", "send a number, or the text of one as JSON writes it")


def _any_float(value: object) -> float:
    """As :func:`_float`, and NaN and the infinities; there is one NaN. A number too large for a float stays refused."""
    if isinstance(value, float) and not math.isfinite(value):
        return math.nan if value != value else float(value)
    if isinstance(value, str) and len(value) <= _NUMBER_TEXT_MAX and value.lower() in _NONFINITE_TEXT:
        return _NONFINITE_TEXT[value.lower()]
    return _float(value)


def _str(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(_int64(value))
    if isinstance(value, str):
        return _text(value)
    raise _Unfit("not text", "send a string, or declare the path with the type of what you send")


def _text(value: str) -> str:
    try:
        if len(value) <= TEXT_BYTES_MAX and len(value.encode()) <= TEXT_BYTES_MAX:
            return str.__str__(value)
    except UnicodeEncodeError:
        raise _Unfit("text with half a surrogate pair", "send valid Unicode") from None
    raise _Unfit(f"longer than {TEXT_BYTES_MAX} bytes", "send less, or keep it in the store and send its reference")


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        copy: list[Any] = _plain(value, [ITEMS_MAX], DEPTH_MAX)
        return copy
    raise _Unfit("not a list", "send a list; text is never split into one")


def _dict(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        copy: dict[str, Any] = _plain(value, [ITEMS_MAX], DEPTH_MAX)
        return copy
    raise _Unfit("not an object", "send an object with text keys")


def _untyped(value: object) -> Any:
    if value is None:
        raise _Unfit("null is not a value", "leave the reading out if there is none")
    return _plain(value, [ITEMS_MAX], DEPTH_MAX)


def _plain(value: object, left: list[int], depth: int) -> Any:
    """A deep copy made of plain data: later changes of the caller's object must not change the model.

    ``left`` holds the number of items still allowed in the whole value.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _int64(value)
    if isinstance(value, float):
        return _finite(float(value))
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, list | dict):
        raise _Unfit(
            f"a {type(value).__name__} is not plain data",
            "send null, bool, int, float, text, lists and objects of these",
        )
    left[0] -= len(value)
    if left[0] < 0 or depth == 0:
        raise _Unfit(
            f"more than {ITEMS_MAX} items or {DEPTH_MAX} levels",
            "send less, or keep it in the store and send its reference",
        )
    if isinstance(value, list):
        return [_plain(item, left, depth - 1) for item in value]
    return {_key(key): _plain(item, left, depth - 1) for key, item in value.items()}


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
    raise _Unfit(f"a key of type {type(key).__name__}", "use text keys only")


_CASTS: Final[dict[type | None, Callable[[object], Any]]] = {
    bool: _bool, int: _int, float: _float, str: _str, list: _list, dict: _dict, None: _untyped,
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """The rule of one path.

    ``type`` is bool, int, float, str, list, dict, or None (any of these, stays untyped). ``low`` and ``high``
    (inclusive) are for int and float, ``one_of`` for bool, int, float and str; ``unit`` is text for people.
    ``nonfinite`` lets a float be NaN, which has no place in a range, and an infinity, if the range has room for it.
    ``coalesce``: of the values that a live source sends at once, the last is enough; see ``twin.variable``.
    ``given``: it comes with the thing that it belongs to, and no author can declare it otherwise.
    ``floats`` is the closed range of floats that pass as they are: what most readings are can be asked for in one
    comparison. (inf, -inf): none.

    Raises:
        ModelError: the rule itself makes no sense.
    """

    path: str
    type: type | None
    low: float | None = None
    high: float | None = None
    one_of: tuple[Any, ...] | None = None
    unit: str = ""
    nonfinite: bool = False
    coalesce: bool = False
    given: bool = False
    floats: tuple[float, float] = field(init=False, repr=False, compare=False)
    _cast: Callable[[object], Any] = field(init=False, repr=False, compare=False)
    _limited: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_kind()
        object.__setattr__(self, "_cast", _any_float if self.nonfinite else _CASTS[self.type])
        object.__setattr__(self, "_limited", False)
        if self.one_of is not None:
            object.__setattr__(self, "one_of", tuple(map(self.check, self.one_of)))
        self._check_range()
        object.__setattr__(self, "_limited", any(limit is not None for limit in (self.low, self.high, self.one_of)))
        object.__setattr__(self, "floats", self._plain_floats())

    def _plain_floats(self) -> tuple[float, float]:
        if self.type is not float or self.one_of is not None:
            return math.inf, -math.inf
        most = math.inf if self.nonfinite else _FLOAT_MAX
        return -most if self.low is None else self.low, most if self.high is None else self.high

    def check(self, value: object) -> Any:
        """``value`` as the declared type.

        Raises:
            RuleViolation: it does not fit; the message names value, path, rule and next action.
        """
        try:
            value = self._cast(value)
            if self._limited:
                self._check_limits(value)
        except _Unfit as unfit:
            rule, action = unfit.args
            action = action.partition(", or declare")[0] if self.given else action
            raise self.violation(value, rule, action) from None
        return value

    def violation(self, value: object, rule: str, action: str) -> RuleViolation:
        """The error of ``value`` breaking ``rule`` at this path."""
        return RuleViolation(f"value {shown(value)} for {self.path}", rule, action)

    def _check_limits(self, value: Any) -> None:
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and value < self.low:
            raise _Unfit(
                f"at least {self.low}{unit}", "send a value in the range, or declare the path with a lower `low`"
            )
        if self.high is not None and value > self.high:
            raise _Unfit(
                f"at most {self.high}{unit}", "send a value in the range, or declare the path with a higher `high`"
            )
        if self.one_of is not None and value not in self.one_of:
            raise _Unfit(f"one of {', '.join(map(shown, self.one_of))}", "send one of these")

    def _check_kind(self) -> None:
        if self.type not in _CASTS:
            raise ModelError(
                f"type {self.type!r} of {self.path}",
                "a path holds plain data",
                "use bool, int, float, str, list, dict or None",
            )
        if self.nonfinite and (self.type is not float or self.one_of is not None):
            raise ModelError(
                f"nonfinite=True of {self.path}",
                "only a float without a choice can be NaN or infinite",
                "declare the path as float, without one_of",
            )
        if type(self.unit) is not str or len(self.unit) > 64 or not self.unit.isprintable():
            raise ModelError(
                f"unit {shown(self.unit)} of {self.path}",
                "a unit is printable text of at most 64 characters",
                "shorten it",
            )

    def _check_range(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if any(type(end) not in (int, float) or not math.isfinite(end) for end in ends) or ends != sorted(ends):
            raise ModelError(
                f"range {shown(self.low)} to {shown(self.high)} of {self.path}",
                "low <= high, both finite",
                "correct the range",
            )
        if ends and self.type not in (int, float):
            raise ModelError(f"range of {self.path}", "only int and float have one", "declare the path as int or float")
        if self.one_of is not None and (not self.one_of or self.type in (list, dict, None)):
            raise ModelError(
                f"choice of {self.path}",
                "a choice is of one or more bool, int, float or str",
                "declare its type and values",
            )
