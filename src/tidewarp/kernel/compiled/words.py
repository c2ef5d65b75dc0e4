"""Memory as machine words: the few things that Numba does not say, and records at an address.

An address is an int64. Nothing here checks one: the callers hold the arrays that they point into.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import byteflow, cgutils
from numba.extending import intrinsic, register_jitable
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

from tidewarp import seeds
from tidewarp.kernel import compiled

__all__ = [
    "HOME",
    "array_at",
    "bare",
    "draw",
    "entry",
    "exp_of",
    "get",
    "get_u64",
    "helper",
    "inlined",
    "kept",
    "load_2",
    "load_4",
    "load_8",
    "log_of",
    "mix",
    "normal_of_top",
    "put",
    "store_2",
    "store_4",
    "store_8",
    "swap_1",
    "swap_2",
    "swap_4",
    "swap_8",
    "view",
]

_WORD = ir.IntType(64)


# Numba 0.68 renames a variable where a block sets it that all ways pass outside of loops, and reads the new one in all blocks
# further down in the text. The way out of "while True: if done: x = 2; break; x += 1" is such a block, and the rest of the loop
# stands behind it: it would read an x that is not set. Without these names Numba's own SSA form gives all of them.
byteflow.AdaptCFA.backbone = property(lambda flow: frozenset())

HOME = __name__
"""``__name__`` of the namespaces that functions are made in: Numba imports it when it loads them from the cache."""


def bare(choose: Callable[..., Any]) -> Callable[..., Any]:
    """Below ``@overload``: takes the annotations away, since Numba wants them to be those of what ``choose`` returns."""
    choose.__annotations__ = {}

    @wraps(choose)
    def chosen(*args: Any, **keywords: Any) -> Any:
        made = choose(*args, **keywords)
        if made is not None:
            made.__annotations__ = {}
        return made

    return chosen


inlined = njit(inline="always", error_model="numpy")
"""For helpers of kernels that are compiled into their callers."""
_BARE = {"_nrt": False, "no_cfunc_wrapper": True, "error_model": "numpy"}
helper = njit(no_cpython_wrapper=True, **_BARE)
"""For functions that only compiled ones call: nothing counts references, and nobody pays for wrappers that take arguments out of
Python objects (of a PE's arrays they are larger than most functions)."""


def kept(signature: Any, **options: Any) -> Any:
    """For functions that are compiled for one signature, and kept in the cache where one is at hand."""
    return njit(signature, cache=compiled.keeps, **options)


def entry(signature: Any) -> Any:
    """For functions that the shell calls: kept, without the GIL, and nothing in them may make an array."""
    return kept(signature, nogil=True, **_BARE)


@intrinsic
def get(typing: Any, address: Any) -> Any:
    """The word at an address, as int64: a plain load, for memory that no other thread writes."""
    return types.int64(types.int64), _load


@intrinsic
def get_u64(typing: Any, address: Any) -> Any:
    """The word at an address, as uint64."""
    return types.uint64(types.int64), _load


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.load(builder.inttoptr(args[0], _WORD.as_pointer()))


@intrinsic
def put(typing: Any, address: Any, value: Any) -> Any:
    """Store a word at an address: a plain store."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _WORD.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def view(typing: Any, address: Any, dtype: Any) -> Any:
    """The record of ``dtype`` at an address; reading and writing its fields reads and writes memory."""
    record = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(record))

    return record(types.int64, dtype), generate


def array_at(dtype: np.dtype[Any], shape: tuple[int, ...], aligned: bool = True) -> Callable[[int], Any]:
    """An intrinsic: the read-only C array of this dtype and shape at an address.

    A table's is ``aligned``, a message's is said not to be: by that alone the types of the two differ.
    """
    array = types.Array(from_dtype(dtype), len(shape), "C", readonly=True, aligned=aligned)
    strides = [dtype.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]

    @intrinsic
    def make(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = make_array(array)(context, builder)
            word = context.get_value_type(types.intp)
            populate_array(
                value,
                data=builder.inttoptr(args[0], value.data.type),
                shape=cgutils.pack_array(builder, [ir.Constant(word, size) for size in shape]),
                strides=cgutils.pack_array(builder, [ir.Constant(word, size) for size in strides]),
                itemsize=ir.Constant(word, dtype.itemsize),
                meminfo=None,
            )
            return value._getvalue()

        return array(types.int64), generate

    return make  # type: ignore[no-any-return]


def _swapping(bits: int) -> Any:
    width = ir.IntType(bits)

    @intrinsic
    def swap(typing: Any, target: Any, source: Any) -> Any:
        """Copy one number from address to address and turn its bytes round; neither needs to be aligned."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = builder.load(builder.inttoptr(args[1], width.as_pointer()), align=1)
            if bits > 8:
                number = builder.bswap(number)
            builder.store(number, builder.inttoptr(args[0], width.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return swap


swap_1, swap_2, swap_4, swap_8 = (_swapping(bits) for bits in (8, 16, 32, 64))


def _storing(bits: int) -> Any:
    width = ir.IntType(bits)

    @intrinsic
    def store(typing: Any, target: Any, word: Any) -> Any:
        """Store the low bits of a word big-endian at an address that need not be aligned."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = builder.trunc(args[1], width) if bits < 64 else args[1]
            builder.store(builder.bswap(number), builder.inttoptr(args[0], width.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return store


def _loading(bits: int) -> Any:
    width = ir.IntType(bits)

    @intrinsic
    def load(typing: Any, source: Any) -> Any:
        """The unsigned big-endian number at an address that need not be aligned, as int64."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = builder.bswap(builder.load(builder.inttoptr(args[0], width.as_pointer()), align=1))
            return builder.zext(number, _WORD) if bits < 64 else number

        return types.int64(types.int64), generate

    return load


store_2, store_4, store_8 = (_storing(bits) for bits in (16, 32, 64))
load_2, load_4, load_8 = (_loading(bits) for bits in (16, 32, 64))


# --- random numbers: the cores of tidewarp.seeds, compiled --------------------------------------------


@inlined
def mix(x: Any) -> Any:
    """:func:`tidewarp.seeds.mix64` of a uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inlined
def draw(key: Any, gamma: Any, count: Any) -> Any:
    """Draw number ``count`` of a stream, as uint64."""
    return mix(key + count * gamma)


for _core in (seeds._log, seeds._exp, seeds._normal_centre, seeds._normal_shoulder, seeds._normal_tail):
    register_jitable(_core)
log_of = kept("float64(float64)")(seeds._log)
"""The logarithm of a finite float > 0, the same bits as :func:`tidewarp.seeds.exact_log`."""
exp_of = kept("float64(float64)")(seeds._exp)
"""The exponential for -745.2 < x < 709.8, the same bits as :func:`tidewarp.seeds.exact_exp`."""
normal_of_top = kept("float64(int64)")(seeds._normal_of_top)
"""The standard normal value of the upper 53 bits of a draw, as int64."""
