"""The side of a host that is turned to its program and to people: what they set, how they hold the clock, what they see."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tidewarp.clocks import Clock
from tidewarp.connect import gate as gates
from tidewarp.connect import outbox as outboxes
from tidewarp.connect.contract import RunIdentity
from tidewarp.connect.shell import Inbox, Lost
from tidewarp.twin.control import Control
from tidewarp.twin.dispatcher import Dispatcher
from tidewarp.twin.follow import EVENTS_PER_STEP
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.local import LocalQueue, raise_refusal
from tidewarp.twin.observations import STAGES, Observer
from tidewarp.twin.outages import Outages
from tidewarp.twin.output_commit import OutputCommit
from tidewarp.twin.pace import Pace
from tidewarp.units import TICK_MAX, in_seconds

if TYPE_CHECKING:
    from tidewarp.twin.run import Run

__all__ = ["NOTED", "Attended", "Woken"]


class Woken:
    """Somebody has set something, or wants another pace."""


_LETTERS_PER_S = 10  # dead letters that are logged, at most
_HABITS_S = 1.0  # how often it is asked which sources are late as a rule
NOTED = frozenset({Lost, gates.Connected, gates.Disconnected, outboxes.Opened, outboxes.Failed})
_LOG = logging.getLogger("tidewarp.twin")


class Attended:
    """Base of the host. Methods that say nothing else are called by the thread of the run."""

    _run: Run | ForkedRun
    _gate: gates.Gate
    _outbox: outboxes.Outbox
    _inbox: Inbox
    _clock: Clock
    _identity: RunIdentity
    _pace: Pace
    _dispatcher: Dispatcher
    _output_commit: OutputCommit
    _heard_s: float
    _is_new: bool
    _was_stopped: bool

    def __init__(self) -> None:
        self._local = LocalQueue()
        self._local_is_ready = False
        self._is_unsealed = False  # something was set since the journal says where the run stopped
        self.control = Control(lambda: self._inbox.put(Woken()))
        self._observe_s = 0.0
        self._observer: Observer | None = None
        self._letters_s, self._letters_told = -math.inf, 0  # from when on letters are counted, and how many were logged
        self._outages = Outages()
        self._habits_s, self._warned = 0.0, set[str]()  # when sources were asked for their habits, and which were named
        self._spent_s = dict.fromkeys(STAGES, 0.0)  # wall seconds

    if TYPE_CHECKING:  # what the host does

        def _perform(self, instructions: Sequence[gates.Instruction]) -> None: ...
        def _wait(self, timeout_s: float | None, clock: Clock | None = None) -> None: ...
        def _take_all(self) -> None: ...
        def _slice(self, limit: int) -> None: ...
        def _finish(self, reason: str) -> None: ...
        def _present(self) -> int: ...
        def delivered_tick(self) -> int: ...  # noqa: D102

    # ------------------------------------------------------------------ what the program sets
    def apply_later(self, changes: gates.Changes) -> None:
        """From any thread, while a run is under way: at the virtual time by the wall. Raises OperatorError: too many wait."""
        if self._local.put(self._present(), changes, self._gate.local_waiting):
            self._inbox.put(Woken())

    def queue(self, changes: gates.Changes) -> None:
        """Between two runs, for :meth:`apply_queued`. Raises OperatorError: too many wait."""
        self._local.put(0, changes, self._gate.local_waiting)

    def apply_queued(self) -> None:
        """Between two runs: where the clock stands, at once.

        Raises:
            RuleViolation: the state of the moment forbids it; that too is part of the run.
        """
        self._take_all()
        self._journal_local()
        offset = self._gate.local_offset
        if self._gate.local_tick > self._gate.floor:
            self._perform(self._gate.handle(gates.Asked(self._gate.local_tick, self._clock.now())))
            self._perform(self._gate.handle(gates.Paused()))
        while not (self._run.at >= self._gate.floor and self._run.settled):
            self._slice(self._gate.floor)
        self._perform(self._gate.handle(gates.Settled()))
        outputs = self._run.step(self._gate.floor, EVENTS_PER_STEP)
        self._output_commit.take(outputs)
        if isinstance(self._run, ForkedRun):
            self._run.digest()  # with it, the registry here shows what is there
        raise_refusal(outputs, offset)

    def settle_local(self) -> None:
        """A run has ended: what was set meanwhile is to be in the journal, for the next one."""
        if self._local:
            self._journal_local()

    def seal(self) -> None:
        """Before it is closed: let the journal say where the run stands, if something was set since it said so."""
        if self._is_unsealed and not self._run.failed:
            self._finish("end")

    def _journal_local(self) -> None:
        self._is_unsealed = True
        self._take_local()
        while self._gate.appending:
            self._wait(None)

    def _take_local(self) -> None:
        self._heard_s = self._clock.now()
        if self._local and not self._local_is_ready:
            self._gate.reopen_local(self.delivered_tick(), stopped=self._is_new or self._was_stopped)
            self._local_is_ready = True
        while updates := self._local.take():
            self._perform(self._gate.handle(gates.Local(updates)))

    # ------------------------------------------------------------------ what people see
    @property
    def lag_s(self) -> float:
        """Wall seconds by which what is to happen next is late. From any thread."""
        try:
            upcoming = min(self._run.next_tick, self._gate.next_tick)
        except IndexError:  # the last input was taken at this very moment
            upcoming = TICK_MAX
        return self._pace.lag_s(upcoming)

    def _heed(self) -> None:
        """Between two slices: wishes, and observations that are due."""
        self.control.heed(self._pace, self._standing_tick)
        now_s = self._clock.now()
        observer = self._observer or self._begin_to_observe(now_s)
        if now_s >= observer.due_s:
            self._look(observer, now_s)
        if now_s >= self._outages.due_s:
            self._outages.look(now_s)
        if now_s >= self._habits_s + _HABITS_S:
            self._habits_s = now_s
            self._warn_of_epoch()
            self._warn_of_habits()

    def _begin_to_observe(self, now_s: float) -> Observer:
        wanting = [thread for name, thread in self._dispatcher.threads.items() if self._outbox.delivery(name).observe]
        self._observer = Observer(self._observe_s, now_s, self._gate, self._outbox, wanting)
        return self._observer

    def _look(self, observer: Observer, now_s: float) -> None:
        late_s = self._pace.lag_s(self._gate.next_tick)
        observer.look(now_s, self._run.at, self.lag_s, late_s, self._output_commit.released_id, self._spent_s)

    def _look_last(self) -> None:
        """At the end: whoever watches is to see why a source has failed."""
        self._warn_of_epoch()
        if any(told["state"] == "failed" for told in self._gate.sources.told().values()):
            now_s = self._clock.now()
            observer = self._observer or self._begin_to_observe(now_s)
            if observer.due_s < math.inf:
                self._look(observer, now_s)

    def _spend(self, name: str, since_s: float) -> None:
        """One of STAGES was at work since then."""
        self._spent_s[name] += self._clock.now() - since_s

    def _note_connection(self, message: object) -> None:
        """A line of the log when a source or a sink goes down, and when it is back."""
        match message:
            case Lost(is_source=True):
                self._gate.sources.fail(message.name, str(message.error))
            case gates.Disconnected():
                self._outages.down(f"source {message.source}", message.reason, message.now_s)
            case gates.Connected():
                self._outages.opened(f"source {message.source}", message.now_s)
            case outboxes.Failed(passing=True):
                self._outages.down(f"sink {message.sink}", message.reason, message.now_s)
            case outboxes.Opened():
                self._outages.opened(f"sink {message.sink}", self._clock.now())

    def _warn_of_habits(self) -> None:
        """Once for each source whose messages come too late as a rule: so they do with a clock that is behind."""
        for name, habit in self._gate.sources.habits().items():
            if name in self._warned:
                continue
            self._warned.add(name)
            # The hold, and how far the clocks have drifted apart since the run began.
            held = self._clock.unix_ns() - self._identity.epoch_ns - self._pace.present()
            _LOG.warning(
                "source %s: most of what it sends comes %.2f s after its times (median), which is %.2f s too late: what late= "
                "says is done about each; connect it with hold='%.2f s' or more, or set its clock",
                name,
                in_seconds(held + habit.median),
                in_seconds(habit.median),
                math.ceil(100 * in_seconds(held + habit.most)) / 100,
            )

    def _warn_of_epoch(self) -> None:
        """Once for each source that sends nothing but what happened before time began: as a rule it is recorded data."""
        for name, tick in self._gate.sources.before_epoch().items():
            if name in self._warned:
                continue
            self._warned.add(name)
            _LOG.warning(
                "source %s: all that it has sent lies before the epoch, tick 0, the last of it by %.2f s: it was moved to where "
                "the clock stood; begin a new journal with the epoch= of the recording, or connect it with time='arrival'",
                name,
                -in_seconds(tick),
            )

    def _log_letters(self, batch: gates.Append) -> None:
        """A line at level INFO for each, as long as they are not many."""
        now_s = self._clock.now()
        if now_s >= self._letters_s + 1.0:
            self._letters_s, self._letters_told = now_s, 0
        shown = batch.letters[: _LETTERS_PER_S - self._letters_told]
        for letter in shown:
            why = letter.message.encode("unicode_escape").decode()
            _LOG.info("dead letter of source %s, message %d: %s", batch.source, letter.offset, why)
        self._letters_told += len(shown)
        if shown and len(shown) < len(batch.letters):
            _LOG.info("more dead letters of source %s are in the journal alone", batch.source)

    def _until_observed_s(self, pause_s: float | None) -> float | None:
        """At most so long may it sleep."""
        due_s = min(math.inf if self._observer is None else self._observer.due_s, self._outages.due_s)
        if due_s == math.inf:
            return pause_s
        left_s = max(0.0, due_s - self._clock.now())
        return left_s if pause_s is None else min(pause_s, left_s)

    def _standing_tick(self) -> int:
        """What is to happen next; where the run stands, which may be within a slice, if nobody knows."""
        upcoming = min(self._run.next_tick, self._gate.next_tick)
        return self._run.stop_tick if upcoming == TICK_MAX or self._pace.factor == 0 else upcoming

    def unobserved(self) -> Mapping[str, int]:
        """Sink -> observations that it was not told. From any thread."""
        return {name: thread.unobserved for name, thread in self._dispatcher.threads.items()}
