"""The thin shell around the connectors: one thread with one event loop for each source and each sink.

It performs what gate and outbox ask and reports back through an inbox; it decides nothing. A connector that
blocks, blocks only itself.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewarp.connect import gate, outbox
from tidewarp.connect.contract import Decoder, Gap, Observation, Output, Raw, Readings, RunIdentity, Sink, Source
from tidewarp.connect.spill import SpillFile
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.observe import stage

__all__ = ["Inbox", "Lost", "SinkThread", "SourceThread", "SpillThread"]

_OBSERVE_S = 5.0
_CLOSE_S = 10.0  # how long a connector may take to finish what it does when it is told to close


@dataclass(frozen=True)
class Lost:
    """A connector ended with an error that no retry can mend."""

    name: str
    error: TidewarpError
    is_source: bool = False


Inbox = queue.SimpleQueue[Any]
"""What the host waits on. Bounded by construction: one read per source, one batch per sink, the appends under way."""

Job = Callable[[], Coroutine[Any, Any, Any]]


class _Thread:
    """One connector's thread and loop. What its jobs return goes to the inbox, and what they raise as Lost."""

    _is_source = False

    def __init__(self, name: str, inbox: Inbox, open: Job, close: Job) -> None:
        self._name = name
        self._inbox = inbox
        self._close_job = close
        self._loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=f"tidewarp-{name}", daemon=True)
        self._thread.start()
        self._beside(open)

    def _do(self, job: Job) -> None:
        """Have ``job`` done after those before it, the last of them before the connector closes."""
        self._call(lambda: self._jobs.put_nowait(job))

    def _beside(self, job: Job) -> None:
        """Have ``job``, which may wait for ever, done beside the others; it is cancelled when the connector closes."""

        def begin() -> None:
            task = self._loop.create_task(self._perform(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._call(begin)

    def _do_unless_ending(self, job: Job) -> None:
        """As `_do`, for what may wait for ever: it is cancelled, or left out, when the connector is told to close."""

        async def outer() -> None:
            if not self._ending:
                self._opening = self._loop.create_task(self._perform(job))
                await asyncio.wait([self._opening])
                self._opening = None

        self._do(outer)

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
            event = Lost(self._name, error, self._is_source)
        except BaseException as error:  # anybody's code: CancelledError and SystemExit too must be heard
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                return  # by us, at closing
            value = f"{self._name}: {type(error).__name__}: {error}"
            ended = OperatorError(value, "a connector ended with an error", "mend it, then --resume")
            event = Lost(self._name, ended, self._is_source)
        if event is not None:
            self._inbox.put(event)

    def end(self) -> None:
        """Begin to close, and wait for nothing."""

        def begin() -> None:
            self._ending = True
            if self._opening is not None:
                self._opening.cancel()
            self._jobs.put_nowait(None)

        self._call(begin)

    def close(self) -> None:
        """Finish what is under way, but for what waits; close the connector, end the thread. Safe to call twice."""
        self.end()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            value = f"{self._name}: still busy {_CLOSE_S:g} s after it was told to close"
            rule = "a connector waits in an await that can be cancelled, or not for long"
            self._inbox.put(Lost(self._name, OperatorError(value, rule, "give what it waits for a timeout")))


class SourceThread(_Thread):
    """Performs Read, Confirm and Reconnect for one source.

    ``now_s`` and ``present`` are read when messages come: host time, and the tick that virtual time has reached.
    ``decoder`` takes the place of the source's own.
    """

    _is_source = True

    def __init__(
        self,
        source: Source,
        positions: Mapping[int, int],
        epoch_ns: int,
        inbox: Inbox,
        now_s: Callable[[], float],
        present: Callable[[], int],
        decoder: Callable[[int], Decoder | None] | None = None,
    ) -> None:
        self._source, self._epoch_ns = source, epoch_ns
        self._decoder = decoder or source.decoder
        self._decodes: Decoder | None = None
        self._is_decoding = False
        self._now_s, self._present = now_s, present
        self._positions = dict(positions)
        super().__init__(source.name, inbox, self._open, source.close)

    async def _open(self) -> gate.Connected | gate.Disconnected | gate.Missing:
        try:
            await self._source.open(self._positions)
        except Gap as gap:
            return gate.Missing(self._source.name, gap, self._now_s())
        except OSError as error:
            return self._lost(error)
        if not self._is_decoding:
            self._is_decoding, self._decodes = True, self._decoder(self._epoch_ns)
        identity: Mapping[int, int] = getattr(self._source, "identity", dict)()
        return gate.Connected(self._source.name, self._decodes, self._epoch_ns, self._now_s(), identity)

    def _lost(self, error: OSError) -> gate.Disconnected:
        return gate.Disconnected(self._source.name, f"{type(error).__name__}: {error}", self._now_s())

    def reconnect(self, positions: Mapping[int, int], gap: Gap | None) -> None:
        """Open it again behind ``positions``: Connected, Disconnected or Missing reaches the inbox."""

        async def job() -> gate.Connected | gate.Disconnected | gate.Missing:
            self._positions = dict(positions)
            try:
                await self._source.close()
            except OSError:
                pass  # its connection is gone already
            if gap is not None:
                self._source.accept(gap)
            return await self._open()

        self._do_unless_ending(job)

    def read(self, limit: int) -> None:
        """Ask for at most ``limit`` messages: Arrived, Ended, Disconnected or Missing reaches the inbox."""

        async def job() -> gate.Arrived | gate.Ended | gate.Disconnected | gate.Missing:
            try:
                raws = await self._source.read(limit)
                self._prepare(raws)
            except Gap as gap:
                return gate.Missing(self._source.name, gap, self._now_s())
            except OSError as error:
                return self._lost(error)
            if raws is None:
                return gate.Ended(self._source.name)
            partitions: Collection[int] = getattr(self._source, "partitions", tuple)()
            return gate.Arrived(self._source.name, raws, self._now_s(), self._present(), partitions)

        self._beside(job)

    def _prepare(self, messages: Sequence[Raw] | Readings | None) -> None:
        """Let the decoder fetch here, where it stops no clock, what it needs to know: a schema from its registry."""
        prepare = getattr(self._decodes, "prepare", None)
        if prepare is not None and messages is not None and not isinstance(messages, Readings):
            for raw in messages:
                prepare(raw)

    def confirm(self, positions: Mapping[int, int]) -> None:
        """Tell the source what is durable. If it cannot be told now, the next confirmation, or life, says it again."""

        async def job() -> None:
            try:
                await self._source.confirm(positions)
            except OSError:
                return  # advice to the target: `read` meets the same outage, and reports it

        self._do(job)


class SpillThread(_Thread):
    """Performs Spill and Fetch for all sinks, so that no slow disk stops the clock. ``place(sink)`` is the path of its file.

    A file that fails (a full disk) takes nothing more in this life: Unspilled reaches the inbox, the run goes on.
    """

    def __init__(self, place: Callable[[str], Path], inbox: Inbox) -> None:
        self._place = place
        self._files: dict[str, SpillFile] = {}
        self._full: dict[str, str] = {}  # sink -> why its file takes nothing more

        async def nothing() -> None:
            return

        super().__init__("spill", inbox, nothing, self._remove)

    def spill(self, instruction: outbox.Spill) -> None:
        """Put these behind what waits in the file of their sink."""

        async def job() -> outbox.Unspilled | None:
            first_id = instruction.outputs[0].id
            if instruction.sink in self._full:  # what came behind a hole could never be delivered in order
                return outbox.Unspilled(instruction.sink, first_id, self._full[instruction.sink])
            try:
                if instruction.sink not in self._files:
                    self._files[instruction.sink] = SpillFile(self._place(instruction.sink))
                self._files[instruction.sink].append(instruction.outputs)
            except OSError as error:
                return self._fails(instruction.sink, first_id, error)
            return None

        self._do(job)

    def fetch(self, instruction: outbox.Fetch) -> None:
        """Take some back: Fetched reaches the inbox."""

        async def job() -> outbox.Fetched:
            outputs: list[Output] = []
            try:
                outputs = self._files[instruction.sink].take(instruction.count)
            except OSError as error:
                self._inbox.put(self._fails(instruction.sink, "", error))
            return outbox.Fetched(instruction.sink, outputs)

        self._do(job)

    def _fails(self, sink: str, first_id: str, error: OSError) -> outbox.Unspilled:
        self._full[sink] = f"its file: {error.strerror or error}"
        return outbox.Unspilled(sink, first_id, self._full[sink])

    async def _remove(self) -> None:
        for file in self._files.values():
            file.close()


class SinkThread(_Thread):
    """Performs Send and Reopen for one sink. ``now_s`` is read when something fails, to time its retry.

    ``unobserved`` counts the observations that it was not told.
    """

    def __init__(self, sink: Sink, run: RunIdentity, released: str, inbox: Inbox, now_s: Callable[[], float]) -> None:
        self._sink, self._identity, self._released = sink, run, released
        self._now_s = now_s
        self._opened = False
        self._is_open = self._is_observing = False
        self.unobserved = 0
        super().__init__(sink.name, inbox, self._open, sink.close)

    async def _open(self) -> outbox.Opened | outbox.Failed:
        try:
            last = await self._sink.open(self._identity)
        except OSError as error:
            return self._failed(error)
        if last is None and not self._opened:
            last = self._released
        self._opened = self._is_open = True
        return outbox.Opened(self._sink.name, last)

    def _failed(self, error: Exception) -> outbox.Failed:
        self._is_open = self._is_open and not isinstance(error, OSError)
        reason = f"{type(error).__name__}: {error}"
        return outbox.Failed(self._sink.name, reason, self._now_s(), isinstance(error, OSError))

    def reopen(self) -> None:
        """Close it and open it again: Opened or Failed reaches the inbox."""

        async def job() -> outbox.Opened | outbox.Failed:
            try:
                await self._sink.close()
            except OSError:
                pass  # what could not be flushed was not acknowledged: it is offered again
            return await self._open()

        self._do_unless_ending(job)

    def observe(self, rows: Sequence[Observation]) -> None:
        """Tell the sink, behind the batch under way. What it does not take is counted: nobody waits, nothing is repeated."""
        if self._is_observing or not self._is_open:
            self.unobserved += len(rows)
            return
        self._is_observing = True

        async def job() -> None:
            try:
                await asyncio.wait_for(self._sink.observe(rows), _OBSERVE_S)  # type: ignore[attr-defined]  # wiring asked
            except Exception:  # advice to people: `write` meets the same outage, and reports it
                self.unobserved += len(rows)
            finally:
                self._is_observing = False

        self._do(job)

    def send(self, batch: outbox.Send) -> None:
        """Write one batch: Sent or Failed reaches the inbox."""

        async def job() -> outbox.Sent | outbox.Failed:
            try:
                refused = await self._sink.write(batch.outputs)
            except TidewarpError:
                raise
            except Exception as error:
                return self._failed(error)
            stage("release.after")
            return outbox.Sent(self._sink.name, refused or [])

        self._do(job)
