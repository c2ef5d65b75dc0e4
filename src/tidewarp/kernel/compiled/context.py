"""``ctx`` of a compiled handler: the address of the context block, with the methods of :class:`tidewarp.kernel.Context`.

A refusal puts its code into the block and raises; the dispatcher ends the handler there. What a method may refuse
by the types of its arguments alone is refused when the handler is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload_attribute, overload_method, register_model

from tidewarp.kernel.compiled import words
from tidewarp.kernel.compiled.exact import FIT, copy_array
from tidewarp.kernel.compiled.layout import (
    ADD,
    BAD_DELAY,
    BAD_DESTINATION,
    BAD_NUMBER,
    DRAWS,
    EFFECT_HEAD,
    EFFECTS,
    EMIT,
    ERROR,
    GAMMA,
    GENERATION,
    KEY,
    LINK_AHEAD,
    LINK_DST,
    LINK_FIRST,
    LINK_SORTED,
    LINKED,
    LOOKAHEAD,
    LOW_LOOKAHEAD,
    LP,
    N_LPS,
    NOTE,
    NOW,
    OUT,
    OUT_FULL,
    OUT_MAX,
    OUT_STRIDE,
    PARAMS,
    SEND,
    STATE,
    TABLES,
    TOO_MANY_EFFECTS,
    TOO_MANY_GENERATIONS,
)
from tidewarp.kernel.compiled.words import HOME, bare, draw, get, get_u64, kept, log_of, normal_of_top, put, view
from tidewarp.kernel.context import GENERATIONS_MAX, SENDS_MAX
from tidewarp.kernel.kinds import Form
from tidewarp.units import TICK_MAX

__all__ = ["ContextType", "Surroundings", "UndoType", "native_dtype"]

_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_EFFECTS_MAX = 3 * SENDS_MAX  # of all kinds together: beyond, one kind has too many
_MEAN_MAX = 144115188075855872.0  # ticks, 2**57


class Surroundings(NamedTuple):
    """What the methods of a context must know of the model while a handler is compiled; ``name`` tells models apart."""

    name: str
    messages: Sequence[type]
    message_forms: Sequence[Form]
    params_form: Form | None
    tables: dict[str, np.ndarray[Any, Any]]
    accumulators: Sequence[str]


def native_dtype(form: Form) -> np.dtype[np.void]:
    """The fields of a form as a native, aligned record; one byte that nobody reads where there are none."""
    return form.dtype("=", align=True) if form.fields else np.dtype([("nothing", "u1")])


class ContextType(types.Type):
    """The type of ``ctx`` in one model."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        super().__init__(f"Context({around.name})")

    def make(self) -> Any:
        """An intrinsic that makes the context out of an address."""
        return _retyped(self)


class UndoType(types.Type):
    """The type of ``undo`` in a reverse handler."""

    def __init__(self) -> None:
        super().__init__("Undo")

    def make(self) -> Any:
        """An intrinsic that makes it out of an address."""
        return _retyped(self)


@register_model(ContextType)
@register_model(UndoType)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, ir.IntType(64))


def _retyped(numba_type: Any) -> Any:
    @intrinsic
    def make(typing: Any, address: Any) -> Any:
        return numba_type(types.int64), lambda context, builder, signature, args: args[0]

    return make


@intrinsic
def address_of(typing: Any, ctx: Any) -> Any:
    """The address of the context block."""
    return types.int64(ctx), lambda context, builder, signature, args: args[0]


@kept("void(int64, int64)")
def refuse(address: Any, code: Any) -> None:
    """End the handler with an error code."""
    put(address + 8 * ERROR, code)
    raise ValueError("refused")


# --- reading ------------------------------------------------------------------------------------------


def _word_attribute(numba_type: Any, name: str, index: int) -> None:
    overload_attribute(numba_type, name)(lambda ctx: lambda ctx: get(address_of(ctx) + 8 * index))


_word_attribute(ContextType, "now", NOW)
_word_attribute(ContextType, "lp", LP)
_word_attribute(ContextType, "n_lps", N_LPS)
_word_attribute(UndoType, "bits", NOTE)


@overload_attribute(ContextType, "params")
@bare
def _params(ctx: Any) -> Any:
    form = ctx.around.params_form
    if form is None or not form.fields:
        raise TypingError("the model has no parameters")
    dtype = native_dtype(form)
    return lambda ctx: view(get(address_of(ctx) + 8 * PARAMS), dtype)


@overload_method(ContextType, "table", prefer_literal=True)
@bare
def _table(ctx: Any, name: Any) -> Any:
    tables = ctx.around.tables
    if getattr(name, "literal_value", None) not in tables:
        raise TypingError(f"table({_literal(name)}): the model's tables are: {', '.join(tables) or 'none'}")
    place = list(tables).index(name.literal_value)
    array = tables[name.literal_value]
    make = words.array_at(array.dtype, array.shape)
    return lambda ctx, name: make(get(get(address_of(ctx) + 8 * TABLES) + 8 * place))


@overload_attribute(ContextType, "n_out")
@bare
def _n_out(ctx: Any) -> Any:
    return lambda ctx: links_of(address_of(ctx))


