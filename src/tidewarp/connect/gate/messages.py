"""What is said to the gate (events) and by it (instructions), and how a source is treated (policy). Plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidewarp.connect.contract import DeadLetter, Decoder, Gap, Input, Raw, Readings

__all__ = [
    "BEYOND_POLICIES",
    "FULL_POLICIES",
    "GAP_POLICIES",
    "LATE_POLICIES",
    "TIMES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Confirm",
    "Connected",
    "Disconnected",
    "Ended",
    "Event",
    "Grant",
    "Instruction",
    "Local",
    "Missing",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Reconnect",
    "Repair",
    "Replayed",
    "Settled",
    "Shed",
]

TIMES = ("arrival", "payload", "record")
LATE_POLICIES = ("repair", "clamp", "drop", "stop")
BEYOND_POLICIES = ("clamp", "drop", "stop")
GAP_POLICIES = ("stop", "accept")
FULL_POLICIES = ("block", "drop_oldest", "drop_newest")


@dataclass(frozen=True)
class Policy:
    """How one source is treated. Ticks; seconds of host time; ``queue`` and ``batch`` in inputs."""

    disorder: int = 0  # how far below the highest event time a further event may lie
    late: str = "stop"  # what becomes of an event below that: one of LATE_POLICIES
    queue: int = 65_536  # admitted and not yet granted, at most
    full: str = "block"  # then it is not read | of "drop_oldest" and "drop_newest", the queue waits to be admitted
    batch: int = 8_192  # inputs per journal record, at most
    time: str = "payload"  # where the event time is: in the message, in the broker's record, or it is that of arrival
    wait: bool = True  # does the clock wait for the watermark?
    idle_s: float | None = None  # a partition that was silent for so long holds the clock no longer; None: it does
    horizon: int = 0  # how far below the clock a repair may reach
    beyond: str = "clamp"  # what becomes of an event further back than that: one of BEYOND_POLICIES
    gap: str = "stop"  # one of GAP_POLICIES
    retry_s: tuple[float, float] = (0.5, 30.0)  # first and longest pause before it is opened again


# Events: what happened.
@dataclass(frozen=True)
class Connected:
    """A source may be read from now on, behind the positions that the journal holds."""

    source: str
    decoder: Decoder | None  # None: it gives Readings
    epoch_ns: int = 0  # Unix ns of tick 0, by which a broker's times are read
    now_s: float = 0.0  # host time
    identity: Mapping[int, int] = field(default_factory=dict)  # partition without messages -> what tells its target


@dataclass(frozen=True)
class Disconnected:
    """The source could not be opened or read, at host time ``now_s``. It may pass."""

    source: str
    reason: str
    now_s: float


@dataclass(frozen=True)
class Missing:
    """The target no longer has what comes next. Host time ``now_s``."""

    source: str
    gap: Gap
    now_s: float


@dataclass(frozen=True)
class Arrived:
    """What a Read brought, at host time ``now_s``; virtual time then stood at tick ``present``, the first one at full speed."""

    source: str
    messages: Sequence[Raw] | Readings
    now_s: float = 0.0
    present: int = 0
    partitions: Collection[int] = ()  # that the source reads at present


@dataclass(frozen=True)
class Local:
    """What the program itself sets: (tick of virtual time by the wall, changes), in order."""

    updates: Sequence[tuple[int, tuple[tuple[str, Any], ...]]]


@dataclass(frozen=True)
class Settled:
    """No instant is under way: what the program itself has set at the floor may be granted at once."""


@dataclass(frozen=True)
class Ended:
    """The source will never have more."""

    source: str


@dataclass(frozen=True)
class Appended:
    """The journal holds what this ticket asked for."""

    ticket: int


@dataclass(frozen=True)
class Asked:
    """The simulation stands at the floor and would go on to ``limit`` (exclusive tick), at host time ``now_s``."""

    limit: int
    now_s: float = 0.0


@dataclass(frozen=True)
class Replayed:
    """One record of the journal, read back. ``inputs`` in order of arrival; positions include dead letters'."""

    source: str
    admitted: int
    inputs: Sequence[Input] = ()
    dead: Mapping[str, int] = field(default_factory=dict)  # rule -> letters
    letter_bytes: int = 0  # that the journal keeps of them
    positions: Mapping[int, int] = field(default_factory=dict)
    ended: bool = False
    ids: Sequence[str] = ()  # of inputs, dead letters and what was shed, in order of arrival
    gaps: int = 0
    shed: Mapping[str, int] = field(default_factory=dict)  # as in Shed


@dataclass(frozen=True)
class Passed:
    """The journal says that the clock was allowed to get here and nothing below changes any more: a mark, a stop."""

    floor: int


@dataclass(frozen=True)
class Paused:
    """The run comes to rest: read no further until the simulation asks again."""


@dataclass(frozen=True)
class Shed:
    """Messages that became no inputs because there were others: "coalesced", or "shed" by a full queue."""

    counted: Mapping[str, int]
    positions: Mapping[int, int]  # partition -> last of them
    ids: Sequence[str] = ()  # of those that have one


# Instructions: what is to be done.
@dataclass(frozen=True)
class Read:
    """Ask the source for at most ``limit`` messages. One is under way per source."""

    source: str
    limit: int


@dataclass(frozen=True)
class Append:
    """Write to the journal, in one transaction with ``positions``; then send Appended(ticket)."""

    ticket: int
    source: str
    admitted: int
    inputs: tuple[Input, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)  # of all that this source has made durable
    moved: Mapping[int, int] = field(default_factory=dict)  # the part of it that dead letters moved
    ended: bool = False
    columns: Readings | None = None  # the inputs once more, where they came as columns: as they were admitted
    gap: Gap | None = None
    shed: Shed | None = None


@dataclass(frozen=True)
class Confirm:
    """Tell the source what it may forget."""

    source: str
    positions: Mapping[int, int]


@dataclass(frozen=True)
class Reconnect:
    """Open the source again at host time ``at_s``, behind what was admitted; before that let it accept ``gap``."""

    source: str
    at_s: float
    gap: Gap | None = None


@dataclass(frozen=True)
class Repair:
    """Inputs have come in below the floor, from ``tick`` on: execute again from there. The journal holds them."""

    tick: int
    inputs: tuple[Input, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Grant:
    """The simulation may process instants below ``floor``, with these inputs, ascending.

    Inputs at ``floor`` itself (of the program: no other can come before them) are applied where it then stands.
    """

    floor: int
    inputs: tuple[Input, ...]


Event = (
    Connected
    | Disconnected
    | Missing
    | Arrived
    | Local
    | Ended
    | Appended
    | Asked
    | Settled
    | Paused
    | Replayed
    | Passed
)
Instruction = Read | Append | Confirm | Grant | Reconnect | Repair
