"""Arrays as the kernels hold them: an address and lengths, nothing else.

Numba's own array is a structure of seven words and more, with counted references, strides and wrapped negative indices. A function
that takes a PE's thirty arrays has then 220 arguments, and every access is tens of instructions to type, lower and optimise. A
:class:`Span` is C-contiguous, borrows its memory from an array that the caller holds, and its indices are not negative.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import StructModel
from numba.core.imputils import lower_builtin, lower_getattr
from numba.core.typing.arraydecl import GetItemBuffer, SetItemBuffer
from numba.core.typing.templates import infer_global
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import make_array

__all__ = ["Span", "address_of", "spans"]

_WORD = ir.IntType(64)


class Span(types.Array):  # type: ignore[misc]
    """The type of a borrowed array of ``ndim`` axes; Numba's rules of typing arrays hold for it.

    What is stored as a shorter integer is read as int64, so that no function is compiled once for each width of its arguments.
    """

    def __init__(self, stored: Any, ndim: int) -> None:
        self.stored = stored
        name = stored.name if isinstance(stored, types.Number) else f"record{stored.size}"
        super().__init__(
            types.int64 if isinstance(stored, types.Integer) else stored, ndim, "C", name=f"span{ndim}{name}"
        )

    @property
    def mangling_args(self) -> Any:
        """Short names: of what the symbols of functions are made."""
        return self.name, ()

    @property
    def key(self) -> Any:
        """What makes two spans the same type."""
        return self.stored, self.ndim

    def copy(self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None) -> Span:
        """As Numba asks for the type of an array's part."""
        return Span(self.stored, self.ndim if ndim is None else ndim)


@register_model(Span)
class _SpanModel(StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, span: Any) -> None:
        sizes = [(f"size_{axis}", types.intp) for axis in range(span.ndim)]
        super().__init__(manager, span, [("data", types.CPointer(span.stored)), *sizes])


# Numba asks the templates of an operator in turn, those of a target before those of all: these save dozens of futile calls.


@infer_global(operator.getitem)
class _GetItem(GetItemBuffer):  # type: ignore[misc]
    metadata = {"target": "cpu"}  # noqa: RUF012

    def generic(self, args: Any, kws: Any) -> Any:
        return super().generic(args, kws) if isinstance(args[0], Span) else None


@infer_global(operator.setitem)
class _SetItem(SetItemBuffer):  # type: ignore[misc]
    metadata = {"target": "cpu"}  # noqa: RUF012

    def generic(self, args: Any, kws: Any) -> Any:
        return super().generic(args, kws) if isinstance(args[0], Span) else None


def _parts(context: Any, builder: Any, span: Any, value: Any) -> tuple[Any, list[Any]]:
    """The pointer and the sizes of a span."""
    parts = [builder.extract_value(value, place) for place in range(span.ndim + 1)]
    return parts[0], parts[1:]


def _make(context: Any, builder: Any, span: Any, data: Any, sizes: list[Any]) -> Any:
    value = cgutils.create_struct_proxy(span)(context, builder)
    value.data = data
    for axis, size in enumerate(sizes):
        setattr(value, f"size_{axis}", size)
    return value._getvalue()


def _place(context: Any, builder: Any, span: Any, value: Any, index: Any, indices: Any) -> tuple[Any, list[Any]]:
    """Pointer to the part that an index, or a tuple of them, names; and the part's sizes."""
    data, sizes = _parts(context, builder, span, value)
    kinds, places = (
        (list(index), cgutils.unpack_tuple(builder, indices, len(index)))
        if isinstance(index, types.BaseTuple)
        else ([index], [indices])
    )
    offset = ir.Constant(_WORD, 0)
    for axis, size in enumerate(sizes):
        if axis:
            offset = builder.mul(offset, size)
        if axis < len(kinds):
            offset = builder.add(offset, context.cast(builder, places[axis], kinds[axis], types.intp))
    return builder.gep(data, [offset]), sizes[len(kinds) :]


@lower_builtin(operator.getitem, Span, types.Integer)
@lower_builtin(operator.getitem, Span, types.BaseTuple)
def _getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, sizes = _place(context, builder, sig.args[0], args[0], sig.args[1], args[1])
    if sizes:
        return _make(context, builder, sig.return_type, pointer, sizes)
    span = sig.args[0]
    return context.cast(builder, context.unpack_value(builder, span.stored, pointer), span.stored, span.dtype)


@lower_builtin(operator.setitem, Span, types.Integer, types.Any)
@lower_builtin(operator.setitem, Span, types.BaseTuple, types.Any)
def _setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, _ = _place(context, builder, sig.args[0], args[0], sig.args[1], args[1])
    stored = sig.args[0].stored
    context.pack_value(builder, stored, context.cast(builder, args[2], sig.args[2], stored), pointer)
    return context.get_dummy_value()


@lower_builtin(len, Span)
def _len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.extract_value(args[0], 1)


@lower_getattr(Span, "shape")
def _shape(context: Any, builder: Any, span: Any, value: Any) -> Any:
    return cgutils.pack_array(builder, _parts(context, builder, span, value)[1])


@intrinsic
def address_of(typing: Any, span: Any) -> Any:
    """The address of a span, as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(builder.extract_value(args[0], 0), _WORD)

    return types.int64(span), generate


@intrinsic
def spans(typing: Any, arrays: Any) -> Any:
    """A named tuple of C arrays as one of spans; the caller keeps the arrays."""
    borrowed = types.NamedTuple(tuple(Span(array.dtype, array.ndim) for array in arrays), arrays.instance_class)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = []
        for place, array in enumerate(arrays):
            value = make_array(array)(context, builder, builder.extract_value(args[0], place))
            sizes = cgutils.unpack_tuple(builder, value.shape, array.ndim)
            made.append(_make(context, builder, borrowed[place], value.data, sizes))
        return context.make_tuple(builder, borrowed, made)

    return borrowed(arrays), generate
