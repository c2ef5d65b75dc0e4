"""The sinks of a run: what the outbox asks of them is done by their threads, or by the one of the spill files."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tidewarp.clocks import Clock, WallClock
from tidewarp.connect.contract import Output, RunIdentity, Sink
from tidewarp.connect.outbox import (
    Event,
    Failed,
    Fetch,
    Instruction,
    Opened,
    Outbox,
    Published,
    Reopen,
    Retry,
    Send,
    Spill,
    Woken,
)
from tidewarp.connect.shell import Inbox, SinkThread, SpillThread
from tidewarp.errors import OperatorError
from tidewarp.twin.early import is_early
from tidewarp.twin.retries import Retries

__all__ = ["Dispatcher"]

_OPEN_S: Final = 5.0  # how long sinks may take to open before a warning says so
_LOG = logging.getLogger("tidewarp.twin")


class Dispatcher:
    """Has a thread for each sink, by its name, and one for the files in which outputs wait for a slow one.

    Args:
        outbox: decides.
        identity: of the run, as sinks are told it.
        place: ``place(sink)`` is where its spill file goes.
        inbox: what the threads say reaches it; who empties it hands it to :meth:`handle`.
        clock: of the host.
        retries: of the host.
        is_new: does this run begin its journal?
    """

    def __init__(
        self,
        outbox: Outbox,
        identity: RunIdentity,
        place: Callable[[str], Path],
        inbox: Inbox,
        clock: Clock,
        retries: Retries,
        *,
        is_new: bool,
    ) -> None:
        self._outbox, self._identity, self._place = outbox, identity, place
        self._inbox, self._clock, self._retries, self._is_new = inbox, clock, retries, is_new
        self.threads: dict[str, SinkThread] = {}
        self._spill: SpillThread | None = None  # None: nothing was spilled yet

    @property
    def all_threads(self) -> Sequence[SinkThread | SpillThread]:
        """Those of the sinks, then the one of the spill files if there is one: who ends the run closes them."""
        return (*self.threads.values(), *([self._spill] if self._spill else []))

    def open(self, sinks: Mapping[str, Sink], released: Mapping[str, str], take: Callable[[Any], None]) -> None:
        """Open every sink and wait until each has said what it holds, or that it cannot be reached now.

        ``released``: the last id that the journal says each of them was given. ``take`` gets all messages that come meanwhile.
        """
        for name, sink in sinks.items():
            identity = self._identity._replace(form=self._outbox.delivery(name).form)
            thread = SinkThread(sink, identity, released.get(name, ""), self._inbox, self._clock.now)
            self.threads[name] = thread
        waiting = {*sinks}
        patience_s: float | None = _OPEN_S
        while waiting:
            try:
                message = self._inbox.get(timeout=patience_s)
            except queue.Empty:
                patience_s = None
                _LOG.warning("waiting for sinks to open: %s", ", ".join(sorted(waiting)))
                continue
            take(message)
            if isinstance(message, Opened | Failed):
                waiting.discard(message.sink)

    def publish(self, outputs: Sequence[Output], now_s: float, *, early: bool = False) -> None:
        """Hand them to the sinks at host time ``now_s``; ``early``: to those that do not wait for GVT."""
        self._perform(self._outbox.handle(Published(outputs, now_s, early)))

    def handle(self, event: Event) -> None:
        """Do what the outbox asks. Raises OperatorError: a sink does not hold what it should."""
        if isinstance(event, Opened):
            self._refuse_older(event)
        self._perform(self._outbox.handle(event))

    def _refuse_older(self, opened: Opened) -> None:
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

    def _perform(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send():
                    self.threads[instruction.sink].send(instruction)
                case Reopen():
                    self.threads[instruction.sink].reopen()
                case Retry():
                    self._retries.put("sink", instruction.sink, instruction.at_s, self._wake)
                case Spill():
                    self._spilling().spill(instruction)
                case Fetch():
                    self._spilling().fetch(instruction)

    def _wake(self) -> None:
        self._perform(self._outbox.handle(Woken(self._clock.now())))

    def _spilling(self) -> SpillThread:
        if self._spill is None:
            self._spill = SpillThread(self._place, self._inbox)
        return self._spill

    def flush(self, wait: Callable[[float, Clock], None]) -> str | None:
        """Wait for the sinks; None, or which of them made no progress for too long: each has its own time.

        ``wait(timeout_s, clock)`` sleeps until a message comes, and takes it. Retries go by the twin's clock, which may be a
        simulated one; a sink at work takes its time by the wall.
        """
        self._outbox.ending = True
        self._wake()
        wall = WallClock()
        moved: dict[str, tuple[int, float, float]] = {}  # sink -> its backlog, and since when, by both clocks
        while backlog := self._outbox.backlog:
            now_s, wall_s = self._clock.now(), wall.now()
            hopes: dict[str, float] = {}  # who may still make it, and for how long
            for name, count in backlog.items():
                if name not in moved or moved[name][0] != count:
                    moved[name] = count, now_s, wall_s
                idle_s = now_s - moved[name][1] if self._retries.holds("sink", name) else wall_s - moved[name][2]
                if (left_s := self._outbox.delivery(name).stall_s - idle_s) > 0:
                    hopes[name] = left_s
            if not hopes:
                return "; ".join(
                    f"sink {name!r}: {count} outputs not delivered ({self._outbox.reason(name) or 'no answer'})"
                    for name, count in backlog.items()
                )
            retries = any(self._retries.holds("sink", name) for name in hopes)
            wait(min(hopes.values()), self._clock if retries else wall)
        return None
