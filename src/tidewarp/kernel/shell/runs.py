"""A whole run in one call, with checkpoints on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidewarp.clocks.pacing import Clock
from tidewarp.clocks.wall import WallClock
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.result import Result
from tidewarp.kernel.shell.checkpoint_files import CheckpointFiles, Schedule, load_checkpoint
from tidewarp.kernel.shell.engine import Engine, Status
from tidewarp.kernel.shell.mpi.world import join_ranks
from tidewarp.kernel.trace import Output
from tidewarp.observe import SILENT, Probe

__all__ = ["run"]


def run(
    model: Model,
    until: int,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    resume: Path | None = None,
    clock: Clock | None = None,
    probe: Probe = SILENT,
    **options: Any,
) -> Result:
    """Run a model from its start to ``until`` (ticks, inclusive); options as in :class:`Options`.

    All outputs are kept for the result, however many they are. ``checkpoint`` is a folder for checkpoints, one each
    ``checkpoint_every`` ticks (rounded to the model's ``trace_interval``), by default as often as loses the least work.
    ``resume`` is such a folder, or a file of it, to go on from: its run ends with the digest of one that was never
    stopped, under any options; ``outputs`` and ``trace_digests`` are then those from there on.

    Raises:
        ModelError: the model broke a rule; see :mod:`tidewarp.errors`.
        OperatorError: an option does not fit.
        CheckpointRefused: what is to be resumed is damaged, or of another model.
    """
    clock = clock or WallClock()
    with _open(model, Options.of(options), resume, clock, probe) as engine:
        engine.ledger.keep_digests()
        resumed, outputs, checkpoints = engine.ledger.committed, list[Output](), 0
        if checkpoint is not None:
            outputs, checkpoints = _advance_saving(engine, until, checkpoint, checkpoint_every, clock)
        outputs += _advance_taking(engine, until)
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
            checkpoints=checkpoints,
            resumed=resumed,
        )


def _open(model: Model, options: Options, resume: Path | None, clock: Clock, probe: Probe) -> Engine:
    if resume is None:
        return Engine(model, options, clock=clock, probe=probe)
    data = _on_first(options, lambda: load_checkpoint(resume, model))
    return Engine.restore(model, data, options, clock=clock, probe=probe)


def _on_first(options: Options, make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives; of ranks the first alone calls it, and all get what it gave, or its error."""
    return join_ranks().first(make) if options.transport == "mpi" else make()


def _advance_saving(
    engine: Engine, until: int, folder: Path, every: int | None, clock: Clock
) -> tuple[list[Output], int]:
    """Advance to the last checkpoint that is due before ``until``: outputs, checkpoints. Ranks do this together, rank 0 writes."""
    model, options = engine.model, engine.options
    schedule = Schedule(every, model.trace_interval, clock)
    files: list[CheckpointFiles] = []
    outputs: list[Output] = []
    count = 0
    tick = schedule.first(engine.until + 1)
    while tick <= until:
        outputs += _advance_taking(engine, tick - 1)
        schedule.begin()
        data = engine.checkpoint()

        def save(tick: int = tick, data: bytes = data) -> bytes:
            if not files:
                files.append(CheckpointFiles(folder, model))
            files[0].save(tick, data)
            return schedule.next(tick).to_bytes(16, "big")

        tick = int.from_bytes(_on_first(options, save), "big")
        count += 1
    return outputs, count


def _advance_taking(engine: Engine, until: int) -> list[Output]:
    """Advance to ``until``, however many outputs there are, and return them."""
    outputs: list[Output] = []
    while engine.advance(until) is Status.FULL:
        outputs += engine.outputs()
    return outputs + engine.outputs()
