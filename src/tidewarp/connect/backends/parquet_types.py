"""The Arrow type of plain values, and the one type that two of them share. A folder of Parquet files has one schema."""

from __future__ import annotations

from functools import reduce
from typing import Any

__all__ = ["LEAVES_MAX", "Misfit", "shaped", "shared", "type_of", "written_type"]

LEAVES_MAX = 256
"""Columns that a value may have: a struct whose fields are named by data would get one more for each row."""


class Misfit(ValueError):
    """A value that has no Arrow type, or none in common with those before it."""


def type_of(pa: Any, value: Any) -> Any:
    """The Arrow type of a plain value (None, bool, int, float, str, bytes, list, dict). Raises Misfit."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Misfit(f"{value} does not fit in 64 bits")
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, list):
        return pa.list_(reduce(lambda one, item: shared(pa, one, type_of(pa, item)), value, pa.null()))
    if isinstance(value, dict):
        return pa.struct([(name, type_of(pa, part)) for name, part in value.items()])
    return pa.string() if isinstance(value, str) else pa.binary()


def shared(pa: Any, one: Any, other: Any) -> Any:
    """The type that holds the values of both: int widens to float, null to all, a struct gets the fields of both."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(shared(pa, one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = shared(pa, fields.get(field.name, pa.null()), field.type)
        kind = pa.struct([*fields.items()])
        if _leaves(pa, kind) > LEAVES_MAX:
            raise Misfit(
                f"it would be column {LEAVES_MAX + 1} of the values in this folder: its fields are named by data"
            )
        return kind
    raise Misfit(f"a value of type {other}, where those before it are {one}")


def _leaves(pa: Any, kind: Any) -> int:
    if pa.types.is_struct(kind):
        return sum(_leaves(pa, field.type) for field in kind)
    return _leaves(pa, kind.value_type) if pa.types.is_list(kind) else 1


def written_type(pa: Any, kind: Any) -> Any:
    """The type as Parquet can write it, which has no struct without fields: null stands for it."""
    if pa.types.is_struct(kind):
        return (
            pa.struct([(field.name, written_type(pa, field.type)) for field in kind]) if kind.num_fields else pa.null()
        )
    return pa.list_(written_type(pa, kind.value_type)) if pa.types.is_list(kind) else kind


def shaped(pa: Any, value: Any, kind: Any) -> Any:
    """The value as an array of this type takes it: an int as a float, an object without fields as null."""
    if value is None or pa.types.is_null(kind):
        return None
    if pa.types.is_float64(kind):
        return float(value)
    if pa.types.is_list(kind):
        return [shaped(pa, item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: shaped(pa, value.get(field.name), field.type) for field in kind}
    return value
