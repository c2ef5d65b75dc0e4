"""A whole run in one call, with checkpoints on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.errors import OperatorError
from tidewarp.kernel.arguments import whole
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.result import Result
from tidewarp.kernel.shell.checkpoint_files import CheckpointFiles, Schedule, load_checkpoint
from tidewarp.kernel.shell.engine import Engine, Status, end_of
from tidewarp.kernel.shell.interrupts import RANK, Interrupted, Interrupts
from tidewarp.kernel.shell.mpi.world import join_ranks
from tidewarp.kernel.trace import Output
from tidewarp.observe import SILENT, Probe
from tidewarp.units import TICK_MAX

__all__ = ["run"]

_STRIDE_S = 0.2  # wall seconds that an interrupted run may go on before it looks, if its events come evenly
_STRIDE_FIRST = 2**10  # ticks


def run(
    model: Model,
    until: int,
    *,
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    resume: Path | str | None = None,
    clock: Clock | None = None,
    probe: Probe = SILENT,
    **options: Any,
) -> Result:
    """Run a model from its start to ``until`` (ticks, inclusive); options as in :class:`Options`.

    All outputs are kept for the result, however many they are. ``checkpoint`` is a folder for checkpoints, one each
    ``checkpoint_every`` ticks (rounded to the model's ``trace_interval``), by default as often as loses the least work.
    A folder that holds some is refused, unless the run resumes from it.
    ``resume`` is such a folder, or a file of it, to go on from: its run ends with the digest of one that was never
    stopped, under any options; ``outputs`` and ``trace_digests`` are then those from there on.

    Ctrl-C ends the run with :class:`Interrupted`. With ``checkpoint`` it first leaves one more checkpoint (SIGTERM too); a second
    Ctrl-C does not wait for that. Ranks end together, whichever of them got the signal, SIGTERM too, and wait for it in any case.

    Raises:
        ModelError: the model broke a rule; see :mod:`tidewarp.errors`.
        OperatorError: an option does not fit.
        CheckpointRefused: what is to be resumed is damaged, or of another model.
        Interrupted: a KeyboardInterrupt that says how far the run has come.
    """
    until = end_of(until)
    folder, source = _path("checkpoint", checkpoint), _path("resume", resume)
    every = _every(checkpoint_every)
    clock = clock or WallClock()
    chosen = Options.of(options)
    with (
        RANK if chosen.transport == "mpi" else Interrupts(held=folder is not None) as interrupts,
        _open(model, chosen, source, clock, probe) as engine,
    ):
        saving = _Saving(engine, folder, source, every, clock, interrupts)
        engine.ledger.keep_digests()
        resumed = engine.ledger.committed
        try:
            outputs = saving.advance(until)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(engine.gvt, engine.ledger.committed, engine.seconds, saving.last) from interrupt
        return Result(
            committed=engine.ledger.committed,
            seconds=engine.seconds,
            digest=None if engine.options.digest == "off" else engine.digest(),
            trace_digests=engine.ledger.trace_digests(),
            outputs=outputs,
            accumulators=dict(zip(model.accumulator_names, engine.ledger.accumulators, strict=True)),
            stats=engine.stats(),
            model=model,
            image=engine.image(),
            checkpoints=saving.count,
            resumed=resumed,
        )


def _path(name: str, given: Path | str | None) -> Path | None:
    if given is None or isinstance(given, Path):
        return given
    if not given or not isinstance(given, (str, os.PathLike)):  # "" would be the current folder
        raise OperatorError(f"{name} {given!r:.80}", "it is a path", "give a Path or text")
    return Path(given)


def _every(given: int | None) -> int | None:
    ticks = None if given is None else whole(given)
    if given is not None and (ticks is None or not 1 <= ticks <= TICK_MAX):
        raise OperatorError(
            f"checkpoint_every {given!r}", "it is a whole number of ticks above 0", "write e.g. seconds(10)"
        )
    return ticks


def _open(model: Model, options: Options, resume: Path | None, clock: Clock, probe: Probe) -> Engine:
    if resume is None:
        return Engine(model, options, clock=clock, probe=probe)
    data = _on_first(options, lambda: load_checkpoint(resume, model))
    return Engine.restore(model, data, options, clock=clock, probe=probe)


def _on_first(options: Options, make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives; of ranks the first alone calls it, and all get what it gave, or its error."""
    return join_ranks().first(make) if options.transport == "mpi" else make()


class _Saving:
    """A run that leaves checkpoints, if it has a folder for them. Ranks do this together, rank 0 writes."""

    def __init__(
        self,
        engine: Engine,
        folder: Path | None,
        resume: Path | None,
        every: int | None,
        clock: Clock,
        interrupts: Interrupts,
    ) -> None:
        self.count = 0
        self.last: Path | None = None
        """The newest checkpoint that this run has made durable."""
        self._engine, self._clock, self._interrupts = engine, clock, interrupts
        self._saves = folder is not None
        self._ranks = join_ranks() if engine.options.transport == "mpi" else None
        self._files: list[CheckpointFiles] = []  # one, on the rank that writes
        self._schedule = Schedule(every, engine.model.trace_interval, clock)
        self._stride = _STRIDE_FIRST

        def open_folder() -> bytes:
            if folder is not None:
                self._files.append(CheckpointFiles(folder, engine.model, resume))
            return b""

        _on_first(engine.options, open_folder)

    def advance(self, until: int) -> list[Output]:
        """Advance to ``until`` with the checkpoints that are due before it; the outputs.

        Raises:
            KeyboardInterrupt: somebody asked to stop; there is one more checkpoint, if its tick lies before ``until``.
        """
        tick = self._schedule.first(self._engine.until + 1) if self._saves else until + 1
        outputs: list[Output] = []
        while tick <= until:
            outputs += self._advance(tick - 1, until)
            tick = self._save(tick)
        return outputs + self._advance(until, until)

    def _advance(self, stop: int, until: int) -> list[Output]:
        """Advance to ``stop`` in strides, between which an interrupt is heard."""
        outputs: list[Output] = []
        while (self._interrupts.held or self._ranks is not None) and self._engine.until < stop:
            if self._hear():
                self._leave(until)
            ticks = min(self._stride, stop - self._engine.until)
            started_s = self._clock.now()
            outputs += _advance_taking(self._engine, self._engine.until + ticks)
            spent_s = max(self._clock.now() - started_s, 1e-9)
            longer = min(max(_STRIDE_S / spent_s, 0.1), 16.0)
            if (
                ticks == self._stride or longer < 1.0
            ):  # a stride that a checkpoint cut short does not say how long one may be
                self._stride = max(int(ticks * longer), 1)
        return outputs + _advance_taking(self._engine, stop)

    def _hear(self) -> bool:
        """Whether somebody asked to stop; ranks agree on that, and on the stride of rank 0."""
        if self._ranks is None:
            return self._interrupts.came
        stride = self._stride if self._ranks.rank == 0 else 0
        came, self._stride = self._ranks.total([self._interrupts.came, stride])
        return came > 0

    def _leave(self, until: int) -> None:
        """Save at the next tick that a checkpoint can be of, where there is a folder, and go.

        Raises:
            KeyboardInterrupt: always.
        """
        interval = self._engine.model.trace_interval
        tick = -(-(self._engine.until + 1) // interval) * interval
        if self._saves and tick <= until:
            _advance_taking(self._engine, tick - 1)
            self._save(tick)
        raise KeyboardInterrupt

    def _save(self, tick: int) -> int:
        """Make the checkpoint of ``tick`` durable; the tick of the next one."""
        self._schedule.begin()
        data = self._engine.checkpoint()

        def save() -> bytes:
            (files,) = self._files
            self.last = self._engine.saved_at = files.save(tick, data)
            return self._schedule.next(tick).to_bytes(16, "big")

        self.count += 1
        return int.from_bytes(_on_first(self._engine.options, save), "big")


def _advance_taking(engine: Engine, until: int) -> list[Output]:
    """Advance to ``until``, however many outputs there are, and return them."""
    outputs: list[Output] = []
    while engine.advance(until) is Status.FULL:
        outputs += engine.outputs()
    return outputs + engine.outputs()
