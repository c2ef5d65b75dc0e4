"""Events as tuples, and their byte forms: one record for an event, one image for the state between two events."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from tidewarp.errors import CodecError, InternalError
from tidewarp.kernel.kinds import Form
from tidewarp.kernel.model import Model

__all__ = ["HIDDEN", "Event", "Image", "framed", "pack_event", "split_frames", "split_rows", "unpack_event"]

Event: TypeAlias = tuple[int, int, int, int, int, Any]
"""(time, generation, dst, src, src_seq, message): the event key, then what it carries. Keys are unique, so tuples
sort by key and never compare messages."""

_HEAD = struct.Struct(">qQqqQH")
_u32 = struct.Struct(">I")
HIDDEN = struct.Struct(">QQ")
"""The words that every LP has before its fields: draws made, messages sent."""


class Image(NamedTuple):
    """The exact state of a model between two events; equal images are equal states, in any engine and tier.

    ``rows`` has one entry for each group: the rows of its LPs one after the other, each :data:`HIDDEN` and then the
    fields in their byte form (with a U32 length before it if the class has Bytes fields). ``pending`` holds the
    records of all events still to be executed, in key order, each after its U32 length.
    """

    rows: tuple[bytes, ...]
    pending: bytes


def pack_event(model: Model, event: Event) -> bytes:
    """An event's record: time I64, generation U64, dst I64, src I64, src_seq U64, message index U16, fields; big-endian.

    Raises:
        RangeError: a field of the message that its kind cannot hold.
    """
    time, generation, dst, src, src_seq, message = event
    index = model.message_index[type(message)]
    return _HEAD.pack(time, generation, dst, src, src_seq, index) + model.message_forms[index].pack(
        message, model.path(src)
    )


def unpack_event(model: Model, record: bytes | memoryview) -> Event:
    """The event of a record.

    Raises:
        CodecError: no record of this model.
    """
    try:
        time, generation, dst, src, src_seq, index = _HEAD.unpack_from(record)
        form = model.message_forms[index]
        values: Sequence[Any] = form.unpack(record[_HEAD.size :])
        message = model.messages[index]._make(form.sealed(values) if form.has_arrays else values)
    except (struct.error, IndexError, ValueError) as error:
        raise CodecError(
            f"an event record of {len(record)} bytes", f"it is none of model {model.name!r}", "take the bytes whole"
        ) from error
    return time, generation, dst, src, src_seq, message


def framed(records: Iterable[bytes]) -> bytes:
    """Records one after the other, each after its U32 length."""
    return b"".join(part for record in records for part in (_u32.pack(len(record)), record))


def split_frames(data: bytes) -> Iterator[memoryview]:
    """The records of :func:`framed`.

    Raises:
        CodecError: a length that leads beyond the end.
    """
    view = memoryview(data)
    at = 0
    while at < len(view):
        end = at + 4 + (_u32.unpack_from(view, at)[0] if at + 4 <= len(view) else len(view))
        if end > len(view):
            raise CodecError(
                f"a record at byte {at} of {len(view)}", "its length leads beyond the end", "take the bytes whole"
            )
        yield view[at + 4 : end]
        at = end


def split_rows(form: Form, data: bytes, count: int) -> Sequence[bytes | memoryview]:
    """The rows of one group.

    Raises:
        InternalError: bytes of another length.
    """
    if not form.fixed:
        return list(split_frames(data))
    size = HIDDEN.size + form.size
    if len(data) != count * size:
        raise InternalError(
            f"{len(data)} bytes for {count} rows of {form.name}", f"a row has {size}", "please report this"
        )
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(data), size)]
