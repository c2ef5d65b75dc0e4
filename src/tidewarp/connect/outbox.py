"""The outbox: what may leave, in order, to every sink, as often as it takes. A state machine without I/O.

Each sink has a queue of its own, so one that is slow or down delays no other. One batch per sink is under
way at a time; a failed one is tried again after 0.5 s, doubling to 30 s, for as long as the host keeps
asking. A full queue makes :attr:`Outbox.full` true: the host then stops the simulation until there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidewarp.connect.contract import Output, Refused
from tidewarp.errors import InternalError, OperatorError

__all__ = ["Delivery", "Failed", "Opened", "Outbox", "Published", "Retry", "Send", "Sent", "Woken"]


@dataclass(frozen=True)
class Delivery:
    """How one sink is served. Outputs; seconds of host time."""

    batch: int = 500  # outputs per write, at most
    queue: int = 2_000  # outputs that wait for it; full: the simulation waits
    retry_s: tuple[float, float] = (0.5, 30.0)  # first and longest pause before a retry


# Events
@dataclass(frozen=True)
class Opened:
    """A sink is ready; ``last_id`` is what it, or else the journal, says was delivered last ("" = nothing)."""

    sink: str
    last_id: str


@dataclass(frozen=True)
class Published:
    """Outputs that GVT has passed, ascending."""

    outputs: Sequence[Output]


@dataclass(frozen=True)
class Sent:
    """The batch under way is held by the target, except what it refused for good."""

    sink: str
    refused: Sequence[Refused] = ()


@dataclass(frozen=True)
class Failed:
    """The batch under way may or may not have arrived, at host time ``now_s``."""

    sink: str
    reason: str
    now_s: float


@dataclass(frozen=True)
class Woken:
    """Host time is ``now_s``: a retry may be due."""

    now_s: float


# Instructions
@dataclass(frozen=True)
class Send:
    """Write this batch, then say Sent or Failed."""

    sink: str
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Retry:
    """Say Woken at host time ``at_s``."""

    sink: str
    at_s: float


Event = Opened | Published | Sent | Failed | Woken
Instruction = Send | Retry


class _Sink:
    def __init__(self, name: str, delivery: Delivery) -> None:
        self.name = name
        self.delivery = delivery
        self.open = False
        self.waiting: deque[Output] = deque()
        self.sending: tuple[Output, ...] = ()
        self.last_id = ""
        self.retry_at_s: float | None = None
        self.pause_s = delivery.retry_s[0]
        self.reason = ""
        self.refusal: str | None = None  # the last output that was refused for good, and why
        self.sent = self.retried = self.dead = self.skipped = 0


class Outbox:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._sinks: dict[str, _Sink] = {}
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            Opened: self._handle_opened,
            Published: self._handle_published,
            Sent: self._handle_sent,
            Failed: self._handle_failed,
            Woken: self._handle_woken,
        }

    def register(self, name: str, delivery: Delivery) -> None:
        """Make a sink known. Raises OperatorError for a name that is taken."""
        if name in self._sinks:
            raise OperatorError(f"sink {name!r}", "each sink has a name of its own", "give sink(name=...)")
        self._sinks[name] = _Sink(name, delivery)

    @property
    def full(self) -> bool:
        """Is there a sink whose queue has no room?"""
        return any(len(sink.waiting) >= sink.delivery.queue for sink in self._sinks.values())

    @property
    def backlog(self) -> dict[str, int]:
        """Outputs that are not yet delivered, of the sinks that have some."""
        counts = {sink.name: len(sink.waiting) + len(sink.sending) for sink in self._sinks.values()}
        return {name: count for name, count in counts.items() if count}

    def last_ids(self) -> dict[str, str]:
        """Sink -> id of the last output that it holds."""
        return {sink.name: sink.last_id for sink in self._sinks.values() if sink.last_id}

    def reason(self, name: str) -> str:
        """Why the last batch of this sink failed; "" if it did not."""
        return self._sinks[name].reason

    def counts(self) -> dict[str, dict[str, Any]]:
        """Per sink: sent, retried, dead (refused for good), refusal (the last of these), skipped (held already), last_id."""
        return {
            sink.name: {
                "sent": sink.sent,
                "retried": sink.retried,
                "dead": sink.dead,
                "refusal": sink.refusal,
                "skipped": sink.skipped,
                "last_id": sink.last_id or None,
            }
            for sink in self._sinks.values()
        }

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done about it, in order."""
        return self._handlers[type(event)](event)

    def _handle_opened(self, event: Opened) -> list[Instruction]:
        sink = self._sinks[event.sink]
        sink.open, sink.last_id = True, event.last_id
        while sink.waiting and sink.waiting[0].id <= sink.last_id:  # published before it was known what the sink holds
            sink.waiting.popleft()
            sink.skipped += 1
        return self._next(sink)

    def _handle_published(self, event: Published) -> list[Instruction]:
        instructions: list[Instruction] = []
        for sink in self._sinks.values():
            fresh = [output for output in event.outputs if output.id > sink.last_id]
            sink.skipped += len(event.outputs) - len(fresh)
            sink.waiting.extend(fresh)
            instructions += self._next(sink)
        return instructions

    def _handle_sent(self, event: Sent) -> list[Instruction]:
        sink = self._sinks[event.sink]
        if not sink.sending:
            raise InternalError(f"sink {sink.name!r}", "it confirmed a batch that was not sent", "report this")
        sink.dead += len(event.refused)
        if event.refused:
            sink.refusal = f"{event.refused[-1].id}: {event.refused[-1].reason}"
        sink.sent += len(sink.sending) - len(event.refused)
        sink.last_id = sink.sending[-1].id
        sink.sending, sink.pause_s, sink.reason = (), sink.delivery.retry_s[0], ""
        return self._next(sink)

    def _handle_failed(self, event: Failed) -> list[Instruction]:
        sink = self._sinks[event.sink]
        if not sink.sending:
            raise InternalError(f"sink {sink.name!r}", "a batch failed that was not sent", "report this")
        sink.retried += 1
        sink.reason = event.reason
        sink.retry_at_s = event.now_s + sink.pause_s
        sink.pause_s = min(2 * sink.pause_s, sink.delivery.retry_s[1])
        return [Retry(sink.name, sink.retry_at_s)]

    def _handle_woken(self, event: Woken) -> list[Instruction]:
        instructions: list[Instruction] = []
        for sink in self._sinks.values():
            if sink.retry_at_s is not None and event.now_s >= sink.retry_at_s:
                sink.retry_at_s = None
                instructions.append(Send(sink.name, sink.sending))
        return instructions

    def _next(self, sink: _Sink) -> list[Instruction]:
        if sink.sending or not sink.waiting or not sink.open:
            return []
        count = min(len(sink.waiting), sink.delivery.batch)
        sink.sending = tuple(sink.waiting.popleft() for _ in range(count))
        return [Send(sink.name, sink.sending)]
