"""What a site says to others of what is wrong with itself: the record or artifact that it is about, never a local path."""

from __future__ import annotations

import re
from typing import NamedTuple

from tidewarp.errors import TidewarpError

__all__ = ["Fault", "fault_of"]

_PLACE = re.compile(
    r"(record|artifact|block|domain) [0-9a-f]+( of (domain )?[0-9a-f]+)?|[0-9a-f]{68}"
    r"|tables? [a-z_]+( and [a-z_]+)?(, record [0-9]+)?|page [0-9]+"
)
_SITE = "the store of this site"
_RULE = "it cannot be read or written"
_LINE_MAX = 500


class Fault(NamedTuple):
    """``value`` and ``rule`` for a stranger; ``line`` for the operator, with the path, in printable characters, at most 500."""

    value: str
    rule: str
    line: str


def fault_of(error: TidewarpError) -> Fault:
    """The fault that ``error`` of the own store is.

    The errors of the store begin with the path of its database, and end with the place in it: only a place of a known
    form goes out, and a rule only if it holds no path.
    """
    place = error.value.rpartition(": ")[2]
    value = place if _PLACE.fullmatch(place) else _SITE
    rule = _RULE if "/" in error.rule or "\\" in error.rule else error.rule
    plain = "".join(one if one.isprintable() else "?" for one in str(error)[: _LINE_MAX + 1])
    return Fault(value, rule, plain if len(plain) <= _LINE_MAX else f"{plain[: _LINE_MAX - 1]}…")
