"""What moves through a PE, and what it asks of those who run its handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from tidewarp.errors import ModelError
from tidewarp.kernel.optimistic.gvt import TRANSIT, Mark
from tidewarp.kernel.records import Event

__all__ = [
    "ANTI",
    "CANCELLED",
    "COMMITTED",
    "DOOMED",
    "EXECUTED",
    "GONE",
    "PENDING",
    "POSITIVE",
    "QUEUED",
    "RETURN",
    "SENT",
    "Effects",
    "Entry",
    "Executor",
    "Item",
    "Letter",
]


class Effects(Protocol):
    """What the handler of one event did besides changing its LP; :class:`~tidewarp.kernel.context.Context` is one."""

    sends: list[Event]
    emitted: list[Any]
    adds: list[tuple[int, int]]


class Executor(Protocol):
    """Whoever owns the LPs' state and runs their handlers. A PE calls ``save`` before each ``execute``.

    Handlers are functions of state and event: executed again in the same state, the same event sends the same.
    """

    def save(self, lp: int) -> Any:
        """What takes ``lp`` back to here; None: nothing, the PE has an older image and comes back by executing again.

        The object may be filled during the ``execute`` that follows (a log of changes).
        """

    def restore(self, lp: int, saved: Any) -> None:
        """Undo what happened to ``lp`` since ``save`` returned this. Newest first, unless it is a whole image."""

    def execute(self, event: Event) -> Effects:
        """Run the handler of ``event`` on its LP. What it returns is valid until the next call, its lists for ever.

        Raises:
            ModelError: it broke a rule; the LP may be half changed. Held by the PE until the event is committed.
        """

    def coasts(self, lp: int) -> bool:
        """Whether ``save`` ever returns None for this LP; its images are then whole and may be restored many times."""

    def same(self, a: Event, b: Event) -> bool:
        """Whether two sends with equal keys carry equal bytes (lazy cancellation)."""


# The life of an entry. A local one: PENDING, EXECUTED, COMMITTED, GONE. A stub, which stands for a message to another
# PE: QUEUED, SENT, GONE. CANCELLED: pending, to be dropped when met. DOOMED: executed, to be undone and dropped.
PENDING, EXECUTED, COMMITTED, CANCELLED, DOOMED, QUEUED, SENT, GONE = range(8)

Item: TypeAlias = "tuple[int, int, int, int, int, int, Entry]"
"""The key of an entry, a serial number that no other entry of the PE has, and the entry: what the heaps compare."""


class Entry:
    """An event in a PE: pending, executed, or the stub of one that was sent to another PE.

    ``channel`` is (PE, number) of the message that brought it, or, of a stub, that took it away; ``sender`` the entry of the
    event that sent it, if that is in this PE and not yet committed; ``sent`` the (time, generation) of that event.
    """

    __slots__ = (
        "adds",
        "channel",
        "children",
        "emitted",
        "error",
        "event",
        "held",
        "item",
        "kept",
        "kp",
        "saved",
        "sender",
        "sent",
        "status",
    )

    def __init__(self, event: Event, kp: Any, sender: Entry | None, sent: tuple[int, int]) -> None:
        self.event = event
        self.kp = kp
        self.sender = sender
        self.sent = sent
        self.status = PENDING
        self.item: Any = None  # an Item, while it is in this PE's lists
        self.channel: tuple[int, int] | None = None
        self.saved: Any = None
        self.children: list[Entry] = []  # what its execution sent
        self.kept: list[Entry] = []  # lazy cancellation: what an undone execution sent
        self.emitted: Sequence[Any] = ()
        self.adds: Sequence[tuple[int, int]] = ()
        self.error: ModelError | None = None
        self.held = False  # runs only when it is final: its messages were sent back

    def __repr__(self) -> str:
        return f"<Entry {self.event[:5]} status {self.status}>"

    @property
    def mark(self) -> tuple[int, int]:
        """(time, generation)."""
        return self.event[:2]


POSITIVE, ANTI, RETURN = 0, 1, 2


class Letter(NamedTuple):
    """What PEs send each other. ``number`` counts the positive messages from ``source`` to ``target``; it is never used twice.

    POSITIVE: here is ``event``, sent by one at (time, generation) ``sent``. ANTI: the event of message ``number`` is
    cancelled; ``time`` and ``generation`` are its own. RETURN: the event of message ``number`` of the channel the other way comes
    back for want of memory; ``time`` and ``generation`` are those of the event that sent it.
    Letters of one channel arrive in the order sent; letters of several channels in any order.
    """

    kind: int
    source: int
    target: int
    number: int
    time: int
    generation: int
    event: Event | None
    sent: tuple[int, int]

    @property
    def mark(self) -> Mark:
        """Where it holds GVT while it is on its way."""
        return (self.time, self.generation, TRANSIT)
