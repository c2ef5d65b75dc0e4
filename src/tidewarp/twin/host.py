"""The host: performs what gate and outbox ask, and paces the run, which is here (inline) or in a process of its own (forked).

One turn of its loop: take what the inbox holds; ask the gate for a lease; let the model run in slices up to
it; hand the outputs on once GVT has passed them. When nothing can go on, it sleeps until something arrives or the next
instant is due. Connectors have threads, the model has not.
"""

from __future__ import annotations

import logging
import math
import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from tidewarp.clocks import Clock, WallClock
from tidewarp.codec import INPUT, timed_body
from tidewarp.connect import gate as gates
from tidewarp.connect import outbox as outboxes
from tidewarp.connect.contract import Decoder, Gap, Input, Output, RunIdentity, Sink, Source
from tidewarp.connect.documents import (
    PathTable,
    encode_dead,
    encode_ended,
    encode_gap,
    encode_inputs,
    encode_shed,
    pack_positions,
)
from tidewarp.connect.shell import Inbox, Lost, SinkThread, SourceThread, SpillThread
from tidewarp.errors import ModelError, OperatorError
from tidewarp.observe import Probe, stage
from tidewarp.store import Entry, Journal
from tidewarp.twin.attended import NOTED, Attended, Woken
from tidewarp.twin.collector import collector_paused
from tidewarp.twin.cuts import Cut, cut_entries
from tidewarp.twin.documents import MARK, RELEASED_IDS, STOP, Mark, entry
from tidewarp.twin.early import Early, complete_below, is_early
from tidewarp.twin.facts import stop_at_end
from tidewarp.twin.follow import EVENTS_PER_STEP
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.pace import Pace
from tidewarp.twin.repair import Rebuild
from tidewarp.twin.run import Run
from tidewarp.twin.withheld import Withheld
from tidewarp.units import TICK_MAX, in_seconds, ticks

__all__ = ["MARK_INPUTS", "Host"]

_LOG = logging.getLogger("tidewarp.twin")
_TICK = itemgetter(Input._fields.index("tick"))
MARK_INPUTS = 2_000  # a mark after so many inputs: what a replay can name when it differs
_MARK_S = 60.0  # likewise after so many wall seconds of a paced run
_DRAIN_S = 0.001  # how long arrivals may keep a paced run from its next slice
_PACED_EVENTS = 1_000  # of one slice of a paced run, likewise
_TELL_S = 0.02  # GVT is journaled so often at most
_AHEAD_MAX_S = 0.1  # how far ahead of the wall an arrival may be stamped
_CALMER = 0.98  # what the way of one batch to the disk still counts for after the next one
_OPEN_S = 5.0  # how long sinks may take to open before a warning says so
_AHEAD_S = 1.0  # by the wall: how far ahead GVT is promised where nothing can come in below the clock


@dataclass(frozen=True)
class _Committed:
    ticket: int
    heard_s: float
    submitted_s: float
    future: Future[Any]


@dataclass(frozen=True)
class _Told:
    """The journal holds this GVT."""

    gvt: int
    future: Future[Any]


class _Stop:
    """Somebody asks the run to end."""


