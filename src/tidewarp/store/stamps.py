"""Stamps of records: when they were written, for people and retention. No order, cursor or rule reads one.

    hlc    Unix ms, 48 bits | counter, 16 bits        0: not stamped

A hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks", OPODIS 2014), in the form
that it has where a domain has one writer: the wall's ms with the counter at 0, or one more than the last stamp if that is
greater. So stamps ascend within a domain, whatever the wall does, and are ahead of it by no more than it has jumped back.
Where the counter is full it carries into the ms: after 65,536 records in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tidewarp.clocks.pacing import Clock
from tidewarp.codec.records import HLC_MAX

__all__ = ["stamp_ns", "stamps"]

_COUNTER_BITS: Final = 16
_NS_PER_MS: Final = 10**6


def stamps(clock: Clock, last: int) -> Iterator[int]:
    """The stamps of records that are written one after the other from now on, behind one with stamp ``last``.

    Without an end; at HLC_MAX, where only a wall clock that is wrong leads, they rise no further.
    """
    while True:
        now = max(clock.unix_ns(), 0) // _NS_PER_MS << _COUNTER_BITS
        last = min(max(now, last + 1), HLC_MAX)
        yield last


def stamp_ns(hlc: int) -> int:
    """The Unix ns, to the ms, that a stamp speaks of."""
    return (hlc >> _COUNTER_BITS) * _NS_PER_MS
