"""Words that several threads touch: loads and stores that no compiler moves, an atomic sum, and a pause.

A plain load of another thread's word is hoisted out of loops by LLVM: ``while h[0] == 0`` never ends. All operations here
are sequentially consistent; on x86 a load then costs what a plain one does. An address is an int64 of an aligned word.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["LINE_WORDS", "add_word", "load", "store", "yield_core"]

LINE_WORDS = 16
"""Words between two that different threads write: two cache lines, since the hardware fetches them in pairs."""

_WORD = ir.IntType(64)


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """The word at an address, as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], _WORD.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing: Any, address: Any, value: Any) -> Any:
    """Store a word: whatever was written before is seen by whoever loads it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], builder.inttoptr(args[0], _WORD.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add_word(typing: Any, address: Any, n: Any) -> Any:
    """Add ``n`` to a word; returns what it was before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _WORD.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


yield_core = types.ExternalFunction("sched_yield", types.int32())
"""Let another thread have the core; a ctypes pointer instead would keep Numba from caching its callers."""