@kept("int64(int64)")
def links_of(a: Any) -> Any:
    """How many LPs are linked from this one."""
    if get(a + 8 * LINKED) == 0:
        return get(a + 8 * N_LPS)
    first = get(a + 8 * LINK_FIRST) + 8 * get(a + 8 * LP)
    return get(first + 8) - get(first)


@overload_method(ContextType, "out")
@bare
def _out(ctx: Any, i: Any) -> Any:
    _check_whole("out", i)
    return lambda ctx, i: out_of(address_of(ctx), np.int64(i))


@kept("int64(int64, int64)")
def out_of(a: Any, i: Any) -> Any:
    """The i-th LP that is linked from this one."""
    if not 0 <= i < links_of(a):
        refuse(a, BAD_DESTINATION)
    if get(a + 8 * LINKED) == 0:
        return i
    first = get(get(a + 8 * LINK_FIRST) + 8 * get(a + 8 * LP))
    return get(get(a + 8 * LINK_DST) + 8 * (first + i))


# --- random numbers -----------------------------------------------------------------------------------


@kept("uint64(int64)")
def next_bits(a: Any) -> Any:
    """Draw from the LP's stream; the count is a word of its row."""
    row = get(a + 8 * STATE)
    count = get_u64(row + 8 * DRAWS) + np.uint64(1)
    put(row + 8 * DRAWS, np.int64(count))
    return draw(get_u64(a + 8 * KEY), get_u64(a + 8 * GAMMA), count)


@kept("float64(int64)")
def next_unit(a: Any) -> Any:
    """A float in [0, 1) with 53 random bits."""
    return np.float64(np.int64(next_bits(a) >> np.uint64(11))) * _TO_UNIT


@kept("int64(int64, int64)")
def next_below(a: Any, n: Any) -> Any:
    """An unbiased whole number in [0, n): low bits of a word, drawn anew while they are n or more."""
    if n < 1:
        refuse(a, BAD_NUMBER)
    mask = np.uint64(n - 1)
    mask |= mask >> np.uint64(1)
    mask |= mask >> np.uint64(2)
    mask |= mask >> np.uint64(4)
    mask |= mask >> np.uint64(8)
    mask |= mask >> np.uint64(16)
    mask |= mask >> np.uint64(32)
    x = np.int64(next_bits(a) & mask)
    while x >= n:
        x = np.int64(next_bits(a) & mask)
    return x


@kept("int64(int64, float64)")
def next_exponential(a: Any, mean: Any) -> Any:
    """A whole number of ticks, exponentially distributed."""
    if not 0.0 < mean <= _MEAN_MAX:
        refuse(a, BAD_NUMBER)
    return np.int64(-mean * log_of(1.0 - next_unit(a)))


@overload_method(ContextType, "bits")
@bare
def _bits(ctx: Any) -> Any:
    return lambda ctx: next_bits(address_of(ctx))


@overload_method(ContextType, "random")
@bare
def _random(ctx: Any) -> Any:
    return lambda ctx: next_unit(address_of(ctx))


@overload_method(ContextType, "below")
@bare
def _below(ctx: Any, n: Any) -> Any:
    _check_whole("below", n)
    return lambda ctx, n: next_below(address_of(ctx), np.int64(n))  # a uint64 beyond int64 comes out negative: refused


@overload_method(ContextType, "exponential")
@bare
def _exponential(ctx: Any, mean: Any) -> Any:
    if not isinstance(mean, (types.Integer, types.Float)):
        raise TypingError(f"exponential({mean}): a mean is a number of ticks")
    if isinstance(mean, types.Integer):

        def exponential(ctx: Any, mean: Any) -> Any:
            if mean > 2**57:  # as a whole number: a float would round it down
                refuse(address_of(ctx), BAD_NUMBER)
            return next_exponential(address_of(ctx), np.float64(mean))

        return exponential
    return lambda ctx, mean: next_exponential(address_of(ctx), np.float64(mean))


@overload_method(ContextType, "normal")
@bare
def _normal(ctx: Any) -> Any:
    return lambda ctx: normal_of_top(np.int64(next_bits(address_of(ctx)) >> np.uint64(11)))


# --- effects ------------------------------------------------------------------------------------------


@kept("int64(int64, int64)")
def least_delay(a: Any, dst: Any) -> Any:
    """The lookahead of the link from this LP to another."""
    if get(a + 8 * LINKED) == 0:
        return get(a + 8 * LOOKAHEAD)
    first = get(a + 8 * LINK_FIRST) + 8 * get(a + 8 * LP)
    low, high, end = get(first), get(first + 8), get(first + 8)
    sorted_dst = get(a + 8 * LINK_SORTED)
    while low < high:
        middle = (low + high) >> 1
        if get(sorted_dst + 8 * middle) < dst:
            low = middle + 1
        else:
            high = middle
    if low == end or get(sorted_dst + 8 * low) != dst:
        refuse(a, BAD_DESTINATION)
    return get(get(a + 8 * LINK_AHEAD) + 8 * low)


