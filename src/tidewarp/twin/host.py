"""The inline host: performs what gate and outbox ask, and paces the run. Connectors have threads, the model has not.

One turn of its loop: take what the inbox holds; ask the gate for a lease; let the model run in slices up to
it; hand the outputs on. When nothing can go on, it sleeps until something arrives or the next instant is due.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tidewarp.clocks import Clock, Pacer, WallClock
from tidewarp.codec import INPUT, timed_body
from tidewarp.connect import gate as gates
from tidewarp.connect import outbox as outboxes
from tidewarp.connect.contract import Input, Output, RunIdentity, Sink, Source
from tidewarp.connect.documents import PathTable, encode_dead, encode_ended, encode_inputs, pack_positions
from tidewarp.connect.shell import Inbox, Lost, SinkThread, SourceThread
from tidewarp.errors import ModelError, OperatorError
from tidewarp.observe import Probe, stage
from tidewarp.store import Entry, Journal
from tidewarp.twin.collector import collector_paused
from tidewarp.twin.documents import MARK, RELEASED_IDS, STOP, entry
from tidewarp.twin.facts import stop_at_end
from tidewarp.twin.follow import EVENTS_PER_STEP
from tidewarp.twin.run import Run
from tidewarp.units import TICK_MAX, in_seconds, ticks

__all__ = ["MARK_INPUTS", "InlineHost"]

_TICK = itemgetter(Input._fields.index("tick"))
MARK_INPUTS = 2_000  # a mark after so many inputs: what a replay can name when it differs
_MARK_S = 60.0  # likewise after so many wall seconds of a paced run
_VIRTUAL_S_MAX = 9.2e9  # just inside int64 ns: a tiny factor reaches it in seconds
_STALL_S = 30.0  # how long a sink may make no progress at the end of a run


@dataclass(frozen=True)
class _Committed:
    ticket: int
    source: str
    positions: Mapping[int, int]
    future: Future[Any]


class _Stop:
    """Somebody asks the run to end."""


class InlineHost:
    """Runs one twin in the calling thread. ``stop`` may be called from any thread or signal handler."""

    def __init__(
        self,
        run: Run,
        gate: gates.Gate,
        outbox: outboxes.Outbox,
        journal: Journal,
        table: PathTable,
        identity: RunIdentity,
        clock: Clock,
        probe: Probe,
    ) -> None:
        self.lag_s_max = 0.0
        self._run, self._gate, self._outbox, self._journal = run, gate, outbox, journal
        self._table, self._identity, self._clock, self._probe = table, identity, clock, probe
        self._inbox: Inbox = queue.SimpleQueue()
        self._sources: dict[str, SourceThread] = {}
        self._sinks: dict[str, SinkThread] = {}
        self._retries: dict[str, float] = {}
        self._pacer = Pacer(0.0)
        self._stopping = False
        self._limit = 0
        self._marked = run.applied
        self._marked_s = 0.0
        self._asked = False  # the gate, in this run
        self._was_stopped = journal.size > 0 and stop_at_end(journal) is not None

    # ------------------------------------------------------------------ life
    def open_sinks(self, sinks: Mapping[str, Sink], released: Mapping[str, str]) -> None:
        """Open every sink and wait until each has said what it holds."""
        for name, sink in sinks.items():
            thread = SinkThread(sink, self._identity, released.get(name, ""), self._inbox, self._clock.now)
            self._sinks[name] = thread
        waiting = len(sinks)
        while waiting:
            message = self._inbox.get()
            self._take(message)
            waiting -= isinstance(message, outboxes.Opened)

    def last_ids(self) -> dict[str, str]:
        """Sink -> id of the last output that it holds, of the sinks that hold any."""
        return self._outbox.last_ids()

    def open_sources(self, sources: Mapping[str, Source]) -> None:
        """Start reading every source behind what the journal holds."""
        for name, source in sources.items():
            if name not in self._sources:
                self._gate.reopen(name, stopped=self._was_stopped)
                positions = self._gate.positions(name)
                self._sources[name] = SourceThread(source, positions, self._identity.epoch_ns, self._inbox)

    def stop(self) -> None:
        """End the present run at the next completed instant. Safe from any thread and from a signal handler."""
        self._stopping = True
        self._inbox.put(_Stop())

    def close(self) -> None:
        """End all connectors. Raises the first error that one of them met since the run, after closing all."""
        threads = (*self._sources.values(), *self._sinks.values())
        for thread in threads:
            thread.end()
        for thread in threads:
            thread.close()
        lost = [message for message in self._left() if isinstance(message, Lost)]
        if lost:
            raise lost[0].error

    # ------------------------------------------------------------------ the loop
    def go(self, until: int | None, factor: float) -> str:
        """Run to ``until`` (exclusive tick), or to the end of all data, or until stopped: "end" or "interrupted"."""
        self._pacer = Pacer(factor)
        # What has been delivered was due before this life: up to there it runs at full speed.
        self._marked_s = self._clock.now()
        self._pacer.start(self._marked_s, in_seconds(max(self._run.at, self._delivered_tick())))
        self._asked = False
        while True:
            self._take_all()
            goal = self._goal(until)
            if self._stopping or (self._run.at >= goal and self._run.settled):
                break
            if self._outbox.full:
                self._wait(None)
            elif self._progress(goal):
                self._probe.progress(in_seconds(self._run.at), None if goal == TICK_MAX else in_seconds(goal))
            else:
                self._wait(self._pause_s(goal))
        if self._pacer.factor > 0 and self._run.at < goal:
            self._progress(goal)  # to the present: nothing was due since it was last asked for
        reason = "interrupted" if self._stopping and self._run.at < goal else "end"
        self._stopping = False
        self._finish(reason)
        return reason

    def _goal(self, until: int | None) -> int:
        """Where this run ends, as far as that is known yet."""
        if until is not None:
            return until
        if self._gate.finished:
            return self._gate.end
        if not self._sources and self._run.env.peek() == float("inf"):
            return self._run.stop_tick
        return TICK_MAX

    def _progress(self, goal: int) -> bool:
        """Run one slice, if the lease and the pace allow one. False: there is nothing to do now."""
        self._limit = limit = min(goal, self._paced_limit(goal))
        if self._run.settled and self._run.at >= min(limit, self._run.lease):
            is_idle = limit < goal and limit <= self._upcoming(goal)
            if is_idle and self._pacer.factor > 0 and self._asked and not self._stopping:
                return False
            self._asked = True
            before = self._gate.floor
            self._perform(self._gate.handle(gates.Asked(limit)))
            if self._gate.floor == before:
                return False
        self._slice(limit)
        return True

    def _paced_limit(self, goal: int) -> int:
        """The first tick that is not yet due."""
        if self._pacer.factor > 0:
            now_s = self._clock.now()
            if self._run.lease > self._run.at:
                self.lag_s_max = max(self.lag_s_max, self._pacer.lag(now_s, in_seconds(self._run.next_tick)))
            return ticks(min(self._pacer.virtual(now_s), _VIRTUAL_S_MAX)) + 1
        if goal == TICK_MAX and not self._sources:
            return min(goal, self._run.next_tick + 1)  # neither data nor an end say how far: from event to event
        return TICK_MAX

    def _pause_s(self, goal: int) -> float | None:
        """How long to sleep if nothing arrives. None: as long as it takes."""
        upcoming = self._upcoming(goal)
        if self._pacer.factor == 0 or (upcoming < self._limit and self._gate.floor < self._limit):
            return None  # data, a commit or a sink is what the run waits for
        tick = max(self._limit, upcoming)
        if tick == TICK_MAX:
            return None
        return max(0.0, self._pacer.deadline(in_seconds(tick)) - self._clock.now())

    def _upcoming(self, goal: int) -> int:
        """When something happens next, as far as that is known: an event, an input, the end of the run."""
        return min(goal, self._run.next_tick, self._gate.next_tick)

    def _delivered_tick(self) -> int:
        """The tick of the last output that a sink holds; 0 if there is none."""
        return max((int(last_id[:16], 16) for last_id in self._outbox.last_ids().values()), default=0)

    def _slice(self, limit: int) -> None:
        try:
            outputs = self._run.step(limit, EVENTS_PER_STEP)
        except ModelError as error:
            self._give_up(error)
            raise
        stage("apply.after")
        self.release(outputs)
        if self._run.settled and self._mark_is_due():
            self._marked, self._marked_s = self._run.applied, self._clock.now()
            self._submit([entry(MARK, self._run.at, self._run.mark().document()), self._released()])

    def _mark_is_due(self) -> bool:
        """A mark also says how far a paced run has come, for the life after a kill."""
        if self._run.applied - self._marked >= MARK_INPUTS:
            return True
        return self._pacer.factor > 0 and self._clock.now() - self._marked_s >= _MARK_S

    def release(self, outputs: Sequence[Output]) -> None:
        """Hand outputs that GVT has passed to the sinks."""
        if outputs:
            self._perform_outbox(self._outbox.handle(outboxes.Published(outputs)))

    def release_and_wait(self, outputs: Sequence[Output]) -> None:
        """As `release`, then wait while a sink's queue is full: for a recovery, which has no loop of its own."""
        self.release(outputs)
        while self._outbox.full:
            self._wait(None)

    # ------------------------------------------------------------------ messages
    def _wait(self, timeout_s: float | None, clock: Clock | None = None) -> None:
        if self._retries:
            due = max(0.0, min(self._retries.values()) - self._clock.now())
            timeout_s = due if timeout_s is None else min(timeout_s, due)
        message = (clock or self._clock).wait(self._inbox, timeout_s)
        if message is not None:
            self._take(message)
        now_s = self._clock.now()
        if any(at_s <= now_s for at_s in self._retries.values()):
            self._retries = {name: at_s for name, at_s in self._retries.items() if at_s > now_s}
            self._perform_outbox(self._outbox.handle(outboxes.Woken(now_s)))

    def _take_all(self) -> None:
        for message in self._left():
            self._take(message)

    def _left(self) -> Iterator[Any]:
        """What the inbox holds at present, taken out one by one."""
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _take(self, message: Any) -> None:
        if isinstance(message, Lost):
            raise message.error
        if isinstance(message, _Committed):
            message.future.result()
            self._sources[message.source].confirm(message.positions)
            self._perform(self._gate.handle(gates.Appended(message.ticket)))
        elif isinstance(message, (outboxes.Opened, outboxes.Sent, outboxes.Failed)):
            self._perform_outbox(self._outbox.handle(message))
        elif not isinstance(message, _Stop):
            with collector_paused():
                self._perform(self._gate.handle(message))

    def _perform_outbox(self, instructions: Sequence[outboxes.Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, outboxes.Send):
                self._sinks[instruction.sink].send(instruction)
            else:
                self._retries[instruction.sink] = instruction.at_s

    def _perform(self, instructions: Sequence[gates.Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, gates.Grant):
                self._run.grant(instruction)
            elif isinstance(instruction, gates.Read):
                self._sources[instruction.source].read(instruction.limit)
            else:
                self._append(instruction)

    def _append(self, batch: gates.Append) -> None:
        """Journal before apply: records and positions in one transaction; Appended follows when it is durable."""
        entries: list[Entry] = []
        if batch.inputs:
            tick = min(map(_TICK, batch.inputs))
            documents = encode_inputs(batch.source, batch.admitted, batch.inputs, self._table, batch.columns)
            entries += [Entry(INPUT, timed_body(tick, document)) for document in documents]
        if batch.letters or batch.counted:
            document = encode_dead(batch.source, batch.admitted, batch.letters, batch.counted, batch.moved)
            entries.append(Entry(INPUT, timed_body(batch.admitted, document)))
        if batch.ended:
            entries.append(Entry(INPUT, timed_body(batch.admitted, encode_ended(batch.source, batch.admitted))))
        self._probe.add("inputs", len(batch.inputs))
        stage("journal.before")
        future = self._journal.submit(entries, cursors={batch.source: pack_positions(batch.positions)})
        message = _Committed(batch.ticket, batch.source, batch.positions, future)
        future.add_done_callback(lambda _: self._inbox.put(message))

    # ------------------------------------------------------------------ the end of a run
    def _submit(self, entries: Sequence[Entry]) -> None:
        """Marks need not be waited for; an error of theirs also fails the next append."""
        self._journal.submit(entries)

    def _released(self) -> Entry:
        return entry(RELEASED_IDS, self._run.at, {"tick": self._run.at, "sinks": self._outbox.last_ids()})

    def _finish(self, reason: str) -> None:
        """Come to rest at a completed instant, deliver everything, write where it is."""
        tick = self._run.stop_tick
        while not (self._run.at >= tick and self._run.settled):
            self._slice(tick)
        self._perform(self._gate.handle(gates.Paused()))
        while self._gate.appending:
            self._wait(None)
        stalled = self._flush()
        mark = self._run.mark(final=True)
        stop = entry(STOP, mark.tick, {"tick": mark.tick, "reason": reason, "detail": stalled or ""})
        self._journal.append([entry(MARK, mark.tick, mark.document()), self._released(), stop])
        if stalled:
            raise OperatorError(stalled, "a run ends when its sinks hold all outputs", "mend the sink, then --resume")

    def _flush(self) -> str | None:
        """Wait for the sinks; None, or which of them made no progress for too long.

        Retries go by the twin's clock, which may be a simulated one; a sink at work takes its time by the wall.
        """
        wall, backlog = WallClock(), self._outbox.backlog
        since_s, wall_since_s = self._clock.now(), wall.now()
        while self._outbox.backlog:
            self._wait(_STALL_S, self._clock if self._retries else wall)
            if self._outbox.backlog != backlog:
                backlog, since_s, wall_since_s = self._outbox.backlog, self._clock.now(), wall.now()
            elif max(self._clock.now() - since_s, wall.now() - wall_since_s) >= _STALL_S:
                name, count = next(iter(backlog.items()))
                return f"sink {name!r}: {count} outputs not delivered ({self._outbox.reason(name) or 'no answer'})"
        return None

    def _give_up(self, error: ModelError) -> None:
        """The model raised: deliver what came before, and let the journal say where the run ended and why."""
        self._perform(self._gate.handle(gates.Paused()))
        self.release(self._run.salvage())
        self._flush()
        stop = entry(STOP, self._run.at, {"tick": self._run.at, "reason": "model", "detail": error.value})
        self._journal.append([self._released(), stop])
