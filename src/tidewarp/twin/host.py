"""The host: the loop that paces a run, which is here (inline) or in a process of its own (forked).

One turn: take what the inbox holds; ask the gate for a lease; let the model run in slices up to it; hand the outputs on
once GVT has passed them. When nothing can go on, it sleeps until something arrives or the next instant is due. What gate
and outbox ask is done by who owns it: run, journal, sources, sinks. Connectors have threads, the model has not.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidewarp.clocks import Clock
from tidewarp.collector import collector_paused
from tidewarp.connect import gate as gates
from tidewarp.connect import outbox as outboxes
from tidewarp.connect.contract import Decoder, Input, Output, RunIdentity, Sink, Source
from tidewarp.connect.documents import PathTable
from tidewarp.connect.shell import Inbox, Lost
from tidewarp.errors import ModelError, OperatorError
from tidewarp.observe import Probe, stage
from tidewarp.store import Journal
from tidewarp.twin.admissions import Admissions, Committed
from tidewarp.twin.attended import NOTED, Attended, Woken
from tidewarp.twin.dispatcher import Dispatcher
from tidewarp.twin.documents import MARK, STOP, entry
from tidewarp.twin.early import complete_below
from tidewarp.twin.facts import holds_run, stop_at_end
from tidewarp.twin.follow import EVENTS_PER_STEP
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.intake import Intake
from tidewarp.twin.marks import Marks
from tidewarp.twin.outlook import Outlook
from tidewarp.twin.output_commit import OutputCommit, Told
from tidewarp.twin.pace import Pace
from tidewarp.twin.repair import Rebuild
from tidewarp.twin.retries import Retries
from tidewarp.twin.run import Run
from tidewarp.units import TICK_MAX, in_seconds

__all__ = ["MARK_INPUTS", "Host"]

MARK_INPUTS = 2_000  # a mark after so many inputs: what a replay can name when it differs
_MARK_S = 60.0  # likewise after so many wall seconds of a paced run
_DRAIN_S = 0.001  # how long arrivals may keep a paced run from its next slice
_PACED_EVENTS = 1_000  # of one slice of a paced run, likewise


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
        self._run, self._gate, self._outbox, self._journal = run, gate, outbox, journal
        self._identity, self._clock, self._probe, self._rebuild = identity, clock, probe, rebuild
        self._is_new = not holds_run(journal)
        self._was_stopped = stop_at_end(journal) is not None
        self._inbox: Inbox = queue.SimpleQueue()
        inbox, spend = self._inbox, self._spend
        self._retries = Retries(clock)
        self._admissions = Admissions(journal, table, inbox, clock, spend)
        self._intake = Intake(gate, identity, inbox, clock, self._retries, self._present)
        self._dispatcher = Dispatcher(outbox, identity, place, inbox, clock, self._retries, is_new=self._is_new)
        self._output_commit = OutputCommit(gate, outbox, self._dispatcher, journal, inbox, clock, spend)
        self._marks = Marks(run, journal, clock, self._output_commit.record, MARK_INPUTS, _MARK_S)
        self._pace = Pace(clock, 0.0)
        self._stopping = False
        self._limit = 0
        self._asked = False  # the gate, in this run
        self._heard_s = 0.0  # when what is handled now had come
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

    @property
    def horizon_cuts(self) -> int:
        """How often GVT was moved up because too many outputs waited for the horizon."""
        return self._output_commit.horizon_cuts

    # ------------------------------------------------------------------ life
    def open_sinks(self, sinks: Mapping[str, Sink], released: Mapping[str, str]) -> None:
        """Open every sink and wait until each has said what it holds, or that it cannot be reached now."""
        self._dispatcher.open(sinks, released, self._take)
        if not self._is_new:
            self._output_commit.take_back(released)

    def last_ids(self) -> dict[str, str]:
        """Sink -> id of the last output that it holds, of the sinks that hold any."""
        return self._outbox.last_ids()

    def delivered_tick(self) -> int:
        """The tick of the last output that a sink holds; -1 if there is none."""
        last_ids = map(complete_below, self._outbox.last_ids().values())
        return max((int(last_id[:16], 16) for last_id in last_ids), default=-1)

    def open_sources(
        self, sources: Mapping[str, Source], decoders: Mapping[str, Callable[[int], Decoder | None]]
    ) -> None:
        """Start reading every source behind what the journal holds; ``decoders`` take the place of their own."""
        self._intake.open(sources, decoders, stopped=self._was_stopped)

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
        threads = (*self._intake.threads.values(), *self._dispatcher.all_threads)
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
        self._marks.begin()
        self._output_commit.begin()
        self._asked = False
        outlook = Outlook(self._gate, pace, self._clock, until, has_sources=bool(self._intake.threads))
        while True:
            self._take_all()
            self._repair()
            self._heed()
            goal = outlook.goal(self._run)
            if self._stopping or pace.too_late or (self._run.at >= goal and self._run.settled):
                break
            self._outbox.spills = pace.keeps_up or (pace.factor > 0 and self._outbox.is_cut_off)
            if self._outbox.full or pace.paused:
                self._wait(self._until_observed_s(None))
            elif self._progress(outlook, goal):
                self._probe.progress(in_seconds(self._run.at), None if goal == TICK_MAX else in_seconds(goal))
            else:
                self._wait(self._until_observed_s(outlook.pause_s(self._run, goal, self._limit)))
            self._output_commit.settle(self._run.at, goal, pace.factor, is_repairing=self._repair_from < TICK_MAX)
        if pace.factor > 0 and not pace.paused and self._run.at < goal:
            self._progress(outlook, goal)  # to the present: nothing was due since it was last asked for
        is_cut = self._run.at < goal
        reason = "interrupted" if self._stopping and is_cut else "lag" if pace.too_late and is_cut else "end"
        self._stopping = False
        self._finish(reason)
        self._outages.look(math.inf)
        return reason

    def _progress(self, outlook: Outlook, goal: int) -> bool:
        """Run one slice, if the lease and the pace allow one. False: there is nothing to do now."""
        self._limit = limit = min(goal, outlook.limit(self._run, goal))
        if self._pace.too_late:
            return True
        if goal == TICK_MAX and outlook.is_free:
            self._slice_freely()
            return True
        if self._run.settled and self._run.at >= min(limit, self._run.lease):
            is_idle = limit < goal and limit <= outlook.upcoming(self._run, goal)
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

    def _slice_freely(self) -> None:
        """One slice without a limit: the floor follows the run, and what the program sets then lies behind it."""
        self._run.grant(gates.Grant(TICK_MAX, ()))
        self._slice(TICK_MAX)
        self._perform(self._gate.handle(gates.Passed(self._run.stop_tick)))
        self._run.grant(gates.Grant(self._gate.floor, ()))

    def _present(self) -> int:
        """The tick for what arrives now: that of virtual time by the wall. Called by threads of sources.

        The clock cannot pass what is on its way to the journal. So in a burst, when there is always something on its way,
        a message gets the time at which it is likely to be durable, and the clock goes on meanwhile.
        """
        ahead_s = self._admissions.way_s if self._pace.keeps_up and self._gate.appending else 0.0
        return self._pace.present(ahead_s)

    def _slice(self, limit: int) -> None:
        begin_s = self._clock.now()
        try:
            outputs = self._run.step(limit, _PACED_EVENTS if self._pace.keeps_up else EVENTS_PER_STEP)
        except ModelError as error:
            self._give_up(error)
            return
        self._spend("model", begin_s)
        stage("apply.after")
        self._output_commit.take(outputs)
        self._marks.note(self._run, is_paced=self._pace.factor > 0)
        self._marks.journal(self._gate.gvt, self._run.at)

    def _repair(self) -> None:
        """Execute again from the first input that came in below the floor."""
        if self._repair_from == TICK_MAX:
            return
        tick, self._repair_from = self._repair_from, TICK_MAX
        late, self._late = self._late, []
        self.repairs += 1
        self._probe.add("repairs")
        begin_s = self._clock.now()
        self._run, begin, outputs, error = self._rebuild(tick, late, self._output_commit.released_id)
        self._spend("model", begin_s)
        self._output_commit.replace(begin, outputs)
        self._marks.forget_above(tick)
        if error is not None:
            self._give_up(error)

    def release_recovered(self, outputs: Sequence[Output]) -> None:
        """Hand on what is made again in a recovery: a sink that is down must not keep a twin from coming back, so its file takes them."""
        self._outbox.spills = True
        self._output_commit.take_final(outputs)
        self._take_all()

    # ------------------------------------------------------------------ messages
    def _wait(self, timeout_s: float | None, clock: Clock | None = None) -> None:
        bounds_s = (timeout_s, self._retries.pause_s, self._output_commit.patience_s)
        timeout_s = min((one for one in bounds_s if one is not None), default=None)
        message = (clock or self._clock).wait(self._inbox, timeout_s)
        if message is not None:
            self._take(message)
        self._retries.perform()

    def _take_all(self) -> None:
        self._retries.perform()  # also of a run that never waits, since it is behind
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
            case Committed():
                self._perform(self._gate.handle(self._admissions.take(message)))
            case Told():
                self._output_commit.hear(message)
            case outboxes.Opened() | outboxes.Sent() | outboxes.Failed() | outboxes.Fetched() | outboxes.Unspilled():
                self._dispatcher.handle(message)
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

    def _perform(self, instructions: Sequence[gates.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case gates.Grant():
                    self._run.grant(instruction)
                case gates.Append():
                    self._log_letters(instruction)
                    self._probe.add("inputs", len(instruction.inputs))
                    self._admissions.submit(instruction, self._heard_s)
                case gates.Repair():
                    self._repair_from = min(self._repair_from, instruction.tick)
                    self._late += instruction.inputs
                case gates.Read() | gates.Confirm() | gates.Reconnect():
                    self._intake.perform(instruction)

    # ------------------------------------------------------------------ the end of a run
    def _finish(self, reason: str) -> None:
        """Come to rest at a completed instant, deliver everything, write where it is."""
        tick = self._run.stop_tick
        while not (self._run.at >= tick and self._run.settled):
            self._slice(tick)
        self._perform(self._gate.handle(gates.Paused()))
        while self._gate.appending or self._output_commit.is_telling:
            self._wait(None)
        self._repair()
        self._conclude()
        stalled = self._dispatcher.flush(self._wait)
        mark = self._run.mark(final=True)
        stop = entry(STOP, mark.tick, {"tick": mark.tick, "reason": reason, "detail": stalled or self._lacking()})
        self._journal.append([entry(MARK, mark.tick, mark.document()), self._output_commit.record(self._run.at), stop])
        self._is_unsealed = False
        if stalled:
            raise OperatorError(stalled, "a run ends when its sinks hold all outputs", "mend the sink, then --resume")

    def _conclude(self) -> None:
        """A stop is final: nothing below it changes any more, and all outputs leave."""
        self._marks.note_cuts(self._run)
        self._gate.handle(gates.Passed(self._run.at))
        self._marks.journal(self._gate.gvt, self._run.at)
        self._output_commit.conclude(self._run.at)

    def _give_up(self, error: ModelError) -> None:
        """The model raised: deliver what came before, let the journal say where the run ended and why, and raise it again.

        Unless a late input was on its way to the journal: then the run is executed again with it, and may not fail.
        """
        self._perform(self._gate.handle(gates.Paused()))
        self._output_commit.withhold(self._run.salvage())
        while self._gate.appending or self._output_commit.is_telling:
            self._wait(None)
        if self._repair_from < TICK_MAX:
            self._asked = False  # the gate shall read on
            self._repair()
            return
        self._conclude()
        stalled = self._dispatcher.flush(self._wait)
        detail = "; ".join(filter(None, (error.value, stalled or self._lacking())))
        stop = entry(STOP, self._run.at, {"tick": self._run.at, "reason": "model", "detail": detail})
        self._journal.append([self._output_commit.record(self._run.at), stop])
        raise error

    def _lacking(self) -> str:
        """Which sinks do not hold all outputs, and why."""
        return "; ".join(f"sink {name!r}: {told}" for name, told in self._outbox.lacking().items())