@kept("void(int64, int64, int64)")
def check_send(a: Any, dst: Any, delay: Any) -> None:
    """Refuse what :meth:`tidewarp.kernel.Context.send` refuses, in its order."""
    if dst != get(a + 8 * LP):
        if not 0 <= dst < get(a + 8 * N_LPS):
            refuse(a, BAD_DESTINATION)
        if delay < least_delay(a, dst):
            refuse(a, BAD_DELAY if delay < 0 else LOW_LOOKAHEAD)
    if delay > TICK_MAX - get(a + 8 * NOW) or delay < 0:
        refuse(a, BAD_DELAY)
    if delay == 0 and get(a + 8 * GENERATION) + 1 >= GENERATIONS_MAX:
        refuse(a, TOO_MANY_GENERATIONS)


@kept("int64(int64, int64, int64, int64)")
def new_effect(a: Any, x: Any, y: Any, tag: Any) -> Any:
    """Begin a row of the effects buffer; the address of its fields."""
    n = get(a + 8 * EFFECTS)
    if n > _EFFECTS_MAX:
        refuse(a, TOO_MANY_EFFECTS)
    if n >= get(a + 8 * OUT_MAX):
        refuse(a, OUT_FULL)
    row = get(a + 8 * OUT) + n * get(a + 8 * OUT_STRIDE)
    put(row, x)
    put(row + 8, y)
    put(row + 16, tag)
    put(a + 8 * EFFECTS, n + 1)
    return row + 8 * EFFECT_HEAD


@overload_method(ContextType, "send")
@bare
def _send(ctx: Any, dst: Any, delay: Any, message: Any) -> Any:
    _check_whole("send to", dst)
    if not isinstance(delay, types.Integer):
        raise TypingError(f"send after {delay} ticks: a delay is a whole number of ticks, round it with int()")
    index = _index_of(ctx, message)
    write = _writer(ctx, index, message)
    tag = SEND << 32 | index

    def send(ctx: Any, dst: Any, delay: Any, message: Any) -> None:
        a = address_of(ctx)
        to, after = np.int64(dst), np.int64(delay)
        check_send(a, to, after)
        write(new_effect(a, to, after, tag), message)

    return send


@overload_method(ContextType, "emit")
@bare
def _emit(ctx: Any, message: Any) -> Any:
    index = _index_of(ctx, message)
    write = _writer(ctx, index, message)
    tag = EMIT << 32 | index
    return lambda ctx, message: write(new_effect(address_of(ctx), 0, 0, tag), message)


@overload_method(ContextType, "add", prefer_literal=True)
@bare
def _add(ctx: Any, name: Any, n: Any = 1) -> Any:
    accumulators = ctx.around.accumulators
    if getattr(name, "literal_value", None) not in accumulators:
        raise TypingError(f"add({_literal(name)}): the model's accumulators are: {', '.join(accumulators) or 'none'}")
    if not isinstance(n, (int, types.Omitted)):
        _check_whole("add", n)
    index = list(accumulators).index(name.literal_value)
    unsigned = isinstance(n, types.Integer) and not n.signed

    def add(ctx: Any, name: Any, n: Any = 1) -> None:
        a = address_of(ctx)
        if unsigned and np.int64(n) < 0:
            refuse(a, BAD_NUMBER)
        new_effect(a, index, np.int64(n), ADD << 32)

    return add


@overload_method(ContextType, "note")
@bare
def _note(ctx: Any, bits: Any) -> Any:
    _check_whole("note", bits)
    unsigned = not bits.signed

    def note(ctx: Any, bits: Any) -> None:
        if unsigned and np.int64(bits) < 0:
            refuse(address_of(ctx), BAD_NUMBER)
        put(address_of(ctx) + 8 * NOTE, np.int64(bits))

    return note


def _index_of(ctx: Any, message: Any) -> int:
    cls = getattr(message, "instance_class", None)
    if cls not in ctx.around.messages:
        raise TypingError(f"{message} is no message of the model")
    index: int = ctx.around.messages.index(cls)
    return index


def _writer(ctx: Any, index: int, message: Any) -> Callable[[Any, Any], None]:
    """A function (address, message) that stores the fields of a message natively."""
    form = ctx.around.message_forms[index]
    names: dict[str, Any] = {"__name__": HOME, "view": view, "dtype": native_dtype(form), "copy_array": copy_array}
    source = ["def write(address, message):", " record = view(address, dtype)" if form.fields else " pass"]
    for field in form.fields:
        if field.shape:
            source.append(f" copy_array(record.{field.name}, message.{field.name})")
        else:
            names[f"fit_{field.name}"] = FIT[field.kind.name]
            source.append(f" record.{field.name} = fit_{field.name}(message.{field.name})")
    exec("\n".join(source), names)  # every name in it is a field of a NamedTuple, so an identifier
    return njit(names["write"])  # type: ignore[no-any-return]


def _literal(name: Any) -> str:
    return repr(getattr(name, "literal_value", str(name)))


def _check_whole(what: str, given: Any) -> None:
    """Refuse a number that is not whole, True and False included."""
    if not isinstance(given, types.Integer):
        raise TypingError(f"{what} {given}: it is a whole number")
