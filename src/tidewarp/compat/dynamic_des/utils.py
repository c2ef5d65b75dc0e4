"""Durations as text, in the published units."""

from __future__ import annotations

import re
from typing import Final

from tidewarp.errors import RuleViolation

__all__ = ["MULTIPLIERS", "time_to_seconds"]

_UNITS: Final = (
    (1, "s sec secs second seconds"),
    (60, "m min mins minute minutes"),
    (3_600, "h hr hrs hour hours"),
    (86_400, "d day days"),
    (604_800, "w wk week weeks"),
    (2_592_000, "mo month months"),
    (31_536_000, "y yr year years"),
)
MULTIPLIERS: Final = {name: seconds for seconds, names in _UNITS for name in names.split()}
"""Unit -> seconds. A month has 30 days, a year 365."""
_FORM = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)


def time_to_seconds(time_str: str) -> float:
    """Seconds of a text such as "2.5 hours" or "1 week". Raises RuleViolation, a ValueError."""
    found = _FORM.fullmatch(time_str)
    unit = found[2].lower() if found else ""
    if found is None or unit not in MULTIPLIERS:
        raise RuleViolation(
            f"time {time_str!r:.80}", f"a number and one of {', '.join(MULTIPLIERS)}", 'write it as "8 hours"'
        )
    return float(found[1]) * MULTIPLIERS[unit]
