"""What the suite for sources does with messages: one form for Raw and Readings, and a model that shows all of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

import simpy

from tidewarp.codec import unpack
from tidewarp.connect.contract import Decoder, Raw, Readings, Source, Update
from tidewarp.errors import PeerError
from tidewarp.process import DynamicValue
from tidewarp.twin import Twin

__all__ = [
    "Finite",
    "Meaning",
    "Rows",
    "as_raws",
    "by_partition",
    "connect_all",
    "live",
    "meaning",
    "positions",
    "refuse_unsound",
]

Meaning = tuple[int | None, dict[str, Any]]
"""What a message says: tick, None if it does not say, and path -> value."""


class Rows:
    """The decoder of :meth:`Readings.raw`."""

    def decode(self, raw: Raw) -> Update:
        """What the row was made of."""
        tick, path, value = unpack(raw.payload)
        return Update(tick, ((path, value),))


class Finite:
    """A source that waits for ever, ended behind ``raws``: a run on it comes to an end."""

    def __init__(self, source: Source, raws: Sequence[Raw]) -> None:
        self._source, self._raws, self.name = source, raws, source.name
        self._left = len(raws)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def open(self, positions: Mapping[int, int]) -> None:
        """As the source; what is left is counted."""
        self._left = sum(raw.offset > positions.get(raw.partition, -1) for raw in self._raws)
        await self._source.open(positions)

    async def read(self, limit: int) -> Sequence[Raw] | Readings | None:
        """As the source; None behind the last."""
        part = await self._source.read(limit) if self._left > 0 else None
        self._left -= 0 if part is None else len(as_raws(part))
        return part


def as_raws(part: Sequence[Raw] | Readings) -> list[Raw]:
    """What a read returned as messages, columns too."""
    return [part.raw(k) for k in range(len(part.ticks))] if isinstance(part, Readings) else list(part)


def by_partition(raws: Sequence[Raw]) -> dict[int, list[Raw]]:
    """The messages of each partition, in their order: which partition comes first is nobody's promise."""
    parts: dict[int, list[Raw]] = {}
    for raw in raws:
        parts.setdefault(raw.partition, []).append(raw)
    return parts


def positions(raws: Sequence[Raw]) -> dict[int, int]:
    """Partition -> last offset."""
    return {raw.partition: raw.offset for raw in raws}


def meaning(decoder: Decoder, raw: Raw) -> Meaning | None:
    """The message decoded; None if its decoder refuses it."""
    try:
        update = decoder.decode(raw)
    except PeerError:
        return None
    return update.tick, dict(update.changes)


def refuse_unsound(decoder: Decoder, raw: Raw) -> None:
    """Fail unless the message is decoded to what a record can hold, or refused with a PeerError."""
    try:
        update = decoder.decode(raw)
    except PeerError:
        return
    except Exception as error:
        told = f"{raw!r:.200}: the decoder raised {type(error).__name__}: {error!s:.200}; raise Undecodable"
        raise AssertionError(told) from error
    is_tick = update.tick is None or (type(update.tick) is int and -(2**63) <= update.tick < 2**63)
    assert is_tick, f"{raw!r:.200}: tick {update.tick!r:.40}; a tick is int64 ns, raise Undecodable for what is none"
    assert update.changes, f"{raw!r:.200}: an update sets at least one path; raise Undecodable"
    assert all(type(path) is str for path, _ in update.changes), f"{raw!r:.200}: a path is text; raise Undecodable"


async def live(
    source: Source,
    behind: Mapping[int, int],
    limit: int,
    *,
    left: int | None = None,
    epoch_ns: int = 0,
    confirming: bool = False,
) -> tuple[list[Raw], Decoder]:
    """One life of ``source``: its messages ``behind`` these positions, and their decoder.

    ``left``: read so many and no more, of a source that waits; None: to its end. Fails where a read breaks its rule.
    """
    raws: list[Raw] = []
    try:
        await source.open(behind)
        decoder = source.decoder(epoch_ns)
        while left is None or len(raws) < left:
            if confirming:
                await source.confirm(positions(raws))
            part = await source.read(limit)
            if part is None:
                assert left is None, "a source that waits never says None"
                assert await source.read(limit) is None, "after None there is only None"
                break
            is_columns = isinstance(part, Readings)
            assert is_columns == (decoder is None), "decoder() is None if, and only if, read() returns Readings"
            some = as_raws(part)
            told = f"read({limit}) returned {len(some)} messages: wait for one, or end with None"
            assert 1 <= len(some) <= limit, told
            raws += some
        if confirming:
            await source.confirm(positions(raws))
            await source.confirm(positions(raws))
    finally:
        await source.close()
    return raws, decoder or Rows()


def connect_all(twin: Twin, source: Source, times: Sequence[int], paths: set[str], *, narrowly: bool) -> None:
    """Wire ``source`` so that no message of these event times (ns, in their order) is late.

    Narrowly, no more of them wait than that takes, so that a stop finds the source half read: right for one partition.
    The model publishes every change of ``paths`` and of those that the source knows.
    """
    late_ns = max((max(times[: n + 1]) - time for n, time in enumerate(times)), default=0)
    waiting = [sum(time >= max(times[: n + 1]) - late_ns for time in times[: n + 1]) for n in range(len(times))]
    for path in sorted({*source.paths(), *paths}):
        twin.process(_publish_changes(twin, path, twin.variable(path)))
    twin.connect(source, disorder=f"{late_ns} ns", queue=1 + (max(waiting, default=0) if narrowly else len(times)))


def _publish_changes(twin: Twin, path: str, variable: DynamicValue) -> Generator[simpy.Event, Any, None]:
    while True:
        change = yield variable.wait_for_change()
        twin.publish_event(path, {"new": cast("Any", change).new})
