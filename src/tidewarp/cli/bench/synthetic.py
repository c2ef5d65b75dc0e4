"""Sources and sinks that cost as little as they can, so that a figure is that of the twin between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tidewarp.clocks import WallClock
from tidewarp.connect import Output, Raw, Readings, Refused, RunIdentity, Sink, Source
from tidewarp.connect.decoders import JsonMessages

__all__ = ["PATHS", "SENSORS", "Burst", "Columns", "Discard", "Moody", "sensors"]

SENSORS = 200
PATHS = [f"line.sensor_{n:03d}" for n in range(SENSORS)]


class Columns(Source):
    """A recorded source of ``batches``, from its beginning: a measurement is not resumed."""

    kind = name = "bench"

    def __init__(self, batches: Iterator[Readings]) -> None:
        self._batches = batches

    def decoder(self, epoch_ns: int) -> None:
        """It gives Readings."""

    async def open(self, positions: Mapping[int, int]) -> None:
        """It is there."""

    async def read(self, limit: int) -> Readings | None:
        """The next batch."""
        return next(self._batches, None)


def sensors(count: int, spacing_ns: int, batch: int = 8_192) -> Columns:
    """``count`` readings of the sensors at PATHS in turn, ``spacing_ns`` ticks apart."""

    def readings(rows: range) -> Readings:
        ticks = [(n + 1) * spacing_ns for n in rows]
        return Readings(0, rows[0], ticks, [PATHS[n % SENSORS] for n in rows], [n * 0.5 for n in rows])

    return Columns(readings(range(at, min(at + batch, count))) for at in range(0, count, batch))


class Burst(Source):
    """A live source that is silent for ``wait_s`` and then gives ``count`` messages as fast as they are taken."""

    kind = name = "burst"
    clock = "wall"

    _KINDS = 100 * SENSORS  # messages made beforehand

    def __init__(self, count: int, wait_s: float) -> None:
        self._count, self._wait_s, self._next = count, wait_s, 0
        self._payloads = [
            msgspec.json.encode({"path": PATHS[n % SENSORS], "value": float(n)}) for n in range(min(self._KINDS, count))
        ]

    def decoder(self, epoch_ns: int) -> JsonMessages:
        """Of JSON messages."""
        return JsonMessages(epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Let the twin come to rest first."""
        await asyncio.sleep(self._wait_s)

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """As many as are wanted."""
        if self._next >= self._count:
            return None
        rows = range(self._next, min(self._next + limit, self._count))
        self._next = rows.stop
        return [Raw(0, n, self._payloads[n % self._KINDS]) for n in rows]


class Discard(Sink):
    """A sink that keeps nothing but the tick of its last output."""

    kind = name = "discard"
    delivery = "once"
    last_tick = 0

    async def open(self, run: RunIdentity) -> str:
        """It holds nothing."""
        return ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Take the batch."""
        self.last_tick = batch[-1].tick
        return []


class Moody(Sink):
    """A sink that keeps the ids of what it took, needs ``pause_s`` for a batch, and is ``down`` between two wall seconds.

    These count from its first opening.
    """

    kind = name = "moody"
    delivery = "once"

    def __init__(self, pause_s: float = 0.0, down: tuple[float, float] = (0.0, 0.0)) -> None:
        self.ids: list[str] = []
        self.refusals = 0
        self._pause_s, self._down = pause_s, down
        self._clock = WallClock()
        self._since_s: float | None = None

    async def open(self, run: RunIdentity) -> str:
        """It says what it took last."""
        if self._since_s is None:
            self._since_s = self._clock.now()
        self._refuse_while_down()
        return self.ids[-1] if self.ids else ""

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Take the batch, in its own time."""
        self._refuse_while_down()
        await asyncio.sleep(self._pause_s)
        self.ids += [output.id for output in batch]
        return []

    def _refuse_while_down(self) -> None:
        if self._since_s is not None and self._down[0] <= self._clock.now() - self._since_s < self._down[1]:
            self.refusals += 1
            raise ConnectionError("it is down")
