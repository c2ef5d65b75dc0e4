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
    """One connector's thread and loop. What its jobs return goes to the inbox, and what they raise as Lost."""

    def __init__(self, name: str, inbox: Inbox, open: Job, close: Job) -> None:
        self._name = name
        self._inbox = inbox
        self._close_job = close
        self._loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"tidewarp-{name}", daemon=True)
        self._thread.start()
        self._beside(open)

    def _do(self, job: Job | None) -> None:
        """Have ``job`` done after those before it, the last of them before the connector closes. None ends the thread."""
        self._call(lambda: self._jobs.put_nowait(job))

    def _beside(self, job: Job) -> None:
        """Have ``job``, which may wait for ever, done beside the others; it is cancelled when the connector closes."""

        def begin() -> None:
            task = self._loop.create_task(self._perform(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._call(begin)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # its loop is closed already
            return

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        while (job := await self._jobs.get()) is not None:
            await self._perform(job)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # one that had not begun is cancelled outside of _perform
        await self._perform(self._close_job)

    async def _perform(self, job: Job) -> None:
        try:
            event = await job()
        except TidewarpError as error:
            event = Lost(self._name, error)
        except BaseException as error:  # anybody's code: CancelledError and SystemExit too must be heard
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                return  # by us, at closing
            value = f"{self._name}: {type(error).__name__}: {error}"
            event = Lost(self._name, OperatorError(value, "a connector ended with an error", "mend it, then --resume"))
        if event is not None:
            self._inbox.put(event)

    def end(self) -> None:
        """Begin to close, and wait for nothing."""
        self._do(None)

    def close(self) -> None:
        """Finish what is under way, but for what waits; close the connector, end the thread. Safe to call twice."""
        self.end()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            value = f"{self._name}: still busy {_CLOSE_S:g} s after it was told to close"
            rule = "a connector waits in an await that can be cancelled, or not for long"
            self._inbox.put(Lost(self._name, OperatorError(value, rule, "give what it waits for a timeout")))


class SourceThread(_Thread):
    """Performs Read for one source."""

    def __init__(self, source: Source, positions: Mapping[int, int], epoch_ns: int, inbox: Inbox) -> None:
        self._source = source

        async def connect() -> gate.Connected:
            await source.open(positions)
            return gate.Connected(source.name, source.decoder(epoch_ns))

        super().__init__(source.name, inbox, connect, source.close)

    def read(self, limit: int) -> None:
        """Ask for at most ``limit`` messages: Arrived or Ended reaches the inbox."""

        async def job() -> gate.Arrived | gate.Ended:
            raws = await self._source.read(limit)
            return gate.Ended(self._source.name) if raws is None else gate.Arrived(self._source.name, raws)

        self._beside(job)

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

        async def connect() -> outbox.Opened:
            last = await sink.open(run)
            return outbox.Opened(sink.name, released if last is None else last)

        super().__init__(sink.name, inbox, connect, sink.close)

    def send(self, batch: outbox.Send) -> None:
        """Write one batch: Sent or Failed reaches the inbox."""

        async def job() -> outbox.Sent | outbox.Failed:
            try:
                refused = await self._sink.write(batch.outputs)
            except OSError as error:  # may pass: a full disk, a lost connection
                return outbox.Failed(self._sink.name, str(error), self._now_s())
            stage("release.after")
            return outbox.Sent(self._sink.name, refused or [])

        self._do(job)
