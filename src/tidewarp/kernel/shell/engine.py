"""A model, an engine and a session: a run in progress."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import (
    CheckpointRefused,
    LateInput,
    ModelError,
    OperatorError,
    UnhandledMessage,
    UnknownDestination,
)
from tidewarp.kernel.arguments import whole
from tidewarp.kernel.checkpoints import Saved, decode, encode
from tidewarp.kernel.contract import Kernel, Statistics
from tidewarp.kernel.lp import handlers_of
from tidewarp.kernel.model import Model, Source
from tidewarp.kernel.objects import initial_image
from tidewarp.kernel.optimistic.kernel import OptimisticKernel
from tidewarp.kernel.options import Options
from tidewarp.kernel.publications import Publications
from tidewarp.kernel.records import Event, Image
from tidewarp.kernel.shell.choice import open_kernel
from tidewarp.kernel.shell.watchdog import WATCHDOG, Watch
from tidewarp.kernel.trace import Ledger, Output
from tidewarp.observe import SILENT, Probe
from tidewarp.units import TICK_MAX

__all__ = ["Engine", "Status", "end_of"]

_SILENT = -1  # the watermark of a source that has promised nothing and holds nothing back


class Status(Enum):
    """How far ``advance`` came."""

    DONE = "done"  # everything up to `until` is committed
    WAITING = "waiting"  # for the watermark of a source
    FULL = "full"  # committed outputs have to be taken first


class Engine:
    """A run in progress: advance it, feed it, take its outputs, look at it.

    Use it as a context manager; it holds threads and memory until it is closed. It may be called from one
    thread only. What it computes depends on the model, its inputs and how far it was advanced, not on the options.
    """

    def __init__(
        self,
        model: Model,
        options: Options | None = None,
        *,
        image: Image | None = None,
        saved: Saved | None = None,
        clock: Clock | None = None,
        probe: Probe = SILENT,
        **given: Any,
    ) -> None:
        if not isinstance(model, Model):
            raise ModelError(f"engine of {model!r:.80}", "it runs a Model", "build one with Model(name)")
        if options is not None and not isinstance(options, Options):
            raise OperatorError(
                f"options {options!r:.80}", "they come as an Options object or as keywords", "write e.g. workers=2"
            )
        if options is not None and given:
            raise OperatorError(
                f"options and {', '.join(given)}", "options come as one object or as keywords", "give one of both"
            )
        self.options = options or Options.of(given)
        model.freeze()
        self.model = model
        self.ledger = Ledger(model, self.options.digest, self.options.outputs_max)
        self.until = -1
        self._clock = clock or WallClock()
        self._probe = probe
        self.seconds = 0.0
        self._watermarks: dict[int, int] = {source.src: _SILENT for source in model.sources}
        self._counts: dict[int, int] = dict.fromkeys(self._watermarks, 0)
        self._publications = Publications(model)
        self._published = 0  # the last tick at which accumulators were sent
        self._resumed = 0  # where a checkpoint was taken up
        if saved is not None:
            self._take_up(saved)
            image = saved.image
        self._watch = Watch(model, self.options.handler_timeout_s)
        if image is None:
            WATCHDOG.begin(self._watch, None)
            try:
                image = initial_image(model)
            finally:
                WATCHDOG.end(self._watch, -1, [])
        self._kernel: Kernel = open_kernel(model, image, self.ledger, self.options)
        self._is_full = False
        self._barriers: list[tuple[int, int, Callable[[Engine], object]]] = []  # a heap: tick, number, call
        self._barrier_numbers = count()
        self._stands = False  # while a barrier's call runs
        self._given: set[tuple[int, ...]] = set()  # keys of inputs at or above GVT
        self._given_most = 1024
        self._entered = self._closed = False

    def __enter__(self) -> Self:
        self._check_open()
        if self._entered:
            raise OperatorError("an engine that was entered before", "its first block closes it", "enter it once")
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def gvt(self) -> int:
        """Everything below this tick is committed."""
        self._check_open()
        return max(self._kernel.gvt, self._resumed)

    def advance(self, until: int) -> Status:
        """Execute and commit all events up to ``until`` (ticks, inclusive); later ones stay pending, so a run can go on.

        Blocks for as long as that takes. WAITING: a source's watermark is not above ``until``. FULL: ``outputs`` first.
        On the way it stops at each :meth:`barrier` and runs its call.

        Raises:
            ModelError: a committed event broke a rule. Everything before it in key order is committed; the engine stays failed.
            PoolExhausted: the memory bound is below what the run needs.
            OperatorError: ``until`` lies behind, or this is the call of a barrier.
        """
        self._check_open()
        until = end_of(until)
        if self._stands:
            raise OperatorError(
                f"an advance to {until} within the call of a barrier",
                f"the run stands at tick {self.until} until the call returns",
                "return first; a checkpoint can be taken at the tick before a multiple of trace_interval",
            )
        if until < self.until:
            raise OperatorError(f"until {until}", f"the run has been advanced to {self.until}", "go on to a later tick")
        status = Status.DONE
        while status is Status.DONE and self._barriers and self._barriers[0][0] <= until:
            status = self._advance_to(self._barriers[0][0], until)
            if status is Status.DONE:
                self._stand(heappop(self._barriers)[2])
        return self._advance_to(until, until) if status is Status.DONE else status

    def _advance_to(self, stop: int, until: int) -> Status:
        """Advance to ``stop`` on the way to ``until``, under the watchdog."""
        held: list[str] = []
        WATCHDOG.begin(self._watch, self._kernel)
        started = self._clock.now()
        try:
            if isinstance(self._kernel, OptimisticKernel):
                self._kernel.end = until
            status = self._advance(stop)
            self.until = stop
            held = self._held()
        finally:
            self.seconds += self._clock.now() - started
            WATCHDOG.end(self._watch, self._kernel.gvt, held)
        self._probe.progress(self.ledger.committed, None)
        return status

    def _advance(self, until: int) -> Status:
        while (tick := self._publications.after(self._published)) <= until:
            status = self._advance_kernel(tick - 1)
            if status is not Status.DONE:
                return status
            self._publish(tick)
        return self._advance_kernel(until)

    def _advance_kernel(self, until: int) -> Status:
        safe = min([until + 1, *(tick for tick in self._watermarks.values() if tick != _SILENT)])
        self._kernel.advance(until, safe)
        if self._kernel.gvt > until:
            self._is_full = False
            return Status.DONE
        self._is_full = self.ledger.full  # then some events at GVT itself may be committed
        return Status.FULL if self._is_full else Status.WAITING

    def barrier(self, at: int, call: Callable[[Engine], object]) -> None:
        """Let :meth:`advance` stop at tick ``at`` and run ``call(engine)``, once, before it executes anything later.

        The state is then exact: everything up to ``at`` (inclusive) is committed and nothing beyond has begun. So what ``state``,
        ``outputs``, ``digest`` and ``checkpoint`` (at the tick before a multiple of ``trace_interval``) give there is what they give
        after ``advance(at)``; ``inject`` takes later ticks, and more barriers may be set. Barriers come in the order of their
        ticks, those of one tick as they were set. A barrier waits until the watermarks of all sources are above ``at``, and for
        outputs that have to be taken. It changes nothing of the run, its digest neither; it is not part of a checkpoint.

        What ``call`` raises ends the ``advance``; the barrier is used up, and another ``advance`` goes on from there.
        Every rank of an MPI run sets the same barriers; each runs ``call``, which uses the engine, or raises, on all of them alike.

        Raises:
            OperatorError: the run has been advanced beyond ``at``, or ``call`` cannot be called.
        """
        self._check_open()
        at = end_of(at, "a barrier at")
        if not callable(call):
            raise OperatorError(f"a barrier with {call!r:.80}", "it calls a function", "give one that takes the engine")
        if at < self.until:
            raise OperatorError(
                f"a barrier at {at}", f"the run has been advanced to {self.until}", "set it to a later tick"
            )
        heappush(self._barriers, (at, next(self._barrier_numbers), call))

    def _stand(self, call: Callable[[Engine], object]) -> None:
        self._stands = True
        try:
            call(self)
        finally:
            self._stands = False
        self._check_open()

    def _publish(self, tick: int) -> None:
        for event in self._publications.at(tick, self.ledger.accumulators):
            self._kernel.inject(event)
        self._published = tick

    def inject(self, source: Source, dst: int, at: int, message: Any, *, seq: int | None = None) -> None:
        """Give an external event: ``message`` arrives at LP ``dst`` at tick ``at``; ``seq`` (U64) tells the source's events apart.

        Raises:
            LateInput: ``at`` lies below GVT, or below the source's own watermark.
            UnknownDestination, UnhandledMessage, RangeError: it does not fit the model.
        """
        self._check_open()
        self._check_source(source)
        lp = whole(dst)
        if lp is None or not 0 <= lp < self.model.n_lps:
            raise UnknownDestination(
                f"input for LP {dst!r}", f"LPs are 0 to {self.model.n_lps - 1}", "correct the number"
            )
        dst = lp
        if type(message) not in handlers_of(self.model.class_of(dst)):
            raise UnhandledMessage(
                f"input {type(message).__name__} for {self.model.path(dst)}",
                "its class has no handler of it",
                "send it to an LP that has",
            )
        form = self.model.message_forms[self.model.message_index[type(message)]]
        values = form.unpack(form.pack(message, f"input {source.name!r}"))  # as plain numbers of their kinds
        tick = self._tick_of(source, at)
        seq = self._next_seq(source, seq)
        message = type(message)._make(values)
        if form.has_arrays:
            message = type(message)._make(form.sealed(message))
        event: Event = (tick, 0, dst, source.src, seq, message)
        self._refuse_twice(source, event)
        self._counts[source.src] = max(self._counts[source.src], min(seq + 1, 2**64 - 1))
        self._kernel.inject(event)

    def _tick_of(self, source: Source, at: int) -> int:
        floor = max(self.gvt + self._is_full, self._floor(source))
        tick = whole(at)
        if tick is None or not floor <= tick < TICK_MAX:
            raise LateInput(
                f"input {source.name!r} at tick {at!r}",
                f"GVT and its watermark stand at {floor}",
                "hold the watermark back for as long as inputs may be late",
            )
        return tick

    def _next_seq(self, source: Source, given: int | None) -> int:
        seq = self._counts[source.src] if given is None else whole(given)
        if seq is None or not 0 <= seq < 2**64:
            raise OperatorError(f"seq {given!r}", "a source's count is a U64", "correct it")
        return seq

    def _refuse_twice(self, source: Source, event: Event) -> None:
        """Two events of one key would be ordered by chance. Those that GVT has passed are forgotten: they come too late."""
        key = event[:5]
        if key in self._given:
            raise OperatorError(
                f"input {source.name!r} at tick {key[0]} for {self.model.path(key[2])} with seq {key[4]}",
                "an event with this very key was given before",
                "count a source's events with different seq",
            )
        if len(self._given) >= self._given_most:
            self._given = {one for one in self._given if one[0] >= self.gvt}
            self._given_most = 2 * len(self._given) + 1024
        self._given.add(key)

    def watermark(self, source: Source, tick: int) -> None:
        """Promise that ``source`` gives nothing below ``tick`` any more; nothing at or above it is committed.

        A source that never calls this holds nothing back.

        Raises:
            OperatorError: the watermark would go back.
        """
        self._check_open()
        self._check_source(source)
        number = whole(tick)
        if number is None or not self._floor(source) <= number <= TICK_MAX:
            raise OperatorError(
                f"watermark {tick!r} of input {source.name!r}",
                f"it stands at {self._floor(source)} and never goes back",
                "give a later tick",
            )
        self._watermarks[source.src] = number

    def _floor(self, source: Source) -> int:
        return max(0, self._watermarks[source.src])

    def outputs(self) -> list[Output]:
        """Take the committed outputs, in key order; they are kept here no longer."""
        self._check_open()
        taken = list(self.ledger.outputs)
        self.ledger.outputs.clear()
        return taken

    def state(self, lp: int) -> dict[str, Any]:
        """The fields of one LP after the committed events.

        Raises:
            ModelError: no such LP; ``model.lp(path)`` gives the number of a path.
        """
        self._check_open()
        return self._kernel.state(self.model.check_lp(lp))

    def image(self) -> Image:
        """The exact state after the committed events, as bytes."""
        self._check_open()
        return self._kernel.image()

    def checkpoint(self) -> bytes:
        """Advance to the next multiple of the model's ``trace_interval``, exclusive, and give the state there as bytes.

        Later events stay pending. Equal runs give equal bytes, whatever executed them. Outputs that wait to be
        taken are not in it: take them first, since :meth:`restore` gives those that come after.

        Raises:
            OperatorError: a watermark, or outputs that nobody takes, hold the run below that tick.
        """
        self._check_open()
        interval = self.model.trace_interval
        tick = -(-(self.until + 1) // interval) * interval
        if self.gvt < tick and self.advance(tick - 1) is not Status.DONE:
            held = "; ".join(self.stalls())
            raise OperatorError(
                f"checkpoint at tick {tick}", held, "take outputs and move watermarks on, then ask again"
            )
        ledger = self.ledger
        saved = Saved(
            tick=tick,
            published=self._published,
            tracing=ledger.tracing,
            trace=ledger.events.head(),
            emitted=ledger.emitted.head(),
            committed=ledger.committed,
            outputs=ledger.emitted.count,
            accumulators=tuple(ledger.accumulators),
            watermarks=tuple(self._watermarks[source.src] for source in self.model.sources),
            counts=tuple(self._counts[source.src] for source in self.model.sources),
            image=self.image(),
        )
        return encode(self.model, saved)

    @classmethod
    def restore(cls, model: Model, data: bytes, options: Options | None = None, **given: Any) -> Self:
        """An engine that goes on from a checkpoint, of any kernel, tier, number of PEs and ranks; arguments as for an Engine.

        Raises:
            CheckpointRefused: it is no checkpoint of this model and seed; nothing of it was loaded.
        """
        if not isinstance(model, Model):
            raise ModelError(f"engine of {model!r:.80}", "it runs a Model", "build one with Model(name)")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise CheckpointRefused(
                f"a checkpoint that is {data!r:.80}",
                "it is bytes of Engine.checkpoint",
                "read the file, or use run(resume=...)",
            )
        return cls(model, options, saved=decode(model, bytes(data)), **given)

    def _take_up(self, saved: Saved) -> None:
        self.ledger.take_up(
            saved.trace if saved.tracing else None, saved.emitted, saved.committed, saved.outputs, saved.accumulators
        )
        self._watermarks = {source.src: tick for source, tick in zip(self.model.sources, saved.watermarks, strict=True)}
        self._counts = {source.src: count for source, count in zip(self.model.sources, saved.counts, strict=True)}
        self._published = saved.published
        self._resumed = saved.tick
        self.until = saved.tick - 1

    @property
    def saved_at(self) -> Path | None:
        """The file of the last durable checkpoint, if somebody has set it: what is said when a handler does not end."""
        return self._watch.checkpoint

    @saved_at.setter
    def saved_at(self, file: Path) -> None:
        self._watch.checkpoint = file

    def stats(self) -> Statistics:
        """What the engine has counted."""
        self._check_open()
        return self._kernel.statistics()

    def stalls(self) -> list[str]:
        """What holds GVT: sources and outputs first, then PEs; empty while nothing does.

        When GVT has not moved for 5 s of wall time, it is said once by the logger ``tidewarp.kernel``, as a warning.
        """
        self._check_open()
        return self._held() + self._kernel.stalls()

    def _held(self) -> list[str]:
        """What holds GVT from outside of the engine."""
        held = [
            f"waiting for the watermark of input {source.name!r}, which stands at tick {self._watermarks[source.src]}"
            for source in self.model.sources
            if _SILENT < self._watermarks[source.src] <= self.until
        ]
        if self._is_full and self.ledger.full:
            held.append(f"blocked: outputs, of which {self.ledger.outputs_max} may wait to be taken")
        return held

    def digest(self) -> str:
        """The digest of the run so far, up to the tick that it was advanced to.

        Raises:
            OperatorError: the digest is off, or something up to that tick is not committed yet.
        """
        self._check_open()
        self.ledger.check_digest()
        if self.gvt <= self.until:
            raise OperatorError(
                f"digest up to tick {self.until}",
                f"only what lies below {self.gvt} is committed",
                "advance until it returns DONE",
            )
        digest = self.ledger.digest(self.until, self._kernel.image())
        assert digest is not None
        return digest

    def close(self) -> None:
        """Stop threads and release memory; idempotent."""
        if not self._closed:
            self._closed = True
            WATCHDOG.forget(self._watch)
            self._kernel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise OperatorError("a closed engine", "it has released its state", "open another one")

    def _check_source(self, source: Source) -> None:
        if type(source) is not Source or source not in self.model.sources:
            raise ModelError(f"input {source!r}", "a source comes from model.input(name)", "declare it before the run")


def end_of(until: int, word: str = "until") -> int:
    """The tick that a run is to end at, as Python's int; ``word``: what an error calls it.

    Raises:
        OperatorError: it is no tick.
    """
    tick = whole(until)
    if tick is None or not 0 <= tick < TICK_MAX:
        raise OperatorError(
            f"{word} {until!r}", "it is a whole number of ticks from 0 to 2**63 - 2", "write e.g. seconds(10)"
        )
    return tick
