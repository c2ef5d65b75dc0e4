"""What a GVT round made final: from every rank to rank 0, and there, in key order, into the ledger."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from heapq import merge
from typing import Any, NamedTuple

from tidewarp.errors import ModelError, TidewarpError
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import Event, framed, pack_event, split_frames, unpack_event
from tidewarp.kernel.shell.mpi.world import named_error, rebuilt_error
from tidewarp.kernel.trace import Ledger

__all__ = ["Batch", "Final", "Merger", "pack_batch"]

_HEAD = struct.Struct(">QQQQ")
_KEY = struct.Struct(">qQqqQ")
_ADD = struct.Struct(">I16s")
Key = tuple[int, int, int, int, int]


class Final(NamedTuple):
    """A final event and what it did; with ``error`` it is the last of its rank, and not committed."""

    event: Event
    emitted: Sequence[Any] = ()
    adds: Sequence[tuple[int, int]] = ()
    error: TidewarpError | None = None


class Effect(NamedTuple):
    """What the event of ``key`` put out and added, or why it failed."""

    key: Key
    adds: list[tuple[int, int]]
    emitted: list[bytes]
    error: bytes


class Batch(NamedTuple):
    """What one rank committed in round ``number``: records of all events if they are traced, effects of those that have some."""

    number: int
    events: int
    records: list[tuple[Key, bytes]]
    effects: list[Effect]


def pack_batch(model: Model, number: int, finals: Iterable[Final], tracing: bool) -> bytes:
    """A batch as bytes; it ends before the first event that failed, or whose message has a number out of its kind's range."""
    records: list[bytes] = []
    effects: list[bytes] = []
    count = 0
    for final in finals:
        try:
            if final.error is not None:
                raise final.error
            emitted = [pack_event(model, (*final.event[:5], message)) for message in final.emitted]
            if tracing:
                records.append(pack_event(model, final.event))
        except ModelError as error:
            effects.append(_pack_effect(final.event[:5], (), (), named_error(error)))
            break
        if emitted or final.adds:
            effects.append(_pack_effect(final.event[:5], final.adds, emitted, b""))
        count += 1
    parts = framed(records), framed(effects)
    return _HEAD.pack(number, count, *map(len, parts)) + b"".join(parts)


def _pack_effect(key: Key, adds: Sequence[tuple[int, int]], emitted: Sequence[bytes], error: bytes) -> bytes:
    added = b"".join(_ADD.pack(index, n.to_bytes(16, "big", signed=True)) for index, n in adds)
    return _KEY.pack(*key) + framed((added, error, *emitted))


def unpack_batch(data: bytes | bytearray) -> Batch:
    """The batch of :func:`pack_batch`."""
    number, count, traced, effects = _HEAD.unpack_from(data)
    view = memoryview(data)[_HEAD.size :]
    records = [(_KEY.unpack_from(record), bytes(record)) for record in split_frames(bytes(view[:traced]))]
    return Batch(
        number, count, records, [_effect(part) for part in split_frames(bytes(view[traced : traced + effects]))]
    )


def _effect(part: memoryview) -> Effect:
    added, error, *emitted = (bytes(frame) for frame in split_frames(bytes(part[_KEY.size :])))
    adds = [(index, int.from_bytes(n, "big", signed=True)) for index, n in _ADD.iter_unpack(added)]
    return Effect(_KEY.unpack_from(part), adds, emitted, error)


class Merger:
    """Rank 0's end: holds batches until a round has come from every rank, then commits it as far as outputs fit."""

    def __init__(self, model: Model, ledger: Ledger, ranks: int) -> None:
        self.rounds = 0  # taken from all ranks
        self._model = model
        self._ledger = ledger
        self._ranks = ranks
        self._arrived: dict[int, list[Batch]] = {}
        self._records: list[tuple[Key, bytes]] = []  # taken, in key order, and not committed
        self._effects: list[Effect] = []
        self._count = 0

    def take(self, data: bytes | bytearray) -> None:
        """A batch has arrived."""
        batch = unpack_batch(data)
        batches = self._arrived.setdefault(batch.number, [])
        batches.append(batch)
        if len(batches) == self._ranks:
            del self._arrived[batch.number]
            self.rounds += 1
            self._records += merge(*(one.records for one in batches))
            self._effects += sorted((effect for one in batches for effect in one.effects), key=_key)
            self._count += sum(one.events for one in batches)

    @property
    def is_empty(self) -> bool:
        """Everything that was taken is committed."""
        return not (self._records or self._effects or self._count)

    def commit(self) -> None:
        """Commit what was taken, until the ledger is full.

        Raises:
            ModelError: the error of the first event that failed; all before it is committed.
        """
        done = 0
        for effect in self._effects:
            if effect.error:
                self._release(effect.key)
                raise rebuilt_error(effect.error)
            if self._ledger.full:
                break
            self._ledger.add(effect.adds)
            if effect.emitted:
                events = [unpack_event(self._model, record) for record in effect.emitted]
                self._ledger.emit(events[0], [event[5] for event in events])
            done += 1
        rest = self._effects[done:]
        del self._effects[:done]
        if rest:
            self._release(rest[0].key)
        else:
            self._release(None)

    def _release(self, end: Key | None) -> None:
        """Trace the records before the key ``end``; None: all."""
        at = len(self._records) if end is None else bisect_left(self._records, (end, b""))
        ready = self._records[:at]
        del self._records[:at]
        if self._ledger.tracing:
            self._ledger.events.extend([key[0] for key, _ in ready], [record for _, record in ready])
            count = at
        else:
            count = self._count if end is None else 0
        self._count -= count
        self._ledger.committed += count


def _key(effect: Effect) -> Key:
    return effect.key
