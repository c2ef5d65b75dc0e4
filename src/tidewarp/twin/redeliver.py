"""Outputs that a sink lacks, made again from the journal: the run from its beginning, without its sources, into one sink."""

from __future__ import annotations

import contextlib
import math
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidewarp.clocks import WallClock
from tidewarp.connect import outbox as outboxes
from tidewarp.connect.contract import Output, RunIdentity, Sink
from tidewarp.connect.shell import Inbox, Lost, SinkThread
from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import open_store
from tidewarp.twin.documents import RELEASED_IDS, entry
from tidewarp.twin.facts import opening_of, released_before
from tidewarp.twin.follow import Follower, differs
from tidewarp.twin.model import changed_files
from tidewarp.twin.opening import open_twin, refuse_changed_files
from tidewarp.twin.redrive import stop_again
from tidewarp.twin.replay import recorded_model
from tidewarp.twin.session import Build, Twin

__all__ = ["Redelivered", "open_recorded", "redeliver"]


@dataclass(frozen=True)
class Redelivered:
    """``done``: outputs that were sent. ``left``: those that the sink did not take in time, ``reason`` says why.

    ``skipped``: it held them. ``dead``: it refuses them for good. ``last_id``: what it is done with.
    """

    done: int
    left: int
    skipped: int
    dead: int
    last_id: str | None
    reason: str


def redeliver(
    journal: str | Path,
    sink: str,
    build: Build | None = None,
    *,
    accept_model: bool = False,
    probe: Probe = SILENT,
) -> Redelivered:
    """Send ``sink`` the outputs above the last id that it holds, up to where the journal comes to rest.

    Nobody else may write the journal meanwhile. Blocks; memory is bounded by the sink's queue.

    Args:
        journal: the file.
        sink: its name, as the model connects it.
        build: the model; None loads it from the path that the journal recorded, relative to its folder.
        accept_model: also with changed files of the model.
        probe: receives progress.

    Raises:
        MissingExtra: the sink cannot be reached.
        OperatorError: no such sink or journal. ModelError: the model came out differently from its own journal.
    """
    path = Path(journal)
    with contextlib.closing(open_store(journal)) as store:
        opened = opening_of(store.journal)
        twin = Twin(
            build or recorded_model(opened.model, path),
            seed=opened.seed,
            epoch_ns=opened.epoch_ns,
            live=False,
            probe=probe,
        )
        if not accept_model:
            refuse_changed_files(opened, twin, path)
        twin._wire()
        if sink not in twin._sinks:
            known = ", ".join(sorted(twin._sinks)) or "none"
            raise OperatorError(f"sink {sink!r}", f"the model has {known}", "name one of these")
        if twin._outbox.delivery(sink).early:
            rule = "what a sink with release='early' lacks, the next life of the twin tells it"
            raise OperatorError(f"sink {sink!r}", rule, "run the twin with --resume")
        delivery, released = twin._outbox.delivery(sink), released_before(store.journal)
        identity = twin._identity(store.journal.domain)._replace(form=delivery.form)
        with _Delivery(twin._sinks[sink], delivery, identity, released.get(sink, "")) as sent:
            follower = Follower(store.journal, twin._gate, twin._run, sent.release, probe=probe)
            follower.follow()
            follower.follow_ahead(all_of_it=True)
            if follower.first_difference is not None:
                raise differs(follower.first_difference, changed_files(opened.model, twin._model))
            result = sent.finish()
        if result.done and result.last_id:
            told = {"tick": twin._run.at, "sinks": {sink: result.last_id}, "gvt": 0}
            store.journal.append([entry(RELEASED_IDS, twin._run.at, told), *stop_again(store.journal)])
        return result


def open_recorded(
    journal: str | Path, build: Build | None = None, *, accept_model: bool = False, probe: Probe = SILENT
) -> Twin:
    """As ``tw.open`` of a journal that exists, with the model that it has recorded unless another is given."""
    with contextlib.closing(open_store(journal, read_only=True)) as store:
        build = build or recorded_model(opening_of(store.journal).model, Path(journal))
    return open_twin(journal, build, accept_model=accept_model, probe=probe)


class _Delivery:
    """One sink and its outbox, served by whoever makes the outputs: it waits while the queue is full."""

    def __init__(self, sink: Sink, delivery: outboxes.Delivery, identity: RunIdentity, released: str) -> None:
        self._name, self._stall_s, self._clock = sink.name, delivery.stall_s, WallClock()
        self._outbox = outboxes.Outbox()
        self._outbox.register(sink.name, replace(delivery, spill=0))
        self._inbox: Inbox = queue.SimpleQueue()
        self._retry_s = math.inf
        self._thread = SinkThread(sink, identity, released, self._inbox, self._clock.now)

    def __enter__(self) -> _Delivery:
        try:
            first = self._inbox.get()
            if isinstance(first, outboxes.Failed):
                value = f"sink {self._name!r}: {first.reason}"
                raise MissingExtra(value, "it cannot be reached", "start it, or see to the connection, then again")
            self._take(first)
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.close()

    def release(self, outputs: Sequence[Output]) -> None:
        """Hand these to the sink; blocks while its queue is full. Once it has stalled, what comes is only counted."""
        self._perform(self._outbox.handle(outboxes.Published(outputs, self._clock.now())))
        self._wait_while(lambda: self._outbox.full)
        self._outbox.spills = self._outbox.spills or self._outbox.full

    def finish(self) -> Redelivered:
        """Wait until it holds all, or makes no progress."""
        self._outbox.ending = True
        self._wake()
        self._wait_while(lambda: bool(self._outbox.backlog))
        counts = self._outbox.counts()[self._name]
        left = self._outbox.backlog.get(self._name, 0) + counts["behind"]
        reason = (self._outbox.reason(self._name) or "no answer") if left else counts["refusal"] or ""
        return Redelivered(counts["sent"], left, counts["skipped"], counts["dead"], counts["last_id"], reason)

    def _wait_while(self, is_so: Callable[[], bool]) -> None:
        """At most as long as it makes progress."""
        backlog, since_s = self._outbox.backlog, self._clock.now()
        while is_so():
            now_s = self._clock.now()
            if self._outbox.backlog != backlog:
                backlog, since_s = self._outbox.backlog, now_s
            if now_s >= since_s + self._stall_s:
                return
            message = self._clock.wait(self._inbox, min(since_s + self._stall_s, self._retry_s) - now_s)
            if message is not None:
                self._take(message)
            if self._clock.now() >= self._retry_s:
                self._retry_s = math.inf
                self._wake()

    def _wake(self) -> None:
        self._perform(self._outbox.handle(outboxes.Woken(self._clock.now())))

    def _take(self, message: Any) -> None:
        if isinstance(message, Lost):
            raise message.error
        self._perform(self._outbox.handle(message))

    def _perform(self, instructions: Sequence[outboxes.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case outboxes.Send():
                    self._thread.send(instruction)
                case outboxes.Reopen():
                    self._thread.reopen()
                case outboxes.Retry():
                    self._retry_s = min(self._retry_s, instruction.at_s)
