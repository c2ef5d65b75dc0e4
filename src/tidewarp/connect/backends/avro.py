"""Avro with one schema: what of a record it fits, and its bytes. The encoding itself is fastavro's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from io import BytesIO
from typing import Any

from tidewarp.connect.contract import Undecodable
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["SCHEMAS_MAX", "Form", "bounded", "plain"]

SCHEMAS_MAX = 1_000  # that a reader keeps; of more the oldest are asked for again
_SHOWN_MAX = 200


def _fastavro() -> Any:
    try:
        import fastavro.validation
    except ImportError as error:
        raise MissingExtra("Avro", "it needs fastavro", "pip install 'tidewarp[avro]'") from error
    return fastavro


def plain(value: Any) -> Any:
    """``value`` as Avro writes it: a pydantic model (an AvroBaseModel too) as the mapping of its fields."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else value


def bounded(schemas: dict[Any, Form]) -> None:
    """Make room for one schema more."""
    while len(schemas) >= SCHEMAS_MAX:
        del schemas[next(iter(schemas))]


class Form:
    """A parsed schema. ``named``: name -> schema (as JSON gives it) of those that it refers to.

    Raises:
        ValueError: ``definition`` is no Avro schema.
    """

    def __init__(self, definition: str, named: Mapping[str, Any] | None = None) -> None:
        fastavro = _fastavro()
        self._read, self._write = fastavro.schemaless_reader, fastavro.schemaless_writer
        self._validate = fastavro.validation.validate
        try:
            known: dict[str, Any] = {}
            for schema in (named or {}).values():
                fastavro.parse_schema(schema, named_schemas=known)
            self._schema = fastavro.parse_schema(json.loads(definition), named_schemas=known)
        except Exception as error:  # fastavro has no base class for its complaints
            raise ValueError(f"no Avro schema ({type(error).__name__}: {error!s:.{_SHOWN_MAX}})") from error
        fields = self._schema.get("fields", ()) if isinstance(self._schema, dict) else ()
        self._fields = {field["name"] for field in fields}

    def chosen(self, record: Mapping[str, Any]) -> Any:
        """The ``value`` of the record if the schema fits it and not the whole record; else the whole record.

        Raises:
            ValueError: it fits neither.
        """
        value = plain(record.get("value"))
        whole = {**record, "value": value}
        if self._fits(whole):
            return whole
        if self._fits(value):
            return value
        raise ValueError(f"the schema fits neither the record nor its value ({self._complaint(value)})")

    def _fits(self, datum: Any) -> bool:
        """A record whose fields have defaults would fit any mapping: one field at least must be there."""
        if self._fields and not (isinstance(datum, Mapping) and not self._fields.isdisjoint(datum)):
            return False
        return bool(self._validate(datum, self._schema, raise_errors=False))

    def _complaint(self, datum: Any) -> str:
        try:
            self._validate(datum, self._schema)
        except Exception as error:
            return f"{error!s:.{_SHOWN_MAX}}"
        return "it has no field of the schema"

    def write(self, datum: Any) -> bytes:
        """The Avro bytes of ``datum``. Raises ValueError if it does not fit after all."""
        out = BytesIO()
        try:
            self._write(out, self._schema, datum)
        except Exception as error:
            raise ValueError(f"no Avro form ({type(error).__name__}: {error!s:.{_SHOWN_MAX}})") from error
        return out.getvalue()

    def read(self, data: bytes) -> Mapping[str, Any]:
        """The record that ``data`` holds; moments in it as ISO 8601. Raises Undecodable."""
        try:
            datum = self._read(BytesIO(data), self._schema)
        except Exception as error:  # among them EOFError, IndexError, RecursionError: the bytes are anybody's
            value = f"{len(data)} bytes of Avro ({type(error).__name__}: {error!s:.{_SHOWN_MAX}})"
            raise Undecodable(value, "its schema does not read them", "send what the schema says", "avro") from error
        if not isinstance(datum, Mapping):
            raise Undecodable(f"a {type(datum).__name__}", "a message is an Avro record", "send a record", "shape")
        return {
            name: part.isoformat() if isinstance(part, datetime | date | time) else part for name, part in datum.items()
        }


def own_form(what: str, definition: str | None) -> Form:
    """The schema that an operator gave for writing. Raises OperatorError without one, or for one that is none."""
    if definition is None:
        raise OperatorError(what, "a serializer needs the schema that it writes", "give schema_str")
    try:
        return Form(definition)
    except ValueError as error:
        raise OperatorError(f"{what}: schema_str", str(error), "correct the schema") from error
