"""Time as this package counts it, and the edges where people and files write it otherwise.

A *tick* is one nanosecond of virtual time since the twin's epoch, an int64. An *instant* is a moment of
the calendar as Unix nanoseconds (no leap seconds). Nothing here reads a clock, a locale or ``TZ``.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NoReturn, TypeAlias

from tidewarp.errors import CodecError, InternalError, OperatorError

__all__ = [
    "TICKS_PER_SECOND",
    "TICK_MAX",
    "TICK_MIN",
    "Duration",
    "following",
    "format_instant",
    "in_seconds",
    "parse_instant",
    "seconds",
    "ticks",
]

TICKS_PER_SECOND = 10**9
TICK_MIN, TICK_MAX = -(2**63), 2**63 - 1
"""The range of int64. TICK_MAX is also "never": a tick that no clock reaches."""

Duration: TypeAlias = str | int | float | timedelta
"""Seconds as a number, or text such as ``"2.5 h"``, or a timedelta."""

_TEXT_MAX = 64  # characters: far more than any time needs, little enough to parse whatever it holds
_UNIT_TICKS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 604_800 * 10**9,
}
_NUMBER_FORM = r"(?=[+-]?\.?\d)([+-]?\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,2}))?"
_NUMBER = re.compile(_NUMBER_FORM, re.ASCII)
_DURATION = re.compile(rf"\s*{_NUMBER_FORM}\s*({'|'.join(_UNIT_TICKS)})\s*", re.ASCII)
# A grammar of our own: datetime.fromisoformat drops digits after the sixth, and which other forms it takes
# (24:00, any separator) differs between Python versions, so one file would give two runs.
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)?"
    r"(?:(Z)|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?)?",
    re.ASCII,
)
_COMMON_LEN = len("2013-12-02 21:15:00")
_HOUR = re.compile(r"\d{4}-\d\d-\d\d[T ](?:[01]\d|2[0-3])", re.ASCII)
_WITHIN_HOUR = re.compile(r":([0-5]\d):([0-5]\d)", re.ASCII)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ticks(duration: Duration) -> int:
    """``duration`` as int64 ticks (ns of virtual time), exact but for the last bit of a float.

    A bare number is seconds; text is a number and one of ``ns us ms s min h d w``. A float is split into whole
    seconds and the rest, which is exact up to 2**23 s (97 days), where ``round(s * 1e9)`` is not.
    Negative durations are legal here; who needs a positive one says so.

    Raises:
        OperatorError: bool, NaN, infinity, another type, an unknown unit, text that is not a whole
            number of ns, or a result beyond int64.
    """
    if isinstance(duration, float) and math.isfinite(duration):
        whole = int(duration)
        tick = whole * TICKS_PER_SECOND + round((duration - whole) * TICKS_PER_SECOND)
    elif isinstance(duration, int) and not isinstance(duration, bool):
        tick = duration * TICKS_PER_SECOND
    elif isinstance(duration, str):
        tick = _ticks_of_text(duration)
    elif isinstance(duration, timedelta):
        tick = duration // timedelta(microseconds=1) * 1_000
    else:
        raise OperatorError(
            f"duration {duration!r}",
            "a duration is a finite number of seconds, text with a unit, or a timedelta",
            'give e.g. 90, 0.25, "2.5 h" or timedelta(minutes=5)',
        )
    if not TICK_MIN <= tick <= TICK_MAX:
        raise OperatorError(
            f"duration {_shown(duration)}",
            "time is int64 nanoseconds: at most about 292 years",
            "give a shorter duration",
        )
    return tick


def _ticks_of_text(text: str) -> int:
    match = _DURATION.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if match is None:
        raise OperatorError(
            f"duration {_shown(text)}",
            f"text is a number and one of {' '.join(_UNIT_TICKS)}",
            'write e.g. "8h", "2.5 h" or "250 ms"',
        )
    whole, fraction, exponent, unit = match.groups()
    tick = _scaled(whole, fraction, exponent, _UNIT_TICKS[unit])
    if tick is None:
        raise OperatorError(
            f"duration {_shown(text)}", "time is counted in whole nanoseconds", "drop the digits below 1 ns"
        )
    return tick


def _scaled(whole: str, fraction: str | None, exponent: str | None, unit: int) -> int | None:
    """Decimal digits times ``unit`` in exact integers; None where the product is not whole."""
    fraction = fraction or ""
    product = int(whole + fraction) * unit
    power = int(exponent or 0) - len(fraction)
    scale: int = 10 ** abs(power)
    if power >= 0:
        return product * scale
    quotient, rest = divmod(product, scale)
    return None if rest else quotient


def following(tick: int) -> int:
    """The first tick that is later than ``tick`` in float seconds too: ``tick + 1`` up to 104 days, then a few more."""
    later = tick + 1
    while in_seconds(later) <= in_seconds(tick):
        later += 1
    return later


def seconds(value: float) -> int:
    """``value`` seconds as ticks: how a kernel model, which counts in ticks, writes its constants.

    Raises:
        OperatorError: as :func:`ticks`.
    """
    return ticks(value)


def in_seconds(tick: int) -> float:
    """``tick`` (ns) as the nearest float number of seconds: SimPy's clock, and displays."""
    return tick / TICKS_PER_SECOND


