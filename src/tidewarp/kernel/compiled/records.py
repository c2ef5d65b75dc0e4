"""Native rows, messages and events into their canonical bytes and back, at the speed of memory.

A form is a table of operations (code, offset, count): ``count`` numbers that lie ``offset`` bytes into the native record and
one after the other in the bytes. The bytes are those of :mod:`tidewarp.kernel.kinds` and :mod:`tidewarp.kernel.records`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from tidewarp.kernel.compiled.context import native_dtype
from tidewarp.kernel.compiled.layout import EVENT, ROW_AT, ROW_HEAD
from tidewarp.kernel.compiled.words import (
    entry,
    get,
    inlined,
    load_2,
    load_4,
    load_8,
    store_2,
    store_4,
    store_8,
    swap_1,
    swap_2,
    swap_4,
    swap_8,
)
from tidewarp.kernel.kinds import Form

__all__ = [
    "RECORD_HEAD",
    "count_frames",
    "operations_of",
    "pack_event",
    "pack_events",
    "pack_fields",
    "pack_rows",
    "unpack_events",
    "unpack_fields",
    "unpack_rows",
]

RECORD_HEAD = 42  # bytes of an event's record before its fields; the U32 length stands before it
_FLOAT = 9  # the code of f64, whose NaNs have one form; other codes are sizes

VECTOR = types.Array(types.int64, 1, "C")
MATRIX = types.Array(types.int64, 2, "C")
BYTES = types.Array(types.uint8, 1, "C")
BYTES_READ = types.Array(types.uint8, 1, "C", readonly=True)
POOL = types.Array(from_dtype(EVENT), 1, "C")
_int = types.int64


def operations_of(forms: Sequence[Form], rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The operations of all forms, one table, and where each form's begin; the first ``rows`` forms are those of rows."""
    table: list[tuple[int, int, int]] = []
    first = [0]
    for place, form in enumerate(forms):
        head = 8 * ROW_HEAD if place < rows else 0
        if head:
            table.append((8, 0, ROW_HEAD))
        dtype = native_dtype(form)
        for field in form.fields:
            offset = dtype.fields[field.name][1]  # type: ignore[index]
            code = _FLOAT if field.kind.code == "d" else int(field.kind.numpy[1:] or 1) if field.kind.code != "?" else 1
            table.append((code, head + offset, field.count))
        first.append(len(table))
    return np.array(table, np.int64).reshape(-1, 3), np.array(first, np.int64)


@inlined
def pack_fields(operations: Any, first: Any, last: Any, source: Any, target: Any) -> Any:
    """Write the fields of the record at ``source`` to ``target``; the address behind them."""
    for j in range(first, last):
        code, at, count = operations[j, 0], source + operations[j, 1], operations[j, 2]
        if code == 8:
            for _ in range(count):
                swap_8(target, at)
                target += 8
                at += 8
        elif code == 9:
            for _ in range(count):
                word = get(at)
                if word & 0x7FFFFFFFFFFFFFFF > 0x7FF0000000000000:
                    word = np.int64(0x7FF8000000000000)
                store_8(target, word)
                target += 8
                at += 8
        elif code == 4:
            for _ in range(count):
                swap_4(target, at)
                target += 4
                at += 4
        elif code == 2:
            for _ in range(count):
                swap_2(target, at)
                target += 2
                at += 2
        else:
            for _ in range(count):
                swap_1(target, at)
                target += 1
                at += 1
    return target


@inlined
def unpack_fields(operations: Any, first: Any, last: Any, source: Any, target: Any) -> Any:
    """Read the fields at ``source`` into the record at ``target``; the address behind them."""
    for j in range(first, last):
        code, at, count = operations[j, 0], target + operations[j, 1], operations[j, 2]
        if code >= 8:
            for _ in range(count):
                swap_8(at, source)
                source += 8
                at += 8
        elif code == 4:
            for _ in range(count):
                swap_4(at, source)
                source += 4
                at += 4
        elif code == 2:
            for _ in range(count):
                swap_2(at, source)
                source += 2
                at += 2
        else:
            for _ in range(count):
                swap_1(at, source)
                source += 1
                at += 1
    return source


