"""Events of twin nodes, and how their order is that of the kernel's keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tidewarp.clocks.logical import checked_int
from tidewarp.errors import RangeError
from tidewarp.kernel.context import GENERATIONS_MAX
from tidewarp.kernel.records import Event
from tidewarp.kernel.values import copied
from tidewarp.units import TICK_MIN

__all__ = [
    "Delivery",
    "EventType",
    "Key",
    "SyncMode",
    "TwinEvent",
    "check_event",
    "check_input",
    "event_of",
    "key_of",
    "mode_of",
    "twin_event",
    "word_of",
]

Key: TypeAlias = tuple[int, int, int, int, int]
"""(time, generation word, target, source, sequence): the kernel's event key of a twin event."""

_BIAS = 32768


class EventType(Enum):
    """What an event of a twin is. Only SPIKE and SENSOR_INPUT are events of the model; the others are the engine's own."""

    SPIKE = "spike"
    SENSOR_INPUT = "sensor_input"
    CHECKPOINT = "checkpoint"
    ANTI_MESSAGE = "anti_message"
    ROLLBACK = "rollback"
    SYNC_BARRIER = "sync_barrier"


class SyncMode(Enum):
    """How a twin keeps step with the physical side.

    LOCKSTEP: input is for now or later, and the digital side never runs past the physical one. OPTIMISTIC: it runs ahead, and
    what came late is repaired by rollback. CONSERVATIVE: it executes only what nothing can precede any more.
    """

    LOCKSTEP = "lockstep"
    OPTIMISTIC = "optimistic"
    CONSERVATIVE = "conservative"


def mode_of(mode: object) -> SyncMode:
    """The mode of this name or value.

    Raises:
        RangeError: there is none.
    """
    try:
        return SyncMode(mode)
    except ValueError as error:
        modes = ", ".join(one.value for one in SyncMode)
        raise RangeError(f"mode {mode!r:.80}", f"it is one of {modes}", "write e.g. SyncMode.LOCKSTEP") from error


@dataclass(eq=False)
class TwinEvent:
    """An event at ``virtual_time_ns`` for a node. ``payload`` holds numbers, text, bytes, containers and NumPy arrays.

    Events are ordered, and equal, by (time, generation, priority, target, source, sequence): a lower priority goes first, and the
    order of insertion has no say. ``sequence`` tells the events of one source apart; -1 until it is stamped by
    ``TimeWarpEngine.inject_event``. ``generation`` counts the sends without delay that led here within one instant.

    Raises:
        RangeError: a time that is no int64 >= 0 of ns, a priority outside [-32768, 32767].
    """

    virtual_time_ns: int
    priority: int = 0
    event_type: EventType = EventType.SPIKE
    source_node: int = 0
    target_node: int = 0
    payload: Any = field(default_factory=dict)
    lamport_ts: int = 0
    vector_ts: np.ndarray[Any, np.dtype[np.int64]] | None = None
    cancelled: bool = False
    generation: int = field(default=0, kw_only=True)
    sequence: int = field(default=-1, kw_only=True)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse fields out of range; they may have been set since the event was made.

        Raises:
            RangeError: see the class.
        """
        self.virtual_time_ns = checked_int("virtual_time_ns", self.virtual_time_ns)
        self.priority = checked_int("priority", self.priority, -_BIAS, _BIAS - 1)
        self.source_node = checked_int("source_node", self.source_node, TICK_MIN)
        self.target_node = checked_int("target_node", self.target_node, TICK_MIN)
        self.lamport_ts = checked_int("lamport_ts", self.lamport_ts)
        self.generation = checked_int("generation", self.generation, 0, GENERATIONS_MAX - 1)
        self.sequence = checked_int("sequence", self.sequence, -1)
        if not isinstance(self.event_type, EventType):
            raise RangeError(f"event_type {self.event_type!r}", "it is an EventType", "write e.g. EventType.SPIKE")

    @property
    def order(self) -> tuple[int, int, int, int, int, int]:
        """What events are compared by."""
        return (
            self.virtual_time_ns,
            self.generation,
            self.priority,
            self.target_node,
            self.source_node,
            self.sequence,
        )

    def __eq__(self, other: object) -> bool:
        return self.order == other.order if isinstance(other, TwinEvent) else NotImplemented

    def __lt__(self, other: TwinEvent) -> bool:
        return self.order < other.order

    def __le__(self, other: TwinEvent) -> bool:
        return self.order <= other.order

    def __gt__(self, other: TwinEvent) -> bool:
        return self.order > other.order

    def __ge__(self, other: TwinEvent) -> bool:
        return self.order >= other.order

    __hash__ = None  # type: ignore[assignment]


def check_event(event: object) -> None:
    """Refuse what is no event, or one with a field out of range.

    Raises:
        RangeError: see :class:`TwinEvent`.
    """
    if not isinstance(event, TwinEvent):
        raise RangeError(f"an event {event!r:.80}", "it is a TwinEvent", "write TwinEvent(virtual_time_ns, ...)")
    event.check()


def check_input(event: object) -> None:
    """Refuse what cannot be given from outside: as :func:`check_event`, and what is cancelled already.

    Raises:
        RangeError: see above.
    """
    check_event(event)
    if isinstance(event, TwinEvent) and event.cancelled:
        raise RangeError(
            f"a cancelled event at {event.virtual_time_ns} ns", "only what was given can be cancelled", "leave it out"
        )


class Delivery(NamedTuple):
    """What an event carries besides its key; nobody changes it. ``cause`` is the key of the event that sent it."""

    event_type: EventType
    payload: Any
    lamport_ts: int
    vector_ts: np.ndarray[Any, np.dtype[np.int64]] | None
    cause: Key | None


def word_of(generation: int, priority: int) -> int:
    """The generation of a kernel key: generation above, priority below."""
    return generation << 16 | (priority + _BIAS)


def key_of(event: TwinEvent) -> Key:
    """The kernel's key: it compares as the events do."""
    word = word_of(event.generation, event.priority)
    return (event.virtual_time_ns, word, event.target_node, event.source_node, event.sequence)


def event_of(event: TwinEvent) -> Event:
    """The kernel's event, with a payload of its own.

    Raises:
        ModelError: a payload that cannot be copied.
    """
    vector = None if event.vector_ts is None else np.array(event.vector_ts, np.int64)
    payload = copied(event.payload, "payload")
    return (*key_of(event), Delivery(event.event_type, payload, event.lamport_ts, vector, None))


def twin_event(event: Event) -> TwinEvent:
    """The event as users see it: a copy, so that nobody changes what may be executed again."""
    time, word, target, source, sequence, delivery = event
    made = TwinEvent.__new__(TwinEvent)
    made.virtual_time_ns = time
    made.priority = (word & 0xFFFF) - _BIAS
    made.event_type = delivery.event_type
    made.source_node = source
    made.target_node = target
    made.payload = copied(delivery.payload, "payload")
    made.lamport_ts = delivery.lamport_ts
    made.vector_ts = None if delivery.vector_ts is None else delivery.vector_ts.copy()
    made.cancelled = False
    made.generation = word >> 16
    made.sequence = sequence
    return made
