"""Documents: values with a schema name and a version, and the functions that lift old versions to new ones.

Bytes: ``pack([schema, version, value])``. A history is never rewritten: what an older release wrote is lifted
each time that it is read. Versions count from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from tidewarp.codec.canonical import pack, unpack
from tidewarp.errors import CodecError, InternalError

__all__ = ["Document", "check_upcasters", "pack_document", "unpack_document", "upcaster"]

Upcaster: TypeAlias = Callable[[Any], Any]
"""The value of one version, as the value of the next."""

_chains: dict[str, dict[int, Upcaster]] = {}
_checked: set[str] = set()


class Document(NamedTuple):
    """A value of a schema. ``version`` is that of ``value``, ``stored_version`` that of the bytes."""

    schema: str
    version: int
    value: Any
    stored_version: int


def pack_document(schema: str, version: int, value: Any) -> bytes:
    """The canonical bytes of a document; ``value`` may nest one level less than :func:`pack` allows.

    Raises:
        CodecError: no schema name, a version below 1, or a value without canonical form.
    """
    return pack([_named(schema), _counted(version), value])


def unpack_document(data: bytes) -> Document:
    """Read a document and lift its value to the newest version that a registered upcaster leads to.

    Pure: an upcaster is a function of the value. A version newer than all known ones is returned as it is.

    Raises:
        CodecError: not the bytes of a document, or an upcaster could not read the value.
        InternalError: the schema's upcasters have a gap.
    """
    parts = unpack(data)
    if type(parts) is not list or len(parts) != 3:
        raise CodecError(f"{len(data)} bytes", "a document is an array of schema, version, value", "send a document")
    schema, stored, value = _named(parts[0]), _counted(parts[1]), parts[2]
    version = stored
    chain = _chains.get(schema, {})
    if chain and schema not in _checked:
        check_upcasters()
    while version in chain:
        value = _lifted(chain[version], schema, version, value)
        version += 1
    return Document(schema, version, value, stored)


def upcaster(schema: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register the decorated function as the step from ``from_version`` to the next version of ``schema``.

    The steps of one schema lead from version 1 on without a gap; that is checked at the schema's first use,
    because the modules that declare them may be imported in any order.

    Raises:
        InternalError: this step is registered already.
    """

    def register(function: Upcaster) -> Upcaster:
        chain = _chains.setdefault(_named(schema), {})
        if chain.setdefault(_counted(from_version), function) is not function:
            raise InternalError(f"upcaster {schema} {from_version}", "registered twice", "keep one of the two")
        _checked.discard(schema)
        return function

    return register


def check_upcasters() -> None:
    """Check every schema's chain of upcasters.

    Raises:
        InternalError: a step between version 1 and the newest one is missing.
    """
    for schema, chain in _chains.items():
        for version in range(1, max(chain)):
            if version not in chain:
                raise InternalError(f"upcasters of {schema}", f"no step from version {version}", "register one")
        _checked.add(schema)


def _lifted(step: Upcaster, schema: str, version: int, value: Any) -> Any:
    try:
        return step(value)
    except Exception as error:  # the value came from outside: a step may meet any shape
        raise CodecError(
            f"document {schema} version {version}", f"cannot be lifted: {error!r}", "ask its writer"
        ) from error


def _named(schema: object) -> str:
    if type(schema) is not str or not schema:
        raise CodecError(f"schema of type {type(schema).__name__}", "a schema is a name", "send a document")
    return schema


def _counted(version: object) -> int:
    if type(version) is not int or version < 1:
        raise CodecError(f"version {version!r:.40}", "versions count from 1", "send a document")
    return version
