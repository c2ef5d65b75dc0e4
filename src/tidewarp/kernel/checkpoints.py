"""A run between two events as bytes: the one form of a checkpoint, what changed since another, and when to take one.

A checkpoint lies at a multiple of the model's ``trace_interval``: there the chains of the digest close a block, so a run
that goes on from it, in any engine and tier and on any number of PEs and ranks, ends with the digest of the run that was never stopped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from tidewarp.codec import Digest
from tidewarp.errors import CheckpointRefused, CodecError, InternalError
from tidewarp.kernel.context import GENERATIONS_MAX
from tidewarp.kernel.kinds import Form
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Group, Model
from tidewarp.kernel.publications import PUBLISHER
from tidewarp.kernel.records import HIDDEN, Image, framed, pack_event, split_frames, split_rows, unpack_event
from tidewarp.units import TICK_MAX

__all__ = [
    "DELTAS_MAX",
    "DIGEST_BYTES",
    "OF_ANOTHER_RUN",
    "Saved",
    "apply_delta",
    "base_of",
    "decode",
    "delta",
    "digest_of",
    "encode",
    "interval_ticks",
    "young_interval_s",
]

DIGEST_BYTES = 32
DELTAS_MAX = 16
"""After so many deltas against one base a whole checkpoint is due."""

OF_ANOTHER_RUN = "use the options that it was made with, or another checkpoint"
"""What to do with a checkpoint that is whole, but of another model or seed."""


_WHOLE, _DELTA = b"TWCKPT1", b"TWDELTA1"
_HEAD = struct.Struct(">7s32sQqqB32s32sQQ")
_SOURCE = struct.Struct(">qQ")
_u64 = struct.Struct(">Q")
_u32 = struct.Struct(">I")
_DAMAGED = "use a whole checkpoint of this model"
_NAN_BITS = 0x7FF8000000000000


class Saved(NamedTuple):
    """What a checkpoint holds: everything below ``tick`` is committed, nothing at or above it has been touched.

    ``trace`` and ``emitted`` are the heads of the two chains, ``committed`` and ``outputs`` the counts of their records;
    a run without a trace (``tracing`` False) has 32 zero bytes for the first. ``watermarks`` and ``counts`` are those of the
    sources in their order, ``published`` is the last tick at which accumulators were sent.
    """

    tick: int
    published: int
    tracing: bool
    trace: bytes
    emitted: bytes
    committed: int
    outputs: int
    accumulators: tuple[int, ...]
    watermarks: tuple[int, ...]
    counts: tuple[int, ...]
    image: Image


def encode(model: Model, saved: Saved) -> bytes:
    """The bytes of a checkpoint, big-endian; equal states have equal bytes whatever executed them.

    ``"TWCKPT1" | model digest | seed U64 | tick I64 | published I64 | tracing U8 | head of the events' chain | head of the
    outputs' chain | committed U64 | outputs U64 | accumulators I128 each | (watermark I64, count U64) of each source | rows of
    each group, after a U64 length | pending events in key order, after a U64 length | Digest("TWCKPT1")`` over all before.
    """
    body = _body(model, saved)
    return body + _seal(_WHOLE, body)


def _body(model: Model, saved: Saved) -> bytes:
    parts = [
        _HEAD.pack(
            _WHOLE, bytes.fromhex(model.digest()), model.seed, saved.tick, saved.published, saved.tracing, *saved[3:7]
        ),
        *(n.to_bytes(16, "big", signed=True) for n in saved.accumulators),
        *(_SOURCE.pack(*source) for source in zip(saved.watermarks, saved.counts, strict=True)),
    ]
    for data in (*saved.image.rows, saved.image.pending):
        parts += [_u64.pack(len(data)), data]
    return b"".join(parts)


def _seal(label: bytes, *parts: bytes | memoryview) -> bytes:
    digest = Digest(label.decode())
    for part in parts:
        digest.add(part)  # type: ignore[arg-type]
    return digest.digest()


def digest_of(data: bytes) -> str:
    """The digest that names a checkpoint: the last 32 of its bytes, as digits."""
    return data[-DIGEST_BYTES:].hex()


def base_of(change: bytes) -> str:
    """The digest of the checkpoint that a delta was made against."""
    return change[len(_DELTA) :][:DIGEST_BYTES].hex()


def decode(model: Model, data: bytes) -> Saved:
    """What the bytes of a checkpoint hold; all of it is checked before any of it is used.

    Raises:
        CheckpointRefused: bytes that :func:`encode` would not write for this model and seed: cut, altered, of another model.
    """
    _check_seal(data, _WHOLE)
    body = data[:-DIGEST_BYTES]
    try:
        saved = _parse(model, memoryview(body))
        _check_rows(model, saved.image)
        _check_pending(model, saved)
        same = _body(model, saved) == body
    except (struct.error, CodecError, InternalError, ValueError, OverflowError) as error:
        action = OF_ANOTHER_RUN if isinstance(error, _OfAnotherRun) else _DAMAGED
        raise _refusal(data, f"it is no checkpoint of model {model.name!r} ({error})", action) from error
    if not same:
        raise _refusal(data, "it is not written in the one form that a checkpoint has")
    return saved


def _refusal(data: bytes, rule: str, action: str = _DAMAGED) -> CheckpointRefused:
    return CheckpointRefused(f"checkpoint {digest_of(data)[:16]} of {len(data)} bytes", rule, action)


def _check_seal(data: bytes, label: bytes) -> None:
    if not data.startswith(label) or len(data) < len(label) + DIGEST_BYTES:
        raise _refusal(data, f"a checkpoint begins with {label.decode()} and ends with its digest")
    if _seal(label, data[:-DIGEST_BYTES]) != data[-DIGEST_BYTES:]:
        raise _refusal(data, "its bytes do not have the digest at their end: cut short or altered")


class _Reader:
    """Takes parts off the front of bytes, and never more than there are."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._view):
            raise ValueError(f"{size} bytes wanted at {self._at} of {len(self._view)}")
        part = self._view[self._at : end]
        self._at = end
        return part

    def take_struct(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def take_long(self) -> bytes:
        return bytes(self.take(self.take_struct(_u64)[0]))

    def finish(self) -> None:
        if self._at != len(self._view):
            raise ValueError(f"{len(self._view) - self._at} bytes too many")


class _OfAnotherRun(ValueError):
    """Whole bytes, but not for this model and seed."""


def _parse(model: Model, view: memoryview) -> Saved:
    model_digest = bytes.fromhex(model.digest())
    reader = _Reader(view)
    _, name, seed, tick, published, tracing, trace, emitted, committed, outputs = reader.take_struct(_HEAD)
    if name != model_digest:
        raise _OfAnotherRun(f"it is of model {name.hex()[:16]}, this one is {model.digest()[:16]}")
    if seed != model.seed:
        raise _OfAnotherRun(f"its seed is {seed}, this model's is {model.seed}")
    if not 0 <= published <= tick or tick % model.trace_interval or tracing > 1 or not (tracing or trace == bytes(32)):
        raise ValueError(f"tick {tick}, published {published}, tracing {tracing}")
    accumulators = tuple(int.from_bytes(reader.take(16), "big", signed=True) for _ in model.accumulators)
    sources = [reader.take_struct(_SOURCE) for _ in model.sources]
    if any(watermark < -1 for watermark, _ in sources):
        raise ValueError("a watermark below -1")
    image = Image(tuple(reader.take_long() for _ in model.groups), reader.take_long())
    reader.finish()
    watermarks, counts = tuple(watermark for watermark, _ in sources), tuple(count for _, count in sources)
    return Saved(
        tick, published, bool(tracing), trace, emitted, committed, outputs, accumulators, watermarks, counts, image
    )


def _check_rows(model: Model, image: Image) -> None:
    for group, rows in zip(model.groups, image.rows, strict=True):
        form = form_of_lp(group.cls)
        parts = split_rows(form, rows, group.count)
        if len(parts) != group.count:
            raise ValueError(f"{len(parts)} rows of {group.path}, {group.count} LPs")
        if form.fixed:
            _check_numbers(form, rows, group)
            continue
        for part in parts:
            if form.pack(form.unpack(part[HIDDEN.size :]), group.path) != part[HIDDEN.size :]:
                raise ValueError(f"a row of {group.path} in another form")


def _check_numbers(form: Form, rows: bytes, group: Group) -> None:
    """Only flags and floats have bytes that stand for no value: a flag of 2, a NaN of another payload."""
    bits = {"?": ">u1", "d": ">u8"}
    kinds = [(field.name, bits.get(field.kind.code, f">{field.kind.numpy}"), field.shape) for field in form.fields]
    table = np.frombuffer(rows, np.dtype([("hidden words", f"V{HIDDEN.size}"), *kinds]))
    for field in form.fields:
        column = table[field.name]
        if field.kind.code == "?" and (column > 1).any():
            raise ValueError(f"a flag of {group.path} that is neither 0 nor 1")
        if field.kind.code == "d" and ((column << np.uint64(1) > 0xFFE << 52) & (column != _NAN_BITS)).any():
            raise ValueError(f"a NaN of {group.path} in another form")


def _check_pending(model: Model, saved: Saved) -> None:
    before: tuple[int, ...] = ()
    for record in split_frames(saved.image.pending):
        event = unpack_event(model, record)
        time, generation, dst, src, _, _ = event
        known = 0 <= src < model.n_lps or src == PUBLISHER or 0 <= src + 2**31 < len(model.sources)
        if not (saved.tick <= time <= TICK_MAX and generation <= GENERATIONS_MAX and 0 <= dst < model.n_lps and known):
            raise ValueError(f"a pending event {event[:5]}")
        if event[:5] <= before or pack_event(model, event) != record:
            raise ValueError(f"the pending event {event[:5]} in another order or form")
        before = event[:5]


# --- deltas ---------------------------------------------------------------------------------------------------


def delta(model: Model, base: bytes, data: bytes) -> bytes:
    """What turns the checkpoint ``base`` into the checkpoint ``data``: the rows that differ, and everything that is no row.

    Both are checkpoints of this model by :func:`encode`.

    ``"TWDELTA1" | digest of base | digest of data | (count U32, (place U32, row after U32 length) each) of each group | the
    parts of data before its rows, after a U64 length | its pending events | Digest("TWDELTA1")`` over all before.
    """
    old, new = (_parse(model, memoryview(whole)[:-DIGEST_BYTES]) for whole in (base, data))
    parts = [_DELTA, base[-DIGEST_BYTES:], data[-DIGEST_BYTES:]]
    for before, after in zip(_rows_of(model, old.image), _rows_of(model, new.image), strict=True):
        changed = [place for place, row in enumerate(after) if row != before[place]]
        parts.append(_u32.pack(len(changed)))
        parts += [_u32.pack(place) + framed((bytes(after[place]),)) for place in changed]
    rows_bytes = sum(_u64.size + len(rows) for rows in new.image.rows)
    head = data[: len(data) - DIGEST_BYTES - _u64.size - len(new.image.pending) - rows_bytes]
    for part in (head, new.image.pending):
        parts += [_u64.pack(len(part)), part]
    body = b"".join(parts)
    return body + _seal(_DELTA, body)


def _rows_of(model: Model, image: Image) -> Iterator[list[bytes | memoryview]]:
    for group, rows in zip(model.groups, image.rows, strict=True):
        yield list(split_rows(form_of_lp(group.cls), rows, group.count))


def apply_delta(model: Model, base: bytes, change: bytes) -> bytes:
    """The checkpoint that ``change`` makes of ``base``.

    Raises:
        CheckpointRefused: another base than the one it was made for, or bytes that :func:`delta` did not write.
    """
    _check_seal(change, _DELTA)
    wanted, result = change[len(_DELTA) :][:DIGEST_BYTES], change[len(_DELTA) + DIGEST_BYTES :][:DIGEST_BYTES]
    if wanted != base[-DIGEST_BYTES:]:
        raise _refusal(change, f"it was made for base {wanted.hex()[:16]}, not {digest_of(base)[:16]}", "give its base")
    old = decode(model, base)
    try:
        data = _changed(model, old.image, _Reader(memoryview(change)[len(_DELTA) + 2 * DIGEST_BYTES : -DIGEST_BYTES]))
    except (struct.error, ValueError) as error:
        raise _refusal(change, f"it is no delta of model {model.name!r} ({error})") from error
    if data[-DIGEST_BYTES:] != result:
        raise _refusal(change, f"it gives checkpoint {digest_of(data)[:16]}, not {result.hex()[:16]}")
    decode(model, data)
    return data


def _changed(model: Model, image: Image, reader: _Reader) -> bytes:
    parts: list[bytes] = []
    for group, rows in zip(model.groups, _rows_of(model, image), strict=True):
        for _ in range(reader.take_struct(_u32)[0]):
            place, size = *reader.take_struct(_u32), *reader.take_struct(_u32)
            if place >= len(rows):
                raise ValueError(f"row {place} of {len(rows)}")
            rows[place] = reader.take(size)
        joined = b"".join(rows) if form_of_lp(group.cls).fixed else framed(map(bytes, rows))
        parts += [_u64.pack(len(joined)), joined]
    head, pending = reader.take_long(), reader.take_long()
    reader.finish()
    body = b"".join([head, *parts, _u64.pack(len(pending)), pending])
    return body + _seal(_WHOLE, body)


# --- when -----------------------------------------------------------------------------------------------------


def young_interval_s(cost_s: float, between_failures_s: float) -> float:
    """Seconds of work between two checkpoints that lose the least: sqrt(2 · cost · mean time between failures).

    ``cost_s`` is what one checkpoint takes. Source: J. W. Young, "A first order approximation to the optimum checkpoint
    interval", CACM 17 (1974).
    """
    return sqrt(2.0 * cost_s * between_failures_s)


def interval_ticks(interval_s: float, ticks_per_s: float, trace_interval: int) -> int:
    """The same as virtual time, at a measured speed: a multiple of ``trace_interval``, at least one."""
    blocks_max = TICK_MAX // trace_interval
    blocks = round(min(interval_s * ticks_per_s / trace_interval, float(blocks_max)))
    return max(1, min(blocks, blocks_max)) * trace_interval
