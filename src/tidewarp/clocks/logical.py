"""Logical clocks: what happened before what, without any physical time.

* Lamport: Time, Clocks, and the Ordering of Events in a Distributed System, CACM 21(7), 1978.
* Vector clocks: Fidge 1988, Mattern: Virtual Time and Global States of Distributed Systems, 1989.
* Hybrid: Kulkarni et al.: Logical Physical Clocks, OPODIS 2014.

None of them orders the events of a kernel: :class:`~tidewarp.clocks.key.EventKey` does. They are state of whoever
holds them; in an engine a clock is part of a node's state and is restored with it.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tidewarp.errors import RangeError
from tidewarp.units import TICK_MAX

__all__ = ["HybridClock", "HybridTime", "LamportClock", "VectorClock", "checked_int"]

Counts: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def checked_int(what: str, value: Any, least: int = 0, most: int = TICK_MAX) -> int:
    """``value`` as an int in [least, most]; NumPy's integers are welcome, bools and floats are not.

    Raises:
        RangeError: anything else; ``what`` names it.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            whole = operator.index(value)
        except TypeError:
            pass
        else:
            if least <= whole <= most:
                return whole
    unit = "nanoseconds" if what.endswith("_ns") else "units"
    raise RangeError(f"{what} {value!r}", f"it is an int of whole {unit} from {least} to {most}", f"correct {what}")


class LamportClock:
    """A counter that never decreases by itself: of two causally related events the later has the greater stamp."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 0

    def __repr__(self) -> str:
        return f"LamportClock(time={self.time})"

    def tick(self) -> int:
        """Count a local event; returns its stamp."""
        self.time += 1
        return self.time

    def send(self) -> int:
        """Count the sending of a message; returns the stamp to send with it."""
        return self.tick()

    def receive(self, remote_time: int) -> int:
        """Count the receipt of a message that carries ``remote_time``; returns a stamp above both clocks.

        Raises:
            RangeError: a stamp that is no int >= 0.
        """
        self.time = max(self.time, checked_int("remote_time", remote_time)) + 1
        return self.time


class VectorClock:
    """One count for each of ``num_nodes`` nodes: tells before from after, and both from neither.

    ``clock`` is int64, shape (num_nodes,); this clock counts for ``node_id``.

    Raises:
        RangeError: no nodes, or a ``node_id`` that is none of them.
    """

    __slots__ = ("clock", "node_id", "num_nodes")

    def __init__(self, node_id: int, num_nodes: int) -> None:
        self.num_nodes = checked_int("num_nodes", num_nodes, 1)
        self.node_id = checked_int("node_id", node_id, 0, self.num_nodes - 1)
        self.clock: Counts = np.zeros(self.num_nodes, np.int64)

    def __repr__(self) -> str:
        return f"VectorClock(node_id={self.node_id}, clock={self.clock.tolist()})"

    def tick(self) -> Counts:
        """Count a local event; returns a copy of the counts."""
        self.clock[self.node_id] += 1
        return self.clock.copy()

    def send(self) -> Counts:
        """Count the sending of a message; returns the counts to send with it."""
        return self.tick()

    def receive(self, remote_clock: VectorClock | Counts) -> Counts:
        """Count the receipt of a message that carries ``remote_clock``; returns a copy of the counts.

        The counts change in place: no array is made but the copy that is returned.

        Raises:
            RangeError: counts of another length, or no whole numbers from 0 to 2**62.
        """
        remote = self.counts_of(remote_clock)
        np.maximum(self.clock, remote, out=self.clock)
        return self.tick()

    def happened_before(self, other: VectorClock | Counts) -> bool:
        """Nothing here is ahead of ``other``, and something is behind. Equal clocks are not before one another.

        Raises:
            RangeError: as :meth:`receive`.
        """
        counts = self.counts_of(other)
        return bool((self.clock <= counts).all() and (self.clock < counts).any())

    def concurrent_with(self, other: VectorClock | Counts) -> bool:
        """Each is ahead of the other somewhere. Equal clocks are one point in time, so they are not concurrent.

        Raises:
            RangeError: as :meth:`receive`.
        """
        counts = self.counts_of(other)
        return bool((self.clock < counts).any() and (self.clock > counts).any())

    def counts_of(self, other: VectorClock | Counts) -> Counts:
        """The counts of a clock or array that can be compared with this clock: int64, shape (num_nodes,).

        Raises:
            RangeError: another length, or no whole numbers from 0 to 2**62.
        """
        counts = other.clock if isinstance(other, VectorClock) else np.asarray(other)
        if counts.shape != self.clock.shape or counts.dtype.kind not in "iu":
            raise RangeError(
                f"a vector clock of shape {counts.shape}, {counts.dtype}",
                f"it has {self.num_nodes} whole numbers, one for each node",
                "compare clocks of one set of nodes",
            )
        if counts.min() < 0 or counts.max() > 2**62:
            raise RangeError("a vector clock", "its counts are 0 to 2**62", "take it from another VectorClock")
        return counts.astype(np.int64, copy=False)


class HybridTime(NamedTuple):
    """A stamp of a :class:`HybridClock`: stamps compare as tuples."""

    wall_ns: int
    step: int


class HybridClock:
    """Stamps that follow wall time and never contradict causality: at most the clocks' disagreement ahead of it.

    Every wall time is an argument, in int ns of one epoch.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = HybridTime(0, 0)

    def tick(self, wall_ns: int) -> HybridTime:
        """The stamp of a local event, or of a message to be sent, at ``wall_ns``.

        Raises:
            RangeError: a wall time that is no int64 >= 0.
        """
        wall_ns = checked_int("wall_ns", wall_ns)
        last = self.last
        self.last = HybridTime(wall_ns, 0) if wall_ns > last.wall_ns else HybridTime(last.wall_ns, last.step + 1)
        return self.last

    def receive(self, wall_ns: int, remote: HybridTime) -> HybridTime:
        """The stamp of the receipt, at ``wall_ns``, of a message that carries ``remote``: above it and all before.

        Raises:
            RangeError: a time or count that is no int64 >= 0.
        """
        wall_ns = checked_int("wall_ns", wall_ns)
        remote = HybridTime(checked_int("remote wall_ns", remote.wall_ns), checked_int("remote step", remote.step))
        greatest = max(self.last, remote)
        self.last = (
            HybridTime(wall_ns, 0) if wall_ns > greatest.wall_ns else HybridTime(greatest.wall_ns, greatest.step + 1)
        )
        return self.last
