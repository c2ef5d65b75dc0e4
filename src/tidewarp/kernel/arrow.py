"""Committed outputs as a table of Apache Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidewarp.errors import MissingExtra
from tidewarp.kernel.kinds import Field
from tidewarp.kernel.model import Model
from tidewarp.kernel.trace import Output

__all__ = ["table_of"]

_TYPES = {
    **{f"{sign}{bits}": f"{name}{bits}" for sign, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
    "f64": "float64",
    "b1": "bool_",
    "bytes": "binary",
}
"""The name of each kind in pyarrow."""


def table_of(model: Model, outputs: Sequence[Output]) -> Any:
    """``id tick lp path message``, then a column of structs for each message class among the outputs, null in the rows of others.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra("to_arrow()", "pyarrow is not installed", "pip install 'tidewarp[arrow]'") from error
    columns = {
        "id": pa.array([output.id for output in outputs], pa.string()),
        "tick": pa.array([output.tick for output in outputs], pa.int64()),
        "lp": pa.array([output.lp for output in outputs], pa.int64()),
        "path": pa.array([model.path(output.lp) for output in outputs], pa.string()),
        "message": pa.array([type(output.message).__name__ for output in outputs], pa.string()),
    }
    present = {type(output.message) for output in outputs}
    for message, form in zip(model.messages, model.message_forms, strict=True):
        if message in present:
            kind = pa.struct([(field.name, _type_of(pa, field)) for field in form.fields])
            rows = [
                dict(zip(form.names, o.message, strict=True)) if type(o.message) is message else None for o in outputs
            ]
            name = (
                message.__name__ if message.__name__ not in columns else f"{message.__module__}.{message.__qualname__}"
            )
            columns[name] = pa.array(rows, kind)
    return pa.table(columns)


def _type_of(pa: Any, field: Field) -> Any:
    kind = getattr(pa, _TYPES[field.kind.name])()
    for size in reversed(field.shape):
        kind = pa.list_(kind, size)
    return kind