def parse_instant(text: str, zone: tzinfo) -> int:
    """The moment that outside data names, as Unix ns (int64), exact.

    Accepted: an ISO 8601 date-time (``2013-12-02 21:15:00``, ``…T21:15:00.123456789+01:00``, ``…Z``; extended
    form, seconds may be left out, at most nine fraction digits), a date alone (its midnight), or a plain number: Unix seconds.
    ``zone`` is the clock of a date-time without offset. A local time that occurs twice is the first of the
    two; one that a clock change skips is read with the offset before the change (PEP 495, fold 0).

    Raises:
        CodecError: any other text, a date that does not exist, a moment outside int64 ns (1678 to 2261).
        OperatorError: a zone that has no offset for a time without one.
    """
    if len(text) == _COMMON_LEN:
        hour_ns, rest_ns = _hour_ns(text[:13]), _within_hour_ns(text[13:])
        if hour_ns is not None and rest_ns is not None:
            ns = hour_ns + rest_ns
            return ns if zone is UTC else ns - _offset_ns(ns, zone)
    match = _INSTANT.fullmatch(text)
    if match is None:
        ns = _unix_number(text)
    else:
        day, hour, minute, second, fraction, utc, sign, offset_h, offset_min = match.groups()
        ns = _day_ns(day) + (int(hour or 0) * 3_600 + int(minute or 0) * 60 + int(second or 0)) * TICKS_PER_SECOND
        if sign:
            east_s = int(offset_h) * 3_600 + int(offset_min or 0) * 60
            ns -= (east_s if sign == "+" else -east_s) * TICKS_PER_SECOND
        elif utc is None and zone is not UTC:
            ns -= _offset_ns(ns, zone)
        if fraction:
            ns += int(fraction.ljust(9, "0"))
    if not TICK_MIN <= ns <= TICK_MAX:
        _refuse_instant(
            text,
            "an instant is int64 Unix nanoseconds: 1678 to 2261",
            "check the year; a number is in seconds, not in milliseconds",
        )
    return ns


def _unix_number(text: str) -> int:
    match = _NUMBER.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if match is None:
        _refuse_instant(
            text,
            "an instant is an ISO 8601 date-time or a number of Unix seconds",
            "write e.g. 2013-12-02T21:15:00Z or 1386018900",
        )
    whole, fraction, exponent = match.groups()
    ns = _scaled(whole, fraction, exponent, TICKS_PER_SECOND)
    if ns is None:
        _refuse_instant(text, "an instant is a whole number of nanoseconds", "give at most nine fraction digits")
    return ns


# The common form, a row of a log file, is two look-ups: files have few hours, an hour has 3600 seconds.


@lru_cache(maxsize=256)
def _hour_ns(hour: str) -> int | None:
    """``YYYY-MM-DD HH`` as Unix ns; None for any other text and near the ends of int64, which take the long way."""
    if _HOUR.fullmatch(hour) is None:
        return None
    ns = _day_ns(hour[:10]) + int(hour[11:]) * _UNIT_TICKS["h"]
    return ns if abs(ns) < TICK_MAX - 2 * _UNIT_TICKS["d"] else None  # room for the hour and any offset


@lru_cache(maxsize=3_600)
def _within_hour_ns(rest: str) -> int | None:
    """``:MM:SS`` as ns; None for any other text."""
    match = _WITHIN_HOUR.fullmatch(rest)
    return None if match is None else (int(match[1]) * 60 + int(match[2])) * TICKS_PER_SECOND


@lru_cache(maxsize=64)
def _day_ns(day: str) -> int:
    """Midnight of ``day`` (``YYYY-MM-DD``) in UTC as Unix ns. Rows of a file share their days."""
    try:
        return (date.fromisoformat(day).toordinal() - _UNIX_EPOCH.toordinal()) * _UNIT_TICKS["d"]
    except ValueError:
        _refuse_instant(day, "the calendar has no such day", "correct the date")


def _offset_ns(local_ns: int, zone: tzinfo) -> int:
    """How far ``zone`` is east of UTC when its clocks show ``local_ns``."""
    steady_ns = _steady_offset_ns(zone, local_ns // _UNIT_TICKS["h"])
    return _offset_at_ns(zone, local_ns // TICKS_PER_SECOND) if steady_ns is None else steady_ns


@lru_cache(maxsize=256)
def _steady_offset_ns(zone: tzinfo, hour: int) -> int | None:
    """The offset all through a local hour, counted from 1970; None where it changes within."""
    first_ns = _offset_at_ns(zone, hour * 3_600)
    return first_ns if first_ns == _offset_at_ns(zone, hour * 3_600 + 3_599) else None


def _offset_at_ns(zone: tzinfo, local_s: int) -> int:
    local = datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=local_s)  # such sums stay on the zone's own clock
    east = local.utcoffset()
    if east is None:
        raise OperatorError(f"zone {zone!r}", f"it has no offset for {local.date()}", "name a zone that has one")
    return east // timedelta(microseconds=1) * 1_000


def format_instant(unix_ns: int) -> str:
    """Unix ns (int64) as ISO 8601 in UTC, floored to milliseconds: ``2013-12-02T21:15:00.000+00:00``."""
    if not TICK_MIN <= unix_ns <= TICK_MAX:
        raise InternalError(f"instant {_shown(unix_ns)}", "an instant is int64 Unix nanoseconds", "please report this")
    return (_UNIX_EPOCH + timedelta(milliseconds=unix_ns // 10**6)).isoformat(timespec="milliseconds")


def _refuse_instant(text: str, rule: str, action: str) -> NoReturn:
    raise CodecError(f"instant {_shown(text)}", rule, action)


def _shown(value: object) -> str:
    """``repr`` short enough for a message, whatever came in."""
    if isinstance(value, int) and value.bit_length() > 256:  # repr refuses more than 4300 digits
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value[: _TEXT_MAX + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= 2 * _TEXT_MAX else shown[: 2 * _TEXT_MAX] + "…"
