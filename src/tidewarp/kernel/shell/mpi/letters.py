"""Letters of the Python tier as bytes, big-endian: whatever passes from rank to rank has its canonical form."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tidewarp.errors import RangeError
from tidewarp.kernel.context import Context
from tidewarp.kernel.model import Model
from tidewarp.kernel.optimistic.entries import POSITIVE, Letter
from tidewarp.kernel.optimistic.saving import ObjectsExecutor
from tidewarp.kernel.records import Event, pack_event, unpack_event
from tidewarp.kernel.shell.mpi.world import named_error, rebuilt_error

__all__ = ["Broken", "RankExecutor", "pack_letter", "unpack_letters"]

_HEAD = struct.Struct(">BHHQqQqQI")
_KEY = struct.Struct(">qQqqQ")
_BROKEN = 0x80  # in the kind: the message has no bytes, its error comes in its place


class Broken(NamedTuple):
    """Stands for a message with a number that its kind cannot hold: the event of it fails, if it is ever committed."""

    error: bytes


class RankExecutor(ObjectsExecutor):
    """Handlers of this rank's LPs; the event of a :class:`Broken` message fails."""

    def execute(self, event: Event) -> Context:
        """See :class:`~tidewarp.kernel.optimistic.entries.Executor`."""
        if type(event[5]) is Broken:
            raise rebuilt_error(event[5].error)
        return super().execute(event)


def pack_letter(model: Model, letter: Letter) -> bytes:
    """A letter's bytes: kind, source, target, number, time, generation, those of the sender, length of the event's record, record."""
    kind, record = letter.kind, b""
    if letter.event is not None:
        try:
            record = pack_event(model, letter.event)
        except RangeError as error:
            kind, record = kind | _BROKEN, _KEY.pack(*letter.event[:5]) + named_error(error)
    return _HEAD.pack(kind, *letter[1:6], *letter.sent, len(record)) + record


def unpack_letters(model: Model, data: memoryview) -> Iterator[Letter]:
    """The letters of a batch.

    Raises:
        CodecError: no letters of this model.
    """
    at = 0
    while at < len(data):
        kind, source, target, number, time, generation, sent_time, sent_generation, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        record = data[at : at + size]
        at += size
        event: Event | None = None
        if kind & _BROKEN:
            event = (*_KEY.unpack_from(record), Broken(bytes(record[_KEY.size :])))
        elif kind == POSITIVE:
            event = unpack_event(model, record)
        yield Letter(kind & ~_BROKEN, source, target, number, time, generation, event, (sent_time, sent_generation))
