"""The thin shell around the connectors: one thread with one event loop for each source and each sink.

It performs what gate and outbox ask and reports back through an inbox; it decides nothing. A connector that
blocks, blocks only itself.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from tidewarp.connect import gate, outbox
from tidewarp.connect.contract import RunIdentity, Sink, Source
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.observe import stage

__all__ = ["Inbox", "Lost", "SinkThread", "SourceThread"]

_CLOSE_S = 10.0  # how long a connector may take to finish what it does when it is told to close


@dataclass(frozen=True)
class Lost:
    """A connector ended with an error that no retry can mend."""

    name: str
    error: TidewarpError


Inbox = queue.SimpleQueue[Any]
"""What the host waits on. Bounded by construction: one read per source, one batch per sink, the appends under way."""

Job = Callable[[], Coroutine[Any, Any, Any]]


class _Thread:
    """Runs coroutines one after the other in a thread of its own; what each returns goes to the inbox."""

    def __init__(self, name: str, inbox: Inbox, close: Job) -> None:
        self._name = name
        self._inbox = inbox
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._close_job = close
        self._thread = threading.Thread(target=self._run, name=f"tidewarp-{name}", daemon=True)
        self._thread.start()

    def _do(self, job: Job) -> None:
        self._jobs.put(job)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (job := self._jobs.get()) is not None:
                self._perform(runner, job)
            self._perform(runner, self._close_job)

    def _perform(self, runner: asyncio.Runner, job: Job) -> None:
        try:
            event = runner.run(job())
        except TidewarpError as error:
            event = Lost(self._name, error)
        except BaseException as error:  # anybody's code: CancelledError and SystemExit too must be heard
            value = f"{self._name}: {type(error).__name__}: {error}"
            event = Lost(self._name, OperatorError(value, "a connector ended with an error", "mend it, then --resume"))
        if event is not None:
            self._inbox.put(event)

    def close(self) -> None:
        """Finish what is under way, close the connector, end the thread. Safe to call twice."""
        self._jobs.put(None)
        self._thread.join(_CLOSE_S)


class SourceThread(_Thread):
    """Performs Read for one source."""

    def __init__(self, source: Source, positions: Mapping[int, int], epoch_ns: int, inbox: Inbox) -> None:
        self._source = source
        super().__init__(source.name, inbox, source.close)

        async def connect() -> gate.Connected:
            await source.open(positions)
            return gate.Connected(source.name, source.decoder(epoch_ns))

        self._do(connect)

    def read(self, limit: int) -> None:
        """Ask for at most ``limit`` messages: Arrived or Ended reaches the inbox."""

        async def job() -> gate.Arrived | gate.Ended:
            raws = await self._source.read(limit)
            return gate.Ended(self._source.name) if raws is None else gate.Arrived(self._source.name, raws)

        self._do(job)

    def confirm(self, positions: Mapping[int, int]) -> None:
        """Tell the source what is durable."""

        async def job() -> None:
            await self._source.confirm(positions)

        self._do(job)


class SinkThread(_Thread):
    """Performs Send for one sink. ``now_s`` is read when a write fails, to time its retry."""

    def __init__(self, sink: Sink, run: RunIdentity, released: str, inbox: Inbox, now_s: Callable[[], float]) -> None:
        self._sink = sink
        self._now_s = now_s
        super().__init__(sink.name, inbox, sink.close)

        async def connect() -> outbox.Opened:
            last = await sink.open(run)
            return outbox.Opened(sink.name, released if last is None else last)

        self._do(connect)

    def send(self, batch: outbox.Send) -> None:
        """Write one batch: Sent or Failed reaches the inbox."""

        async def job() -> outbox.Sent | outbox.Failed:
            try:
                refused = await self._sink.write(batch.outputs)
            except OSError as error:  # may pass: a full disk, a lost connection
                return outbox.Failed(self._sink.name, str(error), self._now_s())
            stage("release.after")
            return outbox.Sent(self._sink.name, refused)

        self._do(job)
