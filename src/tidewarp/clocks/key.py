"""The event key: one total order, equal in every engine, on every number of workers, in every life."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from tidewarp.errors import InternalError, PeerError
from tidewarp.units import TICK_MAX, TICK_MIN

__all__ = ["EventKey", "input_key"]

_RANKS = 2**31
_PARTITIONS = 2**16
_OFFSETS = 2**48


class EventKey(NamedTuple):
    """Where an event stands among all others: keys compare as tuples, field by field, and no two are equal.

    Time comes first because causes precede effects. Generation orders a chain of zero-delay sends inside one
    tick (a child has its parent's + 1), so a child is always greater than its parent. The destination is next,
    because only the order at one destination matters to a model. Source and the source's own count break the
    remaining ties. All five are facts of the model or of the input: nothing of arrival, thread or
    memory is in the key, and that is why every engine commits the same sequence.
    """

    time: int  # tick, int64
    generation: int  # 0, or the parent's + 1 after a zero-delay send
    dst: int  # LP
    src: int  # LP; below 0 an external source, see `input_key`
    src_seq: int  # U64, ascending in `src`


def input_key(tick: int, rank: int, partition: int, offset: int, dst: int = 0) -> EventKey:
    """The key of an external input at ``tick`` for LP ``dst``.

    ``rank`` (order of `connect`, below 2**31) becomes a source number below every LP's; ``partition`` (16 bits)
    and ``offset`` (48 bits) become the sequence number. So inputs of one tick sort by
    (rank, partition, offset), and before what the model sends at that tick: never by arrival.

    Raises:
        PeerError: a partition or offset that does not fit.
        InternalError: a tick outside int64 or a rank that does not fit.
    """
    if not (0 <= partition < _PARTITIONS and 0 <= offset < _OFFSETS):
        raise PeerError(
            f"partition {partition}, offset {offset}",
            "a position is a partition below 2**16 and an offset below 2**48",
            "connect the source with smaller numbers, or number its messages anew",
        )
    if not (TICK_MIN <= tick <= TICK_MAX and 0 <= rank < _RANKS):
        _refuse_stamp(tick, rank)
    return EventKey(tick, 0, dst, rank - _RANKS, partition << 48 | offset)


def _refuse_stamp(tick: int, rank: int) -> NoReturn:
    raise InternalError(f"tick {tick}, rank {rank}", "a tick is int64 and a rank is below 2**31", "please report this")
