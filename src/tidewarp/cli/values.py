"""Values as the commands take them and as JSON can say them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

import click

from tidewarp.errors import CodecError, InternalError, OperatorError
from tidewarp.units import Duration, parse_instant, ticks

__all__ = ["WallSeconds", "parse_time", "plain"]

_WALL_S_MAX = 31_536_000  # a year
_DATE = re.compile(r"\d{4}-\d")


class WallSeconds(click.FloatRange):
    """The type of an option: wall seconds, from 0 to a year; which ``FloatRange`` does not ask of NaN."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0, _WALL_S_MAX, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds. Raises click.BadParameter."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r:.40} is no number of seconds", param, ctx)
        return seconds


def plain(value: Any) -> Any:
    """``value`` in JSON's types: NaN and infinities are null, bytes hexadecimal, paths text, tuples arrays.

    Text that is no Unicode (a file name of stray bytes) has these escaped. Raises InternalError for any other type.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return value.hex()
        case PurePath():
            return plain(str(value))
    raise InternalError(f"a value of type {type(value).__name__}", "has no form in JSON", "please report it")


def parse_time(text: str) -> Duration | datetime:
    """An instant if ``text`` is an ISO date, else a duration since the epoch (a bare number is seconds).

    Raises:
        OperatorError: neither, or beyond what the clock can count.
    """
    if ":" in text or _DATE.match(text):
        try:
            unix_ns = parse_instant(text, UTC)
        except CodecError as error:
            raise OperatorError(f"time {text!r:.80}", error.rule, "give 8h, 3600 or 2014-01-07T02:00:00Z") from error
        if unix_ns % 1_000:
            raise OperatorError(
                f"time {text!r:.80}", "an instant has microseconds at most", "leave the last digits out"
            )
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=unix_ns // 1_000)
    try:
        duration: Duration = float(text)
    except ValueError:
        duration = text
    ticks(duration)  # refuses what is no time before anything is begun
    return duration
