"""What is said to the gate (events) and by it (instructions), and how a source is treated (policy). Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidewarp.connect.contract import DeadLetter, Decoder, Input, Raw, Readings

__all__ = [
    "LATE_POLICIES",
    "Append",
    "Appended",
    "Arrived",
    "Asked",
    "Connected",
    "Ended",
    "Event",
    "Grant",
    "Instruction",
    "Passed",
    "Paused",
    "Policy",
    "Read",
    "Replayed",
]

LATE_POLICIES = ("stop", "clamp", "drop")


@dataclass(frozen=True)
class Policy:
    """How one source is treated. Ticks; ``queue`` and ``batch`` in inputs."""

    disorder: int = 0  # how far below the highest event time a further event may lie
    late: str = "stop"  # what becomes of an event below that: one of LATE_POLICIES
    queue: int = 65_536  # admitted and not yet granted, at most; full: the source is not read
    batch: int = 8_192  # inputs per journal record, at most


# Events: what happened.
@dataclass(frozen=True)
class Connected:
    """A source may be read from now on, behind the positions that the journal holds."""

    source: str
    decoder: Decoder | None  # None: it gives Readings


@dataclass(frozen=True)
class Arrived:
    """What a Read brought."""

    source: str
    messages: Sequence[Raw] | Readings


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
    """The simulation stands at the floor and would go on to ``limit`` (exclusive tick)."""

    limit: int


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


@dataclass(frozen=True)
class Passed:
    """The journal says that the clock was allowed to get here: a mark, a stop."""

    floor: int


@dataclass(frozen=True)
class Paused:
    """The run comes to rest: read no further until the simulation asks again."""


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


@dataclass(frozen=True)
class Grant:
    """The simulation may process instants below ``floor``, with these inputs, ascending."""

    floor: int
    inputs: tuple[Input, ...]


Event = Connected | Arrived | Ended | Appended | Asked | Paused | Replayed | Passed
Instruction = Read | Append | Grant
