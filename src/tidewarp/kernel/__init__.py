"""Models of logical processes with explicit state, and the engines that run them: one digest from all.

    kinds, arithmetic     machine numbers: fields, their byte form, wrap-around arithmetic
    lp, model             the model contract: logical processes, links, constants
    source, model_digest  what a handler's source says, and the digest of a model
    context, objects      what a handler may do; LPs as Python objects
    publications          accumulators as messages
    records, trace        events and states as bytes; the committed side of a run
    sequential            the reference
    conservative          promises instead of repairs; lookahead, partition and topology beside it
    optimistic/           Time Warp as pure machines; compiled/ has all three engines in Numba
    checkpoints           the state of a run as bytes
    contract, options     what every engine offers; how a run is executed
    arguments             what users may write as a number, a name or a word
    result, arrow         what a run came to; its outputs as a table
    nodes, node_*         Time Warp over nodes that own Python values · audit, flow: proofs over checkpoints, backpressure
    shell/                sessions, threads, ranks, the cache of compiled code (not pure)

Names load at their first use, so that importing one module does not import Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewarp.kernel.arithmetic import mix64, u64_add, u64_div, u64_mod, u64_mul, wrap_i64
    from tidewarp.kernel.context import Context, Undo
    from tidewarp.kernel.kinds import Array, Bytes, b1, f64, i8, i16, i32, i64, u8, u16, u32, u64
    from tidewarp.kernel.lp import LogicalProcess, on, reverse
    from tidewarp.kernel.model import Model, Published, Source
    from tidewarp.kernel.options import Options
    from tidewarp.kernel.result import Result
    from tidewarp.kernel.shell.engine import Engine, Status
    from tidewarp.kernel.shell.interrupts import Interrupted
    from tidewarp.kernel.shell.runs import run
    from tidewarp.kernel.source import function
    from tidewarp.kernel.trace import Output

_HOMES = {
    "arithmetic": ("mix64", "u64_add", "u64_div", "u64_mod", "u64_mul", "wrap_i64"),
    "context": ("Context", "Undo"),
    "kinds": ("Array", "Bytes", "b1", "f64", "i16", "i32", "i64", "i8", "u16", "u32", "u64", "u8"),
    "lp": ("LogicalProcess", "on", "reverse"),
    "model": ("Model", "Published", "Source"),
    "options": ("Options",),
    "result": ("Result",),
    "shell.engine": ("Engine", "Status"),
    "shell.interrupts": ("Interrupted",),
    "shell.runs": ("run",),
    "source": ("function",),
    "trace": ("Output",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Array",
    "Bytes",
    "Context",
    "Engine",
    "Interrupted",
    "LogicalProcess",
    "Model",
    "Options",
    "Output",
    "Published",
    "Result",
    "Source",
    "Status",
    "Undo",
    "b1",
    "f64",
    "function",
    "i8",
    "i16",
    "i32",
    "i64",
    "mix64",
    "on",
    "reverse",
    "run",
    "u8",
    "u16",
    "u32",
    "u64",
    "u64_add",
    "u64_div",
    "u64_mod",
    "u64_mul",
    "wrap_i64",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
