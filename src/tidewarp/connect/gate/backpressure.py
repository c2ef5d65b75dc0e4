"""Which sources are read, and how far ahead of the clock: their queues are bounded."""

from __future__ import annotations

from collections.abc import Iterable

from tidewarp.connect.gate.messages import Read
from tidewarp.connect.gate.state import QUEUE_BYTES_MAX, SourceState
from tidewarp.errors import OperatorError

__all__ = ["UNDER_WAY_BATCHES", "reads", "refuse_deadlock"]

UNDER_WAY_BATCHES = 8
"""Of one source on their way to the journal: what the journal cannot take now is not read, so that it is durable soon."""


def reads(sources: Iterable[SourceState], now_s: float, floor: int, limit: int) -> list[Read]:
    """Read a source that holds the clock back until its queue is full; any other one a batch ahead."""
    reads: list[Read] = []
    for source in sources:
        if not source.open or source.reading or source.ended:
            continue
        policy = source.policy
        room = policy.queue - source.outstanding
        holds_the_clock = source.watermark(now_s) <= floor < limit
        if source.room is not None:
            room = policy.batch
        is_full = source.full or source.under_way >= UNDER_WAY_BATCHES * policy.batch
        if (source.room is not None or not is_full) and (
            holds_the_clock or not policy.wait or source.outstanding < policy.batch
        ):
            source.reading = True
            source.listen(now_s, on=True)
            reads.append(Read(source.name, min(room, policy.batch)))
    return reads


def refuse_deadlock(sources: Iterable[SourceState], now_s: float, floor: int, limit: int) -> None:
    """Raise OperatorError for a full queue of the very source that the clock waits for: with nothing on its way, it stays full."""
    for source in sources:
        stuck = source.full and not source.reading
        if stuck and source.open and source.watermark(now_s) <= floor < limit:
            raise OperatorError(
                f"source {source.name!r}: {source.outstanding} inputs ({source.long_bytes} bytes in long ones) wait for its "
                "watermark",
                f"its queue holds {source.policy.queue} and {QUEUE_BYTES_MAX >> 20} MiB of long ones, "
                "and must cover the disorder bound",
                "raise connect(queue=...) or lower connect(disorder=...)",
            )
