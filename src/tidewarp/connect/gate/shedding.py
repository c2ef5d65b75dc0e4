"""Sources that shed: what waits in their room, and what was let go there, on its way to the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tidewarp.connect.contract import Raw, Readings
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.messages import Shed
from tidewarp.connect.gate.state import SourceState
from tidewarp.errors import OperatorError

__all__ = ["admit_waiting", "messages_of"]


def admit_waiting(
    source: SourceState, drain: Callable[[SourceState, Sequence[Raw]], list[Batch]], *, all_of_them: bool
) -> Iterator[Batch]:
    """A batch ahead, so that what waits behind it can still be let go; or ``all_of_them``."""
    room, batch = source.room, source.policy.batch
    while room and (all_of_them or (source.outstanding < batch and not source.full)):
        raws, gone = room.take(batch)
        batches = drain(source, raws) if raws else []
        if gone.count:
            batches.append(Batch())
            batches[-1].shed = Shed({"shed": gone.count}, gone.positions)
            for partition, offset in gone.positions.items():
                source.positions[partition] = max(offset, source.positions.get(partition, -1))
            batches[-1].closed(source.positions)
        yield from batches


def messages_of(source: SourceState, messages: Sequence[Raw] | Readings) -> Sequence[Raw]:
    """What may be let go one by one. Raises OperatorError for Readings."""
    if isinstance(messages, Readings):
        value = f"source {source.name!r}: full={source.policy.full!r}, and it gives Readings"
        raise OperatorError(value, "only messages are let go", "connect it with full='block'")
    return messages
