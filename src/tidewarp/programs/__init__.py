"""Programs: pure functions over artifacts, as graphs of operations. Equal inputs give equal bytes on every machine.

    operations    what a node can do: five operations on bytes, and those that upper layers register
    source        a program from the form that people write
    sizes         how long each output will be, before anything is made
    execution     a run, with its result, its trace and its computation key
    runs          a run over a store, kept with its receipt or found again
    verification  is a receipt right: it is executed again, and who is wrong is named
    judging       an auditor says which of several results counts
    requests      runs that any site may execute, once what they hang on is accepted
    working       a site executes them, in its turn

Pure: no I/O, no clock; what is read and kept is the affair of the store that ``runs`` is given. The byte forms are in ``codec``:
``programs``, ``results``, ``computations``, ``receipts``, ``requests``.
"""

from __future__ import annotations

from tidewarp.programs.execution import Computation, Execution, Limits, computation_of, execute
from tidewarp.programs.operations import (
    HostFunction,
    HostOperation,
    KernelOperation,
    OperationFailed,
    OperationRegistry,
)
from tidewarp.programs.sizes import Sizes, known_sizes
from tidewarp.programs.source import build_program

__all__ = [
    "Computation",
    "Execution",
    "HostFunction",
    "HostOperation",
    "KernelOperation",
    "Limits",
    "OperationFailed",
    "OperationRegistry",
    "Sizes",
    "build_program",
    "computation_of",
    "execute",
    "known_sizes",
]
