"""Which engine runs a model under which options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tidewarp.kernel.contract import Kernel
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import CheckedObjects
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import check_workers, partition
from tidewarp.kernel.records import Image
from tidewarp.kernel.sequential import SequentialKernel
from tidewarp.kernel.trace import Ledger

if TYPE_CHECKING:
    from tidewarp.kernel.shell.mpi.world import Ranks

__all__ = ["open_kernel"]


def open_kernel(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel:
    """The engine that ``options`` names, in the state of ``image``."""
    if options.transport == "mpi":
        return _open_ranks(model, image, ledger, options)
    if options.kernel == "conservative":
        return _open_conservative(model, image, ledger, options)
    if options.kernel == "optimistic":
        return _open_optimistic(model, image, ledger, options)
    check_workers(options.workers, model.n_lps)  # they do nothing here; a later switch of the engine should not fail
    if not isinstance(options.partition, str):
        partition(model, options)  # as little
    if options.tier != "python" and not (options.tier == "auto" and options.debug):
        from tidewarp.kernel.shell.compiled import open_sequential

        compiled = open_sequential(model, image, ledger, options)
        if compiled is not None:
            return compiled
    return SequentialKernel(model, image, ledger, CheckedObjects(model, image) if options.debug else None)


def _open_ranks(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel:
    """The part of the engine that this rank runs; the sequential one runs on rank 0 alone."""
    from tidewarp.kernel.shell.compiled import dispatch_of
    from tidewarp.kernel.shell.mpi.alone import AloneKernel
    from tidewarp.kernel.shell.mpi.kernel import RankKernel
    from tidewarp.kernel.shell.mpi.world import hello, join_ranks

    ranks = join_ranks()
    dispatch = None if options.kernel == "sequential" else dispatch_of(model, options)
    hello(ranks, model, options, "letters 1" if dispatch is None else "rows 1")
    if dispatch is not None:
        return _open_compiled_rank(model, image, ledger, options, dispatch, ranks)
    if options.kernel != "sequential":
        return RankKernel(model, image, ledger, options, ranks)
    inner = open_kernel(model, image, ledger, replace(options, transport="threads")) if ranks.rank == 0 else None
    return AloneKernel(model, ledger, ranks, inner)


def _open_conservative(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel:
    """Threads in the compiled tier; the Python tier where the model, a schedule or a debugger asks for it."""
    from tidewarp.kernel.shell.compiled import dispatch_of, load_kernel

    wants_python = options.tier == "auto" and (options.schedule_seed is not None or options.debug)
    dispatch = None if wants_python else dispatch_of(model, options)
    if dispatch is None:
        from tidewarp.kernel.conservative import ConservativeKernel

        return ConservativeKernel(model, image, ledger, options)
    load_kernel("conservative")
    from tidewarp.clocks.wall import WallClock
    from tidewarp.kernel.shell.conservative import CompiledConservative

    return CompiledConservative(model, image, ledger, options, dispatch, WallClock())


def _open_optimistic(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel:
    """Threads in the compiled tier; the Python tier where the model, a schedule or a debugger asks for it."""
    from tidewarp.kernel.shell.compiled import dispatch_of, load_kernel

    wants_python = options.tier == "auto" and (options.schedule_seed is not None or options.debug)
    dispatch = None if wants_python else dispatch_of(model, options)
    if dispatch is None:
        from tidewarp.kernel.optimistic.kernel import OptimisticKernel

        return OptimisticKernel(model, image, ledger, options)
    for name in ("merge", "slices", "recall", *(["sequential"] if options.memory_max_bytes is not None else [])):
        load_kernel(name)
    from tidewarp.clocks.wall import WallClock
    from tidewarp.kernel.compiled.optimistic import CompiledOptimistic
    from tidewarp.kernel.shell.threads import Threads

    clock = WallClock()
    return CompiledOptimistic(model, image, ledger, options, dispatch, Threads(options.workers, clock), clock)


def _open_compiled_rank(
    model: Model, image: Image, ledger: Ledger, options: Options, dispatch: Any, ranks: Ranks
) -> Kernel:
    """The compiled PEs of this rank; a single one runs in the main thread, beside MPI."""
    from tidewarp.clocks.wall import WallClock
    from tidewarp.kernel.shell.compiled import load_kernel

    for name in ("merge", "slices", "recall", "gateway"):
        load_kernel(name)
    from tidewarp.kernel.shell.mpi.compiled import CompiledRankKernel
    from tidewarp.kernel.shell.threads import Threads

    clock = WallClock()
    workers = Threads(options.workers, clock) if options.workers > 1 else None
    return CompiledRankKernel(model, image, ledger, options, dispatch, workers, clock, ranks)
