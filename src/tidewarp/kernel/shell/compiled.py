"""Opens the compiled tier: decides whether a model runs there, and brings its code in from the cache."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewarp.errors import MissingExtra, NotCompilable, OperatorError
from tidewarp.kernel import compiled
from tidewarp.kernel.compiled.refusals import check_compilable
from tidewarp.kernel.contract import Kernel
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.records import Image
from tidewarp.kernel.shell.cache import Cache, Loaded
from tidewarp.kernel.trace import Ledger

if TYPE_CHECKING:
    from tidewarp.kernel.compiled.dispatch import Dispatch

__all__ = [
    "KERNELS",
    "dispatch_of",
    "load_kernel",
    "numba_fault",
    "open_sequential",
    "the_cache",
    "warm",
]

COMMON = ("words", "exact", "context", "dispatch", "records")
KERNELS = (*COMMON, "sequential", "merge", "slices", "recall", "gateway", "conservative")
"""Modules of :mod:`tidewarp.kernel.compiled` whose functions the cache keeps, each in its own unit; a module stands after those
that it imports, all after COMMON."""

_DISPATCHES: dict[str, Dispatch] = {}
_REFUSALS: dict[str, NotCompilable] = {}


_ROOT: dict[str, Path] = {}


@cache
def the_cache() -> Cache:
    """The cache of this process."""
    return Cache(_ROOT.get("root"))


def _keep_at(root: Path) -> None:
    """Let the cache of this process, which nobody has used yet, be in another folder."""
    _ROOT["root"] = root
    the_cache.cache_clear()


@cache
def numba_fault() -> OperatorError | None:
    """Why this process has no compiled tier; None if it has one. Imports Numba, if that is installed."""
    tier, install = "tier 'compiled'", "pip install 'tidewarp[fast]'"
    if importlib.util.find_spec("numba") is None:
        return MissingExtra(tier, "Numba is not installed", install)
    try:
        config = importlib.import_module("numba.core.config")
    except Exception as error:  # of whatever class: it is another package's, and so is what it loads
        return MissingExtra(tier, f"Numba cannot be imported ({type(error).__name__}: {error})", install)
    if config.DISABLE_JIT:
        return OperatorError(tier, "NUMBA_DISABLE_JIT turns Numba off", "unset it, or use tier 'python'")
    return None


def load_kernel(name: str) -> Any:
    """The module ``name`` of :data:`KERNELS`, with what it needs."""
    for module in (*COMMON, name):
        _load_module(module)
    return importlib.import_module(f"tidewarp.kernel.compiled.{name}")


@cache
def _load_module(name: str) -> Any:
    return the_cache().load(
        name, lambda place: importlib.import_module(f"tidewarp.kernel.compiled.{name}"), slow="the kernels"
    )


def dispatch_of(model: Model, options: Options) -> Dispatch | None:
    """The compiled handlers of a model; None if it is to run in the Python tier.

    Blocks while they are compiled: about a second, once for each version of their source.

    Raises:
        NotCompilable, OperatorError: ``tier`` is "compiled" and cannot be had.
    """
    if options.tier == "python":
        return None
    fault = numba_fault()
    if fault is not None:
        if options.tier == "compiled":
            raise fault
        _warn_once(fault)
        return None
    try:
        return _dispatch(model)
    except NotCompilable:
        if options.tier == "compiled":
            raise
        return None


@cache
def _warn_once(fault: OperatorError) -> None:
    warnings.warn(f"{fault.rule}: models run in the Python tier; {fault.action}", RuntimeWarning, stacklevel=4)


def _dispatch(model: Model) -> Dispatch:
    check_compilable(model)
    load_kernel("records")
    from tidewarp.kernel.compiled.dispatch import digest_of

    digest = digest_of(model)
    if digest in _REFUSALS:
        raise _REFUSALS[digest]
    if digest not in _DISPATCHES:
        try:
            _DISPATCHES[digest] = the_cache().load(f"model-{digest[:32]}", _builder(model))
        except NotCompilable as error:
            _REFUSALS[digest] = error
            raise
    return _DISPATCHES[digest]


def _builder(model: Model) -> Callable[[Path], Dispatch]:
    from numba import njit
    from numba.core.errors import NumbaError

    from tidewarp.kernel.compiled.dispatch import HOME, in_memory, names_of, source_of

    def build(place: Path) -> Dispatch:
        if not compiled.keeps:
            return in_memory(model)
        path = place / "dispatch.py"
        source = source_of(model)
        if path.exists():
            try:
                return _executed(path, source, {"njit": njit, "__name__": HOME})
            except NumbaError:  # Numba did not find what it had kept: it asks for the handlers
                pass
        path.write_text(source)
        return _executed(path, source, names_of(model))

    return build


def _executed(path: Path, source: str, names: dict[str, Any]) -> Dispatch:
    """What is executed is the text that was made just now; the file is where Numba finds what belongs to it."""
    exec(compile(source, str(path), "exec"), names)
    dispatch: Dispatch = names["dispatch"]
    return dispatch


def warm(models: Iterable[Model], root: Path | None = None, clear: bool = False) -> tuple[Path, list[Loaded]]:
    """Compile all kernels and these models into the cache at ``root``; where that is, and what became of each unit.

    Raises:
        NotCompilable: a model that the compiled tier cannot run.
    """
    if root is not None:
        _keep_at(root)
    if clear:
        the_cache().clear()
    for name in KERNELS:
        load_kernel(name)
    for model in models:
        _dispatch(model)
    return the_cache().folder, list(the_cache().loaded.values())


def open_sequential(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel | None:
    """The sequential engine of the compiled tier; None if the model is to run in the Python tier."""
    dispatch = dispatch_of(model, options)
    if dispatch is None:
        return None
    module = load_kernel("sequential")
    kernel: Kernel = module.CompiledSequential(model, image, ledger, options, dispatch)
    return kernel
