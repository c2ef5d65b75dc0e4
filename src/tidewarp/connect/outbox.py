"""The outbox: what may leave, in order, to every sink, as often as it takes. A state machine without I/O.

Each sink has a queue of its own, so one that is slow or down delays no other. One batch per sink is under
way at a time. What becomes of a batch that was not held:

* it may pass (a lost connection): the sink is opened again after 0.5 s, doubling to 30 s, for as long as the host
  keeps asking; it says what it holds, and is offered the rest;
* it is not clear why: halves of it are offered, down to the one output that fails alone; after ``poison`` attempts
  that one is given up, counted, and the others go on in order;
* the target refuses single outputs for good: these are given up, the others are held.

A full queue: a host that has time waits (:attr:`Outbox.full`); one that is paced by the wall lets it overflow into a
spill file (:attr:`Outbox.spills`), and what does not fit there either, or what the disk does not take, is shed and counted
(``behind``), and so is all that comes behind it: the next life makes it again, from the journal.

A batch waits at most ``flush_s`` to fill; 0: it goes as soon as the one before it is held, and fills meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidewarp.connect.contract import Form, Output, Refused
from tidewarp.errors import InternalError, OperatorError

__all__ = [
    "Delivery",
    "Failed",
    "Fetch",
    "Fetched",
    "Opened",
    "Outbox",
    "Published",
    "Reopen",
    "Retry",
    "Send",
    "Sent",
    "Spill",
    "Unspilled",
    "Woken",
]

_FRAME_BYTES = 120  # of an output in a spill file, beside its value


@dataclass(frozen=True)
class Delivery:
    """How one sink is served. Outputs; seconds of host time; bytes."""

    batch: int = 500  # outputs per write, at most
    queue: int = 2_000  # outputs that wait in memory
    retry_s: tuple[float, float] = (0.5, 30.0)  # first and longest pause before a retry
    poison: int = 8  # attempts at an output that fails alone, without a clear reason
    spill: int = 1 << 30  # bytes that may wait in a file
    select: Callable[[Output], bool] | None = None  # which outputs it gets; None: all
    flush_s: float = 0.0  # how long a batch may wait to fill
    stall_s: float = 30.0  # how long the sink may make no progress at the end of a run
    form: Form | None = None  # of its records
    observe: bool = False  # is it sent observations too?
    early: bool = False  # is it told before GVT has passed?


# Events
@dataclass(frozen=True)
class Opened:
    """A sink is ready; ``last_id`` is what it, or else the journal, says was delivered last ("" nothing, None: it cannot tell)."""

    sink: str
    last_id: str | None


@dataclass(frozen=True)
class Published:
    """Outputs that GVT has passed, ascending, at host time ``now_s``; ``early``: records for the sinks that do not wait for it."""

    outputs: Sequence[Output]
    now_s: float = 0.0
    early: bool = False


@dataclass(frozen=True)
class Sent:
    """The batch under way is held by the target, except what it refused for good."""

    sink: str
    refused: Sequence[Refused] = ()


@dataclass(frozen=True)
class Failed:
    """The sink could not be opened, or the batch under way not be written, at host time ``now_s``.

    ``passing``: it may pass, and the batch may or may not have arrived. Else nothing of the batch is held.
    """

    sink: str
    reason: str
    now_s: float
    passing: bool = True


@dataclass(frozen=True)
class Fetched:
    """What the last Fetch brought back from the spill file: less than asked for, if it held no more."""

    sink: str
    outputs: Sequence[Output]


@dataclass(frozen=True)
class Unspilled:
    """The spill file did not take the outputs from ``first_id`` on, nor will it take later ones; "": it gives nothing back."""

    sink: str
    first_id: str
    reason: str


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


@dataclass(frozen=True)
class Reopen:
    """Close the sink and open it again, then say Opened or Failed."""

    sink: str


@dataclass(frozen=True)
class Spill:
    """Put these behind what the spill file of the sink holds."""

    sink: str
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Fetch:
    """Take the first ``count`` outputs from the spill file, then say Fetched."""

    sink: str
    count: int


Event = Opened | Published | Sent | Failed | Fetched | Unspilled | Woken
Instruction = Send | Retry | Reopen | Spill | Fetch


class _Sink:
    def __init__(self, name: str, delivery: Delivery) -> None:
        self.name = name
        self.delivery = delivery
        self.open = False
        self.offered = False  # has it been sent anything in this life?
        self.waiting: deque[Output] = deque()
        self.sending: tuple[Output, ...] = ()
        self.spilled: deque[tuple[str, int]] = deque()  # id and bytes of each output in the spill file
        self.spilled_bytes = 0
        self.fetching = 0
        self.part = delivery.batch  # outputs of the next batch, at most: less while a bad one is looked for
        self.attempts = 0  # at the output that fails alone
        self.last_id = ""  # it is done with all up to this one
        self.held_id = ""  # the last that the target has acknowledged; what was given up it never held
        self.since_s = 0.0  # when the first of those that wait came, at the latest
        self.flush_at_s: float | None = None  # when the batch that fills has to go
        self.retry_at_s: float | None = None
        self.pause_s = delivery.retry_s[0]
        self.reason = ""
        self.shortage = ""  # why it is behind
        self.refusal: str | None = None  # the last output that was refused for good, and why
        self.sent = self.retried = self.dead = self.skipped = self.spills = self.behind = 0

    @property
    def backlog(self) -> int:
        return len(self.waiting) + len(self.sending) + len(self.spilled) + self.fetching

    @property
    def state(self) -> str:
        if self.behind:
            return "behind"
        if not self.open:
            return "down" if self.reason else "starting"
        return "spilling" if self.spilled else "open"


class Outbox:
    """See the module's docstring.

    ``spills``: may a full queue overflow into a file? ``ending``: the run comes to its end, and no batch waits to fill.
    """

    def __init__(self) -> None:
        self.spills = False
        self.ending = False
        self._now_s = 0.0  # host time, as far as it was told
        self._sinks: dict[str, _Sink] = {}
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            Opened: self._handle_opened,
            Published: self._handle_published,
            Sent: self._handle_sent,
            Failed: self._handle_failed,
            Fetched: self._handle_fetched,
            Unspilled: self._handle_unspilled,
            Woken: self._handle_woken,
        }

    def register(self, name: str, delivery: Delivery) -> None:
        """Make a sink known. Raises OperatorError for a name that is taken."""
        if name in self._sinks:
            raise OperatorError(f"sink {name!r}", "each sink has a name of its own", "give sink(name=...)")
        self._sinks[name] = _Sink(name, delivery)

    @property
    def full(self) -> bool:
        """Is there a sink whose queue, with what had to wait in its file, has no room, and may it not overflow?"""
        return not self.spills and any(
            len(sink.waiting) + len(sink.spilled) + sink.fetching >= sink.delivery.queue
            for sink in self._sinks.values()
        )

    @property
    def is_cut_off(self) -> bool:
        """Is there a sink that cannot be reached now?"""
        return any(not sink.open for sink in self._sinks.values())

    @property
    def early(self) -> list[str]:
        """The sinks that are told before GVT has passed."""
        return [sink.name for sink in self._sinks.values() if sink.delivery.early]

    @property
    def backlog(self) -> dict[str, int]:
        """Outputs that are not yet delivered, of the sinks that have some."""
        counts = {sink.name: sink.backlog for sink in self._sinks.values()}
        return {name: count for name, count in counts.items() if count}

    def last_ids(self) -> dict[str, str]:
        """Sink -> id of the last output that it holds."""
        return {sink.name: sink.last_id for sink in self._sinks.values() if sink.last_id}

    def delivery(self, name: str) -> Delivery:
        """How this sink is served."""
        return self._sinks[name].delivery

    def states(self) -> dict[str, tuple[str, str]]:
        """Sink -> its state, and why it is down or behind ("" if it is not)."""
        return {sink.name: (sink.state, sink.shortage or sink.reason) for sink in self._sinks.values()}

    def lacking(self) -> dict[str, str]:
        """Sink -> what it lacks and what to do, of the sinks that are behind."""
        return {
            sink.name: f"{sink.behind:,} outputs are not delivered ({sink.shortage}): see to the sink, then --resume, "
            "which makes them again"
            for sink in self._sinks.values()
            if sink.behind
        }

    def was_offered(self, name: str) -> bool:
        """Has this sink been sent anything in this life?"""
        return self._sinks[name].offered

    def reason(self, name: str) -> str:
        """Why this sink is down, or its last batch failed; "" if it is not."""
        return self._sinks[name].reason

    def counts(self) -> dict[str, dict[str, Any]]:
        """Per sink: sent, retried, dead (refused for good), refusal (the last of these), skipped (held already), spilled
        (waited in a file), behind (shed), state and reason as in :meth:`states`, last_id.
        """
        return {
            sink.name: {
                "sent": sink.sent,
                "retried": sink.retried,
                "dead": sink.dead,
                "refusal": sink.refusal,
                "skipped": sink.skipped,
                "spilled": sink.spills,
                "behind": sink.behind,
                "state": sink.state,
                "reason": sink.shortage or sink.reason,
                "last_id": sink.last_id or None,
            }
            for sink in self._sinks.values()
        }

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done about it, in order."""
        return self._handlers[type(event)](event)

    def _handle_opened(self, event: Opened) -> list[Instruction]:
        sink = self._sinks[event.sink]
        held = sink.held_id if event.last_id is None else event.last_id
        if held < sink.held_id:
            raise OperatorError(
                f"sink {sink.name!r}: it holds outputs up to {held or 'none'}, and had acknowledged {sink.held_id}",
                "a target keeps what it has acknowledged",
                "see to its durability, then --resume: the journal makes the missing ones again",
            )
        sink.held_id, sink.last_id, sink.reason, sink.open = held, max(held, sink.last_id), "", True
        while sink.waiting and sink.waiting[0].id <= held:
            sink.waiting.popleft()
            sink.attempts = 0
            if sink.offered:  # it had arrived, and the answer was lost
                sink.sent += 1
            else:
                sink.skipped += 1
        return self._next(sink)

    def _handle_published(self, event: Published) -> list[Instruction]:
        instructions: list[Instruction] = []
        self._now_s = max(self._now_s, event.now_s)
        for sink in self._sinks.values():
            if sink.delivery.early != event.early:
                continue
            wanted = event.outputs
            if sink.delivery.select is not None:
                wanted = [output for output in wanted if sink.delivery.select(output)]
            fresh = wanted  # ids ascend
            if wanted and wanted[0].id <= sink.last_id:
                fresh = [output for output in wanted if output.id > sink.last_id]
            sink.skipped += len(wanted) - len(fresh)
            instructions += self._take(sink, fresh)
            instructions += self._next(sink)
        return instructions

    def _take(self, sink: _Sink, outputs: Sequence[Output]) -> list[Instruction]:
        """Into memory while there is room and nothing is in the file before it; else into the file, or shed."""
        room = max(0, sink.delivery.queue - len(sink.waiting)) if self.spills else len(outputs)
        if sink.spilled or sink.fetching or sink.behind:
            room = 0
        if not sink.waiting:
            sink.since_s = self._now_s
        sink.waiting.extend(outputs[:room])
        rest = outputs[room:]
        spilling: list[Output] = []
        for output in rest:
            size = len(output.value) + _FRAME_BYTES
            if sink.behind or sink.spilled_bytes + size > sink.delivery.spill:
                sink.behind += 1
                sink.shortage = sink.shortage or f"its file of {sink.delivery.spill:,} bytes is full"
                continue
            sink.spilled.append((output.id, size))
            sink.spilled_bytes += size
            spilling.append(output)
        sink.spills += len(spilling)
        return [Spill(sink.name, tuple(spilling))] if spilling else []

    def _handle_fetched(self, event: Fetched) -> list[Instruction]:
        sink = self._sinks[event.sink]
        missing, sink.fetching = sink.fetching - len(event.outputs), 0
        self._shed(sink, missing)
        fresh = [output for output in event.outputs if output.id > sink.last_id]
        sink.skipped += len(event.outputs) - len(fresh)
        sink.waiting.extend(fresh)
        return self._next(sink)

    def _handle_unspilled(self, event: Unspilled) -> list[Instruction]:
        sink = self._sinks[event.sink]
        sink.shortage = sink.shortage or event.reason
        count = len(sink.spilled)
        while sink.spilled and sink.spilled[-1][0] >= event.first_id:
            sink.spilled_bytes -= sink.spilled.pop()[1]
        self._shed(sink, count - len(sink.spilled))
        return self._next(sink)

    def _shed(self, sink: _Sink, count: int) -> None:
        """So many outputs of the file are lost to this life."""
        sink.behind += count
        sink.spills -= count

    def _handle_sent(self, event: Sent) -> list[Instruction]:
        sink = self._sinks[event.sink]
        if not sink.sending:
            raise InternalError(f"sink {sink.name!r}", "it confirmed a batch that was not sent", "report this")
        sink.dead += len(event.refused)
        if event.refused:
            sink.refusal = f"{event.refused[-1].id}: {event.refused[-1].reason}"
        sink.sent += len(sink.sending) - len(event.refused)
        refused = {one.id for one in event.refused}
        sink.held_id = next((one.id for one in reversed(sink.sending) if one.id not in refused), sink.held_id)
        sink.last_id = sink.sending[-1].id
        sink.sending, sink.pause_s, sink.reason, sink.attempts = (), sink.delivery.retry_s[0], "", 0
        sink.part = min(2 * sink.part, sink.delivery.batch)
        return self._next(sink)

    def _handle_failed(self, event: Failed) -> list[Instruction]:
        sink = self._sinks[event.sink]
        sink.reason = event.reason
        sink.retried += bool(sink.sending)
        if not event.passing and sink.sending:
            return self._narrow(sink, event.now_s)
        sink.open = False
        return self._give_back(sink, event.now_s)

    def _narrow(self, sink: _Sink, now_s: float) -> list[Instruction]:
        """Look for the output that fails."""
        if len(sink.sending) > 1:
            sink.part = len(sink.sending) // 2
            self._put_back(sink)
            return self._next(sink)
        sink.attempts += 1
        if sink.attempts < sink.delivery.poison:
            return self._give_back(sink, now_s)
        sink.dead += 1
        sink.refusal = f"{sink.sending[0].id}: {sink.reason}"
        sink.last_id = sink.sending[0].id
        sink.sending, sink.attempts, sink.pause_s = (), 0, sink.delivery.retry_s[0]
        return self._next(sink)

    def _give_back(self, sink: _Sink, now_s: float) -> list[Instruction]:
        """The batch waits again, until the next attempt."""
        self._put_back(sink)
        sink.retry_at_s = now_s + sink.pause_s
        sink.pause_s = min(2 * sink.pause_s, sink.delivery.retry_s[1])
        return [Retry(sink.name, sink.retry_at_s)]

    def _put_back(self, sink: _Sink) -> None:
        sink.waiting.extendleft(reversed(sink.sending))
        sink.sending, sink.since_s = (), -math.inf  # it has waited for others already

    def _handle_woken(self, event: Woken) -> list[Instruction]:
        instructions: list[Instruction] = []
        self._now_s = max(self._now_s, event.now_s)
        for sink in self._sinks.values():
            if sink.retry_at_s is not None and event.now_s >= sink.retry_at_s:
                sink.retry_at_s = None
                instructions += self._next(sink) if sink.open else [Reopen(sink.name)]
            elif sink.flush_at_s is not None:
                instructions += self._next(sink)
        return instructions

    def _may_fill(self, sink: _Sink) -> bool:
        """Is the next batch short, and has it time?"""
        enough = min(sink.part, sink.delivery.queue)
        is_short = len(sink.waiting) < enough and not (sink.spilled or sink.fetching)
        return is_short and not self.ending and self._now_s < sink.since_s + sink.delivery.flush_s

    def _next(self, sink: _Sink) -> list[Instruction]:
        instructions: list[Instruction] = []
        if sink.spilled and not sink.fetching and len(sink.waiting) < sink.delivery.batch and sink.open:
            count = min(len(sink.spilled), sink.delivery.queue)
            sink.fetching = count
            sink.spilled_bytes -= sum(sink.spilled.popleft()[1] for _ in range(count))
            instructions.append(Fetch(sink.name, count))
        if sink.sending or not sink.waiting or not sink.open or sink.retry_at_s is not None:
            return instructions
        if self._may_fill(sink):
            told_s, sink.flush_at_s = sink.flush_at_s, sink.since_s + sink.delivery.flush_s
            return instructions if told_s == sink.flush_at_s else [*instructions, Retry(sink.name, sink.flush_at_s)]
        sink.flush_at_s = None
        if len(sink.waiting) <= sink.part:
            sink.sending = tuple(sink.waiting)
            sink.waiting.clear()
        else:
            sink.sending = tuple([sink.waiting.popleft() for _ in range(sink.part)])
        sink.since_s = self._now_s
        sink.offered = True
        return [*instructions, Send(sink.name, sink.sending)]
