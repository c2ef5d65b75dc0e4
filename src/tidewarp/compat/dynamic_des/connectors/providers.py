"""Connectors of the user's own: each has a thread and a loop, and a bounded queue between it and the twin."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from tidewarp.clocks import Clock
from tidewarp.connect.contract import HEAD_BYTES, Observation, Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import event_payload, observation_payload
from tidewarp.connect.sources import python

__all__ = ["Provider", "QueueSink", "queue_source"]

_POLL_S = 0.01
_READ_S = 0.1  # how long a thread waits for an update before it hears of the end
_FAREWELL_S = 0.2  # for what a provider has taken out of its queue and not yet finished
_JOIN_S = 5.0

_log = logging.getLogger(__name__)


class Provider:
    """Runs ``provider.run(queue)`` until :meth:`stop`. An error of it is logged, and ends it alone."""

    def __init__(self, provider: Any, its_queue: queue.Queue[Any]) -> None:
        self.provider, self.queue = provider, its_queue
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"tidewarp-{type(provider).__name__}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._work())
            except asyncio.CancelledError:
                pass
            except Exception:
                _log.exception("%s has ended with an error", type(self.provider).__name__)

    async def _work(self) -> None:
        self._task = asyncio.current_task()
        await self.provider.run(self.queue)

    @property
    def pending(self) -> int:
        """Batches that it has not taken, and jobs that it says are under way."""
        return self.queue.qsize() + int(getattr(self.provider, "active_tasks", 0))

    def drain(self, clock: Clock, stall_s: float) -> None:
        """Wait while it makes progress: until nothing is pending, or nothing was taken for ``stall_s`` wall seconds."""
        never: queue.SimpleQueue[None] = queue.SimpleQueue()
        left, since_s = self.pending, clock.now()
        while (pending := self.pending) and self._thread.is_alive():
            if pending < left:
                left, since_s = pending, clock.now()
            elif clock.now() - since_s >= stall_s:
                break
            clock.wait(never, _POLL_S)
        if self.pending:
            _log.warning("%s: %d batches were not taken", type(self.provider).__name__, self.queue.qsize())
        elif self._thread.is_alive():
            clock.wait(never, _FAREWELL_S)

    def stop(self) -> None:
        """Cancel it, and wait for its end."""

        def cancel() -> None:
            if self._task is not None:
                self._task.cancel()

        try:
            self._loop.call_soon_threadsafe(cancel)
        except RuntimeError:  # it has ended already
            pass
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            _log.warning("%s does not end when it is cancelled", type(self.provider).__name__)


class QueueSink(Sink):
    """Puts batches of records into the queue of one provider, and waits while it is full."""

    kind = "queue"
    delivery = "at_least_once"

    def __init__(self, provider: Any, its_queue: queue.Queue[Any], name: str) -> None:
        self.name = name
        self._queue = its_queue
        self._run = RunIdentity("", 0)
        self.provider: Provider | None = None
        self._object = provider

    async def open(self, run: RunIdentity) -> str | None:
        """Start the provider, once. None: it does not tell what it has."""
        self._run = run
        if self.provider is None:
            self.provider = Provider(self._object, self._queue)
        return None

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """One list; it counts as delivered when it is in the queue."""
        records = [event_payload(output, self._run) for output in batch]
        while True:
            try:
                self._queue.put_nowait(records)
            except queue.Full:
                await asyncio.sleep(_POLL_S)
            else:
                return []

    async def observe(self, rows: Sequence[Observation]) -> None:
        """One list, if there is room; else it is lost, and counted."""
        self._queue.put_nowait([observation_payload(row, self._run) for row in rows])

    async def close(self) -> None:
        """Nothing. The provider goes on until its queue is drained, see :class:`Provider`."""


def queue_source(updates: queue.Queue[Any], name: str, begin: Callable[[], None]) -> python:
    """What is put into ``updates``, ``(path, value)`` each, as a source; anything else becomes a dead letter.

    ``begin`` is called when it is opened: those who put something there, or update by themselves, find a run under way,
    and need not wait for a model that computes.
    """

    def messages() -> AsyncIterator[Mapping[str, Any] | bytes]:
        begin()
        return taken()

    async def taken() -> AsyncIterator[Mapping[str, Any] | bytes]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="tidewarp-ingress") as thread:
            while True:
                try:
                    item = await loop.run_in_executor(thread, updates.get, True, _READ_S)
                except queue.Empty:
                    continue
                yield _message(item)

    return python(messages, name=name)


def _message(item: Any) -> bytes:
    try:
        path, value = item
        return msgspec.json.encode({"path": path, "value": value})
    except Exception:  # anybody's object: what has no form is kept as text, which its decoder refuses
        return repr(item)[:HEAD_BYTES].encode(errors="replace")