@entry((MATRIX, VECTOR, _int, MATRIX, VECTOR, _int, _int, BYTES))
def pack_rows(operations: Any, first: Any, form: Any, lps: Any, rows: Any, lp: Any, count: Any, out: Any) -> None:
    """The rows of ``count`` LPs of one form, from number ``lp`` on."""
    target = out.ctypes.data
    for i in range(lp, lp + count):
        target = pack_fields(operations, first[form], first[form + 1], rows.ctypes.data + 8 * lps[i, ROW_AT], target)


@entry((MATRIX, VECTOR, _int, MATRIX, VECTOR, _int, _int, BYTES_READ))
def unpack_rows(operations: Any, first: Any, form: Any, lps: Any, rows: Any, lp: Any, count: Any, data: Any) -> None:
    """The inverse: ``data`` holds exactly these rows."""
    source = data.ctypes.data
    for i in range(lp, lp + count):
        target = rows.ctypes.data + 8 * lps[i, ROW_AT]
        source = unpack_fields(operations, first[form], first[form + 1], source, target)


@inlined
def pack_event(operations: Any, first: Any, form: Any, event: Any, fields: Any, target: Any) -> Any:
    """The framed record of one event, whose message of form ``form`` has its fields at an address; the address behind it."""
    store_8(target + 4, event.time)
    store_8(target + 12, np.int64(event.generation))
    store_8(target + 20, np.int64(event.dst))
    store_8(target + 28, np.int64(event.src))
    store_8(target + 36, np.int64(event.seq))
    store_2(target + 44, np.int64(event.kind))
    end = pack_fields(operations, first[form], first[form + 1], fields, target + 4 + RECORD_HEAD)
    store_4(target, end - target - 4)
    return end


@entry(_int(MATRIX, VECTOR, _int, POOL, MATRIX, VECTOR, BYTES))
def pack_events(operations: Any, first: Any, rows: Any, pool: Any, payload: Any, slots: Any, out: Any) -> Any:
    """The framed records of these slots, in their order; how many bytes. ``rows``: how many forms stand before the messages'."""
    target = out.ctypes.data
    for s in slots:
        fields = payload.ctypes.data + 8 * s * payload.shape[1]
        target = pack_event(operations, first, rows + pool[s].kind, pool[s], fields, target)
    return target - out.ctypes.data


@entry(_int(VECTOR, BYTES_READ))
def count_frames(sizes: Any, data: Any) -> Any:
    """How many event records ``data`` holds; -1 if a length or message index is none. ``sizes``: bytes of each message."""
    at, n = 0, 0
    base = data.ctypes.data
    while at < len(data):
        if at + 4 + RECORD_HEAD > len(data):
            return -1
        kind = load_2(base + at + 44)
        if kind >= len(sizes) or load_4(base + at) != RECORD_HEAD + sizes[kind]:
            return -1
        at += 4 + RECORD_HEAD + sizes[kind]
        n += 1
    return n if at == len(data) else -1


@entry((MATRIX, VECTOR, _int, BYTES_READ, POOL, MATRIX))
def unpack_events(operations: Any, first: Any, rows: Any, data: Any, pool: Any, payload: Any) -> None:
    """Fill the first slots with the framed records that :func:`count_frames` has counted."""
    source, end, s = data.ctypes.data, data.ctypes.data + len(data), 0
    while source < end:
        event = pool[s]
        event.time = load_8(source + 4)
        event.generation = np.int32(load_8(source + 12))
        event.dst = np.int32(load_8(source + 20))
        event.src = np.int32(load_8(source + 28))
        event.seq = np.uint64(load_8(source + 36))
        event.kind = np.int16(load_2(source + 44))
        form = rows + event.kind
        fields = payload.ctypes.data + 8 * s * payload.shape[1]
        source = unpack_fields(operations, first[form], first[form + 1], source + 4 + RECORD_HEAD, fields)
        s += 1