class Host(Attended):
    """Runs one twin in the calling thread. ``stop`` may be called from any thread or signal handler.

    ``rebuild`` puts late inputs in their place below the floor; ``place(sink)`` is where the spill file of a sink goes.
    """

    def __init__(
        self,
        run: Run | ForkedRun,
        gate: gates.Gate,
        outbox: outboxes.Outbox,
        journal: Journal,
        table: PathTable,
        identity: RunIdentity,
        clock: Clock,
        probe: Probe,
        rebuild: Rebuild,
        place: Callable[[str], Path],
        observe_s: float = 0.0,
    ) -> None:
        super().__init__()
        self._observe_s = observe_s
        self.repairs = 0
        self.horizon_cuts = 0
        self._run, self._gate, self._outbox, self._journal = run, gate, outbox, journal
        self._table, self._identity, self._clock, self._probe = table, identity, clock, probe
        self._rebuild, self._place = rebuild, place
        self._inbox: Inbox = queue.SimpleQueue()
        self._sources: dict[str, SourceThread] = {}
        self._sinks: dict[str, SinkThread] = {}
        self._spill: SpillThread | None = None
        self._due: dict[tuple[str, str], tuple[float, Callable[[], None]]] = {}  # what is to be tried again, and when
        self._pace = Pace(clock, 0.0)
        self._stopping = False
        self._limit = 0
        self._marked = run.applied
        self._marked_s = 0.0
        self._asked = False  # the gate, in this run
        self._is_new = journal.size == 0
        self._was_stopped = journal.size > 0 and stop_at_end(journal) is not None
        self._withheld = Withheld()  # a repair may still replace them
        self._marks: deque[Mark | Cut] = deque()  # likewise
        self._cut_tick = run.cuts_from  # of the last cut that is journaled
        self._told_gvt = 0  # the journal holds it
        self._early = Early(journal.size) if outbox.early else None
        self._released_id = ""  # id of the last output that was released: none up to it is released again
        self._telling = False
        self._told_s = -_TELL_S
        self._heard_s = 0.0  # when what is handled now had come
        self._way_s = 0.0  # how long it takes at present until what has come is durable, and that is known here
        self._repair_from = TICK_MAX
        self._late: list[Input] = []  # from there on

    @property
    def run(self) -> Run | ForkedRun:
        """The run. A repair may put another one in its place."""
        return self._run

    @property
    def lag_s_max(self) -> float:
        """Wall seconds that the run was behind its pace, at most."""
        return self._pace.lag_s_max

    # ------------------------------------------------------------------ life
    def open_sinks(self, sinks: Mapping[str, Sink], released: Mapping[str, str]) -> None:
        """Open every sink and wait until each has said what it holds, or that it cannot be reached now."""
        for name, sink in sinks.items():
            identity = self._identity._replace(form=self._outbox.delivery(name).form)
            thread = SinkThread(sink, identity, released.get(name, ""), self._inbox, self._clock.now)
            self._sinks[name] = thread
        waiting = {*sinks}
        patience_s: float | None = _OPEN_S
        while waiting:
            try:
                message = self._inbox.get(timeout=patience_s)
            except queue.Empty:
                patience_s = None
                _LOG.warning("waiting for sinks to open: %s", ", ".join(sorted(waiting)))
                continue
            self._take(message)
            if isinstance(message, outboxes.Opened | outboxes.Failed):
                waiting.discard(message.sink)
        if self._early is not None and not self._is_new:
            said, early = self._outbox.last_ids(), self._outbox.early
            held = [(released if self._outbox.reason(name) else said).get(name, "") for name in early]
            self._tell(self._early.begin(held))

    def last_ids(self) -> dict[str, str]:
        """Sink -> id of the last output that it holds, of the sinks that hold any."""
        return self._outbox.last_ids()

    def open_sources(
        self, sources: Mapping[str, Source], decoders: Mapping[str, Callable[[int], Decoder | None]]
    ) -> None:
        """Start reading every source behind what the journal holds; ``decoders`` take the place of their own."""
        for name, source in sources.items():
            if name not in self._sources:
                self._gate.reopen(name, stopped=self._was_stopped)
                positions = self._gate.positions(name)
                self._sources[name] = SourceThread(
                    source,
                    positions,
                    self._identity.epoch_ns,
                    self._inbox,
                    self._clock.now,
                    self._present,
                    decoders.get(name),
                )

    def append(self, batches: Sequence[gates.Append]) -> None:
        """Journal what the gate admits between two runs; it is durable on return."""
        self._heard_s = self._clock.now()
        self._perform(batches)
        while self._gate.appending:
            self._wait(None)

    def stop(self) -> None:
        """End the present run at the next completed instant. Safe from any thread and from a signal handler."""
        self._stopping = True
        self._inbox.put(_Stop())

    def close(self) -> None:
        """End all connectors. Raises the first error that one of them met since the run, after closing all."""
        self._look_last()
        self._run.close()
        threads = (*self._sources.values(), *self._sinks.values(), *([self._spill] if self._spill else []))
        for thread in threads:
            thread.end()
        for thread in threads:
            thread.close()
        lost = [message for message in self._left() if isinstance(message, Lost)]
        if lost:
            raise lost[0].error

    # ------------------------------------------------------------------ the loop
    def go(self, until: int | None, pace: Pace) -> str:
        """Run to ``until`` (exclusive tick), or to the end of all data, or until stopped: "end" or "interrupted".

        "lag": it was later than its pace allows.
        """
        self._pace = pace
        self._outbox.ending = False
        self._marked_s = self._clock.now()
        self._told_gvt = max(self._told_gvt, self._gate.gvt)
        self._asked = False
        while True:
            self._take_all()
            self._repair()
            self._heed()
            goal = self._goal(until)
            if self._stopping or pace.too_late or (self._run.at >= goal and self._run.settled):
                break
            self._outbox.spills = pace.keeps_up
            if self._outbox.full or pace.paused:
                self._wait(self._until_observed_s(None))
            elif self._progress(goal):
                self._probe.progress(in_seconds(self._run.at), None if goal == TICK_MAX else in_seconds(goal))
            else:
                self._wait(self._until_observed_s(self._pause_s(goal)))
            self._settle()
        if pace.factor > 0 and not pace.paused and self._run.at < goal:
            self._progress(goal)  # to the present: nothing was due since it was last asked for
        is_cut = self._run.at < goal
        reason = "interrupted" if self._stopping and is_cut else "lag" if pace.too_late and is_cut else "end"
        self._stopping = False
        self._finish(reason)
        self._outages.look(math.inf)
        return reason

    def _goal(self, until: int | None) -> int:
        """Where this run ends, as far as that is known yet: behind the first instant at least, where the model begins."""
        if until is not None:
            return until
        if self._gate.sources.finished:
            return max(self._gate.end, self._run.at, 1)
        if not self._sources and self._run.next_tick == TICK_MAX:
            return max(self._run.stop_tick, 1)
        return TICK_MAX

    def _progress(self, goal: int) -> bool:
        """Run one slice, if the lease and the pace allow one. False: there is nothing to do now."""
        self._limit = limit = min(goal, self._paced_limit(goal))
        if self._pace.too_late:
            return True
        if goal == TICK_MAX and self._is_free:
            self._slice_freely()
            return True
        if self._run.settled and self._run.at >= min(limit, self._run.lease):
            is_idle = limit < goal and limit <= self._upcoming(goal)
            now_s = self._clock.now()
            silence_ends = now_s >= self._gate.silent_s  # then the gate has to hear what time it is
            if is_idle and self._pace.factor > 0 and self._asked and not self._stopping and not silence_ends:
                return False
            self._asked, self._heard_s = True, now_s
            before = self._gate.floor
            self._perform(self._gate.handle(gates.Asked(limit, now_s)))
            if self._gate.floor == before:
                return False
        self._slice(limit)
        return True

    @property
    def _is_free(self) -> bool:
        """Is there nothing that could hold the clock, or come in between two slices but from the program itself?"""
        is_held = self._gate.appending or self._gate.next_tick < TICK_MAX
        return self._pace.factor == 0 and not self._sources and not is_held

    def _slice_freely(self) -> None:
        """One slice without a limit: the floor follows the run, and what the program sets then lies behind it."""
        self._run.grant(gates.Grant(TICK_MAX, ()))
        self._slice(TICK_MAX)
        self._perform(self._gate.handle(gates.Passed(self._run.stop_tick)))
        self._run.grant(gates.Grant(self._gate.floor, ()))

    def _paced_limit(self, goal: int) -> int:
        """The first tick that is not yet due."""
        if self._pace.factor > 0:
            upcoming = self._run.next_tick
            is_due = self._run.lease > self._run.at or self._gate.sources.lives or upcoming < self._gate.reach
            return self._pace.limit(upcoming if is_due else None)  # else it is data that the run waits for
        if goal == TICK_MAX and (not self._sources or self._gate.sources.lives):
            upcoming = self._upcoming(goal)  # neither data nor an end say how far: from event to event
            return self._run.at if upcoming == TICK_MAX else min(goal, upcoming + 1)
        return TICK_MAX

    def _present(self) -> int:
        """The tick for what arrives now: that of virtual time by the wall. Called by threads of sources.

        The clock cannot pass what is on its way to the journal. So in a burst, when there is always something on its way,
        a message gets the time at which it is likely to be durable, and the clock goes on meanwhile.
        """
        ahead_s = self._way_s if self._pace.keeps_up and self._gate.appending else 0.0
        return self._pace.present(ahead_s)

    def _pause_s(self, goal: int) -> float | None:
        """How long to sleep if nothing arrives. None: as long as it takes."""
        now_s = self._clock.now()
        silent_s = self._gate.silent_s - now_s  # then a silent source lets the clock go on
        patience_s = None if silent_s == float("inf") else max(0.0, silent_s)
        upcoming = self._upcoming(goal)
        if self._pace.factor == 0 or (upcoming < self._limit and self._gate.floor < self._limit):
            return patience_s  # data, a commit or a sink is what the run waits for
        tick = max(self._limit, upcoming)
        if tick == TICK_MAX:
            return patience_s
        pause_s = self._pace.pause_s(tick)
        return pause_s if patience_s is None else min(pause_s, patience_s)

    def _upcoming(self, goal: int) -> int:
        """When something happens next, as far as that is known: an event, an input, the end of the run."""
        return min(goal, self._run.next_tick, self._gate.next_tick)

    def delivered_tick(self) -> int:
        """The tick of the last output that a sink holds; -1 if there is none."""
        last_ids = map(complete_below, self._outbox.last_ids().values())
        return max((int(last_id[:16], 16) for last_id in last_ids), default=-1)

    def _slice(self, limit: int) -> None:
        begin_s = self._clock.now()
        try:
            outputs = self._run.step(limit, _PACED_EVENTS if self._pace.keeps_up else EVENTS_PER_STEP)
        except ModelError as error:
            self._give_up(error)
            raise
        self._spend("model", begin_s)
        stage("apply.after")
        self._pass_on(outputs)
        self._note_cuts()
        if self._run.settled and self._mark_is_due():
            self._marked, self._marked_s = self._run.applied, self._clock.now()
            self._marks.append(self._run.mark())
        self._journal_marks()

    def _pass_on(self, outputs: Sequence[Output]) -> None:
        if self._tells_gvt:
            # A run that was made anew may stand before instants of which the one before it has told.
            fresh = [output for output in outputs if output.id > self._released_id]
            if self._early is not None:
                self._tell(self._early.tell(fresh, self._told_gvt))
            self._withheld.hold(fresh)
        else:
            self._tell_final(outputs)
            self.release(outputs)

    def _tell_final(self, outputs: Sequence[Output]) -> None:
        """Tell early sinks what nothing can change any more."""
        if self._early is not None:
            self._tell(self._early.tell(outputs, TICK_MAX, changeable=False))

    def _tell(self, records: Sequence[Output]) -> None:
        if records:
            self._perform_outbox(self._outbox.handle(outboxes.Published(records, self._clock.now(), early=True)))

    def _mark_is_due(self) -> bool:
        """A mark also says how far a paced run has come, for the life after a kill."""
        if self._run.applied - self._marked >= MARK_INPUTS:
            return True
        return self._pace.factor > 0 and self._clock.now() - self._marked_s >= _MARK_S

    def _journal_marks(self) -> None:
        """Those that no repair can change any more."""
        while self._marks and self._marks[0].tick <= self._gate.gvt:
            mark = self._marks.popleft()
            if isinstance(mark, Cut):
                self._cut_tick = mark.tick
                self._submit(cut_entries(mark))
            else:
                self._submit([entry(MARK, mark.tick, mark.document()), self._released()])

    def _note_cuts(self) -> None:
        """A run that goes back makes its cuts again."""
        last = max((mark.tick for mark in self._marks if isinstance(mark, Cut)), default=self._cut_tick)
        self._marks.extend(cut for cut in self._run.take_cuts() if cut.tick > last)

    # ------------------------------------------------------------------ GVT and repair
    @property
    def _tells_gvt(self) -> bool:
        """Could a later life come to another result above what the journal says? Then it says so before outputs leave."""
        return self._gate.sources.repairs or self._gate.sources.lives or self._gate.sources.has_local

    def _settle(self) -> None:
        """Release what GVT has passed, once the journal holds that it has."""
        self.release(self._withheld.leave(self._told_gvt))
        self._relieve()
        if not self._is_to_tell or self._telling or self._clock.now() - self._told_s < _TELL_S:
            return
        gvt = self._gate.gvt
        if self._gate.sources.arrivals_only and not self._gate.sources.repairs and self._pace.factor > 0:
            gvt = min(gvt + ticks(_AHEAD_S / self._pace.factor), TICK_MAX)
        self._telling, self._told_s = True, self._clock.now()
        future = self._journal.submit([self._released(gvt)])
        future.add_done_callback(lambda done: self._inbox.put(_Told(gvt, done)))

    @property
    def _is_to_tell(self) -> bool:
        """Has GVT passed an output that waits?"""
        first = self._withheld.first_tick
        return first is not None and first < self._gate.gvt

    def _relieve(self) -> None:
        """Too many outputs wait for the horizon: let GVT pass half of them now. What is later than that is beyond."""
        gvt = self._withheld.relief
        if gvt is None or gvt <= self._gate.gvt or self._repair_from < TICK_MAX:
            return
        before = self._gate.gvt
        self._gate.handle(gates.Passed(min(gvt, self._gate.floor)))
        self.horizon_cuts += self._gate.gvt > before

    def _repair(self) -> None:
        """Execute again from the first input that came in below the floor."""
        if self._repair_from == TICK_MAX:
            return
        tick, self._repair_from = self._repair_from, TICK_MAX
        late, self._late = self._late, []
        self.repairs += 1
        self._probe.add("repairs")
        begin_s = self._clock.now()
        self._run, begin, outputs = self._rebuild(tick, late, self._released_id)
        self._spend("model", begin_s)
        before = [one for one in self._withheld if one.id > begin] if self._early is not None else []
        self._withheld.replace(begin, outputs)
        if self._early is not None:
            self._tell(self._early.correct(before, outputs, self._told_gvt))
        self._marks = deque(mark for mark in self._marks if mark.tick <= tick)

    def release(self, outputs: Sequence[Output]) -> None:
        """Hand outputs that GVT has passed to the sinks."""
        if outputs:
            self._released_id = outputs[-1].id
            if self._early is not None:
                self._early.settle(outputs)
            begin_s = self._clock.now()
            self._perform_outbox(self._outbox.handle(outboxes.Published(outputs, begin_s)))
            self._spend("outbox", begin_s)

    def release_recovered(self, outputs: Sequence[Output]) -> None:
        """As `release`, for a recovery: a sink that is down must not keep a twin from coming back, so its file takes them."""
        self._outbox.spills = True
        self._tell_final(outputs)
        self.release(outputs)
        self._take_all()

    # ------------------------------------------------------------------ messages
    def _wait(self, timeout_s: float | None, clock: Clock | None = None) -> None:
        if self._due:
            due = max(0.0, min(at_s for at_s, _ in self._due.values()) - self._clock.now())
            timeout_s = due if timeout_s is None else min(timeout_s, due)
        if self._is_to_tell and not self._telling:
            timeout_s = _TELL_S if timeout_s is None else min(timeout_s, _TELL_S)
        message = (clock or self._clock).wait(self._inbox, timeout_s)
        if message is not None:
            self._take(message)
        now_s = self._clock.now()
        for key in [key for key, (at_s, _) in self._due.items() if at_s <= now_s]:
            self._due.pop(key)[1]()

    def _take_all(self) -> None:
        end_s = self._clock.now() + _DRAIN_S
        for message in self._left():
            self._take(message)
            if self._pace.keeps_up and self._clock.now() >= end_s:
                return

    def _left(self) -> Iterator[Any]:
        """What the inbox holds at present, taken out one by one."""
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _take(self, message: Any) -> None:
        self._heard_s = message.now_s if isinstance(message, gates.Arrived) else self._clock.now()
        if type(message) in NOTED:
            self._note_connection(message)
        match message:
            case Lost():
                raise message.error
            case _Committed():
                message.future.result()
                way_s = max(self._clock.now() - message.heard_s, _CALMER * self._way_s)
                self._way_s = min(way_s, _AHEAD_MAX_S)
                self._spend("journal", message.submitted_s)
                self._perform(self._gate.handle(gates.Appended(message.ticket)))
            case _Told():
                message.future.result()
                self._telling, self._told_gvt = False, max(self._told_gvt, message.gvt)
            case outboxes.Opened():
                self._refuse_older(message)
                self._perform_outbox(self._outbox.handle(message))
            case outboxes.Sent() | outboxes.Failed() | outboxes.Fetched() | outboxes.Unspilled():
                self._perform_outbox(self._outbox.handle(message))
            case Woken():
                self._take_local()
            case _Stop():
                pass
            case _:
                with collector_paused():
                    begin_s = self._clock.now()
                    instructions = self._gate.handle(message)
                    self._spend("decode", begin_s)
                    self._perform(instructions)

    def _refuse_older(self, opened: outboxes.Opened) -> None:
        """A key outlives its journal, and sinks know a run by its key: they would drop what is new as seen before."""
        if opened.last_id and is_early(opened.last_id) != self._outbox.delivery(opened.sink).early:
            raise OperatorError(
                f"sink {opened.sink!r}: it holds records up to {opened.last_id}",
                "a sink is early or final in all lives: the ids of its records differ",
                "give release= as before, or a new sink another name",
            )
        if self._is_new and opened.last_id and not self._outbox.was_offered(opened.sink):
            raise OperatorError(
                f"sink {opened.sink!r}: it holds outputs up to {opened.last_id} of an earlier journal with the same key",
                "this journal is new, and its outputs have the same ids",
                "move what the sink holds away, or the key beside the journal, or bring the earlier journal back",
            )

    def _perform_outbox(self, instructions: Sequence[outboxes.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case outboxes.Send():
                    self._sinks[instruction.sink].send(instruction)
                case outboxes.Reopen():
                    self._sinks[instruction.sink].reopen()
                case outboxes.Retry():
                    self._due["sink", instruction.sink] = instruction.at_s, self._wake_outbox
                case outboxes.Spill():
                    self._spilling().spill(instruction)
                case outboxes.Fetch():
                    self._spilling().fetch(instruction)

    def _wake_outbox(self) -> None:
        self._perform_outbox(self._outbox.handle(outboxes.Woken(self._clock.now())))

    def _spilling(self) -> SpillThread:
        if self._spill is None:
            self._spill = SpillThread(self._place, self._inbox)
        return self._spill

    def _perform(self, instructions: Sequence[gates.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case gates.Grant():
                    self._run.grant(instruction)
                case gates.Read():
                    self._sources[instruction.source].read(instruction.limit)
                case gates.Append():
                    self._append(instruction)
                case gates.Confirm():
                    if instruction.source in self._sources:  # a redrive opens none
                        self._sources[instruction.source].confirm(instruction.positions)
                case gates.Repair():
                    self._repair_from = min(self._repair_from, instruction.tick)
                    self._late += instruction.inputs
                case gates.Reconnect():
                    self._reconnect_later(instruction.source, instruction.at_s, instruction.gap)

    def _reconnect_later(self, name: str, at_s: float, gap: Gap | None) -> None:
        def reconnect() -> None:
            self._sources[name].reconnect(self._gate.positions(name), gap)

        self._due["source", name] = at_s, reconnect

    def _append(self, batch: gates.Append) -> None:
        """Journal before apply: records and positions in one transaction; Appended follows when it is durable."""
        entries: list[Entry] = []
        if batch.inputs:
            tick = min(map(_TICK, batch.inputs))
            documents = encode_inputs(batch.source, batch.admitted, batch.inputs, self._table, batch.columns)
            entries += [Entry(INPUT, timed_body(tick, document)) for document in documents]
        self._log_letters(batch)
        if batch.letters or batch.counted:
            document = encode_dead(batch.source, batch.admitted, batch.letters, batch.counted, batch.moved)
            entries.append(Entry(INPUT, timed_body(batch.admitted, document)))
        if batch.shed is not None:
            shed = batch.shed
            document = encode_shed(batch.source, batch.admitted, shed.counted, shed.positions, shed.ids)
            entries.append(Entry(INPUT, timed_body(batch.admitted, document)))
        if batch.ended:
            entries.append(Entry(INPUT, timed_body(batch.admitted, encode_ended(batch.source, batch.admitted))))
        self._probe.add("inputs", len(batch.inputs))
        stage("journal.before")
        if batch.gap is not None:
            gap = batch.gap
            document = encode_gap(batch.source, batch.admitted, gap.partition, gap.first, gap.end)
            entries.append(Entry(INPUT, timed_body(batch.admitted, document)))
        future = self._journal.submit(entries, cursors={batch.source: pack_positions(batch.positions)})
        message = _Committed(batch.ticket, self._heard_s, self._clock.now(), future)
        future.add_done_callback(lambda _: self._inbox.put(message))

    # ------------------------------------------------------------------ the end of a run
    def _submit(self, entries: Sequence[Entry]) -> None:
        """Marks need not be waited for; an error of theirs also fails the next append."""
        self._journal.submit(entries)

    def _released(self, gvt: int | None = None) -> Entry:
        told = {"tick": self._run.at, "sinks": self._outbox.last_ids(), "gvt": self._told_gvt if gvt is None else gvt}
        return entry(RELEASED_IDS, self._run.at, told)

    def _finish(self, reason: str) -> None:
        """Come to rest at a completed instant, deliver everything, write where it is."""
        tick = self._run.stop_tick
        while not (self._run.at >= tick and self._run.settled):
            self._slice(tick)
        self._perform(self._gate.handle(gates.Paused()))
        while self._gate.appending or self._telling:
            self._wait(None)
        self._repair()
        self._conclude()
        stalled = self._flush()
        lacking = "; ".join(f"sink {name!r}: {told}" for name, told in self._outbox.lacking().items())
        mark = self._run.mark(final=True)
        stop = entry(STOP, mark.tick, {"tick": mark.tick, "reason": reason, "detail": stalled or lacking})
        self._journal.append([entry(MARK, mark.tick, mark.document()), self._released(), stop])
        self._is_unsealed = False
        if stalled:
            raise OperatorError(stalled, "a run ends when its sinks hold all outputs", "mend the sink, then --resume")

    def _conclude(self) -> None:
        """A stop is final: nothing below it changes any more, and all outputs leave."""
        self._note_cuts()
        self._gate.handle(gates.Passed(self._run.at))
        self._journal_marks()
        if self._withheld.first_tick is not None:
            self._told_gvt = max(self._told_gvt, self._run.at)
            self._journal.append([self._released()])
            self.release(self._withheld.leave(TICK_MAX))

    def _flush(self) -> str | None:
        """Wait for the sinks; None, or which of them made no progress for too long: each has its own time.

        Retries go by the twin's clock, which may be a simulated one; a sink at work takes its time by the wall.
        """
        self._outbox.ending = True
        self._wake_outbox()
        wall = WallClock()
        moved: dict[str, tuple[int, float, float]] = {}  # sink -> its backlog, and since when, by both clocks
        while backlog := self._outbox.backlog:
            now_s, wall_s = self._clock.now(), wall.now()
            hopes: dict[str, float] = {}  # who may still make it, and for how long
            for name, count in backlog.items():
                if name not in moved or moved[name][0] != count:
                    moved[name] = count, now_s, wall_s
                idle_s = now_s - moved[name][1] if ("sink", name) in self._due else wall_s - moved[name][2]
                if (left_s := self._outbox.delivery(name).stall_s - idle_s) > 0:
                    hopes[name] = left_s
            if not hopes:
                return "; ".join(
                    f"sink {name!r}: {count} outputs not delivered ({self._outbox.reason(name) or 'no answer'})"
                    for name, count in backlog.items()
                )
            retries = any(("sink", name) in self._due for name in hopes)
            self._wait(min(hopes.values()), self._clock if retries else wall)
        return None

    def _give_up(self, error: ModelError) -> None:
        """The model raised: deliver what came before, and let the journal say where the run ended and why."""
        self._perform(self._gate.handle(gates.Paused()))
        salvaged = self._run.salvage()
        if self._early is not None:
            self._tell(self._early.tell(salvaged, self._told_gvt))
        self._withheld.hold(salvaged)
        while self._gate.appending or self._telling:
            self._wait(None)
        self._conclude()
        self._flush()
        stop = entry(STOP, self._run.at, {"tick": self._run.at, "reason": "model", "detail": error.value})
        self._journal.append([self._released(), stop])
